//! One loop's part of a channel: its calls and what becomes of them. The connections are in `pool`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reactor::codec::LengthCodec;
use reactor::{CloseReason, ConnId, ConnectError, Context, Handler, OpenInfo, TimerFired};
use rustc_hash::FxHashMap;

use super::endpoint::{ClientConn, EndpointKey};
use super::live::{At, Live};
use super::pool::{ConnPool, Picked};
use super::{Outgoing, Post, Shared};
use crate::chunks::{Assembled, WHOLE_BYTES_MAX, pump};
use crate::completion::Completion;
use crate::context::mark_loop_thread;
use crate::status::{Code, Executed, Status};
use crate::wire::{self, Frame, Header, Kind};

/// The kinds of timers, in the top bits of their tokens. Below is the number of a call or an endpoint.
const CALL_BITS: u64 = super::KEY_MAX;
const DEADLINE: u64 = 0;
const BACKOFF: u64 = 1 << 63;
pub(super) const RECONNECT: u64 = 1 << 62;
pub(super) const TICK: u64 = BACKOFF | RECONNECT;

pub(super) type Cx<'a> = Context<'a, ClientHandler>;

pub(super) struct ClientHandler {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: ConnPool,
    calls: FxHashMap<u64, Live>,
    /// Calls that wait for a connection, in their order; some may be over already.
    waiting: std::collections::VecDeque<u64>,
    rng: fastrand::Rng,
    scratch: Vec<u8>,
}

