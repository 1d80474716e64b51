//! [`LoginService`]: what the login daemon does, as blocking calls.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use schema::UserId;
use schema::limits::PASSWORD_BYTES_MAX;
use schema::login::{
    LoggedIn, LoginBy, LoginCall, LoginError, LoginReply, LoginReplyOk, LoginRequest, Origin, TokenId,
    Verified,
};
use schema::text::{Name, is_device, is_password};
use store::dao::{TokenDao, UserDao, disabled, is_disabled};
use store::{Store, StoreError};

use crate::audit::Event;
use crate::backoff::{Backoff, Target};
use crate::cache::TokenCache;
use crate::config::LoginConfig;
use crate::password::Hasher;
use crate::token::TokenManager;

/// Tells milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Registers users, lets them in and out, and changes their passwords. Its calls block: for worker threads only.
pub struct LoginService {
    store: Store,
    hasher: Hasher,
    tokens: TokenManager,
    /// `None`: who fails may try again at once.
    backoff: Option<Backoff>,
    clock: Clock,
}

impl std::fmt::Debug for LoginService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginService").field("store", &self.store).finish_non_exhaustive()
    }
}

pub(crate) const BAD_NAME: LoginError =
    LoginError::BadRequest("a name has 1 to 32 characters: letters, digits, combining marks and _-.");
pub(crate) const BAD_PASSWORD: LoginError = LoginError::BadRequest("a password has 8 to 128 bytes");
pub(crate) const BAD_DEVICE: LoginError =
    LoginError::BadRequest("a device has at most 64 characters, without control characters");

impl LoginService {
    /// A service over these tables, with the system's clock. Hashes one password.
    ///
    /// # Errors
    /// [`LoginError::Internal`] when the system gives no random bytes, or the configuration was not validated.
    pub fn new(store: Store, config: &LoginConfig) -> Result<Self, LoginError> {
        Self::with_clock(store, config, Arc::new(system_ms))
    }

