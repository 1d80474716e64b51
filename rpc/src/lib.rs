//! Calls between processes: protobuf messages over the [`reactor`], without an async runtime.
//!
//! A service is a `.proto` file. `rpc-build` makes of it a trait for who serves it and a client for who calls it; [`Server`] serves any number of services on
//! the loops of a pool, and a [`Channel`] calls one service at all its endpoints, which it has from a [`registry`].
//!
//! # A service in 30 lines
//!
//! This runs as it stands, in one process and with a registry in memory. For two processes, give each half a [`registry::ZooKeeperRegistry`]. How the generated types
//! come from a `.proto` file is in the crate's README.
//!
//! ```
//! use std::time::Duration;
//!
//! use reactor::{EventLoopThreadPool, LoopConfig};
//! use rpc::echo::{Counted, Delay, EchoBlocking, EchoBlockingServer, EchoClient, Failure, Payload};
//! use rpc::registry::{Instance, Registry, StaticRegistry};
//! use rpc::{CallContext, Channel, ChannelConfig, Server, ServerConfig, Status, Workers};
//!
//! struct Upper;
//!
//! // Blocking handlers run on workers. `rpc::echo::Echo` is the same trait for who answers on the loop, or later.
//! impl EchoBlocking for Upper {
//!     fn say(&self, _: &CallContext, request: Payload) -> Result<Payload, Status> {
//!         Ok(Payload { data: request.data.to_ascii_uppercase() })
//!     }
//! #   fn count(&self, _: &CallContext, _: Payload) -> Result<Counted, Status> { Err(Status::unimplemented()) }
//! #   fn wait(&self, _: &CallContext, _: Delay) -> Result<Payload, Status> { Err(Status::unimplemented()) }
//! #   fn forget(&self, _: &CallContext, _: Payload) -> Result<Payload, Status> { Err(Status::unimplemented()) }
//! #   fn fail(&self, _: &CallContext, _: Failure) -> Result<Payload, Status> { Err(Status::unimplemented()) }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (registry, pool) = (StaticRegistry::new(), EventLoopThreadPool::start(2, LoopConfig::default())?);
//!
//! // Who provides: serve, then register.
//! let service = EchoBlockingServer::new(Upper, Workers::start("upper", 2, 100)?);
//! let server = Server::new(ServerConfig::default()).add(service)?.serve(&pool, "127.0.0.1:0".parse()?)?;
//! let entry = registry.register("rpc.test.Echo", Instance::new("upper-1", server.local_addr()));
//! entry.wait_entered(Duration::from_secs(5))?;
//!
//! // Who calls: a channel to whoever is registered.
//! let channel = Channel::of_service(pool.handles(), &registry, "rpc.test.Echo", ChannelConfig::default())?;
//! let answer = EchoClient::new(channel).say(&Payload { data: b"hello".to_vec() }).wait()?;
//! assert_eq!(answer.data, b"HELLO");
//!
//! // A restart that fails no call: say so, finish, leave.
//! entry.drain(Duration::from_secs(5));
//! server.drain(Duration::from_secs(5));
//! entry.leave(Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```
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
