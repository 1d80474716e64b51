//! The accepting half of a server: a listening socket, and who gets what it accepts.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::event::Source as _;

use crate::address::Address;
use crate::config::AcceptMode;
use crate::handle::{Adoption, LoopHandle};
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::poller::Registry;
use crate::reason::PostError;
use crate::service::ServiceCell;
#[cfg(any(test, feature = "test-util"))]
use crate::sim::stream::SimListener;
use crate::stream::Stream;

/// How long accepting rests after an error such as `EMFILE`. Short enough to go unnoticed, long enough not to spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A loop that takes accepted connections.
pub(crate) struct Target {
    pub(crate) handle: LoopHandle,
    pub(crate) service: u8,
    pub(crate) load: Arc<AtomicUsize>,
}

/// A bound and listening socket.
#[derive(Debug)]
pub(crate) enum ListenSocket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimListener),
}

impl ListenSocket {
    fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Self::Tcp(tcp) => tcp.accept().map(|(socket, peer)| (Stream::Tcp(socket), peer.into())),
            Self::Unix(unix) => {
                unix.accept().map(|(socket, peer)| (Stream::Unix(socket), Address::from_unix(&peer)))
            }
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.accept().map(|(stream, peer)| (Stream::Sim(stream), peer.into())),
        }
    }
}

pub(crate) struct Listener {
    socket: ListenSocket,
    /// Who may get what this listener accepts.
    targets: Vec<Target>,
    mode: AcceptMode,
    /// Connections of the server on each of its loops.
    loads: Arc<[Arc<AtomicUsize>]>,
    /// The queue may hold connections: set by an event, cleared by `EAGAIN` or an error.
    pub(crate) ready: bool,
    /// The last accept failed for want of something; tried again on a timer and whenever a socket closes.
    pub(crate) blocked: bool,
    retry_set: bool,
    /// A descriptor kept so that, when there are no others, a waiting client can be accepted and closed instead of left hanging.
    reserve: Option<File>,
    turn: usize,
}

impl Listener {
    pub(crate) fn new(
        socket: ListenSocket,
        targets: Vec<Target>,
        mode: AcceptMode,
        loads: Arc<[Arc<AtomicUsize>]>,
    ) -> Self {
        Self {
            socket,
            targets,
            mode,
            loads,
            // A connection may have come before the registration; the first turn looks.
            ready: true,
            blocked: false,
            retry_set: false,
            reserve: open_reserve(),
            turn: 0,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: mio::Token) -> io::Result<()> {
        match (&mut self.socket, registry) {
            (ListenSocket::Tcp(tcp), Registry::Os(os)) => tcp.register(os, token, mio::Interest::READABLE),
            (ListenSocket::Unix(unix), Registry::Os(os)) => unix.register(os, token, mio::Interest::READABLE),
            #[cfg(any(test, feature = "test-util"))]
            (ListenSocket::Sim(sim), Registry::Sim(registry)) => {
                sim.register(registry, token);
                Ok(())
            }
            #[cfg(any(test, feature = "test-util"))]
            _ => Err(crate::sim::mixed()),
        }
    }

    fn total(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// The next loop in turn, or the one with the fewest connections, where equal ones take turns.
    fn choose(&mut self) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.targets.len();
        let start = self.turn.checked_rem(count)?;
        if self.mode == AcceptMode::RoundRobin {
            return Some(start);
        }
        (0..count)
            .map(|at| (start + at) % count)
            .min_by_key(|at| self.targets.get(*at).map(|target| target.load.load(Ordering::Relaxed)))
    }

    /// Out of descriptors: gives up the reserve for one accept, closes that connection, and takes the reserve back.
    fn shed_one(&mut self) -> bool {
        if self.reserve.take().is_none() {
            return false;
        }
        let shed = self.socket.accept().is_ok();
        self.reserve = open_reserve();
        shed
    }
}

impl Drop for Listener {
    /// Nobody answers at a Unix socket's path any more, so it goes.
    fn drop(&mut self) {
        if let ListenSocket::Unix(unix) = &self.socket
            && let Ok(address) = unix.local_addr()
            && let Some(path) = address.as_pathname()
            && let Err(error) = std::fs::remove_file(path)
        {
            log::debug!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Whether an accept failed because the process (`EMFILE`) or the machine (`ENFILE`) has no descriptor left. Both numbers are the same on all
/// Unix systems.
fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

impl<H: Handler> ServiceCell<H> {
    /// Accepts what waits, within the turn's budget.
    pub(crate) fn accept(&mut self, core: &mut LoopCore) {
        let Some(mut listener) = self.listener.take() else { return };
        for _ in 0..self.conns.config.accepts_per_turn {
            match listener.socket.accept() {
                Ok((stream, peer)) => self.hand_off(core, &mut listener, stream, peer),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        listener.ready = false;
                        break;
                    }
                    // The client gave up before we came to it: nothing.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                    _ => {
                        self.accept_failed(core, &mut listener, &error);
                        break;
                    }
                },
            }
        }
        self.listener = Some(listener);
    }

    fn hand_off(&mut self, core: &mut LoopCore, listener: &mut Listener, stream: Stream, peer: Address) {
        core.stats.accepted += 1;
        if listener.total() >= self.conns.config.connections_max {
            core.stats.shed += 1;
            log::debug!("{}: {peer} is one connection too many", self.handler.name());
            return;
        }
        let mut waiting = Some((stream, peer));
        while let Some((stream, peer)) = waiting.take() {
            let Some(at) = listener.choose() else { break };
            let Some(target) = listener.targets.get(at) else { break };
            target.load.fetch_add(1, Ordering::Relaxed);
            if target.handle.index() == core.index && target.service == self.conns.service {
                return self.open(core, stream, peer);
            }
            match target.handle.adopt(Adoption { service: target.service, stream, peer }) {
                Ok(()) => return,
                Err((error, back)) => {
                    target.load.fetch_sub(1, Ordering::Relaxed);
                    let index = target.handle.index();
                    log::warn!("{}: loop {index} took no connection: {error}", self.handler.name());
                    // A loop that has ended would be the one with the fewest for ever; the others take its share.
                    if error == PostError::Stopped {
                        listener.targets.remove(at);
                        waiting = back.map(|adoption| (adoption.stream, adoption.peer));
                    }
                }
            }
        }
        core.stats.shed += 1;
    }

    /// No accept error ends the server. With edge triggering a further event may never come, so a timer and every closed socket try again.
    fn accept_failed(&mut self, core: &mut LoopCore, listener: &mut Listener, error: &io::Error) {
        core.stats.accept_errors += 1;
        let mut shed = 0;
        if is_want_of_descriptors(error) {
            while shed < self.conns.config.accepts_per_turn && listener.shed_one() {
                shed += 1;
            }
        }
        core.stats.shed += u64::from(shed);
        log::warn!("{}: cannot accept: {error}; {shed} clients turned away", self.handler.name());
        listener.ready = false;
        listener.blocked = true;
        if !listener.retry_set {
            listener.retry_set = true;
            let timer = Timer { service: self.conns.service, conn: None, kind: TimerKind::AcceptRetry };
            core.timers.insert(core.deadline(ACCEPT_RETRY), timer);
        }
    }

    pub(crate) fn retry_accept(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.retry_set = false;
            listener.blocked = false;
            listener.ready = true;
            // The reserve may have been lost to somebody who was quicker.
            if listener.reserve.is_none() {
                listener.reserve = open_reserve();
            }
        }
    }
}
