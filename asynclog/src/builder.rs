//! The builder: a log's settings, checked, and its start.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{self, Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::bounded;
use log::LevelFilter;

use crate::collector::{Collector, Progress};
use crate::config::{
    BARRIERS_MAX, BLOCK_BYTES_MAX, BLOCKS_MAX, FRAME_EXTRA_BYTES, INTERVAL_MAX, LANE_BYTES, LANE_BYTES_MAX,
    LANE_BYTES_MIN, RECORD_BYTES, RECORD_BYTES_MIN, SHUTDOWN_MAX,
};
use crate::filter::LiveFilter;
use crate::filter_file::FilterSource;
#[cfg(target_os = "linux")]
use crate::filter_watch::FilterWatch;
use crate::log_file::LogFile;
use crate::pace::Pace;
use crate::pending::Pending;
use crate::printer::Printer;
use crate::rate::Rates;
use crate::seal::Seal;
use crate::shared::{Lanes, Shared};
use crate::sink::Sink;
use crate::stats::Counters;
use crate::writer::FileWriter;
use crate::{
    AsyncLog, Colours, FlushConfig, Format, Guard, LogError, Overflow, RateLimit, RollConfig, SyncPolicy,
    caller, panic_hook, shared, stamp,
};

/// Settings of a log; [`install`](Self::install) or [`build`](Self::build) starts it.
///
/// ```no_run
/// # fn main() -> Result<(), asynclog::LogError> {
/// use asynclog::{Builder, FlushConfig, RollConfig};
/// let guard = Builder::new()
///     .file("chat-data/chatd.log")
///     .level(log::LevelFilter::Info)
///     .filter("chatd=debug,reactor=warn")
///     .flush(FlushConfig { interval: std::time::Duration::from_millis(20), ..FlushConfig::default() })
///     .roll(RollConfig::default())
///     .install()?;
/// # drop(guard);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `install` or `build`"]
pub struct Builder {
    target: Target,
    level: LevelFilter,
    filter: String,
    filter_file: Option<PathBuf>,
    format: Format,
    colours: Colours,
    flush: FlushConfig,
    lane_bytes: usize,
    record_bytes: usize,
    overflow: Overflow,
    roll: Option<RollConfig>,
    sealed: bool,
    rate: Option<RateLimit>,
    sync: SyncPolicy,
    link: Option<PathBuf>,
    shutdown_timeout: Duration,
}

enum Target {
    File(PathBuf),
    Stderr,
    Any(Box<dyn Write + Send>),
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// To standard error, level info, flush settings by default, 256 KiB for each thread, drops when they are full, no rolling.
    pub fn new() -> Self {
        Self {
            target: Target::Stderr,
            level: LevelFilter::Info,
            filter: String::new(),
            filter_file: None,
            format: Format::Text,
            colours: Colours::Terminal,
            flush: FlushConfig::default(),
            lane_bytes: LANE_BYTES,
            record_bytes: RECORD_BYTES,
            overflow: Overflow::Drop,
            roll: None,
            sealed: true,
            rate: None,
            sync: SyncPolicy::Never,
            link: None,
            shutdown_timeout: SHUTDOWN_MAX,
        }
    }

