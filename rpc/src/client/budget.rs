//! The budget of retries: what keeps an outage from becoming a storm.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::config::RetryConfig;

/// One retry, in the unit that is counted in.
const RETRY: i64 = 1000;
/// The budget does not save up for longer than this.
const SAVED: Duration = Duration::from_secs(10);

/// A bucket of tokens that every call fills a little and every retry empties by one. Shared by the loops of a channel.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tokens: AtomicI64,
    per_call: i64,
    per_second: i64,
    max: i64,
    began: Instant,
    /// Milliseconds since `began` that were paid out.
    paid_ms: AtomicU64,
}

impl RetryBudget {
    pub(crate) fn new(config: &RetryConfig, now: Instant) -> Self {
        let per_second = i64::from(config.budget_per_second) * RETRY;
        let seconds = i64::try_from(SAVED.as_secs()).unwrap_or(1);
        Self {
            tokens: AtomicI64::new(per_second),
            per_call: i64::from(config.budget_percent) * RETRY / 100,
            per_second,
            // A hundred calls' worth above what time saves up.
            max: per_second * seconds + 100 * RETRY,
            began: now,
            paid_ms: AtomicU64::new(0),
        }
    }

    /// A call was made.
    pub(crate) fn deposit(&self) {
        self.add(self.per_call);
    }

    /// Whether one more retry is within the budget. If so, it is paid for.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let ms = now.saturating_duration_since(self.began).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        let paid = self.paid_ms.fetch_max(ms, Ordering::Relaxed);
        let new_ms = i64::try_from(ms.saturating_sub(paid)).unwrap_or(i64::MAX);
        self.add(self.per_second.saturating_mul(new_ms) / 1000);
        let take = |tokens| (tokens >= RETRY).then_some(tokens - RETRY);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn add(&self, amount: i64) {
        let tokens = self.tokens.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        if tokens > self.max {
            // Several may do this at once and take a little too much; it is a budget, not a bank.
            self.tokens.store(self.max, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_calls_and_ten_a_second() {
        let start = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), start);
        let spend = |now| std::iter::from_fn(|| budget.withdraw(now).then_some(())).take(10_000).count();
        assert_eq!(spend(start), 10, "one second's worth to begin with");
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!(spend(start), 20);
        assert_eq!(spend(start + Duration::from_secs(1)), 10);
        assert_eq!(spend(start + Duration::from_secs(1)), 0);
    }

    #[test]
    fn the_budget_does_not_save_up_without_end() {
        let start = Instant::now();
        let budget = RetryBudget::new(&RetryConfig::default(), start);
        for _ in 0..1_000_000 {
            budget.deposit();
        }
        let later = start + Duration::from_secs(100_000);
        let spent = std::iter::from_fn(|| budget.withdraw(later).then_some(())).take(10_000).count();
        assert_eq!(spent, 200);
    }
}
