//! The file that is written: opened, opened again when it is not the one at its path any more, and rolled.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::RollConfig;
use crate::period::period;
use crate::rolled;
use crate::seal::Seal;
use crate::stamp;

/// How long a failed roll is not tried again; the file grows meanwhile.
const ROLL_RETRY: Duration = Duration::from_secs(10);

/// Whether a write goes on exactly where the last one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    Same,
    /// It begins a line, in another file perhaps: a line that was cut short must be written again.
    New,
}

/// What tells one file from another, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: meta.dev(), inode: meta.ino() }
    }

    /// Without inodes a file is known by its presence alone.
    #[cfg(not(unix))]
    fn of(_meta: &Metadata) -> Self {
        Self { device: 0, inode: 0 }
    }
}

/// A log file and its rolled predecessors.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    roll: Option<RollConfig>,
    open: Option<OpenFile>,
    /// None where files bear no seals.
    seal: Option<Seal>,
    /// Where the file ended that was closed because writing failed.
    left: Option<(FileId, u64)>,
    /// The last byte written was not a newline.
    mid_line: bool,
    roll_after: Option<Instant>,
    /// What the operator should know, until it is taken.
    trouble: Option<String>,
    rolls: u64,
    reopens: u64,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    id: FileId,
    size: u64,
    /// Where its first record is, if it is ours from the beginning.
    start: u64,
    /// When it was written to first, as far as is known, in microseconds since 1970.
    since: i64,
    /// Only a regular file is rolled: `/dev/null` and pipes are not.
    regular: bool,
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        let meta = file.metadata()?;
        let since = if meta.len() == 0 { stamp::now_micros() } else { modified(&meta) };
        Ok(Self { file, id: FileId::of(&meta), size: meta.len(), start: 0, since, regular: meta.is_file() })
    }

    /// Its hour or day is over. A clock that is stepped back ends none.
    fn is_outlived(&self, roll: RollConfig) -> bool {
        roll.every.is_some_and(|every| period(every, stamp::now_micros()) > period(every, self.since))
    }

    /// A crash can leave half a line at the end; it must not become the beginning of ours.
    fn end_torn_line(&mut self, path: &Path) -> io::Result<()> {
        if !self.regular || self.size == 0 {
            return Ok(());
        }
        let mut last = [b'\n'];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)
        });
        // A file that may be written but not read keeps its end as it is.
        if read.is_ok() && last != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }
}

