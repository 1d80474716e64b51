//! Sentences of the protocol page at the places where threads, loops and sessions meet.
//!
//! What is done, and what must hold:
//! 1. a user leaves a loop before its streams have started: the next login there misses nothing;
//! 2. a session that holds gets no push at all before its `sync`, whatever others do;
//! 3. an `ack` that waits to be written is not lost to a lower one with an `id`;
//! 4. who revokes tokens and vanishes before the answer has revoked them, for live sessions too;
//! 5. a changed password ends every other session, one that rests on the same token included;
//! 6. a request that was accepted is answered, whatever bad lines come behind it;
//! 7. an error keeps to the line limit, whatever it speaks of;
//! 8. half a line that never ends is met with a `bye`;
//! 9. hints to a reader that does not read cost no memory and do not end its connection;
//! 10. two sessions of one user move their cursors at once: each hears of the other's;
//! 11. who reads slowly and pings is not idle;
//! 12. syncs fail under load for a while: each send is answered truthfully, afterwards everything works again, and every entry is there once, in order,
//!     and came to everybody once;
//! 13. the server is killed after syncs failed: what was refused and is there all the same comes as a push, and a resend does not double it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Chatd, LineClient, Strace, To, try_wait_until, wait_until};

const CHATD: &str = env!("CARGO_BIN_EXE_chatd");
const WAIT: Duration = Duration::from_secs(15);

fn server() -> Chatd {
    Chatd::builder(CHATD).start().unwrap()
}

/// Two users with a conversation of one entry, and a session each.
fn pair(server: &Chatd) -> (LineClient, LineClient, u64) {
    let (mut amy, bob) = (server.client_as("amy"), server.client_as("bob"));
    let conv = amy.send_text(To::Name("bob"), "1")["conv"].as_u64().unwrap();
    (amy, bob, conv)
}

fn another(server: &Chatd, name: &str) -> LineClient {
    let mut client = server.client();
    client.login(name, Chatd::PASSWORD);
    client.next_push("synced");
    client
}

fn wait_offline(eye: &mut LineClient, name: &str) {
    wait_until(&format!("{name} is offline"), WAIT, || {
        eye.ok(json!({"type": "find_user", "name": name}))["online"] == json!(false)
    });
}

/// The thread that logged the begin of a session: the loop that it is on.
fn loop_of(server: &Chatd, login: &Value) -> String {
    let words = format!("session {} of user {} began", login["session"], login["user"]);
    let mut thread = None;
    wait_until("the log tells of the session", WAIT, || {
        let log = server.log_text();
        let line = log.lines().find(|line| line.ends_with(&words));
        let name = line.and_then(|line| line.split_whitespace().find(|word| word.contains("io-")));
        thread = name.map(str::to_owned);
        thread.is_some()
    });
    thread.unwrap()
}

/// A connection without a login, and the loop that it is on.
fn stranger(server: &Chatd) -> (LineClient, String) {
    let mut client = server.client();
    let place = loop_of(server, &client.login("probe", Chatd::PASSWORD));
    client.next_push("synced");
    client.ok(json!({"type": "logout"}));
    (client, place)
}

/// A connection without a login on the loop that `wanted` accepts. Those on other loops stay, so that the next goes elsewhere.
fn stranger_on(server: &Chatd, spares: &mut Vec<LineClient>, wanted: impl Fn(&str) -> bool) -> LineClient {
    for _ in 0..12 {
        let (client, place) = stranger(server);
        if wanted(&place) {
            return client;
        }
        spares.push(client);
    }
    panic!("no connection came to the wanted loop")
}

