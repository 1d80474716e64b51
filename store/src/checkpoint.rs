//! The checkpoint thread: moves the write-ahead log into the file, off the writer's path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;

use crate::connection::{CheckpointMode, Connection, LogState};
use crate::error::StoreError;
use crate::store::Stats;

/// Pages of log (64 MiB) beyond which it must start over.
const LOG_PAGES_MAX: i64 = 16_384;

/// Pages (8 MiB) that the writer itself moves when the log starts over: what came in while the last round ran.
const REST_PAGES_MAX: i64 = 2_048;

/// Rounds in which the checkpointer tries to come that close to a writer that never pauses. Each is shorter than the one
/// before, since a page that was written many times is moved once.
const ROUNDS_MAX: u32 = 6;

pub(crate) struct Checkpointer {
    db: Connection,
    wanted: Receiver<()>,
    /// Tells the writer to let the log start over, which only it can: it holds the lock that takes nearly all the time.
    restart: Arc<AtomicBool>,
    stats: Arc<Stats>,
    failing: bool,
}

impl Checkpointer {
    pub(crate) const fn new(
        db: Connection,
        wanted: Receiver<()>,
        restart: Arc<AtomicBool>,
        stats: Arc<Stats>,
    ) -> Self {
        Self { db, wanted, restart, stats, failing: false }
    }

    /// Serves until all who could ask are gone, and then leaves an empty log behind.
    pub(crate) fn run(mut self) {
        while self.wanted.recv().is_ok() {
            let result = self.work();
            self.note(result);
        }
        let result = self.db.checkpoint(CheckpointMode::Truncate).map(drop);
        self.note(result);
    }

    fn work(&mut self) -> Result<(), StoreError> {
        let mut before = LogState::default();
        for _ in 0..ROUNDS_MAX {
            let log = self.db.checkpoint(CheckpointMode::Passive)?;
            self.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
            if log.pages < LOG_PAGES_MAX {
                return Ok(());
            }
            if log.pages - before.moved <= REST_PAGES_MAX {
                break;
            }
            before = log;
        }
        self.restart.store(true, Ordering::Release);
        Ok(())
    }

    fn note(&mut self, result: Result<(), StoreError>) {
        match result {
            Err(error) if !self.failing => {
                log::warn!("a checkpoint failed, the log grows until one succeeds: {error}");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                log::info!("checkpoints succeed again");
                self.failing = false;
            }
            _ => {}
        }
    }
}
