//! A service on a loop: its handler, its connections and its queue, behind one dynamic call per event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rustc_hash::FxHashSet;

use crate::address::Address;
use crate::address_counts::AddressCounts;
use crate::batch::Batch;
use crate::client::ClientState;
use crate::conn::Conns;
use crate::context::Context;
use crate::handle::ConnCommand;
use crate::handler::{Handler, TimerFired};
use crate::id::{ConnId, Token};
use crate::listener::Listener;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::resolve::LookUp;
use crate::slab::Key;
use crate::stream::Stream;
use crate::timer::TimerKey;
use crate::watch::What;

/// What the loop calls. The phases of a turn are its methods, in the order of a turn. `scratch` is the loop's one read buffer.
pub(crate) trait Service {
    fn name(&self) -> &'static str;
    fn begin_turn(&mut self);
    fn on_events(&mut self, core: &mut LoopCore, scratch: &mut [u8], batch: &mut Batch<'_>);
    fn run_ready(&mut self, core: &mut LoopCore, scratch: &mut [u8]);
    fn run_posts(&mut self, core: &mut LoopCore, at_most: usize);
    fn on_timer(&mut self, core: &mut LoopCore, key: TimerKey, timer: Timer);
    fn run_flush(&mut self, core: &mut LoopCore, scratch: &mut [u8]);
    fn run_marks(&mut self, core: &mut LoopCore);
    fn run_closes(&mut self, core: &mut LoopCore, scratch: &mut [u8]);
    fn run_frees(&mut self, core: &mut LoopCore);
    fn has_work(&self) -> bool;
    fn has_posts(&self) -> bool;
    fn connections(&self) -> usize;
    fn start(&mut self, core: &mut LoopCore);
    fn command(&mut self, core: &mut LoopCore, id: ConnId, command: ConnCommand);
    fn send_all(&mut self, core: &mut LoopCore, keys: &FxHashSet<Key>, bytes: &Bytes);
    fn adopt(&mut self, core: &mut LoopCore, stream: Stream, peer: Address);
    fn listen(&mut self, core: &mut LoopCore, listener: Listener) -> std::io::Result<()>;
    fn stop_accepting(&mut self);
    fn begin_client(&mut self, core: &mut LoopCore, client: ClientState);
    fn looked_up(&mut self, core: &mut LoopCore, attempt: u64, found: LookUp);
    fn stop_client(&mut self, core: &mut LoopCore);
    fn begin_stop(&mut self, core: &mut LoopCore);
    fn close_all(&mut self);
    fn abort_all(&mut self, core: &mut LoopCore, scratch: &mut [u8]);
}

/// What the services of one server share over all its loops.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerShare {
    /// Connections of this service on this loop, as the acceptor sees them: it counts up at the hand-off, the service down when a slot is freed.
    pub(crate) load: Arc<AtomicUsize>,
    /// Where there is a limit per address: the connections by address, over all loops.
    pub(crate) addresses: Option<Arc<AddressCounts>>,
}

pub(crate) struct ServiceCell<H: Handler> {
    pub(crate) handler: H,
    pub(crate) conns: Conns<H>,
    pub(crate) posts: Receiver<H::Post>,
    pub(crate) listener: Option<Listener>,
    pub(crate) client: Option<ClientState>,
    pub(crate) share: ServerShare,
}

/// Runs a callback. A panic in it is caught and counted; the answer says whether it returned.
#[inline]
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
#[cold]
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
        what: What,
        callback: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> Option<R> {
        let Self { handler, conns, client, .. } = self;
        let result = guarded(core, |core| callback(handler, &mut Context { conns, core, client }));
        self.watch(core, what);
        result
    }

    /// Like [`ServiceCell::call`], for a connection: it is aborted when the callback panics.
    pub(crate) fn call_for<R>(
        &mut self,
        core: &mut LoopCore,
        key: Key,
        what: What,
        callback: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> Option<R> {
        let result = self.call(core, what, callback);
        if result.is_none() {
            self.conns.begin_close(key, CloseReason::HandlerPanicked, true);
        }
        result
    }

    /// Counts a callback that returned, and looks at the clock now and then.
    #[inline]
    pub(crate) fn watch(&self, core: &mut LoopCore, what: What) {
        if core.watch.called(self.conns.service, what) {
            self.look_at_clock(core);
        }
    }

    #[cold]
    fn look_at_clock(&self, core: &mut LoopCore) {
        if core.config.slow_callback.is_some()
            && let Some(slow) = core.watch.look(core.clock.now(), core.config.slow_callback)
        {
            core.stats.slow_callbacks += 1;
            slow.report(self.handler.name());
        }
    }

    /// What the loop's timers are for, when they are for a connection.
    fn on_conn_timer(&mut self, core: &mut LoopCore, timer_key: TimerKey, key: Key, kind: TimerKind) {
        match kind {
            TimerKind::User(token) => {
                if let Some(conn) = self.conns.open_mut(key) {
                    conn.forget_timer(timer_key);
                    let fired = TimerFired { key: timer_key, conn: Some(self.conns.id(key)), token };
                    self.call_for(core, key, What::Timer, |handler, cx| handler.on_timer(cx, fired));
                }
            }
            TimerKind::Frame => self.on_frame_timer(core, key),
            TimerKind::Stall => self.on_stall_timer(core, key),
            TimerKind::Idle => self.on_idle_timer(core, key),
            TimerKind::Life => self.on_life_timer(core, key),
            TimerKind::Every { .. } | TimerKind::AcceptRetry | TimerKind::Reconnect | TimerKind::Task(_) => {}
        }
    }
}

