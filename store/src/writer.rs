//! The writer thread: the only one that writes, in batches, one transaction each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use crate::batch::{self, Outcomes};
use crate::connection::{CheckpointMode, Connection};
use crate::cursors::Waiting;
use crate::error::StoreError;
use crate::heads::Heads;
use crate::job::Job;
use crate::queues::WriterQueues;
use crate::sqlite::Role;
use crate::tell::{Tell, now_ms};

/// Cursor writes of one batch while messages wait: a quarter of it.
pub(crate) const CURSORS_BESIDE_JOBS: usize = 128;
/// Cursor writes of one batch otherwise.
pub(crate) const CURSORS_ALONE: usize = 1_024;
/// Changed rows, and so roughly pages of the log, after which the checkpointer is told.
const ROWS_PER_CHECKPOINT: u64 = 32_768;

pub(crate) const GET_MARK: &str = "SELECT mark FROM commit_mark WHERE worker = 0";
pub(crate) const SET_MARK: &str = "UPDATE commit_mark SET mark = ? WHERE worker = 0";

pub(crate) struct Writer {
    path: PathBuf,
    /// `None` after a failure, until the file can be opened again.
    db: Option<Connection>,
    heads: Heads,
    /// The mark of the last batch that was committed.
    mark: i64,
    queues: WriterQueues,
    checkpoints: Checkpoints,
    tell: Tell,
    /// Rows changed since the checkpointer was told.
    rows: u64,
}

/// How the writer and the checkpointer talk.
pub(crate) struct Checkpoints {
    /// Tells the checkpointer that there is enough to do.
    pub(crate) wanted: Sender<()>,
    /// Set by the checkpointer when little is left to move and the log should start over.
    pub(crate) restart: Arc<AtomicBool>,
}

impl Writer {
    /// Opens the writing connection. The tables are there and up to date.
    pub(crate) fn open(
        path: PathBuf,
        queues: WriterQueues,
        checkpoints: Checkpoints,
        tell: Tell,
    ) -> Result<Self, StoreError> {
        let mut db = Connection::open(&path, Role::Writer)?;
        let mark = read_mark(&mut db)?;
        let heads = Heads::default();
        Ok(Self { path, db: Some(db), heads, mark, queues, checkpoints, tell, rows: 0 })
    }

