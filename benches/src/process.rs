//! What `/proc` says of a process: its CPU time, that of its threads, and its memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::report::{HelperUse, Memory, ServerUse, ThreadUse};

/// A process, or nobody; and others that work for it.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pid: Option<u32>,
    helpers: Vec<u32>,
}

/// A process at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    at: Instant,
    cpu: Duration,
    user: Duration,
    threads: BTreeMap<String, Duration>,
    helpers: Vec<(String, Duration)>,
    pub(crate) memory: Memory,
}

impl Watch {
    pub(crate) fn new(pid: Option<u32>, helpers: &[u32]) -> Self {
        Self { pid, helpers: helpers.to_vec() }
    }

    /// `None` without a process, or when it is gone.
    pub(crate) fn sample(&self) -> Option<Sample> {
        let pid = self.pid?;
        Some(Sample {
            at: Instant::now(),
            cpu: cpu(pid)?,
            user: user_cpu(pid)?,
            threads: threads(pid),
            helpers: self.helpers.iter().filter_map(|pid| Some((name(*pid)?, cpu(*pid)?))).collect(),
            memory: memory(pid)?,
        })
    }
}

impl Sample {
    /// What was used from here to `end`, for so many messages.
    pub(crate) fn until(&self, end: &Self, messages: u64) -> ServerUse {
        let time = end.at.saturating_duration_since(self.at).as_secs_f64();
        let share = |used: Duration| if time > 0.0 { used.as_secs_f64() / time } else { 0.0 };
        let exact = |sample: &Self| sample.threads.values().sum::<Duration>();
        // The threads' times are finer than the process's, but lack those of threads that ended.
        let used = end.cpu.saturating_sub(self.cpu).max(exact(end).saturating_sub(exact(self)));
        let mut threads: Vec<_> = end
            .threads
            .iter()
            .map(|(name, used)| {
                let before = self.threads.get(name).copied().unwrap_or_default();
                ThreadUse { name: name.clone(), cores: share(used.saturating_sub(before)) }
            })
            .collect();
        threads.sort_by(|a, b| b.cores.total_cmp(&a.cores));
        let each = |used: Duration| (messages > 0).then(|| used.as_secs_f64() * 1e6 / count(messages));
        let helpers: Vec<_> = self
            .helpers
            .iter()
            .zip(&end.helpers)
            .map(|((name, from), (_, to))| (name, to.saturating_sub(*from)))
            .collect();
        ServerUse {
            cores: share(used),
            cpu_us_per_message: each(used),
            user_us_per_message: each(end.user.saturating_sub(self.user)),
            all_us_per_message: each(used + helpers.iter().map(|(_, used)| *used).sum::<Duration>()),
            before: self.memory,
            after: end.memory,
            threads,
            helpers: helpers
                .into_iter()
                .map(|(name, used)| HelperUse {
                    name: name.clone(),
                    cores: share(used),
                    cpu_us_per_message: each(used),
                })
                .collect(),
        }
    }
}

/// Processor time that was used on the whole machine, or taken from it by its host, since it started.
pub(crate) fn machine_cpu() -> Option<Duration> {
    busy(&fs::read_to_string("/proc/stat").ok()?)
}

/// The busy time in the first line of `/proc/stat`: user, nice, system, (not idle and waiting for a disk), interrupts, stolen.
fn busy(stat: &str) -> Option<Duration> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system, _idle, _iowait) = (next()?, next()?, next()?, next()?, next()?);
    let ticks = user + nice + system + next()? + next()? + next()?;
    Some(Duration::from_secs_f64(count(ticks) / count(rustix::param::clock_ticks_per_second())))
}

/// User and system time of all threads together, ended ones included, in whole ticks (mostly of 10 ms).
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A process's name.
fn name(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// User time of all threads together, ended ones included, in whole ticks.
fn user_cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(11)?.parse().ok()?;
    Some(Duration::from_secs_f64(count(ticks) / count(rustix::param::clock_ticks_per_second())))
}

