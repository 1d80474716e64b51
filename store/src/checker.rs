//! Brings the schema of a database to this program's version, or refuses to touch it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use schema::sql::{MYSQL, Migration, SQLITE};
use sha2::{Digest, Sha256};

use crate::config::DbConfig;
use crate::connection::Connection;
use crate::error::{StoreError, UnavailableKind};
use crate::mysql_config::MySqlConfig;
use crate::mysql_engine;
use crate::row::Row;
use crate::sqlite::Role;

/// Opens, or makes, the tables and applies the migrations that they lack, each in a transaction of its own.
///
/// Every migration's checksum is kept. Tables of a newer schema, or of one that was changed, are refused untouched.
#[derive(Clone, Copy, Debug)]
pub struct DbChecker {
    migrations: &'static [Migration],
}

/// What a check found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbCheck {
    /// The schema version before; 0 for tables that were made now.
    pub from: u32,
    /// The schema version now.
    pub to: u32,
}

/// What a start would do to the tables. Its text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbPlan {
    /// Where the tables are, or would be.
    pub place: String,
    /// The schema version they have; `None` where there are none yet.
    pub from: Option<u32>,
    /// The migrations that would be applied: number and name.
    pub migrations: Vec<(u32, &'static str)>,
}

impl fmt::Display for DbPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, from, migrations } = self;
        match from {
            None => write!(f, "{place}: has no tables yet")?,
            Some(version) => write!(f, "{place}: schema version {version}")?,
        }
        if migrations.is_empty() {
            return write!(f, "; nothing to do");
        }
        write!(f, "; would apply")?;
        for (at, (version, name)) in migrations.iter().enumerate() {
            write!(f, "{} migration {version} ({name})", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migration (
    version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum BLOB NOT NULL, applied_ms INTEGER NOT NULL) STRICT";

/// The same for a server, which knows no `STRICT` and wants lengths.
const TABLE_MYSQL: &str = "CREATE TABLE IF NOT EXISTS schema_migration (
    version INT NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL, checksum BINARY(32) NOT NULL, applied_ms BIGINT NOT NULL)
    ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// How long one connect to the server may take, and how long to wait for another process that migrates.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const MIGRATING_MAX_S: i64 = 60;

impl Default for DbChecker {
    fn default() -> Self {
        Self { migrations: SQLITE }
    }
}

impl DbChecker {
    /// A checker for this program's schema.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the file at `path` and brings it up to date. Whoever calls holds the lock of the folder.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`], [`StoreError::SchemaChanged`], [`StoreError::Corrupt`] for a file that is no
    /// database, [`StoreError::Unavailable`] where it cannot be opened or written; the last two name the path.
    pub fn check(&self, path: &Path, now_ms: i64) -> Result<DbCheck, StoreError> {
        self.run(path, now_ms).map_err(|error| name_path(error, path))
    }

    fn run(&self, path: &Path, now_ms: i64) -> Result<DbCheck, StoreError> {
        let mut db = Connection::open(path, Role::Checker)?;
        let applied = if has_tables(&mut db)? { applied(&mut db)? } else { Vec::new() };
        let from = self.compare(&applied)?;
        let mut to = from;
        for migration in self.migrations.iter().filter(|m| m.version > from) {
            db.transaction(|db| apply(db, migration, now_ms))?;
            log::info!("tables: migration {} ({}) applied", migration.version, migration.name);
            to = migration.version;
        }
        Ok(DbCheck { from, to })
    }

    /// Looks what a start with this configuration would do to the tables, and does nothing.
    ///
    /// # Errors
    /// As those of the checks.
    pub fn plan(config: &DbConfig) -> Result<DbPlan, StoreError> {
        config.validate()?;
        match &config.mysql {
            None => {
                let path = config.file();
                let checker = Self::new();
                let applied = if path.exists() { checker.look(&path) } else { Ok(None) };
                checker.plan_of(path.display().to_string(), applied.map_err(|error| name_path(error, &path))?)
            }
            Some(section) => {
                let server = MySqlConfig::from_section(section)?;
                let place = format!("database {} on {}", server.database(), server.host());
                let applied = match Connection::connect(&server, CONNECT_MAX) {
                    Err(StoreError::Unavailable { kind: UnavailableKind::NoDatabase, .. }) => None,
                    other => Some(applied_mysql(&mut other?)?).filter(|applied| !applied.is_empty()),
                };
                Self { migrations: MYSQL }.plan_of(place, applied)
            }
        }
    }

    /// What was applied to the file; `None` when nothing was.
    fn look(&self, path: &Path) -> Result<Option<Vec<Applied>>, StoreError> {
        let mut db = Connection::open(path, Role::Reader)?;
        Ok(if has_tables(&mut db)? { Some(applied(&mut db)?) } else { None })
    }

    fn plan_of(&self, place: String, applied: Option<Vec<Applied>>) -> Result<DbPlan, StoreError> {
        let from = applied.map(|applied| self.compare(&applied)).transpose()?;
        let done = from.unwrap_or(0);
        let to_do = self.migrations.iter().filter(|migration| migration.version > done);
        Ok(DbPlan { place, from, migrations: to_do.map(|one| (one.version, one.name)).collect() })
    }

    /// Checks the database on a server, makes it when it is missing, and brings it up to date, under a lock that is the server's: of several processes that start
    /// at once one does it, and the others wait. A migration that was interrupted is begun anew. Where nothing is to be done, no right to make anything is needed.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`StoreError::Unavailable`] when the server cannot be reached, gives no right, or another process migrates for longer than a
    /// minute.
    pub fn check_mysql(config: &MySqlConfig, now_ms: i64) -> Result<DbCheck, StoreError> {
        Self { migrations: MYSQL }.run_mysql(config, now_ms)
    }

    fn run_mysql(&self, config: &MySqlConfig, now_ms: i64) -> Result<DbCheck, StoreError> {
        let mut db = match Connection::connect(config, CONNECT_MAX) {
            Err(StoreError::Unavailable { kind: UnavailableKind::NoDatabase, .. }) => {
                mysql_engine::create_database(config, CONNECT_MAX)?;
                Connection::connect(config, CONNECT_MAX)?
            }
            other => other?,
        };
        // A look without the lock: most starts find everything as it should be.
        let from = self.compare(&applied_mysql(&mut db)?)?;
        if self.migrations.iter().all(|migration| migration.version <= from) {
            return Ok(DbCheck { from, to: from });
        }
        let lock = format!("chatd migrates {}", config.database());
        let got =
            db.query_row("SELECT GET_LOCK(?, ?)", &[lock.as_str().into(), MIGRATING_MAX_S.into()], |row| {
                row.get::<Option<i64>>(0)
            })?;
        if got.flatten() != Some(1) {
            let message = format!("another process has migrated for {MIGRATING_MAX_S} s");
            return Err(StoreError::Unavailable { kind: UnavailableKind::Busy, message });
        }
        // The lock ends with the connection at the latest.
        let from = self.compare(&applied_mysql(&mut db)?)?;
        let mut to = from;
        for migration in self.migrations.iter().filter(|migration| migration.version > from) {
            db.execute(TABLE_MYSQL, &[])?;
            db.script(migration.sql)?;
            note(&mut db, migration, now_ms)?;
            log::info!("tables: migration {} ({}) applied", migration.version, migration.name);
            to = migration.version;
        }
        Ok(DbCheck { from, to })
    }

    /// The version of tables to which `applied` was applied, when they are ours.
    fn compare(&self, applied: &[Applied]) -> Result<u32, StoreError> {
        let known = self.migrations.last().map_or(0, |m| m.version);
        let version = applied.last().map_or(0, |a| a.version);
        if version > known {
            return Err(StoreError::SchemaNewer { found: version, known });
        }
        for (at, row) in applied.iter().enumerate() {
            let same = self
                .migrations
                .get(at)
                .is_some_and(|m| m.version == row.version && checksum(m) == row.checksum);
            if !same {
                return Err(StoreError::SchemaChanged { version: row.version, name: row.name.clone() });
            }
        }
        Ok(version)
    }
}

struct Applied {
    version: u32,
    name: String,
    checksum: [u8; 32],
}

fn has_tables(db: &mut Connection) -> Result<bool, StoreError> {
    let sql = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'schema_migration'";
    Ok(db.query_row(sql, &[], |row| row.get::<u64>(0))? != Some(0))
}

fn applied(db: &mut Connection) -> Result<Vec<Applied>, StoreError> {
    let read = |row: &Row<'_>| Ok(Applied { version: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? });
    db.query("SELECT version, name, checksum FROM schema_migration ORDER BY version", &[], read)
}

fn apply(db: &mut Connection, migration: &Migration, now_ms: i64) -> Result<(), StoreError> {
    db.execute(TABLE, &[])?;
    db.script(migration.sql)?;
    note(db, migration, now_ms)
}

fn applied_mysql(db: &mut Connection) -> Result<Vec<Applied>, StoreError> {
    let found = db.query_row(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'schema_migration'",
        &[],
        |row| row.get::<u64>(0),
    )?;
    if found == Some(0) { Ok(Vec::new()) } else { applied(db) }
}

fn note(db: &mut Connection, migration: &Migration, now_ms: i64) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO schema_migration (version, name, checksum, applied_ms) VALUES (?, ?, ?, ?)",
        &[
            i64::from(migration.version).into(),
            migration.name.into(),
            (&checksum(migration)).into(),
            now_ms.into(),
        ],
    )?;
    Ok(())
}

