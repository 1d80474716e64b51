//! The threads of a store, for each engine: how they are started and how they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::checker::DbChecker;
use crate::checkpoint::Checkpointer;
use crate::config::DbConfig;
use crate::connection::Connection;
use crate::dao::{IdDao, IdName};
use crate::error::{StoreError, UnavailableKind};
use crate::job::Job;
use crate::lock::{DataLock, make_private};
use crate::mysql_config::{Durability, MySqlConfig, MySqlSection};
use crate::mysql_manager::MySqlManager;
use crate::mysql_writer::{MySqlWriter, Pool, run_ops, run_reads};
use crate::pipeline::CommitSink;
use crate::pool::ConnectionPool;
use crate::queues::{WriterDoor, WriterQueues};
use crate::reader::{ReadJob, Reader};
use crate::sqlite::Role;
use crate::store::Stats;
use crate::tell::{Tell, now_ms};
use crate::writer::{Checkpoints, Writer};

/// The ends of the queues that take jobs in.
pub(crate) struct Doors {
    /// One for each writer; a conversation is always the same one's.
    pub(crate) writers: Vec<WriterDoor>,
    /// For jobs that belong to no conversation, where the writers do not take them.
    pub(crate) ops: Option<Sender<Job>>,
    pub(crate) reads: Sender<ReadJob>,
}

/// The threads, in the order in which they end.
pub(crate) struct Threads {
    workers: Vec<JoinHandle<()>>,
    engine: EngineThreads,
}

enum EngineThreads {
    Sqlite {
        checkpointer: JoinHandle<()>,
        /// Keeps the checkpointer from ending before the readers have.
        checkpoint: Sender<()>,
    },
    MySql {
        pool: Pool,
        /// The rows of `commit_mark` that were made for the workers.
        workers: std::ops::Range<i64>,
    },
}

/// How long a closing store waits for its pool: all its users have ended by then.
const POOL_CLOSE_MAX: Duration = Duration::from_secs(1);

impl Threads {
    /// Whether this is one of them.
    pub(crate) fn is_own(&self, this: thread::ThreadId) -> bool {
        let checkpointer = match &self.engine {
            EngineThreads::Sqlite { checkpointer, .. } => Some(checkpointer),
            EngineThreads::MySql { .. } => None,
        };
        self.workers.iter().chain(checkpointer).any(|thread| thread.thread().id() == this)
    }

    /// Waits for their end. Their queues are closed.
    pub(crate) fn join(self) {
        self.workers.into_iter().for_each(join);
        match self.engine {
            EngineThreads::Sqlite { checkpointer, checkpoint } => {
                drop(checkpoint);
                join(checkpointer);
            }
            EngineThreads::MySql { pool, workers } => {
                forget_marks(&pool, workers);
                if !pool.close(POOL_CLOSE_MAX) {
                    log::warn!("connections to the database are still in use");
                }
            }
        }
    }

    /// The pool of connections, where there is a server.
    pub(crate) const fn pool(&self) -> Option<&Pool> {
        match &self.engine {
            EngineThreads::Sqlite { .. } => None,
            EngineThreads::MySql { pool, .. } => Some(pool),
        }
    }
}

/// What a start needs of the store.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a DbConfig,
    pub(crate) sink: Box<dyn CommitSink>,
    pub(crate) stats: &'a Arc<Stats>,
    /// Bytes of text that wait.
    pub(crate) bytes: &'a Arc<AtomicUsize>,
}

