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
//! 2026-09-23T10:15:04.123456Z I io-3 chatd::session session.rs:142 #4.1042 | message
//! ```
//!
//! Time in UTC with microseconds, the level's letter (`E W I D T`), thread, target, place of the call, fields if there are any ([`context`] and `log`'s key-values), number (in files; the fourth thread's record 1,042), message. Newlines,
//! control characters and the characters that reorder text on a terminal are escaped, so one record is one line
//! and no message can forge another. [`Format::Json`] writes an object for each record instead. On a terminal the level's letter has a colour.
//!
//! # The way of a record
//!
//! The calling thread formats a record, numbers it, and copies it into a bounded buffer that it shares with the log thread and with nobody else: no lock, and no
//! allocation once it is warm. The **log thread** takes the records out of all buffers, merges them by time, and gathers whole lines into a block. The **file-writer thread** writes a block with one
//! call, rolls the file, reopens it when it was removed. A block is written as soon as one of these holds:
//! [`FlushConfig::records`], [`FlushConfig::bytes`], [`FlushConfig::interval`] since its oldest record, a record of level error,
//! [`Guard::barrier`], a panic, the drop of the [`Guard`]. *Written* means given to the operating system: it survives the end of the
//! process, however that comes; that of the machine only as [`SyncPolicy`] says.
//!
//! In a steady flow the log thread comes by the clock, before a threshold is reached, so that no caller pays for waking it; where less than 64 records or 16 KiB
//! are to be gathered, it waits for exactly these.
//!
//! `kill -9`, `abort` and [`std::process::exit`] lose what is not written yet: at most what the flush settings say, as
//! long as the log's threads and the disk keep up. Callers that log more than those can write have more under way, at most for each of them twice
//! [`Builder::thread_buffer`] (what is in its buffer, and what was just taken out of it), and six times
//! [`FlushConfig::bytes`] for all (a block that is gathered, four that wait, one that is written): 896 KiB for one thread, as the settings are by default. While writing fails,
//! what is held for the next attempt, up to 1.5 MiB, is lost too.
//!
//! A `fork` without `exec` has none of the log's threads: what it logs is dropped, it waits for nothing, and the file stays its parent's.
//!
//! # Nothing is lost unseen
//!
//! A caller never waits, unless [`Overflow::Block`] says so, and a thread that called [`mark_loop_thread`] never does. A record for which there is no room
//! is dropped, counted by level, and a line in the log itself says how many were dropped, of which thread, which numbers, why, and between which
//! times. When writing fails (a full disk, a folder that is gone) 1 MiB is kept, warnings and errors up to 1.5 MiB, the rest is counted, the
//! file is opened and written again with back-off, and the first lines after the outage say from when to when it lasted and what was lost. After the
//! guard is dropped `produced == written + dropped` holds in [`LogStats`], exactly.
//!
//! A file begins with a line that names the run, and ends, when it is rolled, moved away or at the end of the log, with one that has the count of its lines and bytes and
//! their checksum. `asynclog verify a.log*`, or a [`Verifier`], proves by these and by the numbers that every record is there or told to be dropped, none
//! twice. Two programs that write one file make it unprovable, but lose nothing.
//!
//! An idle logger makes no wake-ups.

mod async_log;
mod barrier;
mod block;
mod builder;
mod caller;
mod collector;
mod compose;
mod config;
mod context;
mod error;
mod escape;
mod filter;
mod filter_file;
#[cfg(target_os = "linux")]
mod filter_watch;
mod frame;
mod guard;
mod json;
mod lane;
mod line;
mod log_file;
mod lost;
mod pace;
mod panic_hook;
mod pending;
mod period;
mod printer;
mod ranges;
mod rate;
mod rolled;
mod seal;
mod shared;
mod sink;
mod stamp;
mod stats;
mod verify;
mod waits;
mod writer;

pub use async_log::AsyncLog;
pub use builder::Builder;
pub use caller::mark_loop_thread;
pub use config::{FlushConfig, Overflow, RollConfig, RollEvery, SyncPolicy};
pub use context::{Context, context};
pub use error::LogError;
pub use guard::Guard;
pub use printer::{Colours, Format};
pub use rate::RateLimit;
pub use stats::{LevelCounts, LogStats, ThreadStats};
pub use verify::{Finding, RunReport, Verifier, VerifyReport};

/// The README's example, compiled and run.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
#[derive(Debug)]
pub struct Readme;
