//! The numbers of a pool, each with its unit and its reason.

use std::time::Duration;

use serde::Deserialize;

use crate::error::StoreError;

/// How many connections a pool keeps, and how long everything may take. Every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Connections that are kept also when nobody needs them, 0 to `connections_max`. Default 2.
    pub connections_min: usize,
    /// Connections at most, 1 to 1,024. Default 16. A server has some 150 for all its clients.
    pub connections_max: usize,
    /// Connects that may be under way at once, 1 to 16. Default 2: a restarted server is not stormed, and one connect that hangs does not stop the growth.
    pub connects_max: usize,
    /// Callers that may wait for a connection, 0 to 65,536; further ones are turned away at once. Default 1,024.
    pub waiters_max: usize,
    /// Milliseconds that an acquire may take in all, waiting and validating included, where the caller names no deadline. Default 2,000.
    pub acquire_ms: u64,
    /// Milliseconds that one connect may take. Default 3,000.
    pub connect_ms: u64,
    /// Milliseconds that the answer to a ping may take. Default 1,000.
    pub ping_ms: u64,
    /// Milliseconds for which a connection is trusted after its last use; after that its socket is looked at, which costs a system call and no round trip.
    /// Default 500.
    pub fresh_ms: u64,
    /// Milliseconds after its last use from which on a connection is pinged before it is given out: firewalls forget silent connections. Default 30,000.
    pub ping_after_ms: u64,
    /// Milliseconds after which a connection above `connections_min` that nobody used is closed. Default 60,000.
    pub idle_ms: u64,
    /// Milliseconds after which a connection is replaced, give or take a tenth, so that not all end at once. Default 1,800,000 (half an hour).
    pub lifetime_ms: u64,
    /// Milliseconds of the first wait between two probes of a server that is down; it doubles up to `probe_max_ms`, with full jitter. Default 100.
    pub probe_base_ms: u64,
    /// The longest wait between two probes, in milliseconds: within this after its return a server is used again. Default 1,000.
    pub probe_max_ms: u64,
    /// Milliseconds after which a connection that was not given back is reported as a leak, with who holds it. Default 30,000.
    pub leak_ms: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections_min: 2,
            connections_max: 16,
            connects_max: 2,
            waiters_max: 1_024,
            acquire_ms: 2_000,
            connect_ms: 3_000,
            ping_ms: 1_000,
            fresh_ms: 500,
            ping_after_ms: 30_000,
            idle_ms: 60_000,
            lifetime_ms: 1_800_000,
            probe_base_ms: 100,
            probe_max_ms: 1_000,
            leak_ms: 30_000,
        }
    }
}

/// The longest time that a key may name: a day.
const MS_MAX: u64 = 86_400_000;

impl PoolConfig {
    /// Checks every key's range.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the first key that is out of range.
    pub fn validate(&self) -> Result<(), StoreError> {
        within("connections_max", self.connections_max as u64, 1, 1_024)?;
        within("connections_min", self.connections_min as u64, 0, self.connections_max as u64)?;
        within("connects_max", self.connects_max as u64, 1, 16)?;
        within("waiters_max", self.waiters_max as u64, 0, 65_536)?;
        for (key, value) in [
            ("acquire_ms", self.acquire_ms),
            ("connect_ms", self.connect_ms),
            ("ping_ms", self.ping_ms),
            ("idle_ms", self.idle_ms),
            ("lifetime_ms", self.lifetime_ms),
            ("probe_base_ms", self.probe_base_ms),
            ("leak_ms", self.leak_ms),
        ] {
            within(key, value, 1, MS_MAX)?;
        }
        within("fresh_ms", self.fresh_ms, 0, MS_MAX)?;
        within("ping_after_ms", self.ping_after_ms, self.fresh_ms, MS_MAX)?;
        within("probe_max_ms", self.probe_max_ms, self.probe_base_ms, MS_MAX)
    }

    pub(crate) const fn acquire(&self) -> Duration {
        Duration::from_millis(self.acquire_ms)
    }

    pub(crate) const fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(crate) const fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms)
    }
}

fn within(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), StoreError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(StoreError::Config { key, message: format!("must be from {min} to {max}, is {value}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(PoolConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        type Spoil = fn(&mut PoolConfig);
        let cases: [(&str, Spoil); 8] = [
            ("connections_max", |c| c.connections_max = 0),
            ("connections_min", |c| c.connections_min = 17),
            ("connects_max", |c| c.connects_max = 17),
            ("waiters_max", |c| c.waiters_max = 65_537),
            ("acquire_ms", |c| c.acquire_ms = 0),
            ("ping_after_ms", |c| c.ping_after_ms = 499),
            ("probe_max_ms", |c| c.probe_max_ms = 99),
            ("lifetime_ms", |c| c.lifetime_ms = MS_MAX + 1),
        ];
        for (key, spoil) in cases {
            let mut config = PoolConfig::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(matches!(error, StoreError::Config { key: k, .. } if k == key), "{error}");
        }
    }
}
