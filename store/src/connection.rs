//! One connection to the tables: prepared statements, transactions, typed rows. The engine behind it does not show.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use crate::entity::Entry;
use crate::error::StoreError;
#[cfg(test)]
use crate::error::UnavailableKind;
use crate::mysql_config::MySqlConfig;
use crate::mysql_engine as my;
use crate::row::{Param, Row};
use crate::sqlite::{self, BUSY_WAIT, Role};

/// A connection. Loop threads never hold one: its calls block.
///
/// Inside a store job a transaction is open already; [`transaction`](Self::transaction) nests in it.
pub struct Connection {
    engine: Engine,
    /// Transactions open on it, nested ones included.
    depth: u32,
    /// The engine reported a failure that may outlast the statement.
    suspect: bool,
    /// As it was last set.
    isolation: Option<Isolation>,
    /// Entries that a job has written beside the pipeline's own, to be told with its commit.
    entries: Vec<Entry>,
    /// Makes the next commit fail: after it was done (`true`) or before.
    #[cfg(test)]
    pub(crate) fail_commit: Option<bool>,
}

/// How far a checkpoint goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointMode {
    /// Stops nobody and waits for nobody.
    Passive,
    /// Stops the writer, so that the log can start over.
    Restart,
    /// The same, and empties the log's file.
    Truncate,
}

/// What a checkpoint found in the log, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogState {
    /// Those it held when the checkpoint began.
    pub(crate) pages: i64,
    /// Those of them that are in the file now.
    pub(crate) moved: i64,
}

/// How often a transaction that collides is begun, and the longest pause in between: the other one needs some milliseconds to end.
const COLLISION_TRIES: u32 = 6;
const COLLISION_PAUSE: Duration = Duration::from_millis(30);

/// What a transaction on a server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    /// Each statement what is committed when it begins. Locks are on rows only, not on the gaps between them: for writers.
    ReadCommitted,
    /// All of them one state: for readers.
    Snapshot,
}

/// The engine behind a connection.
enum Engine {
    Sqlite(rusqlite::Connection),
    MySql(Box<mysql::Conn>),
    /// None: every call has this error. For jobs that run to answer why they cannot.
    Gone(StoreError),
}

impl Connection {
    /// Opens a file of SQLite's.
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, StoreError> {
        Ok(Self::on(Engine::Sqlite(sqlite::open(path, role)?)))
    }

    /// Connects to a MySQL or MariaDB server, within `timeout`.
    pub(crate) fn connect(config: &MySqlConfig, timeout: Duration) -> Result<Self, StoreError> {
        let mut made = Self::on(Engine::MySql(Box::new(my::connect(config, timeout)?)));
        made.isolation = Some(Isolation::ReadCommitted);
        Ok(made)
    }

    /// One that cannot be used, and says why.
    pub(crate) const fn gone(why: StoreError) -> Self {
        Self::on(Engine::Gone(why))
    }

    const fn on(engine: Engine) -> Self {
        Self {
            engine,
            depth: 0,
            suspect: false,
            isolation: None,
            entries: Vec::new(),
            #[cfg(test)]
            fail_commit: None,
        }
    }

