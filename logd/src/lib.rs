//! The *login* daemon: accounts, passwords and tokens (the logging crate is `asynclog`).
//!
//! [`LoginService`] does the work with blocking calls over the store; [`LoginPool`] runs them on worker threads behind
//! bounded queues, so that an event loop only ever submits and is called back. A chat server has a pool inside, or a [`RemoteLogin`], which stands
//! for one in other processes: the program `logd`, which serves [`LoginRpc`].

mod audit;
mod backoff;
mod cache;
mod config;
mod password;
mod pool;
pub mod proto;
mod remote;
mod service;
mod token;
mod wire;

pub use backoff::network_of;
pub use cache::{BadAddress, CacheStats, TokenCache};
pub use config::{ConfigError, LoginConfig};
pub use pool::{LoginPool, PoolStats, ReplyFn};
pub use remote::{LoginRpc, RemoteLogin};
pub use service::{Clock, LoginService};
pub use token::{Issued, TokenManager};