/// Locks the data folder, brings its file up to date, and starts one writer, the readers, and the checkpointer.
pub(crate) fn sqlite(parts: Parts<'_>) -> Result<(Doors, Threads), StoreError> {
    let Parts { config, sink, stats, bytes } = parts;
    let lock = Arc::new(DataLock::acquire(&config.data_dir)?);
    let path = config.file();
    make_private(&path)?;
    DbChecker::new().check(&path, now_ms())?;

    let (door, queues) = WriterQueues::new(config, config.write_queue_max, bytes);
    let (reads, read_jobs) = bounded(config.read_queue_max);
    let (checkpoint, checkpoint_wanted) = bounded(1);
    let restart = Arc::new(AtomicBool::new(false));
    let checkpoints = Checkpoints { wanted: checkpoint.clone(), restart: Arc::clone(&restart) };
    // All connections are opened here, so that what cannot be opened is the caller's to hear.
    let writer = Writer::open(path.clone(), queues, checkpoints, Tell::new(sink, Arc::clone(stats)))?;
    let readers = (0..config.readers)
        .map(|_| Reader::open(path.clone(), read_jobs.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let checkpointer = Connection::open(&path, Role::Checkpointer)?;
    let checkpointer = Checkpointer::new(checkpointer, checkpoint_wanted, restart, Arc::clone(stats));

    // Each thread keeps the folder locked for as long as it runs.
    let locked = |run: Box<dyn FnOnce() + Send>| {
        let lock = Arc::clone(&lock);
        move || {
            run();
            drop(lock);
        }
    };
    let mut workers = vec![spawn("store-writer", locked(Box::new(move || writer.run())))?];
    for reader in readers {
        workers.push(spawn("store-reader", locked(Box::new(move || reader.run())))?);
    }
    let checkpointer = spawn("store-checkpt", locked(Box::new(move || checkpointer.run())))?;
    let doors = Doors { writers: vec![door], ops: None, reads };
    Ok((doors, Threads { workers, engine: EngineThreads::Sqlite { checkpointer, checkpoint } }))
}

/// Brings the server's tables up to date and starts the pool and the threads that use it.
pub(crate) fn mysql(parts: Parts<'_>, section: &MySqlSection) -> Result<(Doors, Threads), StoreError> {
    let Parts { config, sink, stats, bytes } = parts;
    let server = MySqlConfig::from_section(section)?;
    DbChecker::check_mysql(&server, now_ms())?;
    let pool = ConnectionPool::start(MySqlManager::new(server), section.pool.clone())?;
    let mut db = pool.acquire()?;
    check_durability(&mut db, section.durability)?;
    let count = u32::try_from(section.workers).unwrap_or(u32::MAX);
    let first = db.transaction_retried(|db| {
        let first = IdDao::new(db).take(IdName::Worker, count)?.cast_signed();
        for worker in first..first + i64::from(count) {
            db.execute("INSERT INTO commit_mark (worker, mark) VALUES (?, 0)", &[worker.into()])?;
        }
        Ok(first)
    })?;
    drop(db);

    let (reads, read_jobs) = bounded(config.read_queue_max);
    let (ops, op_jobs) = bounded(config.write_queue_max);
    let jobs_max = config.write_queue_max.div_ceil(section.workers);
    let tell = |sink| Tell::new(sink, Arc::clone(stats));
    let numbers = first..first + i64::from(count);
    let (mut writers, mut workers) = (Vec::new(), Vec::new());
    for worker in numbers.clone() {
        let (door, queues) = WriterQueues::new(config, jobs_max, bytes);
        let writer = MySqlWriter::new(pool.clone(), worker, queues, tell(sink.another()));
        workers.push(spawn("store-writer", move || writer.run())?);
        writers.push(door);
    }
    for _ in 0..section.writers {
        let (pool, jobs, tell) = (pool.clone(), op_jobs.clone(), tell(sink.another()));
        workers.push(spawn("store-ops", move || run_ops(&pool, &jobs, tell))?);
    }
    for _ in 0..config.readers {
        let (pool, jobs) = (pool.clone(), read_jobs.clone());
        workers.push(spawn("store-reader", move || run_reads(&pool, &jobs))?);
    }
    let doors = Doors { writers, ops: Some(ops), reads };
    Ok((doors, Threads { workers, engine: EngineThreads::MySql { pool, workers: numbers } }))
}

/// Refuses a server that acknowledges what it may still lose.
fn check_durability(db: &mut Connection, wanted: Durability) -> Result<(), StoreError> {
    let read = |row: &crate::Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?));
    let sql = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";
    let Some((flush, binlog, sync)) = db.query_row(sql, &[], read)? else {
        return Err(StoreError::internal("the server tells nothing of its settings"));
    };
    let mut weak = Vec::new();
    // MariaDB's 3 syncs in every step of a group commit.
    if flush != 1 && flush != 3 {
        weak.push(format!("innodb_flush_log_at_trx_commit = {flush} (should be 1)"));
    }
    if binlog != 0 && sync != 1 {
        weak.push(format!("sync_binlog = {sync} (should be 1)"));
    }
    if weak.is_empty() {
        return Ok(());
    }
    let weak = weak.join(" and ");
    if wanted == Durability::Relaxed {
        log::warn!("the database may lose what it has acknowledged when its machine fails: {weak}");
        return Ok(());
    }
    Err(StoreError::Config {
        key: "mysql.durability",
        message: format!(
            "the server has {weak} and may lose what it has acknowledged; \"relaxed\" accepts that"
        ),
    })
}

/// The workers' rows are of no more use.
fn forget_marks(pool: &Pool, workers: std::ops::Range<i64>) {
    let gone = pool.acquire().map_err(StoreError::from).and_then(|mut db| {
        let range = [workers.start.into(), workers.end.into()];
        db.execute("DELETE FROM commit_mark WHERE worker >= ? AND worker < ?", &range)
    });
    if let Err(error) = gone {
        log::debug!("rows of commit_mark stay behind: {error}");
    }
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| StoreError::Unavailable {
        kind: UnavailableKind::Memory,
        message: format!("the thread {name} cannot be started: {error}"),
    })
}

pub(crate) fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("store").to_owned();
    if thread.join().is_err() {
        log::error!("the thread {name} had panicked");
    }
}
