//! What is counted for each method. Each loop counts for itself, without a lock; who asks gets the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::method::MethodInfo;
use crate::status::Code;

/// Each power of two is cut into this many parts: a latency is known within a quarter.
const PARTS: u32 = 4;
/// Up to 2^40 ns, which is 18 minutes.
const BUCKETS: usize = 40 * PARTS as usize;

/// The counters of one method on one loop. Written by that loop alone.
#[derive(Debug)]
struct Counters {
    by_code: [AtomicU64; Code::ALL.len()],
    nanos: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Counters {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            by_code: std::array::from_fn(|_| zero()),
            nanos: zero(),
            latencies: std::array::from_fn(|_| zero()),
        }
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// The counters of all methods on one loop.
#[derive(Debug)]
pub(crate) struct LoopMetrics(Vec<Counters>);

impl LoopMetrics {
    pub(crate) fn new(methods: usize) -> Self {
        Self((0..methods).map(|_| Counters::new()).collect())
    }

    /// Counts a call that has ended. For the loop's own thread only.
    pub(crate) fn count(&self, method: usize, code: Code, took: Duration) {
        let Some(counters) = self.0.get(method) else { return };
        if let Some(counter) = counters.by_code.get(code as usize) {
            add(counter, 1);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&counters.nanos, nanos);
        if let Some(bucket) = counters.latencies.get(bucket_of(nanos)) {
            add(bucket, 1);
        }
    }

    /// Adds what was counted to `sum`.
    pub(crate) fn read_into(&self, sum: &mut [MethodStats]) {
        for (counters, sum) in self.0.iter().zip(sum) {
            for (from, to) in counters.by_code.iter().zip(&mut sum.by_code) {
                *to += from.load(Ordering::Relaxed);
            }
            sum.busy += Duration::from_nanos(counters.nanos.load(Ordering::Relaxed));
            for (from, to) in counters.latencies.iter().zip(&mut sum.latencies.0) {
                *to += from.load(Ordering::Relaxed);
            }
        }
    }
}

fn bucket_of(nanos: u64) -> usize {
    let nanos = nanos.max(u64::from(PARTS));
    let power = 63 - nanos.leading_zeros();
    let part = (nanos >> (power - 2)) & u64::from(PARTS - 1);
    let index = (power - 2) * PARTS + u32::try_from(part).unwrap_or(0);
    (index as usize).min(BUCKETS - 1)
}

/// The largest latency of a bucket.
fn upper_nanos(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / u64::from(PARTS), bucket as u64 % u64::from(PARTS));
    ((u64::from(PARTS) + part + 1) << power) - 1
}

/// What was counted for one method.
#[derive(Clone, Debug)]
pub struct MethodStats {
    /// Its full name.
    pub method: &'static str,
    /// Calls that ended, by the number of their code; the first are those that ended well.
    pub by_code: [u64; Code::ALL.len()],
    /// The sum of all times from a call's arrival to its answer.
    pub busy: Duration,
    /// How long calls took, from arrival to answer.
    pub latencies: Latencies,
}

impl MethodStats {
    pub(crate) fn new(method: &MethodInfo) -> Self {
        Self {
            method: method.path,
            by_code: [0; Code::ALL.len()],
            busy: Duration::ZERO,
            latencies: Latencies([0; BUCKETS]),
        }
    }

    /// Calls that ended, in whatever way.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.by_code.iter().sum()
    }

    /// Calls that ended in an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.by_code.iter().skip(1).sum()
    }
}

/// A histogram of latencies, each known within a quarter of itself.
#[derive(Clone, Debug)]
pub struct Latencies([u64; BUCKETS]);

impl Latencies {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What at least this share (0 to 1) of the calls did not exceed; zero when there were none.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank that is off by one in 2^52 is right enough"
    )]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return Duration::from_nanos(upper_nanos(bucket));
            }
        }
        Duration::ZERO
    }

    /// Pairs of an upper bound and how many calls did not exceed it, for Prometheus; only bounds that are powers of two.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut seen = 0;
        self.0.iter().enumerate().filter_map(move |(bucket, count)| {
            seen += count;
            let last_part = bucket as u64 % u64::from(PARTS) == u64::from(PARTS) - 1;
            last_part.then(|| (Duration::from_nanos(upper_nanos(bucket)), seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Idempotency;

    #[test]
    fn every_latency_falls_into_a_bucket_that_holds_it() {
        for nanos in (0..2000).chain([123_456, 7_654_321, 1 << 39]) {
            let bucket = bucket_of(nanos);
            assert!(nanos <= upper_nanos(bucket), "{nanos}");
            assert!(bucket == 0 || nanos > upper_nanos(bucket - 1), "{nanos}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_loops_count_is_added_up() {
        static METHOD: MethodInfo = MethodInfo::new("a.B/C", Idempotency::Unknown);
        let loops = [LoopMetrics::new(1), LoopMetrics::new(1)];
        for millis in 1..=100 {
            loops[usize::from(millis % 2 == 0)].count(0, Code::Ok, Duration::from_millis(millis));
        }
        loops[0].count(0, Code::Internal, Duration::from_millis(1));
        let mut sum = [MethodStats::new(&METHOD)];
        for one in &loops {
            one.read_into(&mut sum);
        }
        assert_eq!((sum[0].calls(), sum[0].errors()), (101, 1));
        let median = sum[0].latencies.quantile(0.5);
        assert!((50..64).contains(&median.as_millis()), "{median:?}");
        assert_eq!(sum[0].latencies.cumulative().last().unwrap().1, 101);
    }
}
