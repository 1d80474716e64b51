//! `logd`, the *login* daemon (the logging crate is `asynclog`): parses, starts, waits for signals, stops; maps errors to exit codes.

mod admin;
mod config;
mod metrics;
mod server;

use std::process::ExitCode;

use clap::Parser as _;
use daemon::{ports, say};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Args, Config};
use crate::server::{LoginServer, ServerError};

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(error) => {
            say(&format!("logd: {error}"));
            return ExitCode::from(2);
        }
    };
    if args.check {
        say("logd: the configuration is valid");
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("logd: {error}"));
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
    let server = LoginServer::start(config)?;
    announce(&server);
    if let Some(path) = &ports_file {
        let listeners = [("rpc", server.rpc_addr()), ("admin", server.admin_addr())];
        ports::write(path, &listeners).map_err(ports_error)?;
    }
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        server.reload();
    }
    say("logd: shutting down; once more to hurry");
    let closing = signals.handle();
    let hurry = std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            // What is in the tables is whole at any moment; callers try elsewhere.
            say("logd: not waiting any more");
            std::process::exit(1);
        }
    });
    let result = server.stop();
    closing.close();
    // It only ever waits for signals, and has just been told that there are no more.
    let _ = hurry.join();
    result
}

/// Says where everything is.
fn announce(server: &LoginServer) {
    let config = server.config();
    say(&format!(
        "logd: login on {}, admin on {}, data in {}, log in {}",
        server.rpc_addr(),
        server.admin_addr(),
        config.store.place(),
        config.log_file.display(),
    ));
    if config.store.mysql.is_none() {
        say("logd: without --mysql these accounts are this process's alone; chat servers cannot share them");
    }
    log::info!(
        "logd {} serves logins on {} and admin on {}",
        env!("CARGO_PKG_VERSION"),
        server.rpc_addr(),
        server.admin_addr()
    );
}
