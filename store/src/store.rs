//! [`Store`]: the threads behind the tables and the queues in front of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::{Mutex, RwLock};
use schema::SessionId;

use crate::checker::DbChecker;
use crate::checkpoint::Checkpointer;
use crate::config::DbConfig;
use crate::connection::Connection;
use crate::cursors::CursorQueue;
use crate::dao::{IdDao, IdName};
use crate::error::{StoreError, UnavailableKind};
use crate::job::{Job, Op};
use crate::lock::{DataLock, make_private};
use crate::pipeline::{CommitSink, CursorWrite, SendRequest};
use crate::reader::{ReadJob, Reader};
use crate::sqlite::Role;
use crate::writer::{Writer, WriterQueues, now_ms};

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
    pub(crate) duplicates: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overloads: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

struct Inner {
    /// The ends of the queues that take jobs in. Taken out by `close`; whoever holds the read lock holds it for a `try_send`.
    doors: RwLock<Option<Doors>>,
    cursors: Arc<CursorQueue>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    stats: Arc<Stats>,
    /// Session ids taken from the table and not given out yet.
    sessions: Mutex<Range<u64>>,
    threads: Mutex<Option<Threads>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("open", &self.doors.read().is_some()).finish_non_exhaustive()
    }
}

struct Doors {
    writes: Sender<Job>,
    reads: Sender<ReadJob>,
}

struct Threads {
    writer: JoinHandle<()>,
    readers: Vec<JoinHandle<()>>,
    checkpointer: JoinHandle<()>,
    /// Keeps the checkpointer from ending before the readers have.
    checkpoint: Sender<()>,
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
        let lock = Arc::new(DataLock::acquire(&config.data_dir)?);
        let path = config.file();
        make_private(&path)?;
        DbChecker::new().check(&path, now_ms())?;

