//! What a run of the shape `group` found out.

use std::fmt;

use serde::Serialize;

use super::{Quantiles, ServerUse, Verdict};
use crate::process::count;
use crate::table::{Table, number};

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
