//! `echoload`, the load client for echo servers. `echoload --help` tells how to use it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to the person who runs it"
)]

use std::process::ExitCode;

use benches::{EchoOptions, echo};
use clap::Parser as _;

fn main() -> ExitCode {
    let options = EchoOptions::parse();
    match echo(&options) {
        Ok(report) if options.json => match serde_json::to_string(&report) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("echoload: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("echoload: {error}");
            if error.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
