//! A disk that is soon full.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Reaper, is_root};

/// A small file system in memory, mounted on a temporary folder and unmounted on drop. Only root can mount.
#[derive(Debug)]
pub struct SmallDisk {
    reaper: Option<Reaper>,
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts a file system of `bytes`. `None`, and a line `skipped: …` is printed, when this process may not mount.
    pub fn new(bytes: u64) -> Option<SmallDisk> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("testkit-disk-").tempdir().expect("a temporary folder");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "testkit"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("run mount");
        if !output.status.success() {
            eprintln!(
                "skipped: needs the right to mount: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return None;
        }
        let path = OsString::from(dir.path());
        let reaper = Reaper::new("umount -l -- \"$1\" && rmdir -- \"$1\"", &[path]);
        Some(SmallDisk { reaper: Some(reaper), dir })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of its own until nothing more fits.
    pub fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.filler()).expect("the filling file");
        // Large pieces first, then small ones, until not even a byte fits.
        for piece in [64 * 1024, 4096, 1] {
            let zeros = vec![0; piece];
            loop {
                match file.write(&zeros) {
                    Ok(n) if n > 0 => {}
                    Ok(_) => break,
                    Err(e) if e.kind() == io::ErrorKind::StorageFull => break,
                    Err(e) => panic!("fill the small disk: {e}"),
                }
            }
        }
    }

    /// Removes what [`SmallDisk::fill`] wrote.
    pub fn make_room(&self) {
        match fs::remove_file(self.filler()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => panic!("make room on the small disk: {e}"),
            _ => {}
        }
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a killed server's last file may be open for a moment more.
        let _ = Command::new("umount").arg("-l").arg("--").arg(self.dir.path()).stdin(Stdio::null()).status();
        self.reaper = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room_and_is_unmounted_at_the_end() {
        let Some(disk) = SmallDisk::new(256 * 1024) else { return };
        let path = disk.path().to_owned();
        disk.fill();
        let refused = fs::write(path.join("more"), "text").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        disk.make_room();
        fs::write(path.join("more"), "text").unwrap();
        drop(disk);
        assert!(!path.exists());
    }
}
