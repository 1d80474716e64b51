//! The rows of the tables as values.

use std::sync::Arc;

use schema::{ConvId, Seq, SessionId, UserId};

/// A registered user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name as spelled at registration.
    pub name: Arc<str>,
    /// When it registered.
    pub created_ms: i64,
}

/// A user with what its password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// The PHC string of its password.
    pub password_hash: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The SHA-256 of a token, which is all that is kept of it.
pub type TokenHash = [u8; 32];

/// A token's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The hash of the token.
    pub hash: TokenHash,
    /// Whom it lets in.
    pub user: UserId,
    /// The label the device gave at login.
    pub device: Option<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When it stops being valid.
    pub expires_ms: i64,
}

/// What kind of conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A pair of users.
    Direct,
}

impl Kind {
    pub(crate) const fn from_i64(number: i64) -> Option<Self> {
        if number == 0 { Some(Self::Direct) } else { None }
    }

    pub(crate) const fn as_i64(self) -> i64 {
        match self {
            Self::Direct => 0,
        }
    }
}

/// A conversation's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConvId,
    /// Its kind.
    pub kind: Kind,
    /// Who is in it.
    pub members: Members,
    /// The place of its last entry; 0 when it has none.
    pub last_seq: Seq,
}

/// The two users of a direct conversation, the smaller id first, with their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The user with the smaller id.
    pub lo: UserId,
    /// The user with the greater id.
    pub hi: UserId,
    /// The name of `lo`.
    pub lo_name: Arc<str>,
    /// The name of `hi`.
    pub hi_name: Arc<str>,
}

impl Members {
    /// Whether `user` is one of the two.
    #[must_use]
    pub fn has(&self, user: UserId) -> bool {
        user == self.lo || user == self.hi
    }

    /// The other one and its name; `None` when `user` is neither.
    #[must_use]
    pub fn other(&self, user: UserId) -> Option<(UserId, &Arc<str>)> {
        if user == self.lo {
            Some((self.hi, &self.hi_name))
        } else if user == self.hi {
            Some((self.lo, &self.lo_name))
        } else {
            None
        }
    }

    /// The name of `user`; `None` when it is neither.
    #[must_use]
    pub fn name(&self, user: UserId) -> Option<&Arc<str>> {
        if user == self.lo {
            Some(&self.lo_name)
        } else if user == self.hi {
            Some(&self.hi_name)
        } else {
            None
        }
    }

    /// Both ids, the smaller first.
    #[must_use]
    pub const fn ids(&self) -> [UserId; 2] {
        [self.lo, self.hi]
    }
}

/// One entry of a direct conversation with all that a `message` line shows. Names are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The conversation.
    pub conv: ConvId,
    /// The place in it.
    pub seq: Seq,
    /// Who wrote it.
    pub sender: UserId,
    /// The name of `sender`.
    pub sender_name: Arc<str>,
    /// The other user.
    pub recipient: UserId,
    /// The name of `recipient`.
    pub recipient_name: Arc<str>,
    /// The session that sent it.
    pub session: SessionId,
    /// What was written.
    pub text: String,
    /// When it was committed.
    pub time_ms: i64,
}

/// Neighbouring entries in increasing `seq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether there are more in the direction asked.
    pub more: bool,
}

/// A conversation as one of its users sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The conversation.
    pub conv: ConvId,
    /// Its kind.
    pub kind: Kind,
    /// The other user.
    pub peer: UserId,
    /// The other user's name.
    pub peer_name: Arc<str>,
    /// The place of the last entry.
    pub last_seq: Seq,
    /// The user's delivered cursor.
    pub delivered: Seq,
    /// The user's read cursor.
    pub read: Seq,
    /// Entries by the other after `read` and after the user's own last message.
    pub unread: u64,
}

/// Where a user's stream of one conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The conversation.
    pub conv: ConvId,
    /// The other user.
    pub other: UserId,
    /// The user's delivered cursor.
    pub delivered: Seq,
    /// The place of the last entry.
    pub last_seq: Seq,
}

/// How far one member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The member.
    pub user: UserId,
    /// Its delivered cursor.
    pub delivered: Seq,
    /// Its read cursor.
    pub read: Seq,
}
