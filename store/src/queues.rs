//! Where a writer's work comes from: its queue of jobs and its cursor writes.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};

use crate::backlog::{Backlog, Pace};
use crate::config::DbConfig;
use crate::cursors::CursorQueue;
use crate::job::Job;

/// The ends of one writer's queues that give work out, and their bounds.
pub(crate) struct WriterQueues {
    jobs: Receiver<Job>,
    bytes: Arc<AtomicUsize>,
    pub(crate) cursors: Arc<CursorQueue>,
    wake: Receiver<()>,
    batch_max: usize,
    gather: Duration,
    backlog: Arc<Backlog>,
    pace: RefCell<Pace>,
}

/// The ends that take work in.
pub(crate) struct WriterDoor {
    pub(crate) jobs: Sender<Job>,
    pub(crate) cursors: Arc<CursorQueue>,
    /// How many messages may wait.
    pub(crate) backlog: Arc<Backlog>,
}

impl WriterQueues {
    /// The queues of one writer. `bytes` counts the text that waits, in all writers' queues together.
    pub(crate) fn new(config: &DbConfig, jobs_max: usize, bytes: &Arc<AtomicUsize>) -> (WriterDoor, Self) {
        let (to_jobs, jobs) = bounded(jobs_max);
        let (to_wake, wake) = bounded(1);
        let cursors = Arc::new(CursorQueue::new(to_wake));
        let backlog = Arc::new(Backlog::new(jobs_max, Duration::from_millis(config.write_wait_ms)));
        let queues = Self {
            jobs,
            bytes: Arc::clone(bytes),
            cursors: Arc::clone(&cursors),
            wake,
            batch_max: config.batch_max,
            gather: Duration::from_millis(config.gather_ms),
            backlog: Arc::clone(&backlog),
            pace: RefCell::default(),
        };
        (WriterDoor { jobs: to_jobs, cursors, backlog }, queues)
    }

    /// Waits for work and returns the jobs of the next batch, which are none when only cursors wait; `None` when the queues
    /// are closed and empty.
    pub(crate) fn next(&self) -> Option<Vec<Job>> {
        let mut at_once = true;
        let first = match self.jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) if self.cursors.len() > 0 => None,
            Err(TryRecvError::Empty) => {
                at_once = false;
                select! {
                    recv(self.jobs) -> job => job.ok(),
                    recv(self.wake) -> _ => None,
                }
            }
            Err(TryRecvError::Disconnected) if self.cursors.len() > 0 => None,
            Err(TryRecvError::Disconnected) => return None,
        };
        let mut jobs = Vec::new();
        if let Some(first) = first {
            jobs.reserve(self.batch_max.min(self.jobs.len() + 1));
            jobs.push(first);
            self.fill(&mut jobs);
            let bytes = jobs.iter().map(Job::bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        let mut pace = self.pace.borrow_mut();
        pace.batch(Instant::now(), jobs.len(), self.batch_max, at_once, &self.backlog);
        Some(jobs)
    }

    fn fill(&self, jobs: &mut Vec<Job>) {
        let more = self.batch_max.saturating_sub(jobs.len());
        jobs.extend(self.jobs.try_iter().take(more));
        if self.gather.is_zero() {
            return;
        }
        let deadline = Instant::now() + self.gather;
        while jobs.len() < self.batch_max {
            let Ok(job) = self.jobs.recv_deadline(deadline) else { break };
            jobs.push(job);
        }
    }
}
