//! Connections that are opened and closed, one after the other.

use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::error::EchoError;
use super::options::EchoOptions;
use super::report::CyclesReport;

/// Cycles when none are named.
const CYCLES: u64 = 3_000;
/// So often the server has to have closed its side, too, before the next connection is opened: a full backlog would cost a second, and one that the
/// server does not get to see would be missing from its count.
const LOCKSTEP: u64 = 250;

/// Opens and closes. In lockstep the server has closed each connection before the next one is opened.
pub(crate) fn cycles(options: &EchoOptions) -> Result<CyclesReport, EchoError> {
    let cycles = options.messages.unwrap_or(CYCLES);
    let begun = Instant::now();
    for cycle in 1..=cycles {
        let connection = usize::try_from(cycle).unwrap_or(usize::MAX);
        let stream =
            TcpStream::connect(options.addr).map_err(|error| EchoError::Connect { connection, error })?;
        if options.lockstep || cycle.is_multiple_of(LOCKSTEP) || cycle == cycles {
            finish(stream, connection, options)?;
        }
    }
    Ok(CyclesReport { cycles, seconds: begun.elapsed().as_secs_f64() })
}

/// Closes, and waits until the server has, too.
fn finish(mut stream: TcpStream, connection: usize, options: &EchoOptions) -> Result<(), EchoError> {
    let broken = |error| EchoError::Broken { connection, error };
    stream.set_read_timeout(Some(options.patience())).map_err(broken)?;
    stream.shutdown(Shutdown::Write).map_err(broken)?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(EchoError::TooMuch { connection, excess: 1 }),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(EchoError::Late("the server to close a connection that the client has closed"))
        }
        Err(error) => Err(broken(error)),
    }
}
