//! What a client asks: a line is parsed once, here, into a command that cannot be invalid.

mod accounts;
mod friends;
mod groups;
mod messages;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ErrorCode;
use crate::group::Role;
use crate::ids::{ConvId, Seq, UserId};
use crate::limits::{ID_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use crate::text::{GroupName, Name};
use accounts::{FindUserBody, LoginBody, LogoutBody, PasswordBody, RegisterBody, SyncBody};
use friends::{UserBody, UserPageBody};
use groups::{CreateBody, GroupPageBody, MemberBody, MembersBody, RenameBody, RoleBody};
use messages::{ConversationsBody, CursorBody, HistoryBody, SendBody};

/// The number that a request carries and its reply repeats: 0 to [`ID_MAX`].
pub type RequestId = u64;

/// A request with the id that its reply is to carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<'a> {
    /// The id; without one there is no `ok`.
    pub id: Option<RequestId>,
    /// What is asked.
    pub request: Request<'a>,
}

/// A user, named by number or by name.
#[derive(Clone, Debug, PartialEq)]
pub enum UserRef<'a> {
    /// By id.
    Id(UserId),
    /// By name.
    Name(Name<'a>),
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Target<'a> {
    /// To a user: the direct conversation with them, begun if there is none.
    User(UserRef<'a>),
    /// To a conversation.
    Conv(ConvId),
}

/// By what a login is proven.
#[derive(Clone, Debug, PartialEq)]
pub enum Proof<'a> {
    /// By name and password.
    Password(Name<'a>, Cow<'a, str>),
    /// By a token from an earlier login.
    Token(Cow<'a, str>),
}

/// Which page of a history is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The newest entries.
    Last,
    /// The entries next below this one.
    Before(Seq),
    /// The entries next above this one.
    After(Seq),
}

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<I> {
    /// What has a greater id than this one.
    pub after: Option<I>,
    /// At most so many.
    pub limit: usize,
}

/// A valid request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// Is anybody there?
    Ping,
    /// Make a user.
    Register {
        /// The new user's name.
        name: Name<'a>,
        /// Their password.
        password: Cow<'a, str>,
    },
    /// Begin a session.
    Login {
        /// Who, and how it is proven.
        proof: Proof<'a>,
        /// What the user calls this device.
        device: Option<Cow<'a, str>>,
        /// The protocol version that the client wants.
        version: Option<u64>,
        /// Push nothing before `sync`.
        hold: bool,
    },
    /// After a login with `hold`: this device's own cursors.
    Sync {
        /// Up to where this device has each conversation.
        cursors: Vec<(ConvId, Seq)>,
        /// Whether more of them follow.
        more: bool,
    },
    /// End the session.
    Logout {
        /// And every other session and token of the user.
        all: bool,
    },
    /// Change the password.
    Password {
        /// The present one.
        old: Cow<'a, str>,
        /// The new one.
        new: Cow<'a, str>,
    },
    /// Look a user up.
    FindUser {
        /// By this name.
        name: Name<'a>,
    },
    /// Send a message.
    Send {
        /// Makes a resend harmless.
        client_id: Option<Cow<'a, str>>,
        /// Where to.
        target: Target<'a>,
        /// What.
        text: Cow<'a, str>,
    },
    /// Everything up to `seq` has arrived here.
    Ack {
        /// In this conversation.
        conv: ConvId,
        /// Up to here.
        seq: Seq,
    },
    /// Everything up to `seq` was read.
    Read {
        /// In this conversation.
        conv: ConvId,
        /// Up to here.
        seq: Seq,
    },
    /// The user is typing.
    Typing {
        /// In this conversation.
        conv: ConvId,
    },
    /// Up to where the members have received and read.
    Marks {
        /// In this conversation.
        conv: ConvId,
    },
    /// A page of entries.
    History {
        /// Of this conversation.
        conv: ConvId,
        /// Which page.
        bound: Bound,
        /// At most so many.
        limit: usize,
    },
    /// The user's conversations.
    Conversations {
        /// Those with greater ids.
        after: Option<ConvId>,
        /// At most so many.
        limit: usize,
    },
    /// Ask a user to be a friend.
    FriendRequest {
        /// Whom.
        user: UserRef<'a>,
    },
    /// Say yes to a user who has asked.
    FriendAccept {
        /// To whom.
        user: UserRef<'a>,
    },
    /// Say no to a user who has asked.
    FriendReject {
        /// To whom.
        user: UserRef<'a>,
    },
    /// Be friends no longer, or take a request back.
    FriendRemove {
        /// With whom.
        user: UserRef<'a>,
    },
    /// The user's friends, and who is to become one.
    Friends {
        /// Which of them.
        page: Page<UserId>,
    },
    /// Have nothing to do with a user.
    Block {
        /// With whom.
        user: UserRef<'a>,
    },
    /// Lift a block.
    Unblock {
        /// From whom.
        user: UserRef<'a>,
    },
    /// Whom the user has blocked.
    Blocked {
        /// Which of them.
        page: Page<UserId>,
    },
    /// Make a group.
    GroupCreate {
        /// What it is called.
        name: GroupName<'a>,
        /// Whether one can join without an invitation.
        open: bool,
    },
    /// Become a member.
    GroupJoin {
        /// Of this group.
        conv: ConvId,
    },
    /// Be a member no longer.
    GroupLeave {
        /// Of this group.
        conv: ConvId,
    },
    /// Invite a user.
    GroupInvite {
        /// To this group.
        conv: ConvId,
        /// Whom.
        user: UserRef<'a>,
    },
    /// Put a member out.
    GroupKick {
        /// Of this group.
        conv: ConvId,
        /// Whom.
        user: UserRef<'a>,
    },
    /// Give a member another role.
    GroupRole {
        /// In this group.
        conv: ConvId,
        /// Whom.
        user: UserRef<'a>,
        /// Which.
        role: Role,
    },
    /// Call a group otherwise.
    GroupRename {
        /// This one.
        conv: ConvId,
        /// Its new name.
        name: GroupName<'a>,
    },
    /// A group's members.
    GroupMembers {
        /// Of this one.
        conv: ConvId,
        /// Which of them.
        page: Page<UserId>,
    },
    /// The user's groups, and those that they are invited to.
    Groups {
        /// Which of them.
        page: Page<ConvId>,
    },
}

