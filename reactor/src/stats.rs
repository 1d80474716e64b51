//! What a loop counts: plain numbers on the loop, published once per turn for other threads to read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::reason::CloseReason;

const REASONS: usize = CloseReason::LABELS.len();
/// Bins of the histogram of turns: up to 1 µs, 2 µs, 4 µs, … and the last for all beyond (4 s).
const LAG_BINS: usize = 24;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A loop's counters since its start, as they stood at the end of a turn.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct LoopStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Closed connections by reason, in the order of [`CloseReason::LABELS`].
            pub closes: [u64; REASONS],
            /// Turns by how long their work took, which is how long an event had to wait at most: bin *n* counts those of up to 2^*n* µs, the last one all
            /// longer ones too. Of turns with a single quick callback one in eight is counted. See [`LoopStats::lag`].
            pub lag_bins: [u64; LAG_BINS],
            /// The bin of the last turn.
            lag_bin_last: usize,
        }

        /// The published copy. Written by the loop thread alone, so relaxed stores suffice: each number is right by itself.
        #[derive(Debug, Default)]
        pub(crate) struct SharedStats {
            $($name: AtomicU64,)*
            closes: [AtomicU64; REASONS],
            lag_bins: [AtomicU64; LAG_BINS],
        }

        impl SharedStats {
            pub(crate) fn publish(&self, stats: &LoopStats) {
                // This is done in every turn: what did not change is not written.
                if self.closed.load(Ordering::Relaxed) != stats.closed {
                    for (shared, local) in self.closes.iter().zip(stats.closes) {
                        shared.store(local, Ordering::Relaxed);
                    }
                }
                let bin = stats.lag_bin_last;
                if let (Some(shared), Some(local)) = (self.lag_bins.get(bin), stats.lag_bins.get(bin)) {
                    shared.store(*local, Ordering::Relaxed);
                }
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
            }

            pub(crate) fn read(&self) -> LoopStats {
                let mut stats = LoopStats { $($name: self.$name.load(Ordering::Relaxed),)* ..LoopStats::default() };
                for (local, shared) in stats.closes.iter_mut().zip(&self.closes) {
                    *local = shared.load(Ordering::Relaxed);
                }
                for (local, shared) in stats.lag_bins.iter_mut().zip(&self.lag_bins) {
                    *local = shared.load(Ordering::Relaxed);
                }
                stats
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Waits that ended by a wake-up from another thread.
    wakeups,
    /// Readiness events.
    events,
    /// Events for a connection that was gone already.
    stale_events,
    /// Sends to a name whose connection was gone already.
    stale_sends,
    /// Connections accepted by this loop's listeners.
    accepted,
    /// Connections that were refused for a limit, or shed for want of descriptors.
    shed,
    /// Failed accepts (`EMFILE` and its kin) that led to a back-off.
    accept_errors,
    /// Connections opened on this loop, accepted or connected.
    opened,
    /// Connections closed on this loop.
    closed,
    /// Bytes read.
    bytes_in,
    /// Bytes written.
    bytes_out,
    /// Read calls.
    reads,
    /// Read calls that found nothing.
    reads_blocked,
    /// Write calls.
    writes,
    /// Frames given to handlers.
    frames,
    /// Posted messages, tasks and commands run.
    posts,
    /// Timers fired.
    timers,
    /// Panics caught in handlers.
    panics,
    /// Connections that ended before they opened: a bad or missing PROXY header, a failed handshake, a timeout.
    bad_prefaces,
    /// Callbacks, or runs of them, that took longer than the loop's limit.
    slow_callbacks,
    /// The longest turn, in microseconds.
    lag_max_micros,
}

impl LoopStats {
    /// Connections open now, those included that are still delivering after their close.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }

    /// How long turns took at the quantile `q` (0.5: the median), rounded up to a power of two of microseconds. Zero before the first turn.
    #[must_use]
    pub fn lag(&self, q: f64) -> Duration {
        let total: u64 = self.lag_bins.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count of turns, which need not be exact"
        )]
        let wanted = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bin, count) in self.lag_bins.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(1 << bin);
            }
        }
        Duration::ZERO
    }

    /// Counts a turn that took so long.
    pub(crate) fn count_lag(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bin = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        self.lag_bin_last = bin.min(LAG_BINS - 1);
        if let Some(count) = self.lag_bins.get_mut(self.lag_bin_last) {
            *count += 1;
        }
        self.lag_max_micros = self.lag_max_micros.max(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_told_by_quantiles() {
        let mut stats = LoopStats::default();
        assert_eq!(stats.lag(0.5), Duration::ZERO);
        for micros in [0, 1, 2, 3, 4, 5, 100, 30_000] {
            stats.count_lag(Duration::from_micros(micros));
        }
        assert_eq!(stats.lag(0.0), Duration::from_micros(1));
        assert_eq!(stats.lag(0.5), Duration::from_micros(4));
        assert_eq!(stats.lag(0.99), Duration::from_micros(32_768));
        stats.count_lag(Duration::from_secs(3_600));
        assert_eq!(stats.lag(1.0), Duration::from_micros(1 << (LAG_BINS - 1)));
        assert_eq!(stats.lag_max_micros, 3_600_000_000);
    }
}
