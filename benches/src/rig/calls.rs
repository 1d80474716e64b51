//! System calls of a server, counted by strace.

use std::collections::BTreeMap;
use std::fs;

use super::failure::{Failure, describe};
use super::server::{Server, Wrapper};
use super::subject::{Job, Subject};
use super::workshop::{Workshop, has};

/// How often each call was made. Writes to an eventfd, which wake a thread, are a call of their own, and so are reads that found nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<String, i64>);

/// How reads begin.
const READS: [&str; 6] = ["read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"];

impl Calls {
    /// Writes to an eventfd.
    pub const WAKES: &'static str = "write to an eventfd";
    /// Reads that ended in `EAGAIN`. They are in the counts of their calls, too.
    pub const EMPTY_READS: &'static str = "reads that found nothing";

    /// What can be counted here.
    #[must_use]
    pub fn can_be_counted() -> bool {
        has("strace", "-V")
    }

    /// Counts a server's calls for `count` messages (or cycles, or lines): the difference between a run of twice as many and one of so many, so that what
    /// every run costs once is not in it. The load's arguments come from `load`, given the number of messages.
    ///
    /// # Errors
    /// When something cannot be run.
    pub fn of(
        workshop: &Workshop,
        (subject, job): (Subject, Job),
        count: u64,
        load: impl Fn(u64) -> Vec<String>,
    ) -> Result<Self, Failure> {
        let file = workshop.folder().join("strace.txt");
        let run = |count| {
            let command = workshop.command(subject, job, 1);
            let server = Server::start(Wrapper::Strace(&file), "0", &command)?;
            let args = load(count);
            workshop.load("1", &server, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
            server.end()?;
            let text = fs::read_to_string(&file).map_err(describe(file.display()))?;
            Ok::<_, Failure>(Self::parse(&text))
        };
        let (once, twice) = (run(count)?, run(2 * count)?);
        let _ = fs::remove_file(&file);
        Ok(twice.minus(&once))
    }

    /// Of the lines of `strace -f -yy`.
    fn parse(text: &str) -> Self {
        let mut calls = BTreeMap::new();
        let mut add = |name: &str| *calls.entry(name.to_owned()).or_insert(0) += 1;
        for line in text.lines() {
            let Some((_, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            // The second half of a call that another thread's came into: only how it ended is news.
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let name = resumed.split(' ').next().unwrap_or_default();
                if READS.contains(&name) && rest.contains("EAGAIN") {
                    add(Self::EMPTY_READS);
                }
                continue;
            }
            let Some((name, arguments)) = rest.split_once('(') else { continue };
            let first = arguments.split(',').next().unwrap_or_default();
            add(if name == "write" && first.contains("eventfd") { Self::WAKES } else { name });
            if READS.contains(&name) && arguments.contains("EAGAIN") {
                add(Self::EMPTY_READS);
            }
        }
        Self(calls)
    }

    fn minus(mut self, other: &Self) -> Self {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_insert(0) -= count;
        }
        self
    }

    /// How often one was made.
    #[must_use]
    pub fn count(&self, name: &str) -> f64 {
        float(self.0.get(name).copied().unwrap_or(0))
    }

    /// All calls together.
    #[must_use]
    pub fn all(&self) -> f64 {
        float(self.0.iter().filter(|(name, _)| *name != Self::EMPTY_READS).map(|(_, count)| count).sum())
    }

    /// Those that send: `write`, `send` and their kin, wake-ups aside.
    #[must_use]
    pub fn sends(&self) -> f64 {
        ["write", "writev", "sendto", "sendmsg", "send"].iter().map(|name| self.count(name)).sum()
    }

    /// Each call per message, the most frequent first, for people.
    #[must_use]
    pub fn words(&self, messages: f64) -> String {
        let mut calls: Vec<_> = self.0.iter().filter(|(_, count)| **count != 0).collect();
        calls.sort_by_key(|(_, count)| -**count);
        let words = calls.iter().map(|(name, count)| format!("{name} {:.4}", float(**count) / messages));
        words.collect::<Vec<_>>().join(", ")
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
fn float(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7 epoll_wait(3<anon_inode:[eventpoll]>, [{events=EPOLLIN}], 1024, -1) = 1
7 recvfrom(9<TCP:[1]>, \"\"..., 65536, 0, NULL, NULL) = 64
8 read(9<TCP:[1]>,  <unfinished ...>
7 write(4<anon_inode:[eventfd]>, \"\"..., 8) = 8
8 <... read resumed>0x1, 64) = -1 EAGAIN (Resource temporarily unavailable)
7 write(9<TCP:[1]>, \"\"..., 64) = 64
7 accept4(4<TCP:[2]>, NULL, NULL, 0) = -1 EAGAIN (Resource temporarily unavailable)
7 --- SIGTERM {si_signo=SIGTERM} ---
7 +++ killed by SIGTERM +++
";

    #[test]
    fn a_call_counts_once_and_a_read_that_found_nothing_is_told_from_an_accept() {
        let calls = Calls::parse(TEXT);
        assert_eq!((calls.all(), calls.sends(), calls.count("read")), (6.0, 1.0, 1.0));
        assert_eq!((calls.count(Calls::WAKES), calls.count(Calls::EMPTY_READS)), (1.0, 1.0));
    }

    #[test]
    fn what_every_run_costs_once_is_not_in_the_difference() {
        let calls = Calls::parse(&TEXT.repeat(2)).minus(&Calls::parse(TEXT));
        assert_eq!((calls.all(), calls.count("accept4")), (6.0, 1.0));
        assert!(calls.words(2.0).contains("recvfrom 0.5000"), "{}", calls.words(2.0));
    }
}
