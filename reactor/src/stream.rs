//! The one type that all bytes go through. Today it is a TCP socket; other kinds (Unix, in-memory, TLS) become variants here and nowhere else.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// `MSG_NOSIGNAL`, the same on all Linux architectures: a send to a closed peer is an error, never a signal.
#[cfg(target_os = "linux")]
const NO_SIGNAL: i32 = 0x4000;

/// A non-blocking byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
}

impl Stream {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        mio::net::TcpStream::connect(address).map(Self::Tcp)
    }

    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_nodelay(on),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
        }
    }

    /// Makes the coming close a reset: what was sent and not yet taken is discarded.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)),
        }
    }

    /// The error that the socket holds, if any; taking it clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(tcp) => tcp.take_error(),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            // Not `writev`, which would raise SIGPIPE in a program that does not ignore it.
            #[cfg(target_os = "linux")]
            Self::Tcp(tcp) => socket2::SockRef::from(&*tcp).send_vectored_with_flags(bufs, NO_SIGNAL),
            #[cfg(not(target_os = "linux"))]
            Self::Tcp(tcp) => tcp.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.deregister(registry),
        }
    }
}
