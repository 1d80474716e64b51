//! `chatd`, the chat server: parses, starts, waits for signals, stops; maps errors to exit codes.

mod admin;
mod cluster;
mod commands;
mod config;
mod connz;
mod control;
mod directory;
mod entry;
mod logging;
mod login;
mod metrics;
mod passing;
mod post;
mod rates;
mod server;
mod service;
mod session;
mod sink;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser as _;
use daemon::{ports, say};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::{Command, CommandError};
use crate::config::{Args, Config};
use crate::server::{ChatServer, ServerError};

fn main() -> ExitCode {
    let args = Args::parse();
    // It asks ZooKeeper alone, and needs nothing that a server needs.
    if let Some(Command::Upstreams { zookeeper }) = &args.command {
        return ended(commands::upstreams(zookeeper));
    }
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(error) => {
            say(&format!("chatd: {error}"));
            return ExitCode::from(2);
        }
    };
    if args.check {
        say("chatd: the configuration is valid");
        return ExitCode::SUCCESS;
    }
    if let Some(command) = args.command {
        return ended(commands::run(command, &config));
    }
    if args.check_db {
        return check_db(&config);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("chatd: {error}"));
            ExitCode::from(1)
        }
    }
}

/// The exit code of a command.
fn ended(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("chatd: {error}"));
            ExitCode::from(if matches!(error, CommandError::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Says on standard output what a start would do to the tables.
#[expect(clippy::print_stdout, reason = "what was asked for")]
fn check_db(config: &Config) -> ExitCode {
    match store::DbChecker::plan(&config.store) {
        Ok(plan) => {
            println!("{plan}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("chatd: {error}"));
            ExitCode::from(1)
        }
    }
}

fn run(config: Config) -> Result<(), ServerError> {
    let ports_file = config.ports_file.clone();
    let ports_error = |error| ServerError::Ports { path: ports_file.clone().unwrap_or_default(), error };
    if let Some(path) = &ports_file {
        ports::remove(path).map_err(ports_error)?;
    }
    // Registered before anything is started, so that no signal is missed.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(ServerError::Signals)?;
    let server = ChatServer::start(config)?;
    announce(&server);
    if let Some(path) = &ports_file {
        let listeners = [("chat", server.chat_addr()), ("admin", server.admin_addr())];
        ports::write(path, &listeners).map_err(ports_error)?;
    }
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        server.reload();
    }
    say("chatd: shutting down; once more to hurry");
    let hurry = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&hurry);
    let closing = signals.handle();
    let listener = std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            asked.store(true, Ordering::Relaxed);
        }
    });
    let result = server.stop(|| hurry.load(Ordering::Relaxed));
    closing.close();
    // It only ever waits for signals, and has just been told that there are no more.
    let _ = listener.join();
    result
}

/// Says where everything is.
fn announce(server: &ChatServer) {
    let config = server.config();
    say(&format!(
        "chatd: chat on {}, admin on {}, data in {}, log in {}",
        server.chat_addr(),
        server.admin_addr(),
        config.store.place(),
        config.log_file.display(),
    ));
    log::info!(
        "chatd {} serves chat on {} and admin on {} with {} loops",
        env!("CARGO_PKG_VERSION"),
        server.chat_addr(),
        server.admin_addr(),
        config.threads,
    );
}
