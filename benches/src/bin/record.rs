//! Keeps what benchmarks found out: a dated file of all their rows under `benches/runs`, and the plots of their curves.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to the person who runs it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use serde::Serialize;
use serde_json::Value;

/// Keeps a run: reads FOLDER/NAME.json of each benchmark named, writes them into one dated file, and draws the curves that are in them.
#[derive(Debug, Parser)]
struct Options {
    /// The benchmarks
    #[arg(required = true)]
    names: Vec<String>,
    /// Where they left their rows
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    from: PathBuf,
    /// Where runs are kept
    #[arg(long, value_name = "FOLDER", default_value = "benches/runs")]
    runs: PathBuf,
    /// Where plots are kept
    #[arg(long, value_name = "FOLDER", default_value = "docs/plots")]
    plots: PathBuf,
}

/// A run as it is kept.
#[derive(Debug, Serialize)]
struct Run {
    /// Of its end, UTC.
    date: String,
    commit: String,
    machine: String,
    benches: BTreeMap<String, Vec<Value>>,
}

fn main() -> ExitCode {
    match record(&Options::parse()) {
        Ok(files) => {
            files.iter().for_each(|file| println!("{}", file.display()));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("record: {why}");
            ExitCode::FAILURE
        }
    }
}

fn record(options: &Options) -> Result<Vec<PathBuf>, String> {
    let mut benches = BTreeMap::new();
    for name in &options.names {
        benches.insert(name.clone(), rows(&options.from.join(format!("{name}.json")))?);
    }
    let mut points = Vec::new();
    for row in benches.values().flatten() {
        points.push(serde_json::from_value(row.clone()).map_err(|e| format!("not a row: {e}"))?);
    }
    let run = Run {
        date: said_by("date", &["-u", "+%Y-%m-%dT%H:%MZ"])?,
        commit: said_by("git", &["describe", "--always", "--dirty", "--exclude", "*"])?,
        machine: benches::machine(&options.from),
        benches,
    };
    let file = options.runs.join(format!("{}-{}.json", run.date.replace(':', ""), run.commit));
    let text = serde_json::to_vec_pretty(&run).map_err(|e| e.to_string())?;
    let failed = |e: std::io::Error| format!("could not write {}: {e}", file.display());
    std::fs::create_dir_all(&options.runs).and_then(|()| std::fs::write(&file, text)).map_err(failed)?;
    let mut files = benches::plots::draw(&points, &options.plots)?;
    files.insert(0, file);
    Ok(files)
}

fn rows(file: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read(file).map_err(|e| format!("could not read {}: {e}", file.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{} holds no rows: {e}", file.display()))
}

fn said_by(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
