//! What a handler can do from inside a callback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::ClientState;
use crate::codec::Codec as _;
use crate::conn::{Conn, Conns, PauseReason, Phase};
use crate::handle::{ConnHandle, LoopHandle};
use crate::handler::Handler;
use crate::id::{ConnId, Token};
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{CloseReason, ConnectError, SendError};
use crate::slab::Key;
use crate::stream::Stream;
use crate::timer::TimerKey;

/// A handler's way to its connections and its loop, lent to it for one callback.
///
/// Nothing here makes a read or write system call or runs a callback: sends are queued and written at the end of the turn, closes are done after that.
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
        if !self.is_mine(id) {
            return None;
        }
        self.conns.open(id.key())?.user.as_ref()
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
        self.is_mine(id) && self.conns.open(id.key()).is_some()
    }

    /// The address of the peer of an open connection.
    #[must_use]
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        if self.is_mine(id) { self.conns.open(id.key()).map(|conn| conn.peer) } else { None }
    }

    /// Bytes accepted for sending and not yet written.
    #[must_use]
    pub fn unsent(&self, id: ConnId) -> usize {
        if self.is_mine(id) { self.conns.open(id.key()).map_or(0, Conn::unsent) } else { 0 }
    }

    /// Whether `on_high_water` came and `on_low_water` is still to come.
    #[must_use]
    pub fn is_above_high(&self, id: ConnId) -> bool {
        self.is_mine(id) && self.conns.open(id.key()).is_some_and(|conn| conn.above_high)
    }

    /// Connections of this service on this loop, those that are still being closed included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.slab.len()
    }

    /// Queues a copy of `bytes`. All that a turn sends to a connection goes out in one write at its end.
    ///
    /// # Errors
    /// When the connection is gone or closing, or holds too much unsent output (it is then aborted).
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), SendError> {
        self.queue(id, |output| output.push_copy(bytes))
    }

    /// Queues `bytes` without copying, unless they are so few that a copy is cheaper. One `Bytes` can be sent to many connections.
    ///
    /// # Errors
    /// Like [`Context::send`].
    pub fn send_bytes(&mut self, id: ConnId, bytes: Bytes) -> Result<(), SendError> {
        self.queue(id, |output| output.push_bytes(bytes))
    }

    /// Queues `payload` as one frame of the connection's codec.
    ///
    /// # Errors
    /// Like [`Context::send`], and when the codec cannot carry the payload.
    pub fn send_frame(&mut self, id: ConnId, payload: &[u8]) -> Result<(), SendError> {
        let mut frame = Vec::with_capacity(payload.len() + 8);
        if let Some(conn) = self.open_mut(id) {
            conn.codec.encode(payload, &mut frame)?;
        }
        // Says what is wrong with a connection that is not open.
        self.send(id, &frame)
    }

    fn queue(
        &mut self,
        id: ConnId,
        push: impl FnOnce(&mut crate::buffer::OutputQueue),
    ) -> Result<(), SendError> {
        let key = id.key();
        let limits = (self.conns.config.output_high, self.conns.config.output_max);
        let found = if self.is_mine(id) { self.conns.slab.get_mut(key) } else { None };
        let Some(conn) = found else {
            self.core.stats.stale_sends += 1;
            return Err(SendError::Gone);
        };
        match conn.phase {
            Phase::Open => {}
            Phase::Connecting => return Err(SendError::NotOpen),
            _ => return Err(SendError::Closing),
        }
        let output = conn.output.get_or_insert_with(|| self.core.take_output());
        push(output);
        let unsent = output.len();
        if !conn.in_dirty {
            conn.in_dirty = true;
            self.conns.dirty.push(key);
        }
        if unsent >= limits.0 && !conn.in_marks {
            conn.in_marks = true;
            self.conns.marks.push(key);
        }
        if unsent > limits.1 {
            self.conns.begin_close(key, CloseReason::OutputLimit, true);
            return Err(SendError::OutputLimit);
        }
        Ok(())
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
            conn.pause(reason);
        }
    }

    /// Takes one reason to pause away. Goes on in this turn or the next, never inside this call.
    pub fn resume(&mut self, id: ConnId, reason: PauseReason) {
        let Some(conn) = self.open_mut(id) else { return };
        conn.unpause(reason);
        if conn.wants_drive() {
            self.conns.list_ready(id.key());
        }
    }

    /// Sets a timer of the service: `on_timer` gets `token` after `delay`, in a later turn even for a delay of zero, rounded up to a millisecond.
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> TimerKey {
        self.insert_timer(delay, None, token)
    }

    /// Sets a timer that belongs to a connection: it is cancelled when the connection is closed. For a connection that is closing or gone it is never set.
    pub fn set_conn_timer(&mut self, id: ConnId, delay: Duration, token: u64) -> TimerKey {
        let timer = self.insert_timer(delay, Some(id.key()), token);
        let found = if self.is_mine(id) { self.conns.slab.get_mut(id.key()) } else { None };
        match found.filter(|conn| matches!(conn.phase, Phase::Open | Phase::Connecting)) {
            Some(conn) => conn.user_timers.push(timer),
            None => {
                self.core.timers.cancel(timer);
            }
        }
        timer
    }

    fn insert_timer(&mut self, delay: Duration, conn: Option<Key>, token: u64) -> TimerKey {
        let timer = Timer { service: self.conns.service, conn, kind: TimerKind::User(token) };
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
            conn.user_timers.retain(|timer| *timer != key);
        }
    }

    /// Begins to connect. Ends in exactly one of `on_open` and `on_connect_failed` for the name that is returned.
    ///
    /// # Errors
    /// When the attempt cannot even begin; then no callback follows.
    pub fn connect(&mut self, address: SocketAddr, codec: H::Codec) -> Result<ConnId, ConnectError> {
        if self.core.stopping {
            return Err(ConnectError::Stopping);
        }
        let stream = Stream::connect(address)?;
        let key = self
            .conns
            .slab
            .insert(Conn::new(stream, address, codec, Phase::Connecting))
            .map_err(|_| ConnectError::Full)?;
        let deadline = self.core.deadline(self.conns.config.connect_timeout);
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        let life_timer = self.core.timers.insert(deadline, timer);
        let token = Token { service: self.conns.service, key }.to_mio();
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.life_timer = Some(life_timer);
            if let Err(error) = self.core.registry.register(
                &mut conn.stream,
                token,
                mio::Interest::READABLE | mio::Interest::WRITABLE,
            ) {
                self.core.timers.cancel(life_timer);
                self.conns.slab.remove(key);
                return Err(error.into());
            }
        }
        Ok(self.conns.id(self.core, key))
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
        keys.into_iter()
            .filter(|key| self.conns.open(*key).is_some())
            .map(|key| self.conns.id(self.core, key))
            .collect()
    }

    fn is_mine(&self, id: ConnId) -> bool {
        id.loop_index() == self.core.index && id.service() == u16::from(self.conns.service)
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
