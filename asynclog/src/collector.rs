//! The log thread: takes records out of all lanes, merges them by time into blocks, and decides when a block is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, select};

use crate::barrier::Barrier;
use crate::block::{self, Block};
use crate::config::FlushConfig;
use crate::frame::{Frame, Peek};
use crate::lane::LaneReader;
use crate::lost::{RANGES_PER_LINE, told_line};
use crate::pace::{Amount, Pace};
use crate::printer::{From, Printer};
use crate::shared::Shared;
use crate::writer::Job;

/// The log thread's state. It sleeps without a time-out when nothing is unwritten.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flush: FlushConfig,
    /// Lines bear their records' numbers.
    pub(crate) numbered: bool,
    pub(crate) kicks: Receiver<()>,
    pub(crate) barriers: Receiver<Barrier>,
    /// Blocks to the file-writer, and emptied ones back.
    pub(crate) jobs: Sender<Job>,
    pub(crate) spare: Receiver<Block>,
    pub(crate) lanes: Vec<LaneReader>,
    pub(crate) pace: Pace,
    pub(crate) progress: Progress,
}

/// What has been gathered.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    block: Block,
    printer: Printer,
    /// When the block must go, at the latest.
    due: Option<Instant>,
    /// Taken and still counted as pending.
    records: u64,
    bytes: u64,
    /// Records were refused that are not told yet.
    unsaid: bool,
    round: Round,
}

/// What one look into the lanes has found. Kept for its memory.
#[derive(Debug, Default)]
struct Round {
    arena: Vec<u8>,
    /// One lane's part after the other.
    found: Vec<Found>,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    /// The time by which it is ordered; within a lane it never decreases.
    at: i64,
    /// The lane's place among all.
    lane_at: usize,
    start: usize,
}

impl Progress {
    pub(crate) fn new(printer: Printer) -> Self {
        Self { printer, ..Self::default() }
    }

    fn gathered(&self) -> Amount {
        (self.records, self.bytes)
    }
}

enum Wake {
    Barrier(Barrier),
    /// Somebody has woken us.
    Look,
    /// The time has come.
    Clock,
}

impl Collector {
    /// Runs until the guard is dropped.
    pub(crate) fn run(mut self) {
        loop {
            let (barrier, by_clock) = match self.wait() {
                Wake::Barrier(asked) => (Some(asked), false),
                Wake::Look => (None, false),
                Wake::Clock => (None, true),
            };
            if self.shared.closing.load(Ordering::SeqCst) {
                return self.finish(barrier);
            }
            // Before the lanes are looked into: a wish is for what was logged before it.
            let wished = self.take_wishes();
            let came = self.drain();
            self.pace.looked(Instant::now(), came, by_clock);
            if barrier.is_some() || wished || self.is_due() {
                self.hand_over();
            }
            if let Some(barrier) = barrier {
                // Without a file-writer the sender is dropped here, which is an answer too.
                let _ = self.jobs.send(Job::Barrier(barrier));
            }
        }
    }

    /// Sleeps until there is something to do. While a block is gathering, single records do not wake it.
    fn wait(&mut self) -> Wake {
        if self.shared.pending.is_due() {
            // More came while a block was handed over, and nobody wakes us for it. It may be counted and not there yet: then its caller is
            // between two instructions.
            thread::yield_now();
            return self.barriers.try_recv().map_or(Wake::Look, Wake::Barrier);
        }
        if self.progress.due.is_none() && !self.shared.pending.is_empty() {
            self.progress.due = Instant::now().checked_add(self.flush.interval);
        }
        let due = self.progress.due;
        let next = self.pace.next(self.progress.gathered());
        let at = next.filter(|_| due.is_some() || self.pace.is_flowing()).into_iter().chain(due).min();
        let Some(at) = at else { return self.sleep() };
        select! {
            recv(self.barriers) -> barrier => barrier.map_or(Wake::Look, Wake::Barrier),
            recv(self.kicks) -> _ => Wake::Look,
            default(at.saturating_duration_since(Instant::now())) => Wake::Clock,
        }
    }

    /// Sleeps until somebody wakes us.
    fn sleep(&self) -> Wake {
        if !self.shared.pending.sleep() {
            // A record came in between.
            return Wake::Look;
        }
        let wake = select! {
            recv(self.barriers) -> barrier => barrier.map_or(Wake::Look, Wake::Barrier),
            recv(self.kicks) -> _ => Wake::Look,
        };
        self.shared.pending.wake();
        wake
    }

    /// Takes what is in the lanes now, and says how much it is; what comes meanwhile waits for the next round.
    fn drain(&mut self) -> Amount {
        if self.shared.arrived.swap(false, Ordering::SeqCst) {
            self.lanes.append(&mut self.shared.lanes().readers);
        }
        let mut round = std::mem::take(&mut self.progress.round);
        self.look(&mut round);
        let came = (round.found.len() as u64, round.arena.len() as u64);
        for found in &round.found {
            let frame = round.arena.get(found.start..).and_then(Frame::split);
            if let Some((frame, _)) = frame {
                self.take(&frame, found.lane_at);
            }
        }
        round.arena.clear();
        round.found.clear();
        self.progress.round = round;
        self.remove_ended();
        came
    }

