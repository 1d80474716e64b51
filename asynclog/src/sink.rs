//! Where lines go: a file, standard error, or any `Write`.

use std::fmt;
use std::io::{self, Write};
use std::panic;

use crate::log_file::{Continuity, LogFile};

/// The file-writer's target.
pub(crate) enum Sink {
    File(Box<LogFile>),
    Stderr,
    Any(Box<dyn Write + Send>),
    /// A caller's own `Write` that panicked: it is not called again.
    Broken,
}

impl Sink {
    /// To be called before each block.
    pub(crate) fn prepare(&mut self) -> io::Result<Continuity> {
        match self {
            Self::File(file) => file.prepare(),
            Self::Stderr | Self::Any(_) | Self::Broken => Ok(Continuity::Same),
        }
    }

    /// Writes some of the bytes, at least one.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self {
                Self::File(file) => file.write(bytes),
                Self::Stderr => io::stderr().lock().write(bytes),
                Self::Any(writer) => match catch(|| writer.write(bytes)) {
                    Some(written) => written,
                    None => self.give_up(),
                },
                Self::Broken => Err(broken()),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A caller's own `Write` is not trusted to count.
                other => return other.map(|count| count.min(bytes.len())),
            }
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Any(writer) => match catch(|| writer.flush()) {
                Some(flushed) => flushed,
                None => self.give_up(),
            },
            Self::File(_) | Self::Stderr => Ok(()),
            Self::Broken => Err(broken()),
        }
    }

    fn give_up<T>(&mut self) -> io::Result<T> {
        let writer = std::mem::replace(self, Self::Broken);
        // Its destructor may be as broken.
        let _ = catch(|| drop(writer));
        Err(broken())
    }

    pub(crate) fn close_failed(&mut self) {
        if let Self::File(file) = self {
            file.close_failed();
        }
    }

    pub(crate) fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.reopen();
        }
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync(),
            Self::Stderr | Self::Any(_) | Self::Broken => Ok(()),
        }
    }

    /// Nothing more will be written.
    pub(crate) fn finish(&mut self) {
        if let Self::File(file) = self {
            file.finish();
        }
    }

    /// The name of this run, if the file bears it.
    pub(crate) fn run(&self) -> Option<&str> {
        match self {
            Self::File(file) => file.run(),
            Self::Stderr | Self::Any(_) | Self::Broken => None,
        }
    }

    pub(crate) fn take_trouble(&mut self) -> Option<String> {
        match self {
            Self::File(file) => file.take_trouble(),
            Self::Stderr | Self::Any(_) | Self::Broken => None,
        }
    }

    /// So many rolls and reopens so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        match self {
            Self::File(file) => (file.rolls(), file.reopens()),
            Self::Stderr | Self::Any(_) | Self::Broken => (0, 0),
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Stderr => "standard error".into(),
            Self::Any(_) | Self::Broken => "a custom writer".into(),
        }
    }

    /// What goes wrong can be told on standard error, for it goes wrong elsewhere.
    pub(crate) fn is_stderr(&self) -> bool {
        matches!(self, Self::Stderr)
    }
}

/// Runs what is not ours on our thread; `None` when it panics.
fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A writer that panicked is never used again, so no broken state of it is seen.
    panic::catch_unwind(panic::AssertUnwindSafe(run)).ok()
}

fn broken() -> io::Error {
    io::Error::other("the writer panicked")
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({})", self.name())
    }
}
