//! What a handler can do from inside a callback.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};

use crate::address::Address;
use crate::client::ClientState;
use crate::codec::Codec as _;
use crate::conn::{Conn, ConnStats, Conns, PauseReason, Phase};
use crate::group::Group;
use crate::handle::{ConnHandle, LoopHandle};
use crate::handler::Handler;
use crate::id::{ConnId, Token};
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::output_queue::COPY_MAX;
use crate::reason::{CloseReason, ConnectError, SendError};
use crate::slab::Key;
use crate::stream::Stream;
use crate::timer::TimerKey;

/// From here on a copy into the output queue costs more than a write of its own. Measured with echoed blocks of 1 to 64 KiB: a copy of 16 KiB and a buffer for
/// it, on a hundred connections, made a message 1.4 times as dear.
const WRITE_AT_ONCE_MIN: usize = 8 * 1024;

/// A handler's way to its connections and its loop, lent to it for one callback.
///
/// Nothing here runs a callback: sends are queued and written between callbacks, closes are done at the end of the turn.
///
/// It never leaves the loop's thread:
///
/// ```compile_fail
/// # use reactor::{Context, Handler};
/// fn elsewhere<H: Handler<Conn: Send, Codec: Send> + Send>(cx: &mut Context<'_, H>) {
///     std::thread::scope(|scope| {
///         scope.spawn(move || cx.now()); // a context is !Send
///     });
/// }
/// ```
///
/// On its own thread the same call is fine:
///
/// ```
/// # use reactor::{Context, Handler};
/// fn here<H: Handler<Conn: Send, Codec: Send> + Send>(cx: &mut Context<'_, H>) {
///     let now = move || cx.now();
///     now();
/// }
/// ```
pub struct Context<'a, H: Handler> {
    pub(crate) conns: &'a mut Conns<H>,
    pub(crate) core: &'a mut LoopCore,
    pub(crate) client: &'a mut Option<ClientState>,
}

