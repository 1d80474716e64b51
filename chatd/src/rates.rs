//! How often who may do what: token buckets per session and per address, and back-off for failed logins.
//!
//! A bucket is one number, the time at which it is full again (the *generic cell rate algorithm*, ITU-T I.371): a request moves it on by its cost, and is refused while
//! that would be later than the burst allows.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

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

/// Failures of a pair of address and name before it has to wait, and of an address and of a name.
const PAIR_FREE: u32 = 5;
const ADDRESS_FREE: u32 = 30;
const NAME_FREE: u32 = 50;
/// The first wait; it doubles with each further failure, up to the last.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_LAST: Duration = Duration::from_secs(120);
/// Without a failure for so long all is forgotten.
const FORGET: Duration = Duration::from_mins(15);
/// Entries at which old ones are looked for, and beyond which new ones are not made: some 10 MB.
const ENTRIES_MAX: usize = 65_536;
/// Addresses from which a user has logged in that are remembered: from these it is not held up by what others try.
const KNOWN_MAX: usize = 4;

/// What addresses may do, and how often logins have failed. Shared by the loops, and touched at logins and registrations only.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    config: RatesConfig,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: FxHashMap<IpAddr, Buckets>,
    failures: FxHashMap<Culprit, Failures>,
    known: FxHashMap<Box<str>, Vec<IpAddr>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    logins: Bucket,
    registrations: Bucket,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Culprit {
    Pair(IpAddr, Box<str>),
    Address(IpAddr),
    Name(Box<str>),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// Until when it has to wait.
    fn until(self, free: u32) -> Option<Instant> {
        let over = self.count.checked_sub(free)?;
        Some(self.last + WAIT_FIRST.saturating_mul(1 << over.min(10)).min(WAIT_LAST))
    }
}

impl Gatekeeper {
    pub(crate) fn new(config: RatesConfig, now: Instant) -> Self {
        Self { config, began: now, state: Mutex::default() }
    }

    /// The time by this gatekeeper's clock, which buckets go by.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether somebody at this address may register now.
    pub(crate) fn registers(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let micros = self.micros(now);
        let mut state = self.state.lock();
        state.sweep_addresses(micros);
        state
            .addresses
            .entry(network(address))
            .or_default()
            .registrations
            .take(self.config.registrations, micros)
    }

    /// Whether somebody at this address may try to log in now, with a password as the user of this name key, or with a token.
    pub(crate) fn logs_in(&self, address: IpAddr, name: Option<&str>, now: Instant) -> Result<(), Duration> {
        let (micros, address) = (self.micros(now), network(address));
        let mut state = self.state.lock();
        if let Some(name) = name {
            let waits = state.waits(address, name);
            if let Some(until) = waits.filter(|until| *until > now) {
                return Err(until - now);
            }
        }
        state.sweep_addresses(micros);
        state.addresses.entry(address).or_default().logins.take(self.config.logins, micros)
    }

