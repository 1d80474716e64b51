//! One transaction of the writer: from the jobs to their outcomes.

use rustc_hash::FxHashMap;
use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::cursors::Waiting;
use crate::dao::{CursorDao, MessageDao};
use crate::entity::{Body, Entry, Mark};
use crate::error::StoreError;
use crate::heads::{Heads, Names};
use crate::job::{Job, WriteJob};
use crate::pipeline::{
    Audience, CommittedBatch, CursorError, CursorOutcome, SendError, SendOutcome, SendRequest, Sent,
};

pub(crate) const INSERT_SENT: &str =
    "INSERT INTO sent (sender, conv, client_id, seq, time_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
pub(crate) const FIND_SENT: &str =
    "SELECT seq, time_ms FROM sent WHERE sender = ? AND conv = ? AND client_id = ?";
pub(crate) const SET_LAST: &str = "UPDATE conversation SET last_seq = ? WHERE id = ?";

/// What a batch has to tell, and to whom.
#[derive(Default)]
pub(crate) struct Outcomes {
    pub(crate) batch: CommittedBatch,
    pub(crate) ops: Vec<Box<dyn WriteJob>>,
}

impl Outcomes {
    /// Nothing of the batch was committed: every outcome becomes this one.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        // What jobs have written is answered by their own results.
        self.batch.sends.retain(|outcome| outcome.ticket.is_some());
        for outcome in &mut self.batch.sends {
            outcome.result = Err(SendError::Unavailable);
        }
        for outcome in &mut self.batch.cursors {
            outcome.audience = Audience::Own;
            outcome.delivered = None;
            outcome.read = None;
            outcome.result = Err(CursorError::Unavailable);
        }
        for op in &mut self.ops {
            op.fail(error);
        }
    }
}

/// Runs the jobs and then the cursor writes inside the transaction that is open on `db`.
///
/// With an error nothing may be committed; the outcomes are complete all the same, and the caller fails them.
pub(crate) fn run(
    db: &mut Connection,
    heads: &mut Heads,
    jobs: Vec<Job>,
    cursors: Vec<Waiting>,
    now_ms: i64,
) -> (Outcomes, Result<(), StoreError>) {
    let mut run = Run {
        db,
        heads,
        now_ms,
        last: FxHashMap::default(),
        own: FxHashMap::default(),
        outcomes: Outcomes::default(),
    };
    let mut result = Ok(());
    for job in jobs {
        match (job, &result) {
            (Job::Send(request), Ok(())) => result = run.send(request),
            (Job::Op(conv, op), Ok(())) => result = run.op(conv, op),
            (Job::Send(request), Err(_)) => run.refuse(&request, SendError::Unavailable),
            (Job::Op(_, op), Err(_)) => run.outcomes.ops.push(op),
        }
    }
    for waiting in cursors {
        if result.is_ok() {
            result = run.cursor(waiting);
        } else {
            run.cursor_outcomes(waiting, Err(CursorError::Unavailable));
        }
    }
    if result.is_ok() {
        result = run.flush();
    }
    (run.outcomes, result)
}

/// Outcomes for a batch that could not even begin.
pub(crate) fn refuse_all(jobs: Vec<Job>, cursors: Vec<Waiting>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for job in jobs {
        match job {
            Job::Send(request) => outcomes.batch.sends.push(outcome(&request, Err(SendError::Unavailable))),
            Job::Op(_, op) => outcomes.ops.push(op),
        }
    }
    for waiting in cursors {
        push_cursor_outcomes(&mut outcomes.batch.cursors, waiting, Err(CursorError::Unavailable));
    }
    outcomes
}

struct Run<'a> {
    db: &'a mut Connection,
    heads: &'a mut Heads,
    now_ms: i64,
    /// Conversations whose `last_seq` in the table lags behind.
    last: FxHashMap<ConvId, Seq>,
    /// Members whose `own_seq` in the table lags behind.
    own: FxHashMap<(ConvId, UserId), Seq>,
    outcomes: Outcomes,
}

