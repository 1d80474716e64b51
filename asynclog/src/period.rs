//! Hours and days, by which files are rolled.

use chrono::{DateTime, Local, Offset, TimeZone};

use crate::config::RollEvery;

const MICROS: i64 = 1_000_000;

/// The number of the hour or day in which a moment, in microseconds since 1970, lies. It grows with time, but for a clock that is stepped back.
pub(crate) fn period(every: RollEvery, micros: i64) -> i64 {
    let second = micros.div_euclid(MICROS);
    match every {
        RollEvery::Hour => second.div_euclid(3600),
        RollEvery::Day => day(second),
        RollEvery::LocalDay => day(second + local_offset(&Local, second)),
    }
}

fn day(second: i64) -> i64 {
    second.div_euclid(24 * 3600)
}

/// How far the zone's clocks are ahead of UTC at that moment, in seconds.
fn local_offset(zone: &impl TimeZone, second: i64) -> i64 {
    DateTime::from_timestamp(second, 0)
        .map_or(0, |time| i64::from(zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::FixedOffset;

    /// 2026-09-23T23:59:59.999999Z
    const BEFORE_MIDNIGHT: i64 = 1_790_208_000_000_000 - 1;

    #[test]
    fn a_period_ends_with_its_last_microsecond() {
        for every in [RollEvery::Hour, RollEvery::Day] {
            let before = period(every, BEFORE_MIDNIGHT);
            assert_eq!(period(every, BEFORE_MIDNIGHT + 1), before + 1);
            assert_eq!(period(every, BEFORE_MIDNIGHT - 3_000_000_000), before);
        }
        assert_eq!(period(RollEvery::Day, -1), -1);
    }

    #[test]
    fn a_zones_day_begins_at_its_own_midnight() {
        let zone = FixedOffset::east_opt(2 * 3600).unwrap();
        let second = BEFORE_MIDNIGHT.div_euclid(MICROS);
        let local = |second| day(second + local_offset(&zone, second));
        assert_eq!(local(second), day(second) + 1);
        assert_eq!(local(second - 2 * 3600), day(second));
    }
}
