//! What the server says: replies and pushes, for servers to write and for clients to read.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{ByeCode, ErrorCode};
use crate::friend::FriendEvent;
use crate::group::GroupEvent;
use crate::ids::{ConvId, Seq, SessionId, UserId};
use crate::request::RequestId;

/// The kind of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Two users.
    Direct,
    /// A group.
    Group,
}

/// What an entry says. The one stands in JSON as `text`, the other as `event` with its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Body<'a> {
    /// What somebody wrote.
    Text {
        /// The text.
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    /// What happened to a group.
    Event(#[serde(borrow)] GroupEvent<'a>),
}

impl<'a> Body<'a> {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into() }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            Self::Event(_) => None,
        }
    }
}

/// An entry of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// The conversation.
    pub conv: ConvId,
    /// Its kind.
    pub kind: Kind,
    /// The entry's place in it.
    pub seq: Seq,
    /// Who wrote it.
    pub from: UserId,
    /// Their name.
    pub from_name: Cow<'a, str>,
    /// The other user of a direct conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<UserId>,
    /// Their name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<Cow<'a, str>>,
    /// What was written, or what happened.
    #[serde(flatten, borrow)]
    pub body: Body<'a>,
    /// When it became durable. `seq` orders, this does not.
    pub time_ms: u64,
}

/// What the server says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Push<'a> {
    /// The first line of a connection.
    Hello {
        /// The protocol version.
        version: u32,
        /// The server's name and version.
        server: Cow<'a, str>,
        /// The node's name.
        node: Cow<'a, str>,
        /// How often the client should give a sign of life.
        heartbeat_secs: u64,
        /// The longest line after login.
        max_line_bytes: usize,
        /// The longest text.
        max_text_bytes: usize,
        /// `message` pushes that may be unacked.
        push_window: usize,
        /// The server's time.
        time_ms: u64,
    },
    /// The last line of a connection.
    Bye {
        /// Why.
        code: ByeCode,
        /// Why, for people.
        message: Cow<'a, str>,
        /// When to come back, where that makes sense.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
    /// An entry of a conversation.
    Message(#[serde(borrow)] Message<'a>),
    /// Everything that was missed has been pushed.
    Synced,
    /// A cursor was above the conversation's last entry; its stream starts there.
    Reset {
        /// The conversation.
        conv: ConvId,
        /// Its last entry.
        seq: Seq,
    },
    /// A user has read up to here.
    Read {
        /// The conversation.
        conv: ConvId,
        /// Who.
        user: UserId,
        /// Up to where.
        seq: Seq,
    },
    /// A user's devices have received up to here.
    Delivered {
        /// The conversation.
        conv: ConvId,
        /// Who.
        user: UserId,
        /// Up to where.
        seq: Seq,
    },
    /// A user is typing.
    Typing {
        /// The conversation.
        conv: ConvId,
        /// Who.
        user: UserId,
    },
    /// Another user has done something about friendship. A hint: the truth is in `friends`.
    Friend {
        /// What they did.
        event: FriendEvent,
        /// Who.
        user: UserId,
        /// Their name.
        name: Cow<'a, str>,
    },
    /// A friend came or went.
    Presence {
        /// Who.
        user: UserId,
        /// Their name.
        name: Cow<'a, str>,
        /// Whether they have a session now.
        online: bool,
        /// When it was.
        time_ms: u64,
    },
    /// The user is invited to a group.
    Invite {
        /// The group.
        conv: ConvId,
        /// Its name.
        name: Cow<'a, str>,
        /// Who invites.
        from: UserId,
        /// Their name.
        from_name: Cow<'a, str>,
    },
}

/// The `ok` of `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The server's time.
    pub time_ms: u64,
}

/// The `ok` of `register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The new user.
    pub user: UserId,
}

/// The `ok` of `login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn<'a> {
    /// Who is logged in.
    pub user: UserId,
    /// Their name as it was spelled at registration.
    pub name: Cow<'a, str>,
    /// For the next login.
    pub token: Cow<'a, str>,
    /// Until when the token is valid if it is not used.
    pub expires_ms: u64,
    /// The new session.
    pub session: SessionId,
}

/// The `ok` of `find_user`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found<'a> {
    /// The user.
    pub user: UserId,
    /// Their name.
    pub name: Cow<'a, str>,
    /// Whether they have a session.
    pub online: bool,
}

/// The `ok` of `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The conversation.
    pub conv: ConvId,
    /// The entry's place in it.
    pub seq: Seq,
    /// When it became durable.
    pub time_ms: u64,
    /// Whether it was there already, under the same `client_id`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// A member's cursors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The member.
    pub user: UserId,
    /// Received up to here.
    pub delivered: Seq,
    /// Read up to here.
    pub read: Seq,
}

/// The `ok` of `marks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// One for each member.
    pub marks: Vec<Mark>,
}

/// The `ok` of `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<'a> {
    /// The entries, in increasing `seq`.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    /// Whether there is more in the direction asked.
    pub more: bool,
}

/// A conversation, as its member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationInfo<'a> {
    /// Its id.
    pub conv: ConvId,
    /// Its kind.
    pub kind: Kind,
    /// The other user's name, or the group's.
    pub name: Cow<'a, str>,
    /// The other user of a direct conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Its last entry.
    pub last_seq: Seq,
    /// The member's delivered cursor.
    pub delivered: Seq,
    /// The member's read cursor.
    pub read: Seq,
    /// Entries by others after the read cursor and after the member's own last one.
    pub unread: u64,
}

/// The `ok` of `conversations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversations<'a> {
    /// In increasing `conv`.
    #[serde(borrow)]
    pub conversations: Vec<ConversationInfo<'a>>,
    /// Whether there are more.
    pub more: bool,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal<'a> {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: Cow<'a, str>,
    /// When to try again, for `rate_limited` and `overloaded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The head of a line from the server: enough for a client to know what to read it as.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerHead<'a> {
    /// `ok`, `error`, or the type of a push.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The request that is answered.
    pub id: Option<RequestId>,
}

/// Appends a push as a line.
pub fn write_push(push: &Push<'_>, out: &mut Vec<u8>) {
    write_json(push, out);
    out.push(b'\n');
}

/// Appends an `ok` without further fields as a line.
pub fn write_ok(id: RequestId, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"ok","id":"#);
    write_json(&id, out);
    out.extend_from_slice(b"}\n");
}

/// Appends an `ok` with the fields of `body`, which must be written as an object, as a line.
pub fn write_ok_with(id: RequestId, body: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"ok","id":"#);
    write_json(&id, out);
    write_fields(body, out);
}

/// Appends an `error` as a line.
pub fn write_error(id: Option<RequestId>, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"error""#);
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        write_json(&id, out);
    }
    write_fields(refusal, out);
}

/// Goes on with the fields of `body` behind an object that is not closed yet, and ends the line.
fn write_fields(body: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    write_json(body, out);
    match out.get(start..) {
        // Its opening brace becomes the comma between the two.
        Some([b'{', next, ..]) if *next != b'}' => {
            if let Some(brace) = out.get_mut(start) {
                *brace = b',';
            }
        }
        _ => {
            out.truncate(start);
            out.push(b'}');
        }
    }
    out.push(b'\n');
}

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    // Writing to a Vec cannot fail, nor can these types, which have string keys only.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"{}");
    }
}

#[cfg(test)]
mod tests;
