//! Accounts, passwords and tokens, with a clock that the tests set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use logd::{LoginConfig, LoginService, TokenManager};
use schema::UserId;
use schema::login::{LoggedIn, LoginBy, LoginError, LoginRequest, TokenId};
use store::{CommittedBatch, DbConfig, Store};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_700_000_000_000;
const PASSWORD: &str = "correct horse";

/// As cheap as Argon2 allows.
fn cheap() -> LoginConfig {
    LoginConfig { hash_memory_kib: 8, hash_passes: 1, ..LoginConfig::default() }
}

struct House {
    _folder: tempfile::TempDir,
    store: Store,
    service: LoginService,
    clock: Arc<AtomicI64>,
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&DbConfig::at(folder.path()), Box::new(|_: CommittedBatch| {})).unwrap();
        let clock = Arc::new(AtomicI64::new(START));
        let told = Arc::clone(&clock);
        let clock_fn = Arc::new(move || told.load(Ordering::SeqCst));
        let service = LoginService::with_clock(store.clone(), &cheap(), clock_fn).unwrap();
        Self { _folder: folder, store, service, clock }
    }

    fn set(&self, now: i64) {
        self.clock.store(now, Ordering::SeqCst);
    }

    fn password(&self, name: &str, password: &str) -> Result<LoggedIn, LoginError> {
        let by = LoginBy::Password { name: name.into(), password: password.into() };
        self.service.login(LoginRequest { by, device: Some("phone".into()) })
    }

    fn token(&self, token: &str) -> Result<LoggedIn, LoginError> {
        self.service.login(LoginRequest { by: LoginBy::Token(token.into()), device: None })
    }

    fn amy(&self) -> UserId {
        self.service.register("Amy", PASSWORD).unwrap()
    }

    /// Transactions of the writer that are finished.
    fn batches(&self) -> u64 {
        self.store.stats().batches
    }
}

#[test]
fn a_registered_user_logs_in_by_password_and_then_by_token() {
    let house = House::open();
    let amy = house.amy();
    let first = house.password("Amy", PASSWORD).unwrap();
    assert_eq!((first.user, &*first.name, first.expires_ms), (amy, "Amy", START + 7 * DAY));
    assert_eq!(first.token.len(), 43);
    assert!(
        first.token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
        "{}",
        first.token
    );
    let second = house.token(&first.token).unwrap();
    assert_eq!((second.user, &*second.name, &second.token), (amy, "Amy", &first.token));
    assert_eq!(second.token_id, first.token_id);
    assert_ne!(second.session, first.session, "every login is a session of its own");
    let verified = house.service.verify(&first.token).unwrap();
    assert_eq!((verified.user, &*verified.name, verified.token_id), (amy, "Amy", first.token_id));
    let other = house.password("Amy", PASSWORD).unwrap();
    assert_ne!(other.token, first.token, "every password login has a token of its own");
}

#[test]
fn names_are_equal_beyond_their_spelling_and_shown_as_registered() {
    let house = House::open();
    house.service.register("Ａmélie", PASSWORD).unwrap();
    assert_eq!(house.service.register("AME\u{301}LIE", PASSWORD), Err(LoginError::Conflict));
    assert_eq!(house.password("amélie", PASSWORD).unwrap().name, "Ａmélie");
}

#[test]
fn what_breaks_the_rules_is_not_registered() {
    let house = House::open();
    for name in ["", "a b", "o'hara", "x\n", &"x".repeat(33), "a/c"] {
        assert!(matches!(house.service.register(name, PASSWORD), Err(LoginError::BadRequest(_))), "{name:?}");
    }
    for password in ["", "seven77", &"x".repeat(129)] {
        assert!(matches!(house.service.register("amy", password), Err(LoginError::BadRequest(_))));
    }
    house.service.register("amy", &"x".repeat(128)).unwrap();
    house.service.register("bob", "eight888").unwrap();
}

#[test]
fn a_wrong_name_and_a_wrong_password_are_the_same_error() {
    let house = House::open();
    house.amy();
    for (name, password) in
        [("Amy", "wrong horse"), ("Nobody", PASSWORD), ("not a name!", PASSWORD), ("", PASSWORD), ("Amy", "")]
    {
        assert_eq!(house.password(name, password), Err(LoginError::Unauthorized), "{name:?}");
    }
    assert!(matches!(house.password("Amy", &"x".repeat(129)), Err(LoginError::BadRequest(_))));
    assert!(matches!(house.password("Nobody", &"x".repeat(129)), Err(LoginError::BadRequest(_))));
}

