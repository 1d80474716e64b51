//! The two ends of the measured time, and what was used between them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::process::{self, Sample, Watch, count};
use crate::report::ServerUse;

/// One end.
pub(crate) struct Mark {
    pub(crate) at: Instant,
    wall_ms: f64,
    server: Option<Sample>,
    own: Duration,
    machine: Option<Duration>,
}

/// What lies between two ends.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) seconds: f64,
    /// In milliseconds since 1970.
    pub(crate) begin_ms: f64,
    pub(crate) end_ms: f64,
    pub(crate) server: Option<ServerUse>,
    /// CPU time of this program, in cores.
    pub(crate) load_cores: f64,
    /// CPU time of everything else, in cores.
    pub(crate) others_cores: Option<f64>,
}

impl Mark {
    pub(crate) fn now(watch: &Watch) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: Instant::now(),
            wall_ms: wall.as_secs_f64() * 1e3,
            server: watch.sample(),
            own: process::own_cpu(),
            machine: process::machine_cpu(),
        }
    }

    /// What was used from here to `end`, for so many messages.
    pub(crate) fn until(&self, end: &Self, messages: u64) -> Span {
        let seconds = end.at.saturating_duration_since(self.at).as_secs_f64();
        let cores = |used: f64| if seconds > 0.0 { used / seconds } else { 0.0 };
        let own = end.own.saturating_sub(self.own).as_secs_f64();
        let server = self.server.as_ref().zip(end.server.as_ref()).map(|(from, to)| from.until(to, messages));
        let machine = self.machine.zip(end.machine).map(|(from, to)| to.saturating_sub(from).as_secs_f64());
        let others_cores = server.as_ref().zip(machine).map(|(server, machine)| {
            // What little the coarser clock gives too little is nothing.
            (cores(machine - own) - server.all_cores()).max(0.0)
        });
        Span {
            seconds,
            begin_ms: self.wall_ms,
            end_ms: end.wall_ms,
            server,
            load_cores: cores(own),
            others_cores,
        }
    }
}

impl Span {
    pub(crate) fn rate(&self, number: u64) -> f64 {
        if self.seconds > 0.0 { count(number) / self.seconds } else { 0.0 }
    }
}
