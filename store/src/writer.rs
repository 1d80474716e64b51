//! The writer thread: the only one that writes, in batches, one transaction each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use crate::batch::{self, Outcomes};
use crate::connection::{CheckpointMode, Connection};
use crate::cursors::{CursorQueue, Waiting};
use crate::error::StoreError;
use crate::heads::Heads;
use crate::job::Job;
use crate::pipeline::{CommitSink, Sent};
use crate::sqlite::Role;
use crate::store::Stats;

/// Cursor writes of one batch while messages wait: a quarter of it.
const CURSORS_BESIDE_JOBS: usize = 128;
/// Cursor writes of one batch otherwise.
const CURSORS_ALONE: usize = 1_024;
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
    sink: Box<dyn CommitSink>,
    stats: Arc<Stats>,
    /// Rows changed since the checkpointer was told.
    rows: u64,
    /// Batches that failed in a row.
    failures: u64,
}

/// Where the writer's work comes from, and its bounds.
pub(crate) struct WriterQueues {
    pub(crate) jobs: Receiver<Job>,
    pub(crate) bytes: Arc<AtomicUsize>,
    pub(crate) cursors: Arc<CursorQueue>,
    pub(crate) wake: Receiver<()>,
    pub(crate) checkpoint: Sender<()>,
    /// Set by the checkpointer when little is left to move and the log should start over.
    pub(crate) restart: Arc<AtomicBool>,
    pub(crate) batch_max: usize,
    pub(crate) gather: Duration,
}

impl Writer {
    /// Opens the writing connection. The tables are there and up to date.
    pub(crate) fn open(
        path: PathBuf,
        queues: WriterQueues,
        sink: Box<dyn CommitSink>,
        stats: Arc<Stats>,
    ) -> Result<Self, StoreError> {
        let mut db = Connection::open(&path, Role::Writer)?;
        let mark = read_mark(&mut db)?;
        let heads = Heads::default();
        Ok(Self { path, db: Some(db), heads, mark, queues, sink, stats, rows: 0, failures: 0 })
    }

    /// Serves until the queues are closed and empty.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.queues.next() {
            let max = if jobs.is_empty() { CURSORS_ALONE } else { CURSORS_BESIDE_JOBS };
            let cursors = self.queues.cursors.take(max);
            if !jobs.is_empty() || !cursors.is_empty() {
                self.batch(jobs, cursors);
            }
            if self.queues.restart.swap(false, Ordering::Acquire) {
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
        self.note(&outcomes, result.err());
        self.tell(outcomes);
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
                let _ = self.queues.checkpoint.try_send(());
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

    /// Counts, and says in the log when the storage fails and when it works again, not for every batch.
    fn note(&mut self, outcomes: &Outcomes, error: Option<StoreError>) {
        let Stats { batches, failed_batches, messages, duplicates, refused, .. } = &*self.stats;
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        let sends = &outcomes.batch.sends;
        let new = sends.iter().filter(|o| matches!(o.result, Ok(Sent::New(_)))).count();
        let old = sends.iter().filter(|o| matches!(o.result, Ok(Sent::Duplicate { .. }))).count();
        add(messages, new);
        add(duplicates, old);
        add(refused, sends.len() - new - old);
        add(batches, 1);
        match error {
            Some(error) => {
                add(failed_batches, 1);
                self.failures += 1;
                if self.failures == 1 {
                    log::error!("a batch could not be written, clients get `unavailable`: {error}");
                }
            }
            None if self.failures > 0 => {
                log::info!("the tables can be written again, after {} failed batches", self.failures);
                self.failures = 0;
            }
            None => {}
        }
    }

    fn tell(&mut self, outcomes: Outcomes) {
        let Outcomes { batch, ops } = outcomes;
        if !(batch.sends.is_empty() && batch.cursors.is_empty())
            && catch_unwind(AssertUnwindSafe(|| self.sink.committed(batch))).is_err()
        {
            log::error!("the commit sink panicked; the outcomes of one batch may be lost");
        }
        for op in ops {
            op.finish();
        }
    }
}

impl WriterQueues {
    /// Waits for work and returns the jobs of the next batch, which are none when only cursors wait; `None` when the queues
    /// are closed and empty.
    fn next(&self) -> Option<Vec<Job>> {
        let first = match self.jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) if self.cursors.len() > 0 => None,
            Err(TryRecvError::Empty) => select! {
                recv(self.jobs) -> job => job.ok(),
                recv(self.wake) -> _ => None,
            },
            Err(TryRecvError::Disconnected) if self.cursors.len() > 0 => None,
            Err(TryRecvError::Disconnected) => return None,
        };
        let mut jobs = Vec::new();
        if let Some(first) = first {
            jobs.reserve(self.batch_max.min(self.jobs.len() + 1));
            jobs.push(first);
            self.fill(&mut jobs);
            let bytes = jobs.iter().map(Job::bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Some(jobs)
    }

    fn fill(&self, jobs: &mut Vec<Job>) {
        let more = self.batch_max.saturating_sub(jobs.len());
        jobs.extend(self.jobs.try_iter().take(more));
        if self.gather.is_zero() {
            return;
        }
        let deadline = Instant::now() + self.gather;
        while jobs.len() < self.batch_max {
            let Ok(job) = self.jobs.recv_deadline(deadline) else { break };
            jobs.push(job);
        }
    }
}

fn read_mark(db: &mut Connection) -> Result<i64, StoreError> {
    db.query_row(GET_MARK, &[], |row| row.get(0))?
        .ok_or_else(|| StoreError::corrupt("commit_mark has no row"))
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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
        page.entries.into_iter().map(|entry| entry.text).collect()
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