    /// Serves until the queues are closed and empty.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.queues.next() {
            let max = if jobs.is_empty() { CURSORS_ALONE } else { CURSORS_BESIDE_JOBS };
            let cursors = self.queues.cursors.take(max);
            if !jobs.is_empty() || !cursors.is_empty() {
                let users: Vec<_> = cursors.iter().map(|waiting| waiting.user).collect();
                self.batch(jobs, cursors);
                self.queues.cursors.written(users.into_iter());
            }
            if self.checkpoints.restart.swap(false, Ordering::Acquire) {
                self.restart_log();
            }
        }
    }

    fn batch(&mut self, jobs: Vec<Job>, cursors: Vec<Waiting>) {
        let (mut outcomes, result) = match self.begin() {
            Ok(()) => self.execute(jobs, cursors),
            Err(error) => (batch::refuse_all(jobs, cursors), Err(error)),
        };
        if let Err(error) = &result {
            outcomes.fail(error);
        }
        self.tell.outcomes(outcomes, result.err());
    }

    /// Opens the batch's transaction, on a new connection where the old one was given up.
    fn begin(&mut self) -> Result<(), StoreError> {
        if self.db.is_none() {
            self.reopen()?;
        }
        let Some(db) = &mut self.db else { return Err(StoreError::internal("no connection")) };
        let begun = db.begin_write();
        if begun.is_err() {
            self.db = None;
        }
        begun
    }

    fn execute(&mut self, jobs: Vec<Job>, cursors: Vec<Waiting>) -> (Outcomes, Result<(), StoreError>) {
        let Some(db) = &mut self.db else {
            return (batch::refuse_all(jobs, cursors), Err(StoreError::internal("no connection")));
        };
        let before = db.changes();
        let (outcomes, result) = batch::run(db, &mut self.heads, jobs, cursors, now_ms());
        let changed = db.changes() - before;
        let result = match result {
            Ok(()) if changed == 0 => {
                // Nothing was written, so there is nothing to sync.
                db.unwind(0);
                Ok(())
            }
            Ok(()) => self.commit(changed),
            Err(error) => {
                db.unwind(0);
                self.heads.clear();
                if db.is_suspect() {
                    self.db = None;
                }
                Err(error)
            }
        };
        (outcomes, result)
    }

    /// Commits, and finds out what happened when the engine does not say that it did.
    fn commit(&mut self, changed: u64) -> Result<(), StoreError> {
        let Some(db) = &mut self.db else { return Err(StoreError::internal("no connection")) };
        let mark = self.mark.wrapping_add(1);
        let committed = db.execute(SET_MARK, &[mark.into()]).and_then(|_| db.commit());
        let Err(error) = committed else {
            self.mark = mark;
            self.rows += changed;
            if self.rows >= ROWS_PER_CHECKPOINT {
                self.rows = 0;
                // A full channel means that it has been told already.
                let _ = self.checkpoints.wanted.try_send(());
            }
            return Ok(());
        };
        db.unwind(0);
        self.db = None;
        self.heads.clear();
        self.reopen()?;
        if self.mark == mark {
            log::warn!("a commit was reported as failed, and was done: {error}");
            return Ok(());
        }
        Err(error)
    }

    /// Moves the rest of the log, so that the next batch writes it from its beginning.
    fn restart_log(&mut self) {
        let Some(db) = &mut self.db else { return };
        if let Err(error) = db.checkpoint(CheckpointMode::Restart) {
            log::warn!("the log could not start over: {error}");
        }
    }

    /// Opens the file again and reads which batch was the last.
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.heads.clear();
        let mut db = Connection::open(&self.path, Role::Writer)?;
        self.mark = read_mark(&mut db)?;
        self.db = Some(db);
        Ok(())
    }
}

