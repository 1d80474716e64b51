//! A pool of connections to a server that may be slow, restart, or be gone.
//!
//! Nothing is done under its lock but bookkeeping: connecting, validating and closing happen outside, on the pool's own threads or on that of the caller who
//! waits for it anyway. Connections are handed from who gives one back straight to who has waited longest.
//!
//! ```text
//!              a connect succeeds                      all are lost
//!  starting ───────────────────────▶ up ◀───────────▶ degraded ───────────▶ down (probing)
//!      │                              ▲   a connect fails, others live          │
//!      └──────────────────────────────┴─────────────────────────────────────────┘ a probe succeeds
//!  any of them ── close() ──▶ draining ── all are given back ──▶ closed
//! ```

mod config;
mod error;
mod guard;
mod manager;
mod slots;
mod stats;
mod threads;

pub use config::PoolConfig;
pub use error::AcquireError;
pub use guard::Pooled;
pub use manager::{Manager, Trust};
pub use stats::{Holder, PoolState, PoolStats};
pub use threads::ConnectionPool;

#[cfg(test)]
mod tests;
