//! A muduo-style reactor on `mio`: one event loop per thread, for servers and clients on TCP and Unix sockets.
//!
//! There is no async runtime here. A server is a [`Handler`]: callbacks that run on the thread of an [`EventLoop`], with the connections of that
//! loop at hand through a [`Context`]. An [`EventLoopThreadPool`] runs one loop per thread; a [`TcpServer`] spreads its connections over them; a
//! [`TcpClient`] keeps one connection up.
//!
//! # Threads
//!
//! A connection belongs to one loop for its whole life, and all its callbacks run on that loop's thread: handlers need no lock. Other
//! threads hold names and handles, which are plain values: a [`ConnId`] names a connection, a [`ConnHandle`] sends to it, a [`ServiceHandle`]
//! gives a service a typed message, a [`LoopHandle`] runs a task on the loop, a [`Group`] sends one message to many connections. A name whose connection is gone
//! reaches nobody.
//!
//! # One turn
//!
//! 1. **Wait** for events; not at all while anything is in hand.
//! 2. **Socket events**, each checked against the generation of its slot. A connection with input is read: frames, `on_frame`; what that made it send to itself
//!    is written. Attempts to connect come to their end.
//! 3. **Connections that still have input**: those that were over their budget when the turn began, and those that were resumed. Each connection is
//!    read once per turn. Then what waits at the listener is accepted.
//! 4. **Posted tasks and messages**, a bounded batch.
//! 5. **Timers.** One that is set here runs in a later turn.
//! 6. **Flush**: one vectored write for each connection that something was sent to in this turn and that was not written yet.
//! 7. **Watermarks**: `on_high_water` and `on_low_water`, by what the writes left over.
//! 8. **Closes**: `on_close`, exactly once for each connection.
//! 9. **Slots are freed**, so that no event of this turn can meet a new tenant.
//!
//! A handler never runs inside a handler: a send queues, a close is noted, a resume waits for step 3.
//!
//! # Back-pressure
//!
//! Unsent output above the high mark pauses reading from that connection, so that who does not read is not answered for ever; above the hard limit, or when
//! nothing was taken for the stall timeout, the connection ends. A handler pauses reading itself by [`Context::pause`], for up to seven reasons of its own. A
//! proxy [links](Context::link) each source to its sink.
//!
//! # What is bounded
//!
//! Bytes and frames per connection and turn, unsent output (with a stall timeout), the length of a frame and the time it may take, posts per turn and
//! waiting, accepts per turn, connections in all and per address, silence, time before the first frame. See [`ServiceConfig`] and [`LoopConfig`].
//!
//! # Closing
//!
//! [`Context::close`] is graceful: `on_close` comes in the same turn, and the loop goes on to deliver what was sent, shuts its side down, and
//! discards input until the peer closes or the linger timeout passes; closing a socket with unread input would be a reset, which can destroy the last
//! data on its way. [`Context::shutdown_write`] ends one direction only. [`Context::abort`] is a reset. Every close has a [`CloseReason`].
//!
//! A loop stops in three phases: nothing more is accepted and handlers hear of it (`on_stop`); after [`LoopConfig::stop_drain`] connections are closed gracefully;
//! at [`LoopConfig::stop_deadline`] what still lives is aborted.
//!
//! # TLS
//!
//! With the feature `tls`, [`ServiceConfig`]'s `tls_server` and `tls_client` take a configuration of [`rustls`](https://docs.rs/rustls): connections of that
//! service are TLS, and its handler does not notice. `on_open` comes when the handshake is done; one that fails is an `on_connect_failed` for who connected, and a
//! line in the log and a count ([`LoopStats::bad_prefaces`]) for who accepted. [`LoopConfig::handshakes_per_turn`] keeps a storm of handshakes from holding up who
//! is connected. `Context::tls` tells what was agreed on. A stream that is cut before the session was ended is closed with [`CloseReason::Tls`].
//!
//! # Tests without a network
//!
//! With the feature `test-util`, `reactor::sim` runs whole servers and clients in a simulated world that follows from a seed.
//!
//! # Health
//!
//! [`LoopHandle::stats`] reads a loop's counters from any thread, without a lock: how long its turns took ([`LoopStats::lag`]), events, bytes, posts, wake-ups,
//! closes by reason. A callback that holds the loop for longer than [`LoopConfig::slow_callback`] is logged with its handler's name.

mod address;
mod address_counts;
mod backoff;
mod batch;
mod buffer;
mod client;
mod closing;
mod closure;
pub mod codec;
mod config;
mod conn;
mod context;
mod event_loop;
mod flags;
mod gate;
mod group;
mod handle;
mod handler;
mod id;
mod idle;
mod input;
mod link;
mod listener;
mod loop_core;
mod opening;
mod output;
mod output_queue;
mod poller;
mod pool;
mod preface;
pub mod proxy_protocol;
mod reason;
mod replies;
mod resolve;
mod server;
mod service;
#[cfg(any(test, feature = "test-util"))]
pub mod sim;
mod slab;
mod stats;
mod stream;
mod timer;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use address::Address;
pub use backoff::{Backoff, BackoffConfig};
pub use buffer::Buffer;
pub use client::TcpClient;
pub use closure::FrameHandler;
pub use config::{AcceptMode, ClientConfig, Keepalive, LoopConfig, ServiceConfig, SocketOptions};
pub use conn::{ConnStats, PauseReason};
pub use context::Context;
pub use event_loop::EventLoop;
pub use group::Group;
pub use handle::{ConnHandle, LoopHandle, ServiceHandle, ServiceSlot};
pub use handler::{Handler, OpenInfo, TimerFired};
pub use id::ConnId;
pub use pool::{EventLoopThreadPool, JoinError};
pub use reason::{CloseReason, ConnectError, PostError, SendError};
pub use resolve::{BadEndpoint, Endpoint};
pub use server::{RunningServer, TcpServer};
pub use stats::LoopStats;
pub use timer::TimerKey;
#[cfg(feature = "tls")]
pub use tls::{TlsClient, TlsInfo};

pub use ipnet::IpNet;
#[cfg(feature = "tls")]
pub use rustls;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
