//! What a user writes: the callbacks of a service.

use std::time::Duration;

use crate::address::Address;
use crate::codec::{Codec, FrameError};
use crate::context::Context;
use crate::id::ConnId;
use crate::reason::{CloseReason, ConnectError};
use crate::timer::TimerKey;

/// What is known of a connection when it opens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenInfo {
    /// The other end's address: behind a proxy that sends a PROXY header, the client's own.
    pub peer: Address,
    /// The proxy's address, when the connection came through one that said for whom.
    pub proxy: Option<Address>,
    /// Whether this side connected (`true`) or accepted (`false`).
    pub outbound: bool,
}

/// A timer that fired.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TimerFired {
    /// The key that setting it gave.
    pub key: TimerKey,
    /// The connection it was set for, which is open; `None` for the service's own timers.
    pub conn: Option<ConnId>,
    /// The number it was set with.
    pub token: u64,
}

/// A service on a loop: its callbacks, its state per connection, and the messages that other threads may send it.
///
/// All callbacks run on the loop's thread, one at a time: a handler never runs inside a handler. None may block, for everybody on the loop
/// would wait with it. A panic in a callback closes the connection it was for and leaves the others alone.
///
/// The order of a turn, and so of the callbacks, is told in the [crate's documentation](crate#one-turn).
pub trait Handler: Sized + 'static {
    /// What the service keeps for each connection, from `on_open` to `on_close`.
    type Conn: 'static;
    /// What other threads can send to the service.
    type Post: Send + 'static;
    /// How the byte stream is cut into frames.
    type Codec: Codec + 'static;

    /// A name for logs.
    fn name(&self) -> &'static str {
        "service"
    }

    /// The codec of a new connection.
    fn codec(&mut self) -> Self::Codec;

    /// A connection opened. What is returned is the connection's state; it can be reached by `cx.conn_mut(id)` as soon as this returned. Should this
    /// panic there is no state, and so no `on_close`: the connection is reset.
    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, info: &OpenInfo) -> Self::Conn;

    /// A whole frame arrived. It borrows from the loop's read buffer: copy what is to be kept.
    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, frame: &[u8]);

    /// The peer's bytes are no frame. Nothing more is read from it. By default the connection is closed.
    fn on_frame_error(&mut self, cx: &mut Context<'_, Self>, id: ConnId, error: FrameError) {
        let _ = error;
        cx.close(id, CloseReason::BadFrame);
    }

    /// The peer shut down its writing side; it may still read. By default the connection is closed, after what was sent has gone out.
    fn on_eof(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        cx.close(id, CloseReason::PeerClosed);
    }

    /// Unsent output is above the high mark after the turn's writes. Comes once until `on_low_water`.
    fn on_high_water(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        let _ = (cx, id);
    }

    /// Unsent output fell to the low mark, after `on_high_water`. Reading goes on if output had paused it.
    fn on_low_water(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        let _ = (cx, id);
    }

    /// All that was sent is written, as far as the kernel takes it; comes once for each [`Context::notify_drained`].
    fn on_drained(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        let _ = (cx, id);
    }

    /// The connection is closed: exactly once for each `on_open` that returned, and nothing comes after it. Output that was accepted before a
    /// graceful close is still being delivered by the loop when this is called.
    fn on_close(&mut self, cx: &mut Context<'_, Self>, id: ConnId, state: Self::Conn, reason: CloseReason) {
        let _ = (cx, id, state, reason);
    }

    /// An attempt to connect failed. For a [`crate::TcpClient`] that reconnects, `retry_in` says when it tries again.
    fn on_connect_failed(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: ConnId,
        error: ConnectError,
        retry_in: Option<Duration>,
    ) {
        let _ = (cx, id, error, retry_in);
    }

    /// A message from another thread.
    fn on_post(&mut self, cx: &mut Context<'_, Self>, post: Self::Post);

    /// A timer fired.
    fn on_timer(&mut self, cx: &mut Context<'_, Self>, timer: TimerFired) {
        let _ = (cx, timer);
    }

    /// The service was put on its loop.
    fn on_start(&mut self, cx: &mut Context<'_, Self>) {
        let _ = cx;
    }

    /// The loop begins to stop: nothing more is accepted, and every connection will be closed with [`CloseReason::LoopStopping`], in this turn, or after the
    /// time for draining if the loop has one.
    fn on_stop(&mut self, cx: &mut Context<'_, Self>) {
        let _ = cx;
    }
}