/// The CPU time of this process so far.
#[must_use]
pub fn own_cpu() -> Duration {
    cpu(std::process::id()).unwrap_or_default()
}

/// The same of the threads that live, by name, in nanoseconds where the kernel tells them. A name that several have counts them together.
fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut threads = BTreeMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return threads };
    for task in tasks.flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        let exact = fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| on_cpu(&text));
        if let (Some((name, _)), Some(used)) = (name, exact.or_else(|| ticks(&stat))) {
            *threads.entry(name.to_owned()).or_default() += used;
        }
    }
    threads
}

/// CPU time of all threads that live, together. `None` when there is no such process.
pub(crate) fn threads_cpu(pid: u32) -> Option<Duration> {
    let threads = threads(pid);
    (!threads.is_empty()).then(|| threads.values().sum())
}

/// The time on a processor in a `schedstat` file.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split_ascii_whitespace().next()?.parse().ok()?))
}

/// The CPU time in a `stat` file.
fn ticks(stat: &str) -> Option<Duration> {
    // The name, in brackets, may hold anything; behind it the fields are numbers. utime and stime are the 14th and 15th of the line.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next()? + next()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(count(ticks) / count(per_second)))
}

fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |key| Some(kib(&status, key)? * 1024);
    Some(Memory {
        rss_bytes: bytes("VmRSS:")?,
        peak_bytes: bytes("VmHWM:")?,
        // What is neither the program's file nor a mapped one: heap and stacks.
        anonymous_bytes: bytes("RssAnon:")?,
    })
}

fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A count as a number to calculate with; exact to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_threads() {
        let sample = Watch::new(Some(std::process::id()), &[std::process::id()]).sample().unwrap();
        assert!(sample.memory.rss_bytes > 100_000);
        assert!(sample.memory.peak_bytes > 0 && sample.memory.anonymous_bytes > 0);
        assert!(!sample.threads.is_empty() && sample.helpers.len() == 1);
        assert!(Watch::new(None, &[]).sample().is_none());
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        let hertz = rustix::param::clock_ticks_per_second();
        assert_eq!(ticks(stat), Some(Duration::from_secs_f64(300.0 / count(hertz))));
    }

    #[test]
    fn waiting_is_not_being_busy() {
        let hertz = rustix::param::clock_ticks_per_second();
        let line = "cpu  1 2 4 1000 1000 8 16 32 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy(line), Some(Duration::from_secs_f64(63.0 / count(hertz))));
        assert!(machine_cpu().unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_threads_time_is_the_first_number() {
        assert_eq!(on_cpu("1500000 20 3\n"), Some(Duration::from_micros(1_500)));
        assert_eq!(on_cpu(""), None);
    }

    #[test]
    fn use_is_what_grew_between_two_samples() {
        let at = Instant::now();
        let memory = Memory { rss_bytes: 1, peak_bytes: 1, anonymous_bytes: 1 };
        let sample = |secs, cpu_ms| Sample {
            at: at + Duration::from_secs(secs),
            cpu: Duration::from_millis(cpu_ms),
            user: Duration::from_millis(cpu_ms / 4),
            threads: BTreeMap::from([("loop".to_owned(), Duration::from_millis(cpu_ms / 2))]),
            helpers: vec![("database".to_owned(), Duration::from_millis(2 * cpu_ms))],
            memory,
        };
        let used = sample(0, 100).until(&sample(2, 1_100), 10_000);
        assert!((used.cores - 0.5).abs() < 1e-9);
        assert!((used.cpu_us_per_message.unwrap() - 100.0).abs() < 1e-9);
        assert!((used.user_us_per_message.unwrap() - 25.0).abs() < 1e-9);
        assert!((used.threads[0].cores - 0.25).abs() < 1e-9);
        assert!((used.helpers[0].cores - 1.0).abs() < 1e-9 && (used.all_cores() - 1.5).abs() < 1e-9);
        assert!((used.all_us_per_message.unwrap() - 300.0).abs() < 1e-9);
        assert_eq!(sample(0, 0).until(&sample(1, 1), 0).cpu_us_per_message, None);
    }
}
