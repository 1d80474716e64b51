//! [`Store`]: the threads behind the tables and the queues in front of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::{Mutex, RwLock};
use schema::{ConvId, SessionId, UserId};

use crate::config::DbConfig;
use crate::connection::Connection;
use crate::cursors::CursorQueue;
use crate::dao::{IdDao, IdName};
use crate::error::StoreError;
use crate::job::{Job, Op};
use crate::mysql_writer::Pool;
use crate::pipeline::{CommitSink, CursorWrite, SendRequest};
use crate::pool::{ConnectionPool, PoolStats};
use crate::queues::WriterDoor;
use crate::start::{self, Doors, Parts, Threads};
use crate::tidy;

/// The tables of one node. Clones share the same threads; the last one to go closes them.
///
/// No call but those named `_wait`, [`allocate_session`](Self::allocate_session), [`open`](Self::open) and
/// [`close`](Self::close) ever blocks, so loops may make them; those may be made on worker threads only, and never from
/// inside a job or a callback of the store.
///
/// ```
/// use store::{CommittedBatch, DbConfig, Store, dao::UserDao};
///
/// let folder = tempfile::tempdir().unwrap();
/// let store = Store::open(&DbConfig::at(folder.path()), Box::new(|_: CommittedBatch| {})).unwrap();
/// let amy = store.write_wait(|db| UserDao::new(db).create("Amy", "amy", "hash", 0)).unwrap();
/// let found = store.read_wait(|db| UserDao::new(db).by_name_key("amy")).unwrap();
/// assert_eq!(found.map(|user| user.id), Some(amy));
/// store.close();
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What a store has done and what waits in it. Counters count from its opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions of the writer, failed and empty ones included.
    pub batches: u64,
    /// Those whose commit failed.
    pub failed_batches: u64,
    /// Messages committed.
    pub messages: u64,
    /// Messages deleted for their age.
    pub expired: u64,
    /// Sends answered with an earlier result.
    pub duplicates: u64,
    /// Sends refused or failed.
    pub refused: u64,
    /// Jobs and cursor writes refused because a queue was full.
    pub overloads: u64,
    /// Checkpoints tried.
    pub checkpoints: u64,
    /// Write jobs waiting.
    pub write_queue: usize,
    /// Bytes of message text waiting.
    pub write_queue_bytes: usize,
    /// Merged cursor writes waiting.
    pub cursor_queue: usize,
    /// Read jobs waiting.
    pub read_queue: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) batches: AtomicU64,
    pub(crate) failed_batches: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overloads: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

pub(crate) struct Inner {
    /// The ends of the queues that take jobs in. Taken out by `close`; whoever holds the read lock holds it for a `try_send`.
    doors: RwLock<Option<Doors>>,
    /// One for each writer.
    cursors: Vec<Arc<CursorQueue>>,
    pool: Option<Pool>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    stats: Arc<Stats>,
    /// Session ids taken from the table and not given out yet.
    sessions: Mutex<Range<u64>>,
    threads: Mutex<Option<Threads>>,
    /// The tidying thread, and what ends it when it is dropped.
    tidier: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("open", &self.doors.read().is_some()).finish_non_exhaustive()
    }
}

/// Session ids taken from the table at once: a login is not to cost a commit.
const SESSION_BLOCK: u32 = 1_024;

impl Store {
    /// Locks the data folder, brings the tables up to date, and starts the threads.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::DataFolderInUse`], [`StoreError::DataFolder`], [`StoreError::SchemaNewer`],
    /// [`StoreError::SchemaChanged`], [`StoreError::Corrupt`], [`StoreError::Unavailable`]: each with a text that says what
    /// to do or which path is at fault.
    pub fn open(config: &DbConfig, sink: Box<dyn CommitSink>) -> Result<Self, StoreError> {
        config.validate()?;
        let stats = Arc::new(Stats::default());
        let bytes = Arc::new(AtomicUsize::new(0));
        let parts = Parts { config, sink, stats: &stats, bytes: &bytes };
        let (doors, threads) = match &config.mysql {
            None => start::sqlite(parts)?,
            Some(section) => start::mysql(parts, section)?,
        };
        let inner = Inner {
            cursors: doors.writers.iter().map(|door| Arc::clone(&door.cursors)).collect(),
            pool: threads.pool().cloned(),
            doors: RwLock::new(Some(doors)),
            bytes,
            bytes_max: config.write_queue_bytes_max,
            stats,
            sessions: Mutex::new(0..0),
            threads: Mutex::new(Some(threads)),
            tidier: Mutex::new(None),
        };
        let inner = Arc::new(inner);
        let (stop, stopped) = bounded(0);
        let (weak, kept_ms) = (Arc::downgrade(&inner), config.retention_ms());
        let tidier = start::spawn("store-tidy", move || tidy::run(&weak, &stopped, kept_ms))?;
        *inner.tidier.lock() = Some((stop, tidier));
        Ok(Self { inner })
    }

