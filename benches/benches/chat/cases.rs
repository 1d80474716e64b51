//! Messages between users, groups, idle users, and logins.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use benches::rows::{Bar, Rows};
use serde_json::Value;

use crate::bench::{Bench, Failure, Figure, add, values};
use crate::engine::Engine;

/// Syncs that are timed to know the disk.
const PROBES: usize = 500;

const PAIRS: [&str; 4] = ["--shape", "pairs", "--users", "200"];

/// What a load is worth with ten thousand users, or ten million stored messages, against without, at least.
const STEADY_MIN: f64 = 0.8;

impl Bench {
    /// What a sync costs on this disk: without it the rates of two machines cannot be compared.
    pub(crate) fn disk(&self, rows: &mut Rows) -> Result<(), Failure> {
        let failed = |e: std::io::Error| format!("could not write in {}: {e}", self.folder.display());
        let folder = self.temporary()?;
        let mut file = File::create(folder.path().join("probe")).map_err(failed)?;
        let mut times = Vec::new();
        for _ in 0..PROBES {
            let since = Instant::now();
            file.write_all(&[0; 4096]).and_then(|()| file.sync_all()).map_err(failed)?;
            times.push(since.elapsed().as_secs_f64() * 1e3);
        }
        rows.add("disk", "file system", "write of 4 KiB and fsync", "ms", &times, None);
        Ok(())
    }

    pub(crate) fn w1(&self, rows: &mut Rows) -> Result<(), Failure> {
        let load = [&PAIRS[..], &["--window", "1"]].concat();
        for (engine, reports) in self.interleaved("W1", &[], &load)? {
            let rate = Bar::AtLeast(engine.pick(20_000.0, 8_000.0));
            let p99 = Bar::AtMost(engine.pick(25.0, 50.0));
            let cpu = Bar::AtMost(engine.pick(50.0, 120.0));
            messages(
                rows,
                "W1: 200 users, 1 in flight",
                engine.name(),
                &reports,
                [Some(rate), None, Some(p99), Some(cpu)],
            );
        }
        Ok(())
    }

    pub(crate) fn w2(&self, rows: &mut Rows) -> Result<(), Failure> {
        let load = [&PAIRS[..], &["--window", "16"]].concat();
        for (engine, reports) in self.interleaved("W2", &[], &load)? {
            let rate = Bar::AtLeast(engine.pick(30_000.0, 12_000.0));
            let cpu = Bar::AtMost(engine.pick(33.0, 80.0));
            let bars = [Some(rate), None, None, Some(cpu)];
            messages(rows, "W2: 200 users, 16 in flight", engine.name(), &reports, bars);
        }
        Ok(())
    }

    pub(crate) fn two(&self, rows: &mut Rows) -> Result<(), Failure> {
        let load = ["--shape", "pairs", "--users", "2", "--window", "1"];
        for (engine, reports) in self.interleaved("two users", &[], &load)? {
            let is_ours = engine == Engine::Embedded;
            let [p50, p99] = [1.0, 3.0].map(|ms| is_ours.then_some(Bar::AtMost(ms)));
            messages(rows, "two users, 1 in flight", engine.name(), &reports, [None, p50, p99, None]);
        }
        Ok(())
    }

    pub(crate) fn w3(&self, rows: &mut Rows) -> Result<(), Failure> {
        self.group_with("W3: a group of 100, 8 in flight", 100, [400_000.0, 2.0].map(Some), rows)
    }

    pub(crate) fn group(&self, size: usize, rows: &mut Rows) -> Result<(), Failure> {
        let case = format!("a group of {size}, 8 in flight");
        self.group_with(&case, size, [None, None], rows)
    }

    fn group_with(
        &self,
        case: &str,
        size: usize,
        [rate, cpu]: [Option<f64>; 2],
        rows: &mut Rows,
    ) -> Result<(), Failure> {
        let shape = format!("group:{size}");
        for (engine, reports) in self.interleaved(case, &[], &["--shape", &shape, "--window", "8"])? {
            let figures: [Figure<'_>; 7] = [
                ("deliveries", "1/s", "/delivered_per_second", 1.0, rate.map(Bar::AtLeast)),
                (
                    "CPU per delivery, server and database",
                    "us",
                    "/server/all_us_per_message",
                    1.0,
                    cpu.map(Bar::AtMost),
                ),
                (
                    "CPU per delivery, chatd outside the kernel",
                    "us",
                    "/server/user_us_per_message",
                    1.0,
                    None,
                ),
                ("CPU of chatd", "cores", "/server/cores", 1.0, None),
                ("CPU of the load generator", "cores", "/load_cores", 1.0, None),
                ("send to the last receipt, p50", "ms", "/delivery_us/p50", 1e-3, None),
                ("send to the last receipt, p99", "ms", "/delivery_us/p99", 1e-3, None),
            ];
            add(rows, case, engine.name(), &reports, &figures);
        }
        Ok(())
    }

