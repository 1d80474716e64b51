//! Calls between processes: protobuf messages over the [`reactor`], without an async runtime.
//!
//! A service is a `.proto` file. `rpc-build` makes of it a trait for who serves it and a client for who calls it; [`Server`] serves any number of services on
//! the loops of a pool, and a [`Channel`] calls one service at all its endpoints, which it has from a [`registry`].
//!
//! # A call completes exactly once
//!
//! Whatever happens to the connection, to either process or to the channel, each call ends in one answer or one [`Status`]. A status says what went
//! wrong ([`Code`]) and whether the call was carried out ([`Executed`]); the channel itself tries a call again only where that allows it, within a budget.
//!
//! # Three ways to call
//!
//! [`Call::then`] runs a closure on a loop, [`Call::wait`] blocks (and refuses to on a loop's thread), and a [`Call`] can be awaited by any executor.
//!
//! # Time
//!
//! Each call has a deadline. It travels as the time that is left, never as a time of day; a handler's own calls inherit it; a request that comes too late
//! is not even decoded.
//!
//! The wire is described byte by byte in `docs/rpc.md`.

// The generated code of this crate's own tests names it from outside.
extern crate self as rpc;

mod call;
mod chunks;
mod client;
mod completion;
mod context;
mod encoded;
mod method;
mod metrics;
pub mod reflection;
pub mod registry;
mod reply;
pub mod serve;
mod server;
mod service;
mod status;
pub mod wire;
mod workers;

pub use call::{Call, CallFuture, CallHandle};
pub use client::{Balance, Channel, ChannelConfig, ChannelStats, EjectionConfig, RetryConfig};
pub use context::CallContext;
pub use encoded::Encoded;
pub use method::{Idempotency, MethodInfo, ServiceInfo, method_id};
pub use metrics::{Latencies, MethodStats};
pub use reply::{RawReply, Reply};
pub use server::{RunningServer, Server, ServerConfig};
pub use service::Service;
pub use status::{Code, Executed, Status};
pub use workers::Workers;

/// The service of this crate's own tests, examples and benches. No part of what this crate promises.
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, reason = "made by rpc-build")]
pub mod echo {
    include!(concat!(env!("OUT_DIR"), "/rpc.test.rs"));
}
