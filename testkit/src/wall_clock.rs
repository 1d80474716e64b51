//! A time of day that tests can set while the processes that have it run.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{TestkitError, need_program};

/// The file with the seconds by which the time of day is shifted.
const FILE: &str = "TESTKIT_WALL_CLOCK";
const SOURCE: &str = include_str!("wall_clock.c");

/// The time of day of those processes that are started with [`WallClock::env`]. Whatever else tells time, the monotonic clock above all, is as it was: as when somebody sets the clock.
#[derive(Debug)]
pub struct WallClock {
    shift: PathBuf,
    /// Removed at the end by whoever made it.
    _dir: Option<TempDir>,
}

impl WallClock {
    /// Whether a C compiler is there (see [`need_program`]); prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        need_program("cc")
    }

    /// Makes one that is right.
    ///
    /// # Errors
    /// When its library cannot be compiled or its file not be written.
    pub fn start() -> Result<WallClock, TestkitError> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-clock-")
            .tempdir()
            .map_err(|e| TestkitError::io("make a temporary folder", e))?;
        let source = dir.path().join("clock.c");
        std::fs::write(&source, SOURCE).map_err(|e| TestkitError::io("write the clock's source", e))?;
        let program = PathBuf::from("cc");
        let compiled = Command::new(&program)
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([dir.path().join("clock.so"), source])
            .output()
            .map_err(|source| TestkitError::Spawn { program: program.clone(), source })?;
        if !compiled.status.success() {
            let stderr = String::from_utf8_lossy(&compiled.stderr).into_owned();
            let (status, code) = (compiled.status.to_string(), compiled.status.code());
            return Err(TestkitError::ExitedEarly { program, status, code, stderr });
        }
        let clock = WallClock { shift: dir.path().join("seconds"), _dir: Some(dir) };
        clock.set(0);
        Ok(clock)
    }

    /// The one that this process was started with.
    pub fn of_this_process() -> Option<WallClock> {
        std::env::var_os(FILE).map(|file| WallClock { shift: file.into(), _dir: None })
    }

    /// What the environment of a process needs, to have this time of day.
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        let library = self.shift.with_file_name("clock.so");
        vec![("LD_PRELOAD", library.into()), (FILE, self.shift.clone().into())]
    }

    /// Sets it so many seconds before (less than 0) or after what it really is, from this moment on.
    pub fn set(&self, seconds: i64) {
        let file = File::options().create(true).truncate(false).write(true).open(&self.shift);
        // In one piece, and never shorter: it is mapped into the processes' memory.
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).expect("set the clock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(clock: &WallClock) -> i32 {
        let output = Command::new("date").args(["-u", "+%Y"]).envs(clock.env()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn the_time_of_day_is_what_it_is_set_to() {
        if !WallClock::available() {
            return;
        }
        let clock = WallClock::start().unwrap();
        let now = year(&clock);
        for years in [10, -3, 0] {
            clock.set(i64::from(years) * 366 * 24 * 3600);
            let off = year(&clock) - now - years;
            assert!((0..=1).contains(&off) || years < 0 && off == -1, "{years} years: {off}");
        }
    }
}
