//! How long to wait before the next attempt: exponential back-off with full jitter.
//!
//! The delay is drawn uniformly from zero to an exponentially growing limit ("full jitter" in the AWS Architecture
//! Blog's "Exponential Backoff And Jitter"): many clients that lost one server come back spread over the whole
//! interval, not in waves. The limit starts anew only after a connection has proven stable, so that a server which
//! accepts and closes at once is not hammered.

use std::time::{Duration, Instant};

/// The numbers of a back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffConfig {
    /// The limit of the first delay; each further attempt doubles it.
    pub base: Duration,
    /// What the limit never exceeds.
    pub cap: Duration,
    /// A connection that lived at least so long begins the series anew.
    pub stable_after: Duration,
}

impl Default for BackoffConfig {
    /// 100 ms, 30 s, 10 s.
    fn default() -> Self {
        Self {
            // A server that restarts is back within a few of these.
            base: Duration::from_millis(100),
            // A person still waits for it; a thousand clients then make some 67 attempts a second.
            cap: Duration::from_secs(30),
            // Longer than an accept, a greeting and a refusal take together.
            stable_after: Duration::from_secs(10),
        }
    }
}

/// The series of delays of one connector.
///
/// Takes `now` and the source of chance from its caller, so that it can be replayed.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: BackoffConfig,
    attempt: u32,
    connected_at: Option<Instant>,
}

impl Backoff {
    /// A series with limits from `base` to `cap`, otherwise as [`BackoffConfig::default`].
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::from_config(BackoffConfig { base, cap, ..BackoffConfig::default() })
    }

    /// A series with all its numbers given.
    #[must_use]
    pub fn from_config(config: BackoffConfig) -> Self {
        Self { config, attempt: 0, connected_at: None }
    }

    /// The delay before the next attempt: uniform from zero to `min(cap, base * 2^attempt)`, both included.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let limit = self.limit();
        self.attempt = self.attempt.saturating_add(1);
        // 584 years of nanoseconds; a longer cap is as good as that.
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.u64(0..=nanos))
    }

    /// What the next delay will not exceed.
    #[must_use]
    pub fn limit(&self) -> Duration {
        let grown = 2_u32.checked_pow(self.attempt).and_then(|factor| self.config.base.checked_mul(factor));
        grown.map_or(self.config.cap, |limit| limit.min(self.config.cap))
    }

    /// How many delays were given since the series began.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Begins the series anew.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The attempt succeeded. The series goes on until the connection has proven stable.
    pub fn on_connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// The connection ended; begins the series anew if it lived at least `stable_after`.
    ///
    /// Without an [`on_connected`](Self::on_connected) before it, it does nothing.
    pub fn on_closed(&mut self, now: Instant) {
        let Some(connected_at) = self.connected_at.take() else { return };
        if now.saturating_duration_since(connected_at) >= self.config.stable_after {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_limit_doubles_up_to_the_cap_and_stays_there() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), SECOND);
        for millis in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(backoff.limit(), Duration::from_millis(millis));
            assert!(backoff.next(&mut rng) <= Duration::from_millis(millis));
        }
        for _ in 0..100 {
            assert!(backoff.next(&mut rng) <= SECOND);
        }
        assert_eq!(backoff.limit(), SECOND, "also when 2^attempt fits no integer");
    }

    #[test]
    fn delays_spread_over_the_whole_interval() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut quarters = [0_u32; 4];
        for _ in 0..4000 {
            let delay = Backoff::new(SECOND, SECOND).next(&mut rng);
            quarters[usize::try_from(delay.as_millis() / 250).unwrap().min(3)] += 1;
        }
        assert!(quarters.iter().all(|&count| (850..1150).contains(&count)), "{quarters:?}");
    }

    #[test]
    fn only_a_stable_connection_begins_the_series_anew() {
        let mut rng = fastrand::Rng::with_seed(1);
        let config = BackoffConfig::default();
        let (mut backoff, start) = (Backoff::from_config(config), Instant::now());
        backoff.next(&mut rng);
        backoff.next(&mut rng);

        backoff.on_connected(start);
        backoff.on_closed(start + config.stable_after - Duration::from_nanos(1));
        assert_eq!(backoff.attempts(), 2, "too short a life");

        backoff.on_closed(start + config.stable_after * 9);
        assert_eq!(backoff.attempts(), 2, "that connection had ended already");

        backoff.on_connected(start);
        backoff.on_closed(start + config.stable_after);
        assert_eq!(backoff.attempts(), 0);
        assert_eq!(backoff.limit(), config.base);
    }

    #[test]
    fn a_seed_replays_its_delays() {
        let delays = |seed| {
            let (mut rng, mut backoff) = (fastrand::Rng::with_seed(seed), Backoff::new(SECOND, SECOND * 60));
            std::iter::repeat_with(|| backoff.next(&mut rng)).take(20).collect::<Vec<_>>()
        };
        assert_eq!(delays(3), delays(3));
        assert_ne!(delays(3), delays(4));
    }

    proptest! {
        #[test]
        fn no_numbers_overflow_or_exceed_the_cap(base: Duration, cap: Duration, seed: u64) {
            let (mut rng, mut backoff) = (fastrand::Rng::with_seed(seed), Backoff::new(base, cap));
            for _ in 0..70 {
                let limit = backoff.limit();
                prop_assert!(limit <= cap);
                prop_assert!(backoff.next(&mut rng) <= limit);
            }
        }
    }
}
