//! The lock on the data folder: one process works in it at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::StoreError;

/// Holds the folder until it is dropped. The operating system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the folder when it is missing, readable by its owner only, and locks it.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, StoreError> {
        make(folder).map_err(|error| refused(folder, &error))?;
        let path = folder.join("lock");
        // Not truncated: until the lock is ours the text in it is another process's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| refused(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::DataFolderInUse {
                    path: folder.to_path_buf(),
                    pid: pid_in(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(refused(&path, &error)),
        }
        note_pid(&mut file).map_err(|error| refused(&path, &error))?;
        Ok(Self { _file: file })
    }
}

/// Makes the file of the tables when it is missing, readable by its owner only; the engine gives its other files the same mode.
pub(crate) fn make_private(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if path.exists() {
        return Ok(());
    }
    options.open(path).map(drop).map_err(|error| refused(path, &error))
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        other => other,
    }
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The text is for people and for the message of a second opener; what locks is the lock.
fn note_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn refused(path: &Path, error: &io::Error) -> StoreError {
    StoreError::DataFolder { path: path.to_path_buf(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataLock::acquire(&path).unwrap();
        let error = DataLock::acquire(&path).unwrap_err();
        assert_eq!(error, StoreError::DataFolderInUse { path: path.clone(), pid: Some(std::process::id()) });
        assert!(error.to_string().contains(&std::process::id().to_string()));
        drop(first);
        DataLock::acquire(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_new_folder_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let _lock = DataLock::acquire(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[cfg(unix)]
    #[test]
    fn the_tables_are_for_their_owner_only_whatever_the_folder_is() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sink = |_: crate::CommittedBatch| {};
        let store = crate::Store::open(&crate::DbConfig::at(folder.path()), Box::new(sink)).unwrap();
        store.write_wait(|db| crate::dao::UserDao::new(db).create("amy", "amy", "", 1)).unwrap();
        let mut files = 0;
        for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            if file.file_name() != "lock" {
                files += 1;
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
            }
        }
        assert_eq!(files, 3);
    }

    #[test]
    fn a_path_that_is_no_folder_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = DataLock::acquire(&path).unwrap_err();
        assert!(matches!(&error, StoreError::DataFolder { path: p, .. } if *p == path), "{error}");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
