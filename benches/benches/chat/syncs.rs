//! Counts how often a server syncs its files while it is under load.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The calls that make written data durable.
const CALLS: [&str; 4] = ["fdatasync", "fsync", "msync", "sync_file_range"];

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// The kernel's tracepoints, which cost a running server next to nothing. Needs root, or a lenient `perf_event_paranoid`.
    Perf,
    /// strace. In spite of its filter it stops every thread at every call until that thread makes a call that is counted, and a loop makes none: reads
    /// and writes become so slow that messages trickle to the writer and batches stay small. Its count is an upper bound, no figure.
    Strace,
}

/// Syncs being counted.
#[derive(Debug)]
pub(crate) struct Counting {
    counter: Counter,
    file: PathBuf,
    perf: Option<Child>,
    /// When perf was started, in milliseconds since 1970.
    since_ms: f64,
}

impl Counter {
    /// The best one that works here.
    pub(crate) fn find() -> Option<Self> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-e", &events(), "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        if perf.status().is_ok_and(|status| status.success()) {
            return Some(Self::Perf);
        }
        testkit::need_program("strace").then_some(Self::Strace)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf",
            Self::Strace => "strace",
        }
    }

    /// What the server has to be started under. The folder gets the counter's file.
    pub(crate) fn wrapper(self, folder: &Path) -> Vec<OsString> {
        if self == Self::Perf {
            return Vec::new();
        }
        let calls = format!("trace={}", CALLS.join(","));
        let words = ["taskset", "-c", "1", "strace", "-f", "--seccomp-bpf", "-ttt", "-e", &calls, "-o"];
        let mut words: Vec<OsString> = words.map(Into::into).into();
        words.push(file(folder).into());
        words
    }

    /// Begins to count at a running server. It ends with the server.
    pub(crate) fn begin(self, folder: &Path, pid: u32) -> Result<Counting, String> {
        let file = file(folder);
        let since_ms = now_ms();
        let perf = match self {
            Self::Strace => None,
            Self::Perf => {
                let mut perf = Command::new("taskset");
                perf.args(["-c", "1", "perf", "stat", "-x", ",", "-I", "100", "-e", &events()]);
                perf.args(["-p", &pid.to_string(), "-o"]).arg(&file);
                perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                Some(perf.spawn().map_err(|e| format!("could not run perf: {e}"))?)
            }
        };
        Ok(Counting { counter: self, file, perf, since_ms })
    }
}

impl Counting {
    /// The syncs that began between two times, in milliseconds since 1970, once the server has ended. perf counts in steps of 100 ms.
    pub(crate) fn end(mut self, begin_ms: f64, end_ms: f64) -> Result<u64, String> {
        if let Some(perf) = &mut self.perf
            && !testkit::try_wait_until(Duration::from_secs(10), || !matches!(perf.try_wait(), Ok(None)))
        {
            return Err("perf did not end with the server".to_owned());
        }
        let text = fs::read_to_string(&self.file).map_err(|e| format!("nothing was counted: {e}"))?;
        let window = begin_ms..end_ms;
        let lines = text.lines();
        let counts = lines.filter_map(|line| match self.counter {
            Counter::Strace => strace_line(line),
            Counter::Perf => perf_line(line).map(|(at, count)| (self.since_ms + at, count)),
        });
        Ok(counts.filter(|(at, _)| window.contains(at)).map(|(_, count)| count).sum())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(perf) = &mut self.perf {
            let _ = perf.kill();
            let _ = perf.wait();
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("syncs.txt")
}

fn events() -> String {
    CALLS.map(|call| format!("syscalls:sys_enter_{call}")).join(",")
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

/// A line of `strace -f -ttt`: when a sync began, in milliseconds since 1970. `None` for other lines, and for the second line of a call that another
/// thread's came into.
fn strace_line(line: &str) -> Option<(f64, u64)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let at: f64 = words.next()?.parse().ok()?;
    let call = words.next()?.split_once('(')?.0;
    CALLS.contains(&call).then_some((at * 1e3, 1))
}

/// A line of `perf stat -x , -I 100`: the end of a step, in milliseconds since perf began, and what was counted in it. `None` for a head, and for a step
/// in which the server did not run at all.
fn perf_line(line: &str) -> Option<(f64, u64)> {
    let mut fields = line.split(',');
    let at: f64 = fields.next()?.trim().parse().ok()?;
    Some((at * 1e3, fields.next()?.parse().ok()?))
}
