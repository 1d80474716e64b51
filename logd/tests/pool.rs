//! The login pool: what it answers, what it refuses, and who cannot starve whom.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use logd::{LoginConfig, LoginPool, LoginService};
use schema::login::{
    LoginBy, LoginCall, LoginError, LoginReply, LoginReplyOk, LoginRequest, Origin, TokenId,
};
use store::{CommittedBatch, DbConfig, Store};

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";

fn register(name: &str) -> LoginCall {
    LoginCall::Register { name: name.into(), password: PASSWORD.into() }
}

fn by_token(token: &str) -> LoginCall {
    LoginCall::Login(LoginRequest { by: LoginBy::Token(token.into()), device: None })
}

fn by_password(name: &str) -> LoginCall {
    let by = LoginBy::Password { name: name.into(), password: PASSWORD.into() };
    LoginCall::Login(LoginRequest { by, device: None })
}

struct House {
    _folder: tempfile::TempDir,
    store: Store,
    pool: LoginPool,
    replies: Receiver<LoginReply>,
    reply: Sender<LoginReply>,
}

impl House {
    fn open(config: &LoginConfig, clock: logd::Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&DbConfig::at(folder.path()), Box::new(|_: CommittedBatch| {})).unwrap();
        let config = LoginConfig { hash_memory_kib: 8, hash_passes: 1, ..config.clone() };
        let service = LoginService::with_clock(store.clone(), &config, clock).unwrap();
        let pool = LoginPool::start(service, &config).unwrap();
        let (reply, replies) = unbounded();
        Self { _folder: folder, store, pool, replies, reply }
    }

    fn submit(&self, call: LoginCall) {
        let reply = self.reply.clone();
        self.pool.submit(call, Origin::default(), Box::new(move |answer| reply.send(answer).unwrap()));
    }

    /// What a call is answered at once, before `submit` returns.
    fn refused(&self, call: LoginCall) -> LoginReply {
        let (tell, told) = unbounded();
        self.pool.submit(call, Origin::default(), Box::new(move |answer| tell.send(answer).unwrap()));
        told.try_recv().expect("an answer at once")
    }

    fn answer(&self) -> LoginReply {
        self.replies.recv_timeout(LONG).unwrap()
    }

    /// A token of a new user.
    fn token(&self, name: &str) -> String {
        self.submit(register(name));
        self.answer().unwrap();
        self.submit(by_password(name));
        match self.answer() {
            Ok(LoginReplyOk::LoggedIn(login)) => login.token,
            other => panic!("{other:?}"),
        }
    }
}

fn plain_clock() -> logd::Clock {
    Arc::new(|| 1_700_000_000_000)
}

/// A clock at which only the thread with this name stops, once per permit that it then takes.
fn stopping_clock(thread: &'static str) -> (logd::Clock, Receiver<()>, Sender<()>) {
    let (reached, reaching) = unbounded();
    let (permit, permits) = unbounded::<()>();
    let clock = move || {
        if std::thread::current().name() == Some(thread) {
            let _ = reached.send(());
            let _ = permits.recv();
        }
        1_700_000_000_000
    };
    (Arc::new(clock), reaching, permit)
}

#[test]
fn every_kind_of_call_is_answered() {
    let house = House::open(&LoginConfig::default(), plain_clock());
    let token = house.token("amy");
    house.submit(by_token(&token));
    let Ok(LoginReplyOk::LoggedIn(login)) = house.answer() else { panic!() };
    house.submit(LoginCall::Verify { token: token.clone() });
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Verified(v)) if v.user == login.user));
    let (user, keep) = (login.user, login.token_id);
    let change = LoginCall::ChangePassword { user, keep, old: PASSWORD.into(), new: "battery staple".into() };
    house.submit(change);
    assert_eq!(house.answer(), Ok(LoginReplyOk::Revoked { tokens: vec![] }));
    house.submit(LoginCall::Logout { token: keep, user, all: false });
    assert_eq!(house.answer(), Ok(LoginReplyOk::Revoked { tokens: vec![keep] }));
    house.submit(by_token(&token));
    assert_eq!(house.answer(), Err(LoginError::Unauthorized));
}

#[test]
fn a_full_queue_of_hashes_is_overloaded_and_keeps_no_token_waiting() {
    let (clock, reaching, permit) = stopping_clock("login-hash");
    let config = LoginConfig { hash_queue_max: 2, ..LoginConfig::default() };
    let house = House::open(&config, clock);
    for _ in 0..2 {
        permit.send(()).unwrap();
    }
    let token = house.token("amy");
    for _ in 0..2 {
        reaching.recv_timeout(LONG).unwrap();
    }
    // The one hashing thread stops inside a call; two more calls wait.
    house.submit(register("u0"));
    reaching.recv_timeout(LONG).unwrap();
    house.submit(register("u1"));
    house.submit(by_password("amy"));
    assert_eq!(house.refused(register("u2")), Err(LoginError::Overloaded));
    assert_eq!(house.refused(by_password("amy")), Err(LoginError::Overloaded));
    for _ in 0..10 {
        house.submit(by_token(&token));
        assert!(matches!(house.answer(), Ok(LoginReplyOk::LoggedIn(_))));
    }
    for _ in 0..3 {
        permit.send(()).unwrap();
    }
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Registered { .. })));
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Registered { .. })));
    assert!(matches!(house.answer(), Ok(LoginReplyOk::LoggedIn(_))));
    assert!(house.replies.is_empty());
}

