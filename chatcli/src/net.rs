//! `ClientNet`: the thread that keeps one connection to the server up and carries lines both ways.
//!
//! The reactor's own [`reactor::TcpClient`] comes back by its back-off alone; a chat client also has to come back when the server's `bye` says so,
//! and to say when the next attempt is. So this service connects by itself, with the reactor's [`Backoff`].

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use reactor::codec::{FrameError, LinesCodec};
use reactor::{
    Backoff, BackoffConfig, CloseReason, ConnId, ConnectError, Context, EventLoop, Handler, LoopConfig,
    LoopHandle, OpenInfo, PauseReason, PostError, ServiceConfig, ServiceHandle, TimerFired, TimerKey,
};
use schema::limits::{HEARTBEAT, LINE_BYTES_MAX};
use serde::Deserialize;

use crate::limits::{
    GOODBYE, NET_EVENTS_MAX, NET_POSTS_MAX, RECONNECT_AFTER_MAX, RECONNECT_BASE, RECONNECT_CAP,
};

/// The id of our pings. All other requests have greater ones.
const PING_ID: u64 = 0;
const PING: &[u8] = br#"{"type":"ping","id":0}"#;

const BUSY: PauseReason = PauseReason::user(0);

const RETRY: u64 = 1;
const BEAT: u64 = 2;
const DRAIN: u64 = 3;

/// How long to wait for room when the program is busy.
const DRAIN_EVERY: Duration = Duration::from_millis(10);

/// Which connection of this run: what is meant for one is not said on another.
pub(crate) type Epoch = u64;

/// What happens on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NetEvent {
    /// An attempt begins.
    Connecting,
    /// There is a connection.
    Up(Epoch),
    /// A line came on it.
    Line(Vec<u8>),
    /// There is no connection (any more): why, and when the next attempt is, if there is one by itself.
    Down { why: String, retry_in: Option<Duration> },
}

/// What the program wants.
#[derive(Debug)]
enum Order {
    Say(Epoch, Vec<u8>),
    Connect,
    Drop(Epoch, &'static str),
    Stop,
}

/// Why the network's thread cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NetError {
    /// The system gives no poll or no thread.
    #[error("cannot start the network's thread: {0}")]
    Io(#[from] std::io::Error),
    /// The loop did not take the service.
    #[error("cannot start the network's service: {0}")]
    Post(#[from] PostError),
}

/// The program's end of the network's thread. Dropping it says goodbye and joins the thread.
pub(crate) struct ClientNet {
    orders: ServiceHandle<Order>,
    events: Receiver<NetEvent>,
    event_loop: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl ClientNet {
    /// Starts the thread, which connects at once to the first of `addresses` that answers.
    ///
    /// # Errors
    /// When the system gives no thread or no poll.
    pub(crate) fn start(addresses: Vec<SocketAddr>) -> Result<Self, NetError> {
        let (events, received) = bounded(NET_EVENTS_MAX);
        let (tell, told) = bounded(1);
        let work = move || match make_loop(addresses, events) {
            Ok((mut event_loop, orders)) => {
                let _ = tell.send(Ok((event_loop.handle(), orders)));
                if let Err(error) = event_loop.run() {
                    log::error!("the network's thread ends: {error}");
                }
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("net".into()).spawn(work)?;
        let gone = || NetError::Post(PostError::Stopped);
        let (event_loop, orders) = told.recv().map_err(|_| gone())??;
        Ok(Self { orders, events: received, event_loop, thread: Some(thread) })
    }

    /// What happens on the wire. Disconnected when the thread has ended.
    pub(crate) fn events(&self) -> &Receiver<NetEvent> {
        &self.events
    }

    /// Says a line on the connection `epoch`, if that is still the one.
    pub(crate) fn say(&self, epoch: Epoch, line: Vec<u8>) {
        self.order(Order::Say(epoch, line));
    }

    /// Connects now, unless there is a connection or an attempt.
    pub(crate) fn connect(&self) {
        self.order(Order::Connect);
    }

    /// Gives the connection `epoch` up, if that is still the one.
    pub(crate) fn drop_connection(&self, epoch: Epoch, why: &'static str) {
        self.order(Order::Drop(epoch, why));
    }

    fn order(&self, order: Order) {
        let mut order = order;
        // The queue is longer than all that can be unanswered; when it is full all the same, the thread will make room.
        while let Err((PostError::Full, back)) = self.orders.post(order) {
            order = back;
            std::thread::yield_now();
        }
    }
}

impl Drop for ClientNet {
    fn drop(&mut self) {
        self.order(Order::Stop);
        self.event_loop.stop_within(Some(GOODBYE));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the network's thread panicked");
        }
    }
}

impl fmt::Debug for ClientNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientNet").finish_non_exhaustive()
    }
}

fn make_loop(
    addresses: Vec<SocketAddr>,
    events: Sender<NetEvent>,
) -> Result<(EventLoop, ServiceHandle<Order>), NetError> {
    let mut event_loop = EventLoop::new(LoopConfig::default())?;
    let slot = event_loop.handle().service_slot(NET_POSTS_MAX);
    let orders = slot.handle();
    let mut config = ServiceConfig::default();
    config.linger = GOODBYE;
    event_loop.add_service(slot, config, Wire::new(addresses, events))?;
    Ok((event_loop, orders))
}

/// What is looked for in every line: the two messages that the wire itself obeys, and the answers to pings.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<u64>,
    heartbeat_secs: Option<u64>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    reconnect_after_ms: Option<u64>,
}

/// An open connection.
#[derive(Debug)]
struct Live {
    id: ConnId,
    heartbeat: Duration,
    heard: Instant,
    said: Instant,
}

/// What the server's `bye` says about coming back.
#[derive(Debug)]
enum Bye {
    After(Option<Duration>),
    /// Nobody logged in: there is no hurry to be connected again.
    WhenNeeded,
}

/// The service on the loop.
struct Wire {
    addresses: Vec<SocketAddr>,
    next: usize,
    events: Sender<NetEvent>,
    /// What the program had no room for.
    held: VecDeque<NetEvent>,
    epoch: Epoch,
    live: Option<Live>,
    connecting: bool,
    backoff: Backoff,
    rng: fastrand::Rng,
    retry: Option<TimerKey>,
    bye: Option<Bye>,
    stopping: bool,
}

impl Wire {
    fn new(addresses: Vec<SocketAddr>, events: Sender<NetEvent>) -> Self {
        let backoff = BackoffConfig { base: RECONNECT_BASE, cap: RECONNECT_CAP, ..BackoffConfig::default() };
        Self {
            addresses,
            next: 0,
            events,
            held: VecDeque::new(),
            epoch: 0,
            live: None,
            connecting: false,
            backoff: Backoff::from_config(backoff),
            rng: fastrand::Rng::new(),
            retry: None,
            bye: None,
            stopping: false,
        }
    }

