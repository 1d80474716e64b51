//! Counts: what was produced, written and dropped, by level.

use std::sync::atomic::{AtomicU64, Ordering};

use log::Level;

/// One number per level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelCounts {
    /// Of level error.
    pub error: u64,
    /// Of level warn.
    pub warn: u64,
    /// Of level info.
    pub info: u64,
    /// Of level debug.
    pub debug: u64,
    /// Of level trace.
    pub trace: u64,
}

impl LevelCounts {
    /// The sum over all levels.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.error + self.warn + self.info + self.debug + self.trace
    }

    /// The number of one level.
    #[must_use]
    pub fn of(&self, level: Level) -> u64 {
        match level {
            Level::Error => self.error,
            Level::Warn => self.warn,
            Level::Info => self.info,
            Level::Debug => self.debug,
            Level::Trace => self.trace,
        }
    }

    pub(crate) fn add_one(&mut self, level: Level) {
        let count = match level {
            Level::Error => &mut self.error,
            Level::Warn => &mut self.warn,
            Level::Info => &mut self.info,
            Level::Debug => &mut self.debug,
            Level::Trace => &mut self.trace,
        };
        *count += 1;
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    fn each(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            error: op(self.error, other.error),
            warn: op(self.warn, other.warn),
            info: op(self.info, other.info),
            debug: op(self.debug, other.debug),
            trace: op(self.trace, other.trace),
        }
    }
}

/// What a log has done since it was made, from [`Guard::stats`](crate::Guard::stats).
///
/// While records are on their way `produced` is larger than `written + dropped`; after a barrier with nobody logging, and after the guard
/// is dropped, it is equal. The lines that the log writes about itself are in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Records that passed the filter.
    pub produced: u64,
    /// Records given to the operating system, whole.
    pub written: u64,
    /// Records that are not in the log and never will be, whether for a full queue, failed writing, or because the log had ended.
    pub dropped_by_level: LevelCounts,
    /// Those of the dropped ones for which their thread's buffer had no room.
    pub refused_by_level: LevelCounts,
    /// Those that could not be written, or were still on their way at the end.
    pub lost_by_level: LevelCounts,
    /// Those that came after the end.
    pub late_by_level: LevelCounts,
    /// Records that the rate limit kept out; they count as not produced.
    pub suppressed: u64,
    /// Records in the threads' buffers and gathered, not yet handed to the file-writer.
    pub pending_records: u64,
    /// Their bytes, as they lie there.
    pub pending_bytes: u64,
    /// Threads that have a buffer.
    pub threads: u64,
    /// Bytes given to the operating system.
    pub bytes_written: u64,
    /// How often gathered records were written out.
    pub flushes: u64,
    /// How often the file was synced to the disk.
    pub syncs: u64,
    /// How often opening, writing or rolling failed.
    pub write_errors: u64,
    /// How often the file was opened again: removed underneath, asked for, or after a failure.
    pub reopens: u64,
    /// How often the file was rolled.
    pub rolls: u64,
}

impl LogStats {
    /// All records dropped, whatever their level.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_by_level.total()
    }
}

/// What one thread has done, from [`Guard::threads`](crate::Guard::threads).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadStats {
    /// Its name.
    pub thread: String,
    /// Its number in this log, the `3` of `#3.1042`.
    pub number: u32,
    /// Its records that passed the filter.
    pub produced: u64,
    /// Those for which its buffer had no room.
    pub refused_by_level: LevelCounts,
}

/// Counters by level that many threads add to.
#[derive(Debug, Default)]
pub(crate) struct LevelCounters {
    error: AtomicU64,
    warn: AtomicU64,
    info: AtomicU64,
    debug: AtomicU64,
    trace: AtomicU64,
}

impl LevelCounters {
    pub(crate) fn add(&self, level: Level) {
        let counter = match level {
            Level::Error => &self.error,
            Level::Warn => &self.warn,
            Level::Info => &self.info,
            Level::Debug => &self.debug,
            Level::Trace => &self.trace,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn add_all(&self, counts: &LevelCounts) {
        self.error.fetch_add(counts.error, Ordering::SeqCst);
        self.warn.fetch_add(counts.warn, Ordering::SeqCst);
        self.info.fetch_add(counts.info, Ordering::SeqCst);
        self.debug.fetch_add(counts.debug, Ordering::SeqCst);
        self.trace.fetch_add(counts.trace, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> LevelCounts {
        LevelCounts {
            error: self.error.load(Ordering::SeqCst),
            warn: self.warn.load(Ordering::SeqCst),
            info: self.info.load(Ordering::SeqCst),
            debug: self.debug.load(Ordering::SeqCst),
            trace: self.trace.load(Ordering::SeqCst),
        }
    }
}

/// All counters of one log.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Records that had no room in their thread's buffer.
    pub(crate) refused: LevelCounters,
    /// Records that could not be written, or were never taken out of a buffer.
    pub(crate) lost: LevelCounters,
    /// Records that came when the log had ended. They have no number.
    pub(crate) late: LevelCounters,
    /// Records that the rate limit kept out.
    pub(crate) suppressed: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) reopens: AtomicU64,
    pub(crate) rolls: AtomicU64,
}

impl Counters {
    /// With so many records numbered.
    pub(crate) fn stats(&self, numbered: u64) -> LogStats {
        let written = self.written.load(Ordering::SeqCst);
        let late = self.late.get();
        let (refused, lost) = (self.refused.get(), self.lost.get());
        let dropped = refused.plus(&lost).plus(&late);
        // A record counts as numbered a moment after it is in its buffer, when it may be written already.
        let produced = (numbered + late.total()).max(written + dropped.total());
        LogStats {
            produced,
            suppressed: self.suppressed.load(Ordering::SeqCst),
            written,
            dropped_by_level: dropped,
            refused_by_level: refused,
            lost_by_level: lost,
            late_by_level: late,
            bytes_written: self.bytes_written.load(Ordering::SeqCst),
            syncs: self.syncs.load(Ordering::SeqCst),
            flushes: self.flushes.load(Ordering::SeqCst),
            write_errors: self.write_errors.load(Ordering::SeqCst),
            reopens: self.reopens.load(Ordering::SeqCst),
            rolls: self.rolls.load(Ordering::SeqCst),
            ..LogStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_apart_and_summed() {
        let counters = Counters::default();
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace, Level::Info] {
            counters.refused.add(level);
        }
        let mut lost = LevelCounts::default();
        lost.add_one(Level::Trace);
        counters.lost.add_all(&lost);
        let stats = counters.stats(0);
        assert_eq!(stats.dropped_by_level.of(Level::Info), 2);
        assert_eq!(stats.dropped_by_level.of(Level::Trace), 2);
        assert_eq!(stats.dropped(), 7);
        assert_eq!(stats.produced, 7);
    }

    #[test]
    fn a_written_record_counts_as_produced_before_its_caller_says_so() {
        let counters = Counters::default();
        counters.written.fetch_add(3, Ordering::SeqCst);
        assert_eq!(counters.stats(2).produced, 3);
    }
}
