//! When the log thread looks into the lanes again though nobody has woken it: in a steady flow it comes before a threshold is reached, so that no caller has to wake it.

use std::time::{Duration, Instant};

use crate::config::FlushConfig;

/// The shortest time between two looks by the clock; records that come faster reach a threshold, and that wakes.
const LOOK_MIN: Duration = Duration::from_millis(1);
/// Flush settings below these are meant as they are: then nothing is handed over before one of them is reached.
const EARLY_RECORDS_MIN: usize = 64;
/// See [`EARLY_RECORDS_MIN`].
const EARLY_BYTES_MIN: usize = 16 * 1024;

/// Records and their bytes.
pub(crate) type Amount = (u64, u64);

/// The pace of what came of late.
#[derive(Debug)]
pub(crate) struct Pace {
    flush: FlushConfig,
    looked: Instant,
    /// The time that the last look was about, and what it has found.
    over: Duration,
    came: Amount,
    /// Looks by the clock in a row that have found something.
    timely: u32,
}

impl Pace {
    pub(crate) fn new(flush: FlushConfig) -> Self {
        Self { flush, looked: Instant::now(), over: Duration::ZERO, came: (0, 0), timely: 0 }
    }

    /// A look has found so much; `by_clock` when nobody had woken us for it.
    pub(crate) fn looked(&mut self, now: Instant, came: Amount, by_clock: bool) {
        self.over = now.saturating_duration_since(self.looked);
        self.looked = now;
        self.came = came;
        self.timely = if came.0 > 0 && by_clock { self.timely.saturating_add(1) } else { 0 };
    }

    /// More will come: it is not worth to sleep until someone wakes us.
    pub(crate) fn is_flowing(&self) -> bool {
        self.timely > 0
    }

    /// With so much gathered, what is gathered should go now: in a steady flow the next look might be too late.
    pub(crate) fn is_early(&self, (records, bytes): Amount) -> bool {
        let flush = &self.flush;
        let is_coarse = flush.records >= EARLY_RECORDS_MIN && flush.bytes >= EARLY_BYTES_MIN;
        let is_half = records >= flush.records as u64 / 2 || bytes >= flush.bytes as u64 / 2;
        self.timely > 1 && is_coarse && is_half
    }

    /// When to look again, with so much gathered: when half of what has room would have come. None when nothing came.
    pub(crate) fn next(&self, (records, bytes): Amount) -> Option<Instant> {
        let until = |most: usize, gathered: u64, came: u64| {
            let room = u128::from((most as u64).saturating_sub(gathered));
            let nanos = self.over.as_nanos().saturating_mul(room) / u128::from(came.max(1)) / 2;
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        if self.came.0 == 0 {
            return None;
        }
        let half =
            until(self.flush.records, records, self.came.0).min(until(self.flush.bytes, bytes, self.came.1));
        self.looked.checked_add(half.max(LOOK_MIN).min(self.flush.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A flow of so many records of 100 bytes in each ms, looked at by the pace's own clock for a second: the looks, and the most that was gathered.
    fn flow(each_ms: u64) -> (u32, u64) {
        let mut pace = Pace::new(FlushConfig::default());
        let begin = pace.looked;
        let (mut now, mut gathered, mut looks, mut most) = (begin, 0, 0, 0);
        while now < begin + 1000 * MS {
            let next = pace.next((gathered, 100 * gathered)).unwrap_or(now + MS).max(now + LOOK_MIN);
            let came = each_ms * u64::try_from((next - now).as_micros()).unwrap() / 1000;
            now = next;
            gathered += came;
            most = most.max(gathered);
            looks += 1;
            pace.looked(now, (came, 100 * came), true);
            if pace.is_early((gathered, 100 * gathered)) {
                gathered = 0;
            }
            assert!(pace.is_flowing());
        }
        (looks, most)
    }

    #[test]
    fn a_steady_flow_reaches_no_threshold_and_needs_few_looks() {
        for each_ms in [10, 50, 100, 150] {
            let (looks, most) = flow(each_ms);
            assert!(most < 655, "{each_ms} each ms: {most} gathered");
            assert!(u64::from(looks) <= 1000.min(each_ms * 1000 / 150), "{each_ms} each ms: {looks} looks");
        }
    }

    #[test]
    fn when_nothing_comes_nothing_is_looked_for() {
        let mut pace = Pace::new(FlushConfig::default());
        let now = pace.looked;
        pace.looked(now + MS, (5, 500), true);
        assert!(pace.is_flowing() && pace.next((5, 500)).is_some());
        pace.looked(now + 2 * MS, (0, 0), true);
        assert!(!pace.is_flowing() && pace.next((5, 500)).is_none());
    }

    #[test]
    fn who_is_woken_is_in_no_steady_flow() {
        let mut pace = Pace::new(FlushConfig::default());
        let now = pace.looked;
        for n in 1..10 {
            pace.looked(now + n * MS, (600, 60_000), false);
            assert!(!pace.is_flowing() && !pace.is_early((600, 60_000)));
        }
    }

    #[test]
    fn small_flush_settings_are_meant_as_they_are() {
        let mut pace = Pace::new(FlushConfig { records: 10, ..FlushConfig::default() });
        let now = pace.looked;
        for n in 1..10 {
            pace.looked(now + n * MS, (9, 900), true);
        }
        assert!(pace.is_flowing() && !pace.is_early((9, 900)));
    }
}
