//! The program: what it says, what it refuses, what it logs, and how it ends. Its calls come from a client as chat servers have one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use logd::{LoginConfig, RemoteLogin};
use reactor::{EventLoopThreadPool, LoopConfig};
use schema::UserId;
use schema::login::{
    LoggedIn, LoginBy, LoginCall, LoginError, LoginReply, LoginReplyOk, LoginRequest, Origin,
};
use testkit::{Logd, LogdBuilder, wait_until};

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";

fn builder() -> LogdBuilder {
    Logd::builder(env!("CARGO_BIN_EXE_logd"))
}

/// What a chat server has of the service.
struct Caller {
    _pool: EventLoopThreadPool,
    login: RemoteLogin,
}

impl Caller {
    fn of(logd: &Logd) -> Self {
        let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
        let config = LoginConfig { call_timeout_ms: 60_000, ..LoginConfig::default() };
        let how = RemoteLogin::channel_config("chatd-7", &config);
        let channel = rpc::Channel::to(pool.handles(), [logd.rpc_addr()], how).unwrap();
        let login = RemoteLogin::new(channel, &config);
        wait_until("a connection", LONG, || login.stats().ready == 1);
        Self { _pool: pool, login }
    }

    fn call(&self, call: LoginCall) -> LoginReply {
        let (tell, told) = mpsc::channel();
        let origin = Origin { address: "192.0.2.33".parse().ok(), node: "chatd-7".into() };
        self.login.submit(call, &origin, Box::new(move |reply| tell.send(reply).unwrap()));
        told.recv_timeout(2 * LONG).unwrap()
    }

    fn register(&self, name: &str) -> Result<UserId, LoginError> {
        match self.call(LoginCall::Register { name: name.into(), password: PASSWORD.into() })? {
            LoginReplyOk::Registered { user } => Ok(user),
            other => panic!("{other:?}"),
        }
    }

    fn log_in(&self, by: LoginBy) -> Result<LoggedIn, LoginError> {
        match self.call(LoginCall::Login(LoginRequest { by, device: None }))? {
            LoginReplyOk::LoggedIn(login) => Ok(login),
            other => panic!("{other:?}"),
        }
    }

    fn by_password(&self, name: &str, password: &str) -> Result<LoggedIn, LoginError> {
        self.log_in(LoginBy::Password { name: name.into(), password: password.into() })
    }
}

#[test]
fn the_help_tells_how_to_run_it() {
    let said = builder().run_expecting_exit(["--help"]).unwrap();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    for words in [
        "logd  --mysql",
        "chatd --mysql",
        "--zookeeper",
        "--redis",
        "/healthz",
        "SIGTERM",
        "Exit codes",
        "audit",
    ] {
        assert!(said.stdout.contains(words), "no {words} in {}", said.stdout);
    }
}

#[test]
fn a_wrong_configuration_ends_with_2_and_tells_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logd.toml");
    for (text, key) in [
        ("listen = \"here\"", "listen"),
        ("lisen = \"127.0.0.1:0\"", "lisen"),
        ("threads = 0", "threads"),
        ("redis = \"what\"", "redis"),
        ("zookeeper = \"\"", "zookeeper"),
        ("[login]\nhash_queue_max = 0", "hash_queue_max"),
        ("[store.mysql]\nurl = \"http://x\"", "mysql"),
    ] {
        std::fs::write(&path, text).unwrap();
        for check in [&["--check"][..], &[]] {
            let args = ["--config", path.to_str().unwrap()].into_iter().chain(check.iter().copied());
            let said = builder().run_expecting_exit(args).unwrap();
            assert_eq!(said.code, Some(2), "{text:?}: {}", said.stderr);
            assert!(said.stderr.contains(key) && said.stdout.is_empty(), "{text:?}: {}", said.stderr);
        }
    }
    std::fs::write(&path, "threads = 2").unwrap();
    let said = builder().run_expecting_exit(["--check", "--config", path.to_str().unwrap()]).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let said = builder().run_expecting_exit(["--no-such-flag"]).unwrap();
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("--no-such-flag"), "{}", said.stderr);
}

#[test]
fn an_address_that_is_taken_ends_with_1_and_tells_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let said = builder().run_expecting_exit([key, address.as_str(), other, "127.0.0.1:0"]).unwrap();
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        let name = format!("`{}`", &key[2..]);
        assert!(said.stderr.contains(&name) && said.stderr.contains(&address), "{}", said.stderr);
    }
}

