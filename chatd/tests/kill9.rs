//! `kill -9` at any moment loses nothing that was acknowledged.
//!
//! What is broken, again and again: the server is killed in the middle of pipelined sends, acks, reads and a registration, and is
//! started again on the same data. What must hold:
//! 1. a message whose `ok` has come is there afterwards, at the place that the `ok` named, with its text;
//! 2. a resend with the same `client_id` doubles nothing, whether its first sending was kept or not;
//! 3. numbers have no gaps, and the order in which a connection sent is the order in which its messages are kept;
//! 4. an ack and a read mark whose `ok` has come are still there, and so is a user whose registration was answered.
//!
//! `KILL9_SEED=n` plays a run's choices again; `KILL9_ROUNDS=n` makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code"
)]

#[path = "conformance/client.rs"]
#[allow(dead_code, reason = "shared with the conformance tests, which use all of it")]
mod client;
#[path = "conformance/model.rs"]
#[allow(dead_code, reason = "shared with the conformance tests, which use all of it")]
mod model;
#[path = "conformance/server.rs"]
#[allow(dead_code, reason = "shared with the conformance tests, which use all of it")]
mod server;

use client::{Client, Got, WAIT};
use fastrand::Rng;
use model::{Place, Truth};
use serde_json::{Value, json};
use server::{House, User, has_more, place};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

const PAIRS: usize = 4;
const ROUNDS: u64 = 8;
const IN_FLIGHT: usize = 16;

/// Somebody who writes to a partner, and remembers what was promised over all the server's lives.
#[derive(Debug)]
struct Writer {
    user: User,
    partner: User,
    token: Value,
    client: Option<Client>,
    /// Messages to be sent, in their order: those that are not acknowledged.
    unsent: VecDeque<u64>,
    /// Requests on this connection, by their id.
    in_flight: BTreeMap<u64, Asked>,
    /// The next fresh message's number.
    fresh: u64,
    /// What was acknowledged, and where it is.
    kept: BTreeMap<u64, Place>,
    /// What this device has of the one conversation.
    have: BTreeSet<u64>,
    /// The highest delivered and read marks that were answered.
    marks: (u64, u64),
    conv: Option<u64>,
    /// The highest ack without an id that this connection has sent.
    acked: u64,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Send(u64),
    Ack(u64),
    Read(u64),
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("KILL9_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let rounds = number("KILL9_ROUNDS").unwrap_or(ROUNDS);
    println!("KILL9_SEED={seed} KILL9_ROUNDS={rounds}");
    let mut rng = Rng::with_seed(seed);
    let house = House::own();
    let mut writers = Vec::new();
    for _ in 0..PAIRS {
        let (amy, bob) = house.pair();
        writers.push(Writer::new(&house, amy.clone(), bob.clone()));
        writers.push(Writer::new(&house, bob, amy));
    }
    let mut truth = Truth::default();
    for round in 1..=rounds {
        for writer in &mut writers {
            writer.come_back(&house);
        }
        let newcomer = live(&house, &mut writers, &mut truth, &mut rng);
        house.chatd.kill9();
        for writer in &mut writers {
            writer.hear_the_last(&mut truth);
        }
        house.chatd.restart().expect("it starts again");
        house.login(&newcomer);
        for writer in &writers {
            writer.check_marks(&house);
        }
        println!(
            "round {round}: {} messages are known to be kept",
            writers.iter().map(|writer| writer.kept.len()).sum::<usize>()
        );
    }
    for writer in &mut writers {
        writer.come_back(&house);
    }
    finish(&mut writers, &mut truth);
    for writer in &mut writers {
        writer.check_history(&mut truth);
    }
    let sent = writers.iter().map(|writer| usize::try_from(writer.fresh).unwrap()).sum::<usize>();
    assert_eq!((truth.gap(), truth.len()), (None, sent), "nothing is missing, nothing is doubled");
}

/// Everybody writes until a random number of answers has come; somebody registers meanwhile.
fn live(house: &House, writers: &mut [Writer], truth: &mut Truth, rng: &mut Rng) -> User {
    let enough = rng.usize(1..800);
    let registers_at = rng.usize(..enough);
    let (mut answers, mut newcomer) = (0, None);
    let deadline = Instant::now() + WAIT;
    while answers < enough {
        for writer in &mut *writers {
            writer.fill(rng, true);
            answers += writer.pump(truth);
        }
        if answers >= registers_at && newcomer.is_none() {
            newcomer = Some(house.user("newcomer"));
        }
        assert!(Instant::now() < deadline, "{answers} of {enough} answers");
    }
    newcomer.unwrap_or_else(|| house.user("newcomer"))
}

/// What was not acknowledged is sent again until it is, and everybody gets everything.
fn finish(writers: &mut [Writer], truth: &mut Truth) {
    let deadline = Instant::now() + 2 * WAIT;
    loop {
        for writer in &mut *writers {
            writer.fill(&mut Rng::with_seed(0), false);
            writer.pump(truth);
        }
        let done = |writer: &Writer| {
            writer.unsent.is_empty() && writer.in_flight.is_empty() && writer.is_complete(truth)
        };
        if writers.iter().all(done) {
            return;
        }
        if Instant::now() > deadline {
            let open = writers.iter_mut().find(|writer| !done(writer)).expect("somebody");
            let state =
                format!("{:?} and {:?} to send, has {}", open.in_flight, open.unsent, open.complete_to());
            open.client().fail(&format!("not everything came: {state}"));
        }
    }
}

impl Writer {
    fn new(house: &House, user: User, partner: User) -> Self {
        let token = house.login(&user).1["token"].clone();
        Self {
            user,
            partner,
            token,
            client: None,
            unsent: VecDeque::new(),
            in_flight: BTreeMap::new(),
            fresh: 0,
            kept: BTreeMap::new(),
            have: BTreeSet::new(),
            marks: (0, 0),
            conv: None,
            acked: 0,
        }
    }

