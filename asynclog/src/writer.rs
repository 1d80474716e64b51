//! The file-writer thread: writes blocks, holds them while writing fails, and says in the log what is missing from it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::Level;

use crate::barrier::Barrier;
use crate::block::Block;
use crate::config::{HELD_BYTES_MAX, HELD_RESERVE_BYTES, RETRY_MAX, RETRY_MIN, SyncPolicy};
use crate::log_file::Continuity;
use crate::lost::{Lost, RANGES_PER_LINE, told_line};
use crate::printer::Printer;
use crate::seal::ENDED;
use crate::shared::Shared;
use crate::sink::Sink;
use crate::stamp::now_micros;

/// Outages that follow each other closely are told of on standard error once in this time.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What the log thread asks of the file-writer.
#[derive(Debug)]
pub(crate) enum Job {
    Write(Block),
    Barrier(Barrier),
}

/// The file-writer thread's state. It sleeps without a time-out but during an outage.
#[derive(Debug)]
pub(crate) struct FileWriter {
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    /// Emptied blocks back to the log thread.
    spare: Sender<Block>,
    sink: Sink,
    sync: SyncPolicy,
    /// When it wants the file synced.
    sync_at: Option<Instant>,
    /// Not yet written, oldest first; of the first one, `done` bytes are written.
    held: VecDeque<Block>,
    held_bytes: usize,
    done: usize,
    outage: Option<Outage>,
    /// When the operator was told of an outage the last time.
    told: Option<Instant>,
    printer: Printer,
    /// Lost because writing failed, and not told yet.
    lost: Lost,
    /// Dropped with the thread's state, which tells the guard that it ended.
    _ended: Sender<()>,
}

/// A time in which writing fails.
#[derive(Debug)]
struct Outage {
    since: i64,
    error: String,
    retry_at: Instant,
    pause: Duration,
}

