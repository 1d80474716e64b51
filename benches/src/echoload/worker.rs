//! One thread of the client: its connections, and what they have done.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::conn::{Conn, Wrote, buffer};
use super::error::{EchoError, system};
use super::options::{EchoOptions, EchoShape};
use super::pattern::Pattern;
use super::phase::{Phase, Plan};
use super::server::{Server, own_cpu};

/// Events of one turn. Enough that a turn with thousands of ready connections is few waits.
const EVENTS: usize = 1024;

/// What a thread has done in the measured time.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Bytes that came back; in a sink, that were sent.
    pub(crate) bytes: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// Messages of each connection.
    pub(crate) counts: Vec<u64>,
    /// Of the thread that watches.
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) load_cpu: Duration,
}

/// The thread.
pub(crate) struct Worker {
    poll: Poll,
    conns: Vec<Conn>,
    buffer: Vec<u8>,
    pattern: Pattern,
    size: u64,
    window: u64,
    sink: bool,
    check: bool,
    patience: Duration,
    plan: Plan,
    phase: Phase,
    /// Only one thread watches the server.
    server: Option<Server>,
    latency_us: Histogram<u64>,
    /// Connections that have more to write and get no event for it.
    more: Vec<usize>,
    /// Connections that have not got all of their messages back.
    left: usize,
    bytes: u64,
    moved: Instant,
    begun: Mark,
    ended: Option<Mark>,
}

/// For times in microseconds, up to an hour.
pub(crate) fn histogram() -> Result<Histogram<u64>, EchoError> {
    Histogram::new_with_max(3_600_000_000, 3)
        .map_err(|error| EchoError::Options(format!("no histogram: {error}")))
}

/// What the clocks showed at a moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    server: Option<Duration>,
    load: Duration,
}

