//! The simulated network and clock. Sockets behave as Linux's do as far as a reactor can tell: edges are reported once, with the whole state as it is then; a short
//! write means full and a short read drained, at that moment; a close with unread input is a reset, and a reset overtakes data.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::flags::Readiness;
use crate::id::Token;
use crate::sim::loop_io::SimEvent;
use crate::sim::{SimConfig, SimFaults};

/// The number of `EMFILE` on all Unix systems.
const EMFILE: i32 = 24;

/// What is under way to an end, in order.
enum Coming {
    Bytes(VecDeque<u8>),
    Fin,
}

/// Who is told of an edge.
#[derive(Clone, Copy)]
struct Watcher {
    loop_index: u16,
    token: mio::Token,
}

struct End {
    peer: usize,
    local: SocketAddr,
    remote: SocketAddr,
    established: bool,
    inbox: VecDeque<u8>,
    coming: VecDeque<Coming>,
    /// Bytes in `inbox` and `coming` together at most.
    window: usize,
    eof: bool,
    /// The error that the next call gets.
    error: Option<ErrorKind>,
    /// Reset or refused: nothing works any more.
    broken: bool,
    /// Nothing arrives here any more.
    silent: bool,
    write_shut: bool,
    closed: bool,
    reset_on_close: bool,
    /// A write found no room: news when there is some again.
    blocked: bool,
    watcher: Option<Watcher>,
    edge: bool,
}

impl End {
    fn held(&self) -> usize {
        let coming = self.coming.iter().map(|coming| match coming {
            Coming::Bytes(bytes) => bytes.len(),
            Coming::Fin => 0,
        });
        self.inbox.len() + coming.sum::<usize>()
    }

    /// Whether something can arrive.
    fn awaits(&self) -> bool {
        !self.silent && !self.coming.is_empty()
    }
}

struct Listening {
    address: SocketAddr,
    backlog_max: usize,
    backlog: VecDeque<usize>,
    closed: bool,
    watcher: Option<Watcher>,
    edge: bool,
}

#[derive(Default)]
struct LoopState {
    woken: bool,
    /// It said that it would sleep, and until when; `None` when it would not.
    sleeps: Option<Option<Duration>>,
}

pub(crate) struct World {
    rng: fastrand::Rng,
    base: Instant,
    now: Duration,
    config: SimConfig,
    ends: Vec<End>,
    listeners: Vec<Listening>,
    loops: Vec<LoopState>,
    /// Attempts to connect that are under way, by the connecting end.
    attempts: Vec<usize>,
    /// Ends that a reset is under way to.
    resets: Vec<usize>,
    open: usize,
}

