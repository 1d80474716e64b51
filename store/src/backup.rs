//! A copy of the SQLite tables, made while they are in use.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::config::DbConfig;
use crate::connection::Connection;
use crate::error::{StoreError, UnavailableKind};
use crate::sqlite::Role;

/// Copies the tables of this configuration's data folder to a new file, as one moment saw them, and checks the copy. The server may run meanwhile. Returns the copy's
/// size in bytes.
///
/// # Errors
/// [`StoreError::Config`] when the tables are on a server, [`StoreError::DataFolder`] when the file is there already or cannot be made,
/// [`StoreError::Unavailable`], and [`StoreError::Corrupt`] when the copy is damaged.
pub fn backup(config: &DbConfig, file: &Path) -> Result<u64, StoreError> {
    if config.mysql.is_some() {
        let message =
            "the tables are on a server: back them up with its own tools (mariadb-dump --single-transaction)"
                .to_owned();
        return Err(StoreError::Config { key: "mysql", message });
    }
    let no_file =
        |error: std::io::Error| StoreError::DataFolder { path: file.to_owned(), message: error.to_string() };
    let from = config.file();
    if !from.exists() {
        return Err(StoreError::DataFolder { path: from, message: "there are no tables".to_owned() });
    }
    // Made first, so that nobody else can read it, and nothing is overwritten.
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(no_file)?;
    let copied = copy(&from, file);
    if copied.is_err() {
        // Half a copy is none.
        let _ = std::fs::remove_file(file);
    }
    copied?;
    let copy = std::fs::File::open(file).map_err(no_file)?;
    copy.sync_all().map_err(no_file)?;
    Ok(copy.metadata().map_err(no_file)?.len())
}

fn copy(from: &Path, file: &Path) -> Result<(), StoreError> {
    let Some(name) = file.to_str() else {
        let message = "the name is not UTF-8".to_owned();
        return Err(StoreError::DataFolder { path: file.to_owned(), message });
    };
    let mut db = Connection::open(from, Role::Copier)?;
    db.execute("VACUUM INTO ?", &[name.into()])?;
    let mut copy = Connection::open(file, Role::Reader)?;
    let found: Option<String> = copy.query_row("PRAGMA integrity_check", &[], |row| row.get(0))?;
    match found.as_deref() {
        Some("ok") => Ok(()),
        Some(fault) => Err(StoreError::corrupt(format!("{}: {fault}", file.display()))),
        None => Err(StoreError::Unavailable {
            kind: UnavailableKind::Io,
            message: format!("{} could not be checked", file.display()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dao::UserDao;
    use crate::{CommittedBatch, Store};

    #[test]
    fn a_copy_made_while_the_store_is_open_has_what_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let config = DbConfig::at(folder.path());
        let store = Store::open(&config, Box::new(|_: CommittedBatch| {})).unwrap();
        for number in 0..50 {
            let name = format!("u{number}");
            store.write_wait(move |db| UserDao::new(db).create(&name, &name, "hash", 1)).unwrap();
        }
        let other = tempfile::tempdir().unwrap();
        let file = other.path().join("chat.sqlite3");
        assert!(backup(&config, &file).unwrap() > 4_096);
        let again = backup(&config, &file).unwrap_err();
        assert!(matches!(again, StoreError::DataFolder { .. }), "nothing is overwritten: {again}");
        // The copy is a data folder's file.
        let copy = Store::open(&DbConfig::at(other.path()), Box::new(|_: CommittedBatch| {})).unwrap();
        assert!(copy.read_wait(|db| UserDao::new(db).by_name_key("u49")).unwrap().is_some());
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "for its owner only");
    }

    #[test]
    fn what_is_not_there_or_on_a_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("copy");
        let error = backup(&DbConfig::at(folder.path().join("nothing")), &file).unwrap_err();
        assert!(matches!(error, StoreError::DataFolder { .. }), "{error}");
        let error = backup(&DbConfig::on_mysql("mysql://a@h:1/d"), &file).unwrap_err();
        assert!(matches!(error, StoreError::Config { key: "mysql", .. }), "{error}");
        assert!(!file.exists());
    }
}
