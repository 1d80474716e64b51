//! The filter file's watch: a thread that sleeps until something changes in the file's folder.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::Level;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::shared::Shared;

/// The folder, not the file: editors replace files. Not `CREATE`, which comes before there is anything in a new file.
fn changes() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::ONLYDIR
}

/// The watching thread's state.
#[derive(Debug)]
pub(crate) struct FilterWatch {
    shared: Arc<Shared>,
    folder: PathBuf,
    events: OwnedFd,
    /// Its other end is closed when the watch is to end.
    end: UnixStream,
}

impl FilterWatch {
    /// Begins to notice changes; and what ends the watch when it is dropped.
    pub(crate) fn new(shared: Arc<Shared>, file: &Path) -> io::Result<(Self, UnixStream)> {
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&events, &folder, changes())?;
        let (ends, end) = UnixStream::pair()?;
        Ok((Self { shared, folder, events, end }, ends))
    }

    /// Runs until its end is asked for, or the folder is gone.
    pub(crate) fn run(self) {
        let mut told = None;
        while let Ok(true) = self.wait() {
            // Fails when the folder that was watched is gone; one that was made anew in its place is watched. Before the file is read, so that no change falls in between;
            // and added to what is watched, for while it is replaced nothing is.
            let watched = inotify::add_watch(&self.events, &self.folder, changes() | WatchFlags::MASK_ADD);
            let problem = self.shared.reload().err().map(|error| error.to_string());
            if let Some(problem) = problem.as_ref().filter(|_| problem != told) {
                self.shared.tell(Level::Warn, &format!("{problem}; the filter stays as it was"));
            }
            told = problem;
            if let Err(error) = watched {
                let folder = self.folder.display();
                let text = format!("the filter file is not watched any more: {folder}: {error}");
                return self.shared.tell(Level::Warn, &text);
            }
        }
    }

    /// True for a change, false for the end.
    fn wait(&self) -> io::Result<bool> {
        loop {
            let mut both = [PollFd::new(&self.events, PollFlags::IN), PollFd::new(&self.end, PollFlags::IN)];
            match poll(&mut both, None) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let [_, end] = &both;
            if !end.revents().is_empty() {
                return Ok(false);
            }
            // Which change it was is of no interest, for the file is small.
            let mut buffer = [0; 4096];
            while rustix::io::read(&self.events, &mut buffer).is_ok_and(|read| read > 0) {}
            return Ok(true);
        }
    }
}
