//! [`TokenCache`]: what tokens say, in Redis, so that most are looked up without a query to the tables.
//!
//! The tables are the truth, and nothing here is needed: without Redis, with an empty one and with one that answers nonsense, tokens are read from the tables.
//! What has to hold is that a revoked token is not found here. So a revocation, once the table has it, leaves a mark in the token's place, and what was
//! read from the table before is not written over a mark. A mark that Redis did not take is owed to it and comes first when it answers again; what another
//! process, which does reach it, may find there until then is as old as the cache's lifetime at most.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Client, Connection, ConnectionInfo, IntoConnectionInfo as _, RedisError, RedisResult};
use schema::UserId;
use schema::login::{TokenId, Verified};

/// How long making a connection, and each answer, may take, unless told otherwise. The tables are asked then.
const TIMEOUT: Duration = Duration::from_millis(250);
/// After a failure Redis is left alone for a while, which doubles, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(1);
/// What was read from the table longer ago is not written any more.
const FILL_MAX: Duration = Duration::from_secs(5);
/// How long a mark stays: longer than what was read before it may still be written.
const MARK_LIFETIME: Duration = Duration::from_secs(60);
const _: () = assert!(MARK_LIFETIME.as_secs() > 2 * FILL_MAX.as_secs(), "a mark outlives late writers");
/// Connections kept when nobody needs them: one for each thread of a usual configuration.
const IDLE_MAX: usize = 4;
/// Marks owed at most: more revocations than that in one lifetime of the cache, with Redis away, are not expected.
const OWED_MAX: usize = 4_096;

/// In the place of a token that is revoked.
const MARK: &str = "-";
/// Writes what a token says, unless there is a mark.
const FILL: &str = "if redis.call('GET',KEYS[1])=='-' then return 0 end redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return 1";

/// Redis as a memory for tokens. Its calls block, for half a second at worst, and never fail: for worker threads only.
pub struct TokenCache {
    client: Client,
    lifetime: Duration,
    timeout: Duration,
    state: Mutex<State>,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// Redis answered when it was last asked.
    is_up: bool,
    /// Attempts that failed since the last that did not.
    failed: u32,
    next_try: Option<Instant>,
    /// Marks that Redis did not take, with the times from which they are no longer needed.
    owed: VecDeque<(TokenId, Instant)>,
}

/// What a cache has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Whether Redis answered when it was last asked.
    pub is_up: bool,
    /// Tokens that were found.
    pub hits: u64,
    /// Tokens that were not, and were looked for in the tables.
    pub misses: u64,
    /// Commands that Redis did not carry out.
    pub failures: u64,
    /// Revocations of which Redis does not know yet.
    pub owed: usize,
}

