//! How often who may do what: token buckets per session and per address. (The back-off of failed logins is the login service's.)
//!
//! A bucket is one number, the time at which it is full again (the *generic cell rate algorithm*, ITU-T I.371): a request moves it on by its cost, and is refused while
//! that would be later than the burst allows.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use logd::network_of;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Deserialize;

/// `[rates]` of the configuration: so many at a time, and so many a second on the long run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RatesConfig {
    pub(crate) sends: Rate,
    pub(crate) lookups: Rate,
    pub(crate) logins: Rate,
    pub(crate) registrations: Rate,
    /// Connections of one address at once (for IPv6, of one /64 network).
    pub(crate) connections_per_address_max: usize,
}

/// A bucket's size, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// At a time.
    burst: u32,
    /// In a minute, on the long run.
    per_minute: u32,
}

impl Default for RatesConfig {
    fn default() -> Self {
        Self {
            sends: Rate { burst: 200, per_minute: 1_200 },
            lookups: Rate { burst: 200, per_minute: 1_200 },
            logins: Rate { burst: 50, per_minute: 300 },
            registrations: Rate { burst: 20, per_minute: 60 },
            connections_per_address_max: 1_024,
        }
    }
}

impl RatesConfig {
    /// The first key that makes no sense.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let all = [
            ("rates.sends", self.sends),
            ("rates.lookups", self.lookups),
            ("rates.logins", self.logins),
            ("rates.registrations", self.registrations),
        ];
        let wrong = all.into_iter().find(|(_, rate)| rate.burst == 0 || rate.per_minute == 0);
        wrong.map(|(key, _)| key).or_else(|| {
            (self.connections_per_address_max == 0).then_some("rates.connections_per_address_max")
        })
    }
}

impl Rate {
    const fn interval_micros(self) -> u64 {
        60_000_000 / self.per_minute as u64
    }
}

/// A bucket: the time at which it is full again, in microseconds of some clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// Takes one out, or says after how long there is one.
    pub(crate) fn take(&mut self, rate: Rate, now_micros: u64) -> Result<(), Duration> {
        let interval = rate.interval_micros();
        let full = self.0.max(now_micros) + interval;
        let limit = now_micros + interval * u64::from(rate.burst);
        if full > limit {
            return Err(Duration::from_micros(full - limit));
        }
        self.0 = full;
        Ok(())
    }

    const fn is_full(self, now_micros: u64) -> bool {
        self.0 <= now_micros
    }
}

/// Addresses at which those that have all their buckets full are let go.
const ENTRIES_MAX: usize = 65_536;
/// Between two such looks: each costs milliseconds when there are many.
const SWEEP_EVERY_MICROS: u64 = 1_000_000;
/// What addresses may do. Shared by the loops, and touched at logins and registrations only.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    config: RatesConfig,
    began: Instant,
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    all: FxHashMap<IpAddr, Buckets>,
    swept_micros: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    logins: Bucket,
    registrations: Bucket,
}

impl Gatekeeper {
    pub(crate) fn new(config: RatesConfig, now: Instant) -> Self {
        Self { config, began: now, addresses: Mutex::default() }
    }

    /// The time by this gatekeeper's clock, which buckets go by.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether somebody at this address may register now.
    pub(crate) fn registers(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.take(address, now, |all, micros| all.registrations.take(self.config.registrations, micros))
    }

    /// Whether somebody at this address may try to log in now. Who has failed before is the login service's matter.
    pub(crate) fn logs_in(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.take(address, now, |all, micros| all.logins.take(self.config.logins, micros))
    }

    fn take(
        &self,
        address: IpAddr,
        now: Instant,
        take: impl FnOnce(&mut Buckets, u64) -> Result<(), Duration>,
    ) -> Result<(), Duration> {
        let micros = self.micros(now);
        let mut addresses = self.addresses.lock();
        if addresses.all.len() >= ENTRIES_MAX && micros >= addresses.swept_micros + SWEEP_EVERY_MICROS {
            addresses.swept_micros = micros;
            addresses.all.retain(|_, all| !all.logins.is_full(micros) || !all.registrations.is_full(micros));
        }
        take(addresses.all.entry(network_of(address)).or_default(), micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_minute: 60 };
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let second = 1_000_000;
        for _ in 0..3 {
            assert_eq!(bucket.take(RATE, 0), Ok(()));
        }
        assert_eq!(bucket.take(RATE, 0), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(RATE, second / 2), Err(Duration::from_millis(500)), "a refusal costs nothing");
        assert_eq!(bucket.take(RATE, second), Ok(()));
        assert!(bucket.take(RATE, second).is_err());
        for _ in 0..3 {
            assert_eq!(bucket.take(RATE, 60 * second), Ok(()), "it does not grow beyond its size");
        }
        assert!(bucket.take(RATE, 60 * second).is_err());
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let now = Instant::now();
        let gate = Gatekeeper::new(RatesConfig { logins: RATE, ..RatesConfig::default() }, now);
        for number in 0..3 {
            assert_eq!(gate.logs_in(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]), now), Ok(()));
        }
        assert!(gate.logs_in("2001:db8:0:1::9999".parse().unwrap(), now).is_err());
        assert_eq!(gate.logs_in("2001:db8:0:2::1".parse().unwrap(), now), Ok(()));
    }

    #[test]
    fn registrations_of_one_address_are_counted_by_themselves() {
        let now = Instant::now();
        let gate = Gatekeeper::new(RatesConfig { registrations: RATE, ..RatesConfig::default() }, now);
        for _ in 0..3 {
            assert_eq!(gate.registers(HERE, now), Ok(()));
        }
        assert_eq!(gate.registers(HERE, now), Err(Duration::from_secs(1)));
        assert_eq!(gate.registers(THERE, now), Ok(()));
        assert_eq!(gate.logs_in(HERE, now), Ok(()));
    }
}
