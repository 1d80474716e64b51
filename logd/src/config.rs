//! The login part of the configuration.

use std::time::Duration;

use serde::Deserialize;

/// What a password hash costs and how many calls may wait. Every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginConfig {
    /// Argon2id's memory in KiB, 8 to 4,194,304. Default 19,456: OWASP's minimum for two passes.
    pub hash_memory_kib: u32,
    /// Argon2id's passes over the memory, 1 to 64. Default 2.
    pub hash_passes: u32,
    /// Threads that hash, 1 to 64; each hashes one password at a time. Default 1, so that a storm of logins leaves the
    /// other cores to the chat.
    pub hash_threads: usize,
    /// Calls that may wait for a hash, 1 to 65,536. Default 64: two seconds of work.
    pub hash_queue_max: usize,
    /// Threads for calls that need no hash, 1 to 64. Default 1.
    pub token_threads: usize,
    /// Such calls that may wait, 1 to 65,536. Default 4,096.
    pub token_queue_max: usize,
    /// Milliseconds that a call may take or wait for its turn, 100 to 60,000. Default 5,000: more than a full queue of hashes takes.
    pub call_timeout_ms: u64,
    /// Milliseconds for which Redis, where there is one, may answer for the tables, 1,000 to 3,600,000. Default 60,000. A revocation takes effect at once; one that
    /// cannot be written to Redis takes effect after this time at the latest.
    pub token_cache_ms: u64,
    /// Whether who fails too often has to wait. Default true.
    pub failed_login_backoff: bool,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self {
            hash_memory_kib: 19_456,
            hash_passes: 2,
            hash_threads: 1,
            hash_queue_max: 64,
            token_threads: 1,
            token_queue_max: 4_096,
            call_timeout_ms: 5_000,
            token_cache_ms: 60_000,
            failed_login_backoff: true,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration key `{key}`: must be from {min} to {max}, is {value}")]
pub struct ConfigError {
    /// The key at fault.
    pub key: &'static str,
    /// Its least value.
    pub min: u64,
    /// Its greatest value.
    pub max: u64,
    /// What it is.
    pub value: u64,
}

impl LoginConfig {
    /// Checks every key's range.
    ///
    /// # Errors
    /// [`ConfigError`] names the first key that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        within("hash_memory_kib", self.hash_memory_kib.into(), 8, 4_194_304)?;
        within("hash_passes", self.hash_passes.into(), 1, 64)?;
        within("hash_threads", size(self.hash_threads), 1, 64)?;
        within("hash_queue_max", size(self.hash_queue_max), 1, 65_536)?;
        within("token_threads", size(self.token_threads), 1, 64)?;
        within("token_queue_max", size(self.token_queue_max), 1, 65_536)?;
        within("call_timeout_ms", self.call_timeout_ms, 100, 60_000)?;
        within("token_cache_ms", self.token_cache_ms, 1_000, 3_600_000)
    }

    /// How long Redis may answer for the tables.
    #[must_use]
    pub const fn token_cache_lifetime(&self) -> Duration {
        Duration::from_millis(self.token_cache_ms)
    }

    /// How long a call may take.
    #[must_use]
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }
}

fn within(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError { key, min, max, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_names_its_key() {
        assert_eq!(LoginConfig::default().validate(), Ok(()));
        let config = LoginConfig { hash_queue_max: 0, ..LoginConfig::default() };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, "hash_queue_max");
        assert!(error.to_string().contains("`hash_queue_max`"));
        let config = LoginConfig { hash_memory_kib: 7, ..LoginConfig::default() };
        assert_eq!(config.validate().unwrap_err().key, "hash_memory_kib");
    }
}