    pub(crate) fn w4(&self, rows: &mut Rows) -> Result<(), Failure> {
        let users = if self.quick { "500" } else { "10000" };
        let case = format!("W4: {users} idle users");
        let load = ["--shape", "idle", "--users", users, "--seconds", "5"];
        for (engine, reports) in self.interleaved(&case, &[], &load)? {
            // So few users do not carry what the first one costs.
            let bytes = (!self.quick).then_some(Bar::AtMost(1_000.0));
            let figures: [Figure<'_>; 5] = [
                (
                    "resident per user, above the server with all registered",
                    "bytes",
                    "/bytes_per_connection_alone",
                    1.0,
                    bytes,
                ),
                ("the same above the empty server", "bytes", "/bytes_per_connection", 1.0, None),
                ("resident, empty", "KiB", "/empty/rss_bytes", 1.0 / 1024.0, None),
                ("resident, all logged in", "KiB", "/idle/rss_bytes", 1.0 / 1024.0, None),
                ("CPU of chatd while idle", "cores", "/server/cores", 1.0, None),
            ];
            add(rows, &case, engine.name(), &reports, &figures);
        }
        let users = if self.quick { "200" } else { "2000" };
        for (engine, reports) in self.interleaved("logins", &[], &["--shape", "storm", "--users", users])? {
            let bar = (!self.quick).then_some(Bar::AtLeast(10_000.0));
            let figures: [Figure<'_>; 3] = [
                ("logins by token, connect to synced", "1/s", "/logins_per_second", 1.0, bar),
                ("each, p99", "ms", "/login_us/p99", 1e-3, None),
                ("CPU per login, server and database", "us", "/server/all_us_per_message", 1.0, None),
            ];
            add(rows, &format!("login storm of {users} users"), engine.name(), &reports, &figures);
        }
        Ok(())
    }

    /// Many users with one message in flight each, against few. The warm-up is long, for each pair's first message makes its conversation.
    pub(crate) fn users(&self, rows: &mut Rows) -> Result<(), Failure> {
        let many = if self.quick { "2000" } else { "10000" };
        let [few, many_load] = ["200", many].map(|users| {
            ["--shape", "pairs", "--window", "1", "--warmup", "10", "--drain", "30", "--users", users]
        });
        let few = self.interleaved("200 users", &[], &few)?;
        let case = format!("{many} users against 200, 1 in flight");
        for ((engine, reports), (_, few)) in self.interleaved(&case, &[], &many_load)?.into_iter().zip(few) {
            let rate = |reports: &[Value]| values(reports, "/accepted_per_second", 1.0);
            rows.add(&case, engine.name(), "acknowledged messages", "1/s", &rate(&reports), None);
            rows.compare(&rate(&reports), &rate(&few), Bar::AtLeast(STEADY_MIN));
        }
        Ok(())
    }

    /// One round: filling the tables takes long enough.
    pub(crate) fn stored(&self, rows: &mut Rows) -> Result<(), Failure> {
        let messages = if self.quick { "1000000" } else { "10000000" };
        let load = [&PAIRS[..], &["--window", "16"]].concat();
        for engine in &self.engines {
            let subject = self.start(*engine, &[], &[])?;
            let before = self.load(&subject, &load)?;
            eprintln!("storing {messages} messages: {}", engine.name());
            let folder = self.temporary()?;
            let state = folder.path().join("state.json").display().to_string();
            let fill = ["--shape", "store", "--users", "2000", "--window", "16", "--messages", messages];
            self.load(&subject, &[&fill[..], &["--state", &state]].concat())?;
            let after = self.load(&subject, &load)?;
            let rate = |report: &Value| values(std::slice::from_ref(report), "/accepted_per_second", 1.0);
            let case = format!("W2 with {messages} messages stored before");
            rows.add(&case, engine.name(), "acknowledged messages", "1/s", &rate(&after), None);
            rows.compare(&rate(&after), &rate(&before), Bar::AtLeast(STEADY_MIN));
        }
        Ok(())
    }
}

/// The rows of a load of pairs. The bars: rate, p50, p99, CPU.
pub(crate) fn messages(
    rows: &mut Rows,
    case: &str,
    subject: &str,
    reports: &[Value],
    [rate, p50, p99, cpu]: [Option<Bar>; 4],
) {
    let figures: [Figure<'_>; 11] = [
        ("acknowledged messages", "1/s", "/accepted_per_second", 1.0, rate),
        ("send to the partner's receipt, p50", "ms", "/receipt_us/p50", 1e-3, p50),
        ("send to the partner's receipt, p99", "ms", "/receipt_us/p99", 1e-3, p99),
        ("send to ok, p50", "ms", "/ok_us/p50", 1e-3, None),
        ("send to ok, p99", "ms", "/ok_us/p99", 1e-3, None),
        ("CPU per message, server and database", "us", "/server/all_us_per_message", 1.0, cpu),
        ("CPU per message, chatd", "us", "/server/cpu_us_per_message", 1.0, None),
        ("CPU of chatd", "cores", "/server/cores", 1.0, None),
        ("resident at the end, chatd", "MiB", "/server/after/rss_bytes", 1.0 / 1_048_576.0, None),
        ("CPU of the load generator", "cores", "/load_cores", 1.0, None),
        ("CPU of everything else", "cores", "/others_cores", 1.0, None),
    ];
    add(rows, case, subject, reports, &figures);
}
