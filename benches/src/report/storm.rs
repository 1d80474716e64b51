//! What a run of the shape `storm` found out.

use std::fmt;

use serde::Serialize;

use super::{Quantiles, ServerUse};
use crate::process::count;
use crate::table::number;

/// What became of logins one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct StormReport {
    /// Part of the users' names.
    pub run_id: String,
    /// Users who take turns.
    pub users: usize,
    /// The measured time.
    pub seconds: f64,
    /// Logins in that time, up to `synced`.
    pub logins: u64,
    /// The same per second.
    pub logins_per_second: f64,
    /// From the begin of the connection to `synced`, in microseconds.
    pub login_us: Quantiles,
    /// What the server used; per message means per login.
    pub server: Option<ServerUse>,
    /// CPU time that this program used, in cores.
    pub load_cores: f64,
    /// Connections that the server closed.
    pub closed: u64,
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} users log in by token in turns, {:.1} s measured", self.users, self.seconds)?;
        writeln!(f)?;
        writeln!(f, "logins, from connect to synced: {} per second", number(self.logins_per_second))?;
        let [p50, p99, max] = [self.login_us.p50, self.login_us.p99, self.login_us.max];
        let [p50, p99, max] = [p50, p99, max].map(|us| number(count(us) / 1e3));
        writeln!(f, "each: p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
        if let Some(server) = &self.server {
            write!(f, "{server}")?;
        }
        writeln!(f, "chatload used {:.2} of its core", self.load_cores)?;
        writeln!(f)?;
        match self.closed {
            0 => writeln!(f, "clean: everybody came in"),
            closed => writeln!(f, "NOT CLEAN: {closed} connections were closed"),
        }
    }
}