/// A line that is no valid request, and the reply that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The id, where the line had a valid one.
    pub id: Option<RequestId>,
    /// `bad_json`, `bad_request`, `too_large` or `unsupported_type`.
    pub code: ErrorCode,
    /// For people.
    pub message: Cow<'static, str>,
}

impl BadLine {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { id: None, code, message: message.into() }
    }

    fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// Whether it counts towards the bad lines in a row that end a connection.
    #[must_use]
    pub const fn counts(&self) -> bool {
        matches!(self.code, ErrorCode::BadJson | ErrorCode::BadRequest)
    }
}

/// Parses a line, its end not included. Borrows from it where no escape stands in the way.
///
/// # Errors
/// The reply that the line gets.
pub fn parse(line: &[u8]) -> Result<Envelope<'_>, BadLine> {
    let not_json = || BadLine::new(ErrorCode::BadJson, "the line is not a JSON object in UTF-8");
    let text = std::str::from_utf8(line).map_err(|_| not_json())?;
    // serde takes arrays for structs; the protocol does not.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(not_json());
    }
    let head: Head<'_> = serde_json::from_str(text)
        .map_err(|error| if error.is_data() { field_error(&error) } else { not_json() })?;
    let id = head.id()?;
    let kind = head.kind().map_err(|bad| BadLine { id, ..bad })?;
    match parse_body(&kind, id, text) {
        Ok(request) => Ok(Envelope { id, request }),
        Err(bad) => Err(BadLine { id, ..bad }),
    }
}

/// Characters of an error's text. Even escaped they are far from the limit of a line.
const ERROR_CHARS_MAX: usize = 120;

fn field_error(error: &serde_json::Error) -> BadLine {
    let text = error.to_string();
    // serde's own words, without the place in the line, which means nothing to a person, and without more of the line than a person would read.
    let words = text.split(" at line ").next().unwrap_or_default();
    let short: String = words.chars().take(ERROR_CHARS_MAX).collect();
    BadLine::bad_request(short)
}

fn body<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BadLine> {
    serde_json::from_str(text).map_err(|error| {
        // The head has parsed, so the line is JSON; what is left is a lone surrogate or a field.
        if error.is_data() {
            field_error(&error)
        } else {
            BadLine::new(ErrorCode::BadJson, "the line is not a JSON object in UTF-8")
        }
    })
}

