//! A program that runs in the background of a test, in a process group of its own: started, signalled, ended, started again.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::{Reaper, TestkitError, process, try_wait_until};

/// How long an orderly end may take before it is made short: a database has pages to write.
const STOP_MAX: Duration = Duration::from_secs(60);

/// What is common to the private servers here. Its owner has the folder and must drop this first.
#[derive(Debug)]
pub(crate) struct Daemon {
    dir: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    reaper: Reaper,
}

impl Daemon {
    /// Nothing runs yet. What the program says goes to a file in `dir`, which is removed when this process dies early.
    pub(crate) fn new(dir: &Path) -> Daemon {
        Daemon { dir: dir.to_owned(), running: Mutex::new(None) }
    }

    /// Runs `command` and waits until `ready` holds, or the program has ended, or `within` is over.
    pub(crate) fn launch(
        &self,
        command: &mut Command,
        within: Duration,
        ready: impl FnMut() -> bool,
    ) -> Result<(), TestkitError> {
        self.spawn(command)?;
        self.until_ready(Path::new(command.get_program()), within, ready)
    }

    /// The first half of that.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<(), TestkitError> {
        let said = || {
            File::options()
                .create(true)
                .append(true)
                .open(self.dir.join("said.txt"))
                .map_err(|e| TestkitError::io("open a server's said.txt", e))
        };
        command.stdin(Stdio::null()).stdout(said()?).stderr(said()?).process_group(0);
        let program = PathBuf::from(command.get_program());
        let child = command.spawn().map_err(|source| TestkitError::Spawn { program, source })?;
        let args = [child.id().to_string(), self.dir.display().to_string()];
        let reaper = Reaper::new("kill -s KILL -- \"-$1\"; rm -rf -- \"$2\"", &args);
        *self.running() = Some(Running { child, reaper });
        Ok(())
    }

    /// The second half. One that is not ready in time is killed.
    pub(crate) fn until_ready(
        &self,
        program: &Path,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), TestkitError> {
        let program = program.to_owned();
        let mut ended = None;
        let is_ready = try_wait_until(within, || {
            ended = self.running().as_mut().and_then(|running| running.child.try_wait().ok().flatten());
            ended.is_some() || ready()
        });
        if let Some(status) = ended {
            *self.running() = None;
            let (status, code) = (status.to_string(), status.code());
            return Err(TestkitError::ExitedEarly { program, status, code, stderr: self.said() });
        }
        if is_ready {
            return Ok(());
        }
        self.end(Signal::KILL);
        Err(TestkitError::NotReady { program, after: within, stderr: self.said() })
    }

    /// The process id, `None` when nothing runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.child.id())
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            process::signal(pid, signal);
        }
    }

    /// Ends it, and waits until it has: by KILL with everything in its process group, else as it likes to end.
    pub(crate) fn end(&self, signal: Signal) {
        let Some(mut running) = self.running().take() else { return };
        if signal == Signal::KILL {
            process::signal_group(running.child.id(), signal);
        } else {
            process::signal(running.child.id(), signal);
        }
        if !try_wait_until(STOP_MAX, || running.child.try_wait().ok().flatten().is_some()) {
            process::signal_group(running.child.id(), Signal::KILL);
            let _ = running.child.wait();
        }
        drop(running.reaper);
    }

    /// What it wrote to its two outputs so far, over all restarts.
    pub(crate) fn said(&self) -> String {
        std::fs::read(self.dir.join("said.txt"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}
