//! The checkpoint thread: moves the write-ahead log into the file, off the writer's path.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::connection::Connection;
use crate::error::StoreError;
use crate::store::Stats;

/// Pages of log (64 MiB) beyond which it must start over. That stops the writer for as long as the last pages
/// take, so it is done seldom, and right after a checkpoint that stopped nobody.
const LOG_PAGES_MAX: i64 = 16_384;

/// How soon an unfinished checkpoint is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Checkpointer {
    db: Connection,
    wanted: Receiver<()>,
    stats: Arc<Stats>,
    failing: bool,
}

impl Checkpointer {
    pub(crate) const fn new(db: Connection, wanted: Receiver<()>, stats: Arc<Stats>) -> Self {
        Self { db, wanted, stats, failing: false }
    }

    /// Serves until all who could ask are gone, and then leaves an empty log behind.
    pub(crate) fn run(mut self) {
        let mut again = false;
        loop {
            let asked = if again {
                self.wanted.recv_timeout(RETRY)
            } else {
                self.wanted.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            if asked == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            again = self.work();
        }
        let end = self.pragma("PRAGMA wal_checkpoint(TRUNCATE)");
        self.note(end.map(drop));
    }

    /// Returns whether something was left to do.
    fn work(&mut self) -> bool {
        let result = self.pragma("PRAGMA wal_checkpoint(PASSIVE)").and_then(|log| {
            if log < LOG_PAGES_MAX {
                return Ok(false);
            }
            // What came in during the first is little, so this one holds the writer only briefly.
            self.pragma("PRAGMA wal_checkpoint(RESTART)").map(|log| log >= LOG_PAGES_MAX)
        });
        self.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        let again = result.clone().unwrap_or(true);
        self.note(result.map(drop));
        again
    }

    /// Returns the pages that the log holds and that are still needed.
    fn pragma(&mut self, sql: &str) -> Result<i64, StoreError> {
        let row: Option<(i64, i64, i64)> =
            self.db.query_row(sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let (busy, log, _moved) = row.unwrap_or_default();
        let starts_over = busy == 0 && !sql.contains("PASSIVE");
        Ok(if starts_over { 0 } else { log })
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