    /// Queues a message. Its outcome comes to the sink, exactly once, unless this returns an error.
    ///
    /// Sends of one caller to one conversation are committed in the order in which they were queued, and write jobs queued
    /// before a send take effect before it.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`].
    pub fn send(&self, request: SendRequest) -> Result<(), StoreError> {
        let (bytes, conv) = (request.text.len(), request.conv);
        let waiting = self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        let result = if waiting.saturating_add(bytes) > self.inner.bytes_max && waiting > 0 {
            Err(StoreError::Overloaded)
        } else {
            self.inner.enqueue(|doors| match doors.writer_of(conv) {
                Some(door) if !door.backlog.has_room(door.jobs.len()) => Err(StoreError::Overloaded),
                door => push(door.map(|door| &door.jobs), Job::Send(request)),
            })
        };
        if result.is_err() {
            self.inner.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.inner.count(result)
    }

    /// Queues a cursor write. It never goes back, and never beyond the last entry. Its outcome comes to the sink. Writes of
    /// one user in one conversation are merged while they wait, and they may be overtaken by messages.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`].
    pub fn move_cursor(&self, write: CursorWrite) -> Result<(), StoreError> {
        let queue = share(&self.inner.cursors, write.conv);
        self.inner.count(queue.map_or(Err(StoreError::Closed), |queue| queue.push(write)))
    }

    /// Whether a cursor write of this user was taken and is not written yet: what is read now may not show it.
    #[must_use]
    pub fn has_pending_cursors(&self, user: UserId) -> bool {
        self.inner.cursors.iter().any(|queue| queue.is_pending(user))
    }

    /// Queues a job that writes and belongs to no conversation. With an error of its own it has written nothing. `done` gets the result on a store thread after
    /// the commit.
    ///
    /// On SQLite `op` runs inside the transaction of a batch, under a savepoint, in the order of all jobs; of one batch first the sink is called, then the `done`s in
    /// the order of their jobs. On a server it is a transaction of its own and may overtake others; when it collides with another it runs again.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`]; `done` is not called then.
    pub fn write<T, F, D>(&self, op: F, done: D) -> Result<(), StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Result<T, StoreError> + Send + 'static,
        D: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job = Job::Op(None, Box::new(Op::new(op, done)));
        self.inner.count(self.inner.enqueue(|doors| push(doors.ops(), job)))
    }

