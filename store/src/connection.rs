//! One connection to the tables: prepared statements, transactions, typed rows. The engine behind it does not show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::types::{ToSqlOutput, ValueRef};
use schema::{ConvId, Seq, SessionId, UserId};

use crate::error::{StoreError, UnavailableKind};

/// A connection. Loop threads never hold one: its calls block.
///
/// Inside a store job a transaction is open already; [`transaction`](Self::transaction) nests in it.
pub struct Connection {
    db: rusqlite::Connection,
    /// Transactions open on it, nested ones included.
    depth: u32,
    /// The engine reported a failure that may outlast the statement.
    suspect: bool,
    /// Makes the next commit fail: after it was done (`true`) or before.
    #[cfg(test)]
    pub(crate) fail_commit: Option<bool>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes the file when it is missing, and the schema.
    Checker,
    /// The only one that writes.
    Writer,
    /// Reads.
    Reader,
    /// Moves the log into the file.
    Checkpointer,
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

/// Statements kept prepared per connection: more than the store has.
const STATEMENTS: usize = 128;

/// Locks are held by others only for the moment at which a checkpoint ends; longer means that another program is at the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long the last checkpoint, when the store closes, may wait for others to let go.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

/// Bytes that the write-ahead log keeps on disk when it starts over.
const LOG_BYTES_KEPT: i64 = 64 << 20;

impl Connection {
    pub(crate) fn open(path: &Path, role: Role) -> Result<Self, StoreError> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if role == Role::Checker {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let db = rusqlite::Connection::open_with_flags(path, flags)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        db.busy_timeout(if role == Role::Checkpointer { CHECKPOINT_WAIT } else { BUSY_WAIT })?;
        let connection = Self {
            db,
            depth: 0,
            suspect: false,
            #[cfg(test)]
            fail_commit: None,
        };
        connection.configure(role)?;
        Ok(connection)
    }

    fn configure(&self, role: Role) -> Result<(), StoreError> {
        let mode: String = self.db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        if !mode.eq_ignore_ascii_case("wal") {
            return Err(StoreError::Unavailable {
                kind: UnavailableKind::Io,
                message: format!("the file system does not allow a write-ahead log (got `{mode}`)"),
            });
        }
        self.db.execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=0;",
        )?;
        self.db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        match role {
            Role::Writer => self.db.pragma_update(None, "cache_size", -32_768)?,
            Role::Reader => self.db.execute_batch("PRAGMA cache_size=-8192; PRAGMA query_only=ON;")?,
            Role::Checker | Role::Checkpointer => {}
        }
        Ok(())
    }

    /// Runs a statement that gives no rows and returns how many it changed.
    ///
    /// # Errors
    /// The engine's, typed; the statement then has changed nothing.
    pub fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
        let result =
            self.db.prepare_cached(sql).and_then(|mut s| s.execute(rusqlite::params_from_iter(params)));
        self.blame(result.map_err(StoreError::from))
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
        mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let result = (|| {
            let mut statement = self.db.prepare_cached(sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(params))?;
            while let Some(row) = rows.next()? {
                if !each(&Row(row))? {
                    break;
                }
            }
            Ok(())
        })();
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

    /// Opens the transaction of a batch, with the right to write from the start, so that it cannot fail for it later.
    pub(crate) fn begin_write(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN IMMEDIATE", &[])?;
        self.depth = 1;
        Ok(())
    }

    /// Opens the transaction of a read job: all its queries see the same state.
    pub(crate) fn begin_read(&mut self) -> Result<(), StoreError> {
        self.execute("BEGIN DEFERRED", &[])?;
        self.depth = 1;
        Ok(())
    }

