//! What the line client promises, shown against a socket whose other end the test itself holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::json;
use testkit::{LineClient, TestkitError, To};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(20);

fn pair() -> (LineClient, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = LineClient::connect(listener.local_addr().unwrap());
    (client, listener.accept().unwrap().0)
}

fn message_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it should have panicked");
    payload.downcast_ref::<String>().cloned().expect("a text")
}

#[test]
fn lines_are_whole_whatever_the_pieces_they_arrive_in() {
    let (mut client, mut server) = pair();
    server.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
    assert_eq!(client.recv(LONG).unwrap(), Some(json!({"a": 1})));
    assert!(matches!(client.recv(SHORT), Err(TestkitError::Timeout { .. })));
    server.write_all(b":2}\n\nnot json\nlast").unwrap();
    drop(server);
    assert_eq!(client.recv(LONG).unwrap(), Some(json!({"b": 2})));
    assert_eq!(client.recv_line(LONG).unwrap(), Some(Vec::new()));
    assert!(matches!(client.recv(LONG), Err(TestkitError::NotJson { .. })));
    assert_eq!(client.recv_line(LONG).unwrap(), Some(b"last".to_vec()));
    assert_eq!(client.recv(LONG).unwrap(), None);
    assert_eq!(client.recv(LONG).unwrap(), None);
}

#[test]
fn replies_that_overtake_and_pushes_in_between_are_kept_for_whoever_asks() {
    let (mut client, mut server) = pair();
    let first = client.post(json!({"type": "ping"}));
    let second = client.post(json!({"type": "ping"}));
    let given = client.post(json!({"type": "ping", "id": 77}));
    assert_eq!((first, second, given), (1, 2, 77));
    writeln!(server, r#"{{"type":"message","seq":1}}"#).unwrap();
    writeln!(server, r#"{{"type":"ok","id":2}}"#).unwrap();
    writeln!(server, r#"{{"type":"typing"}}"#).unwrap();
    writeln!(server, r#"{{"type":"ok","id":77}}"#).unwrap();
    writeln!(server, r#"{{"type":"error","id":1,"code":"x"}}"#).unwrap();
    writeln!(server, r#"{{"type":"message","seq":2}}"#).unwrap();
    assert_eq!(client.reply(first)["code"], "x");
    assert_eq!(client.reply(second)["type"], "ok");
    assert_eq!(client.reply(given)["type"], "ok");
    assert_eq!(client.next_push("typing")["type"], "typing");
    assert_eq!(client.next_push("message")["seq"], 1);
    assert_eq!(client.next_push("message")["seq"], 2);
    assert_eq!(client.try_next_push("message", SHORT), None);
    assert!(client.pushes().is_empty());
}

#[test]
fn requests_go_out_as_lines_with_ids() {
    let (mut client, server) = pair();
    let mut lines = BufReader::new(server.try_clone().unwrap()).lines();
    let answer = |reply: &str| writeln!(&server, "{reply}").unwrap();
    answer(r#"{"type":"ok","id":1,"user":12}"#);
    assert_eq!(client.register("amy", "pw"), 12);
    answer(r#"{"type":"ok","id":2,"seq":3}"#);
    assert_eq!(client.send_text_as(To::Name("bob"), "c-1", "hi")["seq"], 3);
    answer(r#"{"type":"ok","id":3}"#);
    client.send_text(To::Conv(5), "again");
    client.send(&json!({"type": "ack", "conv": 5, "seq": 3}));
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next(), json!({"type": "register", "name": "amy", "password": "pw", "id": 1}));
    assert_eq!(next(), json!({"type": "send", "user": "bob", "client_id": "c-1", "text": "hi", "id": 2}));
    assert_eq!(next(), json!({"type": "send", "conv": 5, "text": "again", "id": 3}));
    assert_eq!(next(), json!({"type": "ack", "conv": 5, "seq": 3}));
}

#[test]
fn a_failed_expectation_shows_what_was_said() {
    let (mut client, mut server) = pair();
    writeln!(server, r#"{{"type":"error","id":1,"code":"conflict"}}"#).unwrap();
    let text = message_of(|| {
        client.register("amy", "pw");
    });
    assert!(text.contains("conflict") && text.contains("-> {") && text.contains("<- {"), "{text}");

    writeln!(server, r#"{{"type":"bye","code":"idle"}}"#).unwrap();
    let text = message_of(|| {
        client.expect_bye("shutdown");
    });
    assert!(text.contains("wanted bye \"shutdown\""), "{text}");

    client.set_patience(SHORT);
    let text = message_of(|| {
        client.next_push("synced");
    });
    assert!(text.contains("no \"synced\" came"), "{text}");
}

#[test]
fn a_second_reply_to_one_request_is_noticed() {
    let (mut client, mut server) = pair();
    let (_, second) = (client.post(json!({"type": "ping"})), client.post(json!({"type": "ping"})));
    for _ in 0..2 {
        writeln!(server, r#"{{"type":"ok","id":1}}"#).unwrap();
    }
    let text = message_of(|| {
        client.reply(second);
    });
    assert!(text.contains("a second reply to request 1"), "{text}");
}

#[test]
fn both_kinds_of_end_count_as_closed() {
    let (mut client, mut server) = pair();
    server.write_all(b"one\ntwo\n").unwrap();
    drop(server);
    assert_eq!(client.expect_closed(), vec![b"one".to_vec(), b"two".to_vec()]);

    let (mut client, server) = pair();
    // Closing with unread input makes a reset.
    client.send_raw(b"never read\n");
    server.peek(&mut [0; 1]).unwrap();
    drop(server);
    assert!(client.expect_closed().is_empty());

    let (client, server) = pair();
    client.reset();
    let mut line = String::new();
    let error = BufReader::new(server).read_line(&mut line).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (mut client, server) = pair();
    client.shutdown_write();
    assert_eq!(BufReader::new(server).read_line(&mut line).unwrap(), 0);
}
