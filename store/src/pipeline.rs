//! What goes into the commit pipeline and what comes out of it.

use schema::{ConvId, Seq, SessionId, UserId};

use crate::entity::Entry;

/// Whom an outcome is for. Means nothing to the store and comes back as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The loop that asked.
    pub owner: u32,
    /// The connection on it.
    pub token: u64,
    /// The request's `id`.
    pub call: Option<u64>,
}

/// A message to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRequest {
    /// For whom the outcome is.
    pub ticket: Ticket,
    /// The conversation, which exists already (see `ConversationDao::direct`).
    pub conv: ConvId,
    /// Who writes.
    pub sender: UserId,
    /// From which session.
    pub session: SessionId,
    /// What makes a resend harmless.
    pub client_id: Option<Box<str>>,
    /// The text, within the protocol's limits.
    pub text: String,
}

/// A message that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was written by this request.
    New(Entry),
    /// An earlier request of the same `client_id` had written it.
    Duplicate {
        /// The conversation.
        conv: ConvId,
        /// The place it got then.
        seq: Seq,
        /// The time it got then.
        time_ms: i64,
    },
}

/// Why a message was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no such conversation.
    #[error("there is no such conversation")]
    NotFound,
    /// The sender is not in the conversation.
    #[error("the sender is not a member")]
    Forbidden,
    /// One of the two has blocked the other.
    #[error("one of the two has blocked the other")]
    Blocked,
    /// The `client_id` stands for another text.
    #[error("the client_id was used for another text")]
    Conflict,
    /// The storage failed; the message is not known to be accepted.
    #[error("the storage is unavailable")]
    Unavailable,
}

/// What became of a [`SendRequest`], or an entry that a write job has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendOutcome {
    /// As given; `None` for an entry that a write job has written, whose asker is answered by that.
    pub ticket: Option<Ticket>,
    /// As given.
    pub conv: ConvId,
    /// What was committed, or why not.
    pub result: Result<Sent, SendError>,
}

/// A user has received, or read, a conversation up to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorWrite {
    /// For whom the outcome is; `None` when nobody waits for it.
    pub ticket: Option<Ticket>,
    /// Whose cursors.
    pub user: UserId,
    /// In which conversation.
    pub conv: ConvId,
    /// The delivered cursor's new place.
    pub delivered: Option<Seq>,
    /// The read cursor's new place.
    pub read: Option<Seq>,
}

/// Why a cursor was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// There is no such conversation.
    #[error("there is no such conversation")]
    NotFound,
    /// The user is not in the conversation.
    #[error("the user is not a member")]
    Forbidden,
    /// The storage failed; the cursor is not known to have moved.
    #[error("the storage is unavailable")]
    Unavailable,
}

/// What became of a [`CursorWrite`]. Writes that were merged while they waited have one outcome per ticket; each advance stands in
/// the one whose write asked for it, or in one without a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorOutcome {
    /// As given.
    pub ticket: Option<Ticket>,
    /// As given.
    pub conv: ConvId,
    /// As given.
    pub user: UserId,
    /// Who is to know.
    pub audience: Audience,
    /// The delivered cursor, when it advanced.
    pub delivered: Option<Seq>,
    /// The read cursor, when it advanced.
    pub read: Option<Seq>,
    /// Whether the write was taken; a write that moves nothing is.
    pub result: Result<(), CursorError>,
}

/// Whom the move of a cursor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Both users of a direct conversation, the smaller id first.
    Pair([UserId; 2]),
    /// All members of the group.
    Group,
    /// The user's own other sessions only: the group is too large, or one of the pair has blocked the other, or nothing has moved.
    Own,
}

/// The outcomes of one transaction, refused items included. Entries of one conversation are in increasing `seq`, and all
/// batches are in commit order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedBatch {
    /// In the order in which the requests were queued, entries written by write jobs in their place.
    pub sends: Vec<SendOutcome>,
    /// Computed after all of `sends`.
    pub cursors: Vec<CursorOutcome>,
}

/// Where outcomes go.
pub trait CommitSink: Send + 'static {
    /// Called on a writer thread after the batch's commit has returned, that is after its sync, in commit order, and
    /// with failed batches too. The next batch waits for it: hand over and return. Not called for a batch of neither
    /// sends nor cursors.
    fn committed(&mut self, batch: CommittedBatch);

    /// The same for another writer thread. All batches of one conversation come from one thread.
    fn another(&self) -> Box<dyn CommitSink>;
}

impl<F: FnMut(CommittedBatch) + Clone + Send + 'static> CommitSink for F {
    fn committed(&mut self, batch: CommittedBatch) {
        self(batch);
    }

    fn another(&self) -> Box<dyn CommitSink> {
        Box::new(self.clone())
    }
}
