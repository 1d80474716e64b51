//! What `/proc` says about a process, and signals to it.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::try_wait_until;

/// Processor time used so far, by all threads of a process together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTime {
    /// In the program itself.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

impl CpuTime {
    /// User and system time together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl std::ops::Sub for CpuTime {
    type Output = CpuTime;

    fn sub(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Resident memory, in bytes.
///
/// # Panics
/// As all questions here, when there is no such process.
#[track_caller]
pub fn rss_bytes(pid: u32) -> u64 {
    status_number(&read(pid, "status"), "VmRSS:") * 1024
}

/// The highest resident memory so far, in bytes.
#[track_caller]
pub fn rss_peak_bytes(pid: u32) -> u64 {
    status_number(&read(pid, "status"), "VmHWM:") * 1024
}

/// Processor time used so far. The kernel counts it in ticks of 10 ms as a rule.
#[track_caller]
pub fn cpu_time(pid: u32) -> CpuTime {
    let stat = read(pid, "stat");
    // The second field is the program's name in parentheses and may itself hold blanks and parentheses.
    let (_, rest) = stat.rsplit_once(") ").unwrap_or_else(|| panic!("/proc/{pid}/stat: {stat:?}"));
    let ticks = |field: usize| -> u64 {
        // `rest` begins with field 3.
        rest.split_ascii_whitespace().nth(field - 3).and_then(|s| s.parse().ok()).expect("a number of ticks")
    };
    let per_second = rustix::param::clock_ticks_per_second();
    let time = |ticks: u64| Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / per_second);
    CpuTime { user: time(ticks(14)), system: time(ticks(15)) }
}

/// Open file descriptors.
#[track_caller]
pub fn fd_count(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}")).count()
}

/// Threads.
#[track_caller]
pub fn thread_count(pid: u32) -> u64 {
    status_number(&read(pid, "status"), "Threads:")
}

/// How often the process's threads went to sleep by themselves, all together. What does not grow has not been woken.
#[track_caller]
pub fn voluntary_switches(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(|status| status_number(&status, "voluntary_ctxt_switches:"))
        .sum()
}

/// Whether there is such a process and it has not ended. (What has ended and was not reaped yet is not alive: an orphan's
/// reaping is the business of process 1, and not every container has one that does it.)
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The living processes that `parent` has started itself.
pub fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the program's name: the state, then the parent.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| {
            !rest.starts_with(['Z', 'X']) && rest.split(' ').nth(1) == Some(&parent.to_string())
        })
    })
    .collect()
}

/// How long a process may take to stop in its tracks.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Sends a signal; a process that is gone is no error. After `STOP` waits until no thread of it runs: the kernel stops them one by one, and later.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(as_pid(pid), signal);
    if signal == Signal::STOP {
        // One that cannot be stopped shows in the test by what it does.
        let _ = try_wait_until(STOP_MAX, || !has_running_threads(pid));
    }
}

fn has_running_threads(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        // A thread that has ended meanwhile does not run.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}

/// Sends a signal to a process group; one that is gone is no error.
pub(crate) fn signal_group(group: u32, signal: Signal) {
    let _ = kill_process_group(as_pid(group), signal);
}

#[track_caller]
fn as_pid(pid: u32) -> Pid {
    // 0 and 1 would mean this process's own group and everybody.
    i32::try_from(pid)
        .ok()
        .filter(|p| *p > 1)
        .and_then(Pid::from_raw)
        .unwrap_or_else(|| panic!("not a process id: {pid}"))
}

#[track_caller]
fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The number behind `key` in a `status` file.
#[track_caller]
fn status_number(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in a status file (has the process ended?)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait_until;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let me = std::process::id();
        assert!(rss_bytes(me) > 100_000);
        assert!(rss_peak_bytes(me) >= rss_bytes(me) / 2);
        assert!(fd_count(me) >= 3);
        assert!(thread_count(me) >= 1);
        assert!(voluntary_switches(me) < u64::MAX);
        assert!(is_alive(me));
    }

    #[test]
    fn a_process_that_ended_is_not_alive_before_and_after_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        wait_until("it has ended", Duration::from_secs(10), || !is_alive(pid));
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }

    #[test]
    fn an_opened_file_is_counted() {
        // Other tests open and close files at the same time, so many are opened: more than those could close.
        let me = std::process::id();
        let before = fd_count(me);
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(fd_count(me) >= before + 100);
        drop(files);
    }

    #[test]
    fn work_shows_in_the_processor_time() {
        let me = std::process::id();
        let before = cpu_time(me);
        let mut x = 1_u64;
        wait_until("30 ms of processor time used", Duration::from_secs(60), || {
            for i in 0..3_000_000_u64 {
                x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
            }
            (cpu_time(me) - before).total() >= Duration::from_millis(30)
        });
    }

    #[test]
    #[should_panic(expected = "not a process id")]
    fn process_id_zero_is_refused() {
        signal(0, Signal::CONT);
    }
}
