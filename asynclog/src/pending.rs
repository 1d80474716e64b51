//! What is logged and not yet handed to the file-writer, counted in one word, by which callers know when the log thread must be woken.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::FlushConfig;

/// The log thread sleeps until it is woken.
const ASLEEP: u64 = 1 << 63;
/// One record; so many are counted in the 31 bits below it, and bytes in the lower half.
const RECORD: u64 = 1 << 32;
const BYTES: u64 = RECORD - 1;

/// Unflushed records and bytes, and whether the log thread sleeps.
///
/// A caller counts its record *before* it puts it into its buffer, and wakes the log thread *after*. So the log thread, which subtracts what it has
/// taken, never subtracts what is not counted; and while it sees anything counted, it does not sleep without a time-out. It says that it sleeps in the same word,
/// so only who finds it asleep wakes it: a caller among thousands of a busy log pays for that.
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
            records_max: (flush.records as u64).min(BYTES / 4),
            bytes_max: (flush.bytes as u64).min(BYTES / 2),
        }
    }

    /// Counts one record; true when its caller has to wake the log thread once the record is in its buffer: because it sleeps, or because a threshold is
    /// reached by this record.
    #[inline]
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let more = RECORD + (bytes as u64).min(BYTES / 4);
        let old = self.word.fetch_add(more, Ordering::SeqCst);
        let reached = self.is_over(old.wrapping_add(more)) && !self.is_over(old);
        reached || (old & ASLEEP != 0 && self.wake())
    }

    /// The log thread sleeps no more; false when it was awake.
    #[cold]
    pub(crate) fn wake(&self) -> bool {
        self.word.fetch_and(!ASLEEP, Ordering::SeqCst) & ASLEEP != 0
    }

    /// The log thread is about to sleep until it is woken; false, and it must not, while anything is pending.
    pub(crate) fn sleep(&self) -> bool {
        self.word.compare_exchange(0, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Takes off what was handed on; `bytes` as they were added.
    pub(crate) fn sub(&self, records: u64, bytes: u64) {
        self.word.fetch_sub(records.wrapping_mul(RECORD).wrapping_add(bytes), Ordering::SeqCst);
    }

    /// Records and bytes.
    pub(crate) fn get(&self) -> (u64, u64) {
        let word = self.word.load(Ordering::SeqCst) & !ASLEEP;
        (word / RECORD, word & BYTES)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.get() == (0, 0)
    }

    /// A threshold has been reached and nobody will wake the log thread for it again.
    pub(crate) fn is_due(&self) -> bool {
        self.is_over(self.word.load(Ordering::SeqCst))
    }

    #[inline]
    fn is_over(&self, word: u64) -> bool {
        (word & !ASLEEP) / RECORD >= self.records_max || word & BYTES >= self.bytes_max
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
        assert!(pending.sleep());
        assert_eq!([10, 10, 10, 10].map(|bytes| pending.add(bytes)), [true, false, true, false]);
        assert!(pending.is_due());
        pending.sub(4, 40);
        assert!(pending.is_empty() && pending.sleep());
        assert_eq!([500, 499, 1].map(|bytes| pending.add(bytes)), [true, false, true]);
    }

    #[test]
    fn what_comes_meanwhile_stays_counted() {
        let pending = pending(usize::MAX, usize::MAX);
        assert!(!pending.add(7) && !pending.add(9));
        assert!(!pending.sleep());
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

    /// The callers' buffers as one, and whether somebody was woken.
    struct World {
        pending: Pending,
        buffer: AtomicU64,
        kicked: AtomicBool,
    }

    impl World {
        fn new(records: usize) -> Arc<Self> {
            let flush = FlushConfig { records, ..FlushConfig::default() };
            let pending = Pending::new(flush);
            Arc::new(Self { pending, buffer: AtomicU64::new(0), kicked: AtomicBool::new(false) })
        }

        /// What a caller does.
        fn log(&self) {
            let wake = self.pending.add(1);
            self.buffer.fetch_add(1, Ordering::Release);
            if wake {
                self.kicked.store(true, Ordering::SeqCst);
            }
        }

        /// One look of the log thread, which hands over what it finds.
        fn look(&self) -> u64 {
            let taken = self.buffer.swap(0, Ordering::Acquire);
            self.pending.sub(taken, taken);
            taken
        }
    }

    fn callers(world: &Arc<World>, count: usize) -> Vec<thread::JoinHandle<()>> {
        let call = || {
            let world = Arc::clone(world);
            thread::spawn(move || world.log())
        };
        (0..count).map(|_| call()).collect()
    }

    #[test]
    fn no_record_is_left_behind_by_a_log_thread_that_sleeps() {
        loom::model(|| {
            let world = World::new(100);
            let callers = callers(&world, 2);
            world.look();
            // Only when nothing is counted does it sleep without a time-out.
            let sleeps = world.pending.sleep();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            let left = world.buffer.load(Ordering::Acquire);
            assert_eq!(world.pending.is_empty(), left == 0);
            assert!(left == 0 || !sleeps || world.kicked.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn one_of_many_callers_wakes_a_log_thread_that_sleeps() {
        loom::model(|| {
            let world = World::new(100);
            assert!(world.pending.sleep());
            let callers = callers(&world, 2);
            // Woken by something else, a barrier say, while they log.
            let by_us = world.pending.wake();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            assert_ne!(by_us, world.kicked.load(Ordering::SeqCst), "it is woken once");
            assert_eq!(world.look(), 2);
            assert!(world.pending.sleep());
        });
    }

    #[test]
    fn at_the_end_every_record_was_taken_is_left_or_came_too_late() {
        loom::model(|| {
            let world = World::new(100);
            let (gone, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let call = || {
                let (world, gone, late) = (Arc::clone(&world), Arc::clone(&gone), Arc::clone(&late));
                thread::spawn(move || match gone.load(Ordering::Relaxed) {
                    true => drop(late.fetch_add(1, Ordering::SeqCst)),
                    false => world.log(),
                })
            };
            let caller = call();
            // The log thread's last look. What comes after it stays where it is, for the statistics.
            gone.store(true, Ordering::SeqCst);
            let taken = world.look();
            caller.join().unwrap();
            let left = world.buffer.load(Ordering::Acquire);
            assert_eq!(taken + left + late.load(Ordering::SeqCst), 1);
            assert_eq!(world.pending.get(), (left, left), "what is left is what counts as pending");
        });
    }

    #[test]
    fn a_threshold_that_is_reached_between_two_looks_wakes() {
        loom::model(|| {
            let world = World::new(2);
            let callers = callers(&world, 2);
            let taken = world.look();
            callers.into_iter().for_each(|caller| caller.join().unwrap());
            // Awake as it is, it is told of a threshold, or has taken a part before that was reached.
            assert!(taken > 0 || world.kicked.load(Ordering::SeqCst));
            assert_eq!(world.pending.is_due(), taken == 0);
        });
    }
}
