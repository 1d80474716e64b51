//! The SQLite engine of a [`Connection`](crate::Connection): one file, and what is set on each connection to it.

use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;

use crate::error::{StoreError, UnavailableKind};
use crate::row::{Param, Row};

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
    /// Reads all of it into a copy.
    Copier,
}

/// Statements kept prepared per connection: more than the store has.
const STATEMENTS: usize = 128;

/// Locks are held by others only for the moment at which a checkpoint ends; longer means that another program is at the file.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long the last checkpoint, when the store closes, may wait for others to let go.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(100);

/// Bytes that the write-ahead log keeps on disk when it starts over.
const LOG_BYTES_KEPT: i64 = 64 << 20;

pub(crate) fn open(path: &Path, role: Role) -> Result<rusqlite::Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Checker {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let db = rusqlite::Connection::open_with_flags(path, flags)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.busy_timeout(if role == Role::Checkpointer { CHECKPOINT_WAIT } else { BUSY_WAIT })?;
    configure(&db, role)?;
    Ok(db)
}

fn configure(db: &rusqlite::Connection, role: Role) -> Result<(), StoreError> {
    let mode: String = db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Unavailable {
            kind: UnavailableKind::Io,
            message: format!("the file system does not allow a write-ahead log (got `{mode}`)"),
        });
    }
    db.execute_batch("PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=0;")?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    match role {
        Role::Writer => db.pragma_update(None, "cache_size", -32_768)?,
        Role::Reader => db.execute_batch("PRAGMA cache_size=-8192; PRAGMA query_only=ON;")?,
        Role::Checker | Role::Checkpointer | Role::Copier => {}
    }
    Ok(())
}

pub(crate) fn execute(
    db: &rusqlite::Connection,
    sql: &str,
    params: &[Param<'_>],
) -> Result<usize, StoreError> {
    Ok(db.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params))?)
}

pub(crate) fn query_each(
    db: &rusqlite::Connection,
    sql: &str,
    params: &[Param<'_>],
    mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    while let Some(row) = rows.next()? {
        if !each(&Row::from(row))? {
            break;
        }
    }
    Ok(())
}
