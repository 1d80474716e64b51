//! `RedisTool`: subscriptions with a receiving thread of their own, and a thread for all that is sent to Redis.
//!
//! Two connections. On the first the *receiving thread* reads what is published; any number of channels can be added and taken away while it does. On the
//! second the *sending thread* writes what others queue, many commands to a round trip, and does what has to be done regularly. Nobody who queues
//! something ever waits: the queue is bounded, and what finds no place, or finds Redis gone, is let go and counted, for whatever goes this way is a hint.
//!
//! Both connections are made anew after any fault, with growing, jittered pauses. The channels that are wanted are kept here and subscribed to again.

use std::collections::HashSet;
use std::io::{self, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, Parser, RedisError, RedisResult, Value};

/// What waits to be sent. At 100,000 a second this is more than half a second's worth.
const QUEUE_MAX: usize = 65_536;
/// Jobs of one round trip at most.
const TOGETHER_MAX: usize = 512;
/// How long making a connection, and each answer, may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often the receiving thread looks up while nothing comes.
const LOOK_UP: Duration = Duration::from_millis(200);
/// After this silence Redis is asked for a sign of life, and after as much again it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Between two of the sender's regular visits.
const TICK: Duration = Duration::from_millis(500);
/// Channels of one command when all are subscribed to again.
const CHANNELS_AT_ONCE: usize = 1_000;
/// The pause after a failure, before jitter: the first one, and the longest.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_millis(500);

/// Who hears what is published. All calls are made on the receiving thread, which must not be held up: Redis drops whoever reads too slowly.
pub(crate) trait Listener: Send + 'static {
    /// Something was published on a channel.
    fn message(&mut self, channel: &[u8], payload: &[u8]);
    /// Nothing more is at hand just now.
    fn pause(&mut self);
    /// A channel is subscribed to: what is published from here on is heard.
    fn subscribed(&mut self, channel: &[u8]);
    /// All wanted channels are subscribed to, for the first time or again. What was published in between was not heard.
    fn up(&mut self);
    /// The connection is lost. Nothing is heard until `up`.
    fn down(&mut self);
}

/// Who works on the connection for commands. All calls are made on the sending thread.
pub(crate) trait Keeper: Send + 'static {
    /// What others queue.
    type Job: Send + 'static;
    /// Carries out jobs, in their order.
    ///
    /// # Errors
    /// What makes the connection unusable.
    fn work(&mut self, jobs: &mut Vec<Self::Job>, db: &mut Connection) -> RedisResult<()>;
    /// Jobs that are let go, for Redis is not there.
    fn let_go(&mut self, jobs: &mut Vec<Self::Job>);
    /// What is done regularly, and first of all on a new connection.
    ///
    /// # Errors
    /// What makes the connection unusable.
    fn tick(&mut self, db: &mut Connection) -> RedisResult<()>;
    /// The last visit before the end. The connection may be missing.
    fn farewell(&mut self, db: Option<&mut Connection>);
}

/// What can be said of the tool's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolStats {
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    pub(crate) channels: usize,
    pub(crate) received: u64,
    /// Jobs that were let go.
    pub(crate) lost: u64,
    pub(crate) connects: u64,
}

/// The way to Redis. Dropping it leaves the threads running; `stop` ends them.
pub(crate) struct RedisTool<J> {
    shared: Arc<Shared>,
    queue: Sender<Out<J>>,
    backlog: Receiver<Out<J>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    server: ConnectionInfo,
    /// The channels that are to be subscribed to. Taken inside `writer`, never the other way round.
    wanted: Mutex<HashSet<Box<[u8]>>>,
    /// The writing half of the subscriptions' connection.
    writer: Mutex<Option<TcpStream>>,
    stopping: AtomicBool,
    receiving: AtomicBool,
    sending: AtomicBool,
    received: AtomicU64,
    lost: AtomicU64,
    connects: AtomicU64,
}

enum Out<J> {
    /// Whether this channel is subscribed to is to be as it is wanted.
    Channel(Box<[u8]>),
    Job(J),
    Stop,
}