    /// Runs a statement that gives no rows and returns how many it changed.
    ///
    /// # Errors
    /// The engine's, typed; the statement then has changed nothing.
    pub fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        let result = match &mut self.engine {
            Engine::Sqlite(db) => sqlite::execute(db, sql, params),
            Engine::MySql(db) => my::execute(db, sql, params),
            Engine::Gone(why) => Err(why.clone()),
        };
        self.blame(result)
    }

    /// Runs a query and returns all its rows, mapped.
    ///
    /// # Errors
    /// The engine's, typed, or the first of `map`.
    pub fn query<T>(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.query_each(sql, params, |row| {
            all.push(map(row)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Runs a query and gives its rows to `each` until that returns false.
    ///
    /// # Errors
    /// The engine's, typed, or the first of `each`.
    pub fn query_each(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let result = match &mut self.engine {
            Engine::Sqlite(db) => sqlite::query_each(db, sql, params, each),
            Engine::MySql(db) => my::query_each(db, sql, params, each),
            Engine::Gone(why) => Err(why.clone()),
        };
        self.blame(result)
    }

    /// Runs a query and returns its first row, mapped, or `None` when there is none.
    ///
    /// # Errors
    /// The engine's, typed, or that of `map`.
    pub fn query_row<T>(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut first = None;
        self.query_each(sql, params, |row| {
            first = Some(map(row)?);
            Ok(false)
        })?;
        Ok(first)
    }

    /// Runs `work` so that all it writes takes effect, or with an error nothing. Inside another transaction it is a
    /// savepoint of that one.
    ///
    /// # Errors
    /// The engine's, typed, or that of `work`.
    pub fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.depth == 0 {
            self.begin_write()?;
        } else {
            self.savepoint()?;
        }
        let level = self.depth;
        let result = work(self);
        match result {
            Ok(value) => {
                let end = if level == 1 { self.commit() } else { self.release() };
                if end.is_err() {
                    self.unwind(level - 1);
                }
                end.map(|()| value)
            }
            Err(error) => {
                self.unwind(level - 1);
                Err(error)
            }
        }
    }

    /// Like [`transaction`](Self::transaction), and begins anew, after a short while by chance, when it collided with another: `work` may run several times. For
    /// worker threads; inside another transaction it runs once, for then the whole of that has to begin anew.
    ///
    /// # Errors
    /// As [`transaction`](Self::transaction); [`StoreError::Collision`] after the last try.
    pub fn transaction_retried<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = if self.depth == 0 { COLLISION_TRIES } else { 1 };
        loop {
            let result = self.transaction(&mut work);
            tries -= 1;
            if tries == 0 || !matches!(result, Err(StoreError::Collision { .. })) {
                return result;
            }
            std::thread::sleep(COLLISION_PAUSE.mul_f64(fastrand::f64()));
        }
    }

    /// Opens the transaction of a batch, with the right to write from the start, so that it cannot fail for it later.
    pub(crate) fn begin_write(&mut self) -> Result<(), StoreError> {
        match &mut self.engine {
            Engine::Sqlite(_) => drop(self.execute("BEGIN IMMEDIATE", &[])?),
            Engine::MySql(_) => {
                self.isolate(Isolation::ReadCommitted)?;
                self.script("START TRANSACTION")?;
            }
            Engine::Gone(why) => return Err(why.clone()),
        }
        self.depth = 1;
        Ok(())
    }

    /// Sets what the transactions of a server's connection see, if they do not see it already.
    fn isolate(&mut self, wanted: Isolation) -> Result<(), StoreError> {
        if self.isolation != Some(wanted) {
            self.script(match wanted {
                Isolation::ReadCommitted => "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                Isolation::Snapshot => "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            })?;
            self.isolation = Some(wanted);
        }
        Ok(())
    }

    /// Opens the transaction of a read job: all its queries see the same state.
    pub(crate) fn begin_read(&mut self) -> Result<(), StoreError> {
        match &mut self.engine {
            Engine::Sqlite(_) => drop(self.execute("BEGIN DEFERRED", &[])?),
            Engine::MySql(_) => {
                self.isolate(Isolation::Snapshot)?;
                self.script("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")?;
            }
            Engine::Gone(why) => return Err(why.clone()),
        }
        self.depth = 1;
        Ok(())
    }

    /// Commits. After an error the outcome is unknown and the transaction still has to be rolled back.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(done) = self.fail_commit.take() {
            if done {
                self.script("COMMIT")?;
                self.depth = 0;
            }
            return Err(StoreError::Unavailable { kind: UnavailableKind::Io, message: "injected".into() });
        }
        self.script("COMMIT")?;
        self.depth = 0;
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.script(&format!("SAVEPOINT s{}", self.depth))?;
        self.depth += 1;
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.script(&format!("RELEASE SAVEPOINT s{}", self.depth - 1))?;
        self.depth -= 1;
        Ok(())
    }

    /// Rolls back all that was opened beyond `depth`. The engine may have rolled back by itself after a failure; then
    /// there is nothing left to do. A connection that cannot roll back becomes suspect.
    pub(crate) fn unwind(&mut self, depth: u32) {
        if self.depth <= depth {
            return;
        }
        let result = if !self.in_transaction() {
            Ok(())
        } else if depth == 0 {
            self.script("ROLLBACK")
        } else {
            self.script(&format!("ROLLBACK TO SAVEPOINT s{depth}"))
                .and_then(|()| self.script(&format!("RELEASE SAVEPOINT s{depth}")))
        };
        if let Err(error) = result {
            log::warn!("rolling back failed: {error}");
            self.suspect = true;
        }
        self.depth = depth;
    }

    /// How many transactions are open, nested ones included.
    pub(crate) const fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether a transaction is really open: after some failures the engine has ended it by itself.
    pub(crate) fn in_transaction(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(db) => !db.is_autocommit(),
            // One that lost its connection has lost its transaction too; what else ended it by itself is an error that made it suspect.
            Engine::MySql(_) => self.depth > 0 && !self.suspect,
            Engine::Gone(_) => false,
        }
    }

    /// Whether the connection should be replaced by a new one.
    pub(crate) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Rows changed since the connection was opened.
    pub(crate) fn changes(&self) -> u64 {
        match &self.engine {
            Engine::Sqlite(db) => db.total_changes(),
            Engine::MySql(_) | Engine::Gone(_) => 0,
        }
    }

    /// The statement with a lock on the rows that it reads, until the transaction ends. A file has one writer, which needs none.
    pub(crate) fn for_update<'s>(&self, sql: &'s str) -> Cow<'s, str> {
        match &self.engine {
            Engine::MySql(_) => Cow::Owned(format!("{sql} FOR UPDATE")),
            Engine::Sqlite(_) | Engine::Gone(_) => Cow::Borrowed(sql),
        }
    }

    /// Whether there is a server behind it.
    pub(crate) const fn is_server(&self) -> bool {
        matches!(self.engine, Engine::MySql(_))
    }

    /// A job has written an entry.
    pub(crate) fn wrote_entry(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// How many entries jobs have written since they were last taken.
    pub(crate) const fn entries_written(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the entries beyond the first `count`: they were rolled back.
    pub(crate) fn forget_entries(&mut self, count: usize) {
        self.entries.truncate(count);
    }

    /// The entries that jobs have written.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Moves what the write-ahead log holds into the file, as far as the mode allows.
    pub(crate) fn checkpoint(&mut self, mode: CheckpointMode) -> Result<LogState, StoreError> {
        let sql = match mode {
            CheckpointMode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            CheckpointMode::Restart => "PRAGMA wal_checkpoint(RESTART)",
            CheckpointMode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let patient = mode != CheckpointMode::Restart;
        if !patient {
            // The writer does not wait for readers: the log starts over another time.
            self.busy_timeout(Duration::ZERO)?;
        }
        let read = |row: &Row<'_>| Ok(LogState { pages: row.get(1)?, moved: row.get(2)? });
        let state = self.query_row(sql, &[], read);
        if !patient {
            self.busy_timeout(BUSY_WAIT)?;
        }
        Ok(state?.unwrap_or_default())
    }

    /// Runs several statements at once. For migrations only: nothing in them comes from outside.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        let result = match &mut self.engine {
            Engine::Sqlite(db) => db.execute_batch(sql).map_err(StoreError::from),
            Engine::MySql(db) => my::script(db, sql),
            Engine::Gone(why) => Err(why.clone()),
        };
        self.blame(result)
    }

    fn busy_timeout(&self, timeout: Duration) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Sqlite(db) => Ok(db.busy_timeout(timeout)?),
            Engine::MySql(_) | Engine::Gone(_) => Ok(()),
        }
    }

    /// Whether the server has closed the connection, or sent what nobody asked for. Without a round trip; a file is always as it was left.
    pub(crate) fn is_broken(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(_) => false,
            Engine::MySql(db) => my::is_broken(db),
            Engine::Gone(_) => true,
        }
    }

    /// Asks a server whether it answers, within `timeout`.
    pub(crate) fn ping(&mut self, timeout: Duration) -> Result<(), StoreError> {
        let result = match &mut self.engine {
            Engine::Sqlite(_) => Ok(()),
            Engine::MySql(db) => my::ping(db, timeout),
            Engine::Gone(why) => Err(why.clone()),
        };
        self.blame(result)
    }

    fn blame<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.suspect |= error.blames_connection();
        }
        result
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("depth", &self.depth)
            .field("suspect", &self.suspect)
            .finish_non_exhaustive()
    }
}
