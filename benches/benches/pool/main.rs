//! The store's connection pool beside `r2d2` and the `mysql` crate's own, on one private MariaDB.
//!
//! `cargo bench -p benches --bench pool -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod spike;
mod stuck;
mod subjects;

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use testkit::MariaDb;

use subjects::{NAMES, Subjects};

/// The store's connection pool beside r2d2 and the mysql crate's own pool.
///
/// A private MariaDB is started for it. The pools take turns, first in one order, then in the other; figures are medians over the rounds, ratios those of the rounds.
/// None of them makes a round trip to validate or to reset a connection that was used just now. The results go to target/bench/pool.json too.
#[derive(Debug, Parser)]
#[command(name = "pool")]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// Rounds of each case
    #[arg(long, default_value_t = 9, value_name = "N")]
    rounds: usize,
    /// Seconds of each round of `crowd`
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// One thread acquires and gives back
    Alone,
    /// 64 threads, 16 connections, one statement each time
    Crowd,
    /// A connect that hangs
    Stuck,
    /// A burst of short acquires while connects are slow
    Spike,
}

/// Acquires of one round of `alone`.
const CYCLES: u32 = 200_000;
const THREADS: usize = 64;
const CONNECTIONS: usize = 16;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("pool: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("pool: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    eprintln!("{}; load average before: {}", benches::machine(folder), benches::load_average());
    let server = MariaDb::start()?;
    let pools = Subjects::start(&server.url("mysql"), CONNECTIONS)?;
    let wants = |case| options.cases.is_empty() || options.cases.contains(&case);
    let mut rows = Rows::default();
    if wants(Case::Alone) {
        alone(&pools, options.rounds, &mut rows)?;
    }
    if wants(Case::Crowd) {
        crowd(&pools, options, &mut rows)?;
    }
    if wants(Case::Stuck) {
        stuck::measure(&server, options.rounds, &mut rows)?;
    }
    if wants(Case::Spike) {
        spike::measure(options.rounds, &mut rows)?;
    }
    println!("{rows}");
    rows.write(&folder.parent().unwrap_or(folder).join("bench/pool.json"))?;
    Ok(rows.hold())
}

/// The subjects of a round: in their order, and the next time backwards.
fn order(round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..NAMES.len()).collect();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

fn alone(pools: &Subjects, rounds: usize, rows: &mut Rows) -> Result<(), Box<dyn Error>> {
    let mut all: [Vec<f64>; NAMES.len()] = Default::default();
    for round in 0..rounds {
        for at in order(round) {
            pools.with(at, |_| ())?;
            let began = Instant::now();
            for _ in 0..CYCLES {
                pools.with(at, |connection| {
                    black_box(connection);
                })?;
            }
            let nanos = began.elapsed().as_secs_f64() * 1e9 / f64::from(CYCLES);
            if let Some(values) = all.get_mut(at) {
                values.push(nanos);
            }
        }
        eprint!(".");
    }
    eprintln!();
    let case = "acquire and give back, alone";
    let [ours, r2d2, mysql] = &all;
    rows.add(case, "store", "each", "ns", ours, Some(Bar::AtMost(200.0)));
    let subjects = [(NAMES[0], ours.as_slice()), (NAMES[1], r2d2.as_slice()), (NAMES[2], mysql.as_slice())];
    rows.add_compared(
        (case, "each", "ns"),
        &subjects,
        &[(NAMES[1], Bar::Below(1.0)), (NAMES[2], Bar::Below(1.0))],
    );
    Ok(())
}

/// What 64 threads got in one round.
struct Got {
    per_second: f64,
    p999_micros: f64,
}

fn crowd(pools: &Subjects, options: &Options, rows: &mut Rows) -> Result<(), Box<dyn Error>> {
    let mut rates: [Vec<f64>; NAMES.len()] = Default::default();
    let mut waits: [Vec<f64>; NAMES.len()] = Default::default();
    for round in 0..options.rounds {
        for at in order(round) {
            let got = one_crowd(pools, at, Duration::from_secs_f64(options.seconds))?;
            if let (Some(rates), Some(waits)) = (rates.get_mut(at), waits.get_mut(at)) {
                rates.push(got.per_second);
                waits.push(got.p999_micros);
            }
        }
        eprint!(".");
    }
    eprintln!();
    let case = format!("{THREADS} threads, {CONNECTIONS} connections, one statement each");
    let named = |all: &[Vec<f64>; NAMES.len()]| -> Vec<(&'static str, Vec<f64>)> {
        NAMES.iter().zip(all).map(|(name, values)| (*name, values.clone())).collect()
    };
    for (metric, unit, all, bar) in [
        ("statements", "1/s", &rates, Bar::AtLeast(0.97)),
        ("wait for a connection, p99.9", "us", &waits, Bar::Below(1.0)),
    ] {
        let named = named(all);
        let subjects: Vec<(&str, &[f64])> =
            named.iter().map(|(name, values)| (*name, values.as_slice())).collect();
        rows.add_compared((&case, metric, unit), &subjects, &[(NAMES[1], bar), (NAMES[2], bar)]);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn one_crowd(pools: &Subjects, at: usize, time: Duration) -> Result<Got, Box<dyn Error>> {
    let (done, statements) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    let worker = || -> Result<Histogram<u64>, String> {
        let mut waits = Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| error.to_string())?;
        while !done.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let mut waited = Duration::ZERO;
            let answered = pools.with(at, |mut connection| {
                waited = asked.elapsed();
                connection.ask()
            })?;
            answered?;
            waits.saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            statements.fetch_add(1, Ordering::Relaxed);
        }
        Ok(waits)
    };
    let all: Result<Vec<_>, String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        thread::sleep(time);
        done.store(true, Ordering::Relaxed);
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())));
        ended.collect()
    });
    let per_second = statements.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let mut waits = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for one in all? {
        waits.add(one)?;
    }
    Ok(Got { per_second, p999_micros: waits.value_at_quantile(0.999) as f64 })
}
