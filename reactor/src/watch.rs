//! Who held the loop, and for how long: reports of callbacks that take too long, at the cost of a clock reading per turn.

use std::time::{Duration, Instant};

/// Callbacks between two readings of the clock within a turn. One reading costs as much as some fifty instructions, a callback often no more.
const CALLS_PER_LOOK: u32 = 16;
/// After a report, so many callbacks are timed one by one: what is slow once is likely to be so again, and is then named exactly.
const EXACT_CALLS: u32 = 1_024;

/// The callbacks, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Start,
    Open,
    /// What input leads to: frames, their errors, the end.
    Input,
    Post,
    Timer,
    Mark,
    Close,
    ConnectFailed,
    Stop,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "on_start",
            Self::Open => "on_open",
            Self::Input => "on_frame",
            Self::Post => "on_post",
            Self::Timer => "on_timer",
            Self::Mark => "on_high_water, on_low_water or on_drained",
            Self::Close => "on_close",
            Self::ConnectFailed => "on_connect_failed",
            Self::Stop => "on_stop",
        }
    }
}

/// Times callbacks: some together while all is quick, one by one after something was slow.
#[derive(Debug)]
pub(crate) struct Watch {
    /// When the clock was last read.
    since: Instant,
    /// Callbacks that returned since then.
    calls: u32,
    /// So many callbacks lead to a reading.
    look_after: u32,
    /// Callbacks that are still to be timed one by one.
    exact: u32,
    last: What,
    last_service: u8,
}

/// Something took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    pub(crate) took: Duration,
    /// The service of the last callback of those that were timed together.
    pub(crate) service: u8,
    what: What,
    calls: u32,
}

impl Watch {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            since: now,
            calls: 0,
            look_after: CALLS_PER_LOOK,
            exact: 0,
            last: What::Start,
            last_service: 0,
        }
    }

    /// A turn's work begins.
    pub(crate) const fn begin(&mut self, now: Instant) {
        self.since = now;
        self.calls = 0;
    }

    /// A callback returned. Answers whether it is time to [`look`](Self::look).
    #[inline]
    pub(crate) const fn called(&mut self, service: u8, what: What) -> bool {
        self.calls += 1;
        self.last = what;
        self.last_service = service;
        self.calls >= self.look_after
    }

    /// Callbacks that were not looked at yet.
    pub(crate) const fn calls(&self) -> u32 {
        self.calls
    }

    /// Looks at the clock: whether what ran since the last look took longer than `limit`.
    pub(crate) fn look(&mut self, now: Instant, limit: Option<Duration>) -> Option<Slow> {
        let took = now.saturating_duration_since(self.since);
        let calls = std::mem::take(&mut self.calls);
        self.since = now;
        self.exact = self.exact.saturating_sub(calls);
        let slow = calls > 0 && limit.is_some_and(|limit| took > limit);
        if slow {
            self.exact = EXACT_CALLS;
        }
        self.look_after = if self.exact > 0 { 1 } else { CALLS_PER_LOOK };
        slow.then_some(Slow { took, service: self.last_service, what: self.last, calls })
    }
}

impl Slow {
    /// Says it to whoever reads the log.
    pub(crate) fn report(&self, handler: &str) {
        let (took, what) = (self.took.as_millis(), self.what.name());
        if self.calls == 1 {
            log::warn!("{handler}: {what} held the loop for {took} ms");
        } else {
            log::warn!(
                "{handler}: {} callbacks, the last of them {what}, held the loop for {took} ms",
                self.calls
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: Option<Duration> = Some(Duration::from_millis(25));

    #[test]
    fn a_slow_callback_is_found_among_quick_ones_and_the_next_is_named_exactly() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.begin(start);
        let looks = (0..CALLS_PER_LOOK).map(|_| watch.called(3, What::Input)).filter(|look| *look).count();
        assert_eq!(looks, 1, "one reading for all of them");
        let slow = watch.look(start + MS * 26, LIMIT).unwrap();
        assert_eq!((slow.service, slow.calls, slow.took), (3, CALLS_PER_LOOK, MS * 26));
        assert!(watch.called(4, What::Timer), "from here on one by one");
        let slow = watch.look(start + MS * 60, LIMIT).unwrap();
        assert_eq!((slow.service, slow.calls, slow.what), (4, 1, What::Timer));
    }

    #[test]
    fn what_is_quick_is_not_reported_and_the_clock_is_read_less_again() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert!(watch.called(0, What::Post) == (CALLS_PER_LOOK == 1));
        assert!(watch.look(start + MS * 30, LIMIT).is_some());
        for _ in 0..EXACT_CALLS {
            assert!(watch.called(0, What::Post));
            assert!(watch.look(start + MS * 30, LIMIT).is_none());
        }
        assert!(!watch.called(0, What::Post));
    }

    #[test]
    fn without_a_limit_nothing_is_slow() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.called(0, What::Open);
        assert!(watch.look(start + MS * 10_000, None).is_none());
    }
}
