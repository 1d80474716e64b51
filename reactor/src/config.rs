//! The knobs of loops, services and clients, each with its unit and its reason.

use std::time::Duration;

use ipnet::IpNet;

use crate::backoff::BackoffConfig;
use crate::resolve::Endpoint;

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
    /// How long, after a stop was asked for, connections live on before they are closed: time for handlers to say good-bye and for peers to leave by
    /// themselves. New ones are not accepted meanwhile.
    pub stop_drain: Duration,
    /// How long a stop may take in all, draining included; what still lives then is aborted.
    pub stop_deadline: Duration,
    /// How long a loop without work looks again and again before it sleeps. A sleep and a wake-up cost some 30 µs of latency, looking costs the CPU. Zero:
    /// sleep at once, which is right wherever cores are shared.
    pub spin: Duration,
    /// The processors that the threads of a pool are pinned to, loop by loop, in turn. Empty: wherever the system likes.
    pub pin_to_cpus: Vec<usize>,
    /// Steps of TLS handshakes per turn; those behind them come in the next, so that a storm of new connections does not hold up the old ones. One step of a
    /// server's is a signature: 0.1 ms with a P-256 key, ten times that with RSA.
    pub handshakes_per_turn: u32,
    /// A callback that takes longer than this is reported with its handler's name, for everybody on the loop waited for it. `None`: no reports.
    pub slow_callback: Option<Duration>,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            scratch_bytes: 64 * 1024,
            events_per_wait: 1024,
            posts_per_turn: 256,
            tasks_max: 65_536,
            stop_drain: Duration::ZERO,
            stop_deadline: Duration::from_secs(5),
            spin: Duration::ZERO,
            pin_to_cpus: Vec::new(),
            handshakes_per_turn: 8,
            slow_callback: Some(Duration::from_millis(25)),
        }
    }
}

/// How a server of several loops spreads its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptMode {
    /// The first loop accepts, and hands each connection to the loop that has the fewest.
    #[default]
    LeastConnections,
    /// The first loop accepts, and hands connections to the loops in turn.
    RoundRobin,
    /// Every loop has a listening socket of its own on the same address (`SO_REUSEPORT`), and the kernel spreads by the hash of the client's address: no
    /// hand-off between threads, but uneven with few clients. TCP only.
    ReusePort,
}

/// Options of TCP sockets. Accepted ones have them from their first byte on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Whether small writes go out at once (`TCP_NODELAY`). The loop coalesces a turn's writes itself.
    pub no_delay: bool,
    /// Probes on silent connections, so that a peer that vanished is noticed by the system. `None`: none, which suits protocols with heartbeats of their
    /// own.
    pub keepalive: Option<Keepalive>,
    /// How long sent data may stay unacknowledged before the system gives the connection up (`TCP_USER_TIMEOUT`, where it exists). `None`: the system's
    /// choice, often a quarter of an hour.
    pub user_timeout: Option<Duration>,
}

/// When and how often the system probes a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe. Whole seconds.
    pub idle: Duration,
    /// Between two probes. Whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection counts as dead.
    pub probes: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { no_delay: true, keepalive: None, user_timeout: None }
    }
}

impl SocketOptions {
    pub(crate) fn apply(&self, socket: &socket2::Socket) -> std::io::Result<()> {
        if self.no_delay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(Keepalive { idle, interval, probes }) = self.keepalive {
            let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval);
            socket.set_tcp_keepalive(&keepalive.with_retries(probes))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
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
    /// Bytes per second at which a frame must come on average, from a second after its first byte on. It lets a large frame have the time it needs while
    /// one that trickles ends early. `None`: any rate within the deadline.
    pub frame_rate_min: Option<u32>,
    /// How long a connection may be without any byte in either direction. `None`, here and in the two below: for ever. Looked at by a timer that costs
    /// nothing per byte, so a connection may live longer by up to a quarter of this.
    pub idle: Option<Duration>,
    /// How long the peer may be silent.
    pub idle_read: Option<Duration>,
    /// How long nothing may be written to the peer.
    pub idle_write: Option<Duration>,
    /// How long a closed connection may take to deliver its output and to be closed by the peer.
    pub linger: Duration,
    /// How loops share the connections of a server.
    pub accept: AcceptMode,
    /// Connections that the kernel queues until they are accepted; it cuts the number to its own limit (`net.core.somaxconn`).
    pub backlog: i32,
    /// Connections accepted per turn, so that an accept storm starves nobody.
    pub accepts_per_turn: u32,
    /// Connections of the whole server; further ones are accepted and closed at once. `usize::MAX`: no limit.
    pub connections_max: usize,
    /// Connections from one IP address (for IPv6, one /64 network, for that is what one customer has); further ones are closed at once. `usize::MAX`: no
    /// limit.
    pub connections_per_address_max: usize,
    /// Options of TCP sockets.
    pub socket: SocketOptions,
    /// The proxies that put a PROXY protocol header before each connection's bytes, which names the real client. A connection from one of them must begin
    /// with a header; from anybody else a header is data like any other.
    pub proxies: Vec<IpNet>,
    /// TLS for the connections that are accepted: with this configuration, after the PROXY header where there is one.
    #[cfg(feature = "tls")]
    pub tls_server: Option<std::sync::Arc<rustls::ServerConfig>>,
    /// TLS for the connections that are made.
    #[cfg(feature = "tls")]
    pub tls_client: Option<crate::tls::TlsClient>,
    /// How long what comes before the first frame may take: a PROXY header, a TLS handshake.
    pub preface_timeout: Duration,
    /// How long an attempt to connect may take, looking up the name and a TLS handshake included.
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
            frame_rate_min: None,
            idle: None,
            idle_read: None,
            idle_write: None,
            linger: Duration::from_secs(5),
            accept: AcceptMode::default(),
            backlog: 4096,
            accepts_per_turn: 64,
            connections_max: usize::MAX,
            connections_per_address_max: usize::MAX,
            socket: SocketOptions::default(),
            proxies: Vec::new(),
            #[cfg(feature = "tls")]
            tls_server: None,
            #[cfg(feature = "tls")]
            tls_client: None,
            preface_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Where a [`crate::TcpClient`] connects to and how it comes back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Where to connect to, tried in turn. A name is looked up anew for each attempt, and all its addresses are tried.
    pub endpoints: Vec<Endpoint>,
    /// Whether to connect again after a failed attempt or a lost connection.
    pub reconnect: bool,
    /// The waits between attempts.
    pub backoff: BackoffConfig,
    /// The limits of its connection.
    pub service: ServiceConfig,
}

impl ClientConfig {
    /// A client of these endpoints that reconnects with full-jitter back-off.
    ///
    /// Its unsent output does not pause its reading: the server pauses for the client's sake, and were both to wait for the other to read, neither
    /// would.
    #[must_use]
    pub fn new<E: Into<Endpoint>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        let service = ServiceConfig { output_pauses_reading: usize::MAX, ..ServiceConfig::default() };
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, reconnect: true, backoff: BackoffConfig::default(), service }
    }
}