    /// Writes to this file, at its end. Its folder must exist: a log that makes folders would fill the disk below an unmounted one.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.target = Target::File(path.into());
        self
    }

    /// Writes to standard error.
    pub fn stderr(mut self) -> Self {
        self.target = Target::Stderr;
        self
    }

    /// Writes to anything: a pipe, a socket, a test's buffer. It is called by the file-writer thread only, and may block.
    pub fn writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.target = Target::Any(Box::new(writer));
        self
    }

    /// The level of all targets that the filter does not name. Default info.
    pub fn level(mut self, level: LevelFilter) -> Self {
        self.level = level;
        self
    }

    /// Levels by target, as in `env_logger`: `chatd=debug,reactor::poll=off`. A bare level replaces [`level`](Self::level), a bare target has all levels,
    /// the closest target decides. A target ends at a `::`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = filter.into();
        self
    }

    /// Reads the filter from this file, in the syntax of [`filter`](Self::filter), one or more directives a line, `#` before a comment. While there is no such file, or
    /// nothing in it, [`filter`](Self::filter) holds.
    ///
    /// On Linux a change is noticed (a thread more waits for it, which makes no wake-ups); elsewhere [`Guard::reload`] reads the file again. The
    /// file's folder must exist. A new filter, and one that cannot be read, is told in the log.
    pub fn filter_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.filter_file = Some(path.into());
        self
    }

    /// How records are written. Default [`Format::Text`].
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// When level letters have a colour. Default [`Colours::Terminal`]; JSON never has.
    pub fn colours(mut self, colours: Colours) -> Self {
        self.colours = colours;
        self
    }

    /// When gathered records are written.
    pub fn flush(mut self, flush: FlushConfig) -> Self {
        self.flush = flush;
        self
    }

    /// So much room has each thread for records that the log thread has not taken yet; allocated when it logs for the first time. 128 bytes to 1 GiB, default 256 KiB.
    pub fn thread_buffer(mut self, bytes: usize) -> Self {
        self.lane_bytes = bytes;
        self
    }

    /// Whether the lines of a file bear numbers, ` #3.1042` for the record 1,042 of the third thread, and files a first and a last line with counts and a
    /// checksum, by which `asynclog verify` proves that nothing is missing. Default true; standard error and other targets have neither.
    pub fn sealed(mut self, sealed: bool) -> Self {
        self.sealed = sealed;
        self
    }

    /// The longest line in bytes; a longer message is cut and says so. At least 256, default 8 KiB. It is never more than fits a thread's buffer.
    pub fn record_bytes(mut self, bytes: usize) -> Self {
        self.record_bytes = bytes;
        self
    }

    /// What callers do when their thread's buffer is full. Default [`Overflow::Drop`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Rolls the file by size and time. Default: never. Only regular files are rolled.
    pub fn roll(mut self, roll: RollConfig) -> Self {
        self.roll = Some(roll);
        self
    }

    /// Limits what each place of the program may log. What is suppressed is counted in [`LogStats::suppressed`](crate::LogStats::suppressed), and the place's next record
    /// says how much it was. Default: no limit.
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate = Some(limit);
        self
    }

    /// When the file is synced to the disk. Default [`SyncPolicy::Never`].
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Makes a symbolic link to the file at start, in place of one that is there: for who looks for the log in one place, wherever it is. Unix only; elsewhere it is
    /// an error.
    pub fn link(mut self, link: impl Into<PathBuf>) -> Self {
        self.link = Some(link.into());
        self
    }

    /// How long dropping the guard waits for a writer that hangs. Default 10 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Starts the log as the process's logger, and puts a panic hook before the one that is set: it logs the panic as an error, waits up to 1 s
    /// until it is written (a loop thread does not wait: it may catch the panic and go on), and goes on to the other.
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), and [`LogError::AlreadyInstalled`].
    pub fn install(self) -> Result<Guard, LogError> {
        let (log, guard) = self.build()?;
        let shared = Arc::clone(&log.shared);
        log::set_boxed_logger(Box::new(log)).map_err(|_| LogError::AlreadyInstalled)?;
        shared.filter_source.installed.store(true, Ordering::SeqCst);
        log::set_max_level(shared.filter.max());
        panic_hook::install(shared);
        Ok(guard)
    }

    /// Starts a log that is not the process's logger: for tests, or for a second log.
    ///
    /// # Errors
    ///
    /// [`LogError::Config`] or [`LogError::Filter`] for a setting that makes no sense, [`LogError::Open`] when the file cannot be opened,
    /// [`LogError::FilterFile`] when the filter's file cannot be read, [`LogError::Thread`] when the system gives no thread.
    pub fn build(self) -> Result<(AsyncLog, Guard), LogError> {
        self.check()?;
        let filter_source = FilterSource {
            level: self.level,
            text: self.filter,
            // The program may change its folder; the log stays where it was.
            file: self.filter_file.map(|path| path::absolute(&path).unwrap_or(path)),
            installed: AtomicBool::new(false),
        };
        let (filter, _) = filter_source.read()?;
        let colours = matches!(self.target, Target::Stderr) && self.colours.are_wanted();
        let printer = || Printer::new(self.format, colours);
        let numbered = self.sealed && matches!(self.target, Target::File(_));
        let id = shared::next_id();
        let run = format!("{:x}-{:x}-{id:x}", stamp::now_micros(), process::id());
        let seal = self.sealed.then(|| Seal::new(run, printer()));
        if let (Some(link), Target::File(path)) = (&self.link, &self.target) {
            make_link(path, link).map_err(|source| LogError::Open { path: link.clone(), source })?;
        }
        let sink = self.target.open(self.roll, seal)?;
        let flush = FlushConfig {
            interval: self.flush.interval.min(INTERVAL_MAX),
            bytes: self.flush.bytes.min(BLOCK_BYTES_MAX),
            ..self.flush
        };
        // A longer record is cut, so that any fits an empty buffer.
        let longest = self.lane_bytes.saturating_sub(FRAME_EXTRA_BYTES).max(LANE_BYTES_MIN / 4);

        let (kicks, kicked) = bounded(1);
        let (barriers, asked) = bounded(BARRIERS_MAX);
        let (jobs, to_write) = bounded(BLOCKS_MAX);
        let (emptied, spare) = bounded(BLOCKS_MAX);
        let (ending, ended) = bounded(0);
        let shared = Arc::new(Shared {
            id,
            filter: LiveFilter::new(filter),
            filter_source,
            counters: Counters::default(),
            rates: self.rate.map(Rates::new),
            overflow: self.overflow,
            format: self.format,
            record_bytes_max: self.record_bytes.min(longest),
            lane_bytes: self.lane_bytes,
            pending: Pending::new(flush),
            lanes: Mutex::new(Lanes::default()),
            arrived: AtomicBool::new(false),
            strays: Mutex::new(None),
            kicks,
            barriers,
            flush_wanted: AtomicBool::new(false),
            reopen_wanted: AtomicBool::new(false),
            drops_unsaid: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            process: process::id(),
            gone: AtomicBool::new(false),
        });
        let collector = Collector {
            shared: Arc::clone(&shared),
            flush,
            numbered,
            kicks: kicked,
            barriers: asked,
            jobs,
            spare,
            lanes: Vec::new(),
            pace: Pace::new(flush),
            progress: Progress::new(printer()),
        };
        let writer =
            FileWriter::new(Arc::clone(&shared), to_write, emptied, sink, self.sync, printer(), ending);
        // If the second thread cannot be started, the first one sees its channel close and ends.
        let writing = start("log-writer", || writer.run())?;
        let collecting = start("log", || collector.run())?;
        let mut guard = Guard {
            shared: Arc::clone(&shared),
            threads: vec![collecting, writing],
            ended,
            shutdown_timeout: self.shutdown_timeout,
            #[cfg(target_os = "linux")]
            watch_end: None,
        };
        watch_filter(&mut guard)?;
        Ok((AsyncLog { shared }, guard))
    }

    fn check(&self) -> Result<(), LogError> {
        let wrong = |what| Err(LogError::Config { what });
        if !(LANE_BYTES_MIN..=LANE_BYTES_MAX).contains(&self.lane_bytes) {
            return wrong("a thread's buffer must have 128 bytes to 1 GiB");
        }
        if self.rate.is_some_and(|rate| rate.records == 0 || rate.per < Duration::from_millis(1)) {
            return wrong("a rate limit needs at least one record and 1 ms");
        }
        if self.record_bytes < RECORD_BYTES_MIN {
            return wrong("a record must have room for 256 bytes");
        }
        if self.flush.records == 0 || self.flush.bytes == 0 {
            return wrong("a flush needs at least one record and one byte");
        }
        if self.roll.is_some_and(|roll| roll.bytes_max == 0) {
            return wrong("a rolled file must have room for one byte");
        }
        Ok(())
    }
}