impl ClientHandler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut rng = shared.config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let pool = ConnPool::new(Arc::clone(&shared), rng.fork());
        Self {
            shared,
            pool,
            calls: FxHashMap::default(),
            waiting: std::collections::VecDeque::new(),
            rng,
            scratch: Vec::new(),
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>, key: u64, outgoing: Outgoing, completion: Completion) {
        let now = cx.now();
        self.shared.budget.deposit();
        let Outgoing { method, body, timeout, until, metadata, waits, retries } = outgoing;
        let own = now.checked_add(timeout.unwrap_or(self.shared.config.timeout));
        let deadline = until.into_iter().chain(own).min();
        let mut live = Live {
            method,
            body,
            metadata,
            deadline,
            timer: None,
            waits,
            retries,
            attempts: 0,
            in_doubt: false,
            avoid: None,
            at: At::Waiting,
            completion,
        };
        let refused = if deadline.is_some_and(|deadline| deadline <= now) {
            Some((Code::DeadlineExceeded, "the time was over before the call was sent"))
        } else if self.calls.len() >= self.shared.config.in_flight_max {
            Some((Code::ResourceExhausted, "too many calls under way in this channel"))
        } else {
            None
        };
        if let Some((code, why)) = refused {
            return self.end(cx, live, Err(Status::not_sent(code, why)));
        }
        live.timer = deadline.map(|deadline| cx.set_timer(deadline - now, key | DEADLINE));
        self.calls.insert(key, live);
        self.dispatch(cx, key);
    }

    /// Sends a call on a connection, or lets it wait for one, or ends it when nobody can be reached. Says what it found.
    fn dispatch(&mut self, cx: &mut Cx<'_>, key: u64) -> Option<Picked> {
        let live = self.calls.get_mut(&key)?;
        live.at = At::Waiting;
        let (avoid, waits) = (live.avoid, live.waits);
        let picked = self.pool.pick(cx, avoid);
        let room = self.waiting.len() < self.shared.config.waiting_max;
        match picked {
            Picked::Conn(conn, endpoint) => self.send(cx, key, conn, endpoint),
            Picked::Wait if room => self.waiting.push_back(key),
            Picked::Nobody if waits && room => self.waiting.push_back(key),
            Picked::Wait => {
                self.fail(cx, key, Code::ResourceExhausted, "too many calls wait for a connection");
            }
            Picked::Nobody => self.fail(cx, key, Code::Unavailable, "no endpoint can be reached"),
        }
        Some(picked)
    }

    fn send(&mut self, cx: &mut Cx<'_>, key: u64, id: ConnId, endpoint: EndpointKey) {
        let now = cx.now();
        let held_max = self.shared.config.outgoing_bytes_max;
        let (Some(live), Some(conn)) = (self.calls.get_mut(&key), cx.conn_mut(id)) else { return };
        let left = live.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let header = Header {
            method_id: live.method.id,
            timeout_us: left.map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX).max(1)),
            // Kept for another try only where there can be one.
            metadata: live.metadata.clone(),
            ..Header::of(Kind::Request, key)
        };
        let takes = conn.limits.map_or(0, |limits| limits.body_bytes_max);
        let len = live.body.len();
        let refused = if prost::Message::encoded_len(&header) > wire::HEADER_BYTES_MAX
            || live.metadata.len() > wire::METADATA_MAX
        {
            Some((Code::InvalidArgument, "too much metadata"))
        } else if len as u64 > takes {
            Some((Code::ResourceExhausted, "the request is longer than the server takes"))
        } else if len > WHOLE_BYTES_MAX && conn.outbox.bytes() + len > held_max {
            Some((Code::ResourceExhausted, "too many long requests wait to be sent"))
        } else {
            None
        };
        if let Some((code, why)) = refused {
            self.pool.probe_void(cx, endpoint);
            return self.fail(cx, key, code, why);
        }
        conn.in_flight += 1;
        live.at = At::Sent { conn: id, endpoint };
        live.attempts += 1;
        live.completion.sent = true;
        let sent = if len <= WHOLE_BYTES_MAX {
            self.scratch.clear();
            wire::put_frame_raw(&header, &live.body, &mut self.scratch);
            cx.send(id, &self.scratch)
        } else {
            conn.outbox.push(header, live.body.clone());
            pump(cx, id);
            Ok(())
        };
        if let Err(error) = sent {
            log::debug!("connection {id} takes no call: {error}");
            self.release(cx, id);
            self.pool.probe_void(cx, endpoint);
            self.pool.lose(cx, id);
            if let Some(live) = self.calls.get_mut(&key) {
                live.attempts -= 1;
                live.completion.sent = live.in_doubt;
            }
            self.dispatch(cx, key);
        }
    }

    /// One call less on a connection, which may have waited for its last.
    fn release(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let Some(conn) = cx.conn_mut(id) else { return };
        conn.in_flight = conn.in_flight.saturating_sub(1);
        if conn.retired && conn.in_flight == 0 {
            cx.close(id, CloseReason::Local("drained"));
        }
    }

    fn on_answer(&mut self, cx: &mut Cx<'_>, id: ConnId, key: u64, outcome: Result<&[u8], Status>) {
        let sent_here = |live: &&mut Live| matches!(live.at, At::Sent { conn, .. } if conn == id);
        let Some(live) = self.calls.get_mut(&key).filter(sent_here) else {
            self.shared.counts.late.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let At::Sent { endpoint, .. } = live.at else { return };
        self.release(cx, id);
        match outcome {
            Ok(body) => {
                self.pool.succeeded(cx, endpoint);
                if let Some(live) = self.calls.remove(&key) {
                    self.end(cx, live, Ok(body));
                }
            }
            Err(status) => {
                if status.code() == Code::Unavailable {
                    self.pool.failed(cx, endpoint);
                } else {
                    self.pool.succeeded(cx, endpoint);
                }
                self.failed(cx, key, endpoint, status);
            }
        }
        self.wake_waiting(cx);
    }

    /// A try has failed: there is another, or that was the end.
    fn failed(&mut self, cx: &mut Cx<'_>, key: u64, endpoint: EndpointKey, status: Status) {
        let now = cx.now();
        let Some(live) = self.calls.get_mut(&key) else { return };
        let retry = &self.shared.config.retry;
        if status.executed() == Executed::Unknown {
            live.in_doubt = true;
        }
        live.at = At::Waiting;
        if live.may_retry(&status, retry)
            && let Some(wait) = live.backoff(retry, now, &mut self.rng)
        {
            if self.shared.budget.withdraw(now) {
                self.shared.counts.retries.fetch_add(1, Ordering::Relaxed);
                live.avoid = Some(endpoint);
                live.completion.sent = live.in_doubt;
                live.at = At::Backoff(cx.set_timer(wait, key | BACKOFF));
                return;
            }
            self.shared.counts.retries_denied.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(live) = self.calls.remove(&key) {
            let status = live.final_status(status);
            self.end(cx, live, Err(status));
        }
    }

    /// Ends a call for a reason on this side.
    fn fail(&mut self, cx: &mut Cx<'_>, key: u64, code: Code, why: &str) {
        if let Some(live) = self.calls.remove(&key) {
            let status = live.failure(code, why);
            self.end(cx, live, Err(status));
        }
    }

    /// The end of a call, which is in no list any more.
    fn end(&self, cx: &mut Cx<'_>, live: Live, outcome: Result<&[u8], Status>) {
        if let Some(timer) = live.timer {
            cx.cancel_timer(timer);
        }
        let counts = &self.shared.counts;
        counts.calls.fetch_add(1, Ordering::Relaxed);
        if outcome.is_err() {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        live.completion.complete(outcome);
    }

    /// Nobody waits for the call any more: tells the server, where it knows of the call.
    fn give_up(&mut self, cx: &mut Cx<'_>, key: u64, code: Code, why: &str) {
        match self.calls.get(&key).map(|live| live.at) {
            None => return,
            Some(At::Waiting) => self.waiting.retain(|waiting| *waiting != key),
            Some(At::Backoff(timer)) => cx.cancel_timer(timer),
            Some(At::Sent { conn: id, endpoint }) => {
                if code == Code::DeadlineExceeded {
                    self.pool.failed(cx, endpoint);
                } else {
                    self.pool.probe_void(cx, endpoint);
                }
                if let Some(conn) = cx.conn_mut(id) {
                    conn.arriving.forget(key);
                    if !conn.outbox.remove(key) {
                        self.tell(cx, id, &Header::of(Kind::Cancel, key));
                    }
                }
                self.release(cx, id);
            }
        }
        self.fail(cx, key, code, why);
        self.wake_waiting(cx);
    }

    /// Gives calls that wait to connections that have room; ends those that wait for nobody.
    pub(super) fn wake_waiting(&mut self, cx: &mut Cx<'_>) {
        let mut queue = std::mem::take(&mut self.waiting);
        while let Some(key) = queue.pop_front() {
            // Who has to wait again is put behind those who have; the others have no better luck.
            if self.dispatch(cx, key) == Some(Picked::Wait) {
                break;
            }
        }
        self.waiting.append(&mut queue);
    }

    /// A connection is gone, and with it what was under way on it.
    fn on_lost(&mut self, cx: &mut Cx<'_>, id: ConnId, mut conn: ClientConn, reason: CloseReason) {
        let on_it = |live: &Live| matches!(live.at, At::Sent { conn, .. } if conn == id);
        let mut lost: Vec<u64> =
            self.calls.iter().filter(|(_, live)| on_it(live)).map(|(key, _)| *key).collect();
        lost.sort_unstable();
        if !lost.is_empty() {
            self.pool.failed(cx, conn.endpoint);
        }
        for key in lost {
            let why = format!("the connection was lost: {reason}");
            let status = if conn.outbox.remove(key) {
                Status::not_sent(Code::Unavailable, why)
            } else {
                Status::in_doubt(Code::Unavailable, why)
            };
            self.failed(cx, key, conn.endpoint, status);
        }
        self.wake_waiting(cx);
    }

    pub(super) fn tell(&mut self, cx: &mut Cx<'_>, id: ConnId, header: &Header) {
        self.scratch.clear();
        wire::put_head(header, 0, &mut self.scratch);
        // A connection that is closing has its end told by `on_close`.
        let _ = cx.send(id, &self.scratch);
    }

    fn on_body(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: &Frame<'_>, first: bool) {
        let body_max = self.shared.config.body_bytes_max;
        let Frame { header, body } = frame;
        let key = header.call_id;
        if first && !header.more {
            return match body.len() <= body_max {
                true => self.on_answer(cx, id, key, Ok(body)),
                false => self.on_answer(cx, id, key, Err(too_long())),
            };
        }
        let Some(conn) = cx.conn_mut(id) else { return };
        if first {
            if !self.calls.contains_key(&key) {
                self.shared.counts.late.fetch_add(1, Ordering::Relaxed);
            } else if !conn.arriving.begin(key, (), body) {
                cx.abort(id, CloseReason::Local("the server sends too many bodies at once"));
            }
            return;
        }
        match conn.arriving.add(key, body, header.more, body_max) {
            Assembled::Incomplete | Assembled::Stray => {}
            Assembled::Whole((), body) => self.on_answer(cx, id, key, Ok(&body)),
            Assembled::TooLong(()) => {
                self.tell(cx, id, &Header::of(Kind::Cancel, key));
                self.on_answer(cx, id, key, Err(too_long()));
            }
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.pool.stop(cx);
        self.waiting.clear();
        // Each ends by being dropped.
        for (_, live) in self.calls.drain() {
            if let Some(timer) = live.timer {
                cx.cancel_timer(timer);
            }
        }
    }
}

fn too_long() -> Status {
    Status::new(Code::ResourceExhausted, "the answer is longer than this channel takes")
}

/// The failure that a frame tells of.
fn status_of(header: Header) -> Status {
    let executed = header.executed().into();
    let code = match Code::from_number(header.status) {
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::new(code, header.message).with_details(header.details).with_executed(executed)
}

impl Handler for ClientHandler {
    type Conn = ClientConn;
    type Post = Post;
    type Codec = LengthCodec;

    fn name(&self) -> &'static str {
        "rpc channel"
    }

    fn codec(&mut self) -> LengthCodec {
        self.pool.codec()
    }

    fn on_start(&mut self, cx: &mut Cx<'_>) {
        mark_loop_thread();
        self.pool.start(cx);
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, id: ConnId, _: &OpenInfo) -> ClientConn {
        let header = self.pool.hello();
        self.tell(cx, id, &header);
        self.pool.opened(cx, id)
    }

    fn on_frame(&mut self, cx: &mut Cx<'_>, id: ConnId, bytes: &[u8]) {
        let frame = match wire::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                log::warn!("connection {id}: {error}");
                return cx.abort(id, CloseReason::BadFrame);
            }
        };
        let Some(greeted) = self.pool.heard(cx, id) else { return };
        match (frame.header.kind(), greeted) {
            (Kind::Response, true) => self.on_body(cx, id, &frame, true),
            (Kind::Chunk, true) => self.on_body(cx, id, &frame, false),
            (Kind::Error, true) => {
                self.on_answer(cx, id, frame.header.call_id, Err(status_of(frame.header)));
            }
            (Kind::Ping, true) => self.tell(cx, id, &Header::of(Kind::Pong, frame.header.call_id)),
            (Kind::Pong, true) => {}
            (Kind::Drain, true) => {
                self.pool.retire(cx, id);
                self.wake_waiting(cx);
            }
            (Kind::Hello, false) => {
                self.pool.greeted(cx, id, &frame.header);
                self.wake_waiting(cx);
            }
            _ => cx.abort(id, CloseReason::Local("the server sent what it may not")),
        }
    }

    fn on_drained(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        pump(cx, id);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, id: ConnId, state: ClientConn, reason: CloseReason) {
        log::debug!("connection {id} to {:?}: {reason}", self.pool.address_of(state.endpoint));
        self.pool.closed(cx, id, &state);
        self.on_lost(cx, id, state, reason);
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Cx<'_>,
        id: ConnId,
        error: ConnectError,
        _: Option<std::time::Duration>,
    ) {
        self.pool.connect_failed(cx, id, &error);
        self.wake_waiting(cx);
    }

    fn on_post(&mut self, cx: &mut Cx<'_>, post: Post) {
        match post {
            Post::Call(key, call) => {
                let (outgoing, completion) = *call;
                self.begin(cx, key, outgoing, completion);
            }
            Post::Cancel(key) => self.give_up(cx, key, Code::Cancelled, "the caller gave it up"),
            Post::Endpoints(endpoints) => {
                self.pool.set_endpoints(cx, &endpoints);
                self.wake_waiting(cx);
            }
            Post::Stop => self.stop(cx),
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, timer: TimerFired) {
        let number = timer.token & CALL_BITS;
        match (timer.conn, timer.token & TICK) {
            (Some(id), _) => self.pool.hello_timeout(cx, id),
            (None, DEADLINE) => {
                if let Some(live) = self.calls.get_mut(&number) {
                    live.timer = None;
                }
                self.give_up(cx, number, Code::DeadlineExceeded, "no answer in time");
            }
            (None, BACKOFF) => {
                self.dispatch(cx, number);
            }
            (None, RECONNECT) => self.pool.reconnect(cx, number),
            _ => {
                for (id, header) in self.pool.tick(cx) {
                    self.tell(cx, id, &header);
                }
                self.wake_waiting(cx);
            }
        }
    }

    fn on_stop(&mut self, cx: &mut Cx<'_>) {
        self.pool.stop(cx);
    }
}
