//! The threads that write to a server: a writer for each share of the conversations, and those that run all other jobs.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use schema::ConvId;

use crate::batch::{Outcomes, new_entry, outcome, push_cursor_outcomes, told};
use crate::connection::Connection;
use crate::cursors::Waiting;
use crate::error::StoreError;
use crate::heads::Heads;
use crate::job::{Job, WriteJob};
use crate::mysql_batch::{Place, write_cursors, write_sends};
use crate::mysql_manager::MySqlManager;
use crate::pipeline::{CursorError, SendError, SendRequest, Sent};
use crate::pool::{ConnectionPool, Pooled};
use crate::queues::WriterQueues;
use crate::reader::ReadJob;
use crate::tell::{Tell, now_ms};
use crate::writer::{CURSORS_ALONE, CURSORS_BESIDE_JOBS};

pub(crate) type Pool = ConnectionPool<MySqlManager>;

/// How long a batch that collides with others is begun anew before its senders hear that it is not known to be accepted.
const COLLIDING_MAX: Duration = Duration::from_secs(5);
/// The longest pause before that: the other transaction needs some milliseconds to end.
const COLLISION_PAUSE: Duration = Duration::from_millis(20);
/// How long it is tried to find out whether a commit was done whose answer was lost.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

pub(crate) const GET_MARK: &str = "SELECT mark FROM commit_mark WHERE worker = ?";
pub(crate) const SET_MARK: &str = "UPDATE commit_mark SET mark = ? WHERE worker = ?";

/// Writes the messages, cursors and other changes of its share of the conversations.
pub(crate) struct MySqlWriter {
    pool: Pool,
    /// This thread's row of `commit_mark`: no other thread of any process has the same.
    worker: i64,
    /// The mark of the last batch that was begun. Never used again, so that the row tells which batch was the last.
    mark: i64,
    heads: Heads,
    queues: WriterQueues,
    tell: Tell,
}

impl MySqlWriter {
    pub(crate) fn new(pool: Pool, worker: i64, queues: WriterQueues, tell: Tell) -> Self {
        Self { pool, worker, mark: 0, heads: Heads::default(), queues, tell }
    }

