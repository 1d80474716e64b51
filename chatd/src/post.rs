//! What other threads tell the chat service of a loop.

use std::sync::Arc;

use bytes::Bytes;
use reactor::ConnId;
use schema::error::{ByeCode, ErrorCode};
use schema::login::LoginReply;
use schema::request::RequestId;
use schema::{ConvId, Seq, SessionId, UserId};
use store::{CursorOutcome, SendOutcome};

use crate::connz::Asker;
use crate::passing::Passing;

/// A message to the service.
#[derive(Debug)]
pub(crate) enum Post {
    /// A transaction was committed, or failed. Every loop gets every one, in commit order.
    Committed(Arc<Committed>),
    /// The login service answered.
    Login { conn: ConnId, id: Option<RequestId>, purpose: Purpose, reply: LoginReply },
    /// The direct conversation that a `send` goes to was looked up.
    Resolved(Box<Resolved>),
    /// A query was answered: the fields of an `ok`, or why not.
    Answer { conn: ConnId, id: Option<RequestId>, body: Result<Vec<u8>, Refused> },
    /// What a session starts from. `None`: it could not be read.
    Start { conn: ConnId, session: SessionId, start: Option<Box<Start>> },
    /// Entries of a conversation that a session lags behind in. `None`: they could not be read.
    Page { conn: ConnId, session: SessionId, conv: ConvId, page: Option<LatePage> },
    /// Who is in a group, and since which entry. `None`: it could not be read.
    Members { conv: ConvId, members: Option<Vec<(UserId, Seq)>> },
    /// The last entry of a conversation whose sends may have been committed without our knowing. Ordered with the commits.
    LastSeq { conv: ConvId, answer: LastSeq, tell: bool },
    /// Other nodes have told something.
    FromAfar(Arc<[FromAfar]>),
    /// What other nodes publish for this session's user is heard from now on, or there is nothing to wait for.
    Heard { conn: ConnId, session: SessionId },
    /// Other nodes may have told something that was not heard: every conversation is compared with the store.
    Compare,
    /// The same for these groups, which are heard from now on.
    CompareGroups(Arc<[ConvId]>),
    /// Where users of this loop stand. `None`: it could not be read.
    Standing { asked: Arc<[UserId]>, found: Option<Vec<(UserId, Vec<store::Position>)>> },
    /// The last entries of groups.
    Heads { heads: Vec<(ConvId, Seq)> },
    /// A user is typing.
    Typing { conv: ConvId, user: UserId },
    /// A line for all running sessions of these users.
    Tell { to: Arc<[UserId]>, line: Bytes },
    /// The two users of a direct conversation may no longer write to each other, or may again.
    Blocked { conv: ConvId, now: bool },
    /// Who is to know that a user has gone. `None`: it could not be read.
    Gone { user: UserId, friends: Option<(Arc<str>, Arc<[UserId]>)> },
    /// The operator asks who is connected.
    Connz(Asker),
    /// End this session's connection.
    End { conn: ConnId, session: SessionId, code: ByeCode },
    /// The server is shutting down: finish what was accepted, take nothing more.
    Drain,
    /// Look whether this loop was given up: so far behind that commits could not be handed to it, and its sessions must start anew from the store.
    Lost,
}

/// What another node has told.
#[derive(Clone, Debug)]
pub(crate) enum FromAfar {
    /// An entry was committed there.
    Entry(Passing, Bytes),
    /// A conversation reaches up to here.
    Head {
        conv: ConvId,
        last: Seq,
        pair: Option<[UserId; 2]>,
    },
    Cursor(CursorOutcome),
    Typing {
        conv: ConvId,
        user: UserId,
    },
    Line {
        to: UserId,
        line: Bytes,
    },
    Blocked {
        conv: ConvId,
        now: bool,
    },
}

/// Where a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastSeq {
    /// The store could not be asked.
    Unknown,
    /// There is no such conversation.
    Nowhere,
    /// The two of a direct one, and the place of its last entry.
    At(Option<[UserId; 2]>, Seq),
}

/// What was asked of the login service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Register,
    Login { hold: bool },
    Logout { user: UserId },
    Password { user: UserId },
}