impl<J: Send + 'static> RedisTool<J> {
    /// Prepares a tool for this server. Nothing is connected before [`RedisTool::run`].
    pub(crate) fn new(server: ConnectionInfo) -> Self {
        let (queue, backlog) = bounded(QUEUE_MAX);
        let shared = Shared {
            server,
            wanted: Mutex::default(),
            writer: Mutex::default(),
            stopping: AtomicBool::new(false),
            receiving: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            connects: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), queue, backlog, threads: Mutex::default() }
    }

    /// Starts both threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn run(&self, listener: impl Listener, keeper: impl Keeper<Job = J>) -> io::Result<()> {
        let (shared, backlog) = (Arc::clone(&self.shared), self.backlog.clone());
        let sending = std::thread::Builder::new()
            .name("redis-send".to_owned())
            .spawn(move || Sending { shared, backlog, keeper, db: None, failures: 0 }.run())?;
        let shared = Arc::clone(&self.shared);
        let receiving = std::thread::Builder::new()
            .name("redis-recv".to_owned())
            .spawn(move || receive(&shared, listener))?;
        self.threads.lock().extend([sending, receiving]);
        Ok(())
    }

    /// Hears a channel from now on, or no longer. Takes effect soon; [`Listener::subscribed`] tells.
    pub(crate) fn want(&self, channel: &[u8], wanted: bool) {
        let changed = {
            let mut all = self.shared.wanted.lock();
            if wanted { all.insert(channel.into()) } else { all.remove(channel) }
        };
        // Should the queue be full the channel is subscribed to with the next connection: make it come now.
        if changed && self.queue.try_send(Out::Channel(channel.into())).is_err() {
            self.shared.cut();
        }
    }

    /// Queues a job. Without a place for it the job is let go.
    pub(crate) fn queue(&self, job: J) -> Result<(), J> {
        match self.queue.try_send(Out::Job(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Out::Job(job)) | TrySendError::Disconnected(Out::Job(job))) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                Err(job)
            }
            Err(_) => Ok(()),
        }
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether what is published is heard.
    pub(crate) fn is_receiving(&self) -> bool {
        self.shared.receiving.load(Ordering::Acquire)
    }

    pub(crate) fn stats(&self) -> ToolStats {
        let Shared { receiving, sending, received, lost, connects, wanted, .. } = &*self.shared;
        ToolStats {
            receiving: receiving.load(Ordering::Relaxed),
            sending: sending.load(Ordering::Relaxed),
            channels: wanted.lock().len(),
            received: received.load(Ordering::Relaxed),
            lost: lost.load(Ordering::Relaxed),
            connects: connects.load(Ordering::Relaxed),
        }
    }

    /// Lets the keeper say farewell and ends the threads.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = self.queue.send_timeout(Out::Stop, TIMEOUT);
        self.shared.cut();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the Redis tool panicked");
            }
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Breaks the subscriptions' connection off, so that it is made anew.
    fn cut(&self) {
        if let Some(writer) = self.writer.lock().as_ref() {
            // One that is gone already is as good.
            let _ = writer.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Subscribes to a channel, or no longer, as it is wanted now.
    fn settle(&self, channel: &[u8]) {
        let mut writer = self.writer.lock();
        let Some(stream) = writer.as_mut() else { return };
        let name = if self.wanted.lock().contains(channel) { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
        let command = redis::cmd(name).arg(channel).get_packed_command();
        if stream.write_all(&command).is_err() {
            // The reader finds out, and everything is done anew.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A pause that grows with the failures before it, spread so that not all come back at once.
fn pause(failures: u32) -> Duration {
    let longest = PAUSE.start().saturating_mul(1 << failures.min(8)).min(*PAUSE.end());
    longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

struct Sending<K: Keeper> {
    shared: Arc<Shared>,
    backlog: Receiver<Out<K::Job>>,
    keeper: K,
    db: Option<Connection>,
    failures: u32,
}

impl<K: Keeper> Sending<K> {
    fn run(mut self) {
        let mut next_try = Instant::now();
        let mut next_tick = Instant::now();
        let mut jobs = Vec::new();
        loop {
            let now = Instant::now();
            if self.db.is_none() && now >= next_try {
                self.connect();
                next_try = Instant::now() + pause(self.failures);
            } else if self.db.is_some() && now >= next_tick {
                self.with_db(|keeper, db| keeper.tick(db));
                next_tick = Instant::now() + TICK;
            }
            let wake = if self.db.is_some() { next_tick } else { next_try };
            if !self.gather(wake, &mut jobs) {
                break;
            }
            if jobs.is_empty() {
                continue;
            }
            self.with_db(|keeper, db| keeper.work(&mut jobs, db));
            if !jobs.is_empty() {
                let lost = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
                self.shared.lost.fetch_add(lost, Ordering::Relaxed);
                self.keeper.let_go(&mut jobs);
                jobs.clear();
            }
        }
        self.keeper.farewell(self.db.as_mut());
    }

    /// Takes what waits, or waits until `wake` for something. `false`: it is over.
    fn gather(&mut self, wake: Instant, jobs: &mut Vec<K::Job>) -> bool {
        let mut next = match self.backlog.recv_deadline(wake) {
            Ok(out) => Some(out),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(out) = next {
            match out {
                Out::Channel(channel) => self.shared.settle(&channel),
                Out::Job(job) => jobs.push(job),
                // What was queued before it is carried out by the farewell's caller or not at all.
                Out::Stop => {
                    let keeper = &mut self.keeper;
                    if let Some(db) = self.db.as_mut()
                        && !jobs.is_empty()
                        && keeper.work(jobs, db).is_err()
                    {
                        self.db = None;
                    }
                    return false;
                }
            }
            next = if jobs.len() < TOGETHER_MAX { self.backlog.try_recv().ok() } else { None };
        }
        true
    }

    fn connect(&mut self) {
        match open(&self.shared.server) {
            Ok(db) => {
                if self.failures > 0 {
                    log::info!("Redis takes commands again, after {} attempts", self.failures);
                }
                self.failures = 0;
                self.db = Some(db);
                self.shared.connects.fetch_add(1, Ordering::Relaxed);
                self.shared.sending.store(true, Ordering::Release);
                self.with_db(|keeper, db| keeper.tick(db));
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    log::warn!("Redis cannot be reached, this node is alone meanwhile: {error}");
                }
            }
        }
    }

    /// Works on the connection. After a fault it is dropped, never used again: an answer may still be on its way.
    fn with_db(&mut self, work: impl FnOnce(&mut K, &mut Connection) -> RedisResult<()>) {
        let Some(db) = self.db.as_mut() else { return };
        if let Err(error) = work(&mut self.keeper, db) {
            log::warn!("Redis failed: {error}");
            self.db = None;
            self.shared.sending.store(false, Ordering::Release);
        }
    }
}

fn open(server: &ConnectionInfo) -> RedisResult<Connection> {
    let db = Client::open(server.clone())?.get_connection_with_timeout(TIMEOUT)?;
    db.set_read_timeout(Some(TIMEOUT))?;
    db.set_write_timeout(Some(TIMEOUT))?;
    Ok(db)
}

/// The receiving thread.
fn receive(shared: &Shared, mut listener: impl Listener) {
    let mut failures = 0;
    while !shared.is_stopping() {
        let ended = listen(shared, &mut listener, &mut failures);
        *shared.writer.lock() = None;
        if shared.receiving.swap(false, Ordering::AcqRel) {
            listener.down();
        }
        if shared.is_stopping() {
            return;
        }
        failures += 1;
        if let Err(error) = ended
            && failures == 1
        {
            log::warn!("Redis does not tell what is published: {error}");
        }
        std::thread::sleep(pause(failures));
    }
}

/// One connection's life. Ends with the fault that ended it.
fn listen(shared: &Shared, listener: &mut impl Listener, failures: &mut u32) -> RedisResult<()> {
    let mut line = Line::open(&shared.server, listener)?;
    line.subscribe_all(shared)?;
    shared.connects.fetch_add(1, Ordering::Relaxed);
    shared.receiving.store(true, Ordering::Release);
    line.tap.listener.up();
    if std::mem::take(failures) > 0 {
        log::info!("Redis tells again what is published");
    }
    while !shared.is_stopping() {
        if let Some(heard) = line.hear(shared)? {
            line.tell(shared, heard);
        }
    }
    Ok(())
}

/// The reading end of the subscriptions' connection.
struct Line<'a, L> {
    tap: Tap<'a, L>,
    parser: Parser,
    heard: Instant,
    asked: Option<Instant>,
    /// Others write to it too.
    shared_out: bool,
}

/// Tells the listener before each wait that there is nothing more at hand.
struct Tap<'a, L> {
    stream: TcpStream,
    listener: &'a mut L,
}

impl<L: Listener> Read for Tap<'_, L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.listener.pause();
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A process that was stopped goes on like that.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                ended => return ended,
            }
        }
    }
}

