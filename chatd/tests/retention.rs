//! What clients see when the beginning of a conversation has gone by age: streams jump to what is kept, and lists and histories begin there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use store::{CommittedBatch, Connection, DbConfig, Store};
use testkit::{Chatd, LineClient, wait_until};

const LONG: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse";

fn start(folder: &Path, days: u32) -> Chatd {
    let chatd = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).data_dir(folder);
    chatd.arg("--retention-days").arg(days.to_string()).start().unwrap()
}

/// Makes entries old, while no server runs.
fn age(folder: &Path, conv: u64, last: u64) {
    let store = Store::open(&DbConfig::at(folder), Box::new(|_: CommittedBatch| {})).unwrap();
    let sql = format!("UPDATE message SET time_ms = 5 WHERE conv = {conv} AND seq <= {last}");
    store.write_wait(move |db: &mut Connection| db.execute(&sql, &[])).unwrap();
    store.close();
}

fn seqs(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

fn history(client: &mut LineClient, conv: u64) -> Vec<u64> {
    seqs(&client.ok(json!({"type": "history", "conv": conv}))["messages"])
}

/// A session that tells its own cursor of a conversation, and what it is pushed up to `synced`.
fn resume(server: &Chatd, name: &str, conv: u64, cursor: u64) -> (LineClient, Vec<u64>) {
    let mut client = server.client();
    client.ok(json!({"type": "login", "name": name, "password": PASSWORD, "hold": true}));
    client.ok(json!({"type": "sync", "cursors": {conv.to_string(): cursor}}));
    client.next_push("synced");
    let pushed = client.take_pushes().into_iter().filter(|push| push["type"] == "message");
    let pushed = seqs(&Value::Array(pushed.collect()));
    (client, pushed)
}

#[test]
fn streams_lists_and_histories_begin_with_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 0);
    for name in ["amy", "bob"] {
        server.client().register(name, PASSWORD);
    }
    let mut amy = server.client();
    amy.login("amy", PASSWORD);
    let send = |text: &str| json!({"type": "send", "user": "bob", "client_id": text, "text": text});
    let conv = (0..10).map(|n| amy.ok(send(&n.to_string()))["conv"].as_u64().unwrap()).last().unwrap();
    let tea = amy.ok(json!({"type": "group_create", "name": "tea", "open": true}))["conv"].as_u64().unwrap();
    let mut bob = server.client();
    bob.login("bob", PASSWORD);
    bob.ok(json!({"type": "group_join", "conv": tea}));
    for _ in 0..3 {
        amy.ok(json!({"type": "send", "conv": tea, "text": "in the group"}));
    }
    drop((amy, bob, server));
    age(folder.path(), conv, 6);
    age(folder.path(), tea, 3);

    let server = start(folder.path(), 30);
    let mut amy = server.client();
    amy.login("amy", PASSWORD);
    wait_until("the old ones are gone", LONG, || {
        history(&mut amy, conv) == [7, 8, 9, 10] && history(&mut amy, tea) == [4, 5]
    });
    let page = amy.ok(json!({"type": "history", "conv": conv, "before": 9, "limit": 2}));
    assert_eq!((seqs(&page["messages"]), &page["more"]), (vec![7, 8], &json!(false)));
    let listed = amy.ok(json!({"type": "conversations"}))["conversations"].clone();
    assert_eq!((&listed[0]["last_seq"], &listed[0]["unread"]), (&json!(10), &json!(0)));

    // Whose cursor is below what is kept jumps; the others do not.
    for (cursor, first) in [(0, 7), (3, 7), (6, 7), (7, 8), (10, 11)] {
        let (_, pushed) = resume(&server, "bob", conv, cursor);
        let of_pair: Vec<u64> = Vec::from_iter(first..=10);
        assert!(pushed.starts_with(&of_pair) || pushed.ends_with(&of_pair), "from {cursor}: {pushed:?}");
        assert_eq!(pushed.len(), of_pair.len() + 2, "from {cursor}, with two of the group: {pushed:?}");
    }
    let (mut bob, _) = resume(&server, "bob", conv, 0);
    let unread = |bob: &mut LineClient| {
        let listed = bob.ok(json!({"type": "conversations"}))["conversations"].clone();
        listed[0]["unread"].as_u64().unwrap()
    };
    assert_eq!(unread(&mut bob), 4);
    bob.ok(json!({"type": "ack", "conv": conv, "seq": 10}));
    bob.ok(json!({"type": "read", "conv": conv, "seq": 9}));
    assert_eq!(unread(&mut bob), 1);

    // A message sent again is known, though its text is gone; and what comes next has the next number.
    assert_eq!(amy.ok(send("2"))["duplicate"], json!(true));
    assert_eq!(amy.ok(send("next"))["seq"], json!(11));
    assert_eq!(bob.next_push("message")["seq"], json!(11));
    bob.ok(json!({"type": "send", "conv": tea, "text": "a member still"}));
    let page = server.admin_get("/metrics").unwrap().1;
    assert!(page.contains("chatd_store_expired_messages_total 9"), "{page}");
}

#[test]
fn a_session_is_synced_when_nothing_of_what_it_missed_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 0);
    for name in ["amy", "bob"] {
        server.client().register(name, PASSWORD);
    }
    let mut amy = server.client();
    amy.login("amy", PASSWORD);
    let send = json!({"type": "send", "user": "bob", "text": "hi"});
    let conv = (0..5).map(|_| amy.ok(send.clone())["conv"].as_u64().unwrap()).last().unwrap();
    drop((amy, server));
    age(folder.path(), conv, 5);
    let server = start(folder.path(), 1);
    let mut amy = server.client();
    amy.login("amy", PASSWORD);
    wait_until("all are gone", LONG, || history(&mut amy, conv).is_empty());
    let (mut bob, pushed) = resume(&server, "bob", conv, 2);
    assert_eq!(pushed, Vec::<u64>::new());
    assert_eq!(amy.ok(send)["seq"], json!(6));
    assert_eq!(bob.next_push("message")["seq"], json!(6));
    bob.ok(json!({"type": "ack", "conv": conv, "seq": 6}));
    let marks = amy.ok(json!({"type": "marks", "conv": conv}))["marks"].clone();
    assert_eq!(marks[1]["delivered"], json!(6), "{marks}");
}
