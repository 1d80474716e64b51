//! What a log costs its callers and how much it can write, beside other asynchronous loggers; and what a stalled disk and `kill -9` do to it.
//!
//! `cargo bench -p benches --bench log --features log-peers -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod child;
mod kill;
mod subject;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use benches::rows::{Bar, Rows};
use clap::{Parser, ValueEnum};
use serde_json::Value;

use crate::subject::Subject;

/// The loggers in turns, each run in a fresh process, to files in one folder, with the same text and the same place of the call.
///
/// `caller` measures each call alone: bursts of 64 records with a pause of 1 ms, so that no logger is overrun; the clock's own cost is in all figures.
/// `rate` is records per second until all are in the file, callers waiting where there is no room; what is in the file is counted. `stall` and
/// `kill` are asynclog's alone. Figures are medians over the rounds, ratios those of the rounds. The results go to target/bench/log.json too.
#[derive(Debug, Parser)]
#[command(name = "log")]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// A short run, to see that it works; its figures are worth little
    #[arg(long)]
    quick: bool,
    /// Rounds of each case [default: 7, or 1 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// The folder for the log files [default: a new one in the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<std::path::PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Time in the caller
    Caller,
    /// Records per second
    Rate,
    /// Time in the caller while the disk stalls
    Stall,
    /// What kill -9 loses
    Kill,
}

/// What asynclog's median time in the caller may be, in nanoseconds.
const CALLER_NS_MAX: f64 = 150.0;
/// What a loop thread's p99.9 may be while the disk stalls, in nanoseconds.
const STALL_NS_MAX: f64 = 10_000.0;
const THREADS: [usize; 2] = [1, 4];

fn main() -> ExitCode {
    if let Some(job) = child::Job::from_environment() {
        return job.run();
    }
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench log` runs it");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("log: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let wanted = |case| options.cases.is_empty() || options.cases.contains(&case);
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 7 });
    let mut rows = Rows::default();
    if wanted(Case::Caller) {
        let records = if options.quick { 5_000 } else { 100_000 };
        for threads in THREADS {
            let figures = in_turns(options, "caller", threads, records, rounds)?;
            let case = format!("caller, {threads} threads");
            for (metric, key) in [("p50", "p50_ns"), ("p99.9", "p999_ns")] {
                add_lowest(&mut rows, &case, metric, key, &figures);
            }
            let ours = values(&figures, Subject::Asynclog, "p50_net_ns");
            rows.add(
                &case,
                "asynclog",
                "p50 without the clock",
                "ns",
                &ours,
                Some(Bar::AtMost(CALLER_NS_MAX)),
            );
        }
    }
    if wanted(Case::Rate) {
        let records = if options.quick { 50_000 } else { 1_000_000 };
        for threads in THREADS {
            let figures = in_turns(options, "rate", threads, records, rounds)?;
            add_highest(&mut rows, &format!("rate, {threads} threads"), &figures);
        }
    }
    if wanted(Case::Stall) {
        let figures = alone(options, "stall", rounds)?;
        let (p999, wrong) = (
            values(&figures, Subject::Asynclog, "p999_ns"),
            values(&figures, Subject::Asynclog, "miscounted"),
        );
        rows.add(
            "disk stalls 1 s",
            "asynclog",
            "p99.9, loop thread",
            "ns",
            &p999,
            Some(Bar::AtMost(STALL_NS_MAX)),
        );
        rows.add(
            "disk stalls 1 s",
            "asynclog",
            "drops miscounted",
            "records",
            &wrong,
            Some(Bar::AtMost(0.0)),
        );
    }
    if wanted(Case::Kill) {
        kill::measure(if options.quick { 5 } else { 200 }, options.folder.as_deref(), &mut rows)?;
    }
    println!("{rows}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/log.json");
    rows.write(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(rows.hold())
}

type Figures = BTreeMap<Subject, Vec<Value>>;

/// All subjects in turns, in the other order every second round.
fn in_turns(
    options: &Options,
    case: &str,
    threads: usize,
    records: u64,
    rounds: usize,
) -> Result<Figures, String> {
    let mut figures = Figures::new();
    for round in 0..rounds {
        let mut subjects = Subject::all();
        if round % 2 == 1 {
            subjects.reverse();
        }
        for subject in subjects {
            eprintln!("{case}, {threads} threads, round {} of {rounds}: {}", round + 1, subject.name());
            let figure = child(options, case, subject, threads, records)?;
            figures.entry(subject).or_default().push(figure);
        }
    }
    Ok(figures)
}

fn alone(options: &Options, case: &str, rounds: usize) -> Result<Figures, String> {
    let figures = (0..rounds)
        .map(|_| child(options, case, Subject::Asynclog, 1, 2_000_000))
        .collect::<Result<_, _>>()?;
    Ok(Figures::from([(Subject::Asynclog, figures)]))
}

/// A run in a process of its own; its figures.
fn child(
    options: &Options,
    case: &str,
    subject: Subject,
    threads: usize,
    records: u64,
) -> Result<Value, String> {
    let folder = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(|error| format!("no folder for the files: {error}"))?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    child::Job { case: case.into(), subject, threads, records, folder: folder.path().into() }
        .give_to(&mut command);
    let output = command.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stdout);
    let figure = told.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    match (output.status.success(), figure) {
        (true, Some(figure)) => Ok(figure),
        _ => Err(format!(
            "{case} of {} failed: {}{told}",
            subject.name(),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn values(figures: &Figures, subject: Subject, key: &str) -> Vec<f64> {
    let of = figures.get(&subject).map(Vec::as_slice).unwrap_or_default();
    of.iter().filter_map(|figure| figure.get(key)?.as_f64()).collect()
}

/// Our figure against each peer's: ours is the lowest.
fn add_lowest(rows: &mut Rows, case: &str, metric: &str, key: &str, figures: &Figures) {
    compare(rows, (case, metric, "ns"), key, figures, Bar::AtMost(1.0));
}

fn add_highest(rows: &mut Rows, case: &str, figures: &Figures) {
    compare(rows, (case, "records", "1/s"), "per_second", figures, Bar::AtLeast(1.0));
}

fn compare(rows: &mut Rows, what: (&str, &str, &str), key: &str, figures: &Figures, bar: Bar) {
    let all: Vec<(&str, Vec<f64>)> =
        Subject::all().into_iter().map(|subject| (subject.name(), values(figures, subject, key))).collect();
    let subjects: Vec<(&str, &[f64])> = all.iter().map(|(name, values)| (*name, values.as_slice())).collect();
    let bars: Vec<(&str, Bar)> = subjects.iter().skip(1).map(|(name, _)| (*name, bar)).collect();
    rows.add_compared(what, &subjects, &bars);
}
