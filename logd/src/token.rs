//! [`TokenManager`]: random tokens, of which only hashes are kept.

use std::sync::Arc;
use std::time::Instant;

use schema::UserId;
use schema::limits::{TOKEN_BYTES, TOKEN_LIFETIME, TOKENS_PER_USER_MAX};
use schema::login::{LoginError, TokenId, Verified};
use sha2::{Digest, Sha256};
use store::dao::{TokenDao, UserDao};
use store::{Connection, Store, StoreError, TokenRow};

use crate::cache::TokenCache;
use crate::password::random;
use crate::service::failed;

/// Makes, checks, renews and revokes tokens. The table is the truth; with a [`TokenCache`] most tokens are looked up there.
///
/// Its calls block: for worker threads only.
#[derive(Clone, Debug)]
pub struct TokenManager {
    store: Store,
    cache: Option<Arc<TokenCache>>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The credential. Nobody but the client keeps it.
    pub token: String,
    /// Its name.
    pub id: TokenId,
    /// Until when it is valid, unless used before.
    pub expires_ms: i64,
    /// Tokens of the user that had to make room.
    pub evicted: Vec<TokenId>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Characters of a token: its bytes, six bits each.
const TOKEN_CHARS: usize = (TOKEN_BYTES * 8).div_ceil(6);

/// A renewal is written only when it gains more than this, so that a client that reconnects often costs no writes.
const RENEWAL_GAIN_MIN_MS: i64 = 3_600_000;

/// Expired tokens, of whomever, that go at each new one: more go than come.
const SWEEP: u32 = 4;

impl TokenManager {
    /// Over these tables.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store, cache: None }
    }

    /// The same, with a cache before the tables.
    #[must_use]
    pub fn with_cache(self, cache: Arc<TokenCache>) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Makes a token for a user whose password was just verified against `password_hash`. When that is no longer the
    /// user's, the password was changed meanwhile and the login fails. A user with the greatest number of tokens loses the
    /// one that expires first.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`], [`LoginError::Unavailable`], [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn issue(
        &self,
        user: UserId,
        device: Option<String>,
        password_hash: String,
        now_ms: i64,
    ) -> Result<Issued, LoginError> {
        let mut bytes = [0; TOKEN_BYTES];
        random(&mut bytes)?;
        let token = url_safe(&bytes);
        let id = token_id(&token);
        let expires_ms = expiry(now_ms);
        let row = TokenRow { hash: id.0, user, device, created_ms: now_ms, expires_ms };
        let evicted = self.store.write_wait(move |db| {
            let now = UserDao::new(db).credentials_by_id(user)?;
            if now.is_none_or(|now| now.password_hash != password_hash) {
                return Ok(None);
            }
            let evicted = make_room(db, user, now_ms)?;
            TokenDao::new(db).insert(&row)?;
            Ok(Some(evicted))
        });
        let evicted = evicted.map_err(failed)?.ok_or(LoginError::Unauthorized)?;
        self.forget(&evicted);
        Ok(Issued { token, id, expires_ms, evicted })
    }

    /// Whom a token lets in. Writes nothing to the tables.
    ///
    /// # Errors
    /// [`LoginError::Unauthorized`], [`LoginError::Unavailable`], [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn check(&self, token: &str, now_ms: i64) -> Result<Verified, LoginError> {
        if token.len() != TOKEN_CHARS {
            return Err(LoginError::Unauthorized);
        }
        let id = token_id(token);
        let known = self.cache.as_ref().and_then(|cache| cache.find(id));
        // One that has expired by what is known here may have been renewed.
        if let Some(known) = known.filter(|known| known.expires_ms > now_ms) {
            return Ok(known);
        }
        let asked = Instant::now();
        let found = self.store.read_wait(move |db| {
            let Some(row) = TokenDao::new(db).find(&id.0)? else { return Ok(None) };
            Ok(UserDao::new(db).by_id(row.user)?.map(|user| (row, user)))
        });
        let (row, user) = found.map_err(failed)?.ok_or(LoginError::Unauthorized)?;
        if row.expires_ms <= now_ms {
            return Err(LoginError::Unauthorized);
        }
        let name = user.name.to_string();
        let found = Verified { user: user.id, name, token_id: id, expires_ms: row.expires_ms };
        self.keep(&found, asked);
        Ok(found)
    }

    /// [`check`](Self::check), and moves the expiry when that gains more than an hour.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn renew(&self, token: &str, now_ms: i64) -> Result<Verified, LoginError> {
        let found = self.check(token, now_ms)?;
        let expires_ms = expiry(now_ms);
        if expires_ms - found.expires_ms <= RENEWAL_GAIN_MIN_MS {
            return Ok(found);
        }
        let hash = found.token_id.0;
        let asked = Instant::now();
        let row = self.store.write_wait(move |db| {
            TokenDao::new(db).renew(&hash, expires_ms)?;
            // Read again: it may have been revoked, or renewed by another connection, since it was checked.
            TokenDao::new(db).find(&hash)
        });
        let Some(row) = row.map_err(failed)? else {
            self.forget(&[found.token_id]);
            return Err(LoginError::Unauthorized);
        };
        let found = Verified { expires_ms: row.expires_ms, ..found };
        self.keep(&found, asked);
        Ok(found)
    }

    /// Revokes one token of a user, or all of them, and returns those that were there.
    ///
    /// # Errors
    /// [`LoginError::Unavailable`], [`LoginError::Overloaded`], [`LoginError::Internal`].
    pub fn revoke(&self, user: UserId, token: TokenId, all: bool) -> Result<Vec<TokenId>, LoginError> {
        let gone = self.store.write_wait(move |db| {
            let mut tokens = TokenDao::new(db);
            if all {
                tokens.delete_all(user, None)
            } else {
                Ok(tokens.delete(user, &token.0)?.then_some(token.0).into_iter().collect())
            }
        });
        let gone: Vec<_> = gone.map_err(failed)?.into_iter().map(TokenId).collect();
        if gone.is_empty() && !all {
            // Somebody else was first, and perhaps could not tell the cache.
            self.forget(&[token]);
        }
        self.forget(&gone);
        Ok(gone)
    }

    /// Tokens were revoked in the table: the cache hears of it.
    pub(crate) fn forget(&self, tokens: &[TokenId]) {
        if let Some(cache) = &self.cache {
            cache.forget(tokens);
        }
    }

    fn keep(&self, found: &Verified, asked: Instant) {
        if let Some(cache) = &self.cache {
            cache.keep(found, asked);
        }
    }
}

