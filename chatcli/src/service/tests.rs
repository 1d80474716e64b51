//! The service's answers to single lines: what is said after a login, acks, refusals, byes, holes.

use std::time::{Duration, Instant};

use schema::{ConvId, Seq};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Action, ClientService, Credential, Event, Phase, Progress, Question, Refusal, Ticket, To};
use crate::limits::{ACK_DELAY, ACK_EVERY, HOLE_PATIENCE, TYPING_EVERY};
use crate::secret::Secret;

pub(super) struct Stage {
    pub(super) now: Instant,
    pub(super) client: ClientService,
}

const HELLO: &str = r#"{"type":"hello","version":1,"server":"s/1","node":"n","heartbeat_secs":30,"max_line_bytes":65536,"max_text_bytes":16384,"push_window":256,"time_ms":1}"#;

fn conv() -> ConvId {
    ConvId::new(55).unwrap()
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

impl Stage {
    fn new() -> Self {
        Self { now: Instant::now(), client: ClientService::new("run") }
    }

    fn greeted() -> Self {
        let mut stage = Self::new();
        stage.client.handle_connected();
        stage.hear(HELLO);
        stage
    }

    /// Logged in as amy (7), with one conversation with bob (12) that is complete up to 3.
    pub(super) fn online() -> Self {
        let mut stage = Self::greeted();
        stage.login();
        stage.reach_online(3);
        stage.events();
        stage
    }

    fn login(&mut self) -> Ticket {
        let password = Secret::new("correct horse");
        self.client.login(Credential::Password { name: "amy".into(), password }).unwrap()
    }

    pub(super) fn reach_online(&mut self, delivered: u64) {
        let login = self.said_id("login");
        self.hear(&format!(
            r#"{{"type":"ok","id":{login},"user":7,"name":"amy","token":"t-1","expires_ms":9,"session":1}}"#
        ));
        let list = self.said_id("conversations");
        self.hear(&format!(r#"{{"type":"ok","id":{list},"conversations":[{{"conv":55,"kind":"direct","name":"bob","user":12,"last_seq":3,"delivered":{delivered},"read":3,"unread":0}}],"more":false}}"#));
        assert_eq!(self.client.phase(), Phase::Online);
    }

    pub(super) fn hear(&mut self, line: &str) {
        self.client.handle_line(self.now, line.as_bytes());
    }

    fn hear_message(&mut self, number: u64) {
        self.hear(&format!(r#"{{"type":"message","conv":55,"kind":"direct","seq":{number},"from":12,"from_name":"bob","to":7,"to_name":"amy","text":"m{number}","time_ms":5}}"#));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_time(self.now);
    }

    /// What was said since the last look.
    pub(super) fn said(&mut self) -> Vec<Value> {
        let mut said = Vec::new();
        while let Some(action) = self.client.take_action() {
            if let Action::Line(line) = action {
                said.push(Value::deserialize(&mut serde_json::Deserializer::from_slice(&line)).unwrap());
            }
        }
        said
    }

    /// The id of the one request of this kind that was said since the last look.
    pub(super) fn said_id(&mut self, kind: &str) -> u64 {
        let said = self.said();
        let found: Vec<&Value> = said.iter().filter(|line| line["type"] == kind).collect();
        assert_eq!(found.len(), 1, "{said:?}");
        found[0]["id"].as_u64().unwrap()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.take_event()).collect()
    }

    pub(super) fn reconnect(&mut self) {
        self.client.handle_lost();
        self.client.handle_connected();
        self.hear(HELLO);
    }
}

pub(super) fn refused(ticket: Ticket, code: &str, events: &[Event]) -> Refusal {
    let found = events.iter().find_map(|event| match event {
        Event::Refused { ticket: of, refusal } if *of == ticket => Some(refusal.clone()),
        _ => None,
    });
    let refusal = found.unwrap_or_else(|| panic!("not refused: {events:?}"));
    assert_eq!(refusal.code, code);
    refusal
}

#[test]
fn a_login_holds_the_streams_until_it_has_said_its_cursors() {
    let mut stage = Stage::greeted();
    stage.login();
    let said = stage.said();
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0]["hold"], &said[0]["name"]), (&true.into(), &"amy".into()));
    let login = said[0]["id"].as_u64().unwrap();
    stage.hear(&format!(
        r#"{{"type":"ok","id":{login},"user":7,"name":"amy","token":"t-1","expires_ms":9,"session":1}}"#
    ));
    let list = stage.said_id("conversations");
    stage.hear(&format!(r#"{{"type":"ok","id":{list},"conversations":[{{"conv":55,"kind":"direct","name":"bob","user":12,"last_seq":9,"delivered":4,"read":3,"unread":2}}],"more":false}}"#));
    let said = stage.said();
    assert_eq!(said[0]["cursors"], serde_json::json!({"55": 4}));
    assert_eq!(said[0]["more"], false);
}

#[test]
fn a_reconnect_logs_in_by_token_and_resumes_at_its_own_cursors() {
    let mut stage = Stage::online();
    stage.said();
    stage.hear_message(4);
    stage.reconnect();
    let said = stage.said();
    assert_eq!((&said[0]["token"], &said[0]["password"]), (&"t-1".into(), &Value::Null));
    let login = said[0]["id"].as_u64().unwrap();
    stage.hear(&format!(
        r#"{{"type":"ok","id":{login},"user":7,"name":"amy","token":"t-2","expires_ms":9,"session":2}}"#
    ));
    let list = stage.said_id("conversations");
    // The ack was lost: the server knows of 3 only.
    stage.hear(&format!(r#"{{"type":"ok","id":{list},"conversations":[{{"conv":55,"kind":"direct","name":"bob","user":12,"last_seq":4,"delivered":3,"read":3,"unread":1}}],"more":false}}"#));
    let said = stage.said();
    assert_eq!(said[0]["cursors"], serde_json::json!({"55": 4}));
    assert_eq!(said[1], serde_json::json!({"type": "ack", "conv": 55, "seq": 4}), "and it is said again");
}

#[test]
fn more_cursors_than_fit_a_line_are_said_in_several() {
    let mut stage = Stage::greeted();
    stage.login();
    let login = stage.said_id("login");
    stage.hear(&format!(
        r#"{{"type":"ok","id":{login},"user":7,"name":"amy","token":"t","expires_ms":9,"session":1}}"#
    ));
    let mut list = stage.said_id("conversations");
    for page in 0..11_u64 {
        let infos: Vec<Value> = (1..=200)
            .map(|n| {
                let conv = page * 200 + n;
                serde_json::json!({"conv": conv, "kind": "direct", "name": format!("u{conv}"), "user": conv, "last_seq": 1, "delivered": 1, "read": 1, "unread": 0})
            })
            .collect();
        let more = page < 10;
        stage.hear(
            &serde_json::json!({"type": "ok", "id": list, "conversations": infos, "more": more}).to_string(),
        );
        if more {
            list = stage.said_id("conversations");
        }
    }
    let said = stage.said();
    let sizes: Vec<(usize, bool)> = said
        .iter()
        .map(|line| (line["cursors"].as_object().unwrap().len(), line["more"].as_bool().unwrap()))
        .collect();
    assert_eq!(sizes, [(1000, true), (1000, true), (200, false)]);
    assert!(said.iter().all(|line| line.to_string().len() < schema::limits::LINE_BYTES_MAX));
}

#[test]
fn a_wrong_password_is_said_once_and_not_tried_again() {
    let mut stage = Stage::greeted();
    let ticket = stage.login();
    let id = stage.said_id("login");
    stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"unauthorized","message":"wrong"}}"#));
    refused(ticket, "unauthorized", &stage.events());
    stage.reconnect();
    assert_eq!(stage.said(), Vec::<Value>::new());
    let ticket = stage.login();
    let id = stage.said_id("login");
    stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"a_new_code","message":"x","field":[1]}}"#));
    refused(ticket, "a_new_code", &stage.events());
}

#[test]
fn a_server_that_has_too_much_to_do_is_asked_again_later() {
    let mut stage = Stage::greeted();
    stage.login();
    let id = stage.said_id("login");
    stage.hear(&format!(
        r#"{{"type":"error","id":{id},"code":"overloaded","message":"x","retry_after_ms":3000}}"#
    ));
    stage.pass(Duration::from_millis(2_900));
    assert_eq!(stage.said(), Vec::<Value>::new());
    stage.pass(Duration::from_millis(100));
    stage.said_id("login");
}

#[test]
fn a_token_that_is_no_longer_valid_ends_the_session_and_what_hangs_on_it() {
    let mut stage = Stage::online();
    let send = stage.client.send(stage.now, To::User("bob".into()), "hi").unwrap();
    stage.said();
    stage.reconnect();
    let id = stage.said_id("login");
    stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"unauthorized","message":"x"}}"#));
    let events = stage.events();
    refused(send, "unauthorized", &events);
    assert!(matches!(events.last(), Some(Event::LoggedOut { ticket: None, .. })), "{events:?}");
    assert_eq!((stage.client.me(), stage.client.conversations().count()), (None, 0));
}

