//! `rpc` beside `tonic` and `tarpc`, and what its pool and its registry are worth when providers and ZooKeeper come and go.
//!
//! `cargo bench -p benches --bench rpc -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod faults;
mod load;
mod ours;
mod registry;
mod slow;
mod subject;
#[cfg(feature = "rpc-peers")]
mod tarpc_peer;
#[cfg(feature = "rpc-peers")]
mod tonic_peer;

use std::path::Path;
use std::process::ExitCode;

use benches::rows::{Bar, Rows};
use clap::{Parser, Subcommand, ValueEnum};

use subject::{Failure, Job, Outcome, Subject};

/// rpc beside tonic and tarpc (with --features rpc-peers), and under restarts, kills and a ZooKeeper that goes away.
///
/// Each server and each load is a process of its own with one thread for its connections; each server is loaded by its own kind of client. Subjects take turns, first in one
/// order, then in the other; figures are medians over the rounds, ratios those of the rounds. The results go to target/bench/rpc.json too.
#[derive(Debug, Parser)]
#[command(name = "rpc", args_conflicts_with_subcommands = true)]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// Rounds of each case
    #[arg(long, default_value_t = 15, value_name = "N")]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Seconds for which ZooKeeper is away in `restart`
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    away: f64,
    /// Consumers in `consumers`
    #[arg(long, default_value_t = 1000, value_name = "N")]
    consumers: usize,
    /// A short run, to see that it works
    #[arg(long)]
    quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What a process does that this program starts.
#[derive(Debug, Subcommand)]
enum Child {
    #[command(hide = true)]
    Serve { subject: Subject },
    #[command(hide = true)]
    Load {
        subject: Subject,
        addr: String,
        pid: u32,
        connections: usize,
        depth: usize,
        bytes: usize,
        seconds: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// The server's CPU time per call: 100 connections with 16 calls under way on each
    Cpu,
    /// Calls per second on one connection, with 1 to 64 under way
    Depth,
    /// How long a lonely call takes
    Latency,
    /// 1 % of the calls sleep on workers: what the others notice
    Slow,
    /// Providers restarted in turn, and ZooKeeper away, under load
    Restart,
    /// A provider killed with -9 under load
    Kill,
    /// From ZooKeeper's return to an entry's
    Expiry,
    /// What one change costs many consumers
    Consumers,
}

/// The server and the load on one core, where their CPU times do not depend on who waits for whom.
const TOGETHER: &str = "0";
const SERVER: &str = "0";
const LOAD: &str = "1";

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds, options.away, options.consumers) = (3, 0.3, 3.0, 20);
    }
    let outcome = match &options.child {
        Some(child) => run_child(child).map(|()| true),
        None => run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("rpc: a bar was not reached, or a case could not be measured");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("rpc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_child(child: &Child) -> Result<(), Failure> {
    match child {
        Child::Serve { subject: Subject::Rpc } => ours::serve(),
        #[cfg(feature = "rpc-peers")]
        Child::Serve { subject: Subject::Tonic } => tonic_peer::serve(),
        #[cfg(feature = "rpc-peers")]
        Child::Serve { subject: Subject::Tarpc } => tarpc_peer::serve(),
        Child::Load { subject, addr, pid, connections, depth, bytes, seconds } => {
            let job = Job {
                subject: *subject,
                connections: *connections,
                depth: *depth,
                bytes: *bytes,
                seconds: *seconds,
            };
            load::run(&job, addr, *pid)
        }
    }
}

fn run(options: &Options) -> Result<bool, Failure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    eprintln!("{}; load average before: {}", benches::machine(folder), benches::load_average());
    let wants = |case| options.cases.is_empty() || options.cases.contains(&case);
    let mut rows = Rows::default();
    let mut complete = true;
    for case in Case::value_variants().iter().filter(|case| wants(**case)) {
        // What was measured before is not lost.
        if let Err(error) = measure(*case, options, &mut rows) {
            eprintln!("rpc: {case:?}: {error}");
            complete = false;
        }
    }
    println!("{rows}");
    rows.write(&folder.parent().unwrap_or(folder).join("bench/rpc.json"))?;
    Ok(complete && rows.hold())
}