/// Removes what has expired, and of the rest the first to expire, until one more token fits.
fn make_room(db: &mut Connection, user: UserId, now_ms: i64) -> Result<Vec<TokenId>, StoreError> {
    let mut tokens = TokenDao::new(db);
    tokens.delete_expired(now_ms, SWEEP)?;
    let (expired, valid): (Vec<_>, Vec<_>) =
        tokens.of_user(user)?.into_iter().partition(|row| row.expires_ms <= now_ms);
    let surplus = (valid.len() + 1).saturating_sub(TOKENS_PER_USER_MAX);
    let evicted: Vec<_> = valid.into_iter().take(surplus).map(|row| TokenId(row.hash)).collect();
    for hash in expired.iter().map(|row| &row.hash).chain(evicted.iter().map(|id| &id.0)) {
        tokens.delete(user, hash)?;
    }
    Ok(evicted)
}

fn expiry(now_ms: i64) -> i64 {
    now_ms.saturating_add(i64::try_from(TOKEN_LIFETIME.as_millis()).unwrap_or(i64::MAX))
}

/// The name of a token: the SHA-256 of its text.
fn token_id(token: &str) -> TokenId {
    TokenId(Sha256::digest(token.as_bytes()).into())
}

/// RFC 4648's alphabet for URLs and file names, without padding.
fn url_safe(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(TOKEN_CHARS);
    let (mut bits, mut count) = (0_u32, 0);
    let mut push = |six: u32| {
        let at = usize::try_from(six & 63).unwrap_or_default();
        text.extend(ALPHABET.get(at).map(|c| char::from(*c)));
    };
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 6 {
            count -= 6;
            push(bits >> count);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        push(bits << (6 - count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_safe_agrees_with_known_pairs() {
        assert_eq!(url_safe(b""), "");
        assert_eq!(url_safe(b"f"), "Zg");
        assert_eq!(url_safe(b"fo"), "Zm8");
        assert_eq!(url_safe(b"foo"), "Zm9v");
        assert_eq!(url_safe(b"foobar"), "Zm9vYmFy");
        assert_eq!(url_safe(&[0xfb, 0xff, 0xfe]), "-__-");
        assert_eq!(url_safe(&[7; TOKEN_BYTES]).len(), TOKEN_CHARS);
    }
}
