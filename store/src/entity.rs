//! The rows of the tables as values.

use std::sync::Arc;

use schema::{ConvId, Seq, SessionId, UserId};

use crate::error::StoreError;

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
    /// A group.
    Group,
}

impl Kind {
    pub(crate) const fn from_i64(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Direct),
            1 => Some(Self::Group),
            _ => None,
        }
    }

    pub(crate) const fn as_i64(self) -> i64 {
        match self {
            Self::Direct => 0,
            Self::Group => 1,
        }
    }
}

/// A conversation's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConvId,
    /// Who is in it, when that is a pair; `None` for a group.
    pub pair: Option<Members>,
    /// The place of its last entry; 0 when it has none.
    pub last_seq: Seq,
    /// Bumped by every change of who may write to it.
    pub version: u64,
}

impl Conversation {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.pair.is_some() { Kind::Direct } else { Kind::Group }
    }
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

/// One entry of a conversation with all that a `message` line shows. Names are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The conversation.
    pub conv: ConvId,
    /// The place in it.
    pub seq: Seq,
    /// Who wrote it, or did what it tells.
    pub sender: UserId,
    /// The name of `sender`.
    pub sender_name: Arc<str>,
    /// The other user and its name; in a direct conversation only.
    pub to: Option<(UserId, Arc<str>)>,
    /// The session that sent it; `None` for an event, which is nobody's own.
    pub session: Option<SessionId>,
    /// What it says.
    pub body: Body,
    /// When it was committed.
    pub time_ms: i64,
}

impl Entry {
    /// Its text; empty for an event.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.body {
            Body::Text(text) => text,
            Body::Event(_) => "",
        }
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// What somebody wrote.
    Text(String),
    /// What happened in a group.
    Event(Event),
}

impl Body {
    /// From the columns `event` and `text`.
    pub(crate) fn from_columns(event: i64, text: String) -> Result<Self, StoreError> {
        if event == 0 {
            return Ok(Self::Text(text));
        }
        Event::from_columns(event, &text)
            .map(Self::Event)
            .ok_or_else(|| StoreError::corrupt(format!("an entry tells of event {event} {text:?}")))
    }

    /// Bytes of text.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Event(Event { change: Change::Created(name) | Change::Renamed(name), .. }) => name.len(),
            Self::Event(_) => 0,
        }
    }
}

/// What happened in a group, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// To whom.
    pub user: UserId,
    /// What.
    pub change: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user made the group under this name, and is its owner.
    Created(Arc<str>),
    /// The user is a member now.
    Joined,
    /// The user has left.
    Left,
    /// The user, of this name, was made to leave.
    Kicked(Arc<str>),
    /// The user gave it this name.
    Renamed(Arc<str>),
    /// The user, of this name, has this role now.
    Role(Role, Arc<str>),
}

impl Event {
    /// The column `event`, never 0.
    pub(crate) const fn number(&self) -> i64 {
        match self.change {
            Change::Created(_) => 1,
            Change::Joined => 2,
            Change::Left => 3,
            Change::Kicked(_) => 4,
            Change::Renamed(_) => 5,
            Change::Role(..) => 6,
        }
    }

    /// The column `text`: the user, and what there is to say.
    pub(crate) fn text(&self) -> String {
        match &self.change {
            Change::Created(name) | Change::Renamed(name) | Change::Kicked(name) => {
                format!("{} {name}", self.user)
            }
            Change::Joined | Change::Left => self.user.to_string(),
            Change::Role(role, name) => format!("{} {} {name}", self.user, role.as_i64()),
        }
    }

    fn from_columns(number: i64, text: &str) -> Option<Self> {
        let (user, rest) = text.split_once(' ').unwrap_or((text, ""));
        let user = UserId::new(user.parse().ok()?)?;
        let change = match number {
            1 => Change::Created(rest.into()),
            2 => Change::Joined,
            3 => Change::Left,
            4 => Change::Kicked(rest.into()),
            5 => Change::Renamed(rest.into()),
            6 => {
                let (role, name) = rest.split_once(' ')?;
                Change::Role(Role::from_i64(role.parse().ok()?)?, name.into())
            }
            _ => return None,
        };
        Some(Self { user, change })
    }
}