/// A commit with the line that its entries are pushed as, encoded once for all their recipients.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) sends: Vec<(SendOutcome, Bytes)>,
    pub(crate) cursors: Vec<CursorOutcome>,
}

/// What a session starts from, as one reading found it.
#[derive(Debug)]
pub(crate) struct Start {
    /// Where the user stands in its conversations.
    pub(crate) positions: Vec<store::Position>,
    /// The user's name.
    pub(crate) name: Option<Arc<str>>,
    /// Friends, and requests in both directions.
    pub(crate) friends: Vec<store::Friend>,
    /// Open invitations.
    pub(crate) invitations: Vec<store::Invitation>,
}

/// Entries read for catching up.
#[derive(Debug)]
pub(crate) struct LatePage {
    pub(crate) entries: Vec<PageEntry>,
    /// Up to where was read.
    pub(crate) upto: Seq,
    /// There is more up to there.
    pub(crate) more: bool,
    /// Up to here nothing is kept any more, where that is beyond what was asked for: the stream jumps.
    pub(crate) gone: Option<Seq>,
    /// The user has left, and nothing lies beyond.
    pub(crate) is_over: bool,
}

/// An entry read for catching up, encoded on the reading thread.
#[derive(Debug)]
pub(crate) struct PageEntry {
    pub(crate) seq: Seq,
    pub(crate) session: Option<SessionId>,
    pub(crate) line: Bytes,
}

/// A `send` whose conversation was looked up first.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) conn: ConnId,
    pub(crate) session: SessionId,
    pub(crate) id: Option<RequestId>,
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) text: String,
    /// The key under which the answer is remembered.
    pub(crate) peer: PeerKey,
    pub(crate) result: Result<ConvId, Refused>,
}

/// A user as a request named them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    Id(UserId),
    Name(Box<str>),
}

/// Why a request is refused, ready to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
    pub(crate) retry_after_ms: Option<u64>,
}

impl Refused {
    pub(crate) const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message, retry_after_ms: None }
    }

    pub(crate) const DEFECT: Self = Self::new(ErrorCode::Internal, "the server failed; this is a defect");
    pub(crate) const OVERLOADED: Self = Self {
        code: ErrorCode::Overloaded,
        message: "the server has too much to do; try again",
        retry_after_ms: Some(500),
    };
    pub(crate) const UNAVAILABLE: Self = Self::new(
        ErrorCode::Unavailable,
        "the storage is unavailable; not known to be done, try again with the same client_id",
    );
    pub(crate) const NO_CONVERSATION: Self = Self::new(ErrorCode::NotFound, "there is no such conversation");
    pub(crate) const NO_USER: Self = Self::new(ErrorCode::NotFound, "there is no such user");
    pub(crate) const NOT_A_MEMBER: Self =
        Self::new(ErrorCode::Forbidden, "you are not a member of this conversation");
    pub(crate) const TO_ONESELF: Self = Self::new(ErrorCode::BadRequest, "a message to oneself goes nowhere");
    pub(crate) const BLOCKED: Self = Self::new(ErrorCode::Forbidden, "one of you has blocked the other");
    pub(crate) const LOGIN_FIRST: Self = Self::new(ErrorCode::Unauthorized, "log in first");
}

impl From<store::Denied> for Refused {
    fn from(denied: store::Denied) -> Self {
        use store::Denied;
        match denied {
            Denied::NotFound => Self::new(ErrorCode::NotFound, "there is no such user, group or request"),
            Denied::Forbidden(why) => Self::new(ErrorCode::Forbidden, why),
            Denied::Conflict(why) => Self::new(ErrorCode::Conflict, why),
            Denied::BadRequest(why) => Self::new(ErrorCode::BadRequest, why),
            _ => Self::DEFECT,
        }
    }
}

impl From<store::StoreError> for Refused {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::Overloaded => Self::OVERLOADED,
            store::StoreError::Unavailable { .. }
            | store::StoreError::Closed
            | store::StoreError::Collision { .. } => Self::UNAVAILABLE,
            other => {
                log::error!("the store failed: {other}");
                Self::DEFECT
            }
        }
    }
}
