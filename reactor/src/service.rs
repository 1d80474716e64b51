//! A service on a loop: its handler, its connections and its queue, behind one dynamic call per event.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Receiver;

use crate::client::ClientState;
use crate::conn::{Conn, Conns, Phase};
use crate::context::Context;
use crate::handle::ConnCommand;
use crate::handler::{Handler, OpenInfo, TimerFired};
use crate::id::{ConnId, Token};
use crate::listener::Listener;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{CloseReason, ConnectError};
use crate::slab::Key;
use crate::stream::Stream;
use crate::timer::TimerKey;

/// What an event says, from mio's flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer shut down its writing side, or all.
    pub(crate) read_closed: bool,
    pub(crate) error: bool,
}

/// What the loop calls. The phases of a turn are its methods, in the order of a turn.
pub(crate) trait Service {
    fn on_event(&mut self, core: &mut LoopCore, token: Token, readiness: Readiness);
    fn run_ready(&mut self, core: &mut LoopCore);
    fn run_posts(&mut self, core: &mut LoopCore, at_most: usize);
    fn on_timer(&mut self, core: &mut LoopCore, key: TimerKey, timer: Timer);
    fn run_flush(&mut self, core: &mut LoopCore);
    fn run_marks(&mut self, core: &mut LoopCore);
    fn run_closes(&mut self, core: &mut LoopCore);
    fn run_frees(&mut self, core: &mut LoopCore);
    fn has_work(&self) -> bool;
    fn has_posts(&self) -> bool;
    fn connections(&self) -> usize;
    fn start(&mut self, core: &mut LoopCore);
    fn command(&mut self, core: &mut LoopCore, id: ConnId, command: ConnCommand);
    fn adopt(&mut self, core: &mut LoopCore, stream: Stream, peer: SocketAddr);
    fn listen(&mut self, core: &mut LoopCore, listener: Listener) -> std::io::Result<()>;
    fn stop_accepting(&mut self);
    fn begin_client(&mut self, core: &mut LoopCore, client: ClientState);
    fn stop_client(&mut self, core: &mut LoopCore);
    fn begin_stop(&mut self, core: &mut LoopCore);
    fn abort_all(&mut self, core: &mut LoopCore);
}

pub(crate) struct ServiceCell<H: Handler> {
    pub(crate) handler: H,
    pub(crate) conns: Conns<H>,
    pub(crate) posts: Receiver<H::Post>,
    pub(crate) listener: Option<Listener>,
    pub(crate) client: Option<ClientState>,
    /// Connections of this service on this loop, as the acceptor sees them: it counts up at the hand-off, the service down when a slot is freed.
    pub(crate) load: Arc<AtomicUsize>,
}

/// Runs a callback. A panic in it is caught and counted; the answer says whether it returned.
pub(crate) fn guarded<R>(core: &mut LoopCore, callback: impl FnOnce(&mut LoopCore) -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(|| callback(core))) {
        Ok(result) => Some(result),
        Err(payload) => {
            note_panic(core, payload.as_ref());
            None
        }
    }
}

/// Counts and logs a panic that was caught.
pub(crate) fn note_panic(core: &mut LoopCore, payload: &(dyn std::any::Any + Send)) {
    core.stats.panics += 1;
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    log::error!("a callback panicked: {}", text.unwrap_or("it does not say why"));
}

