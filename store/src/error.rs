//! What can go wrong with the tables, and whose fault it is.

use std::path::PathBuf;

/// Why the storage cannot serve at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnavailableKind {
    /// The disk, or the quota, is full.
    DiskFull,
    /// Reading or writing failed.
    Io,
    /// The file, its folder or its file system cannot be written to.
    ReadOnly,
    /// Another program holds the tables locked.
    Busy,
    /// The file cannot be opened.
    CannotOpen,
    /// The engine has no memory left.
    Memory,
    /// The server has no such database.
    NoDatabase,
    /// The server gives no further connection, or none to this user.
    Refused,
    /// The server did not answer in time, or the connection to it was cut: what it was asked last may have been done or not.
    Lost,
}

/// An error of the store. Cheap to clone, for one cause can answer a whole batch.
///
/// Its text is for the operator and may name paths; it is never shown to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage's fault, and it may pass: nothing was written, or at least nothing is known to be.
    #[error("the tables are unavailable: {message}")]
    Unavailable {
        /// The cause in one word.
        kind: UnavailableKind,
        /// The cause for the operator.
        message: String,
    },
    /// The caller's fault: a row with this key is there already.
    #[error("a row with this key exists already: {message}")]
    Duplicate {
        /// Which key.
        message: String,
    },
    /// Nobody's fault: this transaction and another waited for each other's rows, or one for longer than is allowed. It was rolled back as a whole, and may succeed
    /// when it is begun anew.
    #[error("the transaction collided with another: {message}")]
    Collision {
        /// What the engine said.
        message: String,
    },
    /// The file's fault: it is damaged, or no database at all, or holds what no version of this program writes.
    #[error("the tables are damaged: {message}")]
    Corrupt {
        /// What was found.
        message: String,
    },
    /// The load's fault: the queue is full. Nothing was done.
    #[error("the store's queue is full")]
    Overloaded,
    /// The store was closed. Nothing was done.
    #[error("the store is closed")]
    Closed,
    /// Another process works in this data folder.
    #[error(
        "the data folder {path} is in use{by}; stop that process, or choose another folder",
        path = path.display(),
        by = pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
    )]
    DataFolderInUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, where its lock file says so.
        pid: Option<u32>,
    },
    /// The data folder cannot be made, opened or locked.
    #[error("the data folder {path} cannot be used: {message}", path = path.display())]
    DataFolder {
        /// The folder or the file in it.
        path: PathBuf,
        /// What the operating system said.
        message: String,
    },
    /// The tables were made by a newer version of this program.
    #[error(
        "the tables have schema version {found}, this program knows {known}: run the newer program again"
    )]
    SchemaNewer {
        /// The version in the tables.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// A migration that was applied is not the one that this program ships under that number.
    #[error(
        "migration {version} ({name}) in the tables differs from this program's: they were made by another build"
    )]
    SchemaChanged {
        /// The migration's number.
        version: u32,
        /// Its name.
        name: String,
    },
    /// The configuration's fault.
    #[error("configuration key `{key}`: {message}")]
    Config {
        /// The key at fault.
        key: &'static str,
        /// What it must be.
        message: String,
    },
    /// A job panicked; what it had written was rolled back.
    #[error("a store job panicked")]
    Panicked,
    /// This program's fault.
    #[error("the store has a defect: {message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

/// Why a change of a group, a friendship or a block was not made. Nothing was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// There is no such user, group or request.
    #[error("there is no such user, group or request")]
    NotFound,
    /// It is not for this user to do.
    #[error("{0}")]
    Forbidden(&'static str),
    /// It is so already.
    #[error("{0}")]
    Conflict(&'static str),
    /// It makes no sense.
    #[error("{0}")]
    BadRequest(&'static str),
}

impl Denied {
    pub(crate) const NOT_A_MEMBER: Self = Self::Forbidden("you are not in this group");
}

impl StoreError {
    /// The cause lies with the storage and may pass: the caller answers `unavailable`.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Closed | Self::Corrupt { .. })
    }

    /// A row that cannot be read as what it should be.
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::Corrupt { message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }

    /// An error for which the connection, not the statement, is to blame.
    pub(crate) const fn blames_connection(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Corrupt { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let message = error.to_string();
        let Some(code) = error.sqlite_error_code() else {
            return Self::Internal { message };
        };
        let kind = match code {
            Code::DiskFull => UnavailableKind::DiskFull,
            Code::SystemIoFailure | Code::FileLockingProtocolFailed => UnavailableKind::Io,
            Code::ReadOnly | Code::PermissionDenied => UnavailableKind::ReadOnly,
            Code::DatabaseBusy | Code::DatabaseLocked => UnavailableKind::Busy,
            Code::CannotOpen => UnavailableKind::CannotOpen,
            Code::OutOfMemory => UnavailableKind::Memory,
            Code::ConstraintViolation if is_unique(&error) => return Self::Duplicate { message },
            Code::DatabaseCorrupt | Code::NotADatabase => return Self::Corrupt { message },
            _ => return Self::Internal { message },
        };
        Self::Unavailable { kind, message }
    }
}

/// Of the constraints only keys can be broken by data; the others are defects.
fn is_unique(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    error.sqlite_error().is_some_and(|e| {
        matches!(
            e.extended_code,
            SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID | SQLITE_CONSTRAINT_UNIQUE
        )
    })
}