/// What a member of a group may do. A greater one may do more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Write.
    Member,
    /// Invite, kick and rename as well.
    Admin,
    /// Give roles as well. One per group.
    Owner,
}

impl Role {
    pub(crate) const fn from_i64(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Member),
            1 => Some(Self::Admin),
            2 => Some(Self::Owner),
            _ => None,
        }
    }

    pub(crate) const fn as_i64(self) -> i64 {
        match self {
            Self::Member => 0,
            Self::Admin => 1,
            Self::Owner => 2,
        }
    }
}

/// What a user may see of a conversation: the entries from `from` to `to`, both included. A direct conversation is seen whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first entry.
    pub from: Seq,
    /// The last one; [`Seq::MAX`] while the user is in it.
    pub to: Seq,
}

impl Span {
    /// All there is.
    pub const ALL: Self = Self { from: Seq::ZERO, to: Seq::MAX };

    /// Whether the user is in it now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.to == Seq::MAX
    }

    /// Whether it holds this place.
    #[must_use]
    pub fn has(&self, seq: Seq) -> bool {
        self.from <= seq && seq <= self.to
    }
}

/// A group's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its conversation.
    pub conv: ConvId,
    /// Its name.
    pub name: Arc<str>,
    /// Whoever knows its id may join.
    pub open: bool,
    /// How many are in it.
    pub members: u64,
}

/// A group as one of its members, or who is invited, sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: Group,
    /// The role in it; `None` for who is invited.
    pub role: Option<Role>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user: UserId,
    /// Its name.
    pub name: Arc<str>,
    /// Its role.
    pub role: Role,
    /// The place of the entry that tells of its joining.
    pub since: Seq,
}

/// An open invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// To which group.
    pub conv: ConvId,
    /// Its name.
    pub name: Arc<str>,
    /// Who invited.
    pub inviter: UserId,
    /// The name of `inviter`.
    pub inviter_name: Arc<str>,
}

/// How a user stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FriendState {
    /// They are friends.
    Friend,
    /// The user has asked the other.
    Requested,
    /// The other has asked the user.
    Incoming,
}

impl FriendState {
    pub(crate) const fn from_i64(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Friend),
            1 => Some(Self::Requested),
            2 => Some(Self::Incoming),
            _ => None,
        }
    }

    pub(crate) const fn as_i64(self) -> i64 {
        match self {
            Self::Friend => 0,
            Self::Requested => 1,
            Self::Incoming => 2,
        }
    }
}

/// Another user in a list of friends or blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Friend {
    /// The other user.
    pub user: UserId,
    /// Its name.
    pub name: Arc<str>,
    /// How they stand.
    pub state: FriendState,
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
    /// The other user; in a direct conversation only.
    pub peer: Option<UserId>,
    /// The other user's name, or the group's.
    pub name: Arc<str>,
    /// The place of the last entry that the user may see.
    pub last_seq: Seq,
    /// The user's delivered cursor.
    pub delivered: Seq,
    /// The user's read cursor.
    pub read: Seq,
    /// Visible entries by others after `read` and after the user's own last entry.
    pub unread: u64,
}

/// Where a user's stream of one conversation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The conversation.
    pub conv: ConvId,
    /// The other user; in a direct conversation only.
    pub other: Option<UserId>,
    /// The user's delivered cursor.
    pub delivered: Seq,
    /// The place of the conversation's last entry.
    pub last_seq: Seq,
    /// What the user may see, in order; for a member the last of them is open.
    pub spans: Vec<Span>,
    /// One of the two has blocked the other.
    pub blocked: bool,
}

impl Position {
    /// Whether something that the user may see lies beyond `seq`.
    #[must_use]
    pub fn has_beyond(&self, seq: Seq) -> bool {
        self.spans.iter().any(|span| span.from.max(seq.next()) <= span.to.min(self.last_seq))
    }

    /// The place of the last entry that the user may see.
    #[must_use]
    pub fn visible_end(&self) -> Seq {
        self.spans.last().map_or(Seq::ZERO, |span| span.to.min(self.last_seq))
    }
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