    /// A login by password failed.
    pub(crate) fn failed(&self, address: IpAddr, name: &str, now: Instant) {
        let address = network(address);
        let mut state = self.state.lock();
        state.sweep_failures(now);
        let full = state.failures.len() >= ENTRIES_MAX;
        let known = state.is_known(address, name);
        let culprits = [
            Some(Culprit::Pair(address, name.into())),
            Some(Culprit::Address(address)),
            // Who is at home there may mistype as often as it likes without harm to itself elsewhere.
            (!known).then(|| Culprit::Name(name.into())),
        ];
        for culprit in culprits.into_iter().flatten() {
            if full && !state.failures.contains_key(&culprit) {
                continue;
            }
            let failures = state.failures.entry(culprit).or_insert(Failures { count: 0, last: now });
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    /// A login by password succeeded.
    pub(crate) fn succeeded(&self, address: IpAddr, name: &str) {
        let address = network(address);
        let mut state = self.state.lock();
        state.failures.remove(&Culprit::Pair(address, name.into()));
        if state.known.len() >= ENTRIES_MAX {
            state.known.clear();
        }
        let known = state.known.entry(name.into()).or_default();
        if !known.contains(&address) {
            if known.len() >= KNOWN_MAX {
                known.remove(0);
            }
            known.push(address);
        }
    }
}

impl State {
    fn is_known(&self, address: IpAddr, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.contains(&address))
    }

    /// Until when a login from this address as this user has to wait for earlier failures.
    fn waits(&self, address: IpAddr, name: &str) -> Option<Instant> {
        let until =
            |culprit: Culprit, free| self.failures.get(&culprit).and_then(|failed| failed.until(free));
        let by_name =
            if self.is_known(address, name) { None } else { until(Culprit::Name(name.into()), NAME_FREE) };
        until(Culprit::Pair(address, name.into()), PAIR_FREE)
            .max(until(Culprit::Address(address), ADDRESS_FREE))
            .max(by_name)
    }

    fn sweep_addresses(&mut self, micros: u64) {
        if self.addresses.len() >= ENTRIES_MAX {
            self.addresses.retain(|_, all| !all.logins.is_full(micros) || !all.registrations.is_full(micros));
        }
    }

    fn sweep_failures(&mut self, now: Instant) {
        if self.failures.len() >= ENTRIES_MAX / 2 {
            self.failures.retain(|_, failed| now.saturating_duration_since(failed.last) < FORGET);
        }
    }
}

/// What counts as one address: of IPv6 a /64 network, for that is what one customer has.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_minute: 60 };
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn gatekeeper() -> (Gatekeeper, Instant) {
        let now = Instant::now();
        (
            Gatekeeper::new(
                RatesConfig { logins: Rate { burst: 10_000, per_minute: 60 }, ..RatesConfig::default() },
                now,
            ),
            now,
        )
    }

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
    fn who_guesses_waits_longer_each_time_and_the_owner_does_not() {
        let (gate, now) = gatekeeper();
        gate.succeeded(HERE, "amy");
        for _ in 0..PAIR_FREE {
            assert_eq!(gate.logs_in(THERE, Some("amy"), now), Ok(()));
            gate.failed(THERE, "amy", now);
        }
        assert_eq!(gate.logs_in(THERE, Some("amy"), now), Err(WAIT_FIRST));
        gate.failed(THERE, "amy", now);
        assert_eq!(gate.logs_in(THERE, Some("amy"), now), Err(2 * WAIT_FIRST));
        assert_eq!(gate.logs_in(THERE, Some("amy"), now + 2 * WAIT_FIRST), Ok(()));
        assert_eq!(gate.logs_in(THERE, Some("bob"), now), Ok(()), "another account");
        for _ in 0..200 {
            gate.failed(THERE, "amy", now);
        }
        assert_eq!(gate.logs_in(THERE, Some("amy"), now), Err(WAIT_LAST));
        assert!(gate.logs_in(THERE, Some("bob"), now).is_err(), "the address has failed too often");
        assert_eq!(gate.logs_in(HERE, Some("amy"), now), Ok(()), "the owner is at home here");
        assert_eq!(gate.logs_in(THERE, None, now), Ok(()), "a token is not guessed");
        let elsewhere = IpAddr::from([198, 51, 100, 1]);
        assert!(gate.logs_in(elsewhere, Some("amy"), now).is_err(), "many guess, from wherever");
    }

    #[test]
    fn a_success_ends_the_wait_of_its_pair() {
        let (gate, now) = gatekeeper();
        for _ in 0..PAIR_FREE + 2 {
            gate.failed(HERE, "amy", now);
        }
        assert!(gate.logs_in(HERE, Some("amy"), now).is_err());
        gate.succeeded(HERE, "amy");
        assert_eq!(gate.logs_in(HERE, Some("amy"), now), Ok(()));
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let (gate, now) = gatekeeper();
        for number in 0..u16::try_from(ADDRESS_FREE + 1).unwrap() {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]);
            gate.failed(address, &format!("u{number}"), now);
        }
        assert!(gate.logs_in("2001:db8:0:1::9999".parse().unwrap(), Some("x"), now).is_err());
        assert_eq!(gate.logs_in("2001:db8:0:2::1".parse().unwrap(), Some("x"), now), Ok(()));
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
        assert_eq!(gate.logs_in(HERE, None, now), Ok(()));
    }
}
