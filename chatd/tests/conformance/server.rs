//! Servers under test, and the people who use them.

use crate::client::{Client, WAIT};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::Chatd;

/// The password of everybody here.
pub(crate) const PASSWORD: &str = "correct horse";

static SHARED: OnceLock<House> = OnceLock::new();
static PEOPLE: AtomicUsize = AtomicUsize::new(0);

/// A registered user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// The id that `register` gave.
    pub(crate) id: u64,
    /// The spelling at registration.
    pub(crate) name: String,
}

/// A running server, which may be several nodes of one cluster.
#[derive(Debug)]
pub(crate) struct House {
    /// The process, or the first of them.
    pub(crate) chatd: Chatd,
    others: Vec<Chatd>,
    turn: AtomicUsize,
}

/// The server that tests share. Testkit's reaper ends it with the test process.
pub(crate) fn shared() -> &'static House {
    SHARED.get_or_init(House::own)
}

/// A name that nobody has yet.
pub(crate) fn fresh_name(base: &str) -> String {
    format!("{base}.{}", PEOPLE.fetch_add(1, Ordering::Relaxed))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("fits")
}

/// Asserts that a value is a time within a minute of now.
pub(crate) fn assert_recent(time_ms: &Value) {
    let time = time_ms.as_u64().expect("a time in milliseconds");
    assert!(time.abs_diff(now_ms()) < 60_000, "{time} is not now");
}

impl House {
    /// A server of one's own, with defaults.
    pub(crate) fn own() -> Self {
        Self::with_config("")
    }

    /// A server of one's own, with this added to its configuration.
    pub(crate) fn with_config(toml: &str) -> Self {
        let builder = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).more_config(toml);
        let mut nodes = crate::engine::start(builder);
        let chatd = nodes.remove(0);
        Self { chatd, others: nodes, turn: AtomicUsize::new(0) }
    }

    /// Where clients connect: one node after the other.
    pub(crate) fn addr(&self) -> SocketAddr {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (1 + self.others.len());
        turn.checked_sub(1).map_or(&self.chatd, |other| &self.others[other]).chat_addr()
    }

    /// A connection that has been greeted.
    pub(crate) fn connect(&self) -> Client {
        let mut client = Client::connect(self.addr());
        client.push("hello");
        client
    }

    /// Registers somebody whose name starts with `base`.
    pub(crate) fn user(&self, base: &str) -> User {
        let name = fresh_name(base);
        let ok = self.connect().ok(json!({"type": "register", "name": name, "password": PASSWORD}));
        User { id: ok["user"].as_u64().expect("a user id"), name }
    }

    /// Two people.
    pub(crate) fn pair(&self) -> (User, User) {
        (self.user("amy"), self.user("bob"))
    }

    /// A connection with a login and its reply; pushes are unread.
    pub(crate) fn login(&self, user: &User) -> (Client, Value) {
        let mut client = self.connect();
        let ok = client.ok(json!({"type": "login", "name": user.name, "password": PASSWORD}));
        (client, ok)
    }

    /// A session that has caught up: `synced` is read, what came before it is in the inbox.
    pub(crate) fn session(&self, user: &User) -> Client {
        let (mut client, _) = self.login(user);
        client.push("synced");
        client
    }

    /// A session that holds its streams until `sync`.
    pub(crate) fn held(&self, user: &User) -> Client {
        let mut client = self.connect();
        client.ok(json!({"type": "login", "name": user.name, "password": PASSWORD, "hold": true}));
        client
    }
}

impl Client {
    /// Sends a text to a user and waits until it is durable: the conversation and the number.
    pub(crate) fn say(&mut self, to: &User, text: &str) -> (u64, u64) {
        let ok = self.ok(json!({"type": "send", "user": to.id, "text": text}));
        place(&ok)
    }

    /// Sends `count` texts, numbered from `first`, in one write, and waits for all replies: the conversation.
    pub(crate) fn say_many(&mut self, to: &User, first: u64, count: u64) -> u64 {
        let mut batch = String::new();
        let mut ids = Vec::new();
        for n in first..first + count {
            let (id, request) = self.with_id(json!({"type": "send", "user": to.id, "text": n.to_string()}));
            batch.push_str(&format!("{request}\n"));
            ids.push(id);
        }
        self.raw(batch.as_bytes());
        let mut conv = 0;
        for id in ids {
            let reply = self.reply(id);
            assert_eq!(reply["type"], "ok", "{reply}");
            conv = place(&reply).0;
        }
        conv
    }

    /// The numbers of the next `count` messages.
    pub(crate) fn next_seqs(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.push("message")["seq"].as_u64().expect("a seq")).collect()
    }

    /// The texts of the next `count` messages.
    pub(crate) fn next_texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.push("message")["text"].as_str().expect("a text").to_owned()).collect()
    }

    /// Acknowledges and waits until that is durable.
    pub(crate) fn ack(&mut self, conv: u64, seq: u64) {
        self.ok(json!({"type": "ack", "conv": conv, "seq": seq}));
    }

    /// One user's marks in a conversation: delivered and read.
    pub(crate) fn marks_of(&mut self, conv: u64, user: &User) -> (u64, u64) {
        let ok = self.ok(json!({"type": "marks", "conv": conv}));
        let marks = ok["marks"].as_array().expect("a list of marks");
        let mark = marks.iter().find(|mark| mark["user"] == json!(user.id)).expect("the user's marks");
        (mark["delivered"].as_u64().expect("delivered"), mark["read"].as_u64().expect("read"))
    }

    /// Waits until a user's marks are so, asking again and again, within the usual bound.
    pub(crate) fn await_marks(&mut self, conv: u64, user: &User, marks: (u64, u64)) {
        testkit::wait_until(&format!("marks {marks:?}"), WAIT, || self.marks_of(conv, user) == marks);
    }
}

/// The conversation and the number in an `ok` or a push.
pub(crate) fn place(line: &Value) -> (u64, u64) {
    (line["conv"].as_u64().expect("a conv"), line["seq"].as_u64().expect("a seq"))
}

/// Whether a list says that there is more.
pub(crate) fn has_more(list: &Value) -> bool {
    list["more"].as_bool().unwrap_or(false)
}
