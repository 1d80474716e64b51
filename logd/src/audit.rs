//! The audit log: who registered, logged in, failed to, changed a password or was revoked, and from where.
//!
//! Each event is a record of the target `audit`: at level info when it was done, at level warn when it was refused. Nothing secret is in it.

use std::fmt;
use std::time::Duration;

use schema::UserId;
use schema::login::{LoginBy, LoginCall, LoginError, LoginReply, LoginReplyOk, Origin};

/// The target of these records.
pub(crate) const TARGET: &str = "audit";

/// What a call is about, kept while it is carried out.
#[derive(Debug)]
pub(crate) struct Event {
    what: &'static str,
    name: Option<String>,
    user: Option<UserId>,
}

impl Event {
    /// `None`: a call that changes nothing and is made often.
    pub(crate) fn of(call: &LoginCall) -> Option<Self> {
        let named = |what, name: &str| Self { what, name: Some(name.to_owned()), user: None };
        let of = |what, user: UserId| Self { what, name: None, user: Some(user) };
        Some(match call {
            LoginCall::Register { name, .. } => named("register", name),
            LoginCall::Login(request) => match &request.by {
                LoginBy::Password { name, .. } => named("login by=password", name),
                LoginBy::Token(_) => Self { what: "login by=token", name: None, user: None },
            },
            LoginCall::Logout { user, all: false, .. } => of("logout", *user),
            LoginCall::Logout { user, all: true, .. } => of("logout all", *user),
            LoginCall::Revoke { user } => of("revoke", *user),
            LoginCall::ChangePassword { user, .. } => of("change_password", *user),
            LoginCall::SetPassword { user, .. } => of("set_password", *user),
            _ => return None,
        })
    }

    /// Writes down how it ended. `wait` is how long this client has to wait before it may try a password again.
    pub(crate) fn ended(self, origin: &Origin, reply: &LoginReply, wait: Duration) {
        match reply {
            Ok(done) => log::info!(target: TARGET, "{}", Line { event: &self, origin, done: Ok(done), wait }),
            Err(error) => {
                if let Some(why) = refusal(*error) {
                    log::warn!(target: TARGET, "{}", Line { event: &self, origin, done: Err(why), wait });
                }
            }
        }
    }
}

/// Refusals that say something of whoever asks. All others are the service's own matter, and in its own log.
const fn refusal(error: LoginError) -> Option<&'static str> {
    match error {
        LoginError::Unauthorized => Some("unauthorized"),
        LoginError::Conflict => Some("conflict"),
        LoginError::Forbidden => Some("forbidden"),
        _ => None,
    }
}

/// `login by=password ok user=12 name="amy" session=7 token=01ab23cd address=192.0.2.1 node="chatd-1"`
struct Line<'a> {
    event: &'a Event,
    origin: &'a Origin,
    done: Result<&'a LoginReplyOk, &'static str>,
    wait: Duration,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { what, name, user } = self.event;
        match self.done {
            Ok(_) => write!(f, "{what} ok")?,
            Err(why) => write!(f, "{what} refused why={why}")?,
        }
        let (mut name, mut user) = (name.as_deref(), *user);
        match self.done {
            Ok(LoginReplyOk::LoggedIn(login)) => (name, user) = (Some(login.name.as_str()), Some(login.user)),
            Ok(LoginReplyOk::Registered { user: new }) => user = Some(*new),
            _ => {}
        }
        if let Some(user) = user {
            write!(f, " user={user}")?;
        }
        if let Some(name) = name {
            // As the client sent it: quoted, and with whatever could pass for something else escaped.
            write!(f, " name={:?}", name.get(..name.floor_char_boundary(128)).unwrap_or_default())?;
        }
        match self.done {
            Ok(LoginReplyOk::LoggedIn(login)) => {
                write!(f, " session={} token={:.8}", login.session, Hex(&login.token_id.0))?;
                if !login.evicted.is_empty() {
                    write!(f, " evicted={}", login.evicted.len())?;
                }
            }
            Ok(LoginReplyOk::Revoked { tokens }) => write!(f, " revoked={}", tokens.len())?,
            _ => {}
        }
        if !self.wait.is_zero() {
            write!(f, " waits_ms={}", self.wait.as_millis())?;
        }
        match self.origin.address {
            Some(address) => write!(f, " address={address}")?,
            None => f.write_str(" address=-")?,
        }
        write!(f, " node={:?}", &*self.origin.node)
    }
}

/// As many digits as the precision asks for.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = f.precision().map_or(self.0.len(), |digits| digits / 2);
        self.0.iter().take(bytes).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::SessionId;
    use schema::login::{LoggedIn, LoginRequest, TokenId};

    fn origin() -> Origin {
        Origin { address: "192.0.2.1".parse().ok(), node: "chatd-1".into() }
    }

    fn line(call: &LoginCall, done: Result<&LoginReplyOk, &'static str>, wait: Duration) -> String {
        let event = Event::of(call).unwrap();
        Line { event: &event, origin: &origin(), done, wait }.to_string()
    }

    fn by_password(name: &str) -> LoginCall {
        let by = LoginBy::Password { name: name.into(), password: "s3cret-word".into() };
        LoginCall::Login(LoginRequest { by, device: None })
    }

    #[test]
    fn a_login_says_who_by_what_and_from_where_and_no_secret() {
        let user = UserId::new(12).unwrap();
        let done = LoginReplyOk::LoggedIn(LoggedIn {
            user,
            name: "Amy".into(),
            token: "s3cret-token".into(),
            expires_ms: 1,
            session: SessionId::new(7).unwrap(),
            token_id: TokenId([0xab; 32]),
            evicted: vec![TokenId([1; 32])],
        });
        assert_eq!(
            line(&by_password("amy"), Ok(&done), Duration::ZERO),
            "login by=password ok user=12 name=\"Amy\" session=7 token=abababab evicted=1 address=192.0.2.1 node=\"chatd-1\""
        );
        let token =
            LoginCall::Login(LoginRequest { by: LoginBy::Token("s3cret-token".into()), device: None });
        let text = line(&token, Ok(&done), Duration::ZERO);
        assert!(text.starts_with("login by=token ok user=12") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn a_refusal_says_why_and_how_long_the_next_try_waits() {
        assert_eq!(
            line(&by_password("amy"), Err("unauthorized"), Duration::from_secs(2)),
            "login by=password refused why=unauthorized name=\"amy\" waits_ms=2000 address=192.0.2.1 node=\"chatd-1\""
        );
    }

    #[test]
    fn a_name_cannot_pass_for_other_fields() {
        let text = line(&by_password("x\" ok user=1\n\u{202e}"), Err("unauthorized"), Duration::ZERO);
        assert!(text.contains(r#"name="x\" ok user=1\n\u{202e}""#), "{text}");
        let long = line(&by_password(&"é".repeat(5_000)), Err("unauthorized"), Duration::ZERO);
        assert!(long.len() < 300, "{}", long.len());
    }

    #[test]
    fn looking_a_token_up_is_no_event() {
        assert!(Event::of(&LoginCall::Verify { token: "x".into() }).is_none());
        assert_eq!(refusal(LoginError::Unavailable), None);
    }
}
