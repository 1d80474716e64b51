//! What batching is worth, and how many syncs a message costs. Embedded only: there both are the server's own.

use std::time::Duration;

use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::bench::{Bench, Failure, values};
use crate::cases::messages;
use crate::engine::Engine;
use crate::syncs::Counter;

/// The server as it is, and with one message to a transaction.
const SUBJECTS: [(&str, &[&str]); 2] = [("batch 512", &[]), ("batch 1", &["--batch-max", "1"])];

const LOAD: [&str; 6] = ["--shape", "pairs", "--users", "200", "--window", "16"];

/// At most so many syncs per message: 1 in 50.
const SYNCS_MAX: f64 = 1.0 / 50.0;
/// Batching is worth at least so many times the rate.
const BATCHING_MIN: f64 = 4.0;

impl Bench {
    /// Both subjects in every round, one after the other, each time the other one first.
    pub(crate) fn batching(&self, rows: &mut Rows) -> Result<(), Failure> {
        let mut reports: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
        for round in 0..self.rounds {
            for turn in 0..2 {
                let at = (round + turn) % 2;
                let (Some((name, flags)), Some(reports)) = (SUBJECTS.get(at), reports.get_mut(at)) else {
                    continue;
                };
                let run = ("batching", round, *name);
                reports.push(self.undisturbed(run, Engine::Embedded, flags, &LOAD)?);
            }
        }
        let case = "batching: 200 users, 16 in flight";
        let rate = |reports: &[Value]| values(reports, "/accepted_per_second", 1.0);
        let [ours, one] = &reports;
        rows.add(case, "batch 512", "acknowledged messages", "1/s", &rate(ours), None);
        rows.compare(&rate(ours), &rate(one), Bar::AtLeast(BATCHING_MIN));
        messages(rows, case, "batch 1", one, [None; 4]);
        Ok(())
    }

    pub(crate) fn syncs(&self, rows: &mut Rows) -> Result<(), Failure> {
        let Some(counter) = Counter::find() else { return Ok(()) };
        let case = format!("syncs (by {}): 200 users, 16 in flight", counter.name());
        for (name, flags) in SUBJECTS {
            let mut per_message = Vec::new();
            for round in 0..self.rounds {
                let (value, report) = self.count_syncs(counter, flags)?;
                self.say(("syncs", round, name), &report);
                eprintln!("  that is {value:.5} syncs per message");
                per_message.push(value);
            }
            let bar = (name == "batch 512" && counter == Counter::Perf).then_some(Bar::AtMost(SYNCS_MAX));
            rows.add(&case, name, "syncs per acknowledged message", "1", &per_message, bar);
        }
        Ok(())
    }

    fn count_syncs(&self, counter: Counter, flags: &[&str]) -> Result<(f64, Value), Failure> {
        let folder = self.temporary()?;
        let subject = self.start(Engine::Embedded, &counter.wrapper(folder.path()), flags)?;
        let counting = counter.begin(folder.path(), subject.chatd.pid())?;
        let report = self.load(&subject, &LOAD)?;
        // Its end is the end of the count.
        subject.chatd.terminate();
        subject.chatd.wait_exit(Duration::from_secs(30));
        let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
        let (begin, end, messages) = match (number("/begin_ms"), number("/end_ms"), number("/accepted")) {
            (Some(begin), Some(end), Some(messages)) if messages > 0.0 => (begin, end, messages),
            _ => return Err("nothing was measured".to_owned()),
        };
        let syncs = counting.end(begin, end)?;
        if syncs == 0 {
            return Err(
                "not one sync was seen: messages were not made durable, or the counting failed".to_owned()
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let per_message = syncs as f64 / messages;
        Ok((per_message, report))
    }
}
