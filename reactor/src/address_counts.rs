//! How many connections come from where, for the limit per address.

use std::net::IpAddr;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Counts the connections of a server by the network they come from. Shared by the server's loops; its lock is taken when a connection opens and when it
/// ends, and only where there is a limit.
#[derive(Debug)]
pub(crate) struct AddressCounts {
    max: usize,
    counts: Mutex<FxHashMap<Network, usize>>,
}

/// What counts as one place: an IPv4 address, or the /64 of an IPv6 address, since a single customer commonly has all of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    const fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl AddressCounts {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, counts: Mutex::new(FxHashMap::default()) }
    }

    /// Counts one more from `ip`, unless there are as many as may be.
    pub(crate) fn enter(&self, ip: IpAddr) -> bool {
        let mut counts = self.counts.lock();
        let network = Network::of(ip);
        let count = counts.get(&network).copied().unwrap_or(0);
        let room = count < self.max;
        if room {
            counts.insert(network, count + 1);
        }
        room
    }

    /// One that was let in has ended.
    pub(crate) fn leave(&self, ip: IpAddr) {
        let mut counts = self.counts.lock();
        let network = Network::of(ip);
        if let Some(count) = counts.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_count_and_leaves_nothing_behind() {
        let counts = AddressCounts::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(counts.enter(ip("10.0.0.1")) && counts.enter(ip("::ffff:10.0.0.1")));
        assert!(!counts.enter(ip("10.0.0.1")));
        assert!(counts.enter(ip("10.0.0.2")));
        assert!(counts.enter(ip("2001:db8::1")) && counts.enter(ip("2001:db8::2")));
        assert!(!counts.enter(ip("2001:db8::3")), "the same /64");
        assert!(counts.enter(ip("2001:db8:0:1::1")), "another /64");
        counts.leave(ip("10.0.0.1"));
        assert!(counts.enter(ip("10.0.0.1")));
        for text in ["10.0.0.1", "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::1", "2001:db8:0:1::1"] {
            counts.leave(ip(text));
        }
        assert!(counts.counts.lock().is_empty());
    }
}
