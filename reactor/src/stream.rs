//! The one type that all bytes go through: a TCP or a Unix socket, or a simulated one. Other kinds (TLS) become variants here and nowhere else.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source as _;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::address::Address;
use crate::config::SocketOptions;
use crate::poller::Registry;
#[cfg(any(test, feature = "test-util"))]
use crate::sim::stream::SimStream;

/// A non-blocking byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
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
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.read(buf),
        }
    }

    /// Reads behind what `buf` holds, at most to its capacity, which must leave room.
    pub(crate) fn read_behind(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => recv_behind(tcp.as_fd(), buf),
            Self::Unix(unix) => recv_behind(unix.as_fd(), buf),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.read_behind(buf),
        }
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.shutdown_write(),
        }
    }

    /// Makes the coming close a reset: what was sent and not yet taken is discarded. A Unix socket has no reset; its peer sees the end.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) => Ok(()),
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
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(_) => Ok(()),
        }
    }

    /// The error that the socket holds, if any; taking it clears it.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(tcp) => tcp.take_error(),
            Self::Unix(unix) => unix.take_error(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Ok(sim.take_error()),
        }
    }

    pub(crate) fn peer_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().map(Address::from),
            Self::Unix(unix) => unix.peer_addr().map(|address| Address::from_unix(&address)),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.peer_address().map(Address::from),
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(Address::from),
            Self::Unix(unix) => unix.local_addr().map(|address| Address::from_unix(&address)),
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
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => send_vectored(tcp.as_fd(), bufs),
            Self::Unix(unix) => send_vectored(unix.as_fd(), bufs),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
