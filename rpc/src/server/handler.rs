//! One loop's part of a server: takes requests, hands them to their services, sends the answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;
use reactor::codec::LengthCodec;
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceHandle, TimerFired};

use super::conn::{Arriving, InFlight, ServerConn, error_header, name_of};
use super::{Post, Shared};
use crate::chunks::{Assembled, PeerLimits, pump};
use crate::context::{CallContext, CallState, mark_loop_thread, scoped};
use crate::metrics::LoopMetrics;
use crate::reply::{Answer, INLINE, Inline, LoopLink, Payload, RawReply};
use crate::serve::expired;
use crate::service::Route;
use crate::status::{Code, Status};
use crate::wire::{self, Entry, Frame, Header, Hello, Kind, METADATA_MAX};

/// The numbers of loops, so that an answer knows whether it is given on its own.
static LOOPS: AtomicU64 = AtomicU64::new(0);

/// The time for the first frame, as a connection's timer.
const HELLO_TIMER: u64 = 1;
/// The time for draining, as a timer of the service.
const DRAIN_TIMER: u64 = 2;

pub(crate) struct ServerHandler {
    shared: Arc<Shared>,
    link: Option<Arc<LoopLink>>,
    number: u64,
    metrics: Arc<LoopMetrics>,
    /// Calls whose answers have not come back, those of closed connections included.
    in_flight: usize,
    open: usize,
    draining: bool,
    /// Who waits until nobody is left. Told once.
    drained: Option<Sender<()>>,
    /// For frames that are made here.
    scratch: Vec<u8>,
}

/// A request that is all there.
struct Request<'a> {
    call: u64,
    deadline: Option<Instant>,
    metadata: Vec<Entry>,
    body: &'a [u8],
}

type Cx<'a> = Context<'a, ServerHandler>;

