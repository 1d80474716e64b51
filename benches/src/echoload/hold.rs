//! Connections that are held: what an idle one costs the server, and whether idleness wakes it.

use std::thread;
use std::time::{Duration, Instant};

use super::error::EchoError;
use super::options::EchoOptions;
use super::phase::Plan;
use super::report::HoldReport;
use super::run::connect;
use super::server::Server;
use super::worker::Worker;
use crate::process::count;

/// How often it is looked whether the server has taken all connections.
const LOOK: Duration = Duration::from_millis(20);
/// How long the server may take to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// Connects, looks, sends one message on each connection, looks again, and watches.
pub(crate) fn hold(options: &EchoOptions, server: Server) -> Result<HoldReport, EchoError> {
    let resident = || server.resident().ok_or(EchoError::Late("the server's memory"));
    let before = server.sockets().unwrap_or(0);
    let empty = resident()?;
    let streams = connect(options.addr, options.connections)?;
    accepted(server, before + options.connections, options.patience())?;
    thread::sleep(SETTLE);
    let fresh = resident()?;
    let (sleeps, since) = (server.sleeps(), Instant::now());
    thread::sleep(options.seconds());
    let (woken, watched) = (server.sleeps(), since.elapsed());
    // Held here until the memory has been read.
    let held = Worker::new(options, streams, 0, None)?.keep(Plan::Counted(1))?;
    thread::sleep(SETTLE);
    let touched = resident()?;
    drop(held);
    let per_connection = |bytes: u64| (count(bytes) - count(empty)) / count(options.connections as u64);
    Ok(HoldReport {
        connections: options.connections,
        size: options.size,
        empty_bytes: empty,
        fresh_bytes: fresh,
        touched_bytes: touched,
        fresh_bytes_per_connection: per_connection(fresh),
        touched_bytes_per_connection: per_connection(touched),
        watched_seconds: watched.as_secs_f64(),
        wakeups: woken.zip(sleeps).map_or(0, |(after, before)| after.saturating_sub(before)),
    })
}

/// Waits until the server has so many sockets.
fn accepted(server: Server, sockets: usize, patience: Duration) -> Result<(), EchoError> {
    let since = Instant::now();
    while server.sockets().is_none_or(|open| open < sockets) {
        if since.elapsed() > patience {
            return Err(EchoError::Late("the server to accept all connections"));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