impl<H: Handler> ServiceCell<H> {
    /// Runs a callback of the handler, with its context. `None` when it panicked.
    pub(crate) fn call<R>(
        &mut self,
        core: &mut LoopCore,
        callback: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> Option<R> {
        let Self { handler, conns, client, .. } = self;
        guarded(core, |core| callback(handler, &mut Context { conns, core, client }))
    }

    /// Like [`ServiceCell::call`], for a connection: it is aborted when the callback panics.
    pub(crate) fn call_for<R>(
        &mut self,
        core: &mut LoopCore,
        key: Key,
        callback: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> Option<R> {
        let result = self.call(core, callback);
        if result.is_none() {
            self.conns.begin_close(key, CloseReason::HandlerPanicked, true);
        }
        result
    }

    /// Takes a connected stream in: a slot, one registration for good, `on_open`.
    pub(crate) fn open(&mut self, core: &mut LoopCore, stream: Stream, peer: SocketAddr) {
        if self.conns.config.no_delay
            && let Err(error) = stream.set_no_delay(true)
        {
            log::debug!("cannot set TCP_NODELAY for {peer}: {error}");
        }
        let key = guarded(core, |_| self.handler.codec())
            .and_then(|codec| self.conns.slab.insert(Conn::new(stream, peer, codec, Phase::Open)).ok());
        let Some(key) = key else {
            core.stats.shed += 1;
            self.load.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let token = Token { service: self.conns.service, key }.to_mio();
        let interests = mio::Interest::READABLE | mio::Interest::WRITABLE;
        let registered = match self.conns.slab.get_mut(key) {
            Some(conn) => core.registry.register(&mut conn.stream, token, interests),
            None => return,
        };
        if let Err(error) = registered {
            log::warn!("cannot register the connection of {peer}: {error}");
            self.conns.slab.remove(key);
            core.stats.shed += 1;
            self.load.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.opened(core, key, OpenInfo { peer, outbound: false });
    }

    /// Tells the handler of an open connection and keeps the state that it returns.
    pub(crate) fn opened(&mut self, core: &mut LoopCore, key: Key, info: OpenInfo) {
        core.stats.opened += 1;
        let id = self.conns.id(core, key);
        let state = self.call_for(core, key, |handler, cx| handler.on_open(cx, id, &info));
        if let (Some(state), Some(conn)) = (state, self.conns.slab.get_mut(key)) {
            conn.user = Some(state);
        }
    }

    fn finish_connect(&mut self, core: &mut LoopCore, key: Key, readiness: Readiness) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let error = match conn.stream.take_error() {
            Ok(None) => None,
            Ok(Some(error)) | Err(error) => Some(ConnectError::from(error)),
        };
        if let Some(error) = error {
            return self.connect_failed(core, key, error);
        }
        // Writable without error is not yet connected: only a peer address proves it.
        let peer = match conn.stream.peer_addr() {
            Ok(peer) => peer,
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
            Err(error) => return self.connect_failed(core, key, error.into()),
        };
        if conn.stream.local_addr().is_ok_and(|local| local == peer) {
            return self.connect_failed(core, key, ConnectError::SelfConnect);
        }
        if self.conns.config.no_delay
            && let Err(error) = conn.stream.set_no_delay(true)
        {
            log::debug!("cannot set TCP_NODELAY for {peer}: {error}");
        }
        conn.phase = Phase::Open;
        conn.peer = peer;
        conn.writable = true;
        conn.readable = readiness.readable || readiness.read_closed;
        conn.hang_up = readiness.read_closed || readiness.error;
        conn.failed = readiness.error;
        core.cancel(&mut conn.life_timer);
        self.load.fetch_add(1, Ordering::Relaxed);
        if let Some(client) = &mut self.client {
            client.connected(core.now, key);
        }
        self.opened(core, key, OpenInfo { peer, outbound: true });
        self.conns.list_ready(key);
    }

    /// The one end of an attempt that did not become a connection.
    pub(crate) fn connect_failed(&mut self, core: &mut LoopCore, key: Key, error: ConnectError) {
        let id = self.conns.id(core, key);
        if let Some(mut conn) = self.conns.slab.remove(key) {
            conn.cancel_timers(core);
        }
        self.attempt_failed(core, Some(key), id, error);
    }

    pub(crate) fn on_life_timer(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.life_timer = None;
        match conn.phase {
            Phase::Connecting => self.connect_failed(core, key, ConnectError::Timeout),
            Phase::Draining | Phase::Lingering => self.conns.doomed.push(key),
            Phase::Cancelled | Phase::Open | Phase::Closing { .. } => {}
        }
    }

    /// Notes what an event says. The reading is done when all events are noted, so that each connection is served once per turn, whatever it has.
    fn on_conn_event(&mut self, core: &mut LoopCore, key: Key, readiness: Readiness) {
        let Some(conn) = self.conns.slab.get_mut(key) else {
            core.stats.stale_events += 1;
            return;
        };
        if conn.phase == Phase::Connecting {
            return self.finish_connect(core, key, readiness);
        }
        if readiness.readable || readiness.read_closed || readiness.error {
            conn.readable = true;
        }
        if readiness.read_closed || readiness.error {
            conn.hang_up = true;
        }
        conn.failed |= readiness.error;
        if readiness.writable || readiness.error {
            conn.writable = true;
            if conn.output.is_some() {
                self.conns.list_dirty(key);
            }
        }
        if readiness.readable || readiness.read_closed || readiness.error {
            self.conns.list_ready(key);
        }
    }

    fn on_conn_timer(&mut self, core: &mut LoopCore, timer_key: TimerKey, key: Key, kind: TimerKind) {
        match kind {
            TimerKind::User(token) => {
                if let Some(conn) = self.conns.open_mut(key) {
                    conn.user_timers.retain(|timer| *timer != timer_key);
                    let fired = TimerFired { key: timer_key, conn: Some(self.conns.id(core, key)), token };
                    self.call_for(core, key, |handler, cx| handler.on_timer(cx, fired));
                }
            }
            TimerKind::Frame => {
                if let Some(conn) = self.conns.open_mut(key) {
                    conn.frame_timer = None;
                    if conn.paused() {
                        // It is us who do not read the rest. The codec is asked again when reading goes on, and the time begins anew.
                        conn.undecoded = true;
                    } else {
                        self.conns.begin_close(key, CloseReason::FrameDeadline, false);
                    }
                }
            }
            TimerKind::Stall => self.on_stall_timer(core, key),
            TimerKind::Life => self.on_life_timer(core, key),
            TimerKind::AcceptRetry | TimerKind::Reconnect => {}
        }
    }
}

impl<H: Handler> Service for ServiceCell<H> {
    fn on_event(&mut self, core: &mut LoopCore, token: Token, readiness: Readiness) {
        if token.is_listener() {
            // Accepted when the events are done, once per turn.
            if let Some(listener) = &mut self.listener {
                listener.ready = true;
            }
        } else {
            self.on_conn_event(core, token.key, readiness);
        }
    }

    fn run_ready(&mut self, core: &mut LoopCore) {
        // Who is put on the list again by this pass waits for the next turn.
        for _ in 0..self.conns.ready.len() {
            let Some(key) = self.conns.ready.pop_front() else { break };
            if let Some(conn) = self.conns.slab.get_mut(key) {
                conn.in_ready = false;
                self.drive(core, key);
            }
        }
        if self.listener.as_ref().is_some_and(|listener| listener.ready) {
            self.accept(core);
        }
    }

    fn run_posts(&mut self, core: &mut LoopCore, at_most: usize) {
        for _ in 0..at_most {
            let Ok(post) = self.posts.try_recv() else { break };
            core.stats.posts += 1;
            self.call(core, |handler, cx| handler.on_post(cx, post));
        }
    }

    fn on_timer(&mut self, core: &mut LoopCore, timer_key: TimerKey, timer: Timer) {
        core.stats.timers += 1;
        match (timer.conn, timer.kind) {
            (Some(key), kind) => self.on_conn_timer(core, timer_key, key, kind),
            (None, TimerKind::User(token)) => {
                let fired = TimerFired { key: timer_key, conn: None, token };
                self.call(core, |handler, cx| handler.on_timer(cx, fired));
            }
            (None, TimerKind::AcceptRetry) => self.retry_accept(),
            (None, TimerKind::Reconnect) => self.reconnect(core),
            (None, TimerKind::Frame | TimerKind::Stall | TimerKind::Life) => {}
        }
    }

    fn run_flush(&mut self, core: &mut LoopCore) {
        let mut dirty = std::mem::take(&mut self.conns.dirty);
        for key in dirty.drain(..) {
            if let Some(conn) = self.conns.slab.get_mut(key) {
                conn.in_dirty = false;
                self.flush(core, key);
            }
        }
        // The list keeps its memory, and whoever came onto it meanwhile.
        dirty.append(&mut self.conns.dirty);
        self.conns.dirty = dirty;
    }

    fn run_marks(&mut self, core: &mut LoopCore) {
        let mut marks = std::mem::take(&mut self.conns.marks);
        for key in marks.drain(..) {
            self.settle_marks(core, key);
        }
        // What the callbacks sent is compared after it was written, in the next turn.
        marks.append(&mut self.conns.marks);
        self.conns.marks = marks;
    }

    fn run_closes(&mut self, core: &mut LoopCore) {
        // A handler's `on_close` may close others: they are done in the same phase. It ends, for each connection closes once.
        while !self.conns.closing.is_empty() {
            for key in std::mem::take(&mut self.conns.closing) {
                self.finish_close(core, key);
            }
        }
    }

    fn run_frees(&mut self, core: &mut LoopCore) {
        while let Some(key) = self.conns.doomed.pop() {
            self.free(core, key);
        }
    }

    fn has_work(&self) -> bool {
        self.conns.has_work() || self.listener.as_ref().is_some_and(|listener| listener.ready)
    }

    fn has_posts(&self) -> bool {
        !self.posts.is_empty()
    }

    fn connections(&self) -> usize {
        self.conns.slab.len()
    }

    fn start(&mut self, core: &mut LoopCore) {
        self.call(core, |handler, cx| handler.on_start(cx));
    }

    fn command(&mut self, core: &mut LoopCore, id: ConnId, command: ConnCommand) {
        self.call(core, |_, cx| match command {
            ConnCommand::Send(bytes) => {
                // A send that finds nobody is counted there; the sender on the other thread cannot be told any more.
                let _ = cx.send_bytes(id, bytes);
            }
            ConnCommand::Close(why) => cx.close(id, CloseReason::Local(why)),
        });
    }

    fn adopt(&mut self, core: &mut LoopCore, stream: Stream, peer: SocketAddr) {
        if core.stopping {
            self.load.fetch_sub(1, Ordering::Relaxed);
            core.stats.shed += 1;
        } else {
            self.open(core, stream, peer);
        }
    }

    fn listen(&mut self, core: &mut LoopCore, mut listener: Listener) -> std::io::Result<()> {
        if core.stopping {
            return Ok(());
        }
        let token = Token::listener(self.conns.service).to_mio();
        core.registry.register(&mut listener.socket, token, mio::Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    fn stop_accepting(&mut self) {
        self.listener = None;
    }

    fn begin_client(&mut self, core: &mut LoopCore, client: ClientState) {
        self.client = Some(client);
        self.reconnect(core);
    }

    fn stop_client(&mut self, core: &mut LoopCore) {
        if let Some(client) = &mut self.client {
            client.stop(core);
        }
        for key in self.conns.slab.keys() {
            self.conns.begin_close(key, CloseReason::Local("the client was stopped"), false);
        }
    }

    fn begin_stop(&mut self, core: &mut LoopCore) {
        self.stop_accepting();
        if let Some(client) = &mut self.client {
            client.stop(core);
        }
        self.call(core, |handler, cx| handler.on_stop(cx));
        for key in self.conns.slab.keys() {
            self.conns.begin_close(key, CloseReason::LoopStopping, false);
        }
    }

    fn abort_all(&mut self, core: &mut LoopCore) {
        for key in self.conns.slab.keys() {
            self.conns.begin_close(key, CloseReason::LoopStopping, true);
        }
        self.run_closes(core);
        self.run_frees(core);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::codec::LinesCodec;
    use crate::config::{LoopConfig, ServiceConfig};
    use crate::event_loop::EventLoop;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Diary(Vec<String>);

    impl Handler for Diary {
        type Conn = ();
        type Post = ();
        type Codec = LinesCodec;

        fn codec(&mut self) -> LinesCodec {
            LinesCodec::new(80)
        }

        fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {
            self.0.push("open".into());
        }

        fn on_frame(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &[u8]) {
            self.0.push("frame".into());
        }

        fn on_connect_failed(
            &mut self,
            _: &mut Context<'_, Self>,
            _: ConnId,
            error: ConnectError,
            _: Option<Duration>,
        ) {
            self.0.push(error.to_string());
        }

        fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
    }

    const ALL: Readiness = Readiness { readable: true, writable: true, read_closed: true, error: true };
    const WRITABLE: Readiness =
        Readiness { readable: false, writable: true, read_closed: false, error: false };

    fn service() -> (EventLoop, ServiceCell<Diary>) {
        let (_, posts) = crossbeam_channel::bounded(1);
        let cell = ServiceCell {
            handler: Diary::default(),
            conns: Conns::new(0, ServiceConfig::default()),
            posts,
            listener: None,
            client: None,
            load: Arc::default(),
        };
        (EventLoop::new(LoopConfig::default()).unwrap(), cell)
    }

    fn socket() -> socket2::Socket {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket
    }

    impl ServiceCell<Diary> {
        fn add(&mut self, socket: socket2::Socket, phase: Phase) -> (Key, Token) {
            socket.set_nonblocking(true).unwrap();
            let stream = Stream::Tcp(mio::net::TcpStream::from_std(socket.into()));
            let peer = SocketAddr::from(([127, 0, 0, 1], 9));
            let conn = Conn::new(stream, peer, LinesCodec::new(80), phase);
            let Ok(key) = self.conns.slab.insert(conn) else { panic!("no slot") };
            (key, Token { service: 0, key })
        }
    }

    #[test]
    fn an_event_for_an_old_tenant_does_not_reach_the_new_one() {
        let (mut event_loop, mut cell) = service();
        let (old, old_token) = cell.add(socket(), Phase::Open);
        cell.free(&mut event_loop.core, old);
        let (new, _) = cell.add(socket(), Phase::Open);
        assert_eq!(old.slot, new.slot);
        cell.on_event(&mut event_loop.core, old_token, ALL);
        assert_eq!(event_loop.core.stats.stale_events, 1);
        let conn = cell.conns.slab.get(new).unwrap();
        assert!(!conn.readable && !conn.hang_up && !conn.failed && !cell.has_work());
    }

    #[test]
    fn a_slow_reader_is_not_a_stalled_one() {
        let (mut event_loop, mut cell) = service();
        let core = &mut event_loop.core;
        let listener = socket();
        listener.listen(1).unwrap();
        let client = socket();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (key, _) = cell.add(client, Phase::Open);
        let mut output = core.take_output();
        output.push_copy(&vec![0; 16 << 20]);
        cell.conns.slab.get_mut(key).unwrap().output = Some(output);
        cell.flush(core, key);
        let timer = |cell: &ServiceCell<Diary>| cell.conns.slab.get(key).unwrap().stall_timer;
        let mut set = timer(&cell);
        assert!(set.is_some(), "the kernel does not take so much at once");
        for _ in 0..3 {
            // However little was taken since the timer was set, the time begins anew.
            cell.conns.slab.get_mut(key).unwrap().bytes_out += 1;
            core.timers.cancel(set.unwrap());
            cell.on_stall_timer(core, key);
            assert!(timer(&cell).is_some() && timer(&cell) != set);
            set = timer(&cell);
        }
        cell.on_stall_timer(core, key);
        let phase = cell.conns.slab.get(key).unwrap().phase;
        assert_eq!(phase, Phase::Closing { reason: CloseReason::WriteStalled, abort: true });
    }

    #[test]
    fn writable_without_a_peer_is_not_connected() {
        let (mut event_loop, mut cell) = service();
        let (key, token) = cell.add(socket(), Phase::Connecting);
        cell.on_event(&mut event_loop.core, token, WRITABLE);
        assert!(cell.handler.0.is_empty());
        assert_eq!(cell.conns.slab.get(key).unwrap().phase, Phase::Connecting);
    }

    #[test]
    fn a_connection_to_itself_is_a_failed_attempt() {
        let (mut event_loop, mut cell) = service();
        // What the kernel does when it picks the destination as the source: both opens meet.
        let own = socket();
        own.connect(&own.local_addr().unwrap()).unwrap();
        let (key, token) = cell.add(own, Phase::Connecting);
        cell.on_event(&mut event_loop.core, token, WRITABLE);
        assert_eq!(cell.handler.0, ["the connection reached itself"]);
        assert!(cell.conns.slab.get(key).is_none());
    }

    #[test]
    fn an_attempt_given_up_does_not_open_by_a_later_event_of_its_turn() {
        let (mut event_loop, mut cell) = service();
        let listener = socket();
        listener.listen(1).unwrap();
        let client = socket();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (key, token) = cell.add(client, Phase::Connecting);
        cell.conns.begin_close(key, CloseReason::Local("given up"), true);
        cell.on_event(&mut event_loop.core, token, WRITABLE);
        cell.run_ready(&mut event_loop.core);
        cell.run_closes(&mut event_loop.core);
        cell.run_frees(&mut event_loop.core);
        assert_eq!(cell.handler.0, ["the attempt was given up"]);
        assert_eq!(cell.connections(), 0);
    }
}
