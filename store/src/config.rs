//! The database part of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::StoreError;
use crate::mysql_config::{MySqlConfig, MySqlSection};

/// Where the tables are and how much may be in hand at once. Every key has a default.
///
/// Commits are fully durable. Only a server's own settings can weaken that, and then only with `mysql.durability = "relaxed"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbConfig {
    /// The folder of the tables. Made when missing. Default `./chat-data`.
    pub data_dir: PathBuf,
    /// Jobs of one transaction at most, 1 to 512. Default 512: beyond it a sync is no longer what costs.
    pub batch_max: usize,
    /// Milliseconds to wait for more jobs after the first of a batch, 0 to 1000. Default 0: what queued up during the
    /// last sync is a batch already.
    pub gather_ms: u64,
    /// Write jobs that may wait, 1 to 1,048,576. Default 16,384.
    pub write_queue_max: usize,
    /// Milliseconds of work that may wait, as messages, at most 60,000: what the writers would not commit within it is refused, so that what is accepted is
    /// answered soon. A quarter of `write_queue_max` may wait in any case. 0: only `write_queue_max` counts. Default 70.
    pub write_wait_ms: u64,
    /// Bytes of message text that may wait, at least 65,536. Default 64 MiB.
    pub write_queue_bytes_max: usize,
    /// Read jobs that may wait, 1 to 1,048,576. Default 4,096.
    pub read_queue_max: usize,
    /// Reading threads, each with its connection, 1 to 64. Default 2.
    pub readers: usize,
    /// Days after which messages are deleted, up to 36,500. Default 0: they are kept.
    pub retention_days: u32,
    /// A MySQL or MariaDB server to keep the tables in, in place of a file in the data folder.
    pub mysql: Option<MySqlSection>,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./chat-data"),
            batch_max: BATCH_MAX,
            gather_ms: 0,
            write_queue_max: 16_384,
            write_wait_ms: 70,
            write_queue_bytes_max: 64 << 20,
            read_queue_max: 4_096,
            readers: 2,
            retention_days: 0,
            mysql: None,
        }
    }
}

/// The greatest `batch_max`.
const BATCH_MAX: usize = 512;
/// The greatest length of a queue of jobs.
const QUEUE_MAX: usize = 1 << 20;

impl DbConfig {
    /// The defaults with this data folder.
    #[must_use]
    pub fn at(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ..Self::default() }
    }

    /// Checks every key's range.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the first key that is out of range.
    pub fn validate(&self) -> Result<(), StoreError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(StoreError::Config { key: "data_dir", message: "must not be empty".into() });
        }
        within("batch_max", self.batch_max, 1, BATCH_MAX)?;
        within("gather_ms", usize::try_from(self.gather_ms).unwrap_or(usize::MAX), 0, 1_000)?;
        within("write_queue_max", self.write_queue_max, 1, QUEUE_MAX)?;
        within("write_wait_ms", usize::try_from(self.write_wait_ms).unwrap_or(usize::MAX), 0, 60_000)?;
        within("write_queue_bytes_max", self.write_queue_bytes_max, 65_536, usize::MAX)?;
        within("read_queue_max", self.read_queue_max, 1, QUEUE_MAX)?;
        within("readers", self.readers, 1, 64)?;
        within("retention_days", usize::try_from(self.retention_days).unwrap_or(usize::MAX), 0, 36_500)?;
        self.mysql.as_ref().map_or(Ok(()), |mysql| mysql.validate(self.readers))
    }

    /// The defaults with the tables on the server of this URL.
    #[must_use]
    pub fn on_mysql(url: impl Into<String>) -> Self {
        Self { mysql: Some(MySqlSection::at(url)), ..Self::default() }
    }

    /// Where the tables are, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.mysql {
            None => self.data_dir.display().to_string(),
            Some(section) => match MySqlConfig::from_section(section) {
                Ok(server) => format!("database {} on {}", server.database(), server.host()),
                Err(_) => "a database".to_owned(),
            },
        }
    }

    /// Milliseconds for which messages are kept, where they are not for ever.
    pub(crate) fn retention_ms(&self) -> Option<i64> {
        (self.retention_days > 0).then(|| i64::from(self.retention_days) * 86_400_000)
    }

    /// The file of the tables.
    pub(crate) fn file(&self) -> PathBuf {
        self.data_dir.join("chat.sqlite3")
    }
}

fn within(key: &'static str, value: usize, min: usize, max: usize) -> Result<(), StoreError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let message = if max == usize::MAX {
        format!("must be at least {min}, is {value}")
    } else {
        format!("must be from {min} to {max}, is {value}")
    };
    Err(StoreError::Config { key, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(DbConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        type Spoil = fn(&mut DbConfig);
        let cases: [(&str, Spoil); 10] = [
            ("data_dir", |c| c.data_dir = PathBuf::new()),
            ("batch_max", |c| c.batch_max = 0),
            ("batch_max", |c| c.batch_max = 513),
            ("gather_ms", |c| c.gather_ms = 1_001),
            ("write_queue_max", |c| c.write_queue_max = 0),
            ("write_wait_ms", |c| c.write_wait_ms = 60_001),
            ("write_queue_bytes_max", |c| c.write_queue_bytes_max = 1),
            ("read_queue_max", |c| c.read_queue_max = QUEUE_MAX + 1),
            ("readers", |c| c.readers = 65),
            ("retention_days", |c| c.retention_days = 36_501),
        ];
        for (key, spoil) in cases {
            let mut config = DbConfig::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(matches!(error, StoreError::Config { key: k, .. } if k == key), "{error}");
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