fn checksum(migration: &Migration) -> [u8; 32] {
    Sha256::digest(migration.sql.as_bytes()).into()
}

fn name_path(error: StoreError, path: &Path) -> StoreError {
    let at = |message: String| format!("{}: {message}", path.display());
    match error {
        StoreError::Unavailable { kind, message } => StoreError::Unavailable { kind, message: at(message) },
        StoreError::Corrupt { message } => StoreError::Corrupt { message: at(message) },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: &[Migration] = &[Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER);" }];
    static TWO: &[Migration] = &[
        Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER);" },
        Migration { version: 2, name: "two", sql: "CREATE TABLE b (x INTEGER); INSERT INTO b VALUES (7);" },
    ];
    static CHANGED: &[Migration] =
        &[Migration { version: 1, name: "one", sql: "CREATE TABLE a (y INTEGER);" }];
    static BROKEN: &[Migration] = &[
        Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER);" },
        Migration {
            version: 2,
            name: "two",
            sql: "CREATE TABLE b (x INTEGER); INSERT INTO nowhere VALUES (7);",
        },
    ];

    fn check(migrations: &'static [Migration], path: &Path) -> Result<DbCheck, StoreError> {
        DbChecker { migrations }.check(path, 1)
    }

    #[test]
    fn migrations_are_applied_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sqlite3");
        assert_eq!(check(ONE, &path), Ok(DbCheck { from: 0, to: 1 }));
        assert_eq!(check(ONE, &path), Ok(DbCheck { from: 1, to: 1 }));
        assert_eq!(check(TWO, &path), Ok(DbCheck { from: 1, to: 2 }));
        assert_eq!(check(TWO, &path), Ok(DbCheck { from: 2, to: 2 }));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sqlite3");
        check(TWO, &path).unwrap();
        let error = check(ONE, &path).unwrap_err();
        assert_eq!(error, StoreError::SchemaNewer { found: 2, known: 1 });
        assert_eq!(check(TWO, &path), Ok(DbCheck { from: 2, to: 2 }));
    }

    #[test]
    fn a_changed_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sqlite3");
        check(ONE, &path).unwrap();
        let error = check(CHANGED, &path).unwrap_err();
        assert_eq!(error, StoreError::SchemaChanged { version: 1, name: "one".into() });
    }

    #[test]
    fn a_migration_that_fails_half_way_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sqlite3");
        check(BROKEN, &path).unwrap_err();
        assert_eq!(check(TWO, &path), Ok(DbCheck { from: 1, to: 2 }));
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.sqlite3");
        std::fs::write(&path, "this is a letter to my aunt, and no database at all\n".repeat(40)).unwrap();
        let error = check(ONE, &path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("t.sqlite3"), "{error}");
    }
}
