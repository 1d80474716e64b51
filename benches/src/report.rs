//! What a run found out: for people as text, for programs as JSON.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::process::count;
use crate::table::{Table, number};

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
}

/// What became of a run of users in groups.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// Part of the users' names.
    pub run_id: String,
    /// Groups.
    pub groups: usize,
    /// Members of each.
    pub size: usize,
    /// Messages of each writer that wait for their ok.
    pub window: u32,
    /// The measured time.
    pub seconds: f64,
    /// Sends that were answered `ok`, per second.
    pub accepted_per_second: f64,
    /// Pushes of messages that came to members, per second.
    pub delivered_per_second: f64,
    /// From the send to the receipt by the group's last member, in microseconds.
    pub delivery_us: Quantiles,
    /// What the server used in that time; per message means per delivery.
    pub server: Option<ServerUse>,
    /// CPU time that this program used in that time, in cores.
    pub load_cores: f64,
    /// What was promised and what came, over the whole run. `received` counts deliveries.
    pub verdict: Verdict,
}

impl GroupReport {
    /// Whether every member got everything once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let others = u64::try_from(self.size).unwrap_or(u64::MAX).saturating_sub(1);
        let verdict = &self.verdict;
        let all_came = verdict.received == verdict.accepted * others;
        // What `is_clean` compares is one receipt for each message.
        all_came && Verdict { received: verdict.accepted, ..verdict.clone() }.is_clean()
    }
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, size, window, seconds, .. } = self;
        writeln!(
            f,
            "{groups} groups of {size}, one writer each with {window} in flight, {seconds:.1} s measured"
        )?;
        writeln!(f)?;
        let mut rates = Table::new(&["messages", "per second"]);
        rates.row(["accepted, durable (ok)".to_owned(), number(self.accepted_per_second)]);
        rates.row(["deliveries".to_owned(), number(self.delivered_per_second)]);
        writeln!(f, "{rates}")?;
        let q = &self.delivery_us;
        let [p50, p99, max] = [q.p50, q.p99, q.max].map(|us| number(count(us) / 1e3));
        writeln!(f, "send to the last member's receipt: p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        writeln!(f, "chatload used {:.2} of its core", self.load_cores)?;
        writeln!(f)?;
        let flaw = if self.is_clean() {
            "clean: every member got every message once and in order"
        } else {
            "NOT CLEAN"
        };
        writeln!(f, "{flaw}: {} accepted, {} delivered", self.verdict.accepted, self.verdict.received)?;
        if let Some(trouble) = &self.verdict.trouble {
            writeln!(f, "  first trouble: {trouble}")?;
        }
        Ok(())
    }
}

/// What became of a run of users in pairs.
#[derive(Clone, Debug, Serialize)]
pub struct PairsReport {
    /// Part of the users' names and the client ids.
    pub run_id: String,
    /// Users, each with one connection.
    pub users: usize,
    /// Messages of each user that wait for their ok.
    pub window: u32,
    /// Bytes of a message's text.
    pub text_bytes: usize,
    /// The measured time.
    pub seconds: f64,
    /// When it began, in milliseconds since 1970.
    pub begin_ms: f64,
    /// When it ended, in milliseconds since 1970.
    pub end_ms: f64,
    /// Sends that were answered `ok` in that time.
    pub accepted: u64,
    /// The same per second.
    pub accepted_per_second: f64,
    /// Pushes that came to the partners in that time, per second.
    pub received_per_second: f64,
    /// From the send to the partner's receipt, in microseconds.
    pub receipt_us: Quantiles,
    /// From the send to its `ok`, in microseconds.
    pub ok_us: Quantiles,
    /// What the server used in that time.
    pub server: Option<ServerUse>,
    /// CPU time that this program used in that time, in cores.
    pub load_cores: f64,
    /// CPU time of everything else on this machine in that time, in cores: what disturbed the measurement. Only with a server to watch.
    pub others_cores: Option<f64>,
    /// What was promised and what came, over the whole run.
    pub verdict: Verdict,
}

