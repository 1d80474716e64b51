//! What callers, the log thread, the file-writer and the guard share; and a record's way into the queue.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use log::{Level, Record};

use crate::config::Overflow;
use crate::entry::{Barrier, Entry};
use crate::filter::LiveFilter;
use crate::stats::Counters;
use crate::{LogError, caller, line, stamp};

/// One log, as everyone who holds a handle to it sees it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) filter: LiveFilter,
    pub(crate) counters: Counters,
    pub(crate) overflow: Overflow,
    /// The longest line.
    pub(crate) record_bytes_max: usize,

    /// The queue. Callers keep its other end too, for records that come when nobody takes them any more.
    pub(crate) entries: Sender<Entry>,
    pub(crate) late: Receiver<Entry>,
    /// Emptied buffers on their way back to the callers.
    pub(crate) spare: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    /// Wakes the log thread; one wake-up in hand is enough.
    pub(crate) kicks: Sender<()>,
    pub(crate) barriers: Sender<Barrier>,

    /// A caller that brings the count or the bytes of all queued records to this, wakes the log thread. They only grow.
    pub(crate) kick_at_records: AtomicU64,
    pub(crate) kick_at_bytes: AtomicU64,

    /// Wishes: set by anyone, taken back by the thread that fulfils them.
    pub(crate) flush_wanted: AtomicBool,
    pub(crate) reopen_wanted: AtomicBool,
    pub(crate) drops_unsaid: AtomicBool,
    /// The guard is being dropped.
    pub(crate) closing: AtomicBool,
    /// The log thread takes no more. Set before it looks into the queue for the last time.
    pub(crate) gone: AtomicBool,
}

impl Shared {
    /// Formats and queues a record that has passed the filter. Waits only when `Overflow::Block` lets it.
    pub(crate) fn submit(&self, record: &Record<'_>) {
        let level = record.level();
        let may_wait = match self.overflow {
            Overflow::Block { at_most } if !caller::never_waits() => Some(at_most),
            _ => None,
        };
        if self.gone.load(Ordering::SeqCst) {
            return self.come_too_late(level);
        }
        // A full queue costs a caller that will not wait no formatting.
        if may_wait.is_none() && self.entries.is_full() {
            return self.refuse(level);
        }
        let micros = stamp::now_micros();
        let mut body = self.spare.1.try_recv().unwrap_or_default();
        line::push_body(&mut body, record, self.record_bytes_max);
        let bytes = (line::PREFIX_BYTES + body.len()) as u64;
        if self.enqueue(Entry { micros, level, body }, may_wait) {
            self.queued(level, bytes);
        }
    }

    fn enqueue(&self, entry: Entry, may_wait: Option<Duration>) -> bool {
        let refused = match (self.entries.try_send(entry), may_wait) {
            (Ok(()), _) => return true,
            (Err(TrySendError::Full(entry)), Some(at_most)) => {
                self.kick();
                match self.entries.send_timeout(entry, at_most) {
                    Ok(()) => return true,
                    Err(error) => error.into_inner(),
                }
            }
            (Err(error), _) => error.into_inner(),
        };
        self.refuse(refused.level);
        self.recycle(refused.body);
        false
    }

    fn queued(&self, level: Level, bytes: u64) {
        let records = self.counters.queued.fetch_add(1, Ordering::SeqCst) + 1;
        let bytes = self.counters.queued_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if level == Level::Error
            || records >= self.kick_at_records.load(Ordering::SeqCst)
            || bytes >= self.kick_at_bytes.load(Ordering::SeqCst)
        {
            self.kick();
        }
        // Either the log thread's last look sees our record, or we see that it is gone.
        if self.gone.load(Ordering::SeqCst) {
            self.lose_queue();
        }
    }

    fn come_too_late(&self, level: Level) {
        self.counters.queued.fetch_add(1, Ordering::SeqCst);
        self.counters.late.add(level);
    }

    fn refuse(&self, level: Level) {
        let now = stamp::now_micros();
        self.counters.refused.add(level);
        let _ = self.counters.refused_first.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
        self.counters.refused_last.store(now, Ordering::SeqCst);
        if !self.drops_unsaid.load(Ordering::SeqCst) {
            self.drops_unsaid.store(true, Ordering::SeqCst);
            self.kick();
        }
    }

    /// Counts what is in the queue as dropped, for nobody will take it.
    pub(crate) fn lose_queue(&self) {
        while let Ok(entry) = self.late.try_recv() {
            self.counters.late.add(entry.level);
        }
    }

    pub(crate) fn recycle(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= crate::config::BUFFER_BYTES_KEPT {
            buffer.clear();
            let _ = self.spare.0.try_send(buffer);
        }
    }

    /// Wakes the log thread, without waiting: when a wake-up is in hand already, that one will do.
    pub(crate) fn kick(&self) {
        let _ = self.kicks.try_send(());
    }

    /// Wishes for a flush and does not wait for it.
    pub(crate) fn request_flush(&self) {
        self.flush_wanted.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Waits until everything logged before is written.
    pub(crate) fn barrier(&self, timeout: Duration) -> Result<(), LogError> {
        let until = Instant::now().checked_add(timeout);
        let (done, answer) = bounded::<io::Result<()>>(1);
        let left = || until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        if self.gone.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        if self.barriers.send_timeout(Barrier { done }, left()).is_err() {
            return Err(self.closed_or(timeout));
        }
        match answer.recv_timeout(left()) {
            Ok(result) => result.map_err(LogError::Write),
            Err(RecvTimeoutError::Timeout) => Err(self.closed_or(timeout)),
            Err(RecvTimeoutError::Disconnected) => Err(LogError::Closed),
        }
    }

    fn closed_or(&self, timeout: Duration) -> LogError {
        if self.gone.load(Ordering::SeqCst) { LogError::Closed } else { LogError::Timeout(timeout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builder;

    #[test]
    fn a_drop_is_told_even_when_no_record_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (log, _guard) = Builder::new().file(&path).build().unwrap();
        log.shared.refuse(Level::Warn);
        let until = Instant::now() + Duration::from_secs(30);
        while !std::fs::read_to_string(&path).unwrap().contains("| 1 records dropped (error 0, warn 1, ") {
            assert!(Instant::now() < until, "the drop was not told");
            std::thread::yield_now();
        }
        assert_eq!(log.stats().produced, 1);
    }
}
