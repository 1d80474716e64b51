//! The one type that all bytes go through: a TCP or a Unix socket, TLS on one of them, or a simulated one. Other kinds become variants here
//! and nowhere else.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source as _;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::address::Address;
use crate::config::{ServiceConfig, SocketOptions};
use crate::poller::Registry;
#[cfg(any(test, feature = "test-util"))]
use crate::sim::stream::SimStream;
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

/// A non-blocking byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimStream),
}

impl Stream {
    /// Begins to connect; a writable event tells the outcome.
    pub(crate) fn connect(registry: &Registry, address: &Address) -> io::Result<Self> {
        #[cfg(any(test, feature = "test-util"))]
        if let Registry::Sim(sim) = registry {
            return sim.connect(address).map(Self::Sim);
        }
        let _ = registry;
        match (address.socket_addr(), address.unix_path()) {
            (Some(address), _) => mio::net::TcpStream::connect(address).map(Self::Tcp),
            (_, Some(path)) => mio::net::UnixStream::connect(path).map(Self::Unix),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "an unnamed socket cannot be connected to")),
        }
    }

    /// Registers for both directions, edge-triggered. Once in a connection's life.
    pub(crate) fn register(&mut self, registry: &Registry, token: mio::Token) -> io::Result<()> {
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        match (self, registry) {
            (Self::Tcp(tcp), Registry::Os(os)) => tcp.register(os, token, interests),
            (Self::Unix(unix), Registry::Os(os)) => unix.register(os, token, interests),
            // A session begins after the registration; for who does it otherwise it is the same.
            #[cfg(feature = "tls")]
            (Self::Tls(tls), registry) => tls.inner_mut().register(registry, token),
            #[cfg(any(test, feature = "test-util"))]
            (Self::Sim(sim), Registry::Sim(registry)) => {
                sim.register(registry, token);
                Ok(())
            }
            #[cfg(any(test, feature = "test-util"))]
            _ => Err(crate::sim::mixed()),
        }
    }

    /// Reads what is there into `buf`; 0 is the end.
    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => recv(tcp.as_fd(), buf),
            Self::Unix(unix) => recv(unix.as_fd(), buf),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.read(buf),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.read(buf),
        }
    }

    /// Reads behind what `buf` holds, at most to its capacity, which must leave room.
    pub(crate) fn read_behind(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => recv_behind(tcp.as_fd(), buf),
            Self::Unix(unix) => recv_behind(unix.as_fd(), buf),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.read_behind(buf),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.read_behind(buf),
        }
    }

    /// A stream on which a TLS session begins, if this service's connections of that kind have one.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(self, config: &ServiceConfig, outbound: bool) -> io::Result<Self> {
        let tls = match (&config.tls_server, &config.tls_client) {
            (Some(server), _) if !outbound => TlsStream::server(self, server)?,
            (_, Some(client)) if outbound => TlsStream::client(self, client)?,
            _ => return Ok(self),
        };
        Ok(Self::Tls(Box::new(tls)))
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unnecessary_wraps, reason = "as with TLS")]
    pub(crate) const fn secured(self, _: &ServiceConfig, _: bool) -> io::Result<Self> {
        Ok(self)
    }

    pub(crate) const fn is_tls(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(_) => true,
            _ => false,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) const fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) const fn tls_mut(&mut self) -> Option<&mut TlsStream> {
        match self {
            Self::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// Reads what comes before a session.
    pub(crate) fn read_plain(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner_mut().read(buf),
            _ => self.read(buf),
        }
    }

    /// Gives bytes to the session that were read before it began.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.put_back(bytes),
            _ => debug_assert!(bytes.is_empty(), "only a session takes bytes back"),
        }
    }

    /// Whether a read of less than was offered means that the socket has no more.
    #[inline]
    pub(crate) const fn short_read_drains(&self) -> bool {
        match self {
            // A session gives what is in one record.
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
            _ => true,
        }
    }

    /// Whether it has something to write that the program did not send: a session's own messages.
    #[inline]
    pub(crate) fn owes(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.owes(),
            _ => false,
        }
    }

    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.shutdown_write(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.shutdown_write(),
        }
    }

    /// Makes the coming close a reset: what was sent and not yet taken is discarded. A Unix socket has no reset; its peer sees the end.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner().reset_on_close(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => {
                sim.reset_on_close();
                Ok(())
            }
        }
    }

    /// Sets what `options` asks for, where the kind of socket knows it.
    pub(crate) fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => options.apply(&socket2::SockRef::from(tcp)),
            Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner().set_options(options),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(_) => Ok(()),
        }
    }

    /// The error that the socket holds, if any; taking it clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(tcp) => tcp.take_error(),
            Self::Unix(unix) => unix.take_error(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner().take_error(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Ok(sim.take_error()),
        }
    }

    pub(crate) fn peer_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().map(Address::from),
            Self::Unix(unix) => unix.peer_addr().map(|address| Address::from_unix(&address)),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner().peer_address(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.peer_address().map(Address::from),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(Address::from),
            Self::Unix(unix) => unix.local_addr().map(|address| Address::from_unix(&address)),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.inner().local_address(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Ok(sim.local_address().into()),
        }
    }
}

#[inline]
fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(fd, buf, RecvFlags::empty())?.0)
}

fn recv_behind(fd: BorrowedFd<'_>, buf: &mut Vec<u8>) -> io::Result<usize> {
    let spare = rustix::buffer::spare_capacity(buf);
    Ok(rustix::net::recv(fd, spare, RecvFlags::empty())?.0)
}

#[inline]
fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(fd, buf, SendFlags::NOSIGNAL)?)
}

fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut nothing = SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(fd, bufs, &mut nothing, SendFlags::NOSIGNAL)?)
}

/// `NOSIGNAL`: a send to a closed peer is an error, never a signal, whatever the program does with SIGPIPE.
impl Write for Stream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => send(tcp.as_fd(), buf),
            Self::Unix(unix) => send(unix.as_fd(), buf),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.write(&[buf]),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => send_vectored(tcp.as_fd(), bufs),
            Self::Unix(unix) => send_vectored(unix.as_fd(), bufs),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.write_slices(bufs),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.write_vectored(bufs),
        }
    }

    /// Writes what a session owes, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.write_owed().map(drop),
            _ => Ok(()),
        }
    }
}