    fn text(&self, n: u64) -> String {
        format!("{n} from {}", self.user.name)
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("connected")
    }

    /// Up to where this device has everything.
    fn complete_to(&self) -> u64 {
        self.have.iter().zip(1..).take_while(|(seq, n)| *seq == n).count() as u64
    }

    fn is_complete(&self, truth: &Truth) -> bool {
        self.conv.is_none_or(|conv| self.complete_to() == truth.last(conv))
    }

    /// Logs in by token and resumes from this device's own cursor.
    fn come_back(&mut self, house: &House) {
        let mut client = house.connect();
        client.ok(json!({"type": "login", "token": self.token, "hold": true}));
        let cursors = match self.conv {
            Some(conv) => json!({conv.to_string(): self.complete_to()}),
            None => json!({}),
        };
        client.ok(json!({"type": "sync", "cursors": cursors}));
        let complete = self.complete_to();
        self.have.retain(|seq| *seq <= complete);
        self.client = Some(client);
        self.acked = complete;
    }

    /// Keeps requests in flight: first what is not acknowledged, in its order, then fresh messages, acks and reads.
    fn fill(&mut self, rng: &mut Rng, with_fresh: bool) {
        while self.in_flight.len() < IN_FLIGHT {
            if let (Some(conv), true, 0..2) = (self.conv, with_fresh, rng.u32(..10)) {
                let seq = self.complete_to();
                let (kind, asked) =
                    if rng.bool() { ("ack", Asked::Ack(seq)) } else { ("read", Asked::Read(seq)) };
                if seq > 0 {
                    let id = self.client().ask(json!({"type": kind, "conv": conv, "seq": seq}));
                    self.in_flight.insert(id, asked);
                    continue;
                }
            }
            let n = match self.unsent.pop_front() {
                Some(n) => n,
                None if with_fresh => {
                    self.fresh += 1;
                    self.fresh
                }
                None => return,
            };
            let (text, to) = (self.text(n), self.partner.id);
            let id = self
                .client()
                .ask(json!({"type": "send", "user": to, "client_id": n.to_string(), "text": text}));
            self.in_flight.insert(id, Asked::Send(n));
        }
    }

    /// Handles what has come: how many requests were answered.
    fn pump(&mut self, truth: &mut Truth) -> usize {
        let mut lines = self.client().arrived();
        if lines.is_empty()
            && let Got::Line(line) = self.client().next(Duration::from_millis(1))
        {
            lines.push(line);
        }
        let answered = lines.iter().filter(|line| self.on_line(line, truth)).count();
        let complete = self.complete_to();
        if let (Some(conv), true) = (self.conv, complete > self.acked) {
            self.client().tell(&json!({"type": "ack", "conv": conv, "seq": complete}));
            self.acked = complete;
        }
        answered
    }

