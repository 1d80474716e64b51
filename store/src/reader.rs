//! A reading thread: its own connection, one snapshot per job.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crossbeam_channel::Receiver;

use crate::connection::Connection;
use crate::error::StoreError;
use crate::sqlite::Role;

/// What waits for a reader.
pub(crate) type ReadJob = Box<dyn FnOnce(&mut Connection) + Send>;

pub(crate) struct Reader {
    path: PathBuf,
    db: Connection,
    jobs: Receiver<ReadJob>,
}

impl Reader {
    pub(crate) fn open(path: PathBuf, jobs: Receiver<ReadJob>) -> Result<Self, StoreError> {
        let db = Connection::open(&path, Role::Reader)?;
        Ok(Self { path, db, jobs })
    }

    /// Serves until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            serve(&mut self.db, job);
            if self.db.is_suspect() {
                self.reopen();
            }
        }
    }

    /// A connection that failed is replaced. Where that fails too the old one stays, so that jobs get its errors.
    fn reopen(&mut self) {
        match Connection::open(&self.path, Role::Reader) {
            Ok(db) => self.db = db,
            Err(error) => log::warn!("a reading connection could not be opened again: {error}"),
        }
    }
}

/// Runs a job so that all its queries see one state.
pub(crate) fn serve(db: &mut Connection, job: ReadJob) {
    if let Err(error) = db.begin_read() {
        // The job runs all the same: its queries meet the same error and it answers with that.
        log::debug!("a read transaction could not begin: {error}");
    }
    if catch_unwind(AssertUnwindSafe(|| job(db))).is_err() {
        log::error!("a read job panicked");
    }
    db.unwind(0);
}
