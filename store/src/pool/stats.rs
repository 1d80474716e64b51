//! What a pool tells of itself.

use std::panic::Location;
use std::time::Duration;

use crate::error::StoreError;

/// How a pool stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolState {
    /// No connect has succeeded or failed yet.
    Starting,
    /// The last connect succeeded.
    Up,
    /// The last connect failed, and connections live that were made before.
    Degraded,
    /// No connection lives and connecting fails: acquires fail at once, and the server is probed.
    Down,
    /// Closing: waits for what is held.
    Draining,
    /// Closed.
    Closed,
}

/// Bins of the histogram of waits: up to 1 µs, 2 µs, 4 µs, …, the last for all beyond 8 s.
pub(crate) const WAIT_BINS: usize = 24;

/// A pool's counters and state, all from one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How it stands with its server.
    pub state: PoolState,
    /// Why the last connect failed, if none has succeeded since.
    pub last_error: Option<StoreError>,
    /// While it is down: until the next probe.
    pub next_probe: Option<Duration>,
    /// Connections that nobody has.
    pub idle: usize,
    /// Connections that somebody has, or that are on their way to or from somebody.
    pub busy: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// Connections given out.
    pub acquired: u64,
    /// Of these, such that had to be waited for.
    pub waited: u64,
    /// Acquires that ended without a connection, by their error.
    pub timeouts: u64,
    /// Acquires turned away because too many waited.
    pub overloads: u64,
    /// Acquires turned away because the server is down.
    pub down: u64,
    /// Connects that succeeded.
    pub connects: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Connections closed because they were left in a transaction, failed, or held by a panicking thread.
    pub discarded: u64,
    /// Connections closed because they were found broken before they were given out.
    pub found_broken: u64,
    /// Connections closed because nobody used them.
    pub reclaimed: u64,
    /// Connections closed for their age.
    pub retired: u64,
    /// Connections that were held for so long that it was reported.
    pub leaks: u64,
    pub(crate) wait_bins: [u64; WAIT_BINS],
}

impl PoolStats {
    /// How long acquires waited for a connection at the quantile `q` (0.5: the median), rounded up to a power of two of microseconds; those that did not wait
    /// included.
    #[must_use]
    pub fn wait(&self, q: f64) -> Duration {
        let total: u64 = self.wait_bins.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count, which need not be exact"
        )]
        let wanted = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bin, count) in self.wait_bins.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(1 << bin);
            }
        }
        Duration::ZERO
    }
}

/// Which bin a wait belongs to.
pub(crate) fn wait_bin(wait: Duration) -> usize {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    ((u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize).min(WAIT_BINS - 1)
}

/// Who holds a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Where it was acquired.
    pub at: &'static Location<'static>,
    /// For how long.
    pub held: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_go_into_powers_of_two() {
        assert_eq!(wait_bin(Duration::ZERO), 0);
        assert_eq!(wait_bin(Duration::from_micros(1)), 0);
        assert_eq!(wait_bin(Duration::from_micros(2)), 1);
        assert_eq!(wait_bin(Duration::from_micros(1_025)), 11);
        assert_eq!(wait_bin(Duration::from_secs(1_000)), WAIT_BINS - 1);
    }
}
