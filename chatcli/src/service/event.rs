//! What the service tells the program, and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use schema::friend::FriendEvent;
use schema::group::GroupEvent;
use schema::reply::Kind;
use schema::{ConvId, Seq, UserId};

use super::friends::Friend;
use super::groups::{Group, Member};

/// Names what was asked, so that the answer can be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What is to be done outside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say this line, its end not included, on the present connection.
    Line(Vec<u8>),
    /// Connect now, if there is no connection.
    Connect,
    /// Give this connection up and make a new one.
    Drop(&'static str),
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// What somebody wrote.
    Text(Arc<str>),
    /// What happened to a group.
    Event(Arc<GroupEvent<'static>>),
}

/// An entry of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: Seq,
    pub(crate) from: UserId,
    pub(crate) from_name: Arc<str>,
    pub(crate) content: Content,
    pub(crate) time_ms: u64,
}

impl Entry {
    /// What was written, if it is that.
    pub(crate) fn text(&self) -> Option<&Arc<str>> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Event(_) => None,
        }
    }
}

/// A conversation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) conv: ConvId,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) user: Option<UserId>,
    pub(crate) last_seq: Seq,
    pub(crate) delivered: Seq,
    pub(crate) read: Seq,
    pub(crate) unread: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// One of the protocol's codes, or one of the client's own: `not_logged_in`, `busy`, `bad_reply`.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// When it makes sense to ask again.
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), retry_after: None }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The server said `hello`.
    Greeted { server: String, node: String },
    /// A registration was accepted.
    Registered { ticket: Ticket, user: UserId },
    /// Logged in: by a command, which has a ticket, or again after a lost connection.
    LoggedIn { ticket: Option<Ticket>, user: UserId, name: String },
    /// No longer logged in, and not coming back by itself: why, and whether the token is good for another login.
    LoggedOut { ticket: Option<Ticket>, why: String, token_lives: bool },
    /// Everything that was missed is here.
    Synced,
    /// An entry arrived that was not here before.
    Message { conv: ConvId, entry: Entry },
    /// An own message is durable.
    Sent { ticket: Ticket, conv: ConvId, seq: Seq, to: String },
    /// A user's devices have received up to here.
    Delivered { conv: ConvId, user: UserId, seq: Seq },
    /// A user has read up to here.
    Read { conv: ConvId, user: UserId, seq: Seq },
    /// A user is typing.
    Typing { conv: ConvId, user: UserId },
    /// The server's copy of a conversation ends earlier than ours did.
    Reset { conv: ConvId, seq: Seq },
    /// The answer to a question for a history: what was asked for, in increasing `seq`.
    History { ticket: Ticket, conv: ConvId, entries: Vec<Entry>, more: bool },
    /// The answer to a question for the conversations.
    Conversations { ticket: Ticket, list: Vec<Listed> },
    /// The answer to a question for a user.
    Found { ticket: Ticket, user: UserId, name: String, online: bool },
    /// What was asked for is done, and there is nothing more to tell of it.
    Done { ticket: Ticket },
    /// The answer to a question for the friends.
    Friends { ticket: Ticket, list: Vec<Friend> },
    /// The answer to a question for who is blocked.
    Blocked { ticket: Ticket, list: Vec<(UserId, String)> },
    /// A group was made.
    GroupCreated { ticket: Ticket, conv: ConvId },
    /// The answer to a question for the members of a group; `more` when there are more than one asks for.
    Members { ticket: Ticket, conv: ConvId, list: Vec<Member>, more: bool },
    /// The answer to a question for the groups.
    Groups { ticket: Ticket, list: Vec<Group> },
    /// Another user has done something about friendship.
    Friendship { event: FriendEvent, user: UserId, name: String },
    /// A friend came or went.
    Presence { user: UserId, name: String, online: bool },
    /// The user is invited to a group: its name, and by whom.
    Invited { conv: ConvId, name: String, from: String },
    /// A mark was taken by the server.
    Marked { ticket: Ticket, conv: ConvId, seq: Seq },
    /// What was asked was refused. For a send: it is not in the conversation and will not come.
    Refused { ticket: Ticket, refusal: Refusal },
    /// The server announced that it ends the connection.
    Bye { code: String, message: String },
}
