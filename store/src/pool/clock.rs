//! The pool's time: milliseconds are enough for it, and a clock that is coarse and cheap serves.

use std::time::{Duration, Instant};

/// The time since the pool was started.
pub(super) type Time = Duration;

/// Monotonic, and up to some milliseconds behind.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    #[cfg(target_os = "linux")]
    coarse_origin: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            #[cfg(target_os = "linux")]
            coarse_origin: coarse(),
        }
    }

    /// Costs a fifth of a reading of [`Instant::now`], and there are two of these in every acquire.
    #[inline]
    pub(super) fn now(&self) -> Time {
        #[cfg(target_os = "linux")]
        return coarse().saturating_sub(self.coarse_origin);
        #[cfg(not(target_os = "linux"))]
        self.origin.elapsed()
    }

    /// The time exactly, for the thread that sleeps until something is due.
    pub(super) fn exact(&self) -> Time {
        self.origin.elapsed()
    }
}

#[cfg(target_os = "linux")]
fn coarse() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
