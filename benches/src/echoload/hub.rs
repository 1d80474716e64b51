//! Lines to many: one connection sends, all others receive, and the next line goes out when all have the last.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::conn::buffer;
use super::error::{EchoError, system};
use super::options::EchoOptions;
use super::report::HubReport;
use super::run::connect;
use super::server::Server;
use crate::process::count;

/// Lines when none are named.
const LINES: u64 = 1_000;
const EVENTS: usize = 1024;

/// The one who sends, and the others with the bytes that they have got of the line under way.
struct Room {
    poll: Poll,
    sender: TcpStream,
    members: Vec<(TcpStream, usize)>,
    buffer: Vec<u8>,
    line: Vec<u8>,
    /// Members that have not got all of the line.
    left: usize,
    patience: Duration,
}

/// Sends lines through the hub.
pub(crate) fn hub(options: &EchoOptions, server: Server) -> Result<HubReport, EchoError> {
    let lines = options.messages.unwrap_or(LINES);
    let mut room = Room::new(options)?;
    // Until the first line has come to all it is not certain that the hub knows all of them.
    room.line_to_all(0)?;
    let (since, cpu) = (Instant::now(), server.cpu());
    for number in 1..=lines {
        room.line_to_all(number)?;
    }
    let seconds = since.elapsed().as_secs_f64();
    let used = server.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    // If the last one came twice to somebody, this one will not be what is expected.
    room.line_to_all(lines + 1)?;
    let deliveries = count(lines) * count(room.members.len() as u64);
    Ok(HubReport {
        connections: options.connections,
        lines,
        size: options.size,
        seconds,
        deliveries_per_second: deliveries / seconds.max(1e-9),
        server_cpu_ns_per_delivery: used.map(|used| used.as_secs_f64() * 1e9 / deliveries),
    })
}

impl Room {
    fn new(options: &EchoOptions) -> Result<Self, EchoError> {
        let mut streams = connect(options.addr, options.connections)?;
        let poll = Poll::new().map_err(system("epoll"))?;
        let sender = streams.pop().ok_or(EchoError::Late("a connection"))?;
        for (at, stream) in streams.iter_mut().enumerate() {
            poll.registry().register(stream, Token(at), Interest::READABLE).map_err(system("epoll"))?;
        }
        let size = usize::try_from(options.size).unwrap_or(usize::MAX);
        let mut line = vec![b'0'; size.saturating_sub(1)];
        line.push(b'\n');
        let members = streams.into_iter().map(|stream| (stream, 0)).collect();
        Ok(Self { poll, sender, members, buffer: buffer(), line, left: 0, patience: options.patience() })
    }

    /// Sends the line with this number. Each line differs from the one before, so that one that comes twice, or not, shows.
    fn line_to_all(&mut self, number: u64) -> Result<(), EchoError> {
        let digits = self.line.iter_mut().rev().skip(1);
        let mut rest = number;
        for digit in digits {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        let last = self.members.len();
        self.left = last;
        for (_, got) in &mut self.members {
            *got = 0;
        }
        match self.sender.write(&self.line) {
            Ok(put) if put == self.line.len() => {}
            Ok(_) => return Err(EchoError::Late("room for a line")),
            Err(error) => return Err(EchoError::Broken { connection: last, error }),
        }
        let mut events = Events::with_capacity(EVENTS);
        let deadline = Instant::now() + self.patience;
        while self.left > 0 {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait == Duration::ZERO {
                return Err(EchoError::Late("a line to come to all"));
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(EchoError::System { what: "epoll", error });
                }
                _ => {}
            }
            for event in &events {
                self.receive(event.token().0)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) -> Result<(), EchoError> {
        let Some((stream, got)) = self.members.get_mut(at) else { return Ok(()) };
        match stream.read(&mut self.buffer) {
            Ok(0) => return Err(EchoError::Closed(at)),
            Ok(bytes) => {
                let rest = self.line.get(*got..).unwrap_or_default();
                let came = self.buffer.get(..bytes).unwrap_or_default();
                if let Some(excess) = bytes.checked_sub(rest.len()).filter(|excess| *excess > 0) {
                    return Err(EchoError::TooMuch { connection: at, excess: excess as u64 });
                }
                if !rest.starts_with(came) {
                    return Err(EchoError::Changed { connection: at, position: *got as u64 });
                }
                *got += bytes;
                if *got == self.line.len() {
                    self.left -= 1;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(EchoError::Broken { connection: at, error }),
        }
        Ok(())
    }
}