impl<H: Handler> Context<'_, H> {
    /// The time of this turn. Monotonic; read once per turn, so cheap and the same for all that happens in it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// The handler's state of an open connection.
    #[must_use]
    pub fn conn(&self, id: ConnId) -> Option<&H::Conn> {
        self.open_ref(id)?.user.as_ref()
    }

    /// The handler's state of an open connection.
    #[must_use]
    pub fn conn_mut(&mut self, id: ConnId) -> Option<&mut H::Conn> {
        self.open_mut(id)?.user.as_mut()
    }

    /// The codec of an open connection, to change its limits.
    #[must_use]
    pub fn codec_mut(&mut self, id: ConnId) -> Option<&mut H::Codec> {
        Some(&mut self.open_mut(id)?.codec)
    }

    /// Whether a connection of this service has this name and is open.
    #[must_use]
    pub fn is_open(&self, id: ConnId) -> bool {
        self.open_ref(id).is_some()
    }

    /// The address of the peer of an open connection: behind a proxy that sends a PROXY header, the client's own.
    #[must_use]
    pub fn peer(&self, id: ConnId) -> Option<&Address> {
        self.open_ref(id).map(|conn| &conn.peer)
    }

    /// The address of our end of an open connection. Asked of the system once, then remembered.
    #[must_use]
    pub fn local_address(&mut self, id: ConnId) -> Option<Address> {
        let conn = self.open_mut(id)?;
        if let Some(known) = conn.extras().and_then(|extras| extras.local.clone()) {
            return Some(known);
        }
        let local = conn.stream.local_address().ok()?;
        conn.make_extras().local = Some(local.clone());
        Some(local)
    }

    /// What the TLS handshake of an open connection agreed on; `None` for one without TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self, id: ConnId) -> Option<crate::tls::TlsInfo> {
        self.open_ref(id)?.stream.tls().map(crate::tls::TlsStream::info)
    }

    /// What an open connection has moved so far.
    #[must_use]
    pub fn conn_stats(&self, id: ConnId) -> Option<ConnStats> {
        let conn = self.open_ref(id)?;
        Some(ConnStats {
            opened: self.core.instant_of(conn.opened_ms),
            bytes_in: conn.bytes_in,
            bytes_out: conn.bytes_out,
            frames_in: conn.frames_in,
            unsent: conn.unsent() + self.conns.replies.len_for(id),
        })
    }

    /// Bytes accepted for sending and not yet written.
    #[must_use]
    pub fn unsent(&self, id: ConnId) -> usize {
        self.open_ref(id).map_or(0, Conn::unsent) + self.conns.replies.len_for(id)
    }

    /// Whether `on_high_water` came and `on_low_water` is still to come.
    #[must_use]
    pub fn is_above_high(&self, id: ConnId) -> bool {
        self.open_ref(id).is_some_and(|conn| conn.flags.above_high())
    }

    /// Connections of this service on this loop, those that are still being closed included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.slab.len()
    }

    /// Queues a copy of `bytes`. What a callback sends to its own connection goes out in one write after the callbacks of this input, what a turn sends to
    /// others in one write at its end. Only 8 KiB or more that nothing waits before are written at once, which spares the copy.
    ///
    /// # Errors
    /// When the connection is gone or closing, or holds too much unsent output (it is then aborted).
    #[inline]
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        if bytes.len() < WRITE_AT_ONCE_MIN {
            if self.conns.replies.push(id, bytes) {
                return Ok(());
            }
            return self.queue(id, |output| output.push_copy(bytes));
        }
        let written = self.write_at_once(id, bytes);
        let rest = bytes.get(written..).unwrap_or_default();
        if rest.is_empty() { Ok(()) } else { self.queue(id, |output| output.push_copy(rest)) }
    }

    /// Writes as much of `bytes` as the socket takes, if nothing waits before them. Says how much that was; what goes wrong is for who queues the rest.
    fn write_at_once(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let now_ms = self.core.now_ms;
        if self.conns.replies.len_for(id) > 0 {
            return 0;
        }
        let Some(conn) = self.open_mut(id) else { return 0 };
        if conn.output.is_some() || !conn.flags.writable() || conn.flags.write_shut() {
            return 0;
        }
        let result = std::io::Write::write(&mut conn.stream, bytes);
        let written = *result.as_ref().unwrap_or(&0);
        conn.flags.set_writable(written == bytes.len());
        conn.bytes_out += written as u64;
        conn.last_out_ms = now_ms;
        self.core.stats.writes += 1;
        self.core.stats.bytes_out += written as u64;
        match result {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.conns.begin_close(id.key(), CloseReason::from_io(&error), true);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                // It may take them at the turn's end.
                if let Some(conn) = self.open_mut(id) {
                    conn.flags.set_writable(true);
                }
            }
            _ => {}
        }
        written
    }

    /// Queues `bytes` without copying, unless they are so few that a copy is cheaper. One `Bytes` can be sent to many connections.
    ///
    /// # Errors
    /// Like [`Context::send`].
    pub fn send_bytes(&mut self, id: ConnId, mut bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() >= WRITE_AT_ONCE_MIN {
            let written = self.write_at_once(id, &bytes);
            if written == bytes.len() {
                return Ok(());
            }
            bytes.advance(written);
        } else if bytes.len() <= COPY_MAX && self.conns.replies.push(id, &bytes) {
            return Ok(());
        }
        self.queue(id, |output| output.push_bytes(bytes))
    }

    /// Queues `payload` as one frame of the connection's codec.
    ///
    /// # Errors
    /// Like [`Context::send`], and when the codec cannot carry the payload.
    pub fn send_frame(&mut self, id: ConnId, payload: &[u8]) -> Result<(), SendError> {
        let mut frame = self.core.take_frame();
        let encoded = match self.open_mut(id) {
            Some(conn) => conn.codec.encode(payload, &mut frame),
            None => Ok(()),
        };
        // Says what is wrong with a connection that is not open.
        let result = encoded.map_err(SendError::from).and_then(|()| self.send(id, &frame));
        self.core.give_frame(frame);
        result
    }

    #[inline]
    fn queue(
        &mut self,
        id: ConnId,
        push: impl FnOnce(&mut crate::output_queue::OutputQueue),
    ) -> Result<(), SendError> {
        let key = id.key();
        self.conns.spill_replies_of(key);
        let found = if self.is_mine(id) { self.conns.slab.get_mut(key) } else { None };
        let Some(conn) = found.filter(|conn| conn.phase == Phase::Open && !conn.flags.write_shut()) else {
            return Err(self.why_not_open(id));
        };
        let output = match &mut conn.output {
            Some(output) => output,
            none => none.insert(self.core.take_output()),
        };
        push(output);
        let unsent = output.len();
        if !conn.flags.in_dirty() {
            conn.flags.set_in_dirty(true);
            self.conns.dirty.push(key);
        }
        if unsent >= self.conns.config.output_high { self.rose(key, unsent) } else { Ok(()) }
    }

    #[cold]
    fn why_not_open(&mut self, id: ConnId) -> SendError {
        let found = if self.is_mine(id) { self.conns.slab.get(id.key()) } else { None };
        match found.map(|conn| conn.phase) {
            None => {
                self.core.stats.stale_sends += 1;
                SendError::Gone
            }
            Some(Phase::Connecting | Phase::Preface) => SendError::NotOpen,
            Some(_) => SendError::Closing,
        }
    }

    /// A connection's unsent output is at the high mark, for now.
    #[cold]
    fn rose(&mut self, key: Key, unsent: usize) -> Result<(), SendError> {
        if let Some(conn) = self.conns.slab.get_mut(key)
            && !conn.flags.in_marks()
        {
            conn.flags.set_in_marks(true);
            self.conns.marks.push(key);
        }
        if unsent > self.conns.config.output_max {
            self.conns.begin_close(key, CloseReason::OutputLimit, true);
            return Err(SendError::OutputLimit);
        }
        Ok(())
    }

    /// Asks for one `on_drained`: when all that was accepted for sending on this connection is written, in this turn or later. For who sends a great deal: the next
    /// piece when the last is gone.
    pub fn notify_drained(&mut self, id: ConnId) {
        let Some(conn) = self.open_mut(id) else { return };
        conn.flags.set_tells_drained(true);
        if !conn.flags.in_marks() {
            conn.flags.set_in_marks(true);
            self.conns.marks.push(id.key());
        }
    }

    /// Shuts our writing side down after what was sent has gone out; the peer sees the end of its input. Reading goes on, and the connection is closed by
    /// itself when the peer has shut down its side too. Nothing more can be sent.
    pub fn shutdown_write(&mut self, id: ConnId) {
        self.conns.spill_replies_of(id.key());
        if let Some(conn) = self.open_mut(id)
            && !conn.flags.write_shut()
        {
            conn.flags.set_write_shut(true);
            self.conns.list_dirty(id.key());
        }
    }

    /// From now on `source` is read only while the unsent output of `sink` is not high: for a proxy, which then holds no more than the marks allow. Both are
    /// connections of this service. A source has one sink; a sink may have many sources. Ends with either connection. Answers whether both are open.
    pub fn link(&mut self, source: ConnId, sink: ConnId) -> bool {
        self.is_mine(source) && self.is_mine(sink) && self.conns.link(source.key(), sink.key())
    }

    /// Undoes [`Context::link`].
    pub fn unlink(&mut self, source: ConnId) {
        if self.is_mine(source) {
            self.conns.unlink_source(source.key());
        }
    }

    /// Makes an open connection a member of a group, until it leaves or closes. `false` when it is one already, is not open, or the group does not know this
    /// loop.
    pub fn join(&mut self, id: ConnId, group: &Group) -> bool {
        if self.open_ref(id).is_none() {
            return false;
        }
        let joined = self.core.groups.join(group, &self.core.shared, self.conns.service, id.key());
        if joined && let Some(conn) = self.open_mut(id) {
            conn.make_extras().groups.push(group.id());
        }
        joined
    }

    /// Ends a membership. What is no member stays none.
    pub fn leave(&mut self, id: ConnId, group: &Group) {
        let Some(extras) = self.open_mut(id).and_then(|conn| conn.extras_mut()) else { return };
        extras.groups.retain(|known| *known != group.id());
        self.core.groups.leave(group.id(), &self.core.shared, self.conns.service, id.key());
    }

    /// Closes the connection gracefully: `on_close` comes at the end of this turn, and what was sent before is still delivered, within the linger
    /// timeout. Closing twice, or what is gone, does nothing. An attempt to connect is given up: `on_connect_failed` comes at the end of this turn.
    pub fn close(&mut self, id: ConnId, reason: CloseReason) {
        if self.is_mine(id) {
            self.conns.begin_close(id.key(), reason, false);
        }
    }

    /// Closes the connection at once with a reset: what is unsent is discarded, also what a graceful close still delivers. `on_close` comes at the end
    /// of this turn, unless it came already.
    pub fn abort(&mut self, id: ConnId, reason: CloseReason) {
        if self.is_mine(id) {
            self.conns.begin_close(id.key(), reason, true);
        }
    }

    /// Stops reading from the connection until [`Context::resume`] took this and every other reason away. Frames that were read already wait too.
    pub fn pause(&mut self, id: ConnId, reason: PauseReason) {
        if let Some(conn) = self.open_mut(id) {
            conn.flags.pause(reason);
        }
    }

    /// Takes one reason to pause away. Goes on in this turn or the next, never inside this call.
    pub fn resume(&mut self, id: ConnId, reason: PauseReason) {
        let Some(conn) = self.open_mut(id) else { return };
        conn.flags.unpause(reason);
        if conn.wants_drive() {
            self.conns.list_ready(id.key());
        }
    }

    /// Sets a timer of the service: `on_timer` gets `token` after `delay`, in a later turn even for a delay of zero, rounded up to a millisecond.
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> TimerKey {
        self.insert_timer(delay, None, TimerKind::User(token))
    }

    /// Sets a timer of the service that fires every `period` (at least a millisecond), the first time after one, until it is cancelled. It keeps its
    /// rhythm: a firing that comes late does not move those after it, and those that were missed are left out.
    pub fn set_interval(&mut self, period: Duration, token: u64) -> TimerKey {
        let every_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX).max(1);
        let period = Duration::from_millis(u64::from(every_ms));
        self.insert_timer(period, None, TimerKind::Every { token, every_ms })
    }

    /// Sets a timer that belongs to a connection: it is cancelled when the connection is closed. For a connection that is closing or gone it is never set.
    pub fn set_conn_timer(&mut self, id: ConnId, delay: Duration, token: u64) -> TimerKey {
        let timer = self.insert_timer(delay, Some(id.key()), TimerKind::User(token));
        let found = if self.is_mine(id) { self.conns.slab.get_mut(id.key()) } else { None };
        match found.filter(|conn| matches!(conn.phase, Phase::Open | Phase::Connecting)) {
            Some(conn) => conn.make_extras().user_timers.push(timer),
            None => {
                self.core.timers.cancel(timer);
            }
        }
        timer
    }

    fn insert_timer(&mut self, delay: Duration, conn: Option<Key>, kind: TimerKind) -> TimerKey {
        let timer = Timer { service: self.conns.service, conn, kind };
        let deadline = self.core.deadline(delay);
        self.core.timers.insert(deadline, timer)
    }

    /// Cancels a timer. One that fired or was cancelled already is nothing. Cancelled in the turn it is due in, it does not fire.
    pub fn cancel_timer(&mut self, key: TimerKey) {
        if let Some(Timer { service, conn: Some(owner), kind: TimerKind::User(_) }) =
            self.core.timers.cancel(key)
            && service == self.conns.service
            && let Some(conn) = self.conns.slab.get_mut(owner)
        {
            conn.forget_timer(key);
        }
    }

    /// Begins to connect. Ends in exactly one of `on_open` and `on_connect_failed` for the name that is returned.
    ///
    /// # Errors
    /// When the attempt cannot even begin; then no callback follows.
    pub fn connect(&mut self, address: impl Into<Address>, codec: H::Codec) -> Result<ConnId, ConnectError> {
        if self.core.stopping {
            return Err(ConnectError::Stopping);
        }
        let address = address.into();
        let stream = Stream::connect(&self.core.registry, &address)?.secured(&self.conns.config, true)?;
        let key = self
            .conns
            .slab
            .insert(Conn::new(stream, address, codec, Phase::Connecting, self.core.now_ms))
            .map_err(|_| ConnectError::Full)?;
        let deadline = self.core.deadline(self.conns.config.connect_timeout);
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        let life_timer = self.core.timers.insert(deadline, timer);
        let token = Token { service: self.conns.service, key }.to_mio();
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.life_timer = Some(life_timer);
            if let Err(error) = conn.stream.register(&self.core.registry, token) {
                self.core.timers.cancel(life_timer);
                self.conns.slab.remove(key);
                return Err(error.into());
            }
        }
        Ok(self.conns.id(key))
    }

    /// For the service of a [`crate::TcpClient`]: no further attempts to connect. An open connection stays.
    pub fn stop_reconnecting(&mut self) {
        if let Some(client) = self.client {
            client.stop(self.core);
        }
    }

    /// A handle on this loop, for other threads.
    #[must_use]
    pub fn loop_handle(&self) -> LoopHandle {
        self.core.handle()
    }

    /// A handle on a connection, for other threads.
    #[must_use]
    pub fn conn_handle(&self, id: ConnId) -> ConnHandle {
        self.core.handle().conn(id)
    }

    /// Names of all open connections of this service: for work that touches everybody, not for hot paths.
    #[must_use]
    pub fn open_conns(&self) -> Vec<ConnId> {
        let keys = self.conns.slab.keys();
        keys.into_iter().filter(|key| self.conns.open(*key).is_some()).map(|key| self.conns.id(key)).collect()
    }

    #[inline]
    fn is_mine(&self, id: ConnId) -> bool {
        id.owner() == self.conns.owner
    }

    #[inline]
    fn open_ref(&self, id: ConnId) -> Option<&Conn<H>> {
        if self.is_mine(id) { self.conns.open(id.key()) } else { None }
    }

    fn open_mut(&mut self, id: ConnId) -> Option<&mut Conn<H>> {
        if self.is_mine(id) { self.conns.open_mut(id.key()) } else { None }
    }
}

impl<H: Handler> std::fmt::Debug for Context<'_, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("loop", &self.core.index).finish_non_exhaustive()
    }
}