    /// After the kill: an answer that is on the way counts as given; what has none is to be sent again, in its order.
    fn hear_the_last(&mut self, truth: &mut Truth) {
        for line in self.client().rest() {
            self.on_line(&line, truth);
        }
        let lost = Vec::from_iter(std::mem::take(&mut self.in_flight).into_values());
        for asked in lost.into_iter().rev() {
            if let Asked::Send(n) = asked {
                self.unsent.push_front(n);
            }
        }
        self.client = None;
    }

    fn on_line(&mut self, line: &Value, truth: &mut Truth) -> bool {
        match line["type"].as_str() {
            Some("ok") => {
                let id = line["id"].as_u64().expect("an id");
                match self.in_flight.remove(&id).expect("a request of this connection") {
                    Asked::Send(n) => self.on_kept(n, line, truth),
                    Asked::Ack(seq) => self.marks.0 = self.marks.0.max(seq),
                    Asked::Read(seq) => self.marks.1 = self.marks.1.max(seq),
                }
                true
            }
            Some("message") => {
                let (from, text) =
                    (line["from"].as_u64().expect("from"), line["text"].as_str().expect("text"));
                self.learn(place(line), from, text, truth);
                let fresh = self.have.insert(place(line).1);
                assert!(
                    fresh,
                    "it has come on this connection already, or before this device's cursor: {line}"
                );
                false
            }
            Some("synced" | "delivered" | "read") => false,
            _ => panic!("{line}"),
        }
    }

    fn on_kept(&mut self, n: u64, ok: &Value, truth: &mut Truth) {
        let duplicate = ok["duplicate"].as_bool().unwrap_or(false);
        self.learn(place(ok), self.user.id, &self.text(n), truth);
        let before = self.kept.insert(n, place(ok));
        assert_eq!(before, None, "message {n} was acknowledged before and sent again");
        // A duplicate comes, or came, as a push.
        if !duplicate {
            assert!(self.have.insert(place(ok).1), "twice on this connection: {ok}");
        }
    }

    fn learn(&mut self, place: Place, from: u64, text: &str, truth: &mut Truth) {
        assert_eq!(*self.conv.get_or_insert(place.0), place.0, "a pair has one conversation");
        truth.learn(place, from, text).unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// Promise 4, on a fresh server.
    fn check_marks(&self, house: &House) {
        let Some(conv) = self.conv else { return };
        let mut client = house.connect();
        client.ok(json!({"type": "login", "token": self.token, "hold": true}));
        let marks = client.marks_of(conv, &self.user);
        assert!(
            marks.0 >= self.marks.0 && marks.1 >= self.marks.1,
            "{marks:?} is behind the answered {:?}",
            self.marks
        );
    }

    /// Promises 1 to 3, by what the server itself says in the end.
    fn check_history(&mut self, truth: &mut Truth) {
        let conv = self.conv.expect("a conversation");
        let (mut last, mut mine) = (0, Vec::new());
        loop {
            let page =
                self.client().ok(json!({"type": "history", "conv": conv, "after": last, "limit": 200}));
            for entry in page["messages"].as_array().expect("messages") {
                let (from, text) =
                    (entry["from"].as_u64().expect("from"), entry["text"].as_str().expect("text"));
                assert_eq!(entry["seq"], json!(last + 1), "a gap");
                last += 1;
                truth.learn((conv, last), from, text).unwrap_or_else(|fault| panic!("{fault}"));
                if from == self.user.id {
                    mine.push((text.to_owned(), (conv, last)));
                }
            }
            if !has_more(&page) {
                break;
            }
        }
        let promised = self.kept.iter().map(|(n, place)| (self.text(*n), *place));
        assert_eq!(mine, Vec::from_iter(promised), "in the order of sending, each once");
    }
}

/// Where the server has its tables: in its own folder.
mod engine {
    use testkit::{Chatd, ChatdBuilder};

    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        vec![builder.start().expect("the server starts")]
    }
}