        let stats = Arc::new(Stats::default());
        let bytes = Arc::new(AtomicUsize::new(0));
        let (writes, write_jobs) = bounded(config.write_queue_max);
        let (reads, read_jobs) = bounded(config.read_queue_max);
        let (wake, woken) = bounded(1);
        let (checkpoint, checkpoint_wanted) = bounded(1);
        let cursors = Arc::new(CursorQueue::new(wake));
        let restart = Arc::new(AtomicBool::new(false));
        let queues = WriterQueues {
            jobs: write_jobs,
            bytes: Arc::clone(&bytes),
            cursors: Arc::clone(&cursors),
            wake: woken,
            checkpoint: checkpoint.clone(),
            restart: Arc::clone(&restart),
            batch_max: config.batch_max,
            gather: Duration::from_millis(config.gather_ms),
        };
        // All connections are opened here, so that what cannot be opened is the caller's to hear.
        let writer = Writer::open(path.clone(), queues, sink, Arc::clone(&stats))?;
        let readers = (0..config.readers)
            .map(|_| Reader::open(path.clone(), read_jobs.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let checkpointer = Connection::open(&path, Role::Checkpointer)?;
        let checkpointer = Checkpointer::new(checkpointer, checkpoint_wanted, restart, Arc::clone(&stats));

        let threads = Threads {
            writer: spawn("store-writer", &lock, move || writer.run())?,
            readers: readers
                .into_iter()
                .map(|reader| spawn("store-reader", &lock, move || reader.run()))
                .collect::<Result<Vec<_>, _>>()?,
            checkpointer: spawn("store-checkpt", &lock, move || checkpointer.run())?,
            checkpoint,
        };
        let inner = Inner {
            doors: RwLock::new(Some(Doors { writes, reads })),
            cursors,
            bytes,
            bytes_max: config.write_queue_bytes_max,
            stats,
            sessions: Mutex::new(0..0),
            threads: Mutex::new(Some(threads)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Queues a message. Its outcome comes to the sink, exactly once, unless this returns an error.
    ///
    /// Sends of one caller to one conversation are committed in the order in which they were queued, and write jobs queued
    /// before a send take effect before it.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`].
    pub fn send(&self, request: SendRequest) -> Result<(), StoreError> {
        let bytes = request.text.len();
        let waiting = self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        let result = if waiting.saturating_add(bytes) > self.inner.bytes_max && waiting > 0 {
            Err(StoreError::Overloaded)
        } else {
            self.inner.enqueue(|doors| doors.writes.try_send(Job::Send(request)).map_err(full))
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
        self.inner.count(self.inner.cursors.push(write))
    }

    /// Queues a job that writes. `op` runs inside the transaction of a batch, under a savepoint: with an error of its own
    /// it has written nothing and the rest of the batch goes on. `done` gets the result on the writer thread after the
    /// commit; of one batch first the sink is called, then the `done`s in the order of their jobs.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`]; `done` is not called then.
    pub fn write<T, F, D>(&self, op: F, done: D) -> Result<(), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
        D: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job = Job::Op(Box::new(Op::new(op, done)));
        self.inner.count(self.inner.enqueue(|doors| doors.writes.try_send(job).map_err(full)))
    }

    /// [`write`](Self::write) that waits for the result. For worker threads.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of `op` and of the commit.
    pub fn write_wait<T, F>(&self, op: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = bounded(1);
        self.write(op, move |result| {
            // Nobody waits any more only when the waiting thread has died.
            let _ = reply.send(result);
        })?;
        answer.recv().unwrap_or(Err(StoreError::Panicked))
    }

    /// Queues a job that reads. It runs on a reading thread and sees one state of the tables throughout, which holds
    /// everything committed before it began. It answers by itself. A panic in it is caught and logged.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`], [`StoreError::Closed`]; the job is not run then.
    pub fn read(&self, job: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), StoreError> {
        self.inner.count(self.inner.enqueue(|doors| doors.reads.try_send(Box::new(job)).map_err(full)))
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
        let Stats { batches, failed_batches, messages, duplicates, refused, overloads, checkpoints } =
            &*self.inner.stats;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (write_queue, read_queue) =
            self.inner.doors.read().as_ref().map_or((0, 0), |doors| (doors.writes.len(), doors.reads.len()));
        StoreStats {
            batches: get(batches),
            failed_batches: get(failed_batches),
            messages: get(messages),
            duplicates: get(duplicates),
            refused: get(refused),
            overloads: get(overloads),
            checkpoints: get(checkpoints),
            write_queue,
            write_queue_bytes: self.inner.bytes.load(Ordering::Relaxed),
            cursor_queue: self.inner.cursors.len(),
            read_queue,
        }
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
        // The writer ends when its queue is empty and has no more doors; cursors are closed first, for it looks at
        // them last.
        self.cursors.close();
        drop(self.doors.write().take());
        let Some(threads) = self.threads.lock().take() else { return };
        let Threads { writer, readers, checkpointer, checkpoint } = threads;
        let this = thread::current().id();
        if readers.iter().chain([&writer, &checkpointer]).any(|t| t.thread().id() == this) {
            return;
        }
        join(writer);
        readers.into_iter().for_each(join);
        drop(checkpoint);
        join(checkpointer);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err by name")]
fn full<T>(error: crossbeam_channel::TrySendError<T>) -> StoreError {
    if error.is_full() { StoreError::Overloaded } else { StoreError::Closed }
}

/// Starts a thread that keeps the folder locked for as long as it runs.
fn spawn(
    name: &str,
    lock: &Arc<DataLock>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let lock = Arc::clone(lock);
    let body = move || {
        run();
        drop(lock);
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| StoreError::Unavailable {
        kind: UnavailableKind::Memory,
        message: format!("the thread {name} cannot be started: {error}"),
    })
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("store").to_owned();
    if thread.join().is_err() {
        log::error!("the thread {name} had panicked");
    }
}