fn measure(case: Case, options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    match case {
        Case::Cpu => cpu(options, rows),
        Case::Depth => depth(options, rows),
        Case::Latency => latency(options, rows),
        Case::Slow => {
            slow::measure(options.rounds.max(if options.quick { 0 } else { 20 }), options.seconds, rows)
        }
        Case::Restart => {
            faults::restart(options.seconds, rows)?;
            registry::away(options.away, rows)
        }
        Case::Kill => faults::kill(options.rounds, rows),
        Case::Expiry => registry::expiry(options.rounds.min(5), rows),
        Case::Consumers => registry::consumers(options.consumers, rows),
    }
}

/// Of each subject what came of each round.
type Outcomes = Vec<Vec<Outcome>>;

/// Rounds of some shapes for all subjects, which take turns. In each round there is every shape, so that those which are compared with each other had the same neighbours.
fn rounds(
    options: &Options,
    cores: (&str, &str),
    shapes: &[(usize, usize, usize)],
) -> Result<Vec<Outcomes>, Failure> {
    let mut all = vec![vec![Vec::new(); Subject::ALL.len()]; shapes.len()];
    for round in 0..options.rounds {
        for ((connections, depth, bytes), outcomes) in shapes.iter().zip(&mut all) {
            let mut order: Vec<_> = Subject::ALL.iter().zip(outcomes).collect();
            if !round.is_multiple_of(2) {
                order.reverse();
            }
            for (subject, outcomes) in order {
                let server = subject.start(cores.0)?;
                let job = Job {
                    subject: *subject,
                    connections: *connections,
                    depth: *depth,
                    bytes: *bytes,
                    seconds: options.seconds,
                };
                outcomes.push(job.run(&server, cores.1)?);
            }
        }
    }
    Ok(all)
}

/// The figures of all subjects in rows, ours compared with the peers that have a bar.
fn add(
    rows: &mut Rows,
    names: (&str, &str, &str),
    all: &[Vec<Outcome>],
    figure: impl Fn(&Outcome) -> f64,
    bars: &[(&str, Bar)],
) {
    let values: Vec<Vec<f64>> = all.iter().map(|outcomes| outcomes.iter().map(&figure).collect()).collect();
    let subjects: Vec<(&str, &[f64])> = Subject::ALL
        .iter()
        .zip(&values)
        .map(|(subject, values)| (subject.name(), values.as_slice()))
        .collect();
    rows.add_compared(names, &subjects, bars);
}

fn cpu(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let sizes = [64, 1024];
    let shapes = sizes.map(|bytes| (100, 16, bytes));
    let bars = [("tonic", Bar::AtMost(1.0 / 3.0)), ("tarpc", Bar::AtMost(0.5))];
    for (bytes, all) in sizes.iter().zip(rounds(options, (TOGETHER, TOGETHER), &shapes)?) {
        let case = format!("cpu, 100 x 16, {bytes} B");
        add(rows, (&case, "server CPU per call", "us"), &all, |outcome| outcome.cpu_us, &bars);
    }
    Ok(())
}

fn rate(outcome: &Outcome) -> f64 {
    load::float(outcome.calls) / outcome.seconds
}

fn depth(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let depths = [1, 2, 4, 8, 16, 32, 64];
    let shapes = depths.map(|depth| (1, depth, 64));
    let mut before: Option<Vec<f64>> = None;
    for (depth, all) in depths.iter().zip(rounds(options, (SERVER, LOAD), &shapes)?) {
        let case = format!("one connection, depth {depth}");
        let bars: &[_] = if *depth == 64 { &[("tonic", Bar::AtLeast(3.0))] } else { &[] };
        add(rows, (&case, "calls", "1/s"), &all, rate, bars);
        let ours: Vec<f64> = all.first().into_iter().flatten().map(rate).collect();
        if let Some(before) = &before {
            rows.add(&case, "rpc", "calls, against half the depth", "1/s", &ours, None);
            rows.compare(&ours, before, Bar::AtLeast(0.95));
        }
        before = Some(ours);
    }
    Ok(())
}

fn latency(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let case = "one call at a time";
    let bars = [("tonic", Bar::Below(1.0)), ("tarpc", Bar::Below(1.0))];
    for all in rounds(options, (SERVER, LOAD), &[(1, 1, 64)])? {
        add(rows, (case, "p50", "us"), &all, |outcome| outcome.p50_us, &bars);
        add(rows, (case, "p99", "us"), &all, |outcome| outcome.p99_us, &[]);
    }
    Ok(())
}
