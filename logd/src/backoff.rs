//! [`Backoff`]: who has failed too often waits, longer each time, and the owner of the account does not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use schema::UserId;

/// Failures of a pair of address and account before it has to wait, and of an address and of an account.
const PAIR_FREE: u32 = 5;
const ADDRESS_FREE: u32 = 30;
const NAME_FREE: u32 = 50;
/// The first wait; it doubles with each further failure, up to the last.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_LAST: Duration = Duration::from_secs(120);
/// Without a failure for so long all is forgotten.
const FORGET: Duration = Duration::from_mins(15);
/// Between two looks for what can be forgotten: each costs milliseconds when there is much.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Entries at half of which old ones are looked for, and beyond which new ones are not made: some 10 MB.
const ENTRIES_MAX: usize = 65_536;
/// Addresses from which a user has logged in that are remembered: from these it is not held up by what others try.
const KNOWN_MAX: usize = 4;

/// Remembers failures, in memory. Touched for passwords only, for some hundreds of nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    state: Mutex<State>,
    held_up: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    failures: HashMap<Culprit, Failures>,
    known: HashMap<Box<str>, Vec<IpAddr>>,
    swept: Option<Instant>,
}

/// Whose password is tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A login's: that of whoever has this name key.
    Name(Box<str>),
    /// That of a user whose session wants to change it.
    User(UserId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Culprit {
    Pair(IpAddr, Target),
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

impl Backoff {
    /// Whether somebody at this address may try a password now.
    ///
    /// # Errors
    /// How long to wait.
    pub(crate) fn admit(&self, address: IpAddr, target: &Target, now: Instant) -> Result<(), Duration> {
        let waits = self.state.lock().waits(network_of(address), target);
        let Some(until) = waits.filter(|until| *until > now) else { return Ok(()) };
        self.held_up.fetch_add(1, Ordering::Relaxed);
        Err(until - now)
    }

    /// The password was wrong. Returns how long the next try has to wait.
    pub(crate) fn failed(&self, address: IpAddr, target: &Target, now: Instant) -> Duration {
        let address = network_of(address);
        let mut state = self.state.lock();
        state.sweep(now);
        let full = state.failures.len() >= ENTRIES_MAX;
        let name = match target {
            // Who is at home there may mistype as often as it likes without harm to itself elsewhere.
            Target::Name(name) if !state.is_known(address, name) => Some(Culprit::Name(name.clone())),
            _ => None,
        };
        let culprits = [Some(Culprit::Pair(address, target.clone())), Some(Culprit::Address(address)), name];
        for culprit in culprits.into_iter().flatten() {
            if full && !state.failures.contains_key(&culprit) {
                continue;
            }
            let failures = state.failures.entry(culprit).or_insert(Failures { count: 0, last: now });
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
        state.waits(address, target).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The password was right.
    pub(crate) fn succeeded(&self, address: IpAddr, target: &Target) {
        let address = network_of(address);
        let mut state = self.state.lock();
        state.failures.remove(&Culprit::Pair(address, target.clone()));
        let Target::Name(name) = target else { return };
        if state.known.len() >= ENTRIES_MAX {
            state.known.clear();
        }
        let known = state.known.entry(name.clone()).or_default();
        if !known.contains(&address) {
            if known.len() >= KNOWN_MAX {
                known.remove(0);
            }
            known.push(address);
        }
    }

    /// How often somebody had to wait.
    pub(crate) fn held_up(&self) -> u64 {
        self.held_up.load(Ordering::Relaxed)
    }
}

impl State {
    fn is_known(&self, address: IpAddr, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.contains(&address))
    }

    /// Until when a try from this address has to wait for earlier failures.
    fn waits(&self, address: IpAddr, target: &Target) -> Option<Instant> {
        let until =
            |culprit: Culprit, free| self.failures.get(&culprit).and_then(|failed| failed.until(free));
        let by_name = match target {
            Target::Name(name) if !self.is_known(address, name) => {
                until(Culprit::Name(name.clone()), NAME_FREE)
            }
            _ => None,
        };
        until(Culprit::Pair(address, target.clone()), PAIR_FREE)
            .max(until(Culprit::Address(address), ADDRESS_FREE))
            .max(by_name)
    }

    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if is_due && self.failures.len() >= ENTRIES_MAX / 2 {
            self.swept = Some(now);
            self.failures.retain(|_, failed| now.saturating_duration_since(failed.last) < FORGET);
        }
    }
}

/// What counts as one address: of IPv6 a /64 network, for that is what one customer has.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn name(name: &str) -> Target {
        Target::Name(name.into())
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_the_owner_does_not() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let (amy, bob) = (name("amy"), name("bob"));
        backoff.succeeded(HERE, &amy);
        for free in (0..PAIR_FREE).rev() {
            assert_eq!(backoff.admit(THERE, &amy, now), Ok(()));
            let wait = backoff.failed(THERE, &amy, now);
            assert_eq!(wait, if free == 0 { WAIT_FIRST } else { Duration::ZERO });
        }
        assert_eq!(backoff.admit(THERE, &amy, now), Err(WAIT_FIRST));
        assert_eq!(backoff.failed(THERE, &amy, now), 2 * WAIT_FIRST);
        assert_eq!(backoff.admit(THERE, &amy, now), Err(2 * WAIT_FIRST));
        assert_eq!(backoff.held_up(), 2);
        assert_eq!(backoff.admit(THERE, &amy, now + 2 * WAIT_FIRST), Ok(()));
        assert_eq!(backoff.admit(THERE, &bob, now), Ok(()), "another account");
        for _ in 0..200 {
            backoff.failed(THERE, &amy, now);
        }
        assert_eq!(backoff.admit(THERE, &amy, now), Err(WAIT_LAST));
        assert!(backoff.admit(THERE, &bob, now).is_err(), "the address has failed too often");
        assert_eq!(backoff.admit(HERE, &amy, now), Ok(()), "the owner is at home here");
        let elsewhere = IpAddr::from([198, 51, 100, 1]);
        assert!(backoff.admit(elsewhere, &amy, now).is_err(), "many guess, from wherever");
    }

    #[test]
    fn a_success_ends_the_wait_of_its_pair() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        for target in [name("amy"), Target::User(UserId::new(7).unwrap())] {
            for _ in 0..PAIR_FREE + 2 {
                backoff.failed(HERE, &target, now);
            }
            assert!(backoff.admit(HERE, &target, now).is_err());
            backoff.succeeded(HERE, &target);
            assert_eq!(backoff.admit(HERE, &target, now), Ok(()));
        }
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        for number in 0..u16::try_from(ADDRESS_FREE + 1).unwrap() {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, number]);
            backoff.failed(address, &name(&format!("u{number}")), now);
        }
        assert!(backoff.admit("2001:db8:0:1::9999".parse().unwrap(), &name("x"), now).is_err());
        assert_eq!(backoff.admit("2001:db8:0:2::1".parse().unwrap(), &name("x"), now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_old_failures_make_room() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        for number in 0..ENTRIES_MAX {
            let address = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
            backoff.failed(address, &name("amy"), now);
        }
        assert!(backoff.state.lock().failures.len() <= ENTRIES_MAX + 2, "with three entries to each of them");
        backoff.failed(HERE, &name("bob"), now + FORGET);
        assert!(backoff.state.lock().failures.len() <= 3);
    }
}
