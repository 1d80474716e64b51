//! What connections cost that do nothing.

use benches::rig::{Failure, Job, Server, Subject, Wrapper};
use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::{Bench, figure};

/// Resident bytes per idle connection.
const BYTES_MAX: f64 = 300.0;
/// As many as the descriptor limit of common machines (20,000) leaves room for with something to spare.
const HELD: &str = "15000";
/// Rounds: memory differs little from run to run.
const ROUNDS: usize = 3;

impl Bench {
    pub(crate) fn idle(&self, rows: &mut Rows) -> Result<(), Failure> {
        let connections = if self.quick { "1000" } else { "10000" };
        let case = format!("idle: {connections} connections");
        let mut reports: Vec<Vec<Value>> = vec![Vec::new(); self.subjects.len()];
        for round in 0..ROUNDS.min(self.rounds) {
            for (at, subject) in self.turns(round) {
                let report = self.hold(subject, connections, "0")?;
                if let Some(reports) = reports.get_mut(at) {
                    reports.push(report);
                }
            }
        }
        for (subject, reports) in self.subjects.iter().zip(&reports) {
            let bar = (*subject == Subject::Reactor).then_some(Bar::AtMost(BYTES_MAX));
            for (metric, pointer) in [
                ("resident per connection, fresh", "/fresh_bytes_per_connection"),
                ("the same after one message of 16 KiB", "/touched_bytes_per_connection"),
            ] {
                let values =
                    reports.iter().map(|report| figure(report, pointer)).collect::<Result<Vec<_>, _>>()?;
                rows.add(&case, subject.name(), metric, "bytes", &values, bar);
            }
        }
        self.held(rows)
    }

    /// As many connections as fit, and whether they let the loop sleep.
    fn held(&self, rows: &mut Rows) -> Result<(), Failure> {
        let connections = if self.quick { "1000" } else { HELD };
        let case = format!("held: {connections} connections");
        let report = self.hold(Subject::Reactor, connections, if self.quick { "0.5" } else { "3" })?;
        let mut add = |metric: &str, unit: &str, pointer: &str, bar| {
            figure(&report, pointer).map(|value| rows.add(&case, "reactor", metric, unit, &[value], bar))
        };
        let all = connections.parse().map_err(|e| format!("{connections}: {e}"))?;
        add("connections held", "1", "/connections", Some(Bar::AtLeast(all)))?;
        add("wake-ups while idle", "1", "/wakeups", Some(Bar::AtMost(0.0)))?;
        add("time idle", "s", "/watched_seconds", None)
    }

    fn hold(&self, subject: Subject, connections: &str, seconds: &str) -> Result<Value, Failure> {
        let command = self.workshop.command(subject, Job::Echo, 1);
        let server = Server::start(Wrapper::None, "0", &command)?;
        let load = ["--shape", "hold", "--size", "16384", "--connections", connections, "--seconds", seconds];
        self.workshop.load("1", &server, &load)
    }
}
