//! What a client asks: a line is parsed once, here, into a command that cannot be invalid.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ErrorCode;
use crate::ids::{ConvId, Seq, UserId};
use crate::limits::{ID_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use crate::text::{Name, TextFault, check_text, is_client_id, is_device, is_password};

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
    match kind {
        "ping" => Ok(Request::Ping),
        "register" => body::<RegisterBody<'_>>(text)?.check(),
        "login" => body::<LoginBody<'_>>(text)?.check(),
        "sync" => body::<SyncBody>(text)?.check(),
        "logout" => Ok(Request::Logout { all: body::<LogoutBody>(text)?.all.unwrap_or(false) }),
        "password" => body::<PasswordBody<'_>>(text)?.check(),
        "find_user" => Ok(Request::FindUser { name: name(body::<FindUserBody<'_>>(text)?.name)? }),
        "send" => body::<SendBody<'_>>(text)?.check(id),
        "ack" => body::<CursorBody>(text).map(|body| Request::Ack { conv: body.conv, seq: body.seq }),
        "read" => body::<CursorBody>(text).map(|body| Request::Read { conv: body.conv, seq: body.seq }),
        "typing" => body::<ConvBody>(text).map(|body| Request::Typing { conv: body.conv }),
        "marks" => body::<ConvBody>(text).map(|body| Request::Marks { conv: body.conv }),
        "history" => body::<HistoryBody>(text)?.check(),
        "conversations" => body::<ConversationsBody>(text)?.check(),
        _ => Err(BadLine::new(ErrorCode::UnsupportedType, "this server knows no such type of request")),
    }
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

fn password(text: Cow<'_, str>) -> Result<Cow<'_, str>, BadLine> {
    if is_password(&text) { Ok(text) } else { Err(BadLine::bad_request("a password has 8 to 128 bytes")) }
}

fn limit(limit: Option<u64>) -> Result<usize, BadLine> {
    let limit = limit.map_or(Some(LIST_LIMIT_DEFAULT), |limit| usize::try_from(limit).ok());
    limit
        .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
        .ok_or_else(|| BadLine::bad_request("`limit` must be from 1 to 200"))
}

#[derive(Deserialize)]
struct RegisterBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    password: Cow<'a, str>,
}

impl<'a> RegisterBody<'a> {
    fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::Register { name: name(self.name)?, password: password(self.password)? })
    }
}

#[derive(Deserialize)]
struct LoginBody<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    password: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    version: Option<u64>,
    hold: Option<bool>,
}

impl<'a> LoginBody<'a> {
    fn check(self) -> Result<Request<'a>, BadLine> {
        let proof = match (self.name, self.password, self.token) {
            (Some(n), Some(p), None) => Proof::Password(name(n)?, password(p)?),
            (None, None, Some(token)) => Proof::Token(token),
            _ => return Err(BadLine::bad_request("a login needs `name` and `password`, or `token`")),
        };
        if self.device.as_deref().is_some_and(|device| !is_device(device)) {
            return Err(BadLine::bad_request("`device` is at most 64 characters, none a control character"));
        }
        Ok(Request::Login {
            proof,
            device: self.device,
            version: self.version,
            hold: self.hold.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
struct SyncBody {
    cursors: Cursors,
    more: Option<bool>,
}

/// An object whose keys are conv ids as strings, for JSON has no others.
struct Cursors(Vec<(ConvId, Seq)>);

impl<'de> Deserialize<'de> for Cursors {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Cursors;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of conv ids and seqs")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Cursors, A::Error> {
                let mut cursors = Vec::new();
                while let Some((key, seq)) = map.next_entry::<Cow<'de, str>, Seq>()? {
                    let conv = key.parse().ok().and_then(ConvId::new);
                    let conv =
                        conv.ok_or_else(|| serde::de::Error::custom("a key of `cursors` is no conv id"))?;
                    cursors.push((conv, seq));
                }
                Ok(Cursors(cursors))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl SyncBody {
    fn check(self) -> Result<Request<'static>, BadLine> {
        Ok(Request::Sync { cursors: self.cursors.0, more: self.more.unwrap_or(false) })
    }
}

#[derive(Deserialize)]
struct LogoutBody {
    all: Option<bool>,
}

#[derive(Deserialize)]
struct PasswordBody<'a> {
    #[serde(borrow)]
    old: Cow<'a, str>,
    #[serde(borrow)]
    new: Cow<'a, str>,
}

impl<'a> PasswordBody<'a> {
    fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::Password { old: password(self.old)?, new: password(self.new)? })
    }
}

#[derive(Deserialize)]
struct FindUserBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UserField<'a> {
    Id(UserId),
    Name(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Deserialize)]
struct SendBody<'a> {
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<UserField<'a>>,
    conv: Option<ConvId>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl<'a> SendBody<'a> {
    fn check(self, id: Option<RequestId>) -> Result<Request<'a>, BadLine> {
        if id.is_none() {
            return Err(BadLine::bad_request("a `send` needs an `id`"));
        }
        let target = match (self.user, self.conv) {
            (Some(UserField::Id(user)), None) => Target::User(UserRef::Id(user)),
            (Some(UserField::Name(text)), None) => Target::User(UserRef::Name(name(text)?)),
            (None, Some(conv)) => Target::Conv(conv),
            _ => return Err(BadLine::bad_request("a `send` needs either `user` or `conv`")),
        };
        if self.client_id.as_deref().is_some_and(|id| !is_client_id(id)) {
            return Err(BadLine::bad_request("`client_id` is 1 to 64 printable ASCII characters"));
        }
        check_text(&self.text).map_err(|fault| match fault {
            TextFault::Empty => BadLine::bad_request("`text` is empty"),
            TextFault::Control => {
                BadLine::bad_request("`text` has a control character other than newline and tab")
            }
            TextFault::TooLarge => BadLine::new(ErrorCode::TooLarge, "`text` has more than 16384 bytes"),
        })?;
        Ok(Request::Send { client_id: self.client_id, target, text: self.text })
    }
}

#[derive(Deserialize)]
struct CursorBody {
    conv: ConvId,
    seq: Seq,
}

#[derive(Deserialize)]
struct ConvBody {
    conv: ConvId,
}

#[derive(Deserialize)]
struct HistoryBody {
    conv: ConvId,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<u64>,
}

impl HistoryBody {
    fn check(self) -> Result<Request<'static>, BadLine> {
        let bound = match (self.before, self.after) {
            (None, None) => Bound::Last,
            (Some(before), None) => Bound::Before(before),
            (None, Some(after)) => Bound::After(after),
            (Some(_), Some(_)) => {
                return Err(BadLine::bad_request("a history has either `before` or `after`"));
            }
        };
        Ok(Request::History { conv: self.conv, bound, limit: limit(self.limit)? })
    }
}

#[derive(Deserialize)]
struct ConversationsBody {
    after: Option<u64>,
    limit: Option<u64>,
}

impl ConversationsBody {
    fn check(self) -> Result<Request<'static>, BadLine> {
        // 0 is a natural "from the beginning".
        let after = match self.after {
            None | Some(0) => None,
            Some(after) => {
                Some(ConvId::new(after).ok_or_else(|| BadLine::bad_request("`after` is out of range"))?)
            }
        };
        Ok(Request::Conversations { after, limit: limit(self.limit)? })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
