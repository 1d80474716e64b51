//! What a run of the shape `mixed` found out.

use std::fmt;

use serde::Serialize;

use super::{Quantiles, ServerUse, Verdict};
use crate::process::count;
use crate::table::number;

/// What became of a day as it may be.
#[derive(Clone, Debug, Serialize)]
pub struct MixedReport {
    /// Part of the users' names and the client ids.
    pub run_id: String,
    /// All users.
    pub users: usize,
    /// Of them, in pairs.
    pub in_pairs: usize,
    /// Of them, in groups.
    pub in_groups: usize,
    /// Members of each group.
    pub group_size: usize,
    /// The measured time.
    pub seconds: f64,
    /// Messages that were to be sent.
    pub offered_per_second: f64,
    /// Sends that were answered `ok`, per second.
    pub accepted_per_second: f64,
    /// Pushes of messages that came to users, per second.
    pub delivered_per_second: f64,
    /// From a send to each receipt, in microseconds.
    pub delivery_us: Quantiles,
    /// What the server used; per message means per delivery.
    pub server: Option<ServerUse>,
    /// CPU time that this program used, in cores.
    pub load_cores: f64,
    /// What was promised and what came, over the whole run. What each receipt of a group's message is compared with is its `ok`.
    pub verdict: Verdict,
}

impl fmt::Display for MixedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, in_pairs, in_groups, group_size, .. } = self;
        writeln!(
            f,
            "{users} users: {in_pairs} in pairs, {in_groups} in groups of {group_size}, the others idle"
        )?;
        writeln!(f)?;
        let [offered, accepted, delivered] =
            [self.offered_per_second, self.accepted_per_second, self.delivered_per_second].map(number);
        writeln!(
            f,
            "{offered} messages/s were to be sent, {accepted} were accepted, {delivered} deliveries/s"
        )?;
        let q = &self.delivery_us;
        let [p50, p99, p999] = [q.p50, q.p99, q.p999].map(|us| number(count(us) / 1e3));
        writeln!(f, "send to a receipt: p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms")?;
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        writeln!(f, "chatload used {:.2} of its core", self.load_cores)?;
        writeln!(f)?;
        write!(f, "{}", self.verdict)
    }
}
