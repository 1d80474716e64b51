//! The rate limit of a place that logs: a loop that has gone wild does not fill the disk.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{Level, Record};

/// So many records may one place of the program log in such a time; errors are not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The most records. At least 1.
    pub records: u32,
    /// In this time, which begins anew when it is over. At least 1 ms.
    pub per: Duration,
}

/// Places are told apart by a hash: two that share a slot share a limit. With this many slots the 100 busiest places of a program hardly do.
const SLOTS: usize = 4096;

/// The counts by place.
#[derive(Debug)]
pub(crate) struct Rates {
    limit: RateLimit,
    /// The number of the time in which it was counted in the upper half, the count in the lower.
    slots: Vec<AtomicU64>,
}

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// It passes, and so many before it did not.
    PassAfter(u64),
    Suppress,
}

impl Rates {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// At `micros` since 1970. Any thread; it neither locks nor waits.
    pub(crate) fn judge(&self, record: &Record<'_>, micros: i64) -> Verdict {
        if record.level() == Level::Error {
            return Verdict::Pass;
        }
        let place = (record.file().unwrap_or(record.target()), record.line());
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(place);
        let at = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        self.slots.get(at).map_or(Verdict::Pass, |slot| self.count(slot, micros))
    }

    fn count(&self, slot: &AtomicU64, micros: i64) -> Verdict {
        let per = i64::try_from(self.limit.per.as_micros()).unwrap_or(i64::MAX).max(1);
        // Its low half tells one time from the next as well. Not 0 at the beginning, which is for a slot that was never used.
        let number = u64::from_ne_bytes(micros.div_euclid(per).to_ne_bytes()).wrapping_add(1);
        let time = number << 32;
        let count = |old: u64| if old >> 32 == time >> 32 { (old & u64::from(u32::MAX)) + 1 } else { 1 };
        let next = |old| Some(time | count(old).min(u64::from(u32::MAX)));
        let old = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(0);
        let limit = u64::from(self.limit.records);
        match count(old) {
            1 => match (old & u64::from(u32::MAX)).saturating_sub(limit) {
                0 => Verdict::Pass,
                suppressed => Verdict::PassAfter(suppressed),
            },
            counted if counted <= limit => Verdict::Pass,
            _ => Verdict::Suppress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(rates: &Rates, line: u32, micros: i64) -> Verdict {
        let mut record = Record::builder();
        rates.judge(&record.file(Some("a.rs")).line(Some(line)).build(), micros)
    }

    #[test]
    fn a_place_has_its_limit_in_each_time_and_tells_of_what_was_suppressed() {
        let rates = Rates::new(RateLimit { records: 2, per: Duration::from_secs(1) });
        let verdicts: Vec<_> = (0..5).map(|n| judge(&rates, 1, n)).collect();
        assert_eq!(verdicts[..2], [Verdict::Pass; 2]);
        assert_eq!(verdicts[2..], [Verdict::Suppress; 3]);
        assert_eq!(judge(&rates, 2, 5), Verdict::Pass);
        assert_eq!(judge(&rates, 1, 1_000_000), Verdict::PassAfter(3));
        assert_eq!(judge(&rates, 1, 2_000_000), Verdict::Pass);
    }

    #[test]
    fn errors_are_not_limited() {
        let rates = Rates::new(RateLimit { records: 1, per: Duration::from_secs(1) });
        let mut record = Record::builder();
        let record = record.level(Level::Error).file(Some("a.rs")).build();
        assert!((0..10).all(|_| rates.judge(&record, 0) == Verdict::Pass));
    }
}