impl Run<'_> {
    /// Writes one message, or refuses it. An error is the storage's and ends the batch.
    fn send(&mut self, mut request: SendRequest) -> Result<(), StoreError> {
        match self.try_send(&mut request) {
            Ok(Ok(Place::New(entry))) => {
                let mut outcome = outcome(&request, Err(SendError::Unavailable));
                outcome.result = Ok(Sent::New(entry));
                self.outcomes.batch.sends.push(outcome);
                Ok(())
            }
            Ok(Ok(Place::Old { seq, time_ms })) => {
                let sent = Sent::Duplicate { conv: request.conv, seq, time_ms };
                self.outcomes.batch.sends.push(outcome(&request, Ok(sent)));
                Ok(())
            }
            Ok(Err(refusal)) => {
                self.refuse(&request, refusal);
                Ok(())
            }
            Err(error) => {
                self.refuse(&request, SendError::Unavailable);
                Err(error)
            }
        }
    }

    /// Where the message stands. Its text moves into the entry.
    fn try_send(&mut self, request: &mut SendRequest) -> Result<Result<Place, SendError>, StoreError> {
        let SendRequest { conv, sender, .. } = *request;
        let Some(head) = self.heads.get(self.db, conv)? else {
            return Ok(Err(SendError::NotFound));
        };
        let names = match head.sender(self.db, sender)? {
            Ok(names) => names,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let seq = head.last_seq.next();
        if let Some(client_id) = request.client_id.as_deref()
            && !claim(self.db, request, client_id, seq, self.now_ms)?
        {
            return same_again(self.db, request, client_id);
        }
        head.last_seq = seq;
        let entry = new_entry(request, names, seq, self.now_ms);
        MessageDao::new(self.db).insert(&entry)?;
        self.last.insert(conv, seq);
        self.own.insert((conv, sender), seq);
        Ok(Ok(Place::New(entry)))
    }

    fn refuse(&mut self, request: &SendRequest, refusal: SendError) {
        self.outcomes.batch.sends.push(outcome(request, Err(refusal)));
    }

    /// Runs a closure. It sees what the batch has written so far, and may write what heads are made of.
    fn op(&mut self, conv: Option<ConvId>, mut op: Box<dyn WriteJob>) -> Result<(), StoreError> {
        if let Err(error) = self.flush() {
            self.outcomes.ops.push(op);
            return Err(error);
        }
        let before = self.db.changes();
        op.run(self.db);
        self.outcomes.ops.push(op);
        self.outcomes.batch.sends.extend(self.db.take_entries().into_iter().map(told));
        if self.db.changes() != before {
            match conv {
                Some(conv) => self.heads.forget(conv),
                None => self.heads.clear(),
            }
        }
        if self.db.in_transaction() {
            Ok(())
        } else {
            Err(StoreError::Unavailable {
                kind: crate::error::UnavailableKind::Io,
                message: "a job's failure ended the transaction of its batch".into(),
            })
        }
    }

    /// Moves the cursors of one member, or refuses. An error is the storage's and ends the batch.
    fn cursor(&mut self, waiting: Waiting) -> Result<(), StoreError> {
        match self.try_cursor(&waiting) {
            Ok(moved) => {
                self.cursor_outcomes(waiting, moved);
                Ok(())
            }
            Err(error) => {
                self.cursor_outcomes(waiting, Err(CursorError::Unavailable));
                Err(error)
            }
        }
    }

    fn try_cursor(&mut self, waiting: &Waiting) -> Result<Result<Moved, CursorError>, StoreError> {
        let Some(head) = self.heads.get(self.db, waiting.conv)? else {
            return Ok(Err(CursorError::NotFound));
        };
        let Some((last, audience)) = head.reader(self.db, waiting.user)? else {
            return Ok(Err(CursorError::Forbidden));
        };
        let Some(mark) = CursorDao::new(self.db).get(waiting.user, waiting.conv)? else {
            return Ok(Err(CursorError::Forbidden));
        };
        let delivered = advance(mark.delivered, waiting.delivered, last);
        let read = advance(mark.read, waiting.read, last);
        if delivered.is_some() || read.is_some() {
            let mark = Mark {
                user: waiting.user,
                delivered: delivered.unwrap_or(mark.delivered),
                read: read.unwrap_or(mark.read),
            };
            CursorDao::new(self.db).set(waiting.conv, mark)?;
        }
        Ok(Ok(Moved { audience, delivered, read }))
    }

    fn cursor_outcomes(&mut self, waiting: Waiting, moved: Result<Moved, CursorError>) {
        push_cursor_outcomes(&mut self.outcomes.batch.cursors, waiting, moved);
    }

    /// Brings the tables up to what the heads say.
    fn flush(&mut self) -> Result<(), StoreError> {
        for (conv, last) in self.last.drain() {
            self.db.execute(SET_LAST, &[last.into(), conv.into()])?;
        }
        for ((conv, user), own) in self.own.drain() {
            CursorDao::new(self.db).set_own(user, conv, own)?;
        }
        Ok(())
    }
}