    /// Commits. After an error the outcome is unknown and the transaction still has to be rolled back.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(done) = self.fail_commit.take() {
            if done {
                self.execute("COMMIT", &[])?;
                self.depth = 0;
            }
            return Err(StoreError::Unavailable { kind: UnavailableKind::Io, message: "injected".into() });
        }
        self.execute("COMMIT", &[])?;
        self.depth = 0;
        Ok(())
    }

    fn savepoint(&mut self) -> Result<(), StoreError> {
        self.execute(&format!("SAVEPOINT s{}", self.depth), &[])?;
        self.depth += 1;
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreError> {
        self.execute(&format!("RELEASE s{}", self.depth - 1), &[])?;
        self.depth -= 1;
        Ok(())
    }

    /// Rolls back all that was opened beyond `depth`. The engine may have rolled back by itself after a failure; then
    /// there is nothing left to do. A connection that cannot roll back becomes suspect.
    pub(crate) fn unwind(&mut self, depth: u32) {
        if self.depth <= depth {
            return;
        }
        let result = if self.db.is_autocommit() {
            Ok(())
        } else if depth == 0 {
            self.execute("ROLLBACK", &[]).map(drop)
        } else {
            self.execute(&format!("ROLLBACK TO s{depth}"), &[])
                .and_then(|_| self.execute(&format!("RELEASE s{depth}"), &[]))
                .map(drop)
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
        !self.db.is_autocommit()
    }

    /// Whether the connection should be replaced by a new one.
    pub(crate) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Rows changed since the connection was opened.
    pub(crate) fn changes(&self) -> u64 {
        self.db.total_changes()
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
            self.db.busy_timeout(Duration::ZERO)?;
        }
        let read = |row: &Row<'_>| Ok(LogState { pages: row.get(1)?, moved: row.get(2)? });
        let state = self.query_row(sql, &[], read);
        if !patient {
            self.db.busy_timeout(BUSY_WAIT)?;
        }
        Ok(state?.unwrap_or_default())
    }

    /// Runs several statements at once. For migrations only: nothing in them comes from outside.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), StoreError> {
        let result = self.db.execute_batch(sql).map_err(StoreError::from);
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

/// A value that goes into a statement. Made by `into()` from ids, numbers, texts and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Param<'a> {
    /// No value.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<i64> for Param<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a [u8; 32]> for Param<'a> {
    fn from(bytes: &'a [u8; 32]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row of a query's result.
#[derive(Debug)]
pub struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    /// The value of column `at`, counted from 0.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not of this type.
    pub fn get<T: Column>(&self, at: usize) -> Result<T, StoreError> {
        T::read(self, at)
    }

    fn value(&self, at: usize) -> Result<ValueRef<'_>, StoreError> {
        Ok(self.0.get_ref(at)?)
    }
}

/// A type that a column can be read as.
pub trait Column: Sized {
    /// Reads column `at` of `row`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is not of this type.
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError>;
}

fn wrong(row: &Row<'_>, at: usize, wanted: &str) -> StoreError {
    let column = row.0.as_ref().column_name(at).unwrap_or("?").to_owned();
    StoreError::corrupt(format!("column {column} holds no {wanted}"))
}

impl Column for i64 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.value(at)? {
            ValueRef::Integer(number) => Ok(number),
            _ => Err(wrong(row, at, "number")),
        }
    }
}

impl Column for u64 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        Self::try_from(i64::read(row, at)?).map_err(|_| wrong(row, at, "count"))
    }
}

impl Column for u32 {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        Self::try_from(i64::read(row, at)?).map_err(|_| wrong(row, at, "small count"))
    }
}

impl Column for String {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        text(row, at).map(Self::from)
    }
}

impl Column for Arc<str> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        text(row, at).map(Self::from)
    }
}

fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, StoreError> {
    match row.value(at)? {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_err(|_| wrong(row, at, "UTF-8")),
        _ => Err(wrong(row, at, "text")),
    }
}

impl Column for Vec<u8> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.value(at)? {
            ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
            _ => Err(wrong(row, at, "bytes")),
        }
    }
}

impl Column for [u8; 32] {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.value(at)? {
            ValueRef::Blob(bytes) => bytes.try_into().map_err(|_| wrong(row, at, "hash")),
            _ => Err(wrong(row, at, "bytes")),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
        match row.value(at)? {
            ValueRef::Null => Ok(None),
            _ => T::read(row, at).map(Some),
        }
    }
}

macro_rules! id_column {
    ($($id:ty),+) => {$(
        impl From<$id> for Param<'_> {
            fn from(id: $id) -> Self {
                Self::Int(id.as_i64())
            }
        }

        impl Column for $id {
            fn read(row: &Row<'_>, at: usize) -> Result<Self, StoreError> {
                Self::from_i64(i64::read(row, at)?).ok_or_else(|| wrong(row, at, stringify!($id)))
            }
        }
    )+};
}

id_column!(UserId, ConvId, SessionId, Seq);