    fn attempt(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(retry) = self.retry.take() {
            cx.cancel_timer(retry);
        }
        if self.live.is_some() || self.connecting || self.stopping {
            return;
        }
        let at = self.next.checked_rem(self.addresses.len()).unwrap_or(0);
        let Some(address) = self.addresses.get(at).copied() else { return };
        self.next = self.next.wrapping_add(1);
        self.tell(cx, NetEvent::Connecting);
        match cx.connect(address, LinesCodec::new(LINE_BYTES_MAX)) {
            Ok(_) => self.connecting = true,
            Err(error) => self.failed(cx, &error),
        }
    }

    fn failed(&mut self, cx: &mut Context<'_, Self>, error: &ConnectError) {
        self.connecting = false;
        log::info!("cannot connect: {error}");
        let wait = self.backoff.next(&mut self.rng);
        self.plan(cx, error.to_string(), Some(wait));
    }

    /// There is no connection: says so, and comes back after `wait`.
    fn plan(&mut self, cx: &mut Context<'_, Self>, why: String, wait: Option<Duration>) {
        let retry_in = wait.filter(|_| !self.stopping);
        if let Some(wait) = retry_in {
            self.retry = Some(cx.set_timer(wait, RETRY));
        }
        self.tell(cx, NetEvent::Down { why, retry_in });
    }

    fn tell(&mut self, cx: &mut Context<'_, Self>, event: NetEvent) {
        let event = if self.held.is_empty() {
            // When nobody listens any more the program is about to end.
            let Err(TrySendError::Full(event)) = self.events.try_send(event) else { return };
            cx.set_timer(DRAIN_EVERY, DRAIN);
            event
        } else {
            event
        };
        self.held.push_back(event);
        if let Some(live) = &self.live {
            cx.pause(live.id, BUSY);
        }
    }

    fn drain(&mut self, cx: &mut Context<'_, Self>) {
        while let Some(event) = self.held.pop_front() {
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
                self.held.push_front(event);
                cx.set_timer(DRAIN_EVERY, DRAIN);
                return;
            }
        }
        if let Some(live) = &self.live {
            cx.resume(live.id, BUSY);
        }
    }

