//! What is logged and not yet handed to the file-writer, counted in one word, by which callers know when the log thread must be woken.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::FlushConfig;

/// One record, in the upper half of the word; the lower half counts bytes.
const RECORD: u64 = 1 << 32;
const BYTES: u64 = RECORD - 1;

/// Unflushed records and bytes.
///
/// A caller counts its record *before* it puts it into its buffer, and wakes the log thread *after*. So the log thread, which subtracts what it has
/// taken, never subtracts what is not counted; and while it sees anything counted, it does not sleep without a time-out.
#[derive(Debug)]
pub(crate) struct Pending {
    word: AtomicU64,
    records_max: u64,
    bytes_max: u64,
}

impl Pending {
    /// Wakes at what `flush` says. Bytes beyond half of what the word can count are as good as that.
    pub(crate) fn new(flush: FlushConfig) -> Self {
        Self {
            word: AtomicU64::new(0),
            records_max: (flush.records as u64).min(BYTES / 2),
            bytes_max: (flush.bytes as u64).min(BYTES / 2),
        }
    }

    /// Counts one record; true when its caller has to wake the log thread once the record is in its buffer: because nothing was pending,
    /// so the log thread may sleep, or because a threshold is reached by this record.
    #[inline]
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let more = RECORD + (bytes as u64).min(BYTES / 4);
        let old = self.word.fetch_add(more, Ordering::SeqCst);
        old == 0 || (!self.is_over(old) && self.is_over(old.wrapping_add(more)))
    }

    /// Takes off what was handed on; `bytes` as they were added.
    pub(crate) fn sub(&self, records: u64, bytes: u64) {
        self.word.fetch_sub(records.wrapping_mul(RECORD).wrapping_add(bytes), Ordering::SeqCst);
    }

    /// Records and bytes.
    pub(crate) fn get(&self) -> (u64, u64) {
        let word = self.word.load(Ordering::SeqCst);
        (word / RECORD, word & BYTES)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.word.load(Ordering::SeqCst) == 0
    }

    /// A threshold has been reached and nobody will wake the log thread for it again.
    pub(crate) fn is_due(&self) -> bool {
        self.is_over(self.word.load(Ordering::SeqCst))
    }

    #[inline]
    fn is_over(&self, word: u64) -> bool {
        word / RECORD >= self.records_max || word & BYTES >= self.bytes_max
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pending(records: usize, bytes: usize) -> Pending {
        Pending::new(FlushConfig { records, bytes, ..FlushConfig::default() })
    }

    #[test]
    fn the_first_record_and_the_one_that_reaches_a_threshold_wake() {
        let pending = pending(3, 1000);
        assert_eq!([10, 10, 10, 10].map(|bytes| pending.add(bytes)), [true, false, true, false]);
        assert!(pending.is_due());
        pending.sub(4, 40);
        assert!(pending.is_empty());
        assert_eq!([500, 499, 1].map(|bytes| pending.add(bytes)), [true, false, true]);
    }

    #[test]
    fn what_comes_meanwhile_stays_counted() {
        let pending = pending(usize::MAX, usize::MAX);
        assert!(pending.add(7));
        assert!(!pending.add(9));
        pending.sub(1, 7);
        assert!(!pending.is_empty() && !pending.is_due());
        pending.sub(1, 9);
        assert!(pending.is_empty());
    }
}

/// A caller's record is always seen: by a wake-up, or because the log thread does not sleep for ever while it is counted.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    #[test]
    fn no_record_is_left_behind_by_a_log_thread_that_sleeps() {
        loom::model(|| {
            let flush = FlushConfig { records: 100, ..FlushConfig::default() };
            let pending = Arc::new(Pending::new(flush));
            let (buffer, kicked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let callers: Vec<_> = (0..2)
                .map(|_| {
                    let (pending, buffer, kicked) =
                        (Arc::clone(&pending), Arc::clone(&buffer), Arc::clone(&kicked));
                    thread::spawn(move || {
                        let wake = pending.add(1);
                        buffer.fetch_add(1, Ordering::Release);
                        if wake {
                            kicked.store(true, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            // One round of the log thread in the middle of it.
            let taken = buffer.swap(0, Ordering::Acquire);
            pending.sub(taken, taken);
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            let left = buffer.load(Ordering::Acquire);
            // Whatever is left is counted, so the sleep has a time-out; and if all had been taken before, somebody has woken it.
            assert_eq!(pending.is_empty(), left == 0);
            assert!(left == 0 || kicked.load(Ordering::SeqCst));
        });
    }
}