fn parse_body<'a>(kind: &str, id: Option<RequestId>, text: &'a str) -> Result<Request<'a>, BadLine> {
    let conv = || body::<ConvBody>(text).map(|body| body.conv);
    let cursor = || body::<CursorBody>(text).map(|body| (body.conv, body.seq));
    let user = || body::<UserBody<'_>>(text)?.check();
    let users = || body::<UserPageBody>(text)?.check();
    let member = || body::<MemberBody<'_>>(text)?.check();
    Ok(match kind {
        "ping" => Request::Ping,
        "register" => body::<RegisterBody<'_>>(text)?.check()?,
        "login" => body::<LoginBody<'_>>(text)?.check()?,
        "sync" => body::<SyncBody>(text)?.check(),
        "logout" => body::<LogoutBody>(text)?.check(),
        "password" => body::<PasswordBody<'_>>(text)?.check()?,
        "find_user" => body::<FindUserBody<'_>>(text)?.check()?,
        "send" => body::<SendBody<'_>>(text)?.check(id)?,
        "ack" => cursor().map(|(conv, seq)| Request::Ack { conv, seq })?,
        "read" => cursor().map(|(conv, seq)| Request::Read { conv, seq })?,
        "typing" => Request::Typing { conv: conv()? },
        "marks" => Request::Marks { conv: conv()? },
        "history" => body::<HistoryBody>(text)?.check()?,
        "conversations" => body::<ConversationsBody>(text)?.check()?,
        "friend_request" => Request::FriendRequest { user: user()? },
        "friend_accept" => Request::FriendAccept { user: user()? },
        "friend_reject" => Request::FriendReject { user: user()? },
        "friend_remove" => Request::FriendRemove { user: user()? },
        "friends" => Request::Friends { page: users()? },
        "block" => Request::Block { user: user()? },
        "unblock" => Request::Unblock { user: user()? },
        "blocked" => Request::Blocked { page: users()? },
        "group_create" => body::<CreateBody<'_>>(text)?.check()?,
        "group_join" => Request::GroupJoin { conv: conv()? },
        "group_leave" => Request::GroupLeave { conv: conv()? },
        "group_invite" => member().map(|(conv, user)| Request::GroupInvite { conv, user })?,
        "group_kick" => member().map(|(conv, user)| Request::GroupKick { conv, user })?,
        "group_role" => body::<RoleBody<'_>>(text)?.check()?,
        "group_rename" => body::<RenameBody<'_>>(text)?.check()?,
        "group_members" => body::<MembersBody>(text)?.check()?,
        "groups" => Request::Groups { page: body::<GroupPageBody>(text)?.check()? },
        _ => {
            return Err(BadLine::new(
                ErrorCode::UnsupportedType,
                "this server knows no such type of request",
            ));
        }
    })
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl Head<'_> {
    fn id(&self) -> Result<Option<RequestId>, BadLine> {
        let Some(raw) = self.id else { return Ok(None) };
        match serde_json::from_str::<u64>(raw.get()) {
            Ok(id) if id <= ID_MAX => Ok(Some(id)),
            _ => Err(BadLine::bad_request("`id` must be an integer from 0 to 2^53 - 1")),
        }
    }

    fn kind(&self) -> Result<Cow<'_, str>, BadLine> {
        let wrong = || BadLine::bad_request("`type` must be a string");
        let raw = self.kind.ok_or_else(wrong)?.get();
        // Nearly always a plain string: borrow it without a parse.
        match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
            _ => serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|_| wrong()),
        }
    }
}

fn name(text: Cow<'_, str>) -> Result<Name<'_>, BadLine> {
    Name::new(text).ok_or_else(|| {
        BadLine::bad_request("a name is 1 to 32 letters, digits or combining marks, or one of `_-.`")
    })
}

fn limit(limit: Option<u64>) -> Result<usize, BadLine> {
    let limit = limit.map_or(Some(LIST_LIMIT_DEFAULT), |limit| usize::try_from(limit).ok());
    limit
        .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
        .ok_or_else(|| BadLine::bad_request("`limit` must be from 1 to 200"))
}

/// The last id seen, behind which a list goes on.
fn after<I>(after: Option<u64>, id: impl Fn(u64) -> Option<I>) -> Result<Option<I>, BadLine> {
    // 0 is a natural "from the beginning".
    match after {
        None | Some(0) => Ok(None),
        Some(after) => id(after).map(Some).ok_or_else(|| BadLine::bad_request("`after` is out of range")),
    }
}

#[derive(Deserialize)]
struct ConvBody {
    conv: ConvId,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`user` must be an id or a name")]
enum UserField<'a> {
    Id(UserId),
    Name(#[serde(borrow)] Cow<'a, str>),
}

impl<'a> UserField<'a> {
    fn check(self) -> Result<UserRef<'a>, BadLine> {
        match self {
            Self::Id(user) => Ok(UserRef::Id(user)),
            Self::Name(text) => name(text).map(UserRef::Name),
        }
    }
}

#[cfg(test)]
mod tests;
