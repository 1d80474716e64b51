//! The chat server under load, with its tables embedded and in MariaDB: messages, groups, idle users, logins, messages to users who are away, kills, overload.
//!
//! `cargo bench -p benches --bench chat -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark talks to the person who runs it"
)]

mod batching;
mod bench;
mod cases;
mod curves;
mod engine;
mod offline;
mod overload;
mod syncs;

use std::process::ExitCode;

use benches::rows::Rows;
use clap::{Parser, ValueEnum};

use crate::bench::{Bench, Failure};
use crate::engine::Engine;

/// The chat server under load, with its tables embedded (SQLite) and in MariaDB.
///
/// Each run has a fresh release chatd with empty tables under target/bench. The server and the database are pinned to core 0, chatload to core 1. What is
/// compared takes turns, and the figures are medians over the rounds. The results go to target/bench/chat.json too.
#[derive(Debug, Parser)]
#[command(name = "chat", after_help = EXAMPLES)]
struct Options {
    /// What to run [default: all but the curves and `stored`, which take long]
    cases: Vec<Case>,
    /// Also what the plots are drawn from
    #[arg(long)]
    curves: bool,
    /// Keep the tables here; may be repeated [default: both]
    #[arg(long)]
    engine: Vec<Engine>,
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

const EXAMPLES: &str = "\
Examples:
  cargo bench -p benches --bench chat                              everything that has a bar
  cargo bench -p benches --bench chat -- --quick                   to see that it works
  cargo bench -p benches --bench chat -- w1 w2 --engine embedded --patience 3
  cargo bench -p benches --bench chat -- curves                    what the plots are drawn from";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// 200 users in pairs, 1 in flight each
    W1,
    /// 200 users in pairs, 16 in flight each
    W2,
    /// A group of 100, one writer, 8 in flight
    W3,
    /// 10,000 idle users: memory, and logins by token
    W4,
    /// Messages to users who are away: stored, and fetched
    W5,
    /// kill -9 of chatd, and of MariaDB, right after the last ok
    W6,
    /// Two users, 1 in flight each
    Two,
    /// A group of 1,000, one writer, 8 in flight
    Group,
    /// 10,000 users in pairs against 200, with as many messages in flight
    Users,
    /// Twice the rate that can be sustained, then a third of it
    Overload,
    /// Batches of 512 against batches of 1, embedded
    Batching,
    /// Syncs per message, counted by the kernel (perf), or by strace where that is not allowed
    Syncs,
    /// W2 with ten million messages stored before (one million with --quick)
    Stored,
    /// Throughput against window, latency against load, memory against connections, cost per delivery against group size
    Curves,
}

impl Case {
    const fn is_long(self) -> bool {
        matches!(self, Self::Stored | Self::Curves)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench chat` runs it");
        return ExitCode::SUCCESS;
    }
    match Bench::new(&options).and_then(|bench| run(&bench, &options)) {
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

fn run(bench: &Bench, options: &Options) -> Result<bool, Failure> {
    eprintln!("{}; load average before: {}", benches::machine(&bench.folder), benches::load_average());
    let mut rows = Rows::default();
    bench.disk(&mut rows)?;
    let mut failed = Vec::new();
    for case in Case::value_variants() {
        let is_chosen = if options.cases.is_empty() { !case.is_long() } else { options.cases.contains(case) };
        if !is_chosen {
            continue;
        }
        let done = match case {
            Case::W1 => bench.w1(&mut rows),
            Case::W2 => bench.w2(&mut rows),
            Case::W3 => bench.w3(&mut rows),
            Case::W4 => bench.w4(&mut rows),
            Case::W5 => bench.w5(&mut rows),
            Case::W6 => bench.w6(&mut rows),
            Case::Two => bench.two(&mut rows),
            Case::Group => bench.group(1_000, &mut rows),
            Case::Users => bench.users(&mut rows),
            Case::Overload => bench.overload(&mut rows),
            Case::Batching => bench.batching(&mut rows),
            Case::Syncs => bench.syncs(&mut rows),
            Case::Stored => bench.stored(&mut rows),
            Case::Curves => bench.curves(&mut rows),
        };
        // What was measured before is worth keeping.
        if let Err(why) = done {
            eprintln!("{case:?} failed: {why}");
            failed.push(format!("{case:?}"));
        }
    }
    println!("{rows}");
    let file = bench.folder.join("chat.json");
    rows.write(&file).map_err(|e| format!("could not write {}: {e}", file.display()))?;
    if failed.is_empty() { Ok(rows.hold()) } else { Err(format!("without a result: {}", failed.join(", "))) }
}
