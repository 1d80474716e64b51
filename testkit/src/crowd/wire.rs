//! One connection of the crowd: JSON lines over a socket that never blocks.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use serde_json::Value;

/// A connection that is being made or is there.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    connected: bool,
}

impl Wire {
    /// Begins to connect; events come under `token`.
    pub(super) fn connect(to: SocketAddr, registry: &Registry, token: Token) -> io::Result<Wire> {
        let mut stream = TcpStream::connect(to)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Wire { stream, input: Vec::new(), output: Vec::new(), connected: false })
    }

    /// Keeps one line to be written by [`Wire::flush`].
    pub(super) fn send(&mut self, value: &Value) {
        self.output.extend_from_slice(value.to_string().as_bytes());
        self.output.push(b'\n');
    }

    /// Writes what the system takes. An error ends the connection.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(e) => return Err(e),
            }
            self.stream.set_nodelay(true)?;
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.output.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// All whole lines that have come, and how the connection ended if it did.
    pub(super) fn read(&mut self) -> (Vec<Value>, Option<String>) {
        let mut end = None;
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => end = Some("the server closed".to_owned()),
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    continue;
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => end = Some(e.to_string()),
            }
            break;
        }
        let mut lines = Vec::new();
        let whole = self.input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.input[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(value) => lines.push(value),
                Err(e) => end = Some(format!("not JSON ({e}): {}", String::from_utf8_lossy(line))),
            }
        }
        self.input.drain(..whole);
        (lines, end)
    }
}
