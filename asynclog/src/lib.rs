//! The asynchronous backend of the [`log`] facade: callers format, a log thread batches, a file-writer thread writes.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("chatd.log");
//! let guard = asynclog::Builder::new().file(&path).filter("info,chatd=debug").install()?;
//! log::info!("listening on {}", "127.0.0.1:6000");
//! guard.barrier(std::time::Duration::from_secs(5))?; // only when it must be in the file now
//! assert!(std::fs::read_to_string(&path)?.contains("| listening on 127.0.0.1:6000"));
//! drop(guard); // the end of `main`: everything is written, both threads are joined
//! # Ok(())
//! # }
//! ```
//!
//! # A line
//!
//! ```text
//! 2026-09-23T10:15:04.123456Z I io-3 chatd::session session.rs:142 | message
//! ```
//!
//! Time in UTC with microseconds, the level's letter (`E W I D T`), thread, target, place of the call, message. Newlines,
//! control characters and the characters that reorder text on a terminal are escaped, so one record is one line
//! and no message can forge another.
//!
//! # The way of a record
//!
//! The calling thread formats into a buffer that it takes from a pool and puts into a bounded queue. The **log thread** takes it out,
//! puts the time before it, and gathers whole lines into a block. The **file-writer thread** writes a block with one
//! call, rolls the file, reopens it when it was removed. A block is written as soon as one of these holds:
//! [`FlushConfig::records`], [`FlushConfig::bytes`], [`FlushConfig::interval`] since its oldest record, a record of level error,
//! [`Guard::barrier`], a panic, the drop of the [`Guard`]. *Written* means given to the operating system: it survives the end of the
//! process, however that comes, but there is no `fsync`.
//!
//! `kill -9`, `abort` and [`std::process::exit`] lose what is not written yet: at most what the flush settings say, as
//! long as the disk keeps up.
//!
//! # Nothing is lost unseen
//!
//! A caller never waits, unless [`Overflow::Block`] says so, and a thread that called [`mark_loop_thread`] never does. A record for which there is no room
//! is dropped, counted by level, and a line in the log itself says how many were dropped, why, and between which
//! times. When writing fails (a full disk, a folder that is gone) a reserve of blocks is kept, the rest is counted, the
//! file is opened and written again with back-off, and the first lines after the outage say from when to when it lasted and what was lost. After the
//! guard is dropped `produced == written + dropped` holds in [`LogStats`], exactly.
//!
//! An idle logger makes no wake-ups.

mod async_log;
mod block;
mod builder;
mod caller;
mod collector;
mod config;
mod entry;
mod error;
mod filter;
mod guard;
mod line;
mod log_file;
mod panic_hook;
mod rolled;
mod shared;
mod sink;
mod stamp;
mod stats;
mod writer;

pub use async_log::AsyncLog;
pub use builder::Builder;
pub use caller::mark_loop_thread;
pub use config::{FlushConfig, Overflow, RollConfig};
pub use error::LogError;
pub use guard::Guard;
pub use stats::{LevelCounts, LogStats};

/// The README's example, compiled and run.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
#[derive(Debug)]
pub struct Readme;
