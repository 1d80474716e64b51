//! What a run of the shape `idle` found out.

use std::fmt;

use serde::Serialize;

use super::{Memory, ServerUse};
use crate::process::count;
use crate::table::{Table, number};

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
