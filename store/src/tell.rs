//! What a writing thread tells of its batches: the outcomes to whom they are for, the rest to the counters and the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::batch::Outcomes;
use crate::error::StoreError;
use crate::pipeline::{CommitSink, Sent};
use crate::store::Stats;

pub(crate) struct Tell {
    sink: Box<dyn CommitSink>,
    stats: Arc<Stats>,
    /// Batches that failed in a row.
    failures: u64,
}

impl Tell {
    pub(crate) fn new(sink: Box<dyn CommitSink>, stats: Arc<Stats>) -> Self {
        Self { sink, stats, failures: 0 }
    }

    /// The outcomes of a batch that was committed, or failed with `error`.
    pub(crate) fn outcomes(&mut self, outcomes: Outcomes, error: Option<StoreError>) {
        self.count(&outcomes, error);
        let Outcomes { batch, ops } = outcomes;
        if !(batch.sends.is_empty() && batch.cursors.is_empty())
            && catch_unwind(AssertUnwindSafe(|| self.sink.committed(batch))).is_err()
        {
            log::error!("the commit sink panicked; the outcomes of one batch may be lost");
        }
        for op in ops {
            op.finish();
        }
    }

    /// Counts, and says in the log when the storage fails and when it works again, not for every batch.
    fn count(&mut self, outcomes: &Outcomes, error: Option<StoreError>) {
        let Stats { batches, failed_batches, messages, duplicates, refused, .. } = &*self.stats;
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        let sends = &outcomes.batch.sends;
        let new = sends.iter().filter(|o| matches!(o.result, Ok(Sent::New(_)))).count();
        let old = sends.iter().filter(|o| matches!(o.result, Ok(Sent::Duplicate { .. }))).count();
        add(messages, new);
        add(duplicates, old);
        add(refused, sends.len() - new - old);
        add(batches, 1);
        match error {
            Some(error) => {
                add(failed_batches, 1);
                self.failures += 1;
                if self.failures == 1 {
                    log::error!("a batch could not be written, clients get `unavailable`: {error}");
                }
            }
            None if self.failures > 0 => {
                log::info!("the tables can be written again, after {} failed batches", self.failures);
                self.failures = 0;
            }
            None => {}
        }
    }
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
