//! One connection of the client: how far it has sent, and how far that has come back.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;

use super::error::EchoError;
use super::pattern::{CHUNK_BYTES, Pattern};

/// Chunks that one connection may write before it is another's turn.
const CHUNKS_PER_TURN: usize = 16;

/// A connection, as places in its stream of bytes.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    /// Which of the client's it is.
    number: usize,
    sent: u64,
    received: u64,
    /// Up to where may be sent.
    allowed: u64,
    /// Messages that have come back.
    pub(crate) completed: u64,
    /// How many of them in the measured time.
    pub(crate) counted: u64,
    /// A message whose time is taken, by its place among the connection's, and when it was sent.
    probe: Option<(u64, Instant)>,
    /// The server has ended its side.
    ended: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// There is nothing more to be sent, or an event will tell when there is room.
    Enough,
    /// There is more to be sent, and perhaps room, and no event will tell.
    More,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, number: usize) -> Self {
        Self {
            stream,
            number,
            sent: 0,
            received: 0,
            allowed: 0,
            completed: 0,
            counted: 0,
            probe: None,
            ended: false,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.received == self.allowed
    }

    pub(crate) fn missing(&self) -> u64 {
        self.allowed.saturating_sub(self.received)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Lets messages be sent up to this one, and takes the time of the last if that of no other is being taken.
    pub(crate) fn allow(&mut self, messages: u64, size: u64, now: Instant) {
        let allowed = messages.saturating_mul(size);
        if allowed > self.allowed {
            self.allowed = allowed;
            self.probe.get_or_insert((messages, now));
        }
    }

    /// The time of the message that was being taken, once it is back.
    pub(crate) fn probed(&mut self) -> Option<Instant> {
        let (_, since) = self.probe.take_if(|(message, _)| *message <= self.completed)?;
        Some(since)
    }

    /// Reads what is there. Returns how many messages that completes.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        size: u64,
        check: Option<&Pattern>,
    ) -> Result<u64, EchoError> {
        loop {
            let got = match self.stream.read(buffer) {
                Ok(0) => return Err(EchoError::Closed(self.number)),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            let bytes = buffer.get(..got).unwrap_or_default();
            if let Some(position) = check.and_then(|pattern| pattern.differs(self.received, bytes)) {
                return Err(EchoError::Changed { connection: self.number, position });
            }
            self.received += got as u64;
            if self.received > self.sent {
                let excess = self.received - self.sent;
                return Err(EchoError::TooMuch { connection: self.number, excess });
            }
            // A short read has emptied the socket; what comes later is a new event, and so is its end.
            if got < buffer.len() {
                break;
            }
        }
        let completed = self.received / size;
        Ok(completed - std::mem::replace(&mut self.completed, completed))
    }

    /// Writes what may be sent, as far as there is room.
    pub(crate) fn write(&mut self, pattern: &Pattern) -> Result<Wrote, EchoError> {
        for _ in 0..CHUNKS_PER_TURN {
            if self.sent == self.allowed {
                return Ok(Wrote::Enough);
            }
            let bytes = pattern.at(self.sent, self.allowed - self.sent);
            match self.stream.write(bytes) {
                Ok(put) => {
                    self.sent += put as u64;
                    if put < bytes.len() {
                        return Ok(Wrote::Enough);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Wrote::Enough),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(if self.sent == self.allowed { Wrote::Enough } else { Wrote::More })
    }

    /// Says that nothing more comes from this side.
    pub(crate) fn end(&self) -> Result<(), EchoError> {
        self.stream.shutdown(Shutdown::Write).map_err(|error| self.broken(error))
    }

    /// Reads on after the end of all messages. Whether the server has ended its side, for the first time.
    pub(crate) fn read_end(&mut self, buffer: &mut [u8]) -> Result<bool, EchoError> {
        if self.ended {
            return Ok(false);
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                self.ended = true;
                Ok(true)
            }
            Ok(got) => Err(EchoError::TooMuch { connection: self.number, excess: got as u64 }),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> EchoError {
        EchoError::Broken { connection: self.number, error }
    }
}

/// A buffer to read into, for all connections of a thread.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; CHUNK_BYTES]
}
