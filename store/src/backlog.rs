//! How many messages may wait for a writer: as many as it commits in a given time. A longer queue gives nobody more, and everybody later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a writer's door looks at before it takes a message in.
#[derive(Debug)]
pub(crate) struct Backlog {
    limit: AtomicUsize,
    /// Below it the rate does not matter: a burst to a slow disk is served, not refused.
    least: usize,
    most: usize,
    wait: Duration,
}

/// The writer's side: how fast it is while it has enough to do.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the last batch was begun, if it was a full one.
    begun: Option<Instant>,
    /// Seconds for one message, of full batches; the last ones count most.
    each: Option<f64>,
}

/// Of the greatest length of the queue, what is always allowed: a part in so many.
const LEAST_PART: usize = 4;
/// A batch changes the estimate by a part in so many, so that one slow sync does not.
const SMOOTHING: f64 = 8.0;

impl Backlog {
    /// A zero `wait` allows the most.
    pub(crate) fn new(most: usize, wait: Duration) -> Self {
        let least = if wait.is_zero() { most } else { most.div_ceil(LEAST_PART) };
        Self { limit: AtomicUsize::new(most), least, most, wait }
    }

    /// Whether one more may wait behind so many.
    pub(crate) fn has_room(&self, waiting: usize) -> bool {
        waiting < self.limit.load(Ordering::Relaxed)
    }

    fn adapt(&self, each: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and never below 0"
        )]
        let fits = (self.wait.as_secs_f64() / each.max(1e-9)) as usize;
        self.limit.store(fits.clamp(self.least, self.most), Ordering::Relaxed);
    }
}

impl Pace {
    /// A batch begins. Only between two batches that were both ready at once, the first of them full, the time is all the writer's own.
    pub(crate) fn batch(
        &mut self,
        now: Instant,
        jobs: usize,
        batch_max: usize,
        at_once: bool,
        backlog: &Backlog,
    ) {
        if let Some(begun) = self.begun.take()
            && at_once
        {
            #[expect(clippy::cast_precision_loss, reason = "at most 512")]
            let took = now.saturating_duration_since(begun).as_secs_f64() / batch_max as f64;
            let each = self.each.map_or(took, |each| each + (took - each) / SMOOTHING);
            self.each = Some(each);
            backlog.adapt(each);
        }
        self.begun = (jobs == batch_max).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(backlog: &Backlog) -> usize {
        backlog.limit.load(Ordering::Relaxed)
    }

    #[test]
    fn as_many_wait_as_are_committed_in_the_time() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let backlog = Backlog::new(16_000, Duration::from_millis(80));
        assert!(backlog.has_room(15_999) && !backlog.has_room(16_000));
        // 500 messages in 5 ms are 100,000 a second.
        for turn in 0..3 {
            pace.batch(start + turn * Duration::from_millis(5), 500, 500, true, &backlog);
        }
        assert!((7_990..=8_010).contains(&limit(&backlog)), "{backlog:?}");
    }

    #[test]
    fn a_slow_disk_leaves_room_for_a_burst() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let backlog = Backlog::new(16_000, Duration::from_millis(80));
        for turn in 0..50 {
            pace.batch(start + turn * Duration::from_secs(1), 500, 500, true, &backlog);
        }
        assert_eq!(limit(&backlog), 4_000);
    }

    #[test]
    fn waiting_for_work_is_not_being_slow() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let backlog = Backlog::new(16_000, Duration::from_millis(80));
        pace.batch(start, 500, 500, true, &backlog);
        pace.batch(start + Duration::from_secs(9), 500, 500, false, &backlog);
        // The batch before was not full.
        pace.batch(start + Duration::from_secs(10), 3, 500, false, &backlog);
        pace.batch(start + Duration::from_secs(11), 500, 500, true, &backlog);
        assert_eq!(limit(&backlog), 16_000);
    }

    #[test]
    fn without_a_time_the_length_alone_counts() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let backlog = Backlog::new(100, Duration::ZERO);
        for turn in 0..50 {
            pace.batch(start + turn * Duration::from_secs(1), 5, 5, true, &backlog);
        }
        assert_eq!(limit(&backlog), 100);
    }
}