impl<H: Handler> Service for ServiceCell<H> {
    fn name(&self) -> &'static str {
        self.handler.name()
    }

    fn begin_turn(&mut self) {
        self.conns.ready_due = self.conns.ready.len();
    }

    fn on_events(&mut self, core: &mut LoopCore, scratch: &mut [u8], batch: &mut Batch<'_>) {
        // One guard for all of them: a callback that panics ends its connection, and the rest goes on.
        while guarded(core, |core| {
            while let Some((token, readiness)) = batch.take(self.conns.service) {
                self.on_event(core, scratch, token, readiness);
            }
        })
        .is_none()
        {
            self.on_input_panicked(core, batch.last);
        }
    }

    fn run_ready(&mut self, core: &mut LoopCore, scratch: &mut [u8]) {
        for _ in 0..std::mem::take(&mut self.conns.ready_due) {
            let Some(key) = self.conns.ready.pop_front() else { break };
            if let Some(conn) = self.conns.slab.get_mut(key) {
                conn.flags.set_in_ready(false);
                if guarded(core, |core| self.serve_input(core, scratch, key)).is_none() {
                    self.on_input_panicked(core, key);
                }
            }
        }
        if self.listener.as_ref().is_some_and(|listener| listener.ready) {
            self.accept(core);
        }
    }

    fn run_posts(&mut self, core: &mut LoopCore, at_most: usize) {
        let mut left = at_most;
        // One guard for all of them: a callback that panics ends itself alone, and the rest goes on.
        while guarded(core, |core| {
            while left > 0
                && let Ok(post) = self.posts.try_recv()
            {
                left -= 1;
                core.stats.posts += 1;
                let Self { handler, conns, client, .. } = self;
                handler.on_post(&mut Context { conns, core, client }, post);
                self.watch(core, What::Post);
            }
        })
        .is_none()
        {
            self.watch(core, What::Post);
        }
    }

    fn on_timer(&mut self, core: &mut LoopCore, timer_key: TimerKey, timer: Timer) {
        core.stats.timers += 1;
        match (timer.conn, timer.kind) {
            (Some(key), kind) => self.on_conn_timer(core, timer_key, key, kind),
            (None, TimerKind::User(token) | TimerKind::Every { token, .. }) => {
                let fired = TimerFired { key: timer_key, conn: None, token };
                self.call(core, What::Timer, |handler, cx| handler.on_timer(cx, fired));
            }
            (None, TimerKind::AcceptRetry) => self.retry_accept(),
            (None, TimerKind::Reconnect) => self.on_reconnect_timer(core),
            (None, _) => {}
        }
    }

    fn run_flush(&mut self, core: &mut LoopCore, scratch: &mut [u8]) {
        if self.conns.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.conns.dirty);
        for key in dirty.drain(..) {
            self.flush(core, scratch, key);
        }
        // The list keeps its memory, and whoever came onto it meanwhile.
        dirty.append(&mut self.conns.dirty);
        self.conns.dirty = dirty;
    }

    fn run_marks(&mut self, core: &mut LoopCore) {
        if self.conns.marks.is_empty() {
            return;
        }
        let mut marks = std::mem::take(&mut self.conns.marks);
        for key in marks.drain(..) {
            self.settle_marks(core, key);
        }
        // What the callbacks sent is compared after it was written, in the next turn.
        marks.append(&mut self.conns.marks);
        self.conns.marks = marks;
    }

    fn run_closes(&mut self, core: &mut LoopCore, scratch: &mut [u8]) {
        // A handler's `on_close` may close others: they are done in the same phase. It ends, for each connection closes once.
        while !self.conns.closing.is_empty() {
            for (key, reason) in std::mem::take(&mut self.conns.closing) {
                self.finish_close(core, scratch, key, reason);
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
        self.call(core, What::Start, |handler, cx| handler.on_start(cx));
    }

    fn command(&mut self, core: &mut LoopCore, id: ConnId, command: ConnCommand) {
        let Self { conns, client, .. } = self;
        let mut cx = Context::<H> { conns, core, client };
        match command {
            ConnCommand::Send(bytes) => {
                // A send that finds nobody is counted there; the sender on the other thread cannot be told any more.
                let _ = cx.send_bytes(id, bytes);
            }
            ConnCommand::Close(why) => cx.close(id, CloseReason::Local(why)),
            ConnCommand::Abort(why) => cx.abort(id, CloseReason::Local(why)),
        }
    }

    fn send_all(&mut self, core: &mut LoopCore, keys: &FxHashSet<Key>, bytes: &Bytes) {
        let Self { conns, client, .. } = self;
        let mut cx = Context::<H> { conns, core, client };
        for key in keys {
            let id = cx.conns.id(*key);
            // A member that closes leaves the group; one that is too far behind is closed for it.
            let _ = cx.send_bytes(id, bytes.clone());
        }
    }

    fn adopt(&mut self, core: &mut LoopCore, stream: Stream, peer: Address) {
        if core.stopping {
            self.share.load.fetch_sub(1, Ordering::Relaxed);
            core.stats.shed += 1;
        } else {
            self.open(core, stream, peer);
        }
    }

    fn listen(&mut self, core: &mut LoopCore, mut listener: Listener) -> std::io::Result<()> {
        if core.stopping {
            return Ok(());
        }
        listener.register(&core.registry, Token::listener(self.conns.service).to_mio())?;
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

    fn looked_up(&mut self, core: &mut LoopCore, attempt: u64, found: LookUp) {
        self.on_looked_up(core, attempt, found);
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
        self.call(core, What::Stop, |handler, cx| handler.on_stop(cx));
    }

    fn close_all(&mut self) {
        for key in self.conns.slab.keys() {
            self.conns.begin_close(key, CloseReason::LoopStopping, false);
        }
    }

    fn abort_all(&mut self, core: &mut LoopCore, scratch: &mut [u8]) {
        for key in self.conns.slab.keys() {
            self.conns.begin_close(key, CloseReason::LoopStopping, true);
        }
        self.run_closes(core, scratch);
        self.run_frees(core);
    }
}

impl<H: Handler> ServiceCell<H> {
    /// An event for the listener, or for a connection that is gone.
    #[cold]
    pub(crate) fn on_other_event(&mut self, core: &mut LoopCore, token: Token) {
        match &mut self.listener {
            // Accepted when the events are done, once per turn.
            Some(listener) if token.is_listener() => listener.ready = true,
            _ => core.stats.stale_events += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::codec::LinesCodec;
    use crate::config::{LoopConfig, ServiceConfig};
    use crate::conn::{Conn, Phase};
    use crate::event_loop::EventLoop;
    use crate::flags::Readiness;
    use crate::handler::OpenInfo;
    use crate::reason::ConnectError;

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

    const ALL: Readiness = Readiness::new(true, true, true, true);
    const WRITABLE: Readiness = Readiness::new(false, true, false, false);

    const SCRATCH: [u8; 4096] = [0; 4096];

    fn service() -> (EventLoop, ServiceCell<Diary>) {
        let (_, posts) = crossbeam_channel::bounded(1);
        let cell = ServiceCell {
            handler: Diary::default(),
            conns: Conns::new(0, 0, ServiceConfig::default()),
            posts,
            listener: None,
            client: None,
            share: ServerShare::default(),
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
            let peer = SocketAddr::from(([127, 0, 0, 1], 9)).into();
            let conn = Conn::new(stream, peer, LinesCodec::new(80), phase, 0);
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
        cell.on_event(&mut event_loop.core, &mut SCRATCH.clone(), old_token, ALL);
        assert_eq!(event_loop.core.stats.stale_events, 1);
        let conn = cell.conns.slab.get(new).unwrap();
        assert!(!conn.flags.readable() && !conn.flags.hang_up() && !conn.flags.failed() && !cell.has_work());
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
        cell.flush(core, &mut SCRATCH.clone(), key);
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
        let conn = cell.conns.slab.get(key).unwrap();
        assert!(conn.phase == Phase::Closing && conn.flags.aborting());
        assert_eq!(cell.conns.closing, [(key, CloseReason::WriteStalled)]);
    }

    #[test]
    fn writable_without_a_peer_is_not_connected() {
        let (mut event_loop, mut cell) = service();
        let (key, token) = cell.add(socket(), Phase::Connecting);
        cell.on_event(&mut event_loop.core, &mut SCRATCH.clone(), token, WRITABLE);
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
        cell.on_event(&mut event_loop.core, &mut SCRATCH.clone(), token, WRITABLE);
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
        cell.on_event(&mut event_loop.core, &mut SCRATCH.clone(), token, WRITABLE);
        cell.run_ready(&mut event_loop.core, &mut SCRATCH.clone());
        cell.run_closes(&mut event_loop.core, &mut SCRATCH.clone());
        cell.run_frees(&mut event_loop.core);
        assert_eq!(cell.handler.0, ["the attempt was given up"]);
        assert_eq!(cell.connections(), 0);
    }
}