impl Worker {
    /// A thread's client with these connections, numbered from `first`.
    pub(crate) fn new(
        options: &EchoOptions,
        streams: Vec<TcpStream>,
        first: usize,
        server: Option<Server>,
    ) -> Result<Self, EchoError> {
        let poll = Poll::new().map_err(system("epoll"))?;
        let mut conns = Vec::with_capacity(streams.len());
        for (at, mut stream) in streams.into_iter().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(at), interest).map_err(system("epoll"))?;
            conns.push(Conn::new(stream, first + at));
        }
        let now = Instant::now();
        Ok(Self {
            poll,
            left: conns.len(),
            conns,
            buffer: buffer(),
            pattern: Pattern::new(),
            size: options.size,
            window: options.window,
            sink: options.shape == EchoShape::Sink,
            check: options.check,
            patience: options.patience(),
            plan: Plan::Counted(0),
            phase: Phase::Warm,
            server,
            latency_us: histogram()?,
            more: Vec::new(),
            bytes: 0,
            moved: now,
            begun: Mark { at: now, server: None, load: Duration::ZERO },
            ended: None,
        })
    }

    /// Sends and receives until the plan is fulfilled.
    pub(crate) fn run(self, plan: Plan) -> Result<Outcome, EchoError> {
        let mut done = self.keep(plan)?;
        done.ended.get_or_insert(done.mark());
        if !done.sink {
            done.finish()?;
        }
        Ok(done.outcome())
    }

    /// Ends every connection, and reads it to its end: what comes now was sent by nobody.
    fn finish(&mut self) -> Result<(), EchoError> {
        for conn in &mut self.conns {
            conn.end()?;
        }
        let mut events = Events::with_capacity(EVENTS);
        let deadline = Instant::now() + self.patience;
        let mut open = self.conns.len();
        // An end that came before this would have been an error, so each is an event that is still to come.
        while open > 0 {
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait == Duration::ZERO {
                return Err(EchoError::Late("the server to close connections that the client has ended"));
            }
            self.wait(&mut events, wait)?;
            for event in &events {
                let Some(conn) = self.conns.get_mut(event.token().0) else { continue };
                if conn.read_end(&mut self.buffer)? {
                    open -= 1;
                }
            }
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, wait: Duration) -> Result<(), EchoError> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                Err(EchoError::System { what: "epoll", error })
            }
            _ => Ok(()),
        }
    }

    /// The same, with the connections left open.
    pub(crate) fn keep(mut self, plan: Plan) -> Result<Self, EchoError> {
        self.plan = plan;
        let mut events = Events::with_capacity(EVENTS);
        self.enter(plan.phase(Instant::now()));
        for at in 0..self.conns.len() {
            self.fill(at)?;
        }
        while !self.is_done() {
            let now = Instant::now();
            let wait = if self.more.is_empty() { plan.wait(now, self.patience) } else { Duration::ZERO };
            self.wait(&mut events, wait)?;
            let now = Instant::now();
            let phase = plan.phase(now);
            if phase != self.phase {
                self.enter(phase);
            }
            for event in &events {
                self.on_event(event.token().0)?;
            }
            for at in std::mem::take(&mut self.more) {
                self.write(at)?;
            }
            if self.phase != Phase::Warm && now.saturating_duration_since(self.moved) >= self.patience {
                return Err(self.missing());
            }
        }
        Ok(self)
    }

    fn is_done(&self) -> bool {
        match self.plan {
            Plan::Counted(_) => self.left == 0,
            Plan::Timed { .. } => {
                self.phase == Phase::Draining && (self.sink || self.conns.iter().all(Conn::is_quiet))
            }
        }
    }

    fn mark(&self) -> Mark {
        Mark { at: Instant::now(), server: self.server.and_then(Server::cpu), load: own_cpu() }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        match phase {
            Phase::Warm => {}
            Phase::Measured => {
                self.latency_us.reset();
                self.bytes = 0;
                if self.sink {
                    self.bytes = self.sent();
                }
                for conn in &mut self.conns {
                    conn.counted = 0;
                }
                self.begun = self.mark();
            }
            Phase::Draining => {
                if self.sink {
                    self.bytes = self.sent() - self.bytes;
                }
                self.ended = Some(self.mark());
            }
        }
        self.moved = Instant::now();
    }

    fn sent(&self) -> u64 {
        self.conns.iter().map(Conn::sent).sum()
    }

    fn on_event(&mut self, at: usize) -> Result<(), EchoError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        if !self.sink {
            let check = (self.check || self.phase == Phase::Warm).then_some(&self.pattern);
            let (before, quiet) = (conn.missing(), conn.is_quiet());
            let completed = conn.read(&mut self.buffer, self.size, check)?;
            let moved = before - conn.missing();
            if self.phase == Phase::Measured {
                conn.counted += completed;
                self.bytes += moved;
            }
            if moved > 0 {
                self.moved = Instant::now();
                if let Some(since) = conn.probed()
                    && self.phase == Phase::Measured
                {
                    let micros = self.moved.saturating_duration_since(since).as_micros();
                    self.latency_us.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
                }
            }
            if !quiet && conn.completed >= self.plan.quota() {
                self.left -= 1;
            }
        }
        self.fill(at)
    }

    /// Lets the connection send as much as its window has room for.
    fn fill(&mut self, at: usize) -> Result<(), EchoError> {
        if self.phase != Phase::Draining
            && let Some(conn) = self.conns.get_mut(at)
        {
            if self.sink {
                conn.allow(u64::MAX, 1, self.moved);
            } else {
                let messages = conn.completed.saturating_add(self.window).min(self.plan.quota());
                // The clock stood at the last byte that came back, which is just now.
                conn.allow(messages, self.size, self.moved);
            }
        }
        self.write(at)
    }

    fn write(&mut self, at: usize) -> Result<(), EchoError> {
        if self.sink && self.phase == Phase::Draining {
            return Ok(());
        }
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        if conn.write(&self.pattern)? == Wrote::More {
            self.more.push(at);
        }
        Ok(())
    }

    fn missing(&self) -> EchoError {
        let lacking = || self.conns.iter().map(Conn::missing).filter(|bytes| *bytes > 0);
        EchoError::Missing { bytes: lacking().sum(), connections: lacking().count() }
    }

    fn outcome(self) -> Outcome {
        let end = self.ended.unwrap_or_else(|| self.mark());
        let begin = self.begun;
        Outcome {
            seconds: end.at.saturating_duration_since(begin.at).as_secs_f64(),
            bytes: self.bytes,
            server_cpu: end.server.zip(begin.server).map(|(end, begin)| end.saturating_sub(begin)),
            load_cpu: end.load.saturating_sub(begin.load),
            counts: self.conns.iter().map(|conn| conn.counted).collect(),
            latency_us: self.latency_us,
        }
    }
}
