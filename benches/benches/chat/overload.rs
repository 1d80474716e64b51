//! What the server does with twice the rate that it can sustain.

use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::bench::{Bench, Failure, Figure, add, values};

/// Of the sustainable rate, what is still accepted at twice that rate, at least.
const KEPT_MIN: f64 = 0.8;
/// Milliseconds that 99 of 100 accepted messages wait for their `ok`, at most.
const P99_MAX_MS: f64 = 100.0;
/// Milliseconds until all is well behind it, at most.
const RECOVERED_MAX_MS: f64 = 1_000.0;
/// How far memory may grow from the begin of the overload to its end. The caches fill in that time, too.
const GROWTH_MAX: f64 = 1.5;

const USERS: [&str; 4] = ["--shape", "pairs", "--users", "200"];

impl Bench {
    pub(crate) fn overload(&self, rows: &mut Rows) -> Result<(), Failure> {
        let case = "overload: twice the sustainable rate, then a third of it";
        for engine in &self.engines {
            let (mut kept, mut growth, mut reports) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..self.rounds {
                let subject = self.start(*engine, &[], &[])?;
                let closed = self.load(&subject, &[&USERS[..], &["--window", "16"]].concat())?;
                let rate = |report: &Value| {
                    report.pointer("/accepted_per_second").and_then(Value::as_f64).unwrap_or_default()
                };
                let sustained = rate(&closed).max(1.0);
                let [twice, third] = [sustained * 2.0, sustained / 3.0].map(|rate| format!("{rate:.0}"));
                let open = ["--window", "256", "--rate", &twice, "--then-rate", &third];
                let report = self.load(&subject, &[&USERS[..], &open].concat())?;
                self.say(("overload", round, engine.name()), &report);
                kept.push(rate(&report) / sustained);
                let memory = |at: &str| {
                    let pointer = format!("/server/{at}/rss_bytes");
                    report.pointer(&pointer).and_then(Value::as_f64).unwrap_or_default()
                };
                growth.push(memory("after") / memory("before").max(1.0));
                reports.push(report);
            }
            let subject = engine.name();
            rows.add(
                case,
                subject,
                "accepted, of the sustainable rate",
                "1",
                &kept,
                Some(Bar::AtLeast(KEPT_MIN)),
            );
            let figures: [Figure<'_>; 6] = [
                ("offered", "1/s", "/pace/offered_per_second", 1.0, None),
                ("accepted", "1/s", "/accepted_per_second", 1.0, None),
                ("answered overloaded", "1/s", "/pace/overloaded_per_second", 1.0, None),
                ("held back by full windows", "1/s", "/pace/held_back_per_second", 1.0, None),
                (
                    "send to ok of what is accepted, p99",
                    "ms",
                    "/ok_us/p99",
                    1e-3,
                    Some(Bar::AtMost(P99_MAX_MS)),
                ),
                ("recovered after", "ms", "/pace/recovered_ms", 1.0, Some(Bar::AtMost(RECOVERED_MAX_MS))),
            ];
            add(rows, case, subject, &reports, &figures);
            rows.add(
                case,
                subject,
                "memory at the end against the begin",
                "1",
                &growth,
                Some(Bar::AtMost(GROWTH_MAX)),
            );
            let rss = values(&reports, "/server/after/rss_bytes", 1.0 / 1_048_576.0);
            rows.add(case, subject, "resident at the end, chatd", "MiB", &rss, None);
        }
        Ok(())
    }
}
