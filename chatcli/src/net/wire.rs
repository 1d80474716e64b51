//! The service on the loop: connects, comes back, gives signs of life, hands lines over.
//!
//! The reactor's own [`reactor::TcpClient`] comes back by its back-off alone; a chat client also has to come back when the server's `bye` says so,
//! and to say when the next attempt is. So this service connects by itself, with the reactor's [`Backoff`].

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use reactor::codec::{FrameError, LinesCodec};
use reactor::{
    Backoff, BackoffConfig, CloseReason, ConnId, ConnectError, Context, Handler, OpenInfo, PauseReason,
    TimerFired, TimerKey,
};
use schema::limits::{HEARTBEAT, LINE_BYTES_MAX};
use serde::Deserialize;

use super::{Epoch, NetEvent, Order};
use crate::limits::{RECONNECT_AFTER_MAX, RECONNECT_BASE, RECONNECT_CAP};

/// The id of our pings. All other requests have greater ones.
const PING_ID: u64 = 0;
const PING: &[u8] = br#"{"type":"ping","id":0}"#;

const BUSY: PauseReason = PauseReason::user(0);

const RETRY: u64 = 1;
const BEAT: u64 = 2;
const DRAIN: u64 = 3;

/// How long to wait for room when the program is busy.
const DRAIN_EVERY: Duration = Duration::from_millis(10);

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
pub(super) struct Wire {
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
    /// A service that connects to `addresses` in turn and tells `events`.
    pub(super) fn new(addresses: Vec<SocketAddr>, events: Sender<NetEvent>) -> Self {
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
        let why = error.to_string();
        // People know it by its words, not by its number.
        let words = why.split(" (os error").next().unwrap_or_default().to_owned();
        self.plan(cx, words, Some(wait));
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
