//! `rpcctl`: looks at services and calls them, by hand.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to the person who runs it")]

mod call;
mod directory;
mod failure;
mod options;
mod ping;
mod target;

use std::process::ExitCode;

use clap::Parser as _;

use crate::directory::Directory;
use crate::failure::Failure;
use crate::options::{Command, Options};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rpcctl: {failure}");
            failure.exit_code()
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let timeout = options.timeout()?;
    let directory = || Directory::open(options, timeout);
    match &options.command {
        Command::Services => directory::print_services(&directory()?),
        Command::Instances { service } => directory::print_instances(&directory()?, service),
        Command::Ping { target, count } => ping::run(&target::addresses(target, directory)?, *count, timeout),
        Command::Describe { target } => call::describe(&target::addresses(target, directory)?, timeout),
        Command::Call { method, request, metadata } => {
            let request = call::Request::read(method, request, metadata)?;
            let addresses = directory()?.callable(&request.service)?;
            call::run(&request, &addresses, timeout)
        }
    }
}