impl Target {
    fn open(self, roll: Option<RollConfig>, seal: Option<Seal>) -> Result<Sink, LogError> {
        match self {
            Self::File(path) => {
                // The program may change its folder; the log stays where it was.
                let path = path::absolute(&path).unwrap_or(path);
                match LogFile::open(path.clone(), roll, seal) {
                    Ok(file) => Ok(Sink::File(Box::new(file))),
                    Err(source) => Err(LogError::Open { path, source }),
                }
            }
            Self::Stderr => Ok(Sink::Stderr),
            Self::Any(writer) => Ok(Sink::Any(writer)),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Stderr => f.write_str("Stderr"),
            Self::Any(_) => f.write_str("Any"),
        }
    }
}

/// Replaces what is there, if it is a link, in one step.
#[cfg(unix)]
fn make_link(path: &Path, link: &Path) -> io::Result<()> {
    if fs::symlink_metadata(link).is_ok_and(|meta| !meta.is_symlink()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut new = link.as_os_str().to_owned();
    new.push(format!(".new-{}", process::id()));
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(path::absolute(path)?, &new)?;
    fs::rename(&new, link)
}

#[cfg(not(unix))]
fn make_link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Starts the thread that notices changes of the filter's file, if there is one.
#[cfg(target_os = "linux")]
fn watch_filter(guard: &mut Guard) -> Result<(), LogError> {
    let Some(path) = &guard.shared.filter_source.file else { return Ok(()) };
    let (watch, end) = FilterWatch::new(Arc::clone(&guard.shared), path)
        .map_err(|source| LogError::FilterFile { path: path.clone(), source })?;
    guard.threads.push(start("log-filter", || watch.run())?);
    guard.watch_end = Some(end);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn watch_filter(_: &mut Guard) -> Result<(), LogError> {
    Ok(())
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    let inside = || {
        caller::mark_inside();
        run();
    };
    thread::Builder::new().name(name.into()).spawn(inside).map_err(LogError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let zero = FlushConfig { records: 0, ..FlushConfig::default() };
        for builder in [
            Builder::new().thread_buffer(0),
            Builder::new().thread_buffer(usize::MAX),
            Builder::new().record_bytes(10),
            Builder::new().flush(zero),
            Builder::new().roll(RollConfig { bytes_max: 0, keep: 1, ..RollConfig::default() }),
        ] {
            assert!(matches!(builder.build(), Err(LogError::Config { .. })));
        }
        assert!(matches!(Builder::new().filter("a=loud").build(), Err(LogError::Filter { .. })));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Builder::new().file(dir.path().join("no/such.log")).build().unwrap_err();
        assert!(error.to_string().contains("no/such.log"), "{error}");
    }

    #[test]
    fn handles_can_be_given_to_other_threads() {
        fn assert_send_sync<T: Send + Sync>() {}
        assert_send_sync::<Guard>();
        assert_send_sync::<AsyncLog>();
        assert_send_sync::<LogError>();
    }
}
