//! What all cases need: where they are, how often they run, and chatload on its core.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::rows::{Bar, Rows};
use serde_json::Value;
use tempfile::TempDir;

use crate::Options;
use crate::engine::{Database, Engine, Subject};

pub(crate) type Failure = String;

/// Cores that everything else on the machine may use beside a run; more disturbs it. The kernel's own threads are in it: with a sync for each
/// message those for the disk take nearly 0.2.
const OTHERS_MAX: f64 = 0.3;
const LOAD_CORE: &str = "1";

/// Where and how often.
pub(crate) struct Bench {
    pub(crate) folder: PathBuf,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) engines: Vec<Engine>,
    seconds: String,
    patience: u32,
    database: OnceCell<Database>,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
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
        let mut engines =
            if options.engine.is_empty() { Engine::ALL.to_vec() } else { options.engine.clone() };
        if engines.contains(&Engine::Mariadb) && !testkit::MariaDb::available() {
            engines.retain(|engine| *engine != Engine::Mariadb);
        }
        Ok(Self {
            folder,
            quick: options.quick,
            rounds: options.rounds.unwrap_or(rounds).max(1),
            engines,
            seconds: options.seconds.unwrap_or(seconds).max(1).to_string(),
            patience: options.patience,
            database: OnceCell::new(),
        })
    }

    pub(crate) fn database_if_started(&self) -> Option<&Database> {
        self.database.get()
    }

    pub(crate) fn database(&self) -> Result<&Database, Failure> {
        if let Some(database) = self.database.get() {
            return Ok(database);
        }
        let started = Database::start()?;
        Ok(self.database.get_or_init(|| started))
    }

    /// The engines of a round: each time the other one first.
    pub(crate) fn turns(&self, round: usize) -> Vec<Engine> {
        let mut engines = self.engines.clone();
        let turn = round % engines.len().max(1);
        engines.rotate_left(turn);
        engines
    }

    /// Every engine in every round under the same load; the reports of each engine.
    pub(crate) fn interleaved(
        &self,
        name: &str,
        flags: &[&str],
        load: &[&str],
    ) -> Result<Vec<(Engine, Vec<Value>)>, Failure> {
        let mut reports: Vec<(Engine, Vec<Value>)> =
            self.engines.iter().map(|engine| (*engine, Vec::new())).collect();
        for round in 0..self.rounds {
            for engine in self.turns(round) {
                let report = self.undisturbed((name, round, engine.name()), engine, flags, load)?;
                if let Some((_, reports)) = reports.iter_mut().find(|(of, _)| *of == engine) {
                    reports.push(report);
                }
            }
        }
        Ok(reports)
    }

    /// Loads a fresh server, and again as long as something else on the machine disturbs it and there is patience left.
    pub(crate) fn undisturbed(
        &self,
        run: (&str, usize, &str),
        engine: Engine,
        flags: &[&str],
        load: &[&str],
    ) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            let subject = self.start(engine, &[], flags)?;
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

    /// Runs chatload on its core. A result that is not clean is a failure: a server that loses messages is not fast.
    pub(crate) fn load(&self, subject: &Subject, args: &[&str]) -> Result<Value, Failure> {
        let folder = self.temporary()?;
        let json = folder.path().join("report.json");
        let mut command = Command::new("taskset");
        command.args(["-c", LOAD_CORE, env!("CARGO_BIN_EXE_chatload")]);
        command.args(["--addr", &subject.chatd.chat_addr().to_string()]);
        command.args(["--pid", &subject.chatd.pid().to_string()]);
        if subject.engine == Engine::Mariadb {
            command.args(["--also", &self.database()?.pid().to_string()]);
        }
        if !args.contains(&"--seconds") {
            command.args(["--seconds", &self.seconds]);
        }
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
    pub(crate) fn temporary(&self) -> Result<TempDir, Failure> {
        let made = tempfile::Builder::new().prefix("chat-").tempdir_in(&self.folder);
        made.map_err(|e| format!("could not make a folder in {}: {e}", self.folder.display()))
    }

    /// A run's figures as it ends, for the person who waits.
    pub(crate) fn say(&self, (case, round, subject): (&str, usize, &str), report: &Value) {
        let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
        let shown = [
            ("/accepted_per_second", 1.0, "messages/s"),
            ("/delivered_per_second", 1.0, "deliveries/s"),
            ("/logins_per_second", 1.0, "logins/s"),
            ("/stored/per_second", 1.0, "stored/s"),
            ("/fetched/per_second", 1.0, "fetched/s"),
            ("/receipt_us/p99", 1e-3, "ms p99"),
            ("/server/all_us_per_message", 1.0, "µs of CPU each"),
            ("/bytes_per_connection", 1.0, "bytes per connection"),
            ("/others_cores", 1.0, "cores used by others"),
        ];
        let words = shown.iter().filter_map(|(pointer, scale, unit)| {
            Some(format!("{} {unit}", benches::number(number(pointer)? * scale)))
        });
        let words = words.collect::<Vec<_>>().join(", ");
        eprintln!("{case}, round {} of {}, {subject}: {words}", round + 1, self.rounds);
    }
}

/// A figure to be taken out of reports: metric, unit, where it is, scale, bar.
pub(crate) type Figure<'a> = (&'a str, &'a str, &'a str, f64, Option<Bar>);

/// A row for each figure.
pub(crate) fn add(rows: &mut Rows, case: &str, subject: &str, reports: &[Value], figures: &[Figure<'_>]) {
    for (metric, unit, pointer, scale, bar) in figures {
        let values = values(reports, pointer, *scale);
        if !values.is_empty() {
            rows.add(case, subject, metric, unit, &values, *bar);
        }
    }
}

/// One figure out of each report.
pub(crate) fn values(reports: &[Value], pointer: &str, scale: f64) -> Vec<f64> {
    reports.iter().filter_map(|report| Some(report.pointer(pointer)?.as_f64()? * scale)).collect()
}