    /// Notes what the wire itself obeys. `false` when the line is nobody else's business.
    fn peek(&mut self, line: &[u8]) -> bool {
        let Ok(peek) = serde_json::from_slice::<Peek<'_>>(line) else { return true };
        match (peek.kind.as_ref(), peek.id) {
            ("ok" | "error", Some(PING_ID)) => return false,
            ("hello", _) => {
                if let (Some(live), Some(secs)) = (&mut self.live, peek.heartbeat_secs) {
                    live.heartbeat = Duration::from_secs(secs.clamp(1, 3_600));
                }
            }
            ("bye", _) => {
                let after = peek.reconnect_after_ms.map(Duration::from_millis);
                self.bye = Some(match peek.code.as_deref() {
                    Some("login_timeout") => Bye::WhenNeeded,
                    _ => Bye::After(after.map(|after| after.min(RECONNECT_AFTER_MAX))),
                });
            }
            _ => {}
        }
        true
    }

    fn say(&mut self, cx: &mut Context<'_, Self>, epoch: Epoch, line: &[u8]) {
        let now = cx.now();
        let Some(live) = self.live.as_mut().filter(|_| epoch == self.epoch) else { return };
        live.said = now;
        if let Err(error) = cx.send_frame(live.id, line) {
            // Its close is on its way, and with it the word that the connection is lost.
            log::debug!("a line was not sent: {error}");
        }
    }

    /// Pings a server that has not heard from us, gives up one that we do not hear from.
    fn beat(&mut self, cx: &mut Context<'_, Self>) {
        let now = cx.now();
        let Some(live) = &mut self.live else { return };
        if !self.held.is_empty() {
            // It is us who do not listen.
            live.heard = now;
        }
        let silence_max = live.heartbeat.mul_f32(2.5);
        if now >= live.heard + silence_max {
            cx.abort(live.id, CloseReason::Local("the server is silent"));
            return;
        }
        if now >= live.said + live.heartbeat || now >= live.heard + live.heartbeat {
            live.said = now;
            // As in `say`.
            let _ = cx.send_frame(live.id, PING);
        }
        // A quarter late at the most.
        cx.set_conn_timer(live.id, live.heartbeat / 4, BEAT);
    }
}

impl Handler for Wire {
    type Conn = ();
    type Post = Order;
    type Codec = LinesCodec;

