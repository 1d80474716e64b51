//! Tokens in a real Redis: what it saves, and that nothing hangs on it.
//!
//! Broken here: Redis emptied, ended, stopped, filled with nonsense, and away while a token is revoked. What has to hold: who has a valid token gets in, and who has a
//! revoked one does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use logd::{CacheStats, LoginConfig, LoginService, TokenCache};
use schema::UserId;
use schema::login::{LoggedIn, LoginBy, LoginError, LoginRequest, TokenId};
use store::dao::TokenDao;
use store::{CommittedBatch, DbConfig, Store};
use testkit::{Redis, wait_until};

const PASSWORD: &str = "correct horse";
const LONG: Duration = Duration::from_secs(60);
/// Longer than any test: what expires by itself is no proof.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// A login service with its own way to Redis.
struct Door {
    service: LoginService,
    cache: Arc<TokenCache>,
}

struct House {
    _folder: tempfile::TempDir,
    store: Store,
    redis: Redis,
}

impl House {
    fn open() -> Option<Self> {
        if !Redis::available() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&DbConfig::at(folder.path()), Box::new(|_: CommittedBatch| {})).unwrap();
        Some(Self { _folder: folder, store, redis: Redis::start().unwrap() })
    }

    /// One that waits for Redis however busy the machine is.
    fn door(&self) -> Door {
        self.door_with(|cache| cache.with_timeout(LONG))
    }

    /// One that gives Redis up as soon as it usually does.
    fn hasty_door(&self) -> Door {
        self.door_with(|cache| cache)
    }

    fn door_with(&self, change: impl FnOnce(TokenCache) -> TokenCache) -> Door {
        let config = LoginConfig { hash_memory_kib: 8, hash_passes: 1, ..LoginConfig::default() };
        let cache = Arc::new(change(TokenCache::new(&self.redis.url(), LIFETIME).unwrap()));
        let service = LoginService::new(self.store.clone(), &config).unwrap();
        Door { service: service.with_cache(Arc::clone(&cache)), cache }
    }

    /// Takes a token out of the table, past everybody.
    fn lose(&self, user: UserId, token: TokenId) {
        assert!(self.store.write_wait(move |db| TokenDao::new(db).delete(user, &token.0)).unwrap());
    }

    fn key(token: TokenId) -> String {
        let hex: String = token.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("chat:token:{hex}")
    }
}

impl Door {
    fn amy(&self) -> LoggedIn {
        self.service.register("amy", PASSWORD).unwrap();
        self.password()
    }

    fn password(&self) -> LoggedIn {
        let by = LoginBy::Password { name: "amy".into(), password: PASSWORD.into() };
        self.service.login(LoginRequest { by, device: None }).unwrap()
    }

    fn lets_in(&self, token: &str) -> bool {
        let by = LoginBy::Token(token.into());
        let login = self.service.login(LoginRequest { by, device: None });
        let verified = self.service.verify(token);
        match (login, verified) {
            (Ok(login), Ok(verified)) => {
                assert_eq!((login.name.as_str(), verified.user), ("amy", login.user));
                true
            }
            (Err(LoginError::Unauthorized), Err(LoginError::Unauthorized)) => false,
            other => panic!("{other:?}"),
        }
    }

    fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}

#[test]
fn a_token_that_was_used_is_found_in_redis_by_every_service() {
    let Some(house) = House::open() else { return };
    let (one, other) = (house.door(), house.door());
    let amy = one.amy();
    assert!(one.lets_in(&amy.token));
    assert!(one.stats().is_up && one.stats().hits > 0, "{:?}", one.stats());
    house.lose(amy.user, amy.token_id);
    assert!(other.lets_in(&amy.token), "the table was not asked");
    let lifetime: u128 =
        house.redis.command(&["PTTL", &House::key(amy.token_id)]).unwrap()[0].parse().unwrap();
    assert!((1..=LIFETIME.as_millis()).contains(&lifetime), "{lifetime}");
}

#[test]
fn a_token_is_kept_in_redis_as_a_hash_only() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let amy = door.amy();
    assert!(door.lets_in(&amy.token));
    for key in house.redis.command(&["KEYS", "*"]).unwrap() {
        let value = house.redis.command(&["GET", &key]).unwrap();
        assert!(!format!("{key} {value:?}").contains(&amy.token), "{key} {value:?}");
    }
}