/// What became of a run of idle users.
#[derive(Clone, Debug, Serialize)]
pub struct IdleReport {
    /// Part of the users' names.
    pub run_id: String,
    /// Users, each with one connection.
    pub users: usize,
    /// Seconds between a user's signs of life.
    pub heartbeat_seconds: u32,
    /// Logins by token per second, connecting included.
    pub logins_per_second: f64,
    /// The server before anybody came.
    pub empty: Option<Memory>,
    /// When all users were registered, and nobody was connected.
    pub registered: Option<Memory>,
    /// When all were logged in.
    pub idle: Option<Memory>,
    /// When all had gone.
    pub gone: Option<Memory>,
    /// Resident bytes per connection above the empty server.
    pub bytes_per_connection: Option<f64>,
    /// Resident bytes per connection above the server with its users registered.
    pub bytes_per_connection_alone: Option<f64>,
    /// What the server used while all were idle.
    pub server: Option<ServerUse>,
    /// How long that was watched.
    pub seconds: f64,
    /// Connections that the server closed.
    pub closed: usize,
    /// Connections that were told `synced`.
    pub synced: usize,
    /// Why the server closed the first, where it did.
    pub trouble: Option<String>,
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
    /// CPU time by thread, the busiest first.
    pub threads: Vec<ThreadUse>,
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
        let Self { sent, accepted, received, resent: _, refused, unanswered, .. } = self;
        let Self { lost, doubled, disordered, holes, strays, closed, .. } = self;
        let wrong = [refused, unanswered, lost, doubled, disordered, holes, strays, closed];
        wrong.iter().all(|count| **count == 0) && sent == accepted && accepted == received
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
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pairs(report) => report.fmt(f),
            Self::Idle(report) => report.fmt(f),
            Self::Group(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for PairsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, window, text_bytes, seconds, .. } = self;
        writeln!(
            f,
            "{users} users in pairs, {window} in flight each, {text_bytes} bytes of text, {seconds:.1} s measured"
        )?;
        writeln!(f)?;
        let mut rates = Table::new(&["messages", "per second"]);
        rates.row(["accepted, durable (ok)".to_owned(), number(self.accepted_per_second)]);
        rates.row(["received by the partner".to_owned(), number(self.received_per_second)]);
        writeln!(f, "{rates}")?;
        let mut times = Table::new(&["milliseconds", "p50", "p90", "p99", "p99.9", "max"]);
        for (name, q) in
            [("send to the partner's receipt", &self.receipt_us), ("send to its ok", &self.ok_us)]
        {
            let cells = [q.p50, q.p90, q.p99, q.p999, q.max].map(|us| number(count(us) / 1e3));
            times.row([name.to_owned()].into_iter().chain(cells));
        }
        writeln!(f, "{times}")?;
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        writeln!(f, "chatload used {:.2} of its core", self.load_cores)?;
        if let Some(others) = self.others_cores {
            writeln!(f, "everything else on this machine used {others:.2} cores")?;
        }
        writeln!(f)?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, heartbeat_seconds, .. } = self;
        writeln!(f, "{users} users logged in and idle, a heartbeat every {heartbeat_seconds} s")?;
        writeln!(f)?;
        let mut table = Table::new(&["the server's memory", "resident", "of it anonymous"]);
        for (name, memory) in [
            ("empty", &self.empty),
            ("all registered, nobody connected", &self.registered),
            ("all logged in", &self.idle),
            ("all gone", &self.gone),
        ] {
            if let Some(memory) = memory {
                let kib = |bytes: u64| format!("{} KiB", number(count(bytes / 1024)));
                table.row([name.to_owned(), kib(memory.rss_bytes), kib(memory.anonymous_bytes)]);
            }
        }
        writeln!(f, "{table}")?;
        let mut table = Table::new(&["per connection", "bytes"]);
        for (name, bytes) in [
            ("above the empty server", self.bytes_per_connection),
            ("above the server with all registered", self.bytes_per_connection_alone),
        ] {
            if let Some(bytes) = bytes {
                table.row([name.to_owned(), number(bytes)]);
            }
        }
        writeln!(f, "{table}")?;
        writeln!(f, "logins by token: {} per second", number(self.logins_per_second))?;
        if let Some(server) = &self.server {
            writeln!(f, "the idle server used {:.4} cores over {:.1} s", server.cores, self.seconds)?;
        }
        match (&self.trouble, self.closed) {
            (Some(trouble), _) => {
                writeln!(f, "NOT CLEAN: {} connections were closed: {trouble}", self.closed)
            }
            (None, _) if self.synced != self.users => {
                writeln!(f, "NOT CLEAN: only {} connections were told `synced`", self.synced)
            }
            _ => writeln!(f, "clean: nobody was cut off"),
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
                "clean: {sent} messages sent, each accepted and received once and in order ({resent} resent)"
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