enum Heard {
    Message(Vec<u8>, Vec<u8>),
    Subscribed(Vec<u8>),
    Other,
}

impl<'a, L: Listener> Line<'a, L> {
    fn open(server: &ConnectionInfo, listener: &'a mut L) -> RedisResult<Self> {
        let ConnectionAddr::Tcp(host, port) = server.addr() else {
            return Err(RedisError::from(io::Error::from(io::ErrorKind::Unsupported)));
        };
        let address = (host.as_str(), *port).to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound);
        let stream = TcpStream::connect_timeout(&address.map_err(io::Error::from)?, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut line = Self {
            tap: Tap { stream, listener },
            parser: Parser::new(),
            heard: Instant::now(),
            asked: None,
            shared_out: false,
        };
        let account = server.redis_settings();
        if let Some(password) = account.password() {
            let mut command = redis::cmd("AUTH");
            if let Some(user) = account.username() {
                command.arg(user);
            }
            line.tap.stream.write_all(&command.arg(password).get_packed_command())?;
            line.parser.parse_value(&mut line.tap)?.extract_error()?;
        }
        line.tap.stream.set_read_timeout(Some(LOOK_UP))?;
        Ok(line)
    }

    /// Subscribes to all channels that are wanted, and hands the writing half over. What is wanted meanwhile waits for it.
    fn subscribe_all(&mut self, shared: &Shared) -> RedisResult<()> {
        let mut writer = shared.writer.lock();
        let all: Vec<Box<[u8]>> = shared.wanted.lock().iter().cloned().collect();
        for some in all.chunks(CHANNELS_AT_ONCE) {
            let mut command = redis::cmd("SUBSCRIBE");
            for channel in some {
                command.arg(&**channel);
            }
            self.tap.stream.write_all(&command.get_packed_command())?;
            // Their confirmations are read before the next ones, so that Redis need not keep them.
            let mut left = some.len();
            while left > 0 && !shared.is_stopping() {
                match self.hear(shared)? {
                    Some(heard @ Heard::Subscribed(_)) => {
                        left -= 1;
                        self.tell(shared, heard);
                    }
                    Some(heard) => self.tell(shared, heard),
                    None => {}
                }
            }
        }
        *writer = Some(self.tap.stream.try_clone()?);
        self.shared_out = true;
        Ok(())
    }