/// Where a message stands.
enum Place {
    New(Entry),
    Old { seq: Seq, time_ms: i64 },
}

/// The entry that a request becomes. Its text moves.
pub(crate) fn new_entry(request: &mut SendRequest, names: Names, seq: Seq, time_ms: i64) -> Entry {
    Entry {
        conv: request.conv,
        seq,
        sender: request.sender,
        sender_name: names.sender,
        to: names.to,
        session: Some(request.session),
        body: Body::Text(std::mem::take(&mut request.text)),
        time_ms,
    }
}

/// An entry that a job has written.
pub(crate) fn told(entry: Entry) -> SendOutcome {
    SendOutcome { ticket: None, conv: entry.conv, result: Ok(Sent::New(entry)) }
}

/// Where a cursor goes from `from`, if it goes.
pub(crate) fn advance(from: Seq, to: Option<Seq>, last: Seq) -> Option<Seq> {
    to.map(|to| to.min(last)).filter(|to| *to > from)
}

/// Takes the `client_id` for this place; false when it is taken.
fn claim(
    db: &mut Connection,
    request: &SendRequest,
    client_id: &str,
    seq: Seq,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let params = [request.sender.into(), request.conv.into(), client_id.into(), seq.into(), now_ms.into()];
    Ok(db.execute(INSERT_SENT, &params)? > 0)
}

/// The `client_id` is taken: by the same text, or by another one?
fn same_again(
    db: &mut Connection,
    request: &SendRequest,
    client_id: &str,
) -> Result<Result<Place, SendError>, StoreError> {
    let keys = [request.sender.into(), request.conv.into(), client_id.into()];
    let found: Option<(Seq, i64)> = db.query_row(FIND_SENT, &keys, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((seq, time_ms)) = found else {
        return Err(StoreError::corrupt("a client_id is there and is not"));
    };
    if MessageDao::new(db).may_say(request.conv, seq, &request.text)? {
        Ok(Ok(Place::Old { seq, time_ms }))
    } else {
        Ok(Err(SendError::Conflict))
    }
}

pub(crate) const fn outcome(request: &SendRequest, result: Result<Sent, SendError>) -> SendOutcome {
    SendOutcome { ticket: Some(request.ticket), conv: request.conv, result }
}

#[derive(Clone, Copy)]
pub(crate) struct Moved {
    pub(crate) audience: Audience,
    pub(crate) delivered: Option<Seq>,
    pub(crate) read: Option<Seq>,
}

pub(crate) fn push_cursor_outcomes(
    all: &mut Vec<CursorOutcome>,
    waiting: Waiting,
    moved: Result<Moved, CursorError>,
) {
    let Waiting { user, conv, tickets, delivered_by, read_by, .. } = waiting;
    let nothing = Moved { audience: Audience::Own, delivered: None, read: None };
    let mut left = moved.unwrap_or(nothing);
    let result = moved.map(|_| ());
    let audience = left.audience;
    let nobody = tickets.is_empty();
    for ticket in tickets.into_iter().map(Some) {
        let delivered = if ticket == delivered_by { left.delivered.take() } else { None };
        let read = if ticket == read_by { left.read.take() } else { None };
        all.push(CursorOutcome { ticket, conv, user, audience, delivered, read, result });
    }
    // What nobody waits for is told all the same.
    let Moved { delivered, read, .. } = left;
    if nobody || delivered.is_some() || read.is_some() {
        all.push(CursorOutcome { ticket: None, conv, user, audience, delivered, read, result });
    }
}
