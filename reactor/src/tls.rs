//! TLS on a non-blocking stream, by `rustls`: what is read is decrypted, what is written is encrypted, and the rest of the reactor does not notice.
//!
//! The handshake is part of a connection's preface: a handler hears of the connection when it is done.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;

use crate::stream::Stream;

/// Plain bytes that are encrypted and written at once: what TLS has in one record at most.
const RECORD_MAX: usize = 16 * 1024;

/// How a service's outgoing connections do TLS.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// By this configuration, with servers that prove to be `name`: a DNS name or an IP address, as it stands in their certificate.
    ///
    /// # Errors
    /// When `name` is neither.
    pub fn new(
        config: Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        Ok(Self { config, name: ServerName::try_from(name.to_owned())? })
    }
}

/// What a handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The protocol's version.
    pub version: Option<rustls::ProtocolVersion>,
    /// The application protocol (ALPN), if there is one.
    pub alpn: Option<Vec<u8>>,
    /// Of a server's connection: the name that the client asked for (SNI).
    pub server_name: Option<String>,
}

/// A stream with a TLS session on it.
pub(crate) struct TlsStream {
    inner: Stream,
    session: rustls::Connection,
    /// What was read before the session began and belongs to it.
    ahead: Vec<u8>,
    /// Plain bytes that the session has taken and whose encrypted form is not all written. They are not reported as written yet: the caller keeps them and offers
    /// them again.
    taken: usize,
}

/// How a step of a handshake ended.
#[derive(Debug)]
pub(crate) enum Handshake {
    Done,
    /// Goes on when the stream is readable or writable again.
    Blocked,
    /// The peer has ended its side.
    Closed,
    Failed(io::Error),
}

impl TlsStream {
    pub(crate) fn server(inner: Stream, config: &Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let session = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self { inner, session: session.into(), ahead: Vec::new(), taken: 0 })
    }

    pub(crate) fn client(inner: Stream, client: &TlsClient) -> io::Result<Self> {
        let session = rustls::ClientConnection::new(Arc::clone(&client.config), client.name.clone())
            .map_err(io::Error::other)?;
        Ok(Self { inner, session: session.into(), ahead: Vec::new(), taken: 0 })
    }

    pub(crate) const fn inner(&self) -> &Stream {
        &self.inner
    }

    pub(crate) const fn inner_mut(&mut self) -> &mut Stream {
        &mut self.inner
    }

    /// Takes what was read before the session began and belongs to it.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    pub(crate) fn info(&self) -> TlsInfo {
        let server_name = match &self.session {
            rustls::Connection::Server(server) => server.server_name().map(str::to_owned),
            rustls::Connection::Client(_) => None,
        };
        let alpn = self.session.alpn_protocol().map(<[u8]>::to_vec);
        TlsInfo { version: self.session.protocol_version(), alpn, server_name }
    }

    /// One step of the handshake: writes what can be written, reads once, and computes what follows from it, which may take a signature's time.
    pub(crate) fn handshake(&mut self) -> Handshake {
        match self.try_handshake() {
            Ok(step) => step,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Handshake::Blocked,
            Err(error) => {
                // The peer is told why, if it can be told at once.
                let _ = self.write_owed();
                Handshake::Failed(error)
            }
        }
    }

    fn try_handshake(&mut self) -> io::Result<Handshake> {
        loop {
            if !self.write_owed()? {
                return Ok(Handshake::Blocked);
            }
            if !self.session.is_handshaking() {
                return Ok(Handshake::Done);
            }
            if self.receive()? == 0 {
                return Ok(Handshake::Closed);
            }
        }
    }

    /// Reads encrypted bytes once, and gives them to the session. 0 at the end of the stream.
    fn receive(&mut self) -> io::Result<usize> {
        let count = if self.ahead.is_empty() {
            let mut reader = Reading(&mut self.inner);
            loop {
                match self.session.read_tls(&mut reader) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result?,
                }
            }
        } else {
            let mut ahead = self.ahead.as_slice();
            let count = self.session.read_tls(&mut ahead)?;
            self.ahead.drain(..count);
            count
        };
        self.session.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(count)
    }

    /// Writes what the session has encrypted. `false` when the stream takes no more.
    pub(crate) fn write_owed(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.inner) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether the session has something to write, of its own or of the program's.
    pub(crate) fn owes(&self) -> bool {
        self.session.wants_write()
    }

    /// Plain bytes; 0 when the peer has said that no more come. A stream that ends without that is an error: somebody may have cut it.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.receive()?;
            // Answers of the session's own: a new key, a ticket. What the stream does not take goes when it is writable again.
            self.write_owed()?;
        }
    }

    pub(crate) fn read_behind(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let mut bytes = vec![0; (buf.capacity() - buf.len()).min(RECORD_MAX)];
        let count = self.read(&mut bytes)?;
        buf.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Takes bytes as far as their encrypted form was written.
    pub(crate) fn write(&mut self, bufs: &[&[u8]]) -> io::Result<usize> {
        let offered = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if !self.write_owed()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        // The first of these were taken when they were offered before.
        let mut written = self.taken.min(offered);
        self.taken -= written;
        let mut skip = written;
        for buf in bufs {
            let fresh = buf.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(buf.len());
            for record in fresh.chunks(RECORD_MAX) {
                let count = self.session.writer().write(record)?;
                if !self.write_owed()? {
                    self.taken = count;
                    return if written == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) };
                }
                written += count;
            }
        }
        Ok(written)
    }

    pub(crate) fn write_slices(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
        self.write(&bufs)
    }

    /// Says that no more comes, and shuts the stream down. Only when all that was taken is written.
    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        // To a stream that takes nothing now the notice is lost, and its reader sees a cut.
        self.write_owed()?;
        self.inner.shutdown_write()
    }
}

impl std::fmt::Debug for TlsStream {
    /// Nothing of the session, which is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// A stream as `rustls` reads it.
struct Reading<'a>(&'a mut Stream);

impl Read for Reading<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
