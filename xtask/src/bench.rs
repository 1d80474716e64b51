//! `cargo xtask bench`: every benchmark, one after the other, and what they found out.

use std::env;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::shell::{self, Failure};

pub(crate) const HELP: &str = "Examples:
  cargo xtask bench                          every benchmark, which takes an hour or so
  cargo xtask bench --quick                  a short run of each, to see that they work
  cargo xtask bench chat --record            keeps the figures under benches/runs, and draws docs/plots
  cargo xtask bench chat -- w1 w2 --patience 3

Benchmarks want the machine for themselves. One that misses a bar, or fails, does not keep the others from running; it is named at the end.
Each prints its table and leaves its rows in target/bench/NAME.json.";

/// What `cargo xtask bench` takes.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to run; all when none is named
    names: Vec<Name>,
    /// A short run, to see that it works
    #[arg(long)]
    quick: bool,
    /// Keep the rows, with date, commit and machine, in a file under benches/runs, and draw their curves into docs/plots
    #[arg(long)]
    record: bool,
    /// Handed to the benchmarks
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The reactor beside other event loops: CPU, system calls, memory
    Echo,
    /// The reactor's messages per second
    Throughput,
    /// The store's pipeline and large histories
    Store,
    /// The store's connection pool
    Pool,
    /// Calls between services
    Rpc,
    /// The asynchronous log
    Log,
    /// The chat server, embedded and with MariaDB
    Chat,
}

impl Name {
    fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The curves take long and have no bars: they are for what is kept.
    fn own_args(self, record: bool, args: &[String]) -> &'static [&'static str] {
        if self == Self::Chat && record && args.is_empty() { &["--curves"] } else { &[] }
    }
}

/// Runs the benchmarks, and keeps what they found out.
pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    let names = if bench.names.is_empty() { Name::value_variants() } else { bench.names.as_slice() };
    let mut missed = Vec::new();
    for name in names {
        let word = name.word();
        println!("== {word}");
        if let Err(failure) = one(&word, name.own_args(bench.record, &bench.args), bench) {
            println!("{failure}");
            missed.push(word);
        }
    }
    if bench.record {
        let words: Vec<String> = names.iter().map(|name| name.word()).collect();
        record(&words)?;
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(Failure::Step(format!("failed, or missed a bar: {}", missed.join(", "))))
}

fn one(name: &str, own: &[&str], bench: &Bench) -> Result<(), Failure> {
    let mut command = shell::cargo(["bench", "-p", "benches", "--bench", name, "--"]);
    command.args(own);
    if bench.quick {
        command.arg("--quick");
    }
    command.args(&bench.args);
    shell::run(&format!("the benchmark {name}"), &mut command)
}

fn record(names: &[String]) -> Result<(), Failure> {
    let mut command = shell::cargo(["run", "--quiet", "--release", "-p", "benches", "--features", "plots"]);
    command.args(["--bin", "record", "--", "--from"]).arg(target().join("bench")).args(names);
    shell::run("the record", &mut command)
}

/// Where cargo builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_from_what_is_kept_unless_the_caller_chooses() {
        assert_eq!(Name::Chat.own_args(true, &[]), ["--curves"]);
        assert!(Name::Chat.own_args(true, &["w1".to_owned()]).is_empty());
        assert!(Name::Chat.own_args(false, &[]).is_empty() && Name::Log.own_args(true, &[]).is_empty());
    }

    #[test]
    fn every_benchmark_has_a_target() {
        let manifest = std::fs::read_to_string(shell::root().join("benches/Cargo.toml")).unwrap();
        for name in Name::value_variants() {
            assert!(manifest.contains(&format!("[[bench]]\nname = \"{}\"", name.word())), "{name:?}");
        }
    }
}