impl LogFile {
    /// Opens the file for appending, or creates it. Its folder must exist.
    pub(crate) fn open(path: PathBuf, roll: Option<RollConfig>, seal: Option<Seal>) -> io::Result<Self> {
        let mut open = OpenFile::open(&path)?;
        open.end_torn_line(&path)?;
        Ok(Self {
            path,
            roll,
            open: Some(open),
            seal,
            left: None,
            mid_line: false,
            roll_after: None,
            trouble: None,
            rolls: 0,
            reopens: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the open file is the one at the path. To be called before each block.
    pub(crate) fn prepare(&mut self) -> io::Result<Continuity> {
        if let Some(open) = &mut self.open {
            match fs::metadata(&self.path) {
                Ok(meta) if FileId::of(&meta) == open.id => {
                    if open.regular && meta.len() < open.size && self.mid_line {
                        // Truncated within a line: what stands there now is not its beginning.
                        open.size = meta.len();
                        self.mid_line = false;
                        self.seal.iter_mut().for_each(Seal::interrupt);
                        open.end_torn_line(&self.path)?;
                        return Ok(Continuity::New);
                    }
                    if meta.len() < open.size {
                        self.seal.iter_mut().for_each(Seal::interrupt);
                    }
                    open.size = meta.len();
                    return Ok(Continuity::Same);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Ok(Continuity::Same),
                _ => {}
            }
        }
        self.open_again()
    }

    fn open_again(&mut self) -> io::Result<Continuity> {
        self.close_sealed();
        let mut open = OpenFile::open(&self.path)?;
        let same = self.left == Some((open.id, open.size));
        if !(same && self.mid_line) {
            open.end_torn_line(&self.path)?;
        }
        self.open = Some(open);
        self.left = None;
        self.reopens += 1;
        if same {
            return Ok(Continuity::Same);
        }
        self.mid_line = false;
        self.seal.iter_mut().for_each(Seal::interrupt);
        Ok(Continuity::New)
    }

    /// Writes some of `bytes`, which end with a newline, and says how many; rolls between lines when the file is full.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // First, for its bytes count.
        self.open_sealed()?;
        let portion = self.portion(bytes)?;
        let part = bytes.get(..portion).unwrap_or(bytes);
        let Some(open) = &mut self.open else { return Err(io::ErrorKind::NotConnected.into()) };
        let written = open.file.write(part)?;
        open.size += written as u64;
        if let (Some(seal), true) = (&mut self.seal, open.regular) {
            seal.add(part.get(..written).unwrap_or(part));
        }
        if let Some(last) = written.checked_sub(1).and_then(|last| part.get(last)) {
            self.mid_line = *last != b'\n';
        }
        Ok(written)
    }

    /// How many of these bytes may go into the current file, which is another after rolling.
    fn portion(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(roll) = self.roll else { return Ok(bytes.len()) };
        let fitting = match &self.open {
            Some(open) if open.regular && open.is_outlived(roll) => 0,
            Some(open) if open.regular => fitting(bytes, roll.bytes_max.saturating_sub(open.size)),
            _ => return Ok(bytes.len()),
        };
        if fitting > 0 {
            return Ok(fitting);
        }
        let first_line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        if self.mid_line || self.open.as_ref().is_some_and(|open| open.size <= open.start) {
            return Ok(first_line);
        }
        if !self.roll(roll)? {
            return Ok(bytes.len());
        }
        self.open_sealed()?;
        let room = self.open.as_ref().map_or(0, |open| roll.bytes_max.saturating_sub(open.size));
        Ok(fitting_or(bytes, room, first_line))
    }

    /// False when it could not be done: then the current file goes on.
    fn roll(&mut self, roll: RollConfig) -> io::Result<bool> {
        if self.roll_after.is_some_and(|after| Instant::now() < after) {
            return Ok(false);
        }
        self.close_sealed();
        match rolled::move_aside(&self.path) {
            Ok(Some(_)) => self.rolls += 1,
            Ok(None) => {}
            Err(error) => {
                self.roll_failed(&error);
                return Ok(false);
            }
        }
        self.roll_after = None;
        self.open = None;
        self.open = Some(OpenFile::open(&self.path)?);
        if let Err(error) = rolled::prune(&self.path, &roll, SystemTime::now()) {
            self.trouble = Some(format!("cannot delete old log files: {error}"));
        }
        Ok(true)
    }

    fn roll_failed(&mut self, error: &io::Error) {
        self.roll_after = Instant::now().checked_add(ROLL_RETRY);
        self.trouble = Some(format!("cannot roll {}: {error}", self.path.display()));
    }

    /// To be called when a write failed: the next attempt opens the file anew.
    pub(crate) fn close_failed(&mut self) {
        if let Some(open) = self.open.take() {
            self.left = Some((open.id, open.size));
        }
    }

    /// Opens the file anew before the next write: asked for by an operator.
    pub(crate) fn reopen(&mut self) {
        self.close_sealed();
        self.close_failed();
    }

    /// Ends the file. It may be written again, which begins another part.
    pub(crate) fn finish(&mut self) {
        self.close_sealed();
    }

    /// Makes what is written survive a crash of the machine.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        match &self.open {
            Some(open) if open.regular => open.file.sync_data(),
            _ => Ok(()),
        }
    }

    pub(crate) fn run(&self) -> Option<&str> {
        self.seal.as_ref().map(Seal::run)
    }

    /// Writes the line that begins a part, where one is to begin.
    fn open_sealed(&mut self) -> io::Result<()> {
        let (Some(open), Some(seal)) = (&mut self.open, &mut self.seal) else { return Ok(()) };
        if !open.regular {
            return Ok(());
        }
        if let Some(line) = seal.opening() {
            open.file.write_all(&line)?;
            seal.begin();
            let from_the_beginning = open.size == 0;
            open.size += line.len() as u64;
            if from_the_beginning {
                open.start = open.size;
            }
        }
        Ok(())
    }

    /// Writes the line that ends a part. Without it the part is as one that a crash has ended, so a failure is not told.
    fn close_sealed(&mut self) {
        let (Some(open), Some(seal)) = (&mut self.open, &mut self.seal) else { return };
        if self.mid_line || !open.regular {
            return;
        }
        if let Some(line) = seal.closing()
            && open.file.write_all(&line).is_ok()
        {
            open.size += line.len() as u64;
        }
    }

    pub(crate) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    pub(crate) fn rolls(&self) -> u64 {
        self.rolls
    }

    pub(crate) fn reopens(&self) -> u64 {
        self.reopens
    }
}

/// When a file was written to last, in microseconds since 1970.
fn modified(meta: &Metadata) -> i64 {
    let since = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or_else(stamp::now_micros)
}

/// The length of the longest run of whole lines that fits.
fn fitting(bytes: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if bytes.len() <= room {
        return bytes.len();
    }
    bytes.get(..room).and_then(|head| head.iter().rposition(|byte| *byte == b'\n')).map_or(0, |at| at + 1)
}

fn fitting_or(bytes: &[u8], room: u64, otherwise: usize) -> usize {
    match fitting(bytes, room) {
        0 => otherwise,
        fits => fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RollEvery;

    fn write_all(file: &mut LogFile, mut bytes: &[u8]) {
        file.prepare().unwrap();
        while !bytes.is_empty() {
            let written = file.write(bytes).unwrap();
            bytes = &bytes[written..];
        }
    }

    fn contents(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The current file has the shortest name but the newest lines.
        names.sort_by_key(|path| (path.extension().is_some_and(|e| e == "log"), path.clone()));
        names.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn half_a_line_left_by_a_crash_does_not_join_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "whole\nhal").unwrap();
        write_all(&mut LogFile::open(path.clone(), None, None).unwrap(), b"ours\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\nhal\nours\n");
    }

    #[test]
    fn a_block_is_divided_over_files_between_lines() {
        let dir = tempfile::tempdir().unwrap();
        let roll = RollConfig { bytes_max: 8, keep: 9, ..RollConfig::default() };
        let mut file = LogFile::open(dir.path().join("a.log"), Some(roll), None).unwrap();
        write_all(&mut file, b"aaa\nbbb\nccc\nlonger than a file\nd\n");
        write_all(&mut file, b"e\n");
        assert_eq!(contents(dir.path()), ["aaa\nbbb\n", "ccc\n", "longer than a file\n", "d\ne\n"]);
        assert_eq!(file.rolls(), 3);
    }

    #[test]
    fn old_rolled_files_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let roll = RollConfig { bytes_max: 4, keep: 2, ..RollConfig::default() };
        let mut file = LogFile::open(dir.path().join("a.log"), Some(roll), None).unwrap();
        write_all(&mut file, b"aaa\nbbb\nccc\nddd\neee\n");
        assert_eq!(contents(dir.path()), ["ccc\n", "ddd\n", "eee\n"]);
    }

