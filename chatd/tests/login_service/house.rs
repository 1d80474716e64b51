//! A database, login services, chat servers, and people who log in without a pause.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Chatd, ChatdBuilder, LineClient, Logd, LogdBuilder, MariaDb, wait_until};

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A call may take so long: nobody here waits until that is over. At once is what has to be answered while no login service is there.
const CALL_TIMEOUT: &str = "[login]\ncall_timeout_ms = 60000\n";

/// A database of one's own.
pub(crate) struct House {
    url: String,
}

impl House {
    /// `None`: there is no MariaDB on this machine.
    pub(crate) fn open() -> Option<Self> {
        static SERVER: OnceLock<MariaDb> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !MariaDb::available() {
            return None;
        }
        let server = SERVER.get_or_init(|| MariaDb::start().expect("MariaDB starts"));
        Some(Self { url: server.url(&format!("logins_{}", COUNT.fetch_add(1, Ordering::Relaxed))) })
    }

    pub(crate) fn logd(&self) -> LogdBuilder {
        Logd::builder(testkit::bin("logd")).args(["--mysql", &self.url])
    }

    pub(crate) fn chatd(&self) -> ChatdBuilder {
        let config = CALL_TIMEOUT.to_owned() + "hash_memory_kib = 64\nhash_passes = 1\n";
        Chatd::builder(env!("CARGO_BIN_EXE_chatd")).config(config).args([
            "--mysql",
            &self.url,
            "--threads",
            &LOOPS.to_string(),
        ])
    }

    /// A chat server that is told where its login services are.
    pub(crate) fn chatd_at(&self, logds: &[std::net::SocketAddr]) -> Chatd {
        let args = logds.iter().flat_map(|addr| ["--logd".to_owned(), addr.to_string()]);
        let chatd = self.chatd().args(args).start().unwrap();
        wait_connected(&chatd, logds.len());
        chatd
    }
}

/// Event loops of the chat servers here: each has its own connection to each login service.
const LOOPS: usize = 2;

/// Waits until all loops of the chat server have a connection to each of so many login services.
pub(crate) fn wait_connected(chatd: &Chatd, count: usize) {
    wait_until("the login services are connected", LONG, || connected(chatd) == LOOPS * count);
}

/// Connections to login services.
pub(crate) fn connected(chatd: &Chatd) -> usize {
    chatd.metric("chatd_login_connections").and_then(|count| count.try_into().ok()).expect("the metric")
}

/// A connection that waits for its answers however busy the machine is, but not for as long as a call may take.
pub(crate) fn client(chatd: &Chatd) -> LineClient {
    let mut client = chatd.client();
    client.set_patience(Duration::from_secs(45));
    client
}

pub(crate) fn register(chatd: &Chatd, name: &str) -> Value {
    client(chatd).request(json!({"type": "register", "name": name, "password": Chatd::PASSWORD}))
}

pub(crate) fn by_password(chatd: &Chatd, name: &str) -> Value {
    client(chatd).request(json!({"type": "login", "name": name, "password": Chatd::PASSWORD}))
}

pub(crate) fn by_token(chatd: &Chatd, token: &str) -> Value {
    client(chatd).request(json!({"type": "login", "token": token}))
}

pub(crate) fn token_of(login: &Value) -> String {
    login["token"].as_str().unwrap_or_else(|| panic!("no token: {login}")).to_owned()
}

/// Logins are answered again, as soon as somebody is there to do it.
pub(crate) fn wait_for_logins(chatd: &Chatd, name: &str) {
    wait_until("logins are answered", LONG, || {
        let answer = by_password(chatd, name);
        assert!(answer["type"] == "ok" || answer["code"] == "unavailable", "{answer}");
        answer["type"] == "ok"
    });
}

/// People who log in, by password and by token, until it is enough. How a login ended that did not succeed is what they give back.
pub(crate) fn log_in_during<T>(chatd: &Chatd, meanwhile: impl FnOnce(&Rush) -> T) -> (T, Failures) {
    // Two users: logins by password make tokens, and the oldest of a user's tokens have to go.
    for name in ["rush", "token"] {
        register(chatd, name);
    }
    let token = token_of(&by_password(chatd, "token"));
    let rush = Rush { enough: AtomicBool::new(false), done: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let run = |one: fn(&Chatd, &str) -> Value, with: String| {
            let rush = &rush;
            scope.spawn(move || {
                let mut failed = Vec::new();
                while !rush.enough.load(Ordering::Relaxed) {
                    let answer = one(chatd, &with);
                    if answer["type"] != "ok" {
                        failed.push(answer);
                    }
                    rush.done.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let tokens = [run(by_token, token.clone()), run(by_token, token)];
        let passwords = [run(by_password, "rush".to_owned()), run(by_password, "rush".to_owned())];
        // Stops the others also when this panics.
        let enough = Enough(&rush);
        let outcome = meanwhile(&rush);
        drop(enough);
        let of = |all: [std::thread::ScopedJoinHandle<'_, Vec<Value>>; 2]| {
            let mut counts = BTreeMap::new();
            for answer in all.into_iter().flat_map(|one| one.join().unwrap()) {
                *counts.entry(answer["code"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            counts
        };
        (outcome, Failures { by_token: of(tokens), by_password: of(passwords) })
    })
}

pub(crate) struct Rush {
    enough: AtomicBool,
    done: AtomicU64,
}

impl Rush {
    /// Waits until so many more logins were answered.
    pub(crate) fn wait_for(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        wait_until("more logins", LONG, || self.done.load(Ordering::Relaxed) >= goal);
    }
}

struct Enough<'a>(&'a Rush);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

/// How many logins were refused with which code.
#[derive(Debug)]
pub(crate) struct Failures {
    pub(crate) by_token: BTreeMap<String, usize>,
    pub(crate) by_password: BTreeMap<String, usize>,
}
