//! `chatload`, the load generator for anything that speaks the chat protocol. `chatload --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to the person who runs it"
)]

use std::io::Write as _;
use std::process::ExitCode;

use benches::{LoadError, Options, Report, run};
use clap::Parser as _;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(why) = options.check() {
        eprintln!("chatload: {why}");
        return ExitCode::from(2);
    }
    match run(&options) {
        Ok(report) => show(&options, &report),
        Err(error @ (LoadError::Descriptors { .. } | LoadError::NoProcess(_))) => {
            eprintln!("chatload: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("chatload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options, report: &Report) -> ExitCode {
    // A reader that has gone wanted no more of it.
    let _ = write!(std::io::stdout(), "{report}");
    if let Some(path) = &options.json {
        let written = serde_json::to_vec_pretty(report)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(path, text));
        if let Err(error) = written {
            eprintln!("chatload: could not write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