#[test]
fn who_guesses_is_refused_before_it_takes_a_place_in_the_queue() {
    let house = House::open(&LoginConfig::default(), plain_clock());
    house.token("amy");
    let at = |address: &str| Origin { address: address.parse().ok(), node: "a".into() };
    let login = |password: &str| {
        let by = LoginBy::Password { name: "Amy".into(), password: password.into() };
        LoginCall::Login(LoginRequest { by, device: None })
    };
    let ask = |call: LoginCall, origin: Origin| {
        let (tell, told) = unbounded();
        house.pool.submit(call, origin, Box::new(move |answer| tell.send(answer).unwrap()));
        told.recv_timeout(LONG).unwrap()
    };
    for _ in 0..5 {
        assert_eq!(ask(login("wrong horse"), at("192.0.2.1")), Err(LoginError::Unauthorized));
    }
    // Further failures, so that the wait is longer than any hiccup of this machine: those that are on their way at once are all tried.
    let (tell, told) = unbounded();
    let mut refused = 0;
    for _ in 0..500 {
        if refused > 0 {
            break;
        }
        let tell = tell.clone();
        let reply = Box::new(move |answer| tell.send(answer).unwrap());
        house.pool.submit(login("wrong horse"), at("192.0.2.1"), reply);
        refused +=
            usize::from(matches!(told.recv_timeout(LONG).unwrap(), Err(LoginError::RateLimited { .. })));
    }
    assert!(refused > 0, "in 500 tries none was told to wait");
    assert!(house.pool.stats().held_up > 0);
    assert!(ask(login(PASSWORD), at("192.0.2.2")).is_ok(), "another address");
    assert!(ask(login(PASSWORD), Origin::default()).is_ok(), "the operator");
}

#[test]
fn a_full_queue_of_tokens_is_overloaded() {
    let (clock, reaching, permit) = stopping_clock("login-token");
    let house = House::open(&LoginConfig { token_queue_max: 1, ..LoginConfig::default() }, clock);
    let verify = || LoginCall::Verify { token: "x".repeat(43) };
    house.submit(verify());
    reaching.recv_timeout(LONG).unwrap();
    house.submit(verify());
    assert_eq!(house.refused(verify()), Err(LoginError::Overloaded));
    drop(permit);
    for _ in 0..2 {
        assert_eq!(house.answer(), Err(LoginError::Unauthorized));
    }
}

#[test]
fn a_call_whose_time_is_over_before_its_turn_is_not_begun() {
    let (clock, reaching, permit) = stopping_clock("login-hash");
    let house = House::open(&LoginConfig::default(), clock);
    house.submit(register("u0"));
    reaching.recv_timeout(LONG).unwrap();
    let reply = house.reply.clone();
    house.pool.submit_until(
        register("u1"),
        Origin::default(),
        Some(std::time::Instant::now()),
        Box::new(move |answer| reply.send(answer).unwrap()),
    );
    drop(permit);
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Registered { .. })));
    assert_eq!(house.answer(), Err(LoginError::Overloaded));
    assert_eq!(house.pool.stats().expired, 1);
    house.submit(register("u1"));
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Registered { .. })), "the name is still free");
}

#[test]
fn close_answers_what_was_accepted_and_takes_nothing_more() {
    let house = House::open(&LoginConfig::default(), plain_clock());
    for at in 0..20 {
        house.submit(register(&format!("u{at}")));
        house.submit(LoginCall::Verify { token: "x".into() });
    }
    house.pool.close();
    house.pool.close();
    let answers: Vec<_> = house.replies.try_iter().collect();
    assert_eq!(answers.len(), 40);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    assert_eq!(house.refused(register("late")), Err(LoginError::Unavailable));
}

#[test]
fn a_panic_in_a_callback_or_a_call_ends_no_thread() {
    let once = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let clock = move || {
        assert!(!once.swap(false, std::sync::atomic::Ordering::SeqCst), "on purpose");
        1_700_000_000_000
    };
    let house = House::open(&LoginConfig::default(), Arc::new(clock));
    house.submit(register("amy"));
    assert_eq!(house.answer(), Err(LoginError::Internal));
    let panicking: logd::ReplyFn = Box::new(|_| panic!("on purpose"));
    house.pool.submit(register("bob"), Origin::default(), panicking);
    house.submit(register("cat"));
    assert!(matches!(house.answer(), Ok(LoginReplyOk::Registered { .. })));
}

#[test]
fn a_closed_store_answers_unavailable_through_the_pool() {
    let house = House::open(&LoginConfig::default(), plain_clock());
    house.store.close();
    let user = schema::UserId::new(1).unwrap();
    house.submit(LoginCall::Logout { token: TokenId([1; 32]), user, all: true });
    assert_eq!(house.answer(), Err(LoginError::Unavailable));
}