    /// Queues a job that writes to one conversation, or changes who may: it takes its place among the conversation's messages. Entries that it writes come to the
    /// sink. Else as [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_in<T, F, D>(&self, conv: ConvId, op: F, done: D) -> Result<(), StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Result<T, StoreError> + Send + 'static,
        D: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job = Job::Op(Some(conv), Box::new(Op::new(op, done)));
        self.inner.count(self.inner.enqueue(|doors| push(doors.writer(conv), job)))
    }

    /// [`write`](Self::write) that waits for the result. For worker threads.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of `op` and of the commit.
    pub fn write_wait<T, F>(&self, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        wait(|done| self.write(op, done))
    }

    /// [`write_in`](Self::write_in) that waits for the result. For worker threads.
    ///
    /// # Errors
    /// As [`write_in`](Self::write_in), and those of `op` and of the commit.
    pub fn write_in_wait<T, F>(&self, conv: ConvId, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        wait(|done| self.write_in(conv, op, done))
    }

    /// Queues a job that reads. It runs on a reading thread and sees one state of the tables throughout, which holds
    /// everything committed before it began. It answers by itself. A panic in it is caught and logged.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`]; the job is not run then.
    pub fn read(&self, job: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), StoreError> {
        self.inner.count(self.inner.enqueue(|doors| push(Some(&doors.reads), Box::new(job))))
    }

    /// [`read`](Self::read) that waits for the result. For worker threads.
    ///
    /// # Errors
    /// As [`read`](Self::read), and those of `op`; [`StoreError::Panicked`].
    pub fn read_wait<T, F>(&self, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = bounded(1);
        self.read(move |db| {
            // Nobody waits any more only when the waiting thread has died.
            let _ = reply.send(op(db));
        })?;
        answer.recv().unwrap_or(Err(StoreError::Panicked))
    }

    /// A session id that was never given out before, and never will be again. Blocks about once in a thousand calls. For
    /// worker threads.
    ///
    /// # Errors
    /// As [`write_wait`](Self::write_wait).
    pub fn allocate_session(&self) -> Result<SessionId, StoreError> {
        let known = self.inner.sessions.lock().next();
        let number = match known {
            Some(number) => number,
            None => self.refill_sessions()?,
        };
        SessionId::new(number).ok_or_else(|| StoreError::internal("session ids are used up"))
    }

    /// Takes a block from the table, keeps the rest of it and returns its first id. Two threads may do it at once; then
    /// the rest of the shorter block is never used.
    fn refill_sessions(&self) -> Result<u64, StoreError> {
        let first = self.write_wait(|db| IdDao::new(db).take(IdName::Session, SESSION_BLOCK))?;
        let rest = first + 1..first + u64::from(SESSION_BLOCK);
        let mut sessions = self.inner.sessions.lock();
        if sessions.end - sessions.start < rest.end - rest.start {
            *sessions = rest;
        }
        Ok(first)
    }

    /// What has been done and what waits.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let Stats { batches, failed_batches, messages, expired, duplicates, refused, overloads, checkpoints } =
            &*self.inner.stats;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (write_queue, read_queue) =
            self.inner.doors.read().as_ref().map_or((0, 0), |doors| (doors.waiting(), doors.reads.len()));
        StoreStats {
            batches: get(batches),
            failed_batches: get(failed_batches),
            messages: get(messages),
            expired: get(expired),
            duplicates: get(duplicates),
            refused: get(refused),
            overloads: get(overloads),
            checkpoints: get(checkpoints),
            write_queue,
            write_queue_bytes: self.inner.bytes.load(Ordering::Relaxed),
            cursor_queue: self.inner.cursors.iter().map(|queue| queue.len()).sum(),
            read_queue,
        }
    }

    /// Deletes the messages from before `before_ms` now, a little at a time, as the tidying thread does by itself for those older than
    /// [`retention_days`](DbConfig::retention_days). Returns how many went. For worker threads.
    ///
    /// # Errors
    /// As [`write_in_wait`](Self::write_in_wait). What was deleted before it stays deleted.
    pub fn forget_before(&self, before_ms: i64) -> Result<usize, StoreError> {
        let (_stop, stopped) = bounded(0);
        tidy::forget(&Arc::downgrade(&self.inner), &stopped, before_ms, Duration::ZERO)
    }

    /// The pool of connections; `None` where there is no server.
    #[must_use]
    pub fn pool_stats(&self) -> Option<PoolStats> {
        self.inner.pool.as_ref().map(ConnectionPool::stats)
    }

    /// Takes nothing in any more, finishes and answers all that was accepted, empties the log into the file, ends the
    /// threads and lets go of the folder. A second call does nothing, and does not wait for the first.
    ///
    /// From one of the store's own threads it only starts all this and returns.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    /// So many messages were deleted for their age.
    pub(crate) fn count_expired(&self, count: usize) {
        self.stats.expired.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl From<Arc<Inner>> for Store {
    fn from(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl Inner {
    fn enqueue(&self, push: impl FnOnce(&Doors) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.doors.read().as_ref().map_or(Err(StoreError::Closed), push)
    }

    fn count(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if result == Err(StoreError::Overloaded) {
            self.stats.overloads.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn close(&self) {
        let this = thread::current().id();
        // Before the rest, for it may wait for an answer.
        let tidier = self.tidier.lock().take();
        if let Some((stop, tidier)) = tidier {
            drop(stop);
            if tidier.thread().id() != this && !self.is_own(this) {
                start::join(tidier);
            }
        }
        // A writer ends when its queue is empty and has no more doors; cursors are closed first, for it looks at
        // them last.
        self.cursors.iter().for_each(|queue| queue.close());
        drop(self.doors.write().take());
        let Some(threads) = self.threads.lock().take() else { return };
        if !threads.is_own(this) {
            threads.join();
        }
    }

    /// Whether this is one of the threads that serve the queues: it cannot wait for who waits for them.
    fn is_own(&self, this: thread::ThreadId) -> bool {
        self.threads.lock().as_ref().is_some_and(|threads| threads.is_own(this))
    }
}

impl Doors {
    fn writer(&self, conv: ConvId) -> Option<&Sender<Job>> {
        self.writer_of(conv).map(|door| &door.jobs)
    }

    fn writer_of(&self, conv: ConvId) -> Option<&WriterDoor> {
        share(&self.writers, conv)
    }

    fn ops(&self) -> Option<&Sender<Job>> {
        self.ops.as_ref().or_else(|| self.writers.first().map(|door| &door.jobs))
    }

    fn waiting(&self) -> usize {
        self.writers.iter().map(|door| &door.jobs).chain(&self.ops).map(Sender::len).sum()
    }
}

/// The one of several that this conversation always belongs to. Ids are given out one after the other, so the shares are equal.
fn share<T>(all: &[T], conv: ConvId) -> Option<&T> {
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX).max(1);
    all.get(usize::try_from(conv.get() % count).unwrap_or(0))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn push<T>(queue: Option<&Sender<T>>, job: T) -> Result<(), StoreError> {
    let Some(queue) = queue else { return Err(StoreError::Closed) };
    queue
        .try_send(job)
        .map_err(|error| if error.is_full() { StoreError::Overloaded } else { StoreError::Closed })
}

/// Queues a job and waits for its result.
fn wait<T: Send + 'static>(
    queue: impl FnOnce(Box<dyn FnOnce(Result<T, StoreError>) + Send>) -> Result<(), StoreError>,
) -> Result<T, StoreError> {
    let (reply, answer) = bounded(1);
    queue(Box::new(move |result| {
        // Nobody waits any more only when the waiting thread has died.
        let _ = reply.send(result);
    }))?;
    answer.recv().unwrap_or(Err(StoreError::Panicked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dao::{ConversationDao, UserDao};
    use crate::pipeline::{CommittedBatch, SendError, Sent, Ticket};
    use std::time::Duration;

    #[test]
    fn old_client_ids_are_forgotten_and_younger_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, batches) = crossbeam_channel::unbounded();
        let sink = move |batch: CommittedBatch| drop(sender.send(batch));
        let store = Store::open(&DbConfig::at(folder.path()), Box::new(sink)).unwrap();
        let (conv, amy) = store
            .write_wait(|db| {
                let a = UserDao::new(db).create("amy", "amy", "", 1)?;
                let b = UserDao::new(db).create("bob", "bob", "", 1)?;
                Ok((ConversationDao::new(db).direct(a, b, 1)?.unwrap().id, a))
            })
            .unwrap();
        let say = |id: &str| -> Result<Sent, SendError> {
            let ticket = Ticket { owner: 0, token: 0, call: None };
            let session = SessionId::new(1).unwrap();
            let client_id = Some(id.into());
            let text = "hi".to_owned();
            store.send(SendRequest { ticket, conv, sender: amy, session, client_id, text }).unwrap();
            batches.recv_timeout(Duration::from_secs(60)).unwrap().sends.pop().unwrap().result
        };
        // More than a slice of them.
        for number in 0..1_200 {
            assert!(matches!(say(&format!("old {number}")), Ok(Sent::New(_))));
        }
        store.write_wait(|db| db.execute("UPDATE sent SET time_ms = 5", &[])).unwrap();
        assert!(matches!(say("young"), Ok(Sent::New(_))));
        let (_stop, stopped) = bounded(0);
        let weak = Arc::downgrade(&store.inner);
        let sweep = || tidy::sweep(&weak, &stopped, 6, Duration::ZERO);
        assert_eq!((sweep(), sweep()), (Ok(1_200), Ok(0)));
        assert!(matches!(say("young"), Ok(Sent::Duplicate { .. })));
        assert!(matches!(say("old 7"), Ok(Sent::New(_))), "forgotten");
    }
}
