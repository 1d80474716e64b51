//! A pool of connections to a server that may be slow, restart, or be gone.
//!
//! Nothing is done under its lock but bookkeeping: connecting, validating and closing happen outside, on the pool's own threads or on that of the caller who
//! waits for it anyway. A connection that comes back goes straight to who has waited longest; only within the first milliseconds
//! of a wait may a caller that is running anyway be quicker.
//!
//! ```text
//!              a connect succeeds                      all are lost
//!  starting ───────────────────────▶ up ◀───────────▶ degraded ───────────▶ down (probing)
//!      │                              ▲   a connect fails, others live          │
//!      └──────────────────────────────┴─────────────────────────────────────────┘ a probe succeeds
//!  any of them ── close() ──▶ draining ── all are given back ──▶ closed
//! ```

mod clock;
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
