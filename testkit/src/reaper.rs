//! The guard that cleans up after a test process which died before it could.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A small shell process that waits for this process to end, and only then runs a clean-up.
///
/// It reads from a pipe whose other end this process holds: the pipe closes when this process ends in whatever way, also
/// by `kill -9` or with a server in a `static`, which is never dropped. Dropping the `Reaper` calls it off. It has a process
/// group of its own, so a Ctrl-C at the terminal does not end it before its work is done.
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Runs `script` with `sh -c` when this process ends; `args` are its `$1`, `$2` and so on.
    pub fn new<S: AsRef<OsStr>>(script: &str, args: &[S]) -> Reaper {
        let shell = Command::new("sh")
            .arg("-c")
            .arg(format!("read -r _; {script}"))
            .arg("sh")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("run sh");
        Reaper { shell }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // Killed before its pipe closes, so the clean-up does not run on ids that may by then be somebody else's.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;
    use std::time::Duration;

    #[test]
    fn the_clean_up_runs_when_the_pipe_closes() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let mut reaper = Reaper::new("touch \"$1\"", &[&mark]);
        // What the end of this process would do.
        drop(reaper.shell.stdin.take());
        wait_until("the clean-up has run", Duration::from_secs(10), || mark.exists());
    }

    #[test]
    fn a_dropped_reaper_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        drop(Reaper::new("touch \"$1\"", &[&mark]));
        // The shell was reaped by the drop, so there is nobody left who could still write the mark.
        assert!(!mark.exists());
    }
}