    /// Serves until the queues are closed and empty.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.queues.next() {
            let max = if jobs.is_empty() { CURSORS_ALONE } else { CURSORS_BESIDE_JOBS };
            let cursors = self.queues.cursors.take(max);
            let mut sends = Vec::with_capacity(jobs.len());
            for job in jobs {
                match job {
                    Job::Send(request) => sends.push(request),
                    Job::Op(conv, op) => {
                        self.send(std::mem::take(&mut sends));
                        run_op(&self.pool, &mut self.tell, op);
                        self.changed(conv);
                    }
                }
            }
            self.send(sends);
            let users: Vec<_> = cursors.iter().map(|waiting| waiting.user).collect();
            self.move_cursors(cursors);
            self.queues.cursors.written(users.into_iter());
        }
    }

    fn changed(&mut self, conv: Option<ConvId>) {
        if let Some(conv) = conv {
            self.heads.forget(conv);
        }
    }

    /// One transaction of messages, begun anew as often as it makes sense.
    fn send(&mut self, mut requests: Vec<SendRequest>) {
        if requests.is_empty() {
            return;
        }
        let give_up = Instant::now() + COLLIDING_MAX;
        let mut careful = false;
        let error = loop {
            let now = now_ms();
            match self.commit_sends(&requests, careful, now) {
                Ok(places) => return self.told(requests, places, now),
                Err(StoreError::Duplicate { .. }) if !careful => careful = true,
                Err(StoreError::Collision { .. }) if Instant::now() < give_up => {
                    std::thread::sleep(COLLISION_PAUSE.mul_f64(fastrand::f64()));
                }
                // One of them is what the server cannot take, which is a defect; the others are not to suffer for it.
                Err(StoreError::Internal { message }) if requests.len() > 1 => {
                    log::error!("a batch was refused, its messages are written one by one: {message}");
                    return requests.drain(..).for_each(|request| self.send(vec![request]));
                }
                Err(error) => break error,
            }
        };
        let mut outcomes = Outcomes::default();
        outcomes.batch.sends =
            requests.iter().map(|request| outcome(request, Err(SendError::Unavailable))).collect();
        self.tell.outcomes(outcomes, Some(error));
    }

    fn commit_sends(
        &mut self,
        requests: &[SendRequest],
        careful: bool,
        now_ms: i64,
    ) -> Result<Vec<Place>, StoreError> {
        self.mark += 1;
        let (worker, mark) = (self.worker, self.mark);
        let mut db = self.pool.acquire()?;
        let heads = &mut self.heads;
        let written = db.begin_write().and_then(|()| {
            let places = write_sends(&mut db, heads, requests, careful, now_ms)?;
            db.execute(SET_MARK, &[mark.into(), worker.into()])?;
            Ok(places)
        });
        match written {
            Ok(places) if places.iter().any(|place| matches!(place, Place::New { .. })) => {
                self.commit(db)?;
                Ok(places)
            }
            // Nothing was written, so there is nothing to sync.
            Ok(places) => {
                db.unwind(0);
                Ok(places)
            }
            Err(error) => {
                db.unwind(0);
                Err(error)
            }
        }
    }

    /// Commits, and finds out what happened when the server does not say that it did.
    fn commit(&mut self, mut db: Pooled<MySqlManager>) -> Result<(), StoreError> {
        let Err(error) = db.commit() else { return Ok(()) };
        db.spoil();
        db.unwind(0);
        drop(db);
        match self.was_committed() {
            Ok(true) => {
                log::warn!("a commit was reported as failed, and was done: {error}");
                Ok(())
            }
            Ok(false) => Err(error),
            Err(unknown) => {
                log::warn!("it is not known whether a commit was done ({error}): {unknown}");
                Err(error)
            }
        }
    }

    /// Whether the last batch is in the tables. Its row is read under a lock: should its transaction live on, it has ended then.
    fn was_committed(&self) -> Result<bool, StoreError> {
        let deadline = Instant::now() + RESOLVE_MAX;
        loop {
            let looked = self.read_mark(deadline);
            if looked.is_ok() || Instant::now() >= deadline {
                return looked.map(|mark| mark == Some(self.mark));
            }
            // Its end may not have come to the server yet.
            std::thread::sleep(COLLISION_PAUSE);
        }
    }

    fn read_mark(&self, deadline: Instant) -> Result<Option<i64>, StoreError> {
        let mut db = self.pool.acquire_by(deadline)?;
        let worker = self.worker;
        db.transaction(|db| {
            let sql = db.for_update(GET_MARK);
            db.query_row(&sql, &[worker.into()], |row| row.get(0))
        })
    }

    /// The batch is durable.
    fn told(&mut self, mut requests: Vec<SendRequest>, places: Vec<Place>, now_ms: i64) {
        let mut outcomes = Outcomes::default();
        outcomes.batch.sends = requests
            .iter_mut()
            .zip(places)
            .map(|(request, place)| {
                let conv = request.conv;
                let result = match place {
                    Place::New { seq, names } => Ok(Sent::New(new_entry(request, names, seq, now_ms))),
                    Place::Old { seq, time_ms } => Ok(Sent::Duplicate { conv, seq, time_ms }),
                    Place::Refused(refusal) => Err(refusal),
                };
                outcome(request, result)
            })
            .collect();
        self.tell.outcomes(outcomes, None);
    }

    /// One transaction of cursors, if there are any.
    fn move_cursors(&mut self, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let give_up = Instant::now() + COLLIDING_MAX;
        let result = loop {
            match self.commit_cursors(&waiting) {
                Err(StoreError::Collision { .. }) if Instant::now() < give_up => {
                    std::thread::sleep(COLLISION_PAUSE.mul_f64(fastrand::f64()));
                }
                other => break other,
            }
        };
        let mut outcomes = Outcomes::default();
        let (moved, error) = match result {
            Ok(moved) => (moved, None),
            Err(error) => (vec![Err(CursorError::Unavailable); waiting.len()], Some(error)),
        };
        for (waiting, moved) in waiting.into_iter().zip(moved) {
            push_cursor_outcomes(&mut outcomes.batch.cursors, waiting, moved);
        }
        self.tell.outcomes(outcomes, error);
    }

    fn commit_cursors(
        &mut self,
        waiting: &[Waiting],
    ) -> Result<Vec<Result<crate::batch::Moved, CursorError>>, StoreError> {
        let mut db = self.pool.acquire()?;
        let heads = &mut self.heads;
        // A cursor may be moved twice: a commit of which nothing is known is no harm.
        db.transaction(|db| write_cursors(db, heads, waiting))
    }
}

/// Runs one closure in a transaction of its own, and tells what came of it.
fn run_op(pool: &Pool, tell: &mut Tell, mut op: Box<dyn WriteJob>) {
    let mut outcomes = Outcomes::default();
    with_connection(pool, |db| {
        op.run(db);
        outcomes.batch.sends.extend(db.take_entries().into_iter().map(told));
    });
    outcomes.ops.push(op);
    tell.outcomes(outcomes, None);
}

/// Gives `work` a connection; one that says why there is none when there is none.
fn with_connection(pool: &Pool, work: impl FnOnce(&mut Connection)) {
    match pool.acquire() {
        Ok(mut db) => work(&mut db),
        Err(error) => work(&mut Connection::gone(error.into())),
    }
}

/// A thread for jobs that belong to no conversation: each is a transaction of its own.
pub(crate) fn run_ops(pool: &Pool, jobs: &Receiver<Job>, mut tell: Tell) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Op(_, op) => run_op(pool, &mut tell, op),
            Job::Send(request) => {
                log::error!("a message came to a thread that writes none, which is a defect");
                let mut outcomes = Outcomes::default();
                outcomes.batch.sends.push(outcome(&request, Err(SendError::Unavailable)));
                tell.outcomes(outcomes, None);
            }
        }
    }
}

/// A reading thread: one state of the tables per job.
pub(crate) fn run_reads(pool: &Pool, jobs: &Receiver<ReadJob>) {
    while let Ok(job) = jobs.recv() {
        with_connection(pool, |db| crate::reader::serve(db, job));
    }
}