fn read_mark(db: &mut Connection) -> Result<i64, StoreError> {
    db.query_row(GET_MARK, &[], |row| row.get(0))?
        .ok_or_else(|| StoreError::corrupt("commit_mark has no row"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, unbounded};
    use schema::{ConvId, SessionId, UserId};

    use crate::dao::{ConversationDao, MessageDao, PageLimit, UserDao};
    use crate::pipeline::{CommittedBatch, SendError, SendRequest, Sent, Ticket};
    use crate::{CursorError, CursorWrite, DbConfig, Store};

    const LONG: Duration = Duration::from_secs(60);

    fn open() -> (tempfile::TempDir, Store, Receiver<CommittedBatch>, ConvId, UserId) {
        let folder = tempfile::tempdir().unwrap();
        let (sender, batches) = unbounded();
        let sink = move |batch| drop(sender.send(batch));
        let store = Store::open(&DbConfig::at(folder.path()), Box::new(sink)).unwrap();
        let (conv, amy) = store
            .write_wait(|db| {
                let a = UserDao::new(db).create("amy", "amy", "", 1)?;
                let b = UserDao::new(db).create("bob", "bob", "", 1)?;
                Ok((ConversationDao::new(db).direct(a, b, 1)?.unwrap().id, a))
            })
            .unwrap();
        (folder, store, batches, conv, amy)
    }

    fn request(conv: ConvId, sender: UserId, text: &str) -> SendRequest {
        SendRequest {
            ticket: Ticket { owner: 0, token: 0, call: None },
            conv,
            sender,
            session: SessionId::new(1).unwrap(),
            client_id: Some(text.into()),
            text: text.into(),
        }
    }

    /// One batch of two sends, a job and a cursor, whose commit fails: after it was done, or before.
    fn failing_batch(store: &Store, conv: ConvId, amy: UserId, done: bool) -> crate::StoreError {
        let (hold, held) = unbounded::<()>();
        let (reached, reaching) = unbounded();
        let stop = move |_: &mut crate::Connection| {
            reached.send(()).unwrap();
            let _ = held.recv();
            Ok(())
        };
        store.write(stop, |_| {}).unwrap();
        reaching.recv_timeout(LONG).unwrap();
        store.send(request(conv, amy, "1")).unwrap();
        let (reply, answer) = unbounded();
        let op = move |db: &mut crate::Connection| {
            db.fail_commit = Some(done);
            UserDao::new(db).create("cat", "cat", "", 1)
        };
        store.write(op, move |result| reply.send(result).unwrap()).unwrap();
        store.send(request(conv, amy, "2")).unwrap();
        store
            .move_cursor(CursorWrite {
                ticket: None,
                user: amy,
                conv,
                delivered: schema::Seq::new(1),
                read: None,
            })
            .unwrap();
        drop(hold);
        match answer.recv_timeout(LONG).unwrap() {
            Ok(_) => crate::StoreError::Closed,
            Err(error) => error,
        }
    }

    fn batch_of_two(batches: &Receiver<CommittedBatch>) -> CommittedBatch {
        let mut all = CommittedBatch::default();
        while all.sends.len() < 2 || all.cursors.is_empty() {
            let batch = batches.recv_timeout(LONG).unwrap();
            all.sends.extend(batch.sends);
            all.cursors.extend(batch.cursors);
        }
        all
    }

    fn texts(store: &Store, conv: ConvId) -> Vec<String> {
        let all = PageLimit { entries: 100, bytes: usize::MAX };
        let page = store.read_wait(move |db| MessageDao::new(db).last(conv, all)).unwrap();
        page.entries.into_iter().map(|entry| entry.text().to_owned()).collect()
    }

    #[test]
    fn a_commit_that_failed_is_answered_unavailable_and_is_not_there() {
        let (_folder, store, batches, conv, amy) = open();
        assert!(failing_batch(&store, conv, amy, false).is_unavailable());
        let batch = batch_of_two(&batches);
        assert!(batch.sends.iter().all(|o| o.result == Err(SendError::Unavailable)), "{batch:?}");
        assert!(texts(&store, conv).is_empty());
        assert_eq!(batch.cursors[0].result, Err(CursorError::Unavailable));
        // The same requests again, as a client does: they are new, and take the first places.
        for text in ["1", "2"] {
            store.send(request(conv, amy, text)).unwrap();
        }
        let mut seqs = Vec::new();
        while seqs.len() < 2 {
            for outcome in batches.recv_timeout(LONG).unwrap().sends {
                let Ok(Sent::New(entry)) = outcome.result else { panic!("{outcome:?}") };
                seqs.push(entry.seq.get());
            }
        }
        assert_eq!(seqs, [1, 2]);
        assert_eq!(texts(&store, conv), ["1", "2"]);
        assert_eq!(store.stats().failed_batches, 1);
    }

    #[test]
    fn a_commit_that_was_done_and_reported_as_failed_is_answered_as_done() {
        let (_folder, store, batches, conv, amy) = open();
        assert_eq!(failing_batch(&store, conv, amy, true), crate::StoreError::Closed, "the job succeeded");
        let batch = batch_of_two(&batches);
        assert!(batch.sends.iter().all(|o| matches!(o.result, Ok(Sent::New(_)))), "{batch:?}");
        assert_eq!(batch.cursors[0].delivered, schema::Seq::new(1));
        assert_eq!(texts(&store, conv), ["1", "2"]);
        assert_eq!(store.stats().failed_batches, 0);
        assert!(store.read_wait(|db| UserDao::new(db).by_name_key("cat")).unwrap().is_some());
    }
}
