//! Bounded waiting, and small questions about the machine.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The longest pause between two looks at a condition.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Looks at `cond` until it holds; `false` when it does not within `timeout`. It is looked at once at least, and once more after the last pause.
pub fn try_wait_until(timeout: Duration, mut cond: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_micros(200);
    loop {
        let last = Instant::now() >= end;
        if cond() {
            return true;
        }
        if last {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Looks at `cond` until it holds.
///
/// # Panics
/// When it does not hold within `timeout`; `what` says what was waited for.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, cond: impl FnMut() -> bool) {
    assert!(try_wait_until(timeout, cond), "waited {timeout:?} in vain: {what}");
}

/// A TCP port on loopback that was free a moment ago. Prefer port 0 and a ports file wherever the program can do that.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    listener.local_addr().expect("the port just bound").port()
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether `program` can be run. When not: an error where `CI=true`, elsewhere a printed `skipped: needs …` and `false`.
///
/// ```
/// if !testkit::need_program("sh") {
///     return; // the line "skipped: needs sh" has been printed
/// }
/// ```
#[track_caller]
pub fn need_program(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if found {
        return true;
    }
    assert!(
        !in_ci(),
        "this test needs {program}, and in CI it must be there (cargo xtask setup installs it)"
    );
    eprintln!("skipped: needs {program}");
    false
}

pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true" || v == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_late_is_seen() {
        let mut looks = 0;
        wait_until("five looks", Duration::from_secs(10), || {
            looks += 1;
            looks == 5
        });
        assert_eq!(looks, 5);
    }

    #[test]
    fn a_condition_that_never_holds_ends_the_wait_after_at_least_one_look() {
        let mut looks = 0;
        assert!(!try_wait_until(Duration::ZERO, || {
            looks += 1;
            false
        }));
        assert_eq!(looks, 1);
    }

    #[test]
    fn a_free_port_can_be_bound() {
        assert!(TcpListener::bind(("127.0.0.1", free_port())).is_ok());
    }
}
