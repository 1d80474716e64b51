//! What a run found out: for people as text, for programs as JSON.

mod group;
mod idle;
mod mixed;
mod offline;
mod pairs;
mod storm;

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::process::count;
use crate::table::number;

pub use group::GroupReport;
pub use idle::IdleReport;
pub use mixed::MixedReport;
pub use offline::{OfflineReport, PartReport};
pub use pairs::{PaceReport, PairsReport};
pub use storm::StormReport;

/// A run's result.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// Of users in pairs.
    Pairs(Box<PairsReport>),
    /// Of idle users.
    Idle(Box<IdleReport>),
    /// Of users in groups.
    Group(Box<GroupReport>),
    /// Of messages to users who are not there.
    Offline(Box<OfflineReport>),
    /// Of logins one after the other.
    Storm(Box<StormReport>),
    /// Of a day as it may be.
    Mixed(Box<MixedReport>),
}

/// A process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident, all together.
    pub rss_bytes: u64,
    /// The most that was resident at a time.
    pub peak_bytes: u64,
    /// Resident heap and stacks, without mapped files.
    pub anonymous_bytes: u64,
}

/// What a process used in some time.
#[derive(Clone, Debug, Serialize)]
pub struct ServerUse {
    /// CPU time, user and system, in cores.
    pub cores: f64,
    /// CPU time per accepted message, in microseconds.
    pub cpu_us_per_message: Option<f64>,
    /// The part of it that is not the kernel's.
    pub user_us_per_message: Option<f64>,
    /// Its memory at the begin.
    pub before: Memory,
    /// Its memory at the end.
    pub after: Memory,
    /// CPU time per message of the server and all that work for it.
    pub all_us_per_message: Option<f64>,
    /// CPU time by thread, the busiest first.
    pub threads: Vec<ThreadUse>,
    /// What others used that work for it: a database, say.
    pub helpers: Vec<HelperUse>,
}

/// What a process used that works for the server.
#[derive(Clone, Debug, Serialize)]
pub struct HelperUse {
    /// Its name.
    pub name: String,
    /// CPU time in cores.
    pub cores: f64,
    /// CPU time per accepted message, in microseconds.
    pub cpu_us_per_message: Option<f64>,
}

impl ServerUse {
    /// CPU time in cores of the server and all that work for it.
    #[must_use]
    pub fn all_cores(&self) -> f64 {
        self.cores + self.helpers.iter().map(|helper| helper.cores).sum::<f64>()
    }
}

/// What the threads of one name used.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadUse {
    /// The name.
    pub name: String,
    /// CPU time in cores.
    pub cores: f64,
}

/// Points of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
    /// How many values there were.
    pub count: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

/// What was promised and what came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Messages sent, resends aside.
    pub sent: u64,
    /// Answered `ok`.
    pub accepted: u64,
    /// Came to the partner.
    pub received: u64,
    /// Sent again because the server asked for it (`overloaded`, `unavailable`, `rate_limited`).
    pub resent: u64,
    /// Refused for good.
    pub refused: u64,
    /// Answered `overloaded`, and not sent again since the run has a rate of its own.
    pub overloaded: u64,
    /// Not answered when the run ended.
    pub unanswered: u64,
    /// Accepted, and not at the partner when the run ended.
    pub lost: u64,
    /// Entries that came twice on one connection, as push or as `ok`.
    pub doubled: u64,
    /// Pushes whose `seq` was not above the last one's.
    pub disordered: u64,
    /// Places in a connection's stream that stayed empty, and streams that ended at another place than their partner's.
    pub holes: u64,
    /// Lines that fit nothing that was sent.
    pub strays: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// The first thing that went wrong, in words.
    pub trouble: Option<String>,
}

