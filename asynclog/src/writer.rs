//! The file-writer thread: writes blocks, holds them while writing fails, and says in the log what is missing from it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::block::Block;
use crate::config::{HELD_BYTES_MAX, RETRY_MAX, RETRY_MIN};
use crate::entry::Barrier;
use crate::log_file::Continuity;
use crate::shared::Shared;
use crate::sink::Sink;
use crate::stamp::{Stamps, now_micros};
use crate::stats::LevelCounts;

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
    /// Not yet written, oldest first; of the first one, `done` bytes are written.
    held: VecDeque<Block>,
    held_bytes: usize,
    done: usize,
    outage: Option<Outage>,
    /// When the operator was told of an outage the last time.
    told: Option<Instant>,
    stamps: Stamps,
    /// The drops of which the log has told.
    said_refused: LevelCounts,
    said_lost: LevelCounts,
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
        ended: Sender<()>,
    ) -> Self {
        Self {
            shared,
            jobs,
            spare,
            sink,
            held: VecDeque::new(),
            held_bytes: 0,
            done: 0,
            outage: None,
            told: None,
            stamps: Stamps::default(),
            said_refused: LevelCounts::default(),
            said_lost: LevelCounts::default(),
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
                    let result = self.attempt();
                    // Nobody waits any more when the barrier's time was over.
                    let _ = barrier.done.send(result);
                }
                Err(RecvTimeoutError::Timeout) => drop(self.attempt()),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.attempt();
                    return;
                }
            }
        }
    }

    fn next_job(&self) -> Result<Job, RecvTimeoutError> {
        match &self.outage {
            Some(outage) => self.jobs.recv_deadline(outage.retry_at),
            None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Keeps a block until it is written; when too much is kept already, counts it as lost.
    fn hold(&mut self, block: Block) {
        if block.is_empty() {
            return self.give_back(block);
        }
        if self.held_bytes > 0 && self.held_bytes + block.bytes().len() > HELD_BYTES_MAX {
            self.shared.counters.lost.add_all(&block.records_behind(0));
            return self.give_back(block);
        }
        self.held_bytes += block.bytes().len();
        self.held.push_back(block);
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
        let idle = self.held.is_empty() && !self.has_something_to_say();
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
        Ok(())
    }

    fn write_held(&mut self) -> io::Result<()> {
        while let Some(block) = self.held.front() {
            while let Some(rest) = block.bytes().get(self.done..).filter(|rest| !rest.is_empty()) {
                self.done += self.sink.write(rest)?;
            }
            self.shared.counters.written.fetch_add(block.records() as u64, Ordering::SeqCst);
            self.done = 0;
            if let Some(block) = self.held.pop_front() {
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

    fn has_something_to_say(&self) -> bool {
        self.outage.is_some() || self.shared.counters.refused.get() != self.said_refused
    }

    /// The lines about what is missing. Once they are held, they are as good as said.
    fn notice(&mut self) -> Option<Block> {
        let mut notice = Block::default();
        if let Some(outage) = self.outage.take() {
            let text = self.outage_text(&outage);
            notice.push_notice(&mut self.stamps, &text);
        }
        if let Some(text) = self.refused_text() {
            notice.push_notice(&mut self.stamps, &text);
        }
        if let Some(trouble) = self.sink.take_trouble() {
            self.shared.counters.write_errors.fetch_add(1, Ordering::SeqCst);
            notice.push_notice(&mut self.stamps, &trouble);
        }
        (!notice.is_empty()).then_some(notice)
    }

    fn outage_text(&mut self, outage: &Outage) -> String {
        let lost = self.shared.counters.lost.get();
        let new = lost.minus(&self.said_lost);
        self.said_lost = lost;
        let from = self.stamps.text(outage.since);
        let to = self.stamps.text(now_micros());
        format!("{} because writing failed from {from} to {to}: {}", dropped(&new), outage.error)
    }

    fn refused_text(&mut self) -> Option<String> {
        let counters = &self.shared.counters;
        let refused = counters.refused.get();
        let new = refused.minus(&self.said_refused);
        if new.total() == 0 {
            return None;
        }
        self.said_refused = refused;
        let first = counters.refused_first.swap(0, Ordering::SeqCst);
        let last = counters.refused_last.load(Ordering::SeqCst);
        let from = self.stamps.text(if first == 0 { last } else { first });
        let to = self.stamps.text(last);
        Some(format!("{} because the queue was full, from {from} to {to}", dropped(&new)))
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
        let mut lost = LevelCounts::default();
        for block in self.held.drain(..) {
            lost = lost.plus(&block.records_behind(self.done));
            let whole = block.records() as u64 - block.records_behind(self.done).total();
            self.shared.counters.written.fetch_add(whole, Ordering::SeqCst);
            self.done = 0;
        }
        for job in self.jobs.try_iter() {
            if let Job::Write(block) = job {
                lost = lost.plus(&block.records_behind(0));
            }
        }
        self.shared.counters.lost.add_all(&lost);
        let unsaid = self.shared.counters.lost.get().minus(&self.said_lost);
        if unsaid.total() > 0 {
            self.tell_operator(&format!(
                "at the end of the log to {}: {}",
                self.sink.name(),
                dropped(&unsaid)
            ));
        }
    }
}

/// `17 records dropped (error 0, warn 1, info 16, debug 0, trace 0)`.
fn dropped(counts: &LevelCounts) -> String {
    let LevelCounts { error, warn, info, debug, trace } = counts;
    let total = counts.total();
    format!("{total} records dropped (error {error}, warn {warn}, info {info}, debug {debug}, trace {trace})")
}
