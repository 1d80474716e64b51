//! The log thread: takes records out of the queue, gathers them into blocks, and decides when a block is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, select};

use crate::block::{self, Block};
use crate::config::FlushConfig;
use crate::entry::{Barrier, Entry};
use crate::shared::Shared;
use crate::stamp::Stamps;
use crate::writer::Job;

/// The log thread's state. It sleeps without a time-out when nothing is unwritten.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flush: FlushConfig,
    pub(crate) entries: Receiver<Entry>,
    pub(crate) kicks: Receiver<()>,
    pub(crate) barriers: Receiver<Barrier>,
    /// Blocks to the file-writer, and emptied ones back.
    pub(crate) jobs: Sender<Job>,
    pub(crate) spare: Receiver<Block>,
    pub(crate) progress: Progress,
}

/// What has been gathered, and how far the queue has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    block: Block,
    stamps: Stamps,
    /// When the block must go, at the latest.
    due: Option<Instant>,
    taken: u64,
    /// Records and bytes that were handed to the file-writer.
    flushed: u64,
    flushed_bytes: u64,
}

enum Wake {
    Record(Entry),
    Barrier(Barrier),
    Look,
}

impl Collector {
    /// Runs until the guard is dropped.
    pub(crate) fn run(mut self) {
        self.publish_thresholds();
        loop {
            let mut barrier = None;
            match self.wait() {
                Wake::Record(entry) => self.take(entry),
                Wake::Barrier(asked) => barrier = Some(asked),
                Wake::Look => {}
            }
            if self.shared.closing.load(Ordering::SeqCst) {
                return self.finish(barrier);
            }
            // Before the queue is drained: a wish is for what was logged before it.
            let wished = self.take_wishes();
            self.drain();
            if barrier.is_some() || wished || self.is_due() {
                self.hand_over();
            }
            if let Some(barrier) = barrier {
                // Without a file-writer the sender is dropped here, which is an answer too.
                let _ = self.jobs.send(Job::Barrier(barrier));
            }
            self.publish_thresholds();
        }
    }

    /// Sleeps until there is something to do. While a block is gathering, single records do not wake it.
    fn wait(&self) -> Wake {
        match self.progress.due {
            None => select! {
                recv(self.entries) -> entry => entry.map_or(Wake::Look, Wake::Record),
                recv(self.barriers) -> barrier => barrier.map_or(Wake::Look, Wake::Barrier),
                recv(self.kicks) -> _ => Wake::Look,
            },
            Some(due) => select! {
                recv(self.barriers) -> barrier => barrier.map_or(Wake::Look, Wake::Barrier),
                recv(self.kicks) -> _ => Wake::Look,
                default(due.saturating_duration_since(Instant::now())) => Wake::Look,
            },
        }
    }

    /// Takes what is in the queue now; what comes meanwhile waits for the next round.
    fn drain(&mut self) {
        for _ in 0..self.entries.len() {
            let Ok(entry) = self.entries.try_recv() else { break };
            self.take(entry);
        }
    }

    fn take(&mut self, entry: Entry) {
        let now = &mut self.progress;
        if now.due.is_none() {
            now.due = Some(block::due_at(entry.micros, self.flush.interval));
        }
        now.block.push(&mut now.stamps, &entry);
        now.taken += 1;
        let full = now.block.records() >= self.flush.records || now.block.bytes().len() >= self.flush.bytes;
        self.shared.recycle(entry.body);
        if full {
            self.hand_over();
        }
    }

    /// Whether anyone wants the file-writer to be called now. Drops are said after the usual interval.
    fn take_wishes(&mut self) -> bool {
        if self.shared.drops_unsaid.swap(false, Ordering::SeqCst) && self.progress.due.is_none() {
            self.progress.due = Some(Instant::now() + self.flush.interval);
        }
        let flush = self.shared.flush_wanted.swap(false, Ordering::SeqCst);
        let reopen = self.shared.reopen_wanted.load(Ordering::SeqCst);
        flush || reopen
    }

    fn is_due(&self) -> bool {
        self.progress.block.is_urgent() || self.progress.due.is_some_and(|due| due <= Instant::now())
    }

    /// Gives the block to the file-writer, even an empty one: it may have something to say. Waits while the file-writer is behind.
    fn hand_over(&mut self) {
        let now = &mut self.progress;
        now.due = None;
        now.flushed = now.taken;
        let block = std::mem::replace(&mut now.block, self.spare.try_recv().unwrap_or_default());
        now.flushed_bytes += block.bytes().len() as u64;
        if let Err(unsent) = self.jobs.send(Job::Write(block))
            && let Job::Write(block) = unsent.into_inner()
        {
            // The file-writer has panicked.
            self.shared.counters.lost.add_all(&block.records_behind(0));
        }
    }

    /// Tells the callers at which count to wake us: for a flush, or when half of the queue is used.
    fn publish_thresholds(&self) {
        let now = &self.progress;
        let room = self.entries.capacity().unwrap_or(usize::MAX);
        let half_full = now.taken + (room / 2).max(1) as u64;
        let records = half_full.min(now.flushed.saturating_add(self.flush.records as u64));
        self.shared.kick_at_records.store(records, Ordering::SeqCst);
        let bytes = now.flushed_bytes.saturating_add(self.flush.bytes as u64);
        self.shared.kick_at_bytes.store(bytes, Ordering::SeqCst);
    }

    /// The last look: after `gone` a caller that still gets a record into the queue takes it out again itself.
    fn finish(mut self, barrier: Option<Barrier>) {
        self.shared.gone.store(true, Ordering::SeqCst);
        while let Ok(entry) = self.entries.try_recv() {
            self.take(entry);
        }
        self.hand_over();
        for barrier in barrier.into_iter().chain(self.barriers.try_iter()) {
            let _ = self.jobs.send(Job::Barrier(barrier));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        self.shared.lose_queue();
    }
}
