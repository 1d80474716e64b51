//! Timestamps: microseconds since 1970 to text, with the second's text kept from one to the next.

#[cfg(not(target_os = "linux"))]
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;

const MICROS: i64 = 1_000_000;

/// The bytes that [`Stamps::push`] writes, for all years of four digits.
pub(crate) const STAMP_BYTES: usize = "2026-09-23T10:15:04.123456Z".len();

/// The wall clock in microseconds since 1970.
#[cfg(target_os = "linux")]
#[inline]
pub(crate) fn now_micros() -> i64 {
    // As the system gives it: `SystemTime` takes a difference and 128-bit arithmetic more, in every record.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(MICROS).saturating_add(now.tv_nsec / 1000)
}

/// The wall clock in microseconds since 1970.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now_micros() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// Writes timestamps. Lines come in order, so the calendar is asked once a second.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    second: Option<i64>,
    text: String,
}

impl Stamps {
    /// Appends `2026-09-23T10:15:04.123456Z`.
    pub(crate) fn push(&mut self, micros: i64, out: &mut Vec<u8>) {
        let second = micros.div_euclid(MICROS);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = match DateTime::from_timestamp(second, 0) {
                Some(time) => time.format("%Y-%m-%dT%H:%M:%S.").to_string(),
                None => "0000-00-00T00:00:00.".into(),
            };
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut rest = u32::try_from(micros.rem_euclid(MICROS)).unwrap_or(0);
        for power in [100_000, 10_000, 1_000, 100, 10, 1] {
            let digit = u8::try_from(rest / power).unwrap_or(0);
            out.push(b'0' + digit);
            rest %= power;
        }
        out.push(b'Z');
    }

    /// The same as a string.
    pub(crate) fn text(&mut self, micros: i64) -> String {
        let mut out = Vec::with_capacity(STAMP_BYTES);
        self.push(micros, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// `20260923T101504`, as it stands in the name of a rolled file.
pub(crate) fn compact(micros: i64) -> String {
    match DateTime::from_timestamp(micros.div_euclid(MICROS), 0) {
        Some(time) => time.format("%Y%m%dT%H%M%S").to_string(),
        None => "00000000T000000".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_exact_and_padded() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.text(1_790_158_504_000_007), "2026-09-23T10:15:04.000007Z");
        assert_eq!(stamps.text(1_790_158_504_123_456), "2026-09-23T10:15:04.123456Z");
        assert_eq!(stamps.text(1_790_158_505_999_999), "2026-09-23T10:15:05.999999Z");
    }

    #[test]
    fn a_clock_stepped_back_is_written_as_it_is() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(stamps.text(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(stamps.text(1), "1970-01-01T00:00:00.000001Z");
    }

    #[test]
    fn times_beyond_the_calendar_do_not_panic() {
        let mut stamps = Stamps::default();
        assert!(stamps.text(i64::MAX).ends_with('Z'));
        assert!(stamps.text(i64::MIN).ends_with('Z'));
        assert_eq!(compact(1_790_158_504_123_456), "20260923T101504");
    }

    #[test]
    fn now_is_after_this_code_was_written() {
        assert!(now_micros() > 1_700_000_000 * MICROS);
    }
}