impl Verdict {
    /// Whether everything came as the protocol promises.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { sent, accepted, received, refused, overloaded, unanswered, .. } = self;
        let Self { lost, doubled, disordered, holes, strays, closed, .. } = self;
        let wrong = [refused, unanswered, lost, doubled, disordered, holes, strays, closed];
        wrong.iter().all(|count| **count == 0) && *sent == accepted + overloaded && accepted == received
    }
}

impl Report {
    /// Whether everything came as the protocol promises.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Pairs(report) => report.verdict.is_clean(),
            Self::Idle(report) => report.closed == 0 && report.synced == report.users,
            Self::Group(report) => report.is_clean(),
            Self::Offline(report) => report.is_clean(),
            Self::Storm(report) => report.closed == 0,
            Self::Mixed(report) => report.verdict.is_clean(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pairs(report) => report.fmt(f),
            Self::Idle(report) => report.fmt(f),
            Self::Group(report) => report.fmt(f),
            Self::Offline(report) => report.fmt(f),
            Self::Storm(report) => report.fmt(f),
            Self::Mixed(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for ServerUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server used {:.2} cores", self.cores)?;
        if let Some(us) = self.cpu_us_per_message {
            write!(f, ", {us:.1} µs of CPU per message")?;
        }
        if let Some(us) = self.user_us_per_message {
            write!(f, " ({us:.2} outside the kernel)")?;
        }
        let mib = |bytes: u64| number(count(bytes) / 1048576.0);
        let Self { before, after, .. } = self;
        writeln!(
            f,
            ", {} to {} MiB resident (peak {})",
            mib(before.rss_bytes),
            mib(after.rss_bytes),
            mib(after.peak_bytes)
        )?;
        let busy = self.threads.iter().filter(|thread| thread.cores >= 0.005);
        let busy: Vec<_> = busy.map(|thread| format!("{} {:.2}", thread.name, thread.cores)).collect();
        if !busy.is_empty() {
            writeln!(f, "  by thread: {}", busy.join(", "))?;
        }
        for helper in &self.helpers {
            let each = helper.cpu_us_per_message.map(|us| format!(", {us:.1} µs of CPU per message"));
            writeln!(f, "{} used {:.2} cores{}", helper.name, helper.cores, each.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, accepted, received, resent, refused, unanswered, .. } = self;
        let Self { lost, doubled, disordered, holes, strays, closed, trouble, .. } = self;
        if self.is_clean() {
            writeln!(
                f,
                "clean: {sent} messages sent, {accepted} accepted and received once and in order ({resent} resent)"
            )?;
        } else {
            writeln!(f, "NOT CLEAN: {sent} sent, {accepted} accepted, {received} received, {resent} resent")?;
            writeln!(
                f,
                "  {lost} lost, {doubled} doubled, {disordered} out of order, {holes} holes, {strays} strays"
            )?;
            writeln!(f, "  {unanswered} unanswered, {refused} refused, {closed} connections closed")?;
        }
        if let Some(trouble) = trouble {
            writeln!(f, "  first trouble: {trouble}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_clean_only_without_any_flaw() {
        let clean = Verdict { sent: 5, accepted: 5, received: 5, resent: 2, ..Verdict::default() };
        assert!(clean.is_clean());
        let flaws: [fn(&mut Verdict); 10] = [
            |v| v.lost = 1,
            |v| v.doubled = 1,
            |v| v.disordered = 1,
            |v| v.holes = 1,
            |v| v.strays = 1,
            |v| v.closed = 1,
            |v| v.unanswered = 1,
            |v| v.refused = 1,
            |v| v.received = 4,
            |v| v.accepted = 4,
        ];
        for flaw in flaws {
            let mut verdict = clean.clone();
            flaw(&mut verdict);
            assert!(!verdict.is_clean(), "{verdict}");
            assert!(verdict.to_string().starts_with("NOT CLEAN"));
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|value| histogram.record(value).unwrap());
        let quantiles = Quantiles::from(&histogram);
        assert_eq!((quantiles.p50, quantiles.p99, quantiles.max, quantiles.count), (500, 990, 1000, 1000));
    }
}