#[expect(
    clippy::indexing_slicing,
    reason = "a test's world: its numbers are indices that it gave out itself"
)]
impl World {
    pub(crate) fn new(config: SimConfig) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed),
            base: Instant::now(),
            now: Duration::ZERO,
            config,
            ends: Vec::new(),
            listeners: Vec::new(),
            loops: Vec::new(),
            attempts: Vec::new(),
            resets: Vec::new(),
            open: 0,
        }
    }

    pub(crate) fn add_loop(&mut self) -> u16 {
        self.loops.push(LoopState::default());
        u16::try_from(self.loops.len() - 1).unwrap_or(u16::MAX)
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.config.seed
    }

    pub(crate) fn now(&self) -> Instant {
        self.base + self.now
    }

    pub(crate) const fn elapsed(&self) -> Duration {
        self.now
    }

    pub(crate) const fn set_faults(&mut self, faults: SimFaults) {
        self.config.faults = faults;
    }

    pub(crate) fn jump(&mut self, by: Duration) {
        self.now += by;
    }

    pub(crate) const fn open_sockets(&self) -> usize {
        self.open
    }

    /// Whether the one in so many is now.
    fn strikes(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.rng.u32(..one_in) == 0
    }

    pub(crate) fn choose(&mut self, count: usize) -> usize {
        self.rng.usize(..count)
    }

    // Time and loops.

    /// Some time passes with each step.
    pub(crate) fn tick(&mut self) {
        self.now += Duration::from_micros(self.rng.u64(..100));
        if self.strikes(self.config.faults.clock_jump) {
            self.now += Duration::from_millis(self.rng.u64(..60_000));
        }
    }

    /// Nothing else can happen: goes to the time that the first of the loops waits for. `false` when none does.
    pub(crate) fn pass_time(&mut self) -> bool {
        let sleeps = self.loops.iter().filter_map(|state| state.sleeps.flatten());
        // A loop that has stopped may have said a time that is past.
        let next = sleeps.filter(|until| *until > self.now).min();
        if let Some(next) = next {
            self.now = next;
        }
        next.is_some()
    }

    /// Whether a loop has something to do, as far as the world knows.
    pub(crate) fn is_ready(&self, index: u16) -> bool {
        let state = &self.loops[usize::from(index)];
        state.woken
            || state.sleeps.is_none_or(|until| until.is_some_and(|until| until <= self.now))
            || self.ends.iter().any(|end| end.edge && watches(end.watcher, index))
            || self.listeners.iter().any(|listener| listener.edge && watches(listener.watcher, index))
    }

    pub(crate) fn wake(&mut self, index: u16) {
        self.loops[usize::from(index)].woken = true;
    }

    /// A loop's wait: the edges of its sockets, some of them later, in any order.
    pub(crate) fn wait(&mut self, index: u16, timeout: Option<Duration>) -> Vec<SimEvent> {
        let mut events = Vec::new();
        for at in 0..self.ends.len() {
            if self.ends[at].edge && watches(self.ends[at].watcher, index) && !self.strikes(4) {
                self.ends[at].edge = false;
                events.extend(self.event_of(at));
            }
        }
        for listener in &mut self.listeners {
            if listener.edge && watches(listener.watcher, index) {
                listener.edge = false;
                if let Some(watcher) = listener.watcher.filter(|_| !listener.backlog.is_empty()) {
                    let readiness = Readiness::new(true, false, false, false);
                    events.push(SimEvent { token: watcher.token, readiness });
                }
            }
        }
        let state = &mut self.loops[usize::from(index)];
        if std::mem::take(&mut state.woken) {
            let readiness = Readiness::new(true, false, false, false);
            events.push(SimEvent { token: Token::WAKER, readiness });
        }
        let would_sleep = events.is_empty() && timeout != Some(Duration::ZERO);
        state.sleeps = would_sleep.then(|| timeout.map(|timeout| self.now + timeout));
        self.rng.shuffle(&mut events);
        events
    }

    fn event_of(&self, at: usize) -> Option<SimEvent> {
        let end = &self.ends[at];
        let readable = !end.inbox.is_empty() || end.eof || end.broken;
        let writable = end.broken || (end.established && (end.write_shut || self.room_of(at) > 0));
        let error = end.broken || (end.eof && end.write_shut);
        let closed = end.eof || end.broken;
        let watcher = end.watcher.filter(|_| readable || writable)?;
        Some(SimEvent { token: watcher.token, readiness: Readiness::new(readable, writable, closed, error) })
    }

    /// How many bytes an end can write now.
    fn room_of(&self, at: usize) -> usize {
        let peer = &self.ends[self.ends[at].peer];
        if peer.closed && !peer.silent { usize::MAX } else { peer.window.saturating_sub(peer.held()) }
    }

    // What arrives.

    /// In how many places something can arrive.
    pub(crate) fn arrivals(&self) -> usize {
        let streams = self.ends.iter().filter(|end| end.awaits()).count();
        streams + self.attempts.len() + self.resets.len()
    }

    /// Something arrives somewhere, or goes wrong.
    pub(crate) fn arrive(&mut self) {
        if self.strikes(self.config.faults.reset)
            && let Some(at) = self.some_end(|end| end.established && !end.closed && !end.broken)
        {
            let peer = self.ends[at].peer;
            self.break_end(at, ErrorKind::ConnectionReset);
            self.break_end(peer, ErrorKind::ConnectionReset);
            return;
        }
        if self.strikes(self.config.faults.silent)
            && let Some(at) = self.some_end(|end| end.established && !end.closed && !end.broken)
        {
            for at in [at, self.ends[at].peer] {
                self.ends[at].silent = true;
            }
            return;
        }
        if self.strikes(self.config.faults.spurious)
            && let Some(at) = self.some_end(|end| end.watcher.is_some() && end.established)
        {
            self.ends[at].edge = true;
        }
        let streams: Vec<usize> = (0..self.ends.len()).filter(|at| self.ends[*at].awaits()).collect();
        let choice = self.choose(streams.len() + self.attempts.len() + self.resets.len());
        if let Some(at) = streams.get(choice) {
            self.arrive_at(*at);
        } else if choice - streams.len() < self.attempts.len() {
            let at = self.attempts.swap_remove(choice - streams.len());
            self.finish_attempt(at);
        } else {
            let at = self.resets.swap_remove(choice - streams.len() - self.attempts.len());
            self.break_end(at, ErrorKind::ConnectionReset);
        }
    }

    fn some_end(&mut self, wanted: impl Fn(&End) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.ends.len()).filter(|at| wanted(&self.ends[*at])).collect();
        let choice = self.choose(found.len().max(1));
        found.get(choice).copied()
    }

    fn arrive_at(&mut self, at: usize) {
        let part = self.rng.f64();
        let end = &mut self.ends[at];
        if end.closed {
            // Nobody is there: whoever sent it hears so.
            end.coming.clear();
            self.resets.push(end.peer);
            return;
        }
        match end.coming.front_mut() {
            Some(Coming::Bytes(bytes)) => {
                // Whole or in part, and often a byte short of whole.
                let count = match part {
                    part if part < 0.3 => bytes.len(),
                    part if part < 0.4 => bytes.len().saturating_sub(1).max(1),
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        clippy::cast_precision_loss,
                        reason = "a share of a length"
                    )]
                    part => ((bytes.len() as f64 * part) as usize).max(1),
                };
                end.inbox.extend(bytes.drain(..count));
                if bytes.is_empty() {
                    end.coming.pop_front();
                }
            }
            Some(Coming::Fin) => {
                end.coming.pop_front();
                end.eof = true;
            }
            None => return,
        }
        end.edge = true;
    }

    fn finish_attempt(&mut self, at: usize) {
        if self.ends[at].closed {
            return;
        }
        let remote = self.ends[at].remote;
        let listener = self.listeners.iter_mut().find(|l| !l.closed && l.address == remote);
        let found = listener.filter(|listener| listener.backlog.len() < listener.backlog_max);
        let Some(listener) = found else {
            return self.break_end(at, ErrorKind::ConnectionRefused);
        };
        listener.backlog.push_back(self.ends[at].peer);
        listener.edge = true;
        for at in [at, self.ends[at].peer] {
            self.ends[at].established = true;
            self.ends[at].edge = true;
        }
    }

    fn break_end(&mut self, at: usize, error: ErrorKind) {
        let end = &mut self.ends[at];
        if !end.closed && !end.broken {
            end.broken = true;
            end.error = Some(error);
            end.inbox.clear();
            end.coming.clear();
            end.edge = true;
        }
    }

    // Calls on sockets. In between two of them something may arrive, as it may in between two system calls.

    fn enter(&mut self) -> io::Result<()> {
        if self.arrivals() > 0 && self.strikes(8) {
            self.arrive();
        }
        if self.strikes(self.config.faults.interrupted) { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    pub(crate) fn connect(&mut self, remote: SocketAddr) -> io::Result<usize> {
        if self.open >= self.config.sockets_max {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        self.open += 1;
        let at = self.ends.len();
        let port = u16::try_from(10_000 + at % 50_000).unwrap_or(1);
        let local = SocketAddr::from((Ipv4Addr::new(10, 1, 0, 1), port));
        for (at, peer, local, remote) in [(at, at + 1, local, remote), (at + 1, at, remote, local)] {
            debug_assert_eq!(at, self.ends.len());
            let window = self.rng.usize(1..=self.config.window_max.max(1));
            self.ends.push(End {
                peer,
                local,
                remote,
                established: false,
                inbox: VecDeque::new(),
                coming: VecDeque::new(),
                window,
                eof: false,
                error: None,
                broken: false,
                silent: false,
                write_shut: false,
                closed: false,
                reset_on_close: false,
                blocked: false,
                watcher: None,
                edge: false,
            });
        }
        if self.strikes(self.config.faults.refused) {
            self.break_end(at, ErrorKind::ConnectionRefused);
        } else if !self.strikes(self.config.faults.unanswered) {
            self.attempts.push(at);
        }
        Ok(at)
    }

    pub(crate) fn bind(&mut self, address: SocketAddr, backlog_max: usize) -> io::Result<usize> {
        if self.listeners.iter().any(|listener| !listener.closed && listener.address == address) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let backlog = VecDeque::new();
        self.listeners.push(Listening {
            address,
            backlog_max,
            backlog,
            closed: false,
            watcher: None,
            edge: false,
        });
        Ok(self.listeners.len() - 1)
    }

    pub(crate) fn accept(&mut self, listener: usize) -> io::Result<(usize, SocketAddr)> {
        self.enter()?;
        if self.listeners[listener].backlog.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.open >= self.config.sockets_max {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(at) = self.listeners[listener].backlog.pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        self.open += 1;
        Ok((at, self.ends[at].remote))
    }

    pub(crate) fn watch_end(&mut self, at: usize, loop_index: u16, token: mio::Token) {
        let end = &mut self.ends[at];
        end.watcher = Some(Watcher { loop_index, token });
        // What is true already at the registration is reported.
        end.edge = true;
    }

    pub(crate) fn watch_listener(&mut self, at: usize, loop_index: u16, token: mio::Token) {
        let listener = &mut self.listeners[at];
        listener.watcher = Some(Watcher { loop_index, token });
        listener.edge = true;
    }

    pub(crate) fn read(&mut self, at: usize, buf: &mut [u8]) -> io::Result<usize> {
        self.enter()?;
        let end = &mut self.ends[at];
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        let count = end.inbox.len().min(buf.len());
        if count == 0 {
            return if end.eof || end.broken { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        for (to, from) in buf.iter_mut().zip(end.inbox.drain(..count)) {
            *to = from;
        }
        let peer = end.peer;
        if std::mem::take(&mut self.ends[peer].blocked) {
            self.ends[peer].edge = true;
        }
        Ok(count)
    }

    pub(crate) fn write(&mut self, at: usize, bufs: &[&[u8]]) -> io::Result<usize> {
        self.enter()?;
        if let Some(error) = self.ends[at].error.take() {
            return Err(error.into());
        }
        if self.ends[at].broken || self.ends[at].write_shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        let count = offered.min(self.room_of(at));
        if count < offered {
            self.ends[at].blocked = true;
        }
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes = bufs.iter().flat_map(|buf| buf.iter().copied()).take(count);
        let peer = self.ends[at].peer;
        match self.ends[peer].coming.back_mut() {
            Some(Coming::Bytes(last)) => last.extend(bytes),
            _ => self.ends[peer].coming.push_back(Coming::Bytes(bytes.collect())),
        }
        Ok(count)
    }

    pub(crate) fn shutdown_write(&mut self, at: usize) -> io::Result<()> {
        let end = &mut self.ends[at];
        if end.broken {
            return Err(ErrorKind::NotConnected.into());
        }
        if !std::mem::replace(&mut end.write_shut, true) {
            let peer = end.peer;
            self.ends[peer].coming.push_back(Coming::Fin);
        }
        Ok(())
    }

    pub(crate) fn reset_on_close(&mut self, at: usize) {
        self.ends[at].reset_on_close = true;
    }

    pub(crate) fn take_error(&mut self, at: usize) -> Option<io::Error> {
        self.ends[at].error.take().map(io::Error::from)
    }

    pub(crate) fn peer_address(&self, at: usize) -> io::Result<SocketAddr> {
        let end = &self.ends[at];
        if end.established && !end.broken { Ok(end.remote) } else { Err(ErrorKind::NotConnected.into()) }
    }

    pub(crate) fn local_address(&self, at: usize) -> SocketAddr {
        self.ends[at].local
    }

    pub(crate) fn close(&mut self, at: usize) {
        self.open -= 1;
        self.close_end(at);
    }

    fn close_end(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.closed = true;
        end.watcher = None;
        let unread = !end.inbox.is_empty();
        end.inbox.clear();
        let (peer, shut, reset) = (end.peer, end.write_shut, end.reset_on_close || unread);
        if end.broken || !end.established {
            return;
        }
        if reset {
            if !self.ends[peer].silent {
                self.resets.push(peer);
            }
        } else if !shut {
            self.ends[peer].coming.push_back(Coming::Fin);
        }
        // Whoever waited for room need not wait any more.
        if std::mem::take(&mut self.ends[peer].blocked) {
            self.ends[peer].edge = true;
        }
    }

    pub(crate) fn close_listener(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        listener.closed = true;
        listener.watcher = None;
        for end in std::mem::take(&mut self.listeners[at].backlog) {
            self.ends[end].reset_on_close = true;
            self.close_end(end);
        }
    }
}

fn watches(watcher: Option<Watcher>, loop_index: u16) -> bool {
    watcher.is_some_and(|watcher| watcher.loop_index == loop_index)
}
