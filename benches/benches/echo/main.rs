//! The reactor as an echo server, beside bare epoll and tokio: CPU, system calls and instructions per message, idle memory, posts, fairness.
//!
//! `cargo bench -p benches --bench echo -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod counts;
mod cpu;
mod idle;
mod many;
mod posts;

use std::path::PathBuf;
use std::process::ExitCode;

use benches::rig::{Failure, Job, Subject, Workshop};
use benches::rows::Rows;
use clap::{Parser, ValueEnum};
use serde_json::Value;

/// The reactor as an echo server, beside bare epoll and tokio.
///
/// Every run has a fresh server process. Subjects that are compared take turns, first in this order, then in the other; figures are medians over the rounds, ratios
/// those of the rounds. The results go to target/bench/echo.json too.
#[derive(Debug, Parser)]
#[command(name = "echo")]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// A short run, to see that it works; its figures are worth little
    #[arg(long)]
    quick: bool,
    /// Rounds of what is compared [default: 15, or 2 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds that each load is measured [default: 0.7, or 0.2 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Of the CPU cells only those whose name has this in it, such as "x 4000"
    #[arg(long, value_name = "TEXT")]
    cell: Option<String>,
    /// asio, libevent and libuv too, where their development packages are installed
    #[arg(long)]
    others: bool,
    /// A built echo server to take the place of the reactor's example
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Server CPU per message, client and server on one core
    Cpu,
    /// System calls per message, and per accepted and closed connection (strace)
    Calls,
    /// User instructions per message (callgrind)
    Instructions,
    /// Resident bytes per idle connection; whether an idle loop wakes up
    Idle,
    /// Posts from other threads
    Posts,
    /// One line to 1,000 connections
    Hub,
    /// 9,000 connections at once: is one starved?
    Fair,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench echo` runs it");
        return ExitCode::SUCCESS;
    }
    match Bench::new(&options).and_then(|bench| bench.run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("echo: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("echo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Measures something, and adds its rows.
type Step = fn(&Bench, &mut Rows) -> Result<(), Failure>;

/// Who, where and how often.
struct Bench {
    workshop: Workshop,
    subjects: Vec<Subject>,
    quick: bool,
    rounds: usize,
    seconds: f64,
    cell: Option<String>,
}

impl Bench {
    fn new(options: &Options) -> Result<Self, Failure> {
        if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
            return Err("needs two cores: some servers have one, and the load the other".to_owned());
        }
        let (temporary, load) = (env!("CARGO_TARGET_TMPDIR"), env!("CARGO_BIN_EXE_echoload"));
        let workshop = Workshop::new(temporary, load, options.server.clone())?;
        let mut subjects = Subject::MAIN.to_vec();
        if options.others {
            let (there, missing): (Vec<_>, Vec<_>) =
                Subject::OTHERS.into_iter().partition(|subject| subject.is_installed());
            for subject in missing {
                eprintln!("skipped: {}, which is not installed", subject.name());
            }
            subjects.extend(there);
        }
        let (rounds, seconds) = if options.quick { (2, 0.2) } else { (15, 0.7) };
        Ok(Self {
            workshop,
            subjects,
            quick: options.quick,
            rounds: options.rounds.unwrap_or(rounds).max(1),
            seconds: options.seconds.unwrap_or(seconds),
            cell: options.cell.clone(),
        })
    }

    fn run(&self, options: &Options) -> Result<bool, Failure> {
        let folder = self.workshop.folder();
        eprintln!("{}; load average before: {}", benches::machine(folder), benches::load_average());
        let chosen = |case| options.cases.is_empty() || options.cases.contains(&case);
        let jobs = if chosen(Case::Hub) { &[Job::Echo, Job::Hub][..] } else { &[Job::Echo] };
        self.workshop.build(&self.subjects, jobs)?;
        let mut rows = Rows::default();
        let steps: [(Case, Step); 7] = [
            (Case::Cpu, Self::cpu),
            (Case::Calls, Self::calls),
            (Case::Instructions, Self::instructions),
            (Case::Idle, Self::idle),
            (Case::Posts, Self::posts),
            (Case::Hub, Self::hub),
            (Case::Fair, Self::fair),
        ];
        for (_, step) in steps.into_iter().filter(|(case, _)| chosen(*case)) {
            step(self, &mut rows)?;
        }
        println!("{rows}");
        let file = folder.join("echo.json");
        rows.write(&file).map_err(|e| format!("could not write {}: {e}", file.display()))?;
        Ok(rows.hold())
    }

    /// The subjects in the order of this round: every second time the other way round, so that what drifts hits all alike.
    fn turns(&self, round: usize) -> Vec<(usize, Subject)> {
        let mut turns: Vec<_> = self.subjects.iter().copied().enumerate().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        turns
    }
}

/// One figure out of a report.
fn figure(report: &Value, pointer: &str) -> Result<f64, Failure> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.ok_or_else(|| format!("no {pointer} in the report of the load: {report}"))
}
