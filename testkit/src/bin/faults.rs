//! Breaks things in a private cluster while users write to each other, and holds what they saw against what is promised.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to the person who runs it"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testkit::fault::{ALL, Break, RunOptions, Runner};
use testkit::{Cluster, TestkitError};

/// Breaks things in a private cluster while users write to each other, and holds what they saw against what is promised.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Args {
    /// The chat server's program
    #[arg(long, value_name = "FILE")]
    chatd: PathBuf,
    /// The login daemon's program
    #[arg(long, value_name = "FILE")]
    logd: PathBuf,
    /// How many seeds each thing is broken under
    #[arg(long, value_name = "N", default_value_t = 5)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Breaks only this; can be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How many users
    #[arg(long, value_name = "N", default_value_t = 200)]
    users: usize,
    /// How many chat servers
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// How many login daemons, found through ZooKeeper; with 0 the service is inside the chat servers
    #[arg(long, value_name = "N", default_value_t = 2)]
    logins: usize,
    /// How long users write at least, in seconds
    #[arg(long, value_name = "S", default_value_t = 15)]
    seconds: u64,
    /// How long a user waits on the average between two messages, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 800)]
    think: u64,
    /// Things left to chance, for so many minutes; then memory and descriptors must be what they were
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Lists what can be broken
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        ALL.iter().for_each(|one| println!("{:<16} {}", one.name, one.what));
        return ExitCode::SUCCESS;
    }
    let mut breaks = Vec::new();
    for name in &args.only {
        let Some(one) = Break::named(name) else {
            eprintln!("faults: there is no {name:?}; --list names what there is");
            return ExitCode::from(2);
        };
        breaks.push(one);
    }
    if breaks.is_empty() {
        breaks = ALL.to_vec();
    }
    if !Cluster::available() {
        return ExitCode::from(2);
    }
    match run(&args, &breaks) {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{} went wrong: {}", failed.len(), failed.join(", "));
            ExitCode::from(1)
        }
        Err(e) => {
            eprintln!("faults: {e}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args, breaks: &[Break]) -> Result<Vec<String>, TestkitError> {
    let mut runner = Runner::new(RunOptions {
        chatd: args.chatd.clone(),
        logd: args.logd.clone(),
        users: args.users,
        nodes: args.nodes,
        logins: args.logins,
        think: Duration::from_millis(args.think),
        writing: Duration::from_secs(args.seconds),
        patient: false,
    });
    let mut says = |text: &str| {
        println!("{text}");
        // Whoever watches a file wants to see it now.
        let _ = std::io::stdout().flush();
    };
    if let Some(minutes) = args.soak {
        runner.soak(Duration::from_secs(minutes * 60), args.seed, &mut says)?;
        return Ok(runner.failed().to_vec());
    }
    let mut good = 0;
    for seed in args.seed..args.seed + args.seeds {
        for one in breaks {
            good += u32::from(runner.run(*one, seed, &mut says)?);
        }
    }
    says(&format!("{good} runs without a violation"));
    Ok(runner.failed().to_vec())
}