impl ServerHandler {
    pub(super) fn new(shared: Arc<Shared>, handle: Option<ServiceHandle<Post>>) -> Self {
        let number = LOOPS.fetch_add(1, Ordering::Relaxed) + 1;
        let metrics = Arc::new(LoopMetrics::new(shared.routes.methods().len()));
        shared.metrics.lock().push(Arc::clone(&metrics));
        let link = handle.map(|handle| Arc::new(LoopLink { number, handle }));
        Self {
            shared,
            link,
            number,
            metrics,
            in_flight: 0,
            open: 0,
            draining: false,
            drained: None,
            scratch: Vec::new(),
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, id: ConnId, header: &Header) {
        self.scratch.clear();
        wire::put_head(header, 0, &mut self.scratch);
        // A connection that is closing has its end told by `on_close`.
        let _ = cx.send(id, &self.scratch);
    }

    fn hello(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        let config = &self.shared.config;
        let hello = Hello {
            version: wire::VERSION,
            version_min: wire::VERSION,
            features: Vec::new(),
            frame_bytes_max: u32::try_from(config.frame_bytes_max).unwrap_or(u32::MAX),
            body_bytes_max: config.body_bytes_max as u64,
            in_flight_max: config.in_flight_per_connection_max,
            name: config.name.clone(),
        };
        let header = Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) };
        self.send(cx, id, &header);
        if self.draining {
            self.send(cx, id, &Header::of(Kind::Drain, 0));
        }
    }

    fn on_hello(&mut self, cx: &mut Cx<'_>, id: ConnId, header: &Header) {
        let limits = header.hello.as_deref().and_then(PeerLimits::from_hello);
        // Also to who cannot be talked to: so it learns which versions there are.
        self.hello(cx, id);
        match (limits, cx.conn_mut(id)) {
            (Some(limits), Some(conn)) => conn.limits = Some(limits),
            _ => cx.close(id, CloseReason::Local("the client speaks another version")),
        }
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, id: ConnId, call: u64, status: &Status) {
        self.send(cx, id, &error_header(call, status));
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: Frame<'_>) {
        let Frame { header, body } = frame;
        let call = header.call_id;
        let Some(conn) = cx.conn(id) else { return };
        if conn.knows(call) {
            return cx.close(id, CloseReason::Local("the client used the number of a call twice"));
        }
        let in_flight = conn.calls.len() + conn.arriving.len();
        if let Err(status) = self.admit(&header, in_flight) {
            return self.refuse(cx, id, call, &status);
        }
        let deadline = header.timeout_us.and_then(|left| cx.now().checked_add(Duration::from_micros(left)));
        let shared = Arc::clone(&self.shared);
        let Some(route) = route(&shared, &header) else {
            return self.refuse(cx, id, call, &Status::unimplemented());
        };
        let metadata = header.metadata;
        if !header.more {
            return self.dispatch(cx, id, route, Request { call, deadline, metadata, body });
        }
        let arriving = Arriving { method_id: route.info.id, deadline, metadata };
        if !cx.conn_mut(id).is_some_and(|conn| conn.arriving.begin(call, arriving, body)) {
            cx.close(id, CloseReason::Local("the client sends too many bodies at once"));
        }
    }

    /// Whether the request is let in, by what its header says alone.
    fn admit(&self, header: &Header, in_flight: usize) -> Result<(), Status> {
        let config = &self.shared.config;
        let overloaded = |what| Err(Status::rejected(Code::ResourceExhausted, what));
        if header.timeout_us == Some(0) {
            return Err(expired());
        }
        if header.metadata.len() > METADATA_MAX {
            return Err(Status::rejected(Code::InvalidArgument, "too much metadata"));
        }
        if in_flight >= config.in_flight_per_connection_max as usize {
            return overloaded("overloaded: too many calls under way on this connection");
        }
        if self.in_flight >= config.in_flight_per_loop_max {
            return overloaded("overloaded: too many calls under way");
        }
        Ok(())
    }

    fn on_chunk(&mut self, cx: &mut Cx<'_>, id: ConnId, frame: &Frame<'_>) {
        let body_max = self.shared.config.body_bytes_max;
        let (call, now) = (frame.header.call_id, cx.now());
        let Some(conn) = cx.conn_mut(id) else { return };
        match conn.arriving.add(call, frame.body, frame.header.more, body_max) {
            Assembled::Incomplete | Assembled::Stray => {}
            Assembled::TooLong(_) => {
                let status = Status::rejected(Code::ResourceExhausted, "the request is too long");
                self.refuse(cx, id, call, &status);
            }
            Assembled::Whole(Arriving { method_id, deadline, metadata }, body) => {
                let shared = Arc::clone(&self.shared);
                if deadline.is_some_and(|deadline| deadline <= now) {
                    self.refuse(cx, id, call, &expired());
                } else if let Some(route) = shared.routes.by_id(method_id) {
                    self.dispatch(cx, id, route, Request { call, deadline, metadata, body: &body });
                }
            }
        }
    }

    fn dispatch(&mut self, cx: &mut Cx<'_>, id: ConnId, route: &Route, request: Request<'_>) {
        let Request { call, deadline, metadata, body } = request;
        if body.len() > self.shared.config.body_bytes_max {
            let status = Status::rejected(Code::ResourceExhausted, "the request is too long");
            return self.refuse(cx, id, call, &status);
        }
        let peer = cx.peer(id).cloned();
        let (Some(link), Some(conn)) = (self.link.clone(), cx.conn_mut(id)) else { return };
        let state = Arc::new(CallState::default());
        let began = Instant::now();
        conn.calls.insert(call, InFlight { method: route.index, began, state: Arc::clone(&state) });
        self.in_flight += 1;
        let context = CallContext { method: route.info, deadline, metadata, peer, state: Arc::clone(&state) };
        let reply = RawReply::to_loop(link, id, call, state);
        INLINE.with_borrow_mut(|inline| inline.number = self.number);
        // A panic drops the reply, which answers for it: the other calls of this connection are not to suffer.
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
            scoped(deadline, || route.service.call(route.method, context, body, reply));
        }));
        if ran.is_err() {
            log::error!("the handler of {} panicked", route.info.path);
        }
        self.take_inline(cx);
    }

    /// Sends what the handler that just ran answered.
    fn take_inline(&mut self, cx: &mut Cx<'_>) {
        let Inline { frames, mut answers, .. } = INLINE.with_borrow_mut(std::mem::take);
        for answer in answers.drain(..) {
            self.finish(cx, answer, &frames);
        }
        // Their memory is for the next.
        INLINE.with_borrow_mut(|inline| {
            inline.frames = frames;
            inline.frames.clear();
            inline.answers = answers;
        });
    }

    fn finish(&mut self, cx: &mut Cx<'_>, answer: Answer, inline: &[u8]) {
        let Answer { conn: id, call, payload } = answer;
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(conn) = cx.conn_mut(id) else { return };
        let Some(InFlight { method, began, state }) = conn.calls.remove(&call) else { return };
        if state.is_cancelled() {
            return self.metrics.count(method, Code::Cancelled, began.elapsed());
        }
        let mut code = Code::Ok;
        match payload {
            Payload::Inline(range) => {
                let _ = cx.send(id, inline.get(range).unwrap_or_default());
            }
            Payload::Frame(frame) => {
                let _ = cx.send_bytes(id, frame.into());
            }
            Payload::Large(body) => code = self.send_large(cx, id, call, body),
            Payload::Failed(status) => {
                code = status.code();
                self.refuse(cx, id, call, &status);
            }
        }
        self.metrics.count(method, code, began.elapsed());
    }

    fn send_large(&mut self, cx: &mut Cx<'_>, id: ConnId, call: u64, body: Bytes) -> Code {
        let held_max = self.shared.config.outgoing_bytes_max;
        let Some(conn) = cx.conn_mut(id) else { return Code::Cancelled };
        let takes = conn.limits.map_or(0, |limits| limits.body_bytes_max);
        let why = if body.len() as u64 > takes {
            "the answer is longer than the client takes"
        } else if conn.outbox.bytes() + body.len() > held_max {
            "too many long answers wait for this client"
        } else {
            conn.outbox.push(Header::of(Kind::Response, call), body);
            pump(cx, id);
            return Code::Ok;
        };
        self.refuse(cx, id, call, &Status::new(Code::ResourceExhausted, why));
        Code::ResourceExhausted
    }

    fn on_cancel(&mut self, cx: &mut Cx<'_>, id: ConnId, call: u64) {
        let Some(conn) = cx.conn_mut(id) else { return };
        if conn.arriving.forget(call).is_some() {
            return;
        }
        // What is left of an answer that nobody waits for. Its first piece may be there already: the client knows what to do with it.
        conn.outbox.remove(call);
        let state = conn.calls.get(&call).map(|in_flight| Arc::clone(&in_flight.state));
        if let Some(state) = state {
            log::debug!("{} was cancelled", name_of(id, call));
            state.cancel();
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_>, at_most: Duration, tell: Sender<()>) {
        self.draining = true;
        self.drained = Some(tell);
        for id in cx.open_conns() {
            if cx.conn(id).is_some_and(|conn| conn.limits.is_some()) {
                self.send(cx, id, &Header::of(Kind::Drain, 0));
            }
        }
        cx.set_timer(at_most, DRAIN_TIMER);
        self.look_drained();
    }

    /// Tells who waits for it that nobody is left.
    fn look_drained(&mut self) {
        // By dropping its sender: that is seen whether or not somebody has stopped waiting.
        if self.open == 0 {
            self.drained = None;
        }
    }
}

