//! The login service's messages: what a chat server asks it and what it answers, in one process or over a network.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::{SessionId, UserId};

/// The name of a token: its SHA-256. Knowing it lets nobody in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

impl fmt::Debug for TokenId {
    /// The first bytes, which is enough to tell tokens apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenId(")?;
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…)")
    }
}

/// What a login is proven by. Its `Debug` hides every secret.
#[derive(Clone, PartialEq, Eq)]
pub enum LoginBy {
    /// A name and its password.
    Password {
        /// The name as the user spelled it.
        name: String,
        /// The password.
        password: String,
    },
    /// A token of an earlier login.
    Token(String),
}

impl fmt::Debug for LoginBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { name, .. } => {
                f.debug_struct("Password").field("name", name).finish_non_exhaustive()
            }
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// A request to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// The proof.
    pub by: LoginBy,
    /// A label for the new token; a login by token keeps the old one.
    pub device: Option<String>,
}

/// One call to the login service. Its `Debug` hides every secret.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginCall {
    /// Make an account.
    Register {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
    /// Start a session.
    Login(LoginRequest),
    /// Revoke a token, or with `all` every token of the user.
    Logout {
        /// The token of the session that asks.
        token: TokenId,
        /// The user of the session that asks.
        user: UserId,
        /// Every token, not only this one.
        all: bool,
    },
    /// Revoke every token of a user, for the operator.
    Revoke {
        /// Whose.
        user: UserId,
    },
    /// Ask whom a token lets in, without using it.
    Verify {
        /// The token.
        token: String,
    },
    /// Change a password; every token but `keep` is revoked.
    ChangePassword {
        /// Whose.
        user: UserId,
        /// The token of the session that asks.
        keep: TokenId,
        /// The password until now.
        old: String,
        /// The password from now on.
        new: String,
    },
    /// Set a password, for the operator; every token is revoked. A disabled account stays so.
    SetPassword {
        /// Whose.
        user: UserId,
        /// The password from now on.
        password: String,
    },
}

impl LoginCall {
    /// Whether the call computes a password hash, which is made to be slow.
    #[must_use]
    pub const fn hashes(&self) -> bool {
        match self {
            Self::Register { .. } | Self::ChangePassword { .. } | Self::SetPassword { .. } => true,
            Self::Login(request) => matches!(request.by, LoginBy::Password { .. }),
            Self::Logout { .. } | Self::Revoke { .. } | Self::Verify { .. } => false,
        }
    }
}

impl fmt::Debug for LoginCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { name, .. } => {
                f.debug_struct("Register").field("name", name).finish_non_exhaustive()
            }
            Self::Login(request) => f.debug_tuple("Login").field(request).finish(),
            Self::Logout { token, user, all } => {
                f.debug_struct("Logout").field("token", token).field("user", user).field("all", all).finish()
            }
            Self::Revoke { user } => f.debug_struct("Revoke").field("user", user).finish(),
            Self::Verify { .. } => f.write_str("Verify(…)"),
            Self::SetPassword { user, .. } => {
                f.debug_struct("SetPassword").field("user", user).finish_non_exhaustive()
            }
            Self::ChangePassword { user, .. } => {
                f.debug_struct("ChangePassword").field("user", user).finish_non_exhaustive()
            }
        }
    }
}

/// Who asks: for the back-off of failed logins and for the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, as the chat server sees it; `None` where there is none, as for the operator.
    pub address: Option<IpAddr>,
    /// The chat server's name.
    pub node: Arc<str>,
}

/// A session that has begun. Its `Debug` hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Who.
    pub user: UserId,
    /// The name as spelled at registration.
    pub name: String,
    /// The credential for the next login.
    pub token: String,
    /// Until when it is valid, unless used before.
    pub expires_ms: i64,
    /// The new session.
    pub session: SessionId,
    /// The name of `token`.
    pub token_id: TokenId,
    /// Tokens that had to go because the user holds too many; their sessions end.
    pub evicted: Vec<TokenId>,
}

impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn")
            .field("user", &self.user)
            .field("name", &self.name)
            .field("session", &self.session)
            .field("token_id", &self.token_id)
            .finish_non_exhaustive()
    }
}

/// Whom a token lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub user: UserId,
    /// The name as spelled at registration.
    pub name: String,
    /// The name of the token.
    pub token_id: TokenId,
    /// Until when it is valid.
    pub expires_ms: i64,
}

/// The answer to a call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginReplyOk {
    /// To `Register`.
    Registered {
        /// The new user.
        user: UserId,
    },
    /// To `Login`.
    LoggedIn(LoggedIn),
    /// To `Logout`, `Revoke`, `ChangePassword` and `SetPassword`.
    Revoked {
        /// The tokens that are no longer valid; their sessions end.
        tokens: Vec<TokenId>,
    },
    /// To `Verify`.
    Verified(Verified),
}

/// The answer to a call.
pub type LoginReply = Result<LoginReplyOk, LoginError>;

/// Why a call was refused. The texts are for clients: they hold no SQL, no path and nobody's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// Wrong name, wrong password, or a token that lets nobody in.
    #[error("wrong name, password or token")]
    Unauthorized,
    /// The name is taken.
    #[error("this name is taken")]
    Conflict,
    /// The name or the password is not of the form that the protocol asks for.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The service does not do this, or not for this caller.
    #[error("this is not allowed")]
    Forbidden,
    /// The tables are not available.
    #[error("the login service is unavailable")]
    Unavailable,
    /// Too many calls wait.
    #[error("the login service is overloaded")]
    Overloaded,
    /// Too many failed logins, of this address or as this user.
    #[error("too many failed logins; wait and try again")]
    RateLimited {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// A defect of the service.
    #[error("the login service failed")]
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let call = LoginCall::Register { name: "amy".into(), password: "s3cret-word".into() };
        let login =
            LoginCall::Login(LoginRequest { by: LoginBy::Token("s3cret-token".into()), device: None });
        let by_name = LoginBy::Password { name: "amy".into(), password: "s3cret-word".into() };
        let verify = LoginCall::Verify { token: "s3cret".into() };
        let user = UserId::new(1).unwrap();
        let keep = TokenId([7; 32]);
        let change =
            LoginCall::ChangePassword { user, keep, old: "s3cret-old".into(), new: "s3cret-new".into() };
        let logged_in = LoggedIn {
            user,
            name: "amy".into(),
            token: "s3cret-token".into(),
            expires_ms: 1,
            session: SessionId::new(1).unwrap(),
            token_id: keep,
            evicted: Vec::new(),
        };
        let all = format!("{call:?}{login:?}{by_name:?}{verify:?}{change:?}{logged_in:?}");
        assert!(!all.contains("s3cret"), "{all}");
        assert!(all.contains("amy"), "{all}");
    }

    #[test]
    fn only_passwords_are_hashed() {
        let token = LoginCall::Login(LoginRequest { by: LoginBy::Token("t".into()), device: None });
        assert!(!token.hashes());
        let by = LoginBy::Password { name: "amy".into(), password: "p".into() };
        assert!(LoginCall::Login(LoginRequest { by, device: None }).hashes());
    }
}
