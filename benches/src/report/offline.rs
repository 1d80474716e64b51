//! What a run of the shapes `offline`, `store` and `fetch` found out.

use std::fmt;

use serde::Serialize;

use super::{Quantiles, ServerUse};
use crate::process::count;
use crate::table::number;

/// What became of messages to users who were not there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfflineReport {
    /// Part of the users' names and the client ids.
    pub run_id: String,
    /// Half of them send, half of them receive.
    pub users: usize,
    /// Messages of each sender that wait for their ok.
    pub window: u32,
    /// Messages that were answered `ok`.
    pub accepted: u64,
    /// The storing, where it was done.
    pub stored: Option<PartReport>,
    /// From a send to its `ok`, in microseconds.
    pub ok_us: Quantiles,
    /// The fetching, where it was done: from the begin of the first login to the last message.
    pub fetched: Option<PartReport>,
    /// The first thing that went wrong, in words.
    pub trouble: Option<String>,
    /// Messages whose `ok` did not come.
    pub unanswered: u64,
    /// Answered with an error for good.
    pub refused: u64,
    /// Answered `ok`, and not there for its recipient.
    pub lost: u64,
    /// Came twice.
    pub doubled: u64,
    /// Came behind one with a higher `seq`.
    pub disordered: u64,
    /// Came, though no `ok` had told of it: it may.
    pub unpromised: u64,
    /// Connections that the server closed.
    pub closed: u64,
}

/// One half of it.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// Messages.
    pub messages: u64,
    /// How long it took.
    pub seconds: f64,
    /// Messages per second.
    pub per_second: f64,
    /// What the server used.
    pub server: Option<ServerUse>,
}

impl OfflineReport {
    /// Whether all that was promised came, once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { unanswered, refused, lost, doubled, disordered, closed, .. } = self;
        [unanswered, refused, lost, doubled, disordered, closed].iter().all(|count| **count == 0)
    }
}

impl fmt::Display for OfflineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, window, accepted, .. } = self;
        writeln!(
            f,
            "{accepted} messages from {} users, {window} in flight each, to as many who are away",
            users / 2
        )?;
        writeln!(f)?;
        for (what, part) in [("stored", &self.stored), ("fetched", &self.fetched)] {
            let Some(part) = part else { continue };
            let (rate, messages) = (number(part.per_second), number(count(part.messages)));
            writeln!(f, "{what}: {rate} per second ({messages} in {:.2} s)", part.seconds)?;
            if let Some(server) = &part.server {
                write!(f, "{server}")?;
            }
        }
        if self.stored.is_some() {
            let [p50, p99] = [self.ok_us.p50, self.ok_us.p99].map(|us| number(count(us) / 1e3));
            writeln!(f, "send to its ok: p50 {p50} ms, p99 {p99} ms")?;
        }
        writeln!(f)?;
        let Self { unanswered, refused, lost, doubled, disordered, unpromised, closed, .. } = self;
        let flaw = if self.is_clean() { "clean" } else { "NOT CLEAN" };
        writeln!(f, "{flaw}: {lost} lost, {doubled} doubled, {disordered} out of order")?;
        writeln!(
            f,
            "  {unanswered} unanswered, {refused} refused, {unpromised} came without an ok, {closed} connections closed"
        )?;
        match &self.trouble {
            Some(trouble) => writeln!(f, "  first trouble: {trouble}"),
            None => Ok(()),
        }
    }
}