/// Where a request goes.
fn route<'a>(shared: &'a Shared, header: &Header) -> Option<&'a Route> {
    if header.method.is_empty() {
        shared.routes.by_id(header.method_id)
    } else {
        shared.routes.by_path(&header.method)
    }
}

impl Handler for ServerHandler {
    type Conn = ServerConn;
    type Post = Post;
    type Codec = LengthCodec;

    fn name(&self) -> &'static str {
        "rpc server"
    }

    fn codec(&mut self) -> LengthCodec {
        LengthCodec::u32(self.shared.config.frame_bytes_max)
    }

    fn on_start(&mut self, _: &mut Cx<'_>) {
        mark_loop_thread();
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, id: ConnId, _: &OpenInfo) -> ServerConn {
        self.open += 1;
        cx.set_conn_timer(id, self.shared.config.hello_timeout, HELLO_TIMER);
        ServerConn::new()
    }

    fn on_frame(&mut self, cx: &mut Cx<'_>, id: ConnId, bytes: &[u8]) {
        let frame = match wire::parse(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                log::warn!("connection {id}: {error}");
                return cx.close(id, CloseReason::BadFrame);
            }
        };
        let greeted = cx.conn(id).is_some_and(|conn| conn.limits.is_some());
        match (frame.header.kind(), greeted) {
            (Kind::Request, true) => self.on_request(cx, id, frame),
            (Kind::Hello, false) => self.on_hello(cx, id, &frame.header),
            (Kind::Chunk, true) => self.on_chunk(cx, id, &frame),
            (Kind::Cancel, true) => self.on_cancel(cx, id, frame.header.call_id),
            (Kind::Ping, true) => self.send(cx, id, &Header::of(Kind::Pong, frame.header.call_id)),
            (Kind::Pong, true) => {}
            _ => cx.close(id, CloseReason::Local("the client sent what it may not")),
        }
    }

    fn on_drained(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        pump(cx, id);
    }

    fn on_close(&mut self, _: &mut Cx<'_>, _: ConnId, state: ServerConn, _: CloseReason) {
        self.open -= 1;
        for in_flight in state.calls.into_values() {
            in_flight.state.cancel();
        }
        self.look_drained();
    }

    fn on_post(&mut self, cx: &mut Cx<'_>, post: Post) {
        match post {
            Post::Answer(answer) => self.finish(cx, answer, &[]),
            Post::Link(handle) => self.link = Some(Arc::new(LoopLink { number: self.number, handle })),
            Post::Drain(at_most, tell) => self.drain(cx, at_most, tell),
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, timer: TimerFired) {
        match timer.conn {
            Some(id) if cx.conn(id).is_some_and(|conn| conn.limits.is_none()) => {
                cx.close(id, CloseReason::Local("the client said no hello"));
            }
            None if timer.token == DRAIN_TIMER => {
                for id in cx.open_conns() {
                    self.shared.cut_off.fetch_add(1, Ordering::AcqRel);
                    cx.close(id, CloseReason::Local("the time for draining is over"));
                }
            }
            _ => {}
        }
    }

    fn on_stop(&mut self, cx: &mut Cx<'_>) {
        for id in cx.open_conns() {
            self.send(cx, id, &Header::of(Kind::Drain, 0));
        }
    }
}