#[test]
fn it_says_where_it_is_answers_the_operator_and_drains_at_sigterm() {
    let logd = builder().start().unwrap();
    let caller = Caller::of(&logd);
    caller.register("amy").unwrap();
    caller.by_password("amy", PASSWORD).unwrap();
    assert_eq!(logd.admin_get("/healthz").unwrap().0, 200);
    assert_eq!(logd.admin_get("/readyz").unwrap().0, 200);
    assert_eq!(logd.admin_get("/nothing").unwrap().0, 404);
    let (_, page) = logd.admin_get("/metrics").unwrap();
    for metric in ["logd_calls", "logd_hash_queue", "logd_overloads", "logd_held_up", "logd_connections"] {
        assert!(page.contains(metric), "no {metric} in {page}");
    }
    assert!(logd.stderr().contains(&logd.rpc_addr().to_string()), "{}", logd.stderr());
    logd.terminate();
    assert_eq!(logd.wait_exit(LONG).code(), Some(0));
    assert_eq!(caller.by_password("amy", PASSWORD), Err(LoginError::Unavailable));
    logd.restart().unwrap();
    wait_until("it is used again", LONG, || caller.by_password("amy", PASSWORD).is_ok());
}

#[test]
fn nonsense_and_broken_frames_end_their_connection_and_nothing_else() {
    let logd = builder().start().unwrap();
    let caller = Caller::of(&logd);
    caller.register("amy").unwrap();
    let too_long = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1];
    let header_beyond_frame = [0, 0, 0, 8, 0, 0, 0, 200, 1, 2, 3, 4];
    let no_header = [0, 0, 0, 4, 0, 0, 0, 0];
    let all: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", &too_long, &header_beyond_frame, &no_header, &[0xa5; 10_000]];
    for bytes in all {
        let mut stream = TcpStream::connect(logd.rpc_addr()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "still open after {:?}",
            &bytes[..bytes.len().min(16)]
        );
        caller.by_password("amy", PASSWORD).unwrap();
    }
    // Cut short: half a frame, and then nothing.
    let mut half = TcpStream::connect(logd.rpc_addr()).unwrap();
    half.write_all(&[0, 0, 0, 100, 0]).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    caller.by_password("amy", PASSWORD).unwrap();
    assert!(logd.is_running());
}

#[test]
fn the_audit_log_says_who_did_what_from_where_and_no_secret() {
    let logd = builder().start().unwrap();
    let caller = Caller::of(&logd);
    let user = caller.register("amy").unwrap();
    assert_eq!(caller.register("AMY"), Err(LoginError::Conflict));
    let login = caller.by_password("amy", PASSWORD).unwrap();
    assert_eq!(caller.by_password("amy", "s3cret-guess"), Err(LoginError::Unauthorized));
    assert_eq!(caller.by_password("forged\n\" ok", "s3cret-guess"), Err(LoginError::Unauthorized));
    caller.log_in(LoginBy::Token(login.token.clone())).unwrap();
    let (keep, new) = (login.token_id, "s3cret-new-word".to_owned());
    let change = |old: &str| LoginCall::ChangePassword { user, keep, old: old.into(), new: new.clone() };
    assert_eq!(caller.call(change("s3cret-guess")), Err(LoginError::Unauthorized));
    caller.call(change(PASSWORD)).unwrap();
    caller.call(LoginCall::Logout { token: keep, user, all: false }).unwrap();
    caller.call(LoginCall::Revoke { user }).unwrap();
    // At its end everything is in the file.
    logd.terminate();
    logd.wait_exit(LONG);
    let text = logd.log_text();
    let mut audit: Vec<_> = text.lines().filter(|line| line.contains(" audit ")).collect();
    // By time, which begins each line: two threads wrote them.
    audit.sort_unstable();
    let from = "address=192.0.2.33 node=\"chatd-7\"";
    let token: String = login.token_id.0[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        format!("register ok user={user} name=\"amy\" {from}"),
        format!("register refused why=conflict name=\"AMY\" {from}"),
        format!(
            "login by=password ok user={user} name=\"amy\" session={} token={token} {from}",
            login.session
        ),
        format!("login by=password refused why=unauthorized name=\"amy\" {from}"),
        r#"login by=password refused why=unauthorized name="forged\n\" ok" address"#.to_owned(),
        format!("login by=token ok user={user} name=\"amy\" session="),
        format!("change_password refused why=unauthorized user={user} {from}"),
        format!("change_password ok user={user} revoked=0 {from}"),
        format!("logout ok user={user} revoked=1 {from}"),
        format!("revoke ok user={user} revoked=0 {from}"),
    ];
    assert_eq!(audit.len(), expected.len(), "{audit:#?}");
    for (line, expected) in audit.iter().zip(&expected) {
        assert!(line.contains(expected.as_str()), "{line}\nhas no\n{expected}");
    }
    for secret in [PASSWORD, "s3cret", login.token.as_str()] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
