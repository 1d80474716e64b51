//! The system calls of a running process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Reaper, is_root, need_program, process, try_wait_until};

/// How long attaching and detaching may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// `strace` on a running process; it is detached by [`Strace::stop`] or on drop, and the process goes on.
#[derive(Debug)]
pub struct Strace {
    child: Child,
    reaper: Option<Reaper>,
    dir: TempDir,
}

impl Strace {
    /// Whether `strace` is there (see [`need_program`]) and this process may attach it to others; prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        // Where this says more than 0, only root may trace what is not its own child.
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
        if !is_root() && !matches!(scope.trim(), "" | "0") {
            eprintln!("skipped: needs root, since kernel.yama.ptrace_scope is {}", scope.trim());
            return false;
        }
        need_program("strace")
    }

    /// Attaches to `pid` with `args`, for instance `["-f", "-e", "trace=fdatasync,sendto"]`, and returns once it is attached.
    ///
    /// # Panics
    /// When it cannot attach within 15 s.
    #[track_caller]
    pub fn attach(pid: u32, args: &[&str]) -> Strace {
        let dir = tempfile::Builder::new().prefix("testkit-strace-").tempdir().expect("a temporary folder");
        let said = dir.path().join("stderr.txt");
        let child = Command::new("strace")
            .args(args)
            .arg("-o")
            .arg(dir.path().join("trace.txt"))
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).expect("a file for strace's messages"))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("could not run strace: {e}"));
        let reaper = Reaper::new(
            "kill -9 \"$1\"; rm -rf -- \"$2\"",
            &[child.id().to_string().as_str(), &dir.path().display().to_string()],
        );
        let mut strace = Strace { child, reaper: Some(reaper), dir };
        let text = || fs::read_to_string(&said).unwrap_or_default();
        let mut ended = false;
        try_wait_until(PATIENCE, || {
            ended = strace.has_ended();
            ended || text().contains(" attached")
        });
        assert!(!ended && text().contains(" attached"), "strace could not attach to {pid}: {}", text());
        strace
    }

    /// Waits until the trace written so far satisfies `cond`; `false` when it does not within `timeout`.
    pub fn wait_for(&self, timeout: Duration, mut cond: impl FnMut(&str) -> bool) -> bool {
        try_wait_until(timeout, || cond(&self.text()))
    }

    /// What has been written so far.
    pub fn text(&self) -> String {
        fs::read(self.dir.path().join("trace.txt"))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Detaches; the whole trace.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.detach();
        self.text()
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait().expect("ask for strace's state").is_some();
        if ended {
            self.reaper = None;
        }
        ended
    }

    fn detach(&mut self) {
        if self.has_ended() {
            return;
        }
        process::signal(self.child.id(), Signal::INT);
        if !try_wait_until(PATIENCE, || self.has_ended()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaper = None;
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traced_process_shows_its_calls_and_goes_on_afterwards() {
        if !Strace::available() {
            return;
        }
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let strace = Strace::attach(cat.id(), &["-f", "-e", "trace=write"]);
        std::io::Write::write_all(cat.stdin.as_mut().unwrap(), b"seen by strace").unwrap();
        assert!(strace.wait_for(PATIENCE, |t| t.contains("seen by strace")));
        assert!(strace.stop().contains("write(1, \"seen by strace\""));
        assert!(cat.try_wait().unwrap().is_none(), "it was ended by detaching");
        drop(cat.stdin.take());
        assert!(cat.wait().unwrap().success());
    }
}
