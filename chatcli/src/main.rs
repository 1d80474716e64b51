//! `chatcli`, the console client: parses the command line, wires the parts, runs a face, maps errors to exit codes.

mod args;
mod client;
mod error;
mod limits;
mod logging;
mod net;
mod order;
mod remembered;
mod script;
mod secret;
mod service;
mod tls;
mod ui;

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;
use crate::client::Client;
use crate::error::CliError;
use crate::net::ClientNet;
use crate::remembered::Remembered;
use crate::script::{Script, ScriptConfig};
use crate::ui::{ShowConfig, ShowUi};

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "chatcli: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), CliError> {
    if let Some(tool) = args.tool {
        return tool.print(&mut io::stdout());
    }
    // Written at the end, when it goes out of scope.
    let _log = logging::start(args.log_file)?;
    let tls = if args.tls { Some(tls::client(&args.connect, args.ca.as_deref())?) } else { None };
    let client = Client::new(ClientNet::start(resolve(&args.connect)?, tls)?);
    let in_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.script || !in_terminal {
        let config = ScriptConfig { timeout: args.timeout, keep_going: args.keep_going };
        Script::new(client, config, io::stdout()).run(io::stdin())
    } else {
        let remembered = (!args.no_remember).then(|| Remembered::at(&logging::state_folder(), &args.connect));
        let config = ShowConfig {
            address: args.connect,
            name: args.name,
            look: args.theme,
            mouse: !args.no_mouse,
            remembered,
        };
        ShowUi::new(client, config).run()
    }
}

/// The addresses behind HOST:PORT.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, CliError> {
    let bad = |why: String| CliError::Address { address: address.to_owned(), why };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(|error| bad(error.to_string()))?.collect();
    if found.is_empty() { Err(bad("the name has no address".into())) } else { Ok(found) }
}