    /// Waits a little for the next word. A silence that lasts is a fault.
    fn hear(&mut self, shared: &Shared) -> RedisResult<Option<Heard>> {
        match self.parser.parse_value(&mut self.tap) {
            Ok(value) => {
                self.heard = Instant::now();
                self.asked = None;
                Ok(Some(understand(value.extract_error()?)))
            }
            Err(error) if error.is_timeout() => {
                self.ask_for_life(shared)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn ask_for_life(&mut self, shared: &Shared) -> RedisResult<()> {
        let now = Instant::now();
        match self.asked {
            Some(asked) if now >= asked + SILENCE_MAX => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            None if now >= self.heard + SILENCE_MAX => {
                self.asked = Some(now);
                let ping = redis::cmd("PING").get_packed_command();
                let _one_at_a_time = self.shared_out.then(|| shared.writer.lock());
                Ok(self.tap.stream.write_all(&ping)?)
            }
            _ => Ok(()),
        }
    }

    fn tell(&mut self, shared: &Shared, heard: Heard) {
        match heard {
            Heard::Message(channel, payload) => {
                shared.received.fetch_add(1, Ordering::Relaxed);
                self.tap.listener.message(&channel, &payload);
            }
            Heard::Subscribed(channel) => self.tap.listener.subscribed(&channel),
            Heard::Other => {}
        }
    }
}

fn understand(value: Value) -> Heard {
    let Value::Array(parts) = value else { return Heard::Other };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (
            Some(Value::BulkString(kind)),
            Some(Value::BulkString(channel)),
            Some(Value::BulkString(payload)),
        ) if kind == b"message" => Heard::Message(channel, payload),
        (Some(Value::BulkString(kind)), Some(Value::BulkString(channel)), _) if kind == b"subscribe" => {
            Heard::Subscribed(channel)
        }
        _ => Heard::Other,
    }
}

#[cfg(test)]
#[path = "redis_tool_tests.rs"]
mod tests;
