//! The chat server under load: messages per second with and without batching, syncs per message, memory of idle users.
//!
//! `cargo bench -p benches --bench chat -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod syncs;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use tempfile::TempDir;
use testkit::Chatd;

use crate::syncs::Counter;

/// The chat server under load.
///
/// Each run has a fresh release chatd with an empty data folder under target/bench. The server is pinned to core 0, chatload to core 1. Subjects that are
/// compared take turns, and the figures are medians over the rounds. The results go to target/bench/chat.json too.
#[derive(Debug, Parser)]
#[command(name = "chat")]
struct Options {
    /// What to run; all when none is named
    cases: Vec<Case>,
    /// A short run, to see that it works; its figures are worth little
    #[arg(long)]
    quick: bool,
    /// Rounds of each case [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that each load is measured [default: 10, or 2 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<u32>,
    /// How often a run is repeated that something else on the machine disturbed; the last try counts in any case
    #[arg(long, value_name = "N", default_value_t = 0)]
    patience: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 200 users in pairs, 16 in flight each; batches of 512 and of 1
    Pairs,
    /// Two users, 1 in flight each
    Two,
    /// Syncs per message, counted by the kernel (perf), or by strace where that is not allowed
    Syncs,
    /// 10,000 idle users
    Idle,
    /// A group of 1,000 and one of 100, one writer each, 8 in flight
    Group,
}

/// Who is compared: the server as it is, and with one message to a transaction.
const SUBJECTS: [(&str, &[&str]); 2] = [("batch 512", &[]), ("batch 1", &["--batch-max", "1"])];

/// The load of the cases that are compared.
const PAIRS: [&str; 6] = ["--shape", "pairs", "--users", "200", "--window", "16"];

/// Cores that everything else on the machine may use beside a run; more disturbs it. The kernel's own threads are in it: with a sync for each
/// message those for the disk take nearly 0.2.
const OTHERS_MAX: f64 = 0.3;

/// Syncs that are timed to know the disk.
const PROBES: usize = 500;

/// Password hashing is not what is measured, and 10,000 registrations at full strength would take minutes.
const CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";

/// At most so many syncs per message: 1 in 50.
const SYNCS_MAX: f64 = 1.0 / 50.0;
/// Batching is worth at least so many times the rate.
const BATCHING_MIN: f64 = 4.0;
/// Resident bytes of an idle connection above the empty server, at most.
const IDLE_BYTES_MAX: f64 = 2_048.0;

