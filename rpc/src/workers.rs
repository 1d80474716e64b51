//! Threads for handlers that block, with a bounded queue before them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// What a worker does. It gives its place back itself, before it answers: who has the answer finds the place free.
pub(crate) type Job = Box<dyn FnOnce(Held) + Send>;

/// A place that a job takes, until it is dropped.
pub(crate) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A fixed number of threads that carry out jobs in the order they came. A full queue refuses at once. Services may share one.
///
/// Dropping it lets the threads finish what is queued, and waits for them.
#[derive(Debug)]
pub struct Workers {
    jobs: Option<Sender<(Job, Held)>>,
    /// Jobs that wait or run.
    held: Arc<AtomicUsize>,
    held_max: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads (at least one) named `name-0` and so on, before which at most `queue_max` jobs wait.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(name: &str, threads: usize, queue_max: usize) -> std::io::Result<Arc<Self>> {
        let (jobs, todo) = unbounded();
        let held = Arc::new(AtomicUsize::new(0));
        let threads = threads.max(1);
        let mut workers =
            Self { jobs: Some(jobs), held, held_max: threads.saturating_add(queue_max), threads: Vec::new() };
        for index in 0..threads {
            let todo = todo.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            workers.threads.push(thread.spawn(move || work(&todo))?);
        }
        Ok(Arc::new(workers))
    }

    /// Jobs that wait or run.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Carries `job` out when its turn comes. `false` when the queue is full; the job is dropped then.
    pub fn try_run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let Some(place) = self.reserve() else { return false };
        place.run(Box::new(move |_held| job()));
        true
    }

    /// Takes a place for a job, if there is one.
    pub(crate) fn reserve(&self) -> Option<Place<'_>> {
        let taken = self.held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |held| {
            (held < self.held_max).then_some(held + 1)
        });
        taken.ok().map(|_| Place { workers: self, held: Held(Arc::clone(&self.held)) })
    }
}

/// A place for one job.
pub(crate) struct Place<'a> {
    workers: &'a Workers,
    held: Held,
}

impl Place<'_> {
    pub(crate) fn run(self, job: Job) {
        if let Some(jobs) = &self.workers.jobs {
            // Fails only when no thread is left; the job's own drop then answers for it.
            let _ = jobs.send((job, self.held));
        }
    }
}

fn work(todo: &Receiver<(Job, Held)>) {
    for (job, held) in todo {
        if std::panic::catch_unwind(AssertUnwindSafe(|| job(held))).is_err() {
            log::error!("a job of a worker panicked");
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        let me = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job; a thread cannot wait for itself.
            if thread.thread().id() != me && thread.join().is_err() {
                log::error!("a worker thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_finished_jobs_make_room() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let (go, gate) = crossbeam_channel::bounded::<()>(0);
        let (tell, told) = unbounded();
        for number in 0..2 {
            let (gate, tell) = (gate.clone(), tell.clone());
            workers.reserve().unwrap().run(Box::new(move |_| {
                gate.recv().unwrap();
                tell.send(number).unwrap();
            }));
        }
        assert!(workers.reserve().is_none());
        go.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), 0);
        go.send(()).unwrap();
        drop(workers);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1], "what was queued is done before the end");
    }

    #[test]
    fn who_runs_jobs_is_told_when_there_is_no_room_and_a_refused_job_is_dropped() {
        let workers = Workers::start("test", 1, 1).unwrap();
        let (go, gate) = crossbeam_channel::bounded::<()>(0);
        let (tell, told) = unbounded();
        for number in 0..3 {
            let (gate, tell) = (gate.clone(), tell.clone());
            let taken = workers.try_run(move || {
                gate.recv().unwrap();
                tell.send(number).unwrap();
            });
            assert_eq!(taken, number < 2, "one runs, one waits");
        }
        drop(tell);
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), [0, 1], "ends, for nobody holds the third's sender");
    }

    #[test]
    fn a_job_that_panics_does_not_cost_the_thread() {
        let workers = Workers::start("test", 1, 8).unwrap();
        workers.reserve().unwrap().run(Box::new(|_| panic!("a test's panic")));
        let (tell, told) = crossbeam_channel::bounded(1);
        workers.reserve().unwrap().run(Box::new(move |_| tell.send(1).unwrap()));
        assert_eq!(told.recv(), Ok(1));
    }
}