    fn name(&self) -> &'static str {
        "chat client"
    }

    fn codec(&mut self) -> LinesCodec {
        LinesCodec::new(LINE_BYTES_MAX)
    }

    fn on_start(&mut self, cx: &mut Context<'_, Self>) {
        self.attempt(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, info: &OpenInfo) {
        log::info!("connected to {}", info.peer);
        self.connecting = false;
        self.epoch += 1;
        self.bye = None;
        self.backoff.on_connected(cx.now());
        self.live = Some(Live { id, heartbeat: HEARTBEAT, heard: cx.now(), said: cx.now() });
        cx.set_conn_timer(id, Duration::from_secs(1), BEAT);
        self.tell(cx, NetEvent::Up(self.epoch));
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, _: ConnId, frame: &[u8]) {
        if let Some(live) = &mut self.live {
            live.heard = cx.now();
        }
        if !frame.is_empty() && self.peek(frame) {
            self.tell(cx, NetEvent::Line(frame.to_vec()));
        }
    }

    fn on_frame_error(&mut self, cx: &mut Context<'_, Self>, id: ConnId, error: FrameError) {
        log::warn!("the server sent what is no line: {error:?}");
        cx.abort(id, CloseReason::BadFrame);
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: ConnId, (): (), reason: CloseReason) {
        log::info!("the connection ended: {reason}");
        self.live = None;
        self.backoff.on_closed(cx.now());
        let wait = match self.bye.take() {
            Some(Bye::WhenNeeded) => None,
            Some(Bye::After(Some(after))) => Some(after),
            Some(Bye::After(None)) | None => Some(self.backoff.next(&mut self.rng)),
        };
        self.plan(cx, reason.to_string(), wait);
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Context<'_, Self>,
        _: ConnId,
        error: ConnectError,
        _: Option<Duration>,
    ) {
        self.failed(cx, &error);
    }

    fn on_post(&mut self, cx: &mut Context<'_, Self>, order: Order) {
        match order {
            Order::Say(epoch, line) => self.say(cx, epoch, &line),
            Order::Connect => self.attempt(cx),
            Order::Drop(epoch, why) => {
                if let Some(live) = self.live.as_ref().filter(|_| epoch == self.epoch) {
                    cx.abort(live.id, CloseReason::Local(why));
                }
            }
            Order::Stop => self.stopping = true,
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, timer: TimerFired) {
        match timer.token {
            RETRY => {
                self.retry = None;
                self.attempt(cx);
            }
            BEAT => self.beat(cx),
            DRAIN => self.drain(cx),
            _ => {}
        }
    }

    fn on_stop(&mut self, _: &mut Context<'_, Self>) {
        self.stopping = true;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn next(net: &ClientNet) -> NetEvent {
        net.events().recv_timeout(LONG).expect("something happens")
    }

    fn read_line(stream: &TcpStream) -> String {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn lines_go_both_ways_and_a_lost_connection_is_made_again() {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address]).unwrap();
        assert_eq!(next(&net), NetEvent::Connecting);
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(next(&net), NetEvent::Up(1));
        server.write_all(b"{\"type\":\"synced\"}\r\n\n").unwrap();
        assert_eq!(next(&net), NetEvent::Line(b"{\"type\":\"synced\"}".to_vec()));
        net.say(1, b"hello".to_vec());
        assert_eq!(read_line(&server), "hello\n");
        drop(server);
        assert!(matches!(next(&net), NetEvent::Down { retry_in: Some(wait), .. } if wait <= RECONNECT_BASE));
        assert_eq!(next(&net), NetEvent::Connecting);
        let (server, _) = listener.accept().unwrap();
        assert_eq!(next(&net), NetEvent::Up(2));
        net.say(1, b"for the old connection".to_vec());
        net.say(2, b"for the new one".to_vec());
        assert_eq!(read_line(&server), "for the new one\n");
    }

    #[test]
    fn the_servers_word_on_when_to_come_back_is_kept() {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address]).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
        server
            .write_all(b"{\"type\":\"bye\",\"code\":\"shutdown\",\"message\":\"x\",\"reconnect_after_ms\":1234}\n")
            .unwrap();
        drop(server);
        assert!(matches!(next(&net), NetEvent::Line(_)));
        let NetEvent::Down { retry_in, .. } = next(&net) else { panic!("no word of the close") };
        assert_eq!(retry_in, Some(Duration::from_millis(1234)));
    }

    #[test]
    fn after_a_login_timeout_it_comes_back_when_it_is_needed() {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address]).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
        server.write_all(b"{\"type\":\"bye\",\"code\":\"login_timeout\",\"message\":\"x\"}\n").unwrap();
        drop(server);
        assert!(matches!(next(&net), NetEvent::Line(_)));
        assert!(matches!(next(&net), NetEvent::Down { retry_in: None, .. }));
        net.connect();
        assert_eq!(next(&net), NetEvent::Connecting);
        listener.accept().unwrap();
        assert_eq!(next(&net), NetEvent::Up(2));
    }

    #[test]
    fn a_quiet_client_gives_signs_of_life_and_keeps_the_answers_to_itself() {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address]).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
        server.write_all(b"{\"type\":\"hello\",\"heartbeat_secs\":1}\n").unwrap();
        assert!(matches!(next(&net), NetEvent::Line(_)));
        assert_eq!(read_line(&server), "{\"type\":\"ping\",\"id\":0}\n");
        server.write_all(b"{\"type\":\"ok\",\"id\":0,\"time_ms\":1}\n{\"type\":\"synced\"}\n").unwrap();
        assert_eq!(next(&net), NetEvent::Line(b"{\"type\":\"synced\"}".to_vec()));
        // From here on the server says nothing: it is given up.
        assert!(matches!(next(&net), NetEvent::Down { why, .. } if why.contains("silent")));
    }

    #[test]
    fn nobody_there_is_said_with_the_time_of_the_next_attempt() {
        let (listener, address) = listener();
        drop(listener);
        let net = ClientNet::start(vec![address]).unwrap();
        assert_eq!(next(&net), NetEvent::Connecting);
        let NetEvent::Down { why, retry_in } = next(&net) else { panic!("it cannot be up") };
        assert!(why.to_lowercase().contains("refused"), "{why}");
        assert!(retry_in.is_some());
        assert_eq!(next(&net), NetEvent::Connecting, "and it tries again");
    }

    #[test]
    fn a_flood_waits_in_the_socket_and_arrives_whole() {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address]).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let count = NET_EVENTS_MAX * 3;
        let writer = std::thread::spawn(move || {
            let lines: String = (0..count).map(|n| format!("{{\"type\":\"x\",\"n\":{n}}}\n")).collect();
            server.write_all(lines.as_bytes()).unwrap();
            server
        });
        assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
        for n in 0..count {
            let expected = format!("{{\"type\":\"x\",\"n\":{n}}}");
            assert_eq!(next(&net), NetEvent::Line(expected.into_bytes()));
        }
        drop(writer.join().unwrap());
    }
}
