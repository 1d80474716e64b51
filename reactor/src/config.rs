//! The knobs of loops, services and clients, each with its unit and its reason.

use std::net::SocketAddr;
use std::time::Duration;

use crate::backoff::BackoffConfig;

/// How an event loop is set up. The defaults suit a server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoopConfig {
    /// Bytes of the loop's one read buffer. 64 KiB: a smaller one costs extra system calls on large messages.
    pub scratch_bytes: usize,
    /// Events fetched by one wait.
    pub events_per_wait: usize,
    /// Posted messages and tasks run per turn and queue, so that posts never starve sockets.
    pub posts_per_turn: usize,
    /// Tasks and commands from other threads that may be waiting.
    pub tasks_max: usize,
    /// How long `stop` lets connections send what they still hold.
    pub stop_deadline: Duration,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            scratch_bytes: 64 * 1024,
            events_per_wait: 1024,
            posts_per_turn: 256,
            tasks_max: 65_536,
            stop_deadline: Duration::from_secs(5),
        }
    }
}

/// The limits of each connection of a service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Bytes read from one connection per turn; what is left waits for the next turn, so that a hot connection starves nobody.
    pub read_bytes_per_turn: usize,
    /// Frames handed to the handler per connection and turn.
    pub frames_per_turn: u32,
    /// Unsent bytes at which `on_high_water` comes.
    pub output_high: usize,
    /// Unsent bytes at which reading from the connection pauses until the low mark. At least `output_high`; `usize::MAX`: never. Only one of two
    /// peers should pause for this: two that do can wait for each other until the write stall ends it.
    pub output_pauses_reading: usize,
    /// Unsent bytes at which, after the high mark, `on_low_water` comes and reading goes on.
    pub output_low: usize,
    /// Unsent bytes above which the connection is aborted.
    pub output_max: usize,
    /// How long a peer may take nothing of what waits for it. `None`: for ever. What counts is what the kernel takes from us: behind a full kernel
    /// buffer (up to 4 MiB on one machine) a peer has to read about a third of it before it shows, so this should be seconds, not milliseconds.
    pub write_stall: Option<Duration>,
    /// How long a frame may take from its first byte to its last; not renewed by each byte. `None`: for ever.
    pub frame_deadline: Option<Duration>,
    /// How long a closed connection may take to deliver its output and to be closed by the peer.
    pub linger: Duration,
    /// Connections accepted per turn, so that an accept storm starves nobody.
    pub accepts_per_turn: u32,
    /// Connections of the whole server; further ones are accepted and closed at once. `usize::MAX`: no limit.
    pub connections_max: usize,
    /// Whether small writes go out at once (`TCP_NODELAY`). The loop coalesces a turn's writes itself.
    pub no_delay: bool,
    /// How long an attempt to connect may take.
    pub connect_timeout: Duration,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            read_bytes_per_turn: 256 * 1024,
            frames_per_turn: 512,
            output_high: 256 * 1024,
            output_pauses_reading: 256 * 1024,
            output_low: 64 * 1024,
            output_max: 16 * 1024 * 1024,
            write_stall: Some(Duration::from_secs(30)),
            frame_deadline: Some(Duration::from_secs(30)),
            linger: Duration::from_secs(5),
            accepts_per_turn: 64,
            connections_max: usize::MAX,
            no_delay: true,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Where a [`crate::TcpClient`] connects to and how it comes back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The addresses, tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// Whether to connect again after a failed attempt or a lost connection.
    pub reconnect: bool,
    /// The waits between attempts.
    pub backoff: BackoffConfig,
    /// The limits of its connection.
    pub service: ServiceConfig,
}

impl ClientConfig {
    /// A client of these addresses that reconnects with full-jitter back-off.
    ///
    /// Its unsent output does not pause its reading: the server pauses for the client's sake, and were both to wait for the other to read, neither
    /// would.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        let service = ServiceConfig { output_pauses_reading: usize::MAX, ..ServiceConfig::default() };
        Self { addresses, reconnect: true, backoff: BackoffConfig::default(), service }
    }
}
