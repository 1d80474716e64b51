//! The store: durable messages a second through its commit pipeline, and how it reads large histories, on MariaDB and on SQLite.
//!
//! `cargo bench -p benches --bench store -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod engine;
mod history;
mod load;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use benches::rows::{Bar, Rows, median};
use clap::{Parser, ValueEnum};

use engine::{Engine, Place};
use load::{Got, Load};

/// Durable messages a second, their latency, and reading among many of them.
///
/// A private MariaDB (innodb_flush_log_at_trx_commit=1, a buffer pool of 1 GiB, a log of 512 MiB) is started for it; SQLite has synchronous=FULL and one core. The
/// subjects take turns; figures are medians over the rounds. The results go to target/bench/store.json too.
#[derive(Debug, Parser)]
#[command(name = "store")]
struct Options {
    /// What to measure; all when none is named
    cases: Vec<Case>,
    /// Rounds of each case
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seconds of each round
    #[arg(long, default_value_t = 8.0, value_name = "S")]
    seconds: f64,
    /// Messages in flight
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    window: usize,
    /// Conversations
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    conversations: u64,
    /// Threads that write on MariaDB
    #[arg(long, default_value_t = 2, value_name = "N")]
    workers: usize,
    /// Messages of the large history
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    many: u64,
    /// One short round, to see that it works
    #[arg(long)]
    quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Messages a second, in batches and one by one, and the latency at half of that
    Pipeline,
    /// The last page and a catch-up among few and among many messages
    History,
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds, options.many) = (1, 1.0, 200_000);
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("store: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    eprintln!("{}; load average before: {}", benches::machine(folder), benches::load_average());
    let wants = |case| options.cases.is_empty() || options.cases.contains(&case);
    let mut rows = Rows::default();
    if wants(Case::Pipeline) {
        for engine in [Engine::MariaDb, Engine::Sqlite] {
            pipeline(engine, options, &mut rows)?;
        }
    }
    if wants(Case::History) {
        for engine in [Engine::MariaDb, Engine::Sqlite] {
            history::measure(engine, options.many, options.rounds, &mut rows)?;
        }
    }
    println!("{rows}");
    rows.write(&folder.parent().unwrap_or(folder).join("bench/store.json"))?;
    Ok(rows.hold())
}

/// In batches, one by one, and at half of the rate that the batches reached.
fn pipeline(engine: Engine, options: &Options, rows: &mut Rows) -> Result<(), Box<dyn Error>> {
    let load = Load {
        conversations: options.conversations,
        window: options.window,
        seconds: Duration::from_secs_f64(options.seconds),
        rate: None,
    };
    let (mut batched, mut single, mut half): (Vec<Got>, Vec<Got>, Vec<Got>) = Default::default();
    for _ in 0..options.rounds {
        // Fresh tables each time.
        batched.push(load.run(&Place::new(engine, 512, options.workers)?)?);
        single.push(load.run(&Place::new(engine, 1, options.workers)?)?);
        let rate = batched.last().map(|got| got.per_second / 2.0);
        half.push(Load { rate, ..load }.run(&Place::new(engine, 512, options.workers)?)?);
        eprint!(".");
    }
    eprintln!();
    let name = engine.name();
    let case = format!("64 bytes, {} conversations", options.conversations);
    let of = |all: &[Got], get: fn(&Got) -> f64| all.iter().map(get).collect::<Vec<_>>();
    let (fast, slow) = (of(&batched, |got| got.per_second), of(&single, |got| got.per_second));
    let floor = if engine == Engine::MariaDb { 12_000.0 } else { 20_000.0 };
    rows.add(&case, name, "durable messages", "1/s", &fast, Some(Bar::AtLeast(floor)));
    rows.add(&case, name, "the same, over one a transaction", "1/s", &fast, None);
    if engine == Engine::MariaDb {
        rows.compare(&fast, &slow, Bar::AtLeast(4.0));
    }
    rows.add(&case, name, "one a transaction", "1/s", &slow, None);
    rows.add(&case, name, "messages a batch", "", &of(&batched, |got| got.per_batch), None);
    rows.add(&case, name, "send to ack, p50, full load", "ms", &of(&batched, |got| got.p50_ms), None);
    rows.add(&case, name, "send to ack, p99, full load", "ms", &of(&batched, |got| got.p99_ms), None);
    rows.add(&case, name, "messages at half load", "1/s", &of(&half, |got| got.per_second), None);
    rows.add(&case, name, "send to ack, p50, half load", "ms", &of(&half, |got| got.p50_ms), None);
    let p99 = of(&half, |got| got.p99_ms);
    rows.add(&case, name, "send to ack, p99, half load", "ms", &p99, Some(Bar::AtMost(25.0)));
    let cpu = of(&batched, |got| got.own_cpu_us);
    if median(&cpu).is_some() {
        rows.add(&case, name, "CPU of this process a message", "us", &cpu, None);
    }
    Ok(())
}