/// The address of Redis makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("configuration key `redis`: not an address like redis://user:password@host:port/database")]
pub struct BadAddress;

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl TokenCache {
    /// A cache in the Redis at this address, in which nothing stays for longer than `lifetime`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn new(url: &str, lifetime: Duration) -> Result<Self, BadAddress> {
        let server = url.into_connection_info().map_err(|_| BadAddress)?;
        Self::at(server, lifetime)
    }

    /// The same, with the address in parts.
    ///
    /// # Errors
    /// [`BadAddress`] for one that no client can be made for.
    pub fn at(server: ConnectionInfo, lifetime: Duration) -> Result<Self, BadAddress> {
        let client = Client::open(server).map_err(|_| BadAddress)?;
        Ok(Self {
            client,
            lifetime,
            timeout: TIMEOUT,
            state: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// The same, which waits for so long for each answer in place of a quarter of a second.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// What this token says, where that is known here.
    pub fn find(&self, token: TokenId) -> Option<Verified> {
        let found = if self.is_owed(token) {
            None
        } else {
            let value: Option<Option<Vec<u8>>> = self.with(|db| redis::cmd("GET").arg(key(token)).query(db));
            value.flatten().and_then(|value| read(token, &value))
        };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps what the table said of a token when it was asked at `asked`, unless the token was revoked meanwhile.
    pub fn keep(&self, found: &Verified, asked: Instant) {
        if asked.elapsed() > FILL_MAX || self.is_owed(found.token_id) {
            return;
        }
        let _: Option<i64> = self.with(|db| {
            redis::cmd("EVAL")
                .arg(FILL)
                .arg(1)
                .arg(key(found.token_id))
                .arg(write(found))
                .arg(millis(self.lifetime))
                .query(db)
        });
    }

    /// These tokens are revoked, in the table already.
    pub fn forget(&self, tokens: &[TokenId]) {
        if tokens.is_empty() || self.with(|db| mark(db, tokens)).is_some() {
            return;
        }
        let until = Instant::now() + self.lifetime + FILL_MAX;
        let mut state = self.state.lock();
        state.owed.extend(tokens.iter().map(|token| (*token, until)));
        let surplus = state.owed.len().saturating_sub(OWED_MAX);
        state.owed.drain(..surplus);
    }

    /// What was counted.
    pub fn stats(&self) -> CacheStats {
        let (is_up, owed) = {
            let state = self.state.lock();
            (state.is_up, state.owed.len())
        };
        CacheStats {
            is_up,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            owed,
        }
    }

    fn is_owed(&self, token: TokenId) -> bool {
        self.state.lock().owed.iter().any(|(owed, _)| *owed == token)
    }

    /// Does something on a connection. `None`: Redis is left alone just now, or it failed.
    fn with<T>(&self, work: impl Fn(&mut Connection) -> RedisResult<T>) -> Option<T> {
        let (idle, owed) = self.take()?;
        let was_idle = idle.is_some();
        let first = self.attempt(idle, &owed, &work);
        let done = match first {
            // A connection that Redis has closed since it was used says nothing of Redis.
            Err(error) if was_idle && !error.is_timeout() => {
                self.state.lock().idle.clear();
                self.attempt(None, &owed, &work)
            }
            other => other,
        };
        match done {
            Ok((db, value)) => {
                self.give_back(db, &owed);
                Some(value)
            }
            Err(error) => {
                self.note_failure(&error);
                None
            }
        }
    }

    /// A connection, if there is an idle one, and what is owed. `None`: it is not yet time to try again.
    fn take(&self) -> Option<(Option<Connection>, Vec<TokenId>)> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(next) = state.next_try {
            if now < next {
                return None;
            }
            // One tries; the others do not wait for what may not answer.
            state.next_try = Some(now + 2 * self.timeout);
        }
        while state.owed.front().is_some_and(|(_, until)| *until <= now) {
            state.owed.pop_front();
        }
        let owed = state.owed.iter().map(|(token, _)| *token).collect();
        Some((state.idle.pop(), owed))
    }

    fn attempt<T>(
        &self,
        idle: Option<Connection>,
        owed: &[TokenId],
        work: &impl Fn(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<(Connection, T)> {
        let mut db = match idle {
            Some(db) => db,
            None => self.connect()?,
        };
        if !owed.is_empty() {
            mark(&mut db, owed)?;
        }
        let value = work(&mut db)?;
        Ok((db, value))
    }

    fn connect(&self) -> RedisResult<Connection> {
        let db = self.client.get_connection_with_timeout(self.timeout)?;
        db.set_read_timeout(Some(self.timeout))?;
        db.set_write_timeout(Some(self.timeout))?;
        Ok(db)
    }

    fn give_back(&self, db: Connection, paid: &[TokenId]) {
        let mut state = self.state.lock();
        if state.idle.len() < IDLE_MAX {
            state.idle.push(db);
        }
        state.owed.retain(|(token, _)| !paid.contains(token));
        let failed = std::mem::take(&mut state.failed);
        state.is_up = true;
        state.next_try = None;
        drop(state);
        if failed > 0 {
            log::info!("tokens are looked up in Redis again");
        }
    }

    fn note_failure(&self, error: &RedisError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        let pause = PAUSE_FIRST.saturating_mul(1 << state.failed.min(8)).min(PAUSE_LAST);
        state.next_try = Some(Instant::now() + pause);
        state.failed = state.failed.saturating_add(1);
        state.is_up = false;
        let is_first = state.failed == 1;
        // On what is left an answer may still be on its way.
        let gone = std::mem::take(&mut state.idle);
        drop(state);
        drop(gone);
        if is_first {
            log::warn!("tokens are looked up in the tables, for Redis fails: {error}");
        }
    }
}

fn mark(db: &mut Connection, tokens: &[TokenId]) -> RedisResult<()> {
    let mut all = redis::pipe();
    for token in tokens {
        all.cmd("SET").arg(key(*token)).arg(MARK).arg("PX").arg(millis(MARK_LIFETIME)).ignore();
    }
    all.query(db)
}

fn key(token: TokenId) -> String {
    use std::fmt::Write as _;
    let mut key = String::with_capacity(75);
    key.push_str("chat:token:");
    for byte in token.0 {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

fn write(found: &Verified) -> String {
    format!("{} {} {}", found.user, found.expires_ms, found.name)
}

/// `None` for a mark, and for what nobody of us has written.
fn read(token: TokenId, value: &[u8]) -> Option<Verified> {
    let mut words = std::str::from_utf8(value).ok()?.splitn(3, ' ');
    let user = UserId::new(words.next()?.parse().ok()?)?;
    let expires_ms = words.next()?.parse().ok()?;
    let name = words.next().filter(|name| !name.is_empty())?.to_owned();
    Some(Verified { user, name, token_id: token, expires_ms })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let token = TokenId([0xa7; 32]);
        let user = UserId::new(12).unwrap();
        let found = Verified { user, name: "Zoë-.丁".into(), token_id: token, expires_ms: -5 };
        assert_eq!(read(token, write(&found).as_bytes()), Some(found));
        assert_eq!(key(token), format!("chat:token:{}", "a7".repeat(32)));
    }

    #[test]
    fn a_mark_and_nonsense_say_nothing() {
        for value in [MARK, "", "12", "12 5", "12 5 ", "0 5 amy", "x 5 amy", "12 x amy"] {
            assert_eq!(read(TokenId([0; 32]), value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(read(TokenId([0; 32]), b"12 5 \xff"), None);
    }

    #[test]
    fn an_address_that_makes_no_sense_is_refused_and_not_shown() {
        let error = TokenCache::new("http://secret@x", PAUSE_LAST).unwrap_err().to_string();
        assert!(error.contains("`redis`") && !error.contains("secret"), "{error}");
        TokenCache::new("redis://u:p@127.0.0.1:1/2", PAUSE_LAST).unwrap();
    }

    #[test]
    fn without_redis_nothing_is_found_and_a_revoked_token_is_remembered() {
        // Nobody can listen on port 0.
        let cache = TokenCache::new("redis://127.0.0.1:0/", PAUSE_LAST).unwrap();
        let tokens = [TokenId([1; 32]), TokenId([2; 32])];
        assert_eq!(cache.find(TokenId([1; 32])), None);
        cache.forget(&tokens);
        let stats = cache.stats();
        assert_eq!((stats.is_up, stats.owed, stats.failures > 0), (false, 2, true));
    }
}
