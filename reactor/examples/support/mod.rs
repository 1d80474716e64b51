//! What the small servers among the examples have in common: where they listen, and how they start and stop.

mod signals;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use reactor::{EventLoopThreadPool, Handler, LoopConfig, ServiceConfig, TcpServer};

use signals::stop_on_signals;

/// Where a server listens, and with how many threads.
#[derive(clap::Args)]
pub(crate) struct Listen {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: u16,
}

/// Serves until SIGINT or SIGTERM comes; then connections are closed, what was sent to them is delivered, and the program ends.
pub(crate) fn serve<H, F>(options: &Listen, config: ServiceConfig, make: F) -> ExitCode
where
    H: Handler,
    F: Fn(u16) -> H + Send + Clone + 'static,
{
    match try_serve(options, config, make) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn try_serve<H, F>(options: &Listen, config: ServiceConfig, make: F) -> Result<(), Box<dyn Error>>
where
    H: Handler,
    F: Fn(u16) -> H + Send + Clone + 'static,
{
    let cannot_listen = |error: io::Error| format!("cannot listen on {}: {error}", options.listen);
    let server = TcpServer::bind(options.listen, config).map_err(cannot_listen)?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, make)?;
    stop_on_signals(&pool)?;
    eprintln!("listening on {address}");
    pool.join()?;
    Ok(())
}