#[test]
fn a_revoked_token_lets_nobody_in_wherever_it_was_looked_up() {
    let Some(house) = House::open() else { return };
    let (one, other) = (house.door(), house.door());
    one.service.register("amy", PASSWORD).unwrap();
    let revocations: [&dyn Fn(&LoggedIn); 4] = [
        &|amy| drop(other.service.logout(amy.token_id, amy.user, false).unwrap()),
        &|amy| drop(other.service.logout(amy.token_id, amy.user, true).unwrap()),
        &|amy| {
            let keep = TokenId([0; 32]);
            drop(other.service.change_password(amy.user, keep, PASSWORD, PASSWORD).unwrap());
        },
        &|amy| drop(other.service.set_password(amy.user, PASSWORD).unwrap()),
    ];
    for (number, revoke) in revocations.iter().enumerate() {
        let amy = one.password();
        assert!(one.lets_in(&amy.token) && other.lets_in(&amy.token));
        revoke(&amy);
        assert!(!one.lets_in(&amy.token) && !other.lets_in(&amy.token), "revocation {number}");
    }
}

#[test]
fn a_token_that_makes_room_for_others_lets_nobody_in() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let first = door.amy();
    assert!(door.lets_in(&first.token));
    let evicted: Vec<_> =
        (0..schema::limits::TOKENS_PER_USER_MAX).flat_map(|_| door.password().evicted).collect();
    assert!(evicted.contains(&first.token_id));
    assert!(!door.lets_in(&first.token));
}

#[test]
fn what_was_read_before_a_revocation_is_not_written_after_it() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let amy = door.amy();
    let asked = std::time::Instant::now();
    let said = door.service.verify(&amy.token).unwrap();
    door.service.logout(amy.token_id, amy.user, false).unwrap();
    door.cache.keep(&said, asked);
    assert!(!door.lets_in(&amy.token));
}

#[test]
fn emptying_redis_logs_nobody_out() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let amy = door.amy();
    assert!(door.lets_in(&amy.token));
    house.redis.flush_all().unwrap();
    assert!(door.lets_in(&amy.token));
    let before = door.stats().hits;
    assert!(door.lets_in(&amy.token));
    assert!(door.stats().hits > before, "it is there again");
}

#[test]
fn without_redis_the_tables_answer_and_with_it_again_it_does() {
    let Some(house) = House::open() else { return };
    let door = house.hasty_door();
    let amy = door.amy();
    for end in [Redis::kill9, Redis::pause] {
        end(&house.redis);
        let new = door.password();
        assert!(door.lets_in(&amy.token) && door.lets_in(&new.token));
        assert!(!door.stats().is_up && door.stats().failures > 0, "{:?}", door.stats());
        door.service.logout(new.token_id, new.user, false).unwrap();
        assert!(!door.lets_in(&new.token));
        // One that is stopped goes on; one that was killed comes back empty.
        house.redis.resume();
        house.redis.restart().unwrap();
        let before = door.stats().hits;
        wait_until("tokens are found in Redis again", LONG, || {
            assert!(door.lets_in(&amy.token) && !door.lets_in(&new.token));
            door.stats().is_up && door.stats().hits > before
        });
    }
}

#[test]
fn a_connection_that_redis_has_closed_costs_no_answer() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let amy = door.amy();
    assert!(door.lets_in(&amy.token));
    house.redis.kill_clients().unwrap();
    let before = door.stats();
    assert!(door.lets_in(&amy.token));
    let after = door.stats();
    assert_eq!((after.failures, after.misses), (before.failures, before.misses));
}

#[test]
fn a_revocation_that_redis_did_not_hear_of_is_made_good() {
    let Some(house) = House::open() else { return };
    let (one, other) = (house.hasty_door(), house.hasty_door());
    let amy = one.amy();
    assert!(one.lets_in(&amy.token) && other.lets_in(&amy.token));
    house.redis.pause();
    other.service.logout(amy.token_id, amy.user, false).unwrap();
    assert_eq!(other.stats().owed, 1);
    house.redis.resume();
    // Whatever it asks for next, it first pays what it owes.
    wait_until("Redis knows of the revocation", LONG, || {
        assert!(!other.lets_in(&amy.token));
        let _ = other.cache.find(TokenId([9; 32]));
        other.stats().owed == 0
    });
    assert!(!one.lets_in(&amy.token));
}

#[test]
fn nonsense_in_redis_is_passed_over() {
    let Some(house) = House::open() else { return };
    let door = house.door();
    let amy = door.amy();
    let key = House::key(amy.token_id);
    for value in ["", "what?", "1 2", "99999999999999999999 1 amy"] {
        house.redis.command(&["SET", &key, value]).unwrap();
        assert!(door.lets_in(&amy.token), "{value:?}");
    }
    house.redis.command(&["DEL", &key]).unwrap();
    house.redis.command(&["LPUSH", &key, "not even a string"]).unwrap();
    assert!(door.lets_in(&amy.token));
}
