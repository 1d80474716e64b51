//! What the integration tests share: a handler that is scripted by closures and tells what happens to it, loops on the test's
//! own thread or on threads of their own, and waiting with a bound.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]

pub mod example;

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use reactor::codec::{Codec, FrameError, LinesCodec, RawCodec};
use reactor::{
    CloseReason, ConnId, ConnectError, Context, EventLoop, EventLoopThreadPool, Handler, LoopConfig,
    LoopStats, OpenInfo, RunningServer, ServiceConfig, ServiceHandle, TcpServer, TimerFired,
};

/// The bound of every wait. Far more than anything here takes; only a failing test gets there.
pub const BOUND: Duration = Duration::from_secs(20);

/// What a scripted handler tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Opened(ConnId),
    Frame(ConnId, Vec<u8>),
    FrameError(ConnId),
    Eof(ConnId),
    High(ConnId),
    Low(ConnId),
    Drained(ConnId),
    Closed(ConnId, CloseReason),
    ConnectFailed(ConnId, ConnectError, Option<Duration>),
    Timer(u64),
    /// Something that a script tells of by itself.
    Note(&'static str),
}

pub type Cx<'a, C> = Context<'a, Script<C>>;
/// A message to a scripted service is what it is to do.
pub type Job<C> = Box<dyn FnOnce(&mut Cx<'_, C>) + Send>;
type OnConn<C> = Box<dyn FnMut(&mut Cx<'_, C>, ConnId)>;
type OnFrame<C> = Box<dyn FnMut(&mut Cx<'_, C>, ConnId, &[u8])>;
type OnClose<C> = Box<dyn FnMut(&mut Cx<'_, C>, ConnId, CloseReason)>;
type OnTimer<C> = Box<dyn FnMut(&mut Cx<'_, C>, TimerFired)>;
type OnFailed<C> = Box<dyn FnMut(&mut Cx<'_, C>, ConnId, ConnectError)>;

/// A handler whose callbacks are closures; each is told of on the channel before its closure runs.
pub struct Script<C: Codec + 'static> {
    log: Sender<Event>,
    codec: Box<dyn FnMut() -> C>,
    open: OnConn<C>,
    frame: OnFrame<C>,
    /// Without one, the handler's default: a close.
    eof: Option<OnConn<C>>,
    frame_error: Option<OnConn<C>>,
    high: OnConn<C>,
    low: OnConn<C>,
    close: OnClose<C>,
    timer: OnTimer<C>,
    failed: OnFailed<C>,
}

/// Lines of up to a megabyte.
pub fn lines(log: Sender<Event>) -> Script<LinesCodec> {
    Script::new(log, || LinesCodec::new(1 << 20))
}

/// Bytes as they come.
pub fn raw(log: Sender<Event>) -> Script<RawCodec> {
    Script::new(log, || RawCodec)
}

impl<C: Codec + 'static> Script<C> {
    pub fn new(log: Sender<Event>, codec: impl FnMut() -> C + 'static) -> Self {
        Self {
            log,
            codec: Box::new(codec),
            open: Box::new(|_, _| {}),
            frame: Box::new(|_, _, _| {}),
            eof: None,
            frame_error: None,
            high: Box::new(|_, _| {}),
            low: Box::new(|_, _| {}),
            close: Box::new(|_, _, _| {}),
            timer: Box::new(|_, _| {}),
            failed: Box::new(|_, _, _| {}),
        }
    }

    pub fn on_open(mut self, open: impl FnMut(&mut Cx<'_, C>, ConnId) + 'static) -> Self {
        self.open = Box::new(open);
        self
    }

    pub fn on_frame(mut self, frame: impl FnMut(&mut Cx<'_, C>, ConnId, &[u8]) + 'static) -> Self {
        self.frame = Box::new(frame);
        self
    }

    pub fn on_eof(mut self, eof: impl FnMut(&mut Cx<'_, C>, ConnId) + 'static) -> Self {
        self.eof = Some(Box::new(eof));
        self
    }

    pub fn on_frame_error(mut self, frame_error: impl FnMut(&mut Cx<'_, C>, ConnId) + 'static) -> Self {
        self.frame_error = Some(Box::new(frame_error));
        self
    }

    pub fn on_high(mut self, high: impl FnMut(&mut Cx<'_, C>, ConnId) + 'static) -> Self {
        self.high = Box::new(high);
        self
    }

    pub fn on_low(mut self, low: impl FnMut(&mut Cx<'_, C>, ConnId) + 'static) -> Self {
        self.low = Box::new(low);
        self
    }

    pub fn on_close(mut self, close: impl FnMut(&mut Cx<'_, C>, ConnId, CloseReason) + 'static) -> Self {
        self.close = Box::new(close);
        self
    }

    pub fn on_timer(mut self, timer: impl FnMut(&mut Cx<'_, C>, TimerFired) + 'static) -> Self {
        self.timer = Box::new(timer);
        self
    }

    pub fn on_connect_failed(
        mut self,
        failed: impl FnMut(&mut Cx<'_, C>, ConnId, ConnectError) + 'static,
    ) -> Self {
        self.failed = Box::new(failed);
        self
    }

    fn tell(&self, event: Event) {
        // A test that has seen enough no longer listens.
        let _ = self.log.send(event);
    }
}

impl<C: Codec + 'static> Handler for Script<C> {
    type Conn = ();
    type Post = Job<C>;
    type Codec = C;

    fn codec(&mut self) -> C {
        (self.codec)()
    }

    fn on_open(&mut self, cx: &mut Cx<'_, C>, id: ConnId, _: &OpenInfo) {
        self.tell(Event::Opened(id));
        (self.open)(cx, id);
    }

    fn on_frame(&mut self, cx: &mut Cx<'_, C>, id: ConnId, frame: &[u8]) {
        self.tell(Event::Frame(id, frame.to_vec()));
        (self.frame)(cx, id, frame);
    }

    fn on_frame_error(&mut self, cx: &mut Cx<'_, C>, id: ConnId, _: FrameError) {
        self.tell(Event::FrameError(id));
        match &mut self.frame_error {
            Some(frame_error) => frame_error(cx, id),
            None => cx.close(id, CloseReason::BadFrame),
        }
    }

    fn on_eof(&mut self, cx: &mut Cx<'_, C>, id: ConnId) {
        self.tell(Event::Eof(id));
        match &mut self.eof {
            Some(eof) => eof(cx, id),
            None => cx.close(id, CloseReason::PeerClosed),
        }
    }

    fn on_high_water(&mut self, cx: &mut Cx<'_, C>, id: ConnId) {
        self.tell(Event::High(id));
        (self.high)(cx, id);
    }

    fn on_low_water(&mut self, cx: &mut Cx<'_, C>, id: ConnId) {
        self.tell(Event::Low(id));
        (self.low)(cx, id);
    }

    fn on_drained(&mut self, _: &mut Cx<'_, C>, id: ConnId) {
        self.tell(Event::Drained(id));
    }

    fn on_close(&mut self, cx: &mut Cx<'_, C>, id: ConnId, (): (), reason: CloseReason) {
        self.tell(Event::Closed(id, reason));
        (self.close)(cx, id, reason);
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Cx<'_, C>,
        id: ConnId,
        error: ConnectError,
        retry_in: Option<Duration>,
    ) {
        self.tell(Event::ConnectFailed(id, error.clone(), retry_in));
        (self.failed)(cx, id, error);
    }

    fn on_post(&mut self, cx: &mut Cx<'_, C>, job: Job<C>) {
        job(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, C>, fired: TimerFired) {
        self.tell(Event::Timer(fired.token));
        (self.timer)(cx, fired);
    }
}

/// The default limits with some of them changed.
pub fn limits(change: impl FnOnce(&mut ServiceConfig)) -> ServiceConfig {
    let mut config = ServiceConfig::default();
    change(&mut config);
    config
}

/// What a scripted service has told of so far, and will.
pub struct Told(pub Receiver<Event>);

impl Told {
    /// The next event, waited for.
    #[track_caller]
    pub fn next(&self) -> Event {
        self.0.recv_timeout(BOUND).expect("an event within the bound")
    }

    /// The next event that is wanted, those before it passed over.
    #[track_caller]
    pub fn wait(&self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let deadline = Instant::now() + BOUND;
        loop {
            let event = self.0.recv_deadline(deadline).expect("a wanted event within the bound");
            if wanted(&event) {
                return event;
            }
        }
    }

    #[track_caller]
    pub fn opened(&self) -> ConnId {
        match self.wait(|event| matches!(event, Event::Opened(_))) {
            Event::Opened(id) => id,
            _ => unreachable!(),
        }
    }

    #[track_caller]
    pub fn frame(&self) -> Vec<u8> {
        match self.wait(|event| matches!(event, Event::Frame(..))) {
            Event::Frame(_, frame) => frame,
            _ => unreachable!(),
        }
    }

    #[track_caller]
    pub fn closed(&self) -> CloseReason {
        match self.wait(|event| matches!(event, Event::Closed(..))) {
            Event::Closed(_, reason) => reason,
            _ => unreachable!(),
        }
    }

    /// What has been told of and not been taken.
    pub fn rest(&self) -> Vec<Event> {
        self.0.try_iter().collect()
    }

    #[track_caller]
    pub fn note(&self, text: &'static str) {
        self.wait(|event| *event == Event::Note(text));
    }
}

/// A scripted server on loops of its own.
pub struct Server<C: Codec + 'static> {
    pub address: SocketAddr,
    pub told: Told,
    pub running: RunningServer<Job<C>>,
    pub pool: EventLoopThreadPool,
}

impl<C: Codec + 'static> Server<C> {
    pub fn new(
        loops: u16,
        config: ServiceConfig,
        script: impl Fn(Sender<Event>) -> Script<C> + Send + Clone + 'static,
    ) -> Self {
        Self::with_loops(loops, LoopConfig::default(), config, script)
    }

    pub fn with_loops(
        loops: u16,
        loop_config: LoopConfig,
        config: ServiceConfig,
        script: impl Fn(Sender<Event>) -> Script<C> + Send + Clone + 'static,
    ) -> Self {
        let pool = EventLoopThreadPool::start(loops, loop_config).unwrap();
        let (log, told) = unbounded();
        let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let address = server.local_addr();
        let running = server.serve(&pool, move |_| script(log.clone())).unwrap();
        Self { address, told: Told(told), running, pool }
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// A connection and its name on the server.
    pub fn connect_named(&self) -> (TcpStream, ConnId) {
        let client = self.connect();
        (client, self.told.opened())
    }

    pub fn service(&self) -> &ServiceHandle<Job<C>> {
        &self.running.services()[0]
    }

    /// Runs `job` on the (first) loop and waits for what it gives.
    #[track_caller]
    pub fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Cx<'_, C>) -> R + Send + 'static) -> R {
        let (tell, answer) = unbounded();
        let job: Job<C> = Box::new(move |cx| tell.send(job(cx)).unwrap());
        self.service().post(job).map_err(|(error, _)| error).unwrap();
        answer.recv_timeout(BOUND).expect("an answer within the bound")
    }

    pub fn stats(&self) -> LoopStats {
        self.pool.handles()[0].stats()
    }
}

impl<C: Codec + 'static> Drop for Server<C> {
    fn drop(&mut self) {
        for handle in self.pool.handles() {
            handle.stop_within(Some(Duration::ZERO));
        }
    }
}

/// A scripted server on a loop of the test's own thread: nothing happens but in the turns that the test makes.
pub struct Bench<C: Codec + 'static> {
    pub event_loop: EventLoop,
    pub address: SocketAddr,
    pub told: Told,
    pub running: RunningServer<Job<C>>,
}

impl<C: Codec + 'static> Bench<C> {
    pub fn new(config: ServiceConfig, script: impl FnOnce(Sender<Event>) -> Script<C>) -> Self {
        Self::with_loop(LoopConfig::default(), config, script)
    }

    pub fn with_loop(
        loop_config: LoopConfig,
        config: ServiceConfig,
        script: impl FnOnce(Sender<Event>) -> Script<C>,
    ) -> Self {
        let mut event_loop = EventLoop::new(loop_config).unwrap();
        let (log, told) = unbounded();
        let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let address = server.local_addr();
        let running = server.serve_here(&mut event_loop, script(log)).unwrap();
        Self { event_loop, address, told: Told(told), running }
    }

    /// One turn, without waiting for anything.
    pub fn turn(&mut self) {
        self.event_loop.turn(Some(Duration::ZERO)).unwrap();
    }

    /// Turns until something holds. Each waits a little for events, so that what the kernel still does can come.
    #[track_caller]
    pub fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + BOUND;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within the bound: {what}");
            self.event_loop.turn(Some(Duration::from_millis(5))).unwrap();
        }
    }

    /// Turns until an event that is wanted was told of.
    #[track_caller]
    pub fn turn_for(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut found = None;
        self.turn_until("a wanted event", |bench| {
            found = bench.told.0.try_iter().find(|event| wanted(event));
            found.is_some()
        });
        found.unwrap()
    }

    pub fn connect_named(&mut self) -> (TcpStream, ConnId) {
        let client = connect(self.address);
        match self.turn_for(|event| matches!(event, Event::Opened(_))) {
            Event::Opened(id) => (client, id),
            _ => unreachable!(),
        }
    }

    /// Queues a job for the next turn.
    pub fn post(&self, job: impl FnOnce(&mut Cx<'_, C>) + Send + 'static) {
        assert!(self.running.services()[0].post(Box::new(job)).is_ok());
    }

    pub fn stats(&self) -> LoopStats {
        self.event_loop.stats().clone()
    }
}

/// A blocking connection whose reads and writes have the bound.
pub fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    client.set_write_timeout(Some(BOUND)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

/// Closes with a reset.
pub fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

/// Half-closes: says that nothing more comes.
pub fn finish(client: &TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
}

/// Waits until something holds that nobody tells of.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < deadline, "not within the bound: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that show when any of them is lost, doubled or moved.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// An address on which attempts to connect are neither taken nor refused, as long as this lives: its listener's queue is full.
pub struct FullBacklog {
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl FullBacklog {
    pub fn new() -> Self {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        // The queue takes one more than it was told. Once it is full, an attempt waits for its first retry, a second later.
        for _ in 0..16 {
            let client = socket();
            let full = client.connect_timeout(&address.into(), Duration::from_millis(200)).is_err();
            queued.push(client);
            if full {
                return Self { address, _listener: listener, _queued: queued };
            }
        }
        panic!("the queue of the listener does not fill");
    }
}
