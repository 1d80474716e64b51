//! The one type that all bytes go through: a TCP or a Unix socket. Other kinds (in-memory, TLS) become variants here and nowhere else.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source as _;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::address::Address;
use crate::config::SocketOptions;

/// A non-blocking byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    /// Begins to connect; a writable event tells the outcome.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match (address.socket_addr(), address.unix_path()) {
            (Some(address), _) => mio::net::TcpStream::connect(address).map(Self::Tcp),
            (_, Some(path)) => mio::net::UnixStream::connect(path).map(Self::Unix),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "an unnamed socket cannot be connected to")),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }

    /// Registers for both directions, edge-triggered. Once in a connection's life.
    pub(crate) fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()> {
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        match self {
            Self::Tcp(tcp) => tcp.register(registry, token, interests),
            Self::Unix(unix) => unix.register(registry, token, interests),
        }
    }

    /// Reads what is there into `buf`; 0 is the end.
    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.fd(), buf, RecvFlags::empty())?.0)
    }

    /// Reads behind what `buf` holds, at most to its capacity, which must leave room.
    pub(crate) fn read_behind(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let spare = rustix::buffer::spare_capacity(buf);
        Ok(rustix::net::recv(self.fd(), spare, RecvFlags::empty())?.0)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        }
    }

    /// Makes the coming close a reset: what was sent and not yet taken is discarded. A Unix socket has no reset; its peer sees the end.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Sets what `options` asks for, where the kind of socket knows it.
    pub(crate) fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => options.apply(&socket2::SockRef::from(tcp)),
            Self::Unix(_) => Ok(()),
        }
    }

    /// The error that the socket holds, if any; taking it clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(tcp) => tcp.take_error(),
            Self::Unix(unix) => unix.take_error(),
        }
    }

    pub(crate) fn peer_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().map(Address::from),
            Self::Unix(unix) => unix.peer_addr().map(|address| Address::from_unix(&address)),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(Address::from),
            Self::Unix(unix) => unix.local_addr().map(|address| Address::from_unix(&address)),
        }
    }
}

/// `NOSIGNAL`: a send to a closed peer is an error, never a signal, whatever the program does with SIGPIPE.
impl Write for Stream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.fd(), buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self.fd(), bufs, &mut nothing, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
