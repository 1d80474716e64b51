//! When a run of messages begins and ends to count.

use std::time::{Duration, Instant};

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Messages flow, and nothing counts.
    Warm,
    /// Messages flow and count.
    Measured,
    /// Nothing new is sent; what is on its way comes back.
    Draining,
}

/// When it goes from one to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    /// At these times.
    Timed {
        /// When it begins to count.
        begin: Instant,
        /// When it ends to count.
        end: Instant,
    },
    /// When every connection has had so many messages back.
    Counted(u64),
}

impl Plan {
    /// The phase at this time.
    pub(crate) fn phase(self, now: Instant) -> Phase {
        match self {
            Self::Timed { begin, .. } if now < begin => Phase::Warm,
            Self::Timed { end, .. } if now >= end => Phase::Draining,
            Self::Timed { .. } | Self::Counted(_) => Phase::Measured,
        }
    }

    /// How long until something changes, or else `patience`.
    pub(crate) fn wait(self, now: Instant, patience: Duration) -> Duration {
        let next = match self {
            Self::Timed { begin, .. } if now < begin => begin,
            Self::Timed { end, .. } if now < end => end,
            _ => return patience,
        };
        next.saturating_duration_since(now)
    }

    /// Messages that a connection may send in all.
    pub(crate) fn quota(self) -> u64 {
        match self {
            Self::Timed { .. } => u64::MAX,
            Self::Counted(messages) => messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_the_clock_or_not() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let plan = Plan::Timed { begin: at(1), end: at(3) };
        assert_eq!(
            [0, 1, 2, 3].map(|secs| plan.phase(at(secs))),
            [Phase::Warm, Phase::Measured, Phase::Measured, Phase::Draining]
        );
        assert_eq!([0, 1].map(|secs| plan.wait(at(secs), at(9) - now)), [1, 2].map(Duration::from_secs));
        assert_eq!((plan.wait(at(4), at(9) - now), plan.quota()), (at(9) - now, u64::MAX));
        assert_eq!((Plan::Counted(7).phase(at(9)), Plan::Counted(7).quota()), (Phase::Measured, 7));
    }
}
