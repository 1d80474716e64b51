//! What a run of the shape `pairs` found out.

use std::fmt;

use serde::Serialize;

use super::{Quantiles, ServerUse, Verdict};
use crate::process::count;
use crate::table::{Table, number};

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
    /// Of a run with a rate of its own.
    pub pace: Option<PaceReport>,
    /// What was promised and what came, over the whole run.
    pub verdict: Verdict,
}

/// How a run with a rate of its own was taken. All but the last is of the measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PaceReport {
    /// Messages that were to be sent.
    pub offered_per_second: f64,
    /// Of them, not sent because the sender's window was full.
    pub held_back_per_second: f64,
    /// Of them, answered `overloaded`. They are not sent again.
    pub overloaded_per_second: f64,
    /// From the change to the lower rate to the last answer that was `overloaded` or took more than 100 ms, in milliseconds.
    pub recovered_ms: Option<f64>,
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
        if let Some(pace) = &self.pace {
            write!(f, "{pace}")?;
        }
        if let Some(others) = self.others_cores {
            writeln!(f, "everything else on this machine used {others:.2} cores")?;
        }
        writeln!(f)?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for PaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [offered, held, overloaded] =
            [self.offered_per_second, self.held_back_per_second, self.overloaded_per_second].map(number);
        writeln!(
            f,
            "of {offered} messages/s, {overloaded} were answered overloaded and {held} held back by full windows"
        )?;
        match self.recovered_ms {
            Some(ms) => writeln!(f, "recovered {} ms after the rate fell", number(ms)),
            None => Ok(()),
        }
    }
}