impl FileWriter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
        spare: Sender<Block>,
        sink: Sink,
        sync: SyncPolicy,
        printer: Printer,
        ended: Sender<()>,
    ) -> Self {
        Self {
            shared,
            jobs,
            spare,
            sink,
            sync,
            sync_at: None,
            held: VecDeque::new(),
            held_bytes: 0,
            done: 0,
            outage: None,
            told: None,
            printer,
            lost: Lost::default(),
            _ended: ended,
        }
    }

    /// Runs until the log thread ends and all its blocks are dealt with.
    pub(crate) fn run(mut self) {
        loop {
            match self.next_job() {
                Ok(Job::Write(block)) => {
                    self.hold(block);
                    if self.outage.as_ref().is_none_or(|outage| outage.retry_at <= Instant::now()) {
                        let _ = self.attempt();
                    }
                }
                Ok(Job::Barrier(barrier)) => {
                    let result = self.attempt().and_then(|()| self.confirm());
                    // Nobody waits any more when the barrier's time was over.
                    let _ = barrier.done.send(result);
                }
                Err(RecvTimeoutError::Timeout) => drop(self.attempt().and_then(|()| self.sync_if_due())),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.attempt();
                    return self.end();
                }
            }
        }
    }

    fn next_job(&self) -> Result<Job, RecvTimeoutError> {
        let at = self.outage.as_ref().map(|outage| outage.retry_at).into_iter().chain(self.sync_at).min();
        match at {
            Some(at) => self.jobs.recv_deadline(at),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Keeps a block until it is written. When too much is kept already, only its warnings and errors, for which there is a reserve; when that is used
    /// too, it is lost.
    fn hold(&mut self, mut block: Block) {
        if self.has_no_room(&block, HELD_BYTES_MAX) {
            let lost = block.keep_warnings();
            self.lose(lost);
            if self.has_no_room(&block, HELD_BYTES_MAX + HELD_RESERVE_BYTES) {
                self.lose(block.lost_behind(0));
                return self.give_back(block);
            }
        }
        if block.is_empty() {
            return self.give_back(block);
        }
        self.held_bytes += block.bytes().len();
        self.held.push_back(block);
    }

    fn has_no_room(&self, block: &Block, bytes_max: usize) -> bool {
        self.held_bytes > 0 && self.held_bytes + block.bytes().len() > bytes_max
    }

    fn lose(&mut self, lost: Lost) {
        self.shared.counters.lost.add_all(&lost.by_level);
        self.lost.append(lost);
    }

    fn give_back(&self, mut block: Block) {
        block.clear();
        let _ = self.spare.try_send(block);
    }

    /// Writes all that is held and all that is to be said; begins or ends an outage.
    fn attempt(&mut self) -> io::Result<()> {
        let reopen = self.shared.reopen_wanted.swap(false, Ordering::SeqCst);
        if reopen {
            self.sink.reopen();
        }
        let idle = self.held.is_empty() && self.outage.is_none();
        let result = match idle {
            true if reopen => self.sink.prepare().map(drop),
            true => return Ok(()),
            false => self.write_out(),
        };
        let (rolls, reopens) = self.sink.counts();
        self.shared.counters.rolls.store(rolls, Ordering::SeqCst);
        self.shared.counters.reopens.store(reopens, Ordering::SeqCst);
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }

    fn write_out(&mut self) -> io::Result<()> {
        if self.sink.prepare()? == Continuity::New {
            self.done = self.held.front().map_or(0, |block| block.line_start(self.done));
        }
        self.write_held()?;
        if let Some(notice) = self.notice() {
            self.hold(notice);
            self.write_held()?;
        }
        self.sink.flush()?;
        self.shared.counters.flushes.fetch_add(1, Ordering::SeqCst);
        self.sync_if_due()
    }

    /// Before a barrier is confirmed.
    fn confirm(&mut self) -> io::Result<()> {
        if self.sync == SyncPolicy::Never { Ok(()) } else { self.sync_now() }
    }

    fn sync_if_due(&mut self) -> io::Result<()> {
        if self.sync_at.is_some_and(|at| at <= Instant::now()) { self.sync_now() } else { Ok(()) }
    }

    fn sync_now(&mut self) -> io::Result<()> {
        self.sync_at = None;
        let result = self.sink.sync();
        match &result {
            Ok(()) => drop(self.shared.counters.syncs.fetch_add(1, Ordering::SeqCst)),
            Err(error) => self.failed(error),
        }
        result
    }

    /// What the policy wants behind this block.
    fn plan_sync(&mut self, worst: Option<Level>) {
        let now = Instant::now();
        match self.sync {
            SyncPolicy::Level(level) if worst.is_some_and(|worst| worst <= level) => self.sync_at = Some(now),
            SyncPolicy::Interval(interval) if self.sync_at.is_none() => {
                self.sync_at = now.checked_add(interval);
            }
            _ => {}
        }
    }

    fn write_held(&mut self) -> io::Result<()> {
        while let Some(block) = self.held.front() {
            while let Some(rest) = block.bytes().get(self.done..).filter(|rest| !rest.is_empty()) {
                let written = self.sink.write(rest)?;
                self.done += written;
                self.shared.counters.bytes_written.fetch_add(written as u64, Ordering::SeqCst);
            }
            self.shared.counters.written.fetch_add(block.records() as u64, Ordering::SeqCst);
            self.done = 0;
            if let Some(block) = self.held.pop_front() {
                self.plan_sync(block.worst());
                self.held_bytes -= block.bytes().len();
                self.give_back(block);
            }
        }
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) {
        self.shared.counters.write_errors.fetch_add(1, Ordering::SeqCst);
        self.sink.close_failed();
        let now = Instant::now();
        match &mut self.outage {
            Some(outage) => {
                outage.pause = (outage.pause * 2).min(RETRY_MAX);
                outage.retry_at = now + outage.pause;
            }
            None => {
                let error = error.to_string();
                if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
                    self.told = Some(now);
                    self.tell_operator(&format!("cannot write to {}: {error}", self.sink.name()));
                }
                let since = now_micros();
                self.outage = Some(Outage { since, error, retry_at: now + RETRY_MIN, pause: RETRY_MIN });
            }
        }
    }

    /// The lines about what is missing. Once they are held, they are as good as said.
    fn notice(&mut self) -> Option<Block> {
        let mut notice = Block::default();
        if let Some(outage) = self.outage.take() {
            let from = self.printer.time(outage.since);
            let to = self.printer.time(now_micros());
            let why = format!("because writing failed from {from} to {to}: {}", outage.error);
            for line in std::mem::take(&mut self.lost).told(&why) {
                notice.push_notice(&mut self.printer, &line);
            }
        }
        if let Some(trouble) = self.sink.take_trouble() {
            self.shared.counters.write_errors.fetch_add(1, Ordering::SeqCst);
            notice.push_notice(&mut self.printer, &trouble);
        }
        (!notice.is_empty()).then_some(notice)
    }

    /// The last words of a log: what nobody took out of the lanes, and the sums.
    fn end(&mut self) {
        if let (None, Some(run)) = (&self.outage, self.sink.run()) {
            let run = run.to_owned();
            let (refused, lost, produced) = self.shared.settle();
            let mut last = Block::default();
            for (label, lane, refused) in refused {
                let ranges: Vec<_> = refused.gaps.iter().map(|(first, last)| (lane, *first, *last)).collect();
                for part in ranges.chunks(RANGES_PER_LINE) {
                    let why = format!("because the buffer of thread {label} was full");
                    last.push_notice(&mut self.printer, &told_line(&refused.by_level, &why, part));
                }
            }
            if lost.by_level.total() > 0 {
                for line in lost.told("because the log ended") {
                    last.push_notice(&mut self.printer, &line);
                }
            }
            let written = self.shared.counters.written.load(Ordering::SeqCst);
            let dropped = produced.saturating_sub(written);
            let sums = format!("{ENDED}{run} produced {produced} written {written} dropped {dropped}");
            last.push_remark(&mut self.printer, &sums);
            self.hold(last);
            let _ = self.attempt();
        }
        if self.outage.is_none() {
            self.sink.finish();
            let _ = self.confirm();
        }
    }

    /// For what cannot be said in the log because the log is what fails.
    fn tell_operator(&self, text: &str) {
        if !self.sink.is_stderr() {
            let _ = writeln!(io::stderr().lock(), "asynclog: {text}");
        }
    }
}

/// Counts what is left as lost at the end of the log.
impl Drop for FileWriter {
    fn drop(&mut self) {
        let mut lost = Lost::default();
        for block in self.held.drain(..) {
            let unwritten = block.lost_behind(self.done);
            let whole = block.records() as u64 - unwritten.by_level.total();
            self.shared.counters.written.fetch_add(whole, Ordering::SeqCst);
            self.done = 0;
            lost.append(unwritten);
        }
        for job in self.jobs.try_iter() {
            if let Job::Write(block) = job {
                lost.append(block.lost_behind(0));
            }
        }
        self.lose(lost);
        if self.lost.by_level.total() > 0 {
            // Ranges are of no use where the lines are not.
            let all = self.lost.by_level.total();
            self.tell_operator(&format!(
                "at the end of the log to {}: {all} records dropped",
                self.sink.name()
            ));
        }
    }
}
