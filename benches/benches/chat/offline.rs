//! Messages to users who are away, and what a kill right after the last `ok` takes with it.

use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::bench::{Bench, Failure, Figure, add};
use crate::engine::Engine;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Chatd,
    Database,
}

impl Bench {
    pub(crate) fn w5(&self, rows: &mut Rows) -> Result<(), Failure> {
        let messages = if self.quick { "10000" } else { "100000" };
        let load = ["--shape", "offline", "--users", "200", "--window", "16", "--messages", messages];
        let case = format!("W5: {messages} messages to 100 users who are away");
        for (engine, reports) in self.interleaved("W5", &[], &load)? {
            let stored = Bar::AtLeast(engine.pick(15_000.0, 8_000.0));
            let figures: [Figure<'_>; 5] = [
                ("stored", "1/s", "/stored/per_second", 1.0, Some(stored)),
                ("CPU per stored, server and database", "us", "/stored/server/all_us_per_message", 1.0, None),
                ("send to ok, p99", "ms", "/ok_us/p99", 1e-3, None),
                ("fetched, logins included", "1/s", "/fetched/per_second", 1.0, Some(Bar::AtLeast(50_000.0))),
                (
                    "CPU per fetched, server and database",
                    "us",
                    "/fetched/server/all_us_per_message",
                    1.0,
                    None,
                ),
            ];
            add(rows, &case, engine.name(), &reports, &figures);
        }
        Ok(())
    }

    pub(crate) fn w6(&self, rows: &mut Rows) -> Result<(), Failure> {
        for engine in &self.engines {
            for victim in [Victim::Chatd, Victim::Database] {
                if *engine == Engine::Embedded && victim == Victim::Database {
                    continue;
                }
                let mut reports = Vec::new();
                for round in 0..self.rounds {
                    let report = self.kill(*engine, victim)?;
                    let number = |pointer: &str| report.pointer(pointer).cloned().unwrap_or_default();
                    let (accepted, lost, doubled) =
                        (number("/accepted"), number("/lost"), number("/doubled"));
                    let round = round + 1;
                    eprintln!(
                        "W6, {}, kill -9 of {victim:?}, round {round}: {accepted} accepted, {lost} lost, {doubled} doubled",
                        engine.name()
                    );
                    reports.push(report);
                }
                let case = format!(
                    "W6: kill -9 of {} right after the last ok",
                    if victim == Victim::Chatd { "chatd" } else { "MariaDB" }
                );
                let none = Some(Bar::AtMost(0.0));
                let figures: [Figure<'_>; 3] = [
                    ("accepted", "messages", "/accepted", 1.0, None),
                    ("lost", "messages", "/lost", 1.0, none),
                    ("doubled", "messages", "/doubled", 1.0, none),
                ];
                add(rows, &case, engine.name(), &reports, &figures);
            }
        }
        Ok(())
    }

    /// Stores, kills at the moment in which the last `ok` has come, starts again, and fetches.
    fn kill(&self, engine: Engine, victim: Victim) -> Result<Value, Failure> {
        let folder = self.temporary()?;
        let state = folder.path().join("state.json").display().to_string();
        let subject = self.start(engine, &[], &[])?;
        let pid = match victim {
            Victim::Chatd => subject.chatd.pid(),
            Victim::Database => self.database()?.pid(),
        };
        let pid = pid.to_string();
        let half = ["--users", "200", "--window", "16", "--messages", "10000", "--state", &state];
        self.load(&subject, &[&["--shape", "store", "--then-kill", &pid], &half[..]].concat())?;
        match victim {
            Victim::Chatd => subject.chatd.restart().map_err(|e| e.to_string())?,
            Victim::Database => self.database()?.come_back()?,
        }
        self.load(&subject, &[&["--shape", "fetch"], &half[..]].concat())
    }
}
