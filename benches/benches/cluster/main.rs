//! Nodes of a cluster beside one node alone: how long a message takes from node to node, what a group costs Redis, and how the clients of a node that was killed
//! come back.
//!
//! `cargo bench -p benches --bench cluster -- --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark talks to the person who runs it, and JSON that lacks something gives null"
)]

mod delivery;
mod group;
mod nodes;
mod storm;

use std::path::Path;
use std::process::ExitCode;

use benches::rows::Rows;
use clap::{Parser, ValueEnum};

pub(crate) type Failure = String;

/// Two or three nodes on MariaDB and Redis, all of them on this machine: what is compared takes turns in one run. The results go to
/// target/bench/cluster.json too.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
pub(crate) struct Options {
    /// What to run [default: all]
    cases: Vec<Case>,
    /// A short run, to see that it works; its figures are worth little
    #[arg(long)]
    quick: bool,
    /// Messages a second that chatload sends meanwhile, over all nodes [default: half of what it could, measured first]
    #[arg(long, value_name = "PER SECOND")]
    rate: Option<f64>,
    /// Clients of the node that is killed
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Time of delivery on one node and across two, at half load
    Delivery,
    /// One message to a group of 1,000 on three nodes: publishes and rows
    Group,
    /// All clients of a killed node log in at the other
    Storm,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("only built: `cargo bench -p benches --bench cluster` runs it");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("cluster: a bar was not reached");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("cluster: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Failure> {
    for program in ["mariadbd", "redis-server"] {
        if !testkit::need_program(program) {
            return Err(format!("needs {program}: cargo xtask setup installs it"));
        }
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target folder")?;
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).map_err(|e| format!("could not make {}: {e}", folder.display()))?;
    eprintln!("{}; load average before: {}", benches::machine(&folder), benches::load_average());
    let mut rows = Rows::default();
    for case in Case::value_variants() {
        if !options.cases.is_empty() && !options.cases.contains(case) {
            continue;
        }
        match case {
            Case::Delivery => delivery::run(options, &mut rows)?,
            Case::Group => group::run(options, &mut rows)?,
            Case::Storm => storm::run(options, &mut rows)?,
        }
    }
    println!("{rows}");
    rows.write(&folder.join("cluster.json")).map_err(|e| e.to_string())?;
    Ok(rows.hold())
}