    /// Empties all lanes into the round, and orders what was found by time.
    fn look(&mut self, round: &mut Round) {
        let mut lanes_found = 0;
        for (lane_at, lane) in self.lanes.iter_mut().enumerate() {
            let mut start = round.arena.len();
            lane.take_into(&mut round.arena);
            lanes_found += usize::from(round.arena.len() > start);
            while let Some(frame) = round.arena.get(start..).and_then(Peek::of) {
                round.found.push(Found { at: lane.note(frame), lane_at, start });
                start += frame.bytes;
            }
            self.progress.unsaid |= lane.has_gaps();
        }
        if lanes_found > 1 {
            // Stable: what one thread logged within a microsecond keeps its order. It finds the lanes' runs by itself.
            round.found.sort_by_key(|found| found.at);
        }
    }

    fn take(&mut self, frame: &Frame<'_>, lane_at: usize) {
        let Some(lane) = self.lanes.get(lane_at) else { return };
        let state = &lane.state;
        let from = From {
            label: &state.label,
            lane: self.numbered.then_some(state.number),
            record_bytes_max: self.shared.record_bytes_max,
        };
        let now = &mut self.progress;
        if now.due.is_none() {
            now.due = Some(block::due_at(frame.micros, self.flush.interval));
        }
        now.block.push(&mut now.printer, frame, state.number, from);
        now.records += 1;
        now.bytes += frame.bytes as u64;
        if now.records >= self.flush.records as u64 || now.bytes >= self.flush.bytes as u64 {
            self.hand_over();
        }
    }

    /// Forgets the lanes whose threads have ended.
    fn remove_ended(&mut self) {
        if !self.lanes.iter().any(LaneReader::is_over) {
            return;
        }
        self.tell_refused();
        let shared = Arc::clone(&self.shared);
        let mut all = shared.lanes();
        self.lanes.retain(|lane| {
            let over = lane.is_over() && !lane.has_gaps();
            if over {
                all.retired += lane.state.numbered();
                all.states.retain(|state| state.number != lane.state.number);
            }
            !over
        });
    }

    /// Whether anyone wants the file-writer to be called now. Drops are said after the usual interval.
    fn take_wishes(&mut self) -> bool {
        if self.shared.drops_unsaid.swap(false, Ordering::SeqCst) {
            self.progress.unsaid = true;
            if self.progress.due.is_none() {
                self.progress.due = Instant::now().checked_add(self.flush.interval);
            }
        }
        let flush = self.shared.flush_wanted.swap(false, Ordering::SeqCst);
        let reopen = self.shared.reopen_wanted.load(Ordering::SeqCst);
        flush || reopen
    }

    fn is_due(&self) -> bool {
        self.progress.block.is_urgent()
            || self.progress.due.is_some_and(|due| due <= Instant::now())
            || self.pace.is_early(self.progress.gathered())
    }

    /// Adds the lines about records that had no room.
    fn tell_refused(&mut self) {
        let now = &mut self.progress;
        for lane in &mut self.lanes {
            while let Some(refused) = lane.take_refused(RANGES_PER_LINE) {
                let number = lane.state.number;
                let ranges: Vec<_> =
                    refused.gaps.iter().map(|(first, last)| (number, *first, *last)).collect();
                let (from, to) = (now.printer.time(refused.from), now.printer.time(refused.to));
                let label = &lane.state.label;
                let why = format!("because the buffer of thread {label} was full, from {from} to {to}");
                now.block.push_notice(&mut now.printer, &told_line(&refused.by_level, &why, &ranges));
            }
        }
    }

    /// Gives the block to the file-writer, even an empty one: it may have something to say. Waits while the file-writer is behind.
    fn hand_over(&mut self) {
        if std::mem::take(&mut self.progress.unsaid) {
            self.tell_refused();
        }
        let now = &mut self.progress;
        now.due = None;
        self.shared.pending.sub(now.records, now.bytes);
        (now.records, now.bytes) = (0, 0);
        let block = std::mem::replace(&mut now.block, self.spare.try_recv().unwrap_or_default());
        if let Err(unsent) = self.jobs.send(Job::Write(block))
            && let Job::Write(block) = unsent.into_inner()
        {
            // The file-writer has panicked.
            self.shared.counters.lost.add_all(&block.lost_behind(0).by_level);
        }
    }

    /// The last look: what comes into a lane after `gone` is counted as lost by `stats`.
    fn finish(mut self, barrier: Option<Barrier>) {
        self.shared.gone.store(true, Ordering::SeqCst);
        self.drain();
        self.progress.unsaid = true;
        self.hand_over();
        for barrier in barrier.into_iter().chain(self.barriers.try_iter()) {
            let _ = self.jobs.send(Job::Barrier(barrier));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        // So that a caller's `produced` has its counterpart, see `Shared::stats`.
        self.shared.lanes().readers.append(&mut self.lanes);
    }
}
