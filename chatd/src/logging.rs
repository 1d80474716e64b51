//! `[logging]`: how the log is written, and its start.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use asynclog::{FlushConfig, Format, Guard, RateLimit, RollConfig, RollEvery, SyncPolicy};
use clap::ValueEnum;
use serde::Deserialize;

use crate::config::Config;
use crate::server::ServerError;

/// What the log's lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object of JSON each.
    Json,
}

/// What time a file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogPeriod {
    /// Any: only the size counts.
    #[default]
    Never,
    Hour,
    Day,
    LocalDay,
}

/// The section's keys. Zero means *no limit* where a comment of the sample says so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoggingConfig {
    format: LogFormat,
    filter_file: Option<PathBuf>,
    file_bytes_max: u64,
    roll_every: LogPeriod,
    keep_files: usize,
    keep_days: u32,
    keep_bytes: u64,
    flush_records: usize,
    flush_bytes: usize,
    flush_interval_ms: u64,
    sync_interval_ms: u64,
    thread_buffer_bytes: usize,
    per_place_per_second: u32,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        let (roll, flush) = (RollConfig::default(), FlushConfig::default());
        Self {
            format: LogFormat::Text,
            filter_file: None,
            file_bytes_max: roll.bytes_max,
            roll_every: LogPeriod::Never,
            keep_files: roll.keep,
            keep_days: 0,
            keep_bytes: 0,
            flush_records: flush.records,
            flush_bytes: flush.bytes,
            flush_interval_ms: 100,
            sync_interval_ms: 0,
            thread_buffer_bytes: 256 * 1024,
            per_place_per_second: 0,
        }
    }
}

impl LoggingConfig {
    /// With what flags or variables say in place of the file's.
    pub(crate) fn with(mut self, format: Option<LogFormat>, filter_file: Option<PathBuf>) -> Self {
        self.format = format.unwrap_or(self.format);
        self.filter_file = filter_file.or(self.filter_file);
        self
    }

    /// The key that makes no sense, and what it must be.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let rules = [
            (self.file_bytes_max >= 65_536, "logging.file_bytes_max", "must be at least 65536"),
            (self.flush_records >= 1, "logging.flush_records", "must be at least 1"),
            (self.flush_bytes >= 1, "logging.flush_bytes", "must be at least 1"),
            (
                (1..=60_000).contains(&self.flush_interval_ms),
                "logging.flush_interval_ms",
                "must be from 1 to 60000",
            ),
            (
                (16_384..=1 << 26).contains(&self.thread_buffer_bytes),
                "logging.thread_buffer_bytes",
                "must be from 16384 to 67108864",
            ),
        ];
        rules.into_iter().find(|(holds, ..)| !holds).map(|(_, key, rule)| (key, rule))
    }

    fn roll(&self) -> RollConfig {
        RollConfig {
            bytes_max: self.file_bytes_max,
            every: match self.roll_every {
                LogPeriod::Never => None,
                LogPeriod::Hour => Some(RollEvery::Hour),
                LogPeriod::Day => Some(RollEvery::Day),
                LogPeriod::LocalDay => Some(RollEvery::LocalDay),
            },
            keep: self.keep_files,
            keep_for: (self.keep_days > 0).then(|| Duration::from_hours(24 * u64::from(self.keep_days))),
            keep_bytes: (self.keep_bytes > 0).then_some(self.keep_bytes),
        }
    }

    fn builder(&self) -> asynclog::Builder {
        let flush = FlushConfig {
            records: self.flush_records,
            bytes: self.flush_bytes,
            interval: Duration::from_millis(self.flush_interval_ms),
        };
        let mut builder = asynclog::Builder::new()
            .format(match self.format {
                LogFormat::Text => Format::Text,
                LogFormat::Json => Format::Json,
            })
            .flush(flush)
            .roll(self.roll())
            .thread_buffer(self.thread_buffer_bytes);
        if let Some(path) = &self.filter_file {
            builder = builder.filter_file(path);
        }
        if self.sync_interval_ms > 0 {
            builder = builder.sync(SyncPolicy::Interval(Duration::from_millis(self.sync_interval_ms)));
        }
        if self.per_place_per_second > 0 {
            let limit = RateLimit { records: self.per_place_per_second, per: Duration::from_secs(1) };
            builder = builder.rate_limit(limit);
        }
        builder
    }
}

/// Starts the process's log.
///
/// # Errors
/// When its file or its filter cannot be used.
pub(crate) fn install(config: &Config) -> Result<Guard, ServerError> {
    let path = config.log_file.clone();
    // With the tables on a server nobody else has made it yet. Where that fails opening the log says why.
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.store.data_dir);
    let _ = path.parent().map(std::fs::create_dir_all);
    let builder = config.logging.builder().file(&path).filter(daemon::log_filter(&config.log));
    builder.install().map_err(|error| ServerError::Log { path, error })
}

/// SIGHUP: the file is opened anew, and the filter read again: from its own file where there is one, else from the configuration.
pub(crate) fn reload(config: &Config, log: &Guard) {
    log.reopen();
    if config.logging.filter_file.is_some() {
        if let Err(error) = log.reload() {
            log::warn!("the log filter stays as it was: {error}");
        }
        return;
    }
    match config.reload_filter() {
        Ok(None) => {}
        Ok(Some(filter)) => match log.set_filter(&daemon::log_filter(&filter)) {
            Ok(()) => log::info!("the log filter is {filter:?} now"),
            Err(error) => log::warn!("the log filter stays as it was: {error}"),
        },
        Err(error) => log::warn!("the configuration stays as it was: {error}"),
    }
}
