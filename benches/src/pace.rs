//! Load that comes at a rate of its own, whatever the server does with it.

use std::time::{Duration, Instant};

use crate::process::count;
use crate::report::PaceReport;

/// How long the lower rate behind an overload is watched.
const AFTER: Duration = Duration::from_secs(3);
/// An answer that took longer than this shows that the server has not yet recovered.
const LATE: Duration = Duration::from_millis(100);

/// When messages are due.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    then: Option<f64>,
    first_rate: f64,
    since: Option<Instant>,
    issued: u64,
    turn: usize,
    /// Of the measured time: not sent because the sender's window was full; answered `overloaded`.
    pub(crate) held_back: u64,
    overloaded: u64,
    /// When the lower rate began, and the last sign of overload after that.
    slowed: Option<Instant>,
    last_bad: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(per_second: f64, then: Option<f64>) -> Self {
        Self {
            per_second,
            then,
            first_rate: per_second,
            since: None,
            issued: 0,
            turn: 0,
            held_back: 0,
            overloaded: 0,
            slowed: None,
            last_bad: None,
        }
    }

    /// How many messages more are due now.
    pub(crate) fn due(&mut self, now: Instant) -> u64 {
        let since = *self.since.get_or_insert(now);
        let wanted = now.saturating_duration_since(since).as_secs_f64() * self.per_second;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "far below 2^53, never below 0"
        )]
        let wanted = wanted as u64;
        let due = wanted.saturating_sub(self.issued);
        self.issued = wanted.max(self.issued);
        due
    }

    pub(crate) fn next_user(&mut self, users: usize) -> usize {
        self.turn = (self.turn + 1) % users.max(1);
        self.turn
    }

    /// A message was answered `ok`.
    pub(crate) fn answered(&mut self, now: Instant, sent: Instant) {
        if self.slowed.is_some() && now.saturating_duration_since(sent) > LATE {
            self.last_bad = Some(now);
        }
    }

    /// A message was answered `overloaded`.
    pub(crate) fn refused(&mut self, now: Instant, is_measured: bool) {
        self.overloaded += u64::from(is_measured);
        if self.slowed.is_some() {
            self.last_bad = Some(now);
        }
    }

    /// Goes over to the lower rate, if there is one: for how long.
    pub(crate) fn slow_down(&mut self, now: Instant) -> Option<Duration> {
        self.per_second = self.then?;
        self.since = Some(now);
        self.issued = 0;
        self.slowed = Some(now);
        self.last_bad = Some(now);
        Some(AFTER)
    }

    pub(crate) fn report(&self, seconds: f64) -> PaceReport {
        let recovered = self.slowed.zip(self.last_bad).map(|(from, to)| to.saturating_duration_since(from));
        let rate = |number| if seconds > 0.0 { count(number) / seconds } else { 0.0 };
        PaceReport {
            offered_per_second: self.first_rate,
            held_back_per_second: rate(self.held_back),
            overloaded_per_second: rate(self.overloaded),
            recovered_ms: recovered.map(|time| time.as_secs_f64() * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_due_with_time_and_not_twice() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000.0, None);
        assert_eq!(pace.due(start), 0);
        assert_eq!(pace.due(start + Duration::from_millis(10)), 10);
        assert_eq!(pace.due(start + Duration::from_millis(10)), 0);
        assert_eq!(pace.due(start + Duration::from_millis(15)), 5);
    }

    #[test]
    fn the_last_sign_of_overload_ends_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(1_000.0, Some(100.0));
        pace.refused(at(1), true);
        assert_eq!(pace.slow_down(at(1_000)), Some(AFTER));
        pace.answered(at(1_150), at(1_000));
        pace.answered(at(1_400), at(1_399));
        let report = pace.report(1.0);
        assert_eq!((report.recovered_ms, report.overloaded_per_second), (Some(150.0), 1.0));
        assert_eq!(pace.due(at(1_100)), 10, "at the lower rate");
    }
}
