//! What the plots are drawn from: one figure against another, a row for each point. A case is named `curve NAME at X`.

use benches::rows::Rows;
use serde_json::Value;

use crate::bench::{Bench, Failure, Figure, add};
use crate::engine::Engine;

const SHORT: [&str; 4] = ["--seconds", "4", "--warmup", "1"];

impl Bench {
    pub(crate) fn curves(&self, rows: &mut Rows) -> Result<(), Failure> {
        self.by_window(rows)?;
        self.by_load(rows)?;
        self.by_connections(rows)?;
        self.by_group_size(rows)
    }

    /// One fresh server for each point: what was stored before is in no figure.
    fn point(&self, engine: Engine, curve: &str, x: &str, load: &[&str]) -> Result<Value, Failure> {
        let subject = self.start(engine, &[], &[])?;
        let report = self.load(&subject, &[load, &SHORT].concat())?;
        self.say((&format!("{curve} at {x}"), 0, engine.name()), &report);
        Ok(report)
    }

    fn by_window(&self, rows: &mut Rows) -> Result<(), Failure> {
        for window in ["1", "2", "4", "8", "16", "32", "64", "128"] {
            for engine in &self.engines {
                let load = ["--shape", "pairs", "--users", "200", "--window", window];
                let report = self.point(*engine, "window", window, &load)?;
                let figures: [Figure<'_>; 3] = [
                    ("acknowledged messages", "1/s", "/accepted_per_second", 1.0, None),
                    ("send to the partner's receipt, p99", "ms", "/receipt_us/p99", 1e-3, None),
                    ("CPU per message", "us", "/server/all_us_per_message", 1.0, None),
                ];
                add(rows, &format!("curve window at {window}"), engine.name(), &[report], &figures);
            }
        }
        Ok(())
    }

    /// Up to one and a half times the rate that a full window reaches.
    fn by_load(&self, rows: &mut Rows) -> Result<(), Failure> {
        for engine in &self.engines {
            let full = self.point(*engine, "load", "full", &["--shape", "pairs", "--users", "200"])?;
            let full = full.pointer("/accepted_per_second").and_then(Value::as_f64).unwrap_or_default();
            for part in [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5] {
                let rate = format!("{:.0}", (full * part).max(1.0));
                let load = ["--shape", "pairs", "--users", "200", "--window", "256", "--rate", &rate];
                let report = self.point(*engine, "load", &rate, &load)?;
                let figures: [Figure<'_>; 4] = [
                    ("acknowledged messages", "1/s", "/accepted_per_second", 1.0, None),
                    ("send to ok, p50", "ms", "/ok_us/p50", 1e-3, None),
                    ("send to ok, p99", "ms", "/ok_us/p99", 1e-3, None),
                    ("answered overloaded", "1/s", "/pace/overloaded_per_second", 1.0, None),
                ];
                add(rows, &format!("curve load at {rate}"), engine.name(), &[report], &figures);
            }
        }
        Ok(())
    }

    fn by_connections(&self, rows: &mut Rows) -> Result<(), Failure> {
        for users in ["100", "1000", "2500", "5000", "10000"] {
            let report =
                self.point(Engine::Embedded, "connections", users, &["--shape", "idle", "--users", users])?;
            let figures: [Figure<'_>; 2] = [
                ("resident", "MiB", "/idle/rss_bytes", 1.0 / 1_048_576.0, None),
                ("resident per connection", "bytes", "/bytes_per_connection", 1.0, None),
            ];
            add(rows, &format!("curve connections at {users}"), Engine::Embedded.name(), &[report], &figures);
        }
        Ok(())
    }

    fn by_group_size(&self, rows: &mut Rows) -> Result<(), Failure> {
        for size in ["2", "5", "10", "30", "100", "300", "1000"] {
            for engine in &self.engines {
                let shape = format!("group:{size}");
                let report = self.point(*engine, "group", size, &["--shape", &shape, "--window", "8"])?;
                let figures: [Figure<'_>; 2] = [
                    ("CPU per delivery", "us", "/server/all_us_per_message", 1.0, None),
                    ("deliveries", "1/s", "/delivered_per_second", 1.0, None),
                ];
                add(rows, &format!("curve group at {size}"), engine.name(), &[report], &figures);
            }
        }
        Ok(())
    }
}