#[test]
fn who_left_before_the_streams_began_leaves_nothing_behind_that_later_logins_stumble_over() {
    let server = Chatd::builder(CHATD).args(["--threads", "2"]).start().unwrap();
    let mut eye = server.client_as("probe");
    let (amy, bob, _) = pair(&server);
    drop((amy, bob));
    wait_offline(&mut eye, "amy");
    wait_offline(&mut eye, "bob");

    let mut spares = Vec::new();
    let (mut bob, here) = stranger(&server);
    let mut amy = stranger_on(&server, &mut spares, |place| place == here);
    amy.login("amy", Chatd::PASSWORD);
    amy.next_push("synced");
    bob.ok(json!({"type": "login", "name": "bob", "password": Chatd::PASSWORD, "hold": true}));
    drop(amy);
    wait_offline(&mut eye, "amy");
    drop(bob);
    wait_offline(&mut eye, "bob");

    // While none of the two is on that loop, the conversation goes on.
    let mut amy = stranger_on(&server, &mut spares, |place| place != here);
    amy.login("amy", Chatd::PASSWORD);
    for text in ["2", "3", "4"] {
        amy.send_text(To::Name("bob"), text);
    }
    let mut bob = stranger_on(&server, &mut spares, |place| place == here);
    bob.login("bob", Chatd::PASSWORD);
    let synced = bob.try_next_push("synced", Duration::from_secs(5));
    let texts: Vec<_> = bob.take_pushes().into_iter().filter(|push| push["type"] == "message").collect();
    assert_eq!(texts.iter().map(|push| push["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(synced.is_some(), "`synced` never came");
}

#[test]
fn a_session_that_holds_gets_no_hint_before_its_sync() {
    let server = server();
    let (mut amy, mut bob, conv) = pair(&server);
    let mut held = server.client();
    held.ok(json!({"type": "login", "name": "bob", "password": Chatd::PASSWORD, "hold": true}));
    held.next_push("hello");
    bob.next_push("message");
    amy.ok(json!({"type": "typing", "conv": conv}));
    bob.next_push("typing");
    bob.ok(json!({"type": "read", "conv": conv, "seq": 1}));
    amy.next_push("read");
    held.ping();
    assert!(held.pushes().is_empty(), "pushed before `sync`: {:?}", held.pushes());
}

#[test]
fn an_ack_that_waits_is_not_lost_to_a_lower_one_with_an_id() {
    let server = server();
    let (mut amy, mut bob, conv) = pair(&server);
    for number in 2..=7 {
        amy.send_text(To::Conv(conv), &number.to_string());
    }
    wait_until("all came", WAIT, || bob.next_push("message")["seq"] == json!(7));
    bob.send(&json!({"type": "ack", "conv": conv, "seq": 7}));
    bob.ack(conv, 5);
    let delivered = |amy: &mut LineClient| {
        let marks = amy.ok(json!({"type": "marks", "conv": conv}));
        let marks = marks["marks"].as_array().unwrap().iter();
        marks.map(|mark| mark["delivered"].as_u64().unwrap()).max().unwrap()
    };
    drop(bob);
    assert!(
        try_wait_until(Duration::from_secs(8), || delivered(&mut amy) == 7),
        "the ack of 7 was never written, delivered is {}",
        delivered(&mut amy)
    );
}

#[test]
fn who_revokes_and_vanishes_has_revoked() {
    // Slow hashes, so that the answer comes to a connection that is gone.
    let config = "[login]\nhash_memory_kib = 65536\nhash_passes = 3\n";
    let server = Chatd::builder(CHATD).config(config).start().unwrap();
    let mut thief = server.client_as("amy");
    let mut amy = server.client();
    amy.login("amy", Chatd::PASSWORD);
    let new = "another long password";
    amy.send(&json!({"type": "password", "id": 1, "old": Chatd::PASSWORD, "new": new}));
    // What is behind it in the queue is decided after it.
    amy.reset();
    let mut again = server.client();
    again.set_patience(Duration::from_secs(60));
    wait_until("the password is changed", Duration::from_secs(60), || {
        again.request(json!({"type": "login", "name": "amy", "password": new}))["type"] == json!("ok")
    });
    let bye = thief.try_next_push("bye", Duration::from_secs(5));
    assert_eq!(bye.map(|bye| bye["code"].clone()), Some(json!("logged_out")), "the other session lives on");
}

#[test]
fn a_changed_password_ends_a_session_that_rests_on_the_same_token() {
    let server = server();
    server.client_as("amy");
    let mut amy = server.client();
    let token = amy.login("amy", Chatd::PASSWORD)["token"].as_str().unwrap().to_owned();
    let mut thief = server.client();
    thief.login_token(&token);
    amy.ok(json!({"type": "password", "old": Chatd::PASSWORD, "new": "another long password"}));
    let bye = thief.try_next_push("bye", Duration::from_secs(5));
    assert_eq!(bye.map(|bye| bye["code"].clone()), Some(json!("logged_out")), "the other session lives on");
}

#[test]
fn an_accepted_send_is_answered_before_the_bye_for_bad_lines_behind_it() {
    let server = server();
    let (mut amy, _bob, conv) = pair(&server);
    let send = format!("{}\n", json!({"type": "send", "id": 77, "conv": conv, "text": "accepted"}));
    amy.send_raw(&[send.as_bytes(), &b"garbage\n".repeat(16)].concat());
    let lines = amy.expect_closed();
    let answered = lines.iter().any(|line| String::from_utf8_lossy(line).contains("\"id\":77"));
    assert!(answered, "no reply to the send came before the bye:\n{}", amy.transcript());
}

#[test]
fn an_accepted_send_is_answered_before_the_bye_for_a_long_line_behind_it() {
    let server = server();
    let (mut amy, _bob, conv) = pair(&server);
    let send = format!("{}\n", json!({"type": "send", "id": 77, "conv": conv, "text": "accepted"}));
    amy.send_raw(&[send.as_bytes(), &[b'x'; 65_537]].concat());
    let lines = amy.expect_closed();
    let answered = lines.iter().any(|line| String::from_utf8_lossy(line).contains("\"id\":77"));
    assert!(answered, "no reply to the send came before the bye:\n{}", amy.transcript());
}

#[test]
fn an_error_keeps_to_the_line_limit_whatever_it_speaks_of() {
    let server = server();
    let mut amy = server.client_as("amy");
    // A string where a number belongs, as long as a line allows, of what grows when it is escaped.
    for text in ["\"".repeat(32_000), "\u{1}".repeat(10_000), "é".repeat(32_000)] {
        amy.send(&json!({"type": "ack", "id": 5, "conv": text, "seq": 1}));
        let line = loop {
            let line = amy.recv_line(WAIT).unwrap().expect("an answer");
            if String::from_utf8_lossy(&line).contains("\"id\":5") {
                break line;
            }
        };
        assert!(line.len() <= 65_536, "an error of {} bytes", line.len());
    }
}

#[test]
fn half_a_line_that_never_ends_is_met_with_a_bye() {
    let config = "[limits]\nlogin_timeout_ms = 36000\nidle_timeout_ms = 36000\n";
    let server = Chatd::builder(CHATD).more_config(config).start().unwrap();
    let mut client = server.client();
    client.set_patience(Duration::from_secs(60));
    client.send_raw(b"{\"type\":\"ping\",");
    let lines = client.expect_closed();
    let last = String::from_utf8_lossy(lines.last().unwrap()).into_owned();
    assert!(last.contains("\"bye\""), "closed without a `bye`; the last line was {last}");
}

#[test]
fn hints_to_a_reader_that_does_not_read_cost_no_memory_and_do_not_end_it() {
    let server = server();
    let (mut amy, bob, conv) = pair(&server);
    drop(bob);
    let mut bob = LineClient::connect_with_rcvbuf(server.chat_addr(), 4_096);
    bob.login("bob", Chatd::PASSWORD);
    bob.next_push("synced");
    let before = testkit::process::rss_bytes(server.pid());
    let typing = format!("{}\n", json!({"type": "typing", "conv": conv})).repeat(1_000);
    for _ in 0..400 {
        amy.send_raw(typing.as_bytes());
    }
    amy.set_patience(Duration::from_secs(60));
    amy.ping();
    let growth = testkit::process::rss_bytes(server.pid()).saturating_sub(before);
    assert!(growth < 2 << 20, "{growth} bytes more for one reader that does not read");
    bob.ping();
}

#[test]
fn of_two_sessions_that_move_cursors_at_once_each_hears_of_the_others() {
    if !Strace::available() {
        return;
    }
    let server = server();
    let (mut amy, mut phone, conv) = pair(&server);
    let mut laptop = another(&server, "bob");
    phone.next_push("message");
    laptop.next_push("message");
    // Each sync takes long, so that what comes meanwhile waits together.
    let slow = ["-f", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=500000"];
    let strace = Strace::attach(server.pid(), &slow);
    let busy = amy.post(json!({"type": "send", "conv": conv, "text": "2"}));
    assert!(strace.wait_for(WAIT, |text| text.contains("sync(")), "no sync was seen");
    let acked = phone.post(json!({"type": "ack", "conv": conv, "seq": 1}));
    phone.ping();
    let read = laptop.post(json!({"type": "read", "conv": conv, "seq": 1}));
    assert_eq!(amy.reply(busy)["type"], "ok");
    assert_eq!(phone.reply(acked)["type"], "ok");
    assert_eq!(laptop.reply(read)["type"], "ok");
    drop(strace);
    let told = phone.try_next_push("read", Duration::from_secs(3));
    assert!(told.is_some(), "the phone was not told that the laptop has read");
    let told = laptop.try_next_push("delivered", Duration::from_secs(3));
    assert!(told.is_some(), "the laptop was not told that the phone has received");
}

#[test]
fn who_reads_slowly_and_pings_is_not_idle() {
    let config = "[limits]\nidle_timeout_ms = 1500\n";
    let server = Chatd::builder(CHATD).more_config(config).start().unwrap();
    let (mut amy, _bob, conv) = pair(&server);
    for _ in 0..8 {
        amy.send_text(To::Conv(conv), &"x".repeat(8_000));
    }
    let mut slow = LineClient::connect_with_rcvbuf(server.chat_addr(), 4_096);
    slow.login("amy", Chatd::PASSWORD);
    let history = json!({"type": "history", "conv": conv});
    let asked: Vec<u64> = (0..150).map(|_| slow.post(history.clone())).collect();
    // A reply of 64 KB every 50 ms is ten times what a poor line gives; the whole takes five times the idle timeout.
    for id in asked {
        let next = Instant::now() + Duration::from_millis(50);
        assert_eq!(slow.reply(id)["type"], "ok");
        slow.send(&json!({"type": "ping"}));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

const FAILING_SYNCS: [&str; 5] =
    ["-f", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=1+"];

/// What became of one send.
#[derive(Debug)]
struct Sent {
    text: String,
    refused: bool,
    /// Its place, and whether the answer was a duplicate's.
    ok: Option<(u64, bool)>,
}

/// What the talkers and the test tell each other.
#[derive(Debug, Default)]
struct Signs {
    oks: [AtomicUsize; 2],
    refusals: [AtomicUsize; 2],
    enough: AtomicBool,
}

/// One live session that writes without pause, resends what was refused, and notes all that comes.
struct Talker {
    me: usize,
    client: LineClient,
    conv: u64,
    sent: Vec<Sent>,
    waiting: HashMap<u64, usize>,
    again: VecDeque<usize>,
    pushed: BTreeMap<u64, String>,
    unacked: usize,
}

impl Talker {
    fn new(me: usize, client: LineClient, conv: u64) -> Self {
        let (waiting, again, pushed) = (HashMap::new(), VecDeque::new(), BTreeMap::new());
        Self { me, client, conv, sent: Vec::new(), waiting, again, pushed, unacked: 0 }
    }

    /// Talks until it is enough and everything is accepted.
    fn talk(&mut self, signs: &Signs) {
        loop {
            while self.waiting.len() < 8 {
                let at = match self.again.pop_front() {
                    Some(at) => at,
                    None if signs.enough.load(Ordering::Relaxed) => break,
                    None => {
                        let text = format!("{} says {}", self.me, self.sent.len());
                        self.sent.push(Sent { text, refused: false, ok: None });
                        self.sent.len() - 1
                    }
                };
                let text = &self.sent[at].text;
                let request = To::Conv(self.conv).request(Some(text), text);
                let id = self.client.post(request);
                self.waiting.insert(id, at);
            }
            if self.waiting.is_empty() {
                return;
            }
            self.take(signs);
        }
    }

    /// Takes one line.
    fn take(&mut self, signs: &Signs) {
        let line = self.client.recv(WAIT).unwrap().expect("the connection stays");
        match (line["type"].as_str().unwrap(), line["id"].as_u64()) {
            ("ok", Some(id)) => {
                let sent = &mut self.sent[self.waiting.remove(&id).expect("an id that waits")];
                sent.ok = Some((line["seq"].as_u64().unwrap(), line["duplicate"] == json!(true)));
                signs.oks[self.me].fetch_add(1, Ordering::Relaxed);
            }
            ("error", id) => {
                assert_eq!(line["code"], json!("unavailable"), "{line}");
                // Without an id it is the answer to an ack.
                if let Some(id) = id {
                    let at = self.waiting.remove(&id).expect("an id that waits");
                    self.sent[at].refused = true;
                    self.again.push_back(at);
                    signs.refusals[self.me].fetch_add(1, Ordering::Relaxed);
                }
            }
            ("message", None) => self.note(&line),
            ("delivered" | "synced" | "hello", None) => {}
            (other, _) => panic!("a strange {other}: {line}"),
        }
    }

    fn note(&mut self, push: &Value) {
        let seq = push["seq"].as_u64().unwrap();
        let last = self.pushed.last_key_value().map_or(0, |(last, _)| *last);
        assert!(seq > last, "pushed {seq} after {last}\n{}", self.client.transcript());
        self.pushed.insert(seq, push["text"].as_str().unwrap().to_owned());
        self.unacked += 1;
        if self.unacked >= 32 {
            self.unacked = 0;
            self.client.send(&json!({"type": "ack", "conv": self.conv, "seq": seq}));
        }
    }

    /// The places that came to this connection as the first `ok` of an own send.
    fn own(&self) -> BTreeSet<u64> {
        self.sent.iter().filter_map(|sent| sent.ok).filter(|(_, old)| !old).map(|(seq, _)| seq).collect()
    }

    /// Waits for the rest of the stream and compares it with what is stored.
    fn check(mut self, stored: &[String], signs: &Signs) {
        let own = self.own();
        let end = Instant::now() + WAIT;
        while self.pushed.len() + own.len() < stored.len() && Instant::now() < end {
            self.take(signs);
        }
        let came: BTreeSet<u64> = self.pushed.keys().copied().chain(own.iter().copied()).collect();
        let all: BTreeSet<u64> = (1..=stored.len() as u64).collect();
        assert_eq!(
            all.difference(&came).collect::<Vec<_>>(),
            Vec::<&u64>::new(),
            "never came to {}",
            self.me
        );
        assert_eq!(came.len(), self.pushed.len() + own.len(), "came both as `ok` and as push");
        let stored_at = |seq: u64| &stored[usize::try_from(seq).unwrap() - 1];
        for (seq, text) in &self.pushed {
            assert_eq!(stored_at(*seq), text);
        }
        let mut before = 0;
        for sent in &self.sent {
            let (seq, _) = sent.ok.expect("everything was accepted at last");
            assert_eq!(stored_at(seq), &sent.text);
            if !sent.refused {
                assert!(seq > before, "{} at {seq} was sent after what is at {before}", sent.text);
                before = seq;
            }
        }
    }
}

/// The texts of a conversation, in order, whose places must be 1, 2, 3, …
fn stored(client: &mut LineClient, conv: u64) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let page = client.ok(json!({"type": "history", "conv": conv, "after": texts.len(), "limit": 200}));
        for message in page["messages"].as_array().unwrap() {
            texts.push(message["text"].as_str().unwrap().to_owned());
            assert_eq!(message["seq"], json!(texts.len()));
        }
        if page["more"] == json!(false) {
            return texts;
        }
    }
}

fn assert_each_once(texts: &[String]) {
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), texts.len(), "an entry is there twice");
}

#[test]
fn failing_syncs_are_answered_truthfully_and_leave_no_trace_when_they_are_over() {
    if !Strace::available() {
        return;
    }
    let server = Chatd::builder(CHATD).args(["--threads", "2"]).start().unwrap();
    let (amy, mut bob, conv) = pair(&server);
    let mut eye = server.client();
    let token = eye.login("bob", Chatd::PASSWORD)["token"].clone();
    bob.next_push("message");
    let mut talkers = [Talker::new(0, amy, conv), Talker::new(1, bob, conv)];
    talkers[0].sent.push(Sent { text: "1".into(), refused: false, ok: Some((1, false)) });
    talkers[1].pushed.insert(1, "1".into());
    let signs = Signs::default();
    let each_has = |counters: &[AtomicUsize; 2], least: usize| {
        wait_until(&format!("each talker has {least}"), Duration::from_secs(60), || {
            counters.iter().all(|counter| counter.load(Ordering::Relaxed) >= least)
        });
    };
    std::thread::scope(|scope| {
        let threads = talkers.each_mut().map(|talker| scope.spawn(|| talker.talk(&signs)));
        each_has(&signs.oks, 30);
        let strace = Strace::attach(server.pid(), &FAILING_SYNCS);
        each_has(&signs.refusals, 40);
        // Who only reads is served, and who logs in is told the truth.
        assert!(!stored(&mut eye, conv).is_empty());
        let reply = server.client().request(json!({"type": "login", "token": token}));
        assert!(reply["type"] == "ok" || reply["code"] == "unavailable", "{reply}");
        drop(strace);
        let before = signs.oks.each_ref().map(|oks| oks.load(Ordering::Relaxed)).into_iter().max().unwrap();
        each_has(&signs.oks, before + 30);
        signs.enough.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let stored = stored(&mut eye, conv);
    assert_each_once(&stored);
    assert_eq!(stored.len(), talkers.iter().map(|talker| talker.sent.len()).sum::<usize>());
    let late = talkers.iter().flat_map(|talker| &talker.sent);
    let late = late.filter(|sent| sent.refused && sent.ok.is_some_and(|(_, old)| old)).count();
    println!("{} entries, {late} of them refused first and there all the same", stored.len());
    for talker in talkers {
        talker.check(&stored, &signs);
    }
    let log = server.log_text();
    assert!(!log.contains("panicked") && !log.contains("defect"), "{log}");
}

#[test]
fn what_was_refused_and_outlives_a_kill_comes_as_a_push_and_is_not_doubled() {
    if !Strace::available() {
        return;
    }
    for round in 0..3 {
        let server = server();
        let (mut amy, _bob, conv) = pair(&server);
        let strace = Strace::attach(server.pid(), &FAILING_SYNCS);
        let mut refused = Vec::new();
        for number in 0..=round {
            let text = format!("refused {number}");
            let reply = amy.request(To::Conv(conv).request(Some(&text), &text));
            assert_eq!(reply["code"], json!("unavailable"), "{reply}");
            refused.push(text);
        }
        server.kill9();
        drop(strace);
        server.restart().unwrap();
        let mut amy = another(&server, "amy");
        let there = stored(&mut amy, conv);
        let pushed = amy.take_pushes().into_iter().filter(|push| push["type"] == "message");
        let pushed: Vec<_> = pushed.map(|push| push["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(pushed, there, "what is stored and what was pushed");
        println!("{} of {} refused sends outlived the kill", there.len() - 1, refused.len());
        for text in &refused {
            let reply = amy.ok(To::Conv(conv).request(Some(text), text));
            assert_eq!(reply["duplicate"] == json!(true), there.contains(text), "{reply}");
        }
        let there = stored(&mut amy, conv);
        assert_each_once(&there);
        assert_eq!(there.len(), 1 + refused.len());
    }
}