    #[test]
    fn a_line_cut_by_a_failure_goes_on_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = LogFile::open(path.clone(), None, None).unwrap();
        assert_eq!(file.write(b"hal").unwrap(), 3);
        file.close_failed();
        assert_eq!(file.prepare().unwrap(), Continuity::Same);
        file.write(b"f\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "half\n");
    }

    #[test]
    fn a_line_cut_by_a_failure_begins_again_in_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = LogFile::open(path.clone(), None, None).unwrap();
        file.write(b"hal").unwrap();
        file.close_failed();
        fs::remove_file(&path).unwrap();
        assert_eq!(file.prepare().unwrap(), Continuity::New);
        file.write(b"half\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "half\n");
    }

    #[test]
    fn a_line_cut_by_a_failure_begins_again_after_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = LogFile::open(path.clone(), None, None).unwrap();
        file.write(b"one\nhal").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        assert_eq!(file.prepare().unwrap(), Continuity::New);
        file.write(b"half\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "on\nhalf\n");
    }

    #[test]
    fn a_file_moved_away_is_opened_again_at_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let (path, away) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        let mut file = LogFile::open(path.clone(), None, None).unwrap();
        write_all(&mut file, b"before\n");
        fs::rename(&path, &away).unwrap();
        write_all(&mut file, b"after\n");
        assert_eq!(fs::read_to_string(away).unwrap(), "before\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "after\n");
        assert_eq!(file.reopens(), 1);
    }

    #[test]
    fn a_roll_that_fails_leaves_the_file_growing_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let roll = RollConfig { bytes_max: 4, keep: 2, ..RollConfig::default() };
        let mut file = LogFile::open(path.clone(), Some(roll), None).unwrap();
        file.roll_failed(&io::Error::other("no"));
        write_all(&mut file, b"aaa\nbbb\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "aaa\nbbb\n");
        assert!(file.take_trouble().unwrap().contains("cannot roll"));
        assert_eq!(file.rolls(), 0);
    }

    #[test]
    fn a_file_of_another_day_is_rolled_before_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "yesterday\n").unwrap();
        let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
        File::options().write(true).open(&path).unwrap().set_modified(yesterday).unwrap();
        for every in [RollEvery::Day, RollEvery::LocalDay] {
            let roll = RollConfig { every: Some(every), ..RollConfig::default() };
            let mut file = LogFile::open(path.clone(), Some(roll), None).unwrap();
            write_all(&mut file, b"today\n");
        }
        assert_eq!(contents(dir.path()), ["yesterday\n", "today\ntoday\n"]);
    }

    #[test]
    fn two_writers_that_roll_one_file_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let roll = RollConfig { bytes_max: 40, keep: 1000, ..RollConfig::default() };
        let path = dir.path().join("a.log");
        let open = || LogFile::open(path.clone(), Some(roll), None).unwrap();
        let (mut one, mut two) = (open(), open());
        for round in 0..100 {
            write_all(&mut one, format!("one {round}\n").as_bytes());
            write_all(&mut two, format!("two {round}\n").as_bytes());
        }
        let mut lines: Vec<String> =
            contents(dir.path()).iter().flat_map(|text| text.lines()).map(Into::into).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 200);
    }
}
