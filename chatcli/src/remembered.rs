//! The remembered login: the token of each user of each server in a file that only its owner can read.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schema::text::name_key;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Only the owner may read and write.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A token is far shorter; what is longer is not ours.
const FILE_BYTES_MAX: u64 = 4_096;

/// What stands in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    token: String,
}

/// A login that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) token: Secret,
}

/// The remembered logins at one server.
#[derive(Debug)]
pub(crate) struct Remembered {
    folder: PathBuf,
}

impl Remembered {
    /// Those at `address`, kept in the user's state folder.
    pub(crate) fn at(state_folder: &Path, address: &str) -> Self {
        let plain = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | ':') { c } else { '_' };
        let server: String = address.chars().map(plain).collect();
        Self { folder: state_folder.join("logins").join(format!("at-{server}")) }
    }

    /// The login of `name`, or the one that was used last.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<Login> {
        let path = match name {
            Some(name) => self.path(name),
            None => self.last()?,
        };
        read(&path).inspect_err(|error| log::info!("no remembered login: {error}")).ok()
    }

    /// Remembers a login, in place of an earlier one of this user.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep(&self, name: &str, token: &Secret) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.folder)?;
        let kept = Kept { name: name.to_owned(), token: token.reveal().to_owned() };
        let text = serde_json::to_vec(&kept)?;
        // Readers see the old file or the new one, never a half.
        let draft = self.folder.join(format!(".draft-{}", std::process::id()));
        let written = write_new(&draft, &text).and_then(|()| fs::rename(&draft, self.path(name)));
        if written.is_err() {
            // What could not be put in its place is not left about.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Forgets the login of `name`.
    pub(crate) fn forget(&self, name: &str) {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot remove the remembered login of {name}: {error}");
            }
            _ => {}
        }
    }

    /// Letters, digits, marks and `_-.`: a name can be that of a file, with something before it that makes `..` harmless.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("user-{}", name_key(name).replace('/', "_")))
    }

    fn last(&self) -> Option<PathBuf> {
        let files = fs::read_dir(&self.folder).ok()?.flatten();
        let ours = files.filter(|file| file.file_name().to_string_lossy().starts_with("user-"));
        let aged = ours.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())));
        aged.max_by_key(|(time, _): &(SystemTime, PathBuf)| *time).map(|(_, path)| path)
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn read(path: &Path) -> io::Result<Login> {
    let meta = fs::metadata(path)?;
    if meta.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("the file is too long"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        // Somebody has opened it to others: closed again before it is used.
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))?;
    }
    let kept: Kept = serde_json::from_slice(&fs::read(path)?)?;
    Ok(Login { name: kept.name, token: Secret::new(kept.token) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_login_is_kept_for_its_owner_alone_and_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(state.path(), "chat.example:6000");
        assert_eq!(remembered.find(None), None);
        remembered.keep("Amy", &Secret::new("t-1")).unwrap();
        remembered.keep("Amy", &Secret::new("t-2")).unwrap();
        let login = Login { name: "Amy".into(), token: Secret::new("t-2") };
        assert_eq!(remembered.find(None), Some(login.clone()));
        assert_eq!(remembered.find(Some("AMY")), Some(login));
        let path = remembered.path("amy");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        remembered.forget("amy");
        remembered.forget("amy");
        assert_eq!(remembered.find(None), None);
    }

    #[test]
    fn the_login_that_was_used_last_comes_first() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(state.path(), "a:1");
        for name in ["amy", "bob"] {
            remembered.keep(name, &Secret::new(name)).unwrap();
        }
        let earlier = SystemTime::UNIX_EPOCH;
        fs::File::open(remembered.path("bob")).unwrap().set_modified(earlier).unwrap();
        assert_eq!(remembered.find(None).unwrap().name, "amy");
        assert_eq!(remembered.find(Some("bob")).unwrap().name, "bob");
        assert_eq!(Remembered::at(state.path(), "b:1").find(None), None, "another server");
    }

    #[test]
    fn no_address_and_no_name_leads_out_of_the_folder() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(state.path(), "../../x:1");
        assert_eq!(remembered.folder.parent(), Some(state.path().join("logins").as_path()));
        for name in ["..", ".", "a/../../b"] {
            assert_eq!(remembered.path(name).parent(), Some(remembered.folder.as_path()), "{name}");
        }
    }

    #[test]
    fn a_file_that_others_could_read_is_closed_and_nonsense_is_no_login() {
        let state = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(state.path(), "a:1");
        remembered.keep("amy", &Secret::new("t")).unwrap();
        let path = remembered.path("amy");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(remembered.find(None).is_some());
        assert_eq!(mode(&path), 0o600);
        fs::write(&path, "{").unwrap();
        assert_eq!(remembered.find(None), None);
        fs::write(&path, "x".repeat(5_000)).unwrap();
        assert_eq!(remembered.find(Some("amy")), None);
    }
}
