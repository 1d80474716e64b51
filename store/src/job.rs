//! The jobs of a writer: messages, which it knows how to write, and closures, which it only runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use schema::ConvId;

use crate::connection::Connection;
use crate::error::StoreError;
use crate::pipeline::SendRequest;

/// What waits for a writer.
pub(crate) enum Job {
    Send(SendRequest),
    /// A closure, and the conversation that it writes to; without one it may write anything.
    Op(Option<ConvId>, Box<dyn WriteJob>),
}

impl Job {
    /// Bytes that count against the bound of the queue.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Send(request) => request.text.len(),
            Self::Op(..) => 0,
        }
    }
}

/// A closure that writes, and one that gets the result.
pub(crate) trait WriteJob: Send {
    /// Runs, under a savepoint of the batch's transaction where one is open, else in a transaction of its own, and keeps the result.
    fn run(&mut self, db: &mut Connection);
    /// The batch was not committed: whatever the result was, it is this error now.
    fn fail(&mut self, error: &StoreError);
    /// Gives the result away.
    fn finish(self: Box<Self>);
}

pub(crate) struct Op<T, F, D> {
    op: F,
    result: Option<Result<T, StoreError>>,
    done: D,
}

impl<T, F, D> Op<T, F, D> {
    pub(crate) const fn new(op: F, done: D) -> Self {
        Self { op, result: None, done }
    }
}

impl<T, F, D> WriteJob for Op<T, F, D>
where
    T: Send,
    F: FnMut(&mut Connection) -> Result<T, StoreError> + Send,
    D: FnOnce(Result<T, StoreError>) + Send,
{
    fn run(&mut self, db: &mut Connection) {
        let depth = db.depth();
        let written = db.entries_written();
        let op = &mut self.op;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            db.transaction_retried(|db| {
                db.forget_entries(written);
                op(db)
            })
        }));
        let result = caught.unwrap_or_else(|_| {
            log::error!("a write job panicked; it was rolled back");
            db.unwind(depth);
            Err(StoreError::Panicked)
        });
        if result.is_err() {
            db.forget_entries(written);
        }
        self.result = Some(result);
    }

    fn fail(&mut self, error: &StoreError) {
        self.result = Some(Err(error.clone()));
    }

    fn finish(self: Box<Self>) {
        let Self { result, done, .. } = *self;
        let result = result.unwrap_or_else(|| Err(StoreError::internal("a write job was never run")));
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            log::error!("the callback of a write job panicked");
        }
    }
}