#[test]
fn what_is_no_token_lets_nobody_in() {
    let house = House::open();
    house.amy();
    let good = house.password("Amy", PASSWORD).unwrap().token;
    let mut flipped = good.clone().into_bytes();
    flipped[20] = if flipped[20] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    for token in ["", "x", &good[1..], &format!("{good}="), &flipped, &"é".repeat(21), &"x".repeat(4_000)] {
        assert_eq!(house.token(token), Err(LoginError::Unauthorized));
        assert_eq!(house.service.verify(token), Err(LoginError::Unauthorized));
    }
    house.token(&good).unwrap();
}

#[test]
fn a_token_is_renewed_by_use_and_written_only_when_that_gains_an_hour() {
    let house = House::open();
    house.amy();
    let token = house.password("Amy", PASSWORD).unwrap().token;
    let before = house.batches();
    house.set(START + HOUR);
    assert_eq!(house.token(&token).unwrap().expires_ms, START + 7 * DAY, "an hour gains too little");
    assert_eq!(house.batches(), before, "nothing was written");
    house.set(START + HOUR + 1);
    assert_eq!(house.token(&token).unwrap().expires_ms, START + HOUR + 1 + 7 * DAY);
    house.set(START + 5 * DAY);
    assert_eq!(house.service.verify(&token).unwrap().expires_ms, START + HOUR + 1 + 7 * DAY, "no use");
    assert_eq!(house.token(&token).unwrap().expires_ms, START + 12 * DAY);
    house.set(START + 12 * DAY - 1);
    assert_eq!(house.token(&token).unwrap().expires_ms, START + 19 * DAY - 1);
}

#[test]
fn a_token_that_was_not_used_for_seven_days_is_worth_nothing() {
    let house = House::open();
    house.amy();
    let token = house.password("Amy", PASSWORD).unwrap().token;
    house.set(START + 7 * DAY - 1);
    house.service.verify(&token).unwrap();
    house.set(START + 7 * DAY);
    assert_eq!(house.service.verify(&token), Err(LoginError::Unauthorized));
    assert_eq!(house.token(&token), Err(LoginError::Unauthorized));
}

#[test]
fn one_token_too_many_revokes_the_one_that_expires_first() {
    let house = House::open();
    house.amy();
    let mut tokens = Vec::new();
    for at in 0..32 {
        house.set(START + at * 2 * HOUR);
        let login = house.password("Amy", PASSWORD).unwrap();
        assert!(login.evicted.is_empty());
        tokens.push((login.token, login.token_id));
    }
    // The oldest is used, so the second is now the first to expire.
    house.set(START + 100 * HOUR);
    house.token(&tokens[0].0).unwrap();
    let login = house.password("Amy", PASSWORD).unwrap();
    assert_eq!(login.evicted, [tokens[1].1]);
    assert_eq!(house.token(&tokens[1].0), Err(LoginError::Unauthorized));
    for (token, _) in tokens.iter().take(1).chain(&tokens[2..]).chain([&(login.token, login.token_id)]) {
        house.token(token).unwrap();
    }
}

#[test]
fn expired_tokens_make_room_without_an_eviction() {
    let house = House::open();
    house.amy();
    for _ in 0..32 {
        house.password("Amy", PASSWORD).unwrap();
    }
    house.set(START + 7 * DAY);
    assert_eq!(house.password("Amy", PASSWORD).unwrap().evicted, []);
}

