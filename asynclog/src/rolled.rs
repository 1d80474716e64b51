//! Rolled files: their names, which never collide and sort by age, and how many are kept.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::RollConfig;
use crate::stamp;

const STAMP_BYTES: usize = "20260923T101504".len();

/// The part that rolling adds to the name: `20260923T101504.000001`. Ordered by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suffix {
    stamp: String,
    number: u64,
}

impl Suffix {
    /// The suffix for a file rolled now: after `newest`, even when the clock was stepped back or the second is the same.
    fn after(newest: Option<&Self>, now_micros: i64) -> Self {
        let fresh = Self { stamp: stamp::compact(now_micros), number: 1 };
        match newest {
            Some(newest) if *newest >= fresh => newest.next(),
            _ => fresh,
        }
    }

    fn next(&self) -> Self {
        Self { stamp: self.stamp.clone(), number: self.number.saturating_add(1) }
    }

    /// Reads `.20260923T101504.000001`.
    fn parse(text: &str) -> Option<Self> {
        let (stamp, number) = text.strip_prefix('.')?.split_once('.')?;
        let (date, time) = stamp.split_once('T')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if stamp.len() != STAMP_BYTES || date.len() != 8 || !digits(date) || !digits(time) {
            return None;
        }
        if number.len() < 6 || !digits(number) {
            return None;
        }
        Some(Self { stamp: stamp.to_owned(), number: number.parse().ok()? })
    }

    fn path(&self, path: &Path) -> PathBuf {
        let mut name = OsString::from(path);
        name.push(format!(".{}.{:06}", self.stamp, self.number));
        PathBuf::from(name)
    }
}

/// Renames the current file to a name that no file has; `None` when there is no current file any more.
pub(crate) fn move_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let newest = list(path)?.into_iter().map(|(suffix, _)| suffix).max();
    let mut suffix = Suffix::after(newest.as_ref(), stamp::now_micros());
    loop {
        let target = suffix.path(path);
        // The name is taken before the rename, which would overwrite: two processes that roll at once get two names.
        match File::create_new(&target) {
            Ok(_) => return rename_onto(path, target),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => suffix = suffix.next(),
            Err(error) => return Err(error),
        }
    }
}

/// Renames onto an empty file of our own.
fn rename_onto(path: &Path, target: PathBuf) -> io::Result<Option<PathBuf>> {
    match fs::rename(path, &target) {
        Ok(()) => Ok(Some(target)),
        Err(error) => {
            let _ = fs::remove_file(&target);
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
        }
    }
}

/// Deletes the oldest rolled files, as many as the settings do not let stay.
pub(crate) fn prune(path: &Path, roll: &RollConfig, now: SystemTime) -> io::Result<()> {
    let mut files = list(path)?;
    files.sort();
    files.reverse();
    let (mut kept, mut bytes) = (0, 0_u64);
    for (_, file) in files {
        // A file that is gone meanwhile is none to be kept.
        let Ok(meta) = fs::metadata(&file) else { continue };
        let age = meta.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        bytes = bytes.saturating_add(meta.len());
        let stays = kept < roll.keep
            && roll.keep_for.is_none_or(|longest| age <= longest)
            && roll.keep_bytes.is_none_or(|most| bytes <= most);
        if stays {
            kept += 1;
            continue;
        }
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The rolled files of this log, and nothing else that lies beside it.
fn list(path: &Path) -> io::Result<Vec<(Suffix, PathBuf)>> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let base = path.file_name().unwrap_or(OsStr::new(""));
    let mut files = Vec::new();
    for found in fs::read_dir(dir)? {
        let found = found?;
        let name = found.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(base.as_encoded_bytes());
        let suffix = rest.and_then(|rest| std::str::from_utf8(rest).ok()).and_then(Suffix::parse);
        if let Some(suffix) = suffix {
            files.push((suffix, found.path()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: i64 = 1_790_158_504_000_000;

    #[test]
    fn a_second_file_of_the_same_second_has_the_next_number() {
        let first = Suffix::after(None, NOW);
        assert_eq!(first.path(Path::new("chatd.log")), Path::new("chatd.log.20260923T101504.000001"));
        let second = Suffix::after(Some(&first), NOW);
        assert_eq!(second.path(Path::new("chatd.log")), Path::new("chatd.log.20260923T101504.000002"));
        assert!(second > first);
    }

    #[test]
    fn names_sort_by_age_after_the_clock_is_stepped_back() {
        let late = Suffix::after(None, NOW + 3_600_000_000);
        let later = Suffix::after(Some(&late), NOW);
        assert!(later > late);
        assert!(
            Suffix { stamp: late.stamp.clone(), number: 1_000_000 }
                > Suffix { stamp: late.stamp, number: 999_999 }
        );
    }

    #[test]
    fn only_names_that_rolling_makes_are_rolled_files() {
        assert!(Suffix::parse(".20260923T101504.000001").is_some());
        assert!(Suffix::parse(".20260923T101504.1000000").is_some());
        for other in [
            "",
            ".gz",
            ".20260923T101504",
            ".20260923T101504.1",
            ".20260923T101504.000001.gz",
            ".2026092aT101504.000001",
            "20260923T101504.000001",
            ".202609231101504.000001",
        ] {
            assert_eq!(Suffix::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..20 {
            fs::write(&path, format!("{round}")).unwrap();
            let rolled = move_aside(&path).unwrap().unwrap();
            assert_eq!(fs::read_to_string(&rolled).unwrap(), format!("{round}"));
            assert!(seen.insert(rolled));
        }
        for (round, rolled) in seen.iter().enumerate() {
            assert_eq!(fs::read_to_string(rolled).unwrap(), format!("{round}"));
        }
    }

    #[test]
    fn rolling_a_file_that_is_gone_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(move_aside(&dir.path().join("a.log")).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn pruning_deletes_the_oldest_and_no_stranger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        for name in [
            "a.log",
            "a.log.gz",
            "b.log.20260923T101504.000001",
            "a.log.20260923T101504.000002",
            "a.log.20260923T101504.000010",
            "a.log.20250923T101504.000099",
        ] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        prune(&path, &RollConfig { keep: 1, ..RollConfig::default() }, SystemTime::now()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["a.log", "a.log.20260923T101504.000010", "a.log.gz", "b.log.20260923T101504.000001"]
        );
    }

    #[test]
    fn age_and_bytes_limit_what_stays_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let names: Vec<_> =
            (1..=6).map(|n| dir.path().join(format!("a.log.20260923T101504.{n:06}"))).collect();
        for name in &names {
            fs::write(name, "12345").unwrap();
        }
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        for old in &names[..2] {
            File::options().write(true).open(old).unwrap().set_modified(now - 2 * hour).unwrap();
        }
        let there = || names.iter().map(|name| name.exists()).collect::<Vec<_>>();
        prune(&path, &RollConfig { keep_for: Some(hour), ..RollConfig::default() }, now).unwrap();
        assert_eq!(there(), [false, false, true, true, true, true]);
        prune(&path, &RollConfig { keep_bytes: Some(14), ..RollConfig::default() }, now).unwrap();
        assert_eq!(there(), [false, false, false, false, true, true]);
    }
}
