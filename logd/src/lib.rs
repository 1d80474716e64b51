//! The *login* daemon's library: accounts, passwords and tokens (the logging crate is `asynclog`).
//!
//! [`LoginService`] does the work with blocking calls over the store; [`LoginPool`] runs them on worker threads behind
//! bounded queues, so that an event loop only ever submits and is called back.

mod config;
mod password;
mod pool;
mod service;
mod token;

pub use config::{ConfigError, LoginConfig};
pub use pool::{LoginPool, ReplyFn};
pub use service::{Clock, LoginService};
pub use token::{Issued, TokenManager};