#[test]
fn a_replaced_session_does_not_push_the_other_out_again() {
    let mut stage = Stage::online();
    stage.hear(r#"{"type":"bye","code":"replaced","message":"x"}"#);
    assert!(matches!(stage.events()[..], [Event::LoggedOut { .. }, Event::Bye { .. }]));
    stage.reconnect();
    assert_eq!(stage.said(), Vec::<Value>::new());
}

#[test]
fn acks_come_in_batches_by_time_and_by_number() {
    let mut stage = Stage::online();
    stage.said();
    stage.hear_message(4);
    stage.hear_message(5);
    assert_eq!(stage.said(), Vec::<Value>::new());
    stage.pass(ACK_DELAY);
    assert_eq!(stage.said(), [serde_json::json!({"type": "ack", "conv": 55, "seq": 5})]);
    for number in 6..6 + u64::from(ACK_EVERY) {
        stage.hear_message(number);
    }
    let last = 5 + ACK_EVERY;
    assert_eq!(stage.said(), [serde_json::json!({"type": "ack", "conv": 55, "seq": last})]);
    assert_eq!(stage.client.next_due(), None, "nothing is left to be done");
}

#[test]
fn own_messages_are_acked_with_the_others() {
    let mut stage = Stage::online();
    stage.said();
    stage.client.send(stage.now, To::User("BOB".into()), "hi").unwrap();
    let said = stage.said();
    assert_eq!(said[0]["conv"], 55, "a known user means the conversation");
    assert_eq!(said[0]["client_id"], "run-2");
    let id = &said[0]["id"];
    // The answer comes before what is below it.
    stage.hear(&format!(r#"{{"type":"ok","id":{id},"conv":55,"seq":5,"time_ms":9}}"#));
    stage.pass(ACK_DELAY);
    assert_eq!(stage.said(), Vec::<Value>::new(), "4 is missing");
    stage.hear_message(4);
    stage.pass(ACK_DELAY);
    assert_eq!(stage.said(), [serde_json::json!({"type": "ack", "conv": 55, "seq": 5})]);
}

#[test]
fn a_hole_that_stays_is_filled_from_the_history() {
    let mut stage = Stage::online();
    stage.said();
    stage.hear_message(4);
    stage.hear_message(9);
    stage.said();
    stage.events();
    stage.pass(HOLE_PATIENCE);
    let said = stage.said();
    let ask = said.iter().find(|line| line["type"] == "history").expect("it asks");
    assert_eq!((&ask["after"], &ask["before"]), (&4.into(), &Value::Null));
    let id = &ask["id"];
    let message = |n: u64| {
        format!(
            r#"{{"conv":55,"kind":"direct","seq":{n},"from":12,"from_name":"bob","text":"m{n}","time_ms":5}}"#
        )
    };
    // 5 and 6 are not ours to see.
    let page = [7, 8, 9].map(message).join(",");
    stage.hear(&format!(r#"{{"type":"ok","id":{id},"messages":[{page}],"more":false}}"#));
    let seqs: Vec<u64> = stage
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::Message { entry, .. } => Some(entry.seq.get()),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, [7, 8]);
    assert_eq!(stage.client.conversation(conv()).unwrap().stream.complete(), Some(seq(9)));
}

#[test]
fn a_shown_conversation_is_read_as_it_arrives() {
    let mut stage = Stage::online();
    stage.client.show(Some(conv()));
    stage.said();
    stage.hear_message(4);
    assert_eq!(stage.client.conversation(conv()).unwrap().unread, 0);
    stage.pass(ACK_DELAY);
    assert_eq!(
        stage.said(),
        [
            serde_json::json!({"type": "ack", "conv": 55, "seq": 4}),
            serde_json::json!({"type": "read", "conv": 55, "seq": 4})
        ]
    );
    stage.client.show(None);
    stage.hear_message(5);
    stage.pass(ACK_DELAY);
    assert_eq!(stage.said(), [serde_json::json!({"type": "ack", "conv": 55, "seq": 5})]);
    assert_eq!(stage.client.conversation(conv()).unwrap().unread, 1);
}

#[test]
fn marks_of_the_other_move_own_messages_on() {
    let mut stage = Stage::online();
    let progress = |stage: &Stage| stage.client.conversation(conv()).unwrap().progress(seq(4));
    assert_eq!(progress(&stage), Progress::Sent);
    stage.hear(r#"{"type":"delivered","conv":55,"user":12,"seq":4}"#);
    assert_eq!(progress(&stage), Progress::Delivered);
    stage.hear(r#"{"type":"read","conv":55,"user":7,"seq":4}"#);
    assert_eq!(progress(&stage), Progress::Delivered, "that was ourselves, elsewhere");
    stage.hear(r#"{"type":"read","conv":55,"user":12,"seq":4}"#);
    assert_eq!(progress(&stage), Progress::Read);
}

#[test]
fn typing_is_said_now_and_then_only() {
    let mut stage = Stage::online();
    stage.hear(r#"{"type":"synced"}"#);
    stage.said();
    for _ in 0..10 {
        stage.client.typing(stage.now, conv());
    }
    assert_eq!(stage.said().len(), 1);
    stage.pass(TYPING_EVERY);
    stage.client.typing(stage.now, conv());
    assert_eq!(stage.said().len(), 1);
}

#[test]
fn a_restored_backup_is_followed() {
    let mut stage = Stage::online();
    stage.hear_message(4);
    stage.hear_message(5);
    stage.hear(r#"{"type":"reset","conv":55,"seq":4}"#);
    stage.events();
    stage.hear_message(5);
    assert!(matches!(stage.events()[..], [Event::Message { .. }]), "it is another 5");
}

#[test]
fn a_registration_whose_answer_was_lost_says_that_the_name_may_be_ones_own() {
    let mut stage = Stage::greeted();
    let password = Secret::new("correct horse");
    let ticket = stage.client.ask(stage.now, Question::Register { name: "amy".into(), password }).unwrap();
    stage.said_id("register");
    stage.reconnect();
    let id = stage.said_id("register");
    stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"conflict","message":"taken"}}"#));
    let refusal = refused(ticket, "conflict", &stage.events());
    assert!(refusal.message.contains("try to log in"), "{refusal}");
}

#[test]
fn questions_without_a_login_are_refused_here() {
    let mut stage = Stage::greeted();
    let asked = stage.client.ask(stage.now, Question::Conversations);
    assert_eq!(asked.unwrap_err().code, "not_logged_in");
    let sent = stage.client.send(stage.now, To::User("bob".into()), "x");
    assert_eq!(sent.unwrap_err().code, "not_logged_in");
}

#[test]
fn texts_that_the_server_would_refuse_are_refused_here() {
    let mut stage = Stage::online();
    let mut send = |text: &str| stage.client.send(stage.now, To::User("bob".into()), text).unwrap_err().code;
    assert_eq!(send(""), "bad_request");
    assert_eq!(send("a\u{7}"), "bad_request");
    assert_eq!(send(&"x".repeat(20_000)), "too_large");
}

#[test]
fn lines_that_make_no_sense_do_no_harm() {
    let mut stage = Stage::online();
    stage.said();
    for line in [
        "",
        "x",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"ok"}"#,
        r#"{"type":"ok","id":999}"#,
        r#"{"type":"error","code":"x"}"#,
        r#"{"type":"message","conv":55}"#,
        r#"{"type":"message","conv":0,"seq":-1}"#,
        r#"{"type":"bye"}"#,
        r#"{"type":"something_new","conv":1}"#,
        r#"{"type":"reset","conv":99,"seq":1}"#,
        r#"{"type":"read","conv":99,"user":1,"seq":1}"#,
        "\u{0}",
    ] {
        stage.hear(line);
    }
    stage.client.handle_line(stage.now, b"\xff\xfe");
    assert_eq!((stage.events(), stage.said()), (Vec::new(), Vec::new()));
    let ticket = stage.client.ask(stage.now, Question::FindUser { name: "bob".into() }).unwrap();
    let id = stage.said_id("find_user");
    stage.hear(&format!(r#"{{"type":"ok","id":{id},"user":"twelve"}}"#));
    refused(ticket, "bad_reply", &stage.events());
}

#[test]
fn a_logout_forgets_who_it_was() {
    let mut stage = Stage::online();
    stage.said();
    let ticket = stage.client.ask(stage.now, Question::Logout).unwrap();
    let id = stage.said_id("logout");
    stage.hear(&format!(r#"{{"type":"ok","id":{id}}}"#));
    assert!(matches!(&stage.events()[..], [Event::LoggedOut { ticket: Some(of), .. }] if *of == ticket));
    assert!(stage.client.token().is_none());
    stage.hear_message(4);
    assert_eq!(stage.events(), Vec::new(), "what comes late concerns nobody");
    stage.login();
    stage.said_id("login");
}