#[test]
fn logout_revokes_one_token_and_with_all_every_one() {
    let house = House::open();
    let amy = house.amy();
    let bob = house.service.register("bob", PASSWORD).unwrap();
    let bobs = house.password("bob", PASSWORD).unwrap();
    let logins: Vec<_> = (0..3).map(|_| house.password("Amy", PASSWORD).unwrap()).collect();
    assert_eq!(house.service.logout(logins[0].token_id, bob, false), Ok(vec![]), "not bob's to revoke");
    assert_eq!(house.service.logout(logins[0].token_id, amy, false), Ok(vec![logins[0].token_id]));
    assert_eq!(house.service.logout(logins[0].token_id, amy, false), Ok(vec![]));
    assert_eq!(house.token(&logins[0].token), Err(LoginError::Unauthorized));
    house.token(&logins[1].token).unwrap();
    let mut gone = house.service.logout(logins[1].token_id, amy, true).unwrap();
    gone.sort_unstable();
    let mut expected = vec![logins[1].token_id, logins[2].token_id];
    expected.sort_unstable();
    assert_eq!(gone, expected);
    assert_eq!(house.token(&logins[2].token), Err(LoginError::Unauthorized));
    house.token(&bobs.token).unwrap();
}

#[test]
fn a_new_password_replaces_the_old_one_and_revokes_all_other_tokens() {
    let house = House::open();
    let amy = house.amy();
    let kept = house.password("Amy", PASSWORD).unwrap();
    let other = house.password("Amy", PASSWORD).unwrap();
    let change = |old: &str, new: &str| house.service.change_password(amy, kept.token_id, old, new);
    assert_eq!(change("wrong horse", "battery staple"), Err(LoginError::Unauthorized));
    assert!(matches!(change(PASSWORD, "short"), Err(LoginError::BadRequest(_))));
    house.token(&other.token).unwrap();
    assert_eq!(change(PASSWORD, "battery staple"), Ok(vec![other.token_id]));
    assert_eq!(house.token(&other.token), Err(LoginError::Unauthorized));
    house.token(&kept.token).unwrap();
    assert_eq!(house.password("Amy", PASSWORD), Err(LoginError::Unauthorized));
    house.password("Amy", "battery staple").unwrap();
    let nobody = UserId::new(99).unwrap();
    let refused = house.service.change_password(nobody, TokenId([0; 32]), PASSWORD, "battery staple");
    assert_eq!(refused, Err(LoginError::Unauthorized));
}

#[test]
fn a_login_that_a_password_change_overtook_gets_no_token() {
    let house = House::open();
    let amy = house.amy();
    let read = move |db: &mut store::Connection| store::dao::UserDao::new(db).credentials_by_id(amy);
    let verified = house.store.read_wait(read).unwrap().unwrap().password_hash;
    let tokens = TokenManager::new(house.store.clone());
    tokens.issue(amy, None, verified.clone(), START).unwrap();
    house.service.change_password(amy, TokenId([0; 32]), PASSWORD, "battery staple").unwrap();
    assert_eq!(tokens.issue(amy, None, verified, START), Err(LoginError::Unauthorized));
    let left = house.store.read_wait(move |db| store::dao::TokenDao::new(db).of_user(amy)).unwrap();
    assert_eq!(left, []);
}

#[test]
fn a_hash_of_older_parameters_still_lets_its_user_in() {
    let House { store, service, .. } = &House::open();
    service.register("Amy", PASSWORD).unwrap();
    let dearer = LoginConfig { hash_memory_kib: 64, hash_passes: 2, ..cheap() };
    let service = LoginService::new(store.clone(), &dearer).unwrap();
    let by = LoginBy::Password { name: "amy".into(), password: PASSWORD.into() };
    service.login(LoginRequest { by, device: None }).unwrap();
}

#[test]
fn nothing_in_the_tables_is_a_password_or_a_token() {
    let house = House::open();
    house.service.register("Amy", "correct-horse-battery").unwrap();
    let token = house.password("Amy", "correct-horse-battery").unwrap().token;
    house.store.close();
    let mut files = 0;
    for file in std::fs::read_dir(house._folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += usize::from(bytes.windows(9).any(|w| w == b"$argon2id"));
        for secret in [token.as_bytes(), b"correct-horse-battery"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    assert_eq!(files, 1, "the tables were looked at");
}

#[test]
fn a_closed_store_is_unavailable() {
    let house = House::open();
    house.amy();
    let token = house.password("Amy", PASSWORD).unwrap().token;
    house.store.close();
    assert_eq!(house.password("Amy", PASSWORD), Err(LoginError::Unavailable));
    assert_eq!(house.token(&token), Err(LoginError::Unavailable));
    assert_eq!(house.service.register("bob", PASSWORD), Err(LoginError::Unavailable));
}