    /// A service that takes the time from `clock`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(store: Store, config: &LoginConfig, clock: Clock) -> Result<Self, LoginError> {
        let hasher = Hasher::new(config)?;
        let tokens = TokenManager::new(store.clone());
        let backoff = config.failed_login_backoff.then(Backoff::default);
        Ok(Self { store, hasher, tokens, backoff, clock })
    }

    /// The same, with a cache for tokens before the tables.
    #[must_use]
    pub fn with_cache(self, cache: Arc<TokenCache>) -> Self {
        Self { tokens: self.tokens.with_cache(cache), ..self }
    }

    /// Makes an account. Hashes, unless the name is taken already.
    ///
    /// # Errors
    /// [`LoginError::Conflict`] when the name is taken, [`LoginError::BadRequest`], [`LoginError::Unavailable`],
    /// [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn register(&self, name: &str, password: &str) -> Result<UserId, LoginError> {
        let name = Name::new(Cow::Borrowed(name)).ok_or(BAD_NAME)?.into_owned();
        if !is_password(password) {
            return Err(BAD_PASSWORD);
        }
        let key = name.key().to_owned();
        let taken = self.store.read_wait(move |db| UserDao::new(db).by_name_key(&key)).map_err(failed)?;
        if taken.is_some() {
            return Err(LoginError::Conflict);
        }
        let hash = self.hasher.hash(password)?;
        let now_ms = (self.clock)();
        self.store
            .write_wait(move |db| UserDao::new(db).create(name.shown(), name.key(), &hash, now_ms))
            .map_err(failed)
    }

    /// Starts a session: by password with a new token, by token with the same one renewed.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`] for a wrong name and a wrong password alike, after the same work, and for a token that
    /// is unknown, revoked or expired; [`LoginError::BadRequest`], [`LoginError::Unavailable`],
    /// [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn login(&self, request: LoginRequest) -> Result<LoggedIn, LoginError> {
        let LoginRequest { by, device } = request;
        if device.as_deref().is_some_and(|device| !is_device(device)) {
            return Err(BAD_DEVICE);
        }
        match by {
            LoginBy::Password { name, password } => self.login_by_password(&name, &password, device),
            LoginBy::Token(token) => self.login_by_token(token),
        }
    }

    fn login_by_password(
        &self,
        name: &str,
        password: &str,
        device: Option<String>,
    ) -> Result<LoggedIn, LoginError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(BAD_PASSWORD);
        }
        // A name that breaks the rules is a wrong name like any other.
        let found = match Name::new(Cow::Borrowed(name)) {
            Some(name) => {
                let key = name.key().to_owned();
                self.store
                    .read_wait(move |db| UserDao::new(db).credentials_by_name_key(&key))
                    .map_err(failed)?
            }
            None => None,
        };
        let right = self.hasher.verify(password, found.as_ref().map(|found| found.password_hash.as_str()))?;
        let Some(found) = found.filter(|_| right) else {
            return Err(LoginError::Unauthorized);
        };
        let issued = self.tokens.issue(found.user.id, device, found.password_hash, (self.clock)())?;
        Ok(LoggedIn {
            user: found.user.id,
            name: found.user.name.to_string(),
            token: issued.token,
            expires_ms: issued.expires_ms,
            session: self.store.allocate_session().map_err(failed)?,
            token_id: issued.id,
            evicted: issued.evicted,
        })
    }

    fn login_by_token(&self, token: String) -> Result<LoggedIn, LoginError> {
        let Verified { user, name, token_id, expires_ms } = self.tokens.renew(&token, (self.clock)())?;
        let session = self.store.allocate_session().map_err(failed)?;
        Ok(LoggedIn { user, name, token, expires_ms, session, token_id, evicted: Vec::new() })
    }

    /// Revokes the token of the session that asks, or with `all` every token of its user. Returns those that were there:
    /// their sessions end.
    ///
    /// # Errors
    /// [`LoginError::Unavailable`], [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn logout(&self, token: TokenId, user: UserId, all: bool) -> Result<Vec<TokenId>, LoginError> {
        self.tokens.revoke(user, token, all)
    }

    /// Whom a token lets in. Does not count as its use.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`], [`LoginError::Unavailable`], [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn verify(&self, token: &str) -> Result<Verified, LoginError> {
        self.tokens.check(token, (self.clock)())
    }

    /// Changes a password and revokes every token of the user but `keep`. Returns those that were revoked: their sessions
    /// end. Hashes twice.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`] when `old` is wrong, [`LoginError::BadRequest`], [`LoginError::Unavailable`],
    /// [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn change_password(
        &self,
        user: UserId,
        keep: TokenId,
        old: &str,
        new: &str,
    ) -> Result<Vec<TokenId>, LoginError> {
        if !is_password(new) || old.len() > PASSWORD_BYTES_MAX {
            return Err(BAD_PASSWORD);
        }
        let found =
            self.store.read_wait(move |db| UserDao::new(db).credentials_by_id(user)).map_err(failed)?;
        let before = found.map(|found| found.password_hash);
        if !self.hasher.verify(old, before.as_deref())? {
            return Err(LoginError::Unauthorized);
        }
        let hash = self.hasher.hash(new)?;
        let revoked = self.store.write_wait(move |db| {
            let now = UserDao::new(db).credentials_by_id(user)?.map(|now| now.password_hash);
            if now != before {
                // Another change came first; `old` is no longer the password.
                return Ok(None);
            }
            UserDao::new(db).set_password_hash(user, &hash)?;
            TokenDao::new(db).delete_all(user, Some(&keep.0)).map(Some)
        });
        let revoked = revoked.map_err(failed)?.ok_or(LoginError::Unauthorized)?;
        Ok(self.revoked(revoked))
    }

    /// Sets a password and revokes every token of the user. Returns those that were revoked: their sessions end. An account that is disabled stays so.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`] when there is no such user, [`LoginError::BadRequest`], [`LoginError::Unavailable`], [`LoginError::Overloaded`],
    /// [`LoginError::Internal`].
    pub fn set_password(&self, user: UserId, password: &str) -> Result<Vec<TokenId>, LoginError> {
        if !is_password(password) {
            return Err(BAD_PASSWORD);
        }
        let hash = self.hasher.hash(password)?;
        let revoked = self.store.write_wait(move |db| {
            let mut users = UserDao::new(db);
            let Some(before) = users.credentials_by_id(user)? else { return Ok(None) };
            let hash = if is_disabled(&before.password_hash) { disabled(&hash) } else { hash.clone() };
            users.set_password_hash(user, &hash)?;
            TokenDao::new(db).delete_all(user, None).map(Some)
        });
        let revoked = revoked.map_err(failed)?.ok_or(LoginError::Unauthorized)?;
        Ok(self.revoked(revoked))
    }

    /// The tokens that the table has lost.
    fn revoked(&self, gone: Vec<[u8; 32]>) -> Vec<TokenId> {
        let gone: Vec<_> = gone.into_iter().map(TokenId).collect();
        self.tokens.forget(&gone);
        gone
    }

    /// Does what the call asks for, writes it into the audit log, and remembers failed passwords. The methods above do only the first.
    ///
    /// # Errors
    /// Those of the method that the call stands for, and [`LoginError::RateLimited`] for who has failed too often.
    pub fn call(&self, call: LoginCall, origin: &Origin) -> LoginReply {
        self.admit(&call, origin)?;
        let attempt = self.attempt(&call, origin);
        let event = Event::of(&call);
        let reply = self.carry_out(call);
        let wait = attempt.map_or(Duration::ZERO, |attempt| attempt.ended(&reply));
        if let Some(event) = event {
            event.ended(origin, &reply, wait);
        }
        reply
    }

    /// Whether this call may be made now. Does not block.
    ///
    /// # Errors
    /// [`LoginError::RateLimited`] for who has failed too often.
    pub fn admit(&self, call: &LoginCall, origin: &Origin) -> Result<(), LoginError> {
        let Some(Attempt { backoff, address, target }) = self.attempt(call, origin) else { return Ok(()) };
        backoff.admit(address, &target, Instant::now()).map_err(|wait| {
            let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            LoginError::RateLimited { retry_after_ms }
        })
    }

    /// How often somebody had to wait for earlier failures.
    pub(crate) fn held_up(&self) -> u64 {
        self.backoff.as_ref().map_or(0, Backoff::held_up)
    }

    /// Who tries whose password, if this call tries one and somebody counts.
    fn attempt(&self, call: &LoginCall, origin: &Origin) -> Option<Attempt<'_>> {
        let (backoff, address) = (self.backoff.as_ref()?, origin.address?);
        let target = match call {
            LoginCall::Login(LoginRequest { by: LoginBy::Password { name, .. }, .. }) => {
                // All names that break the rules are one.
                let name = Name::new(Cow::Borrowed(name));
                Target::Name(name.as_ref().map_or("", |name| name.key()).into())
            }
            LoginCall::ChangePassword { user, .. } => Target::User(*user),
            _ => return None,
        };
        Some(Attempt { backoff, address, target })
    }

    fn carry_out(&self, call: LoginCall) -> LoginReply {
        match call {
            LoginCall::Register { name, password } => {
                self.register(&name, &password).map(|user| LoginReplyOk::Registered { user })
            }
            LoginCall::Login(request) => self.login(request).map(LoginReplyOk::LoggedIn),
            LoginCall::Logout { token, user, all } => {
                self.logout(token, user, all).map(|tokens| LoginReplyOk::Revoked { tokens })
            }
            LoginCall::Revoke { user } => {
                self.logout(TokenId([0; 32]), user, true).map(|tokens| LoginReplyOk::Revoked { tokens })
            }
            LoginCall::Verify { token } => self.verify(&token).map(LoginReplyOk::Verified),
            LoginCall::ChangePassword { user, keep, old, new } => {
                self.change_password(user, keep, &old, &new).map(|tokens| LoginReplyOk::Revoked { tokens })
            }
            LoginCall::SetPassword { user, password } => {
                self.set_password(user, &password).map(|tokens| LoginReplyOk::Revoked { tokens })
            }
            // A call of a later version of the messages.
            _ => Err(LoginError::Forbidden),
        }
    }
}

/// A password that is tried.
struct Attempt<'a> {
    backoff: &'a Backoff,
    address: IpAddr,
    target: Target,
}

impl Attempt<'_> {
    /// Remembers the outcome. Returns how long the next try has to wait.
    fn ended(self, reply: &LoginReply) -> Duration {
        match reply {
            Ok(_) => self.backoff.succeeded(self.address, &self.target),
            Err(LoginError::Unauthorized) => {
                return self.backoff.failed(self.address, &self.target, Instant::now());
            }
            Err(_) => {}
        }
        Duration::ZERO
    }
}

/// What the store's error means to a client; what it means to the operator goes into the log.
pub(crate) fn failed(error: StoreError) -> LoginError {
    match error {
        StoreError::Duplicate { .. } => LoginError::Conflict,
        StoreError::Overloaded => LoginError::Overloaded,
        error if error.is_unavailable() => {
            log::debug!("a login call failed: {error}");
            LoginError::Unavailable
        }
        error => {
            log::error!("a login call failed: {error}");
            LoginError::Internal
        }
    }
}

fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