/// Microseconds of CPU outside the kernel that a delivery in a group may cost.
const DELIVERY_USER_US_MAX: f64 = 3.0;
/// Logins by token per second, at least.
const TOKEN_LOGINS_MIN: f64 = 5_000.0;

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench chat` runs it");
        return ExitCode::SUCCESS;
    }
    match Bench::new(&options).and_then(|bench| bench.run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("chat: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("chat: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Where and how often.
struct Bench {
    folder: PathBuf,
    quick: bool,
    rounds: usize,
    seconds: String,
    patience: u32,
}

/// A server that is being loaded, and its data folder.
struct Subject {
    chatd: Chatd,
    _data: TempDir,
}

type Failure = String;

impl Bench {
    fn new(options: &Options) -> Result<Self, Failure> {
        if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
            return Err("needs two cores: one for the server, one for the load".to_owned());
        }
        if !testkit::need_program("taskset") {
            return Err("needs taskset".to_owned());
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder).map_err(|e| format!("could not make {}: {e}", folder.display()))?;
        let (rounds, seconds) = if options.quick { (1, 2) } else { (3, 10) };
        Ok(Self {
            folder,
            quick: options.quick,
            rounds: options.rounds.unwrap_or(rounds).max(1),
            seconds: options.seconds.unwrap_or(seconds).max(1).to_string(),
            patience: options.patience,
        })
    }

    fn run(&self, options: &Options) -> Result<bool, Failure> {
        let chosen = |case| options.cases.is_empty() || options.cases.contains(&case);
        eprintln!("{}; load average before: {}", benches::machine(&self.folder), benches::load_average());
        let mut rows = Rows::default();
        self.disk(&mut rows)?;
        if chosen(Case::Pairs) {
            self.pairs(&mut rows)?;
        }
        if chosen(Case::Two) {
            self.two(&mut rows)?;
        }
        if chosen(Case::Syncs) {
            self.syncs(&mut rows)?;
        }
        if chosen(Case::Idle) {
            self.idle(&mut rows)?;
        }
        if chosen(Case::Group) {
            for size in [100, 1_000] {
                self.group(size, &mut rows)?;
            }
        }
        println!("{rows}");
        let file = self.folder.join("chat.json");
        rows.write(&file).map_err(|e| format!("could not write {}: {e}", file.display()))?;
        Ok(rows.hold())
    }

    /// What a sync costs on this disk: without it the rates of two machines cannot be compared.
    fn disk(&self, rows: &mut Rows) -> Result<(), Failure> {
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

    /// Both subjects in every round, one after the other, each time the other one first.
    fn pairs(&self, rows: &mut Rows) -> Result<(), Failure> {
        let mut reports: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
        for round in 0..self.rounds {
            for turn in 0..2 {
                let at = (round + turn) % 2;
                let (Some((name, flags)), Some(reports)) = (SUBJECTS.get(at), reports.get_mut(at)) else {
                    continue;
                };
                reports.push(self.undisturbed(("pairs", round, name), flags, &PAIRS)?);
            }
        }
        let case = "pairs: 200 users, 16 in flight";
        let rate = |reports: &[Value]| figures(reports, "/accepted_per_second", 1.0);
        let [ours, one] = &reports;
        for ((name, _), reports) in SUBJECTS.iter().zip(&reports) {
            rows.add(case, name, "acknowledged messages", "1/s", &rate(reports), None);
            if *name == "batch 512" {
                rows.compare(&rate(ours), &rate(one), Bar::AtLeast(BATCHING_MIN));
            }
            self.latencies(rows, case, name, reports);
        }
        Ok(())
    }

    fn two(&self, rows: &mut Rows) -> Result<(), Failure> {
        let mut reports = Vec::new();
        for round in 0..self.rounds {
            let load = ["--shape", "pairs", "--users", "2", "--window", "1"];
            reports.push(self.undisturbed(("two", round, "batch 512"), &[], &load)?);
        }
        let case = "two users, 1 in flight";
        let rate = figures(&reports, "/accepted_per_second", 1.0);
        rows.add(case, "batch 512", "acknowledged messages", "1/s", &rate, None);
        self.latencies(rows, case, "batch 512", &reports);
        Ok(())
    }

    fn latencies(&self, rows: &mut Rows, case: &str, subject: &str, reports: &[Value]) {
        let mut add = |metric: &str, unit: &str, pointer: &str, scale: f64| {
            rows.add(case, subject, metric, unit, &figures(reports, pointer, scale), None);
        };
        add("send to partner's receipt, p50", "ms", "/receipt_us/p50", 1e-3);
        add("send to partner's receipt, p99", "ms", "/receipt_us/p99", 1e-3);
        add("send to ok, p50", "ms", "/ok_us/p50", 1e-3);
        add("send to ok, p99", "ms", "/ok_us/p99", 1e-3);
        add("server CPU per message", "us", "/server/cpu_us_per_message", 1.0);
        add("server CPU", "cores", "/server/cores", 1.0);
        add("server resident at the end", "MiB", "/server/after/rss_bytes", 1.0 / 1_048_576.0);
        add("load generator CPU", "cores", "/load_cores", 1.0);
        add("CPU of everything else", "cores", "/others_cores", 1.0);
    }

    fn syncs(&self, rows: &mut Rows) -> Result<(), Failure> {
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
        let subject = self.start(&counter.wrapper(folder.path()), flags)?;
        let counting = counter.begin(folder.path(), subject.chatd.pid())?;
        let report = self.load(&subject, &PAIRS)?;
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

    fn idle(&self, rows: &mut Rows) -> Result<(), Failure> {
        let users = if self.quick { "500" } else { "10000" };
        let mut reports = Vec::new();
        for round in 0..self.rounds {
            let subject = self.start(&[], &[])?;
            let report = self.load(&subject, &["--shape", "idle", "--users", users])?;
            let bytes = report.pointer("/bytes_per_connection").and_then(Value::as_f64).unwrap_or_default();
            eprintln!("idle, round {} of {}: {bytes:.0} bytes per connection", round + 1, self.rounds);
            reports.push(report);
        }
        let case = format!("idle: {users} users logged in");
        // So few users do not carry what the first one costs.
        let bar = (!self.quick).then_some(Bar::AtMost(IDLE_BYTES_MAX));
        let mut add = |metric: &str, unit: &str, pointer: &str, scale: f64, bar| {
            rows.add(&case, "chatd", metric, unit, &figures(&reports, pointer, scale), bar);
        };
        add("resident per connection, above empty", "bytes", "/bytes_per_connection", 1.0, bar);
        add("the same above all registered", "bytes", "/bytes_per_connection_alone", 1.0, None);
        add("resident, empty", "KiB", "/empty/rss_bytes", 1.0 / 1024.0, None);
        add("resident, all logged in", "KiB", "/idle/rss_bytes", 1.0 / 1024.0, None);
        add("server CPU while idle", "cores", "/server/cores", 1.0, None);
        let bar = (!self.quick).then_some(Bar::AtLeast(TOKEN_LOGINS_MIN));
        add("logins by token", "1/s", "/logins_per_second", 1.0, bar);
        Ok(())
    }

    fn group(&self, size: usize, rows: &mut Rows) -> Result<(), Failure> {
        let shape = format!("group:{size}");
        let mut reports = Vec::new();
        for round in 0..self.rounds {
            let subject = self.start(&[], &[])?;
            let report = self.load(&subject, &["--shape", &shape, "--window", "8"])?;
            let rate = report.pointer("/delivered_per_second").and_then(Value::as_f64).unwrap_or_default();
            eprintln!("group of {size}, round {} of {}: {rate:.0} deliveries/s", round + 1, self.rounds);
            reports.push(report);
        }
        let case = format!("group of {size}, one writer, 8 in flight");
        let mut add = |metric: &str, unit: &str, pointer: &str, scale: f64, bar| {
            rows.add(&case, "chatd", metric, unit, &figures(&reports, pointer, scale), bar);
        };
        add("deliveries", "1/s", "/delivered_per_second", 1.0, None);
        let bar = Some(Bar::AtMost(DELIVERY_USER_US_MAX));
        add("server CPU outside the kernel, per delivery", "us", "/server/user_us_per_message", 1.0, bar);
        add("server CPU per delivery", "us", "/server/cpu_us_per_message", 1.0, None);
        add("server CPU", "cores", "/server/cores", 1.0, None);
        add("load generator CPU", "cores", "/load_cores", 1.0, None);
        add("send to the last receipt, p99", "ms", "/delivery_us/p99", 1e-3, None);
        Ok(())
    }

    /// Loads a fresh server, and again as long as something else on the machine disturbs it and there is patience left.
    fn undisturbed(&self, run: (&str, usize, &str), flags: &[&str], load: &[&str]) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            let subject = self.start(&[], flags)?;
            let report = self.load(&subject, load)?;
            self.say(run, &report);
            let others = report.pointer("/others_cores").and_then(Value::as_f64).unwrap_or_default();
            if others <= OTHERS_MAX || tries >= self.patience {
                return Ok(report);
            }
            tries += 1;
            eprintln!("  disturbed: once more ({tries} of {})", self.patience);
        }
    }

    /// A fresh server on core 0, under a wrapper.
    fn start(&self, wrapper: &[OsString], flags: &[&str]) -> Result<Subject, Failure> {
        let data = self.temporary()?;
        let pin = ["taskset", "-c", "0"].map(OsString::from);
        let chatd = Chatd::builder(testkit::bin("chatd"))
            .config(CONFIG)
            .data_dir(data.path().join("data"))
            .wrap(wrapper.iter().chain(&pin))
            .args(flags)
            .start()
            .map_err(|e| e.to_string())?;
        Ok(Subject { chatd, _data: data })
    }

    /// Runs chatload on core 1. A result that is not clean is a failure: a server that loses messages is not fast.
    fn load(&self, subject: &Subject, args: &[&str]) -> Result<Value, Failure> {
        let folder = self.temporary()?;
        let json = folder.path().join("report.json");
        let mut command = Command::new("taskset");
        command.args(["-c", "1", env!("CARGO_BIN_EXE_chatload")]);
        command.args(["--addr", &subject.chatd.chat_addr().to_string()]);
        command.args(["--pid", &subject.chatd.pid().to_string(), "--seconds", &self.seconds]);
        command.arg("--json").arg(&json).args(args);
        let output = command.output().map_err(|e| format!("could not run taskset: {e}"))?;
        if !output.status.success() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let words = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            return Err(format!("{words} ended with {}\n{out}{err}", output.status));
        }
        let text = std::fs::read(&json).map_err(|e| format!("no report: {e}"))?;
        serde_json::from_slice(&text).map_err(|e| format!("not a report: {e}"))
    }

    /// On the disk of the target folder, for a temporary folder of the system may be in memory, where a sync costs nothing.
    fn temporary(&self) -> Result<TempDir, Failure> {
        let made = tempfile::Builder::new().prefix("chat-").tempdir_in(&self.folder);
        made.map_err(|e| format!("could not make a folder in {}: {e}", self.folder.display()))
    }

    fn say(&self, (case, round, subject): (&str, usize, &str), report: &Value) {
        let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
        eprintln!(
            "{case}, round {} of {}, {subject}: {} messages/s, p99 {} ms; {:.2} cores used by others",
            round + 1,
            self.rounds,
            benches::number(number("/accepted_per_second")),
            benches::number(number("/receipt_us/p99") / 1e3),
            number("/others_cores"),
        );
    }
}

/// One figure out of each report.
fn figures(reports: &[Value], pointer: &str, scale: f64) -> Vec<f64> {
    reports.iter().filter_map(|report| Some(report.pointer(pointer)?.as_f64()? * scale)).collect()
}
