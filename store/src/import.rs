//! From one machine to a server: all tables, row by row, and compared row by row afterwards.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::checker::DbChecker;
use crate::config::DbConfig;
use crate::connection::Connection;
use crate::error::StoreError;
use crate::lock::DataLock;
use crate::mysql_config::{MySqlConfig, MySqlSection};
use crate::row::{Owned, Param, Row};
use crate::rows::Rows;
use crate::sqlite::Role;
use crate::tell::now_ms;

/// A table: its name, its columns, and how many of the first are its key.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    key: usize,
}

/// All tables that hold anything of users. `commit_mark` and `schema_migration` are each engine's own.
const TABLES: &[Table] = &[
    Table { name: "user", columns: &["id", "name", "name_key", "password_hash", "created_ms"], key: 1 },
    Table { name: "token", columns: &["hash", "user", "device", "created_ms", "expires_ms"], key: 1 },
    Table {
        name: "conversation",
        columns: &["id", "kind", "user_lo", "user_hi", "last_seq", "members_version", "created_ms"],
        key: 1,
    },
    Table { name: "member", columns: &["user", "conv", "delivered_seq", "read_seq", "own_seq"], key: 2 },
    Table {
        name: "message",
        columns: &["conv", "seq", "event", "sender", "session", "time_ms", "text"],
        key: 2,
    },
    Table { name: "sent", columns: &["sender", "conv", "client_id", "seq", "time_ms"], key: 3 },
    Table { name: "chat_group", columns: &["conv", "name", "open", "members"], key: 1 },
    Table { name: "span", columns: &["conv", "user", "from_seq", "to_seq", "role"], key: 3 },
    Table { name: "invitation", columns: &["user", "conv", "inviter", "created_ms"], key: 2 },
    Table { name: "friend", columns: &["user", "other", "state"], key: 2 },
    Table { name: "blocked", columns: &["user", "other"], key: 2 },
];

/// Rows of one transaction.
const AT_ONCE: usize = 2_000;
/// How long one statement may take.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_mins(5);

/// Copies the tables of a data folder into an empty database, and compares both row by row. `progress` is told of each table and how many of its rows are copied.
/// Returns how many rows each table has.
///
/// # Errors
/// [`StoreError::DataFolderInUse`] while a server runs in the folder, [`StoreError::Config`] when the database is not empty, [`StoreError::Corrupt`] when a row differs
/// afterwards, and those of either engine. What was copied stays: an import is begun anew in an empty database.
pub fn import(
    from: &Path,
    to: &MySqlSection,
    mut progress: impl FnMut(&str, u64),
) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let config = DbConfig::at(from);
    if !config.file().exists() {
        return Err(StoreError::DataFolder {
            path: config.file(),
            message: "there are no tables".to_owned(),
        });
    }
    let _lock = DataLock::acquire(from)?;
    DbChecker::new().check(&config.file(), now_ms())?;
    let server = MySqlConfig::from_section(to)?.answer_within(ANSWER_MAX);
    DbChecker::check_mysql(&server, now_ms())?;
    let mut source = Connection::open(&config.file(), Role::Reader)?;
    let mut target = Connection::connect(&server, ANSWER_MAX)?;
    for table in TABLES {
        let any = target.query_row(&format!("SELECT 1 FROM {} LIMIT 1", table.name), &[], |_| Ok(()))?;
        if any.is_some() {
            let message = format!("the database is not empty: table {} has rows", table.name);
            return Err(StoreError::Config { key: "to", message });
        }
    }
    let mut counts = Vec::new();
    for table in TABLES {
        let rows = table.copy(&mut source, &mut target, &mut progress)?;
        table.compare(&mut source, &mut target)?;
        counts.push((table.name, rows));
    }
    // Ids go on where they were.
    let blocks: Vec<(String, i64)> =
        source.query("SELECT name, next FROM id_block", &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (name, next) in blocks.iter().filter(|(name, _)| name != "worker") {
        target.execute(
            "UPDATE id_block SET next = ? WHERE name = ?",
            &[(*next).into(), name.as_str().into()],
        )?;
    }
    Ok(counts)
}

impl Table {
    fn list(&self) -> String {
        self.columns.join(", ")
    }

    /// All rows in the order of the key, which both engines see alike: numbers, bytes, and texts of ASCII.
    fn select(&self) -> String {
        let key = self.columns.get(..self.key).unwrap_or_default().join(", ");
        format!("SELECT {} FROM {} ORDER BY {key}", self.list(), self.name)
    }

    fn copy(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        progress: &mut impl FnMut(&str, u64),
    ) -> Result<u64, StoreError> {
        let head = format!("INSERT INTO {} ({}) VALUES ", self.name, self.list());
        let row = format!("({})", vec!["?"; self.columns.len()].join(", "));
        let insert = Rows { head: &head, row: &row, between: ", ", tail: "" };
        let width = self.columns.len();
        let mut count = 0;
        let mut waiting: Vec<Owned> = Vec::new();
        let mut write = |waiting: &mut Vec<Owned>, count: u64| {
            let params: Vec<Param<'_>> = waiting.iter().map(Owned::as_param).collect();
            target.transaction(|db| insert.exact(db, &params, width))?;
            waiting.clear();
            progress(self.name, count);
            Ok::<(), StoreError>(())
        };
        source.query_each(&self.select(), &[], |row| {
            for at in 0..width {
                waiting.push(row.owned(at)?);
            }
            count += 1;
            if waiting.len() >= AT_ONCE * width {
                write(&mut waiting, count)?;
            }
            Ok(true)
        })?;
        write(&mut waiting, count)?;
        Ok(count)
    }

    /// Both have the same rows: each is read once more, and what they come to is the same.
    fn compare(&self, source: &mut Connection, target: &mut Connection) -> Result<(), StoreError> {
        let sums = [source, target].map(|db| self.sum(db));
        let [of_source, of_target] = sums;
        if of_source? == of_target? {
            return Ok(());
        }
        Err(StoreError::corrupt(format!("table {} differs after it was copied", self.name)))
    }

    fn sum(&self, db: &mut Connection) -> Result<(u64, [u8; 32]), StoreError> {
        let mut sum = Sha256::new();
        let mut count = 0;
        db.query_each(&self.select(), &[], |row: &Row<'_>| {
            count += 1;
            for at in 0..self.columns.len() {
                row.owned(at)?.add_to(&mut sum);
            }
            Ok(true)
        })?;
        Ok((count, sum.finalize().into()))
    }
}
