//! Plays the examples of docs/protocol.md, from top to bottom, against a fresh server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use testkit::{Chatd, LineClient};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// Fields that differ from run to run: compared by their type alone.
const VARYING: [&str; 4] = ["time_ms", "expires_ms", "token", "reconnect_after_ms"];

fn example_lines() -> Vec<(usize, &'static str)> {
    let mut lines = Vec::new();
    let mut inside = false;
    for (number, line) in PAGE.lines().enumerate() {
        match line {
            "```chat" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push((number + 1, line)),
            _ => {}
        }
    }
    lines
}

fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, field)| match field {
                Value::Number(_) if VARYING.contains(&key.as_str()) => (key.clone(), Value::from("a number")),
                Value::String(_) if VARYING.contains(&key.as_str()) => (key.clone(), Value::from("a string")),
                _ => (key.clone(), masked(field)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_examples_of_the_protocol_page_are_what_the_server_says() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    let mut clients: BTreeMap<&str, LineClient> = BTreeMap::new();
    let lines = example_lines();
    assert!(lines.len() > 60, "the page has lost its examples");
    for (number, line) in lines {
        let (name, rest) = line.split_once(['>', '<']).expect("a line without > or <");
        let text = rest.trim_start();
        let client = clients.entry(name).or_insert_with(|| LineClient::connect(server.chat_addr()));
        if line[name.len()..].starts_with('>') {
            client.send_raw(format!("{text}\n").as_bytes());
            continue;
        }
        let expected: Value = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("docs/protocol.md:{number} is no JSON: {error}"));
        let got = client.recv(Duration::from_secs(10)).unwrap().expect("the connection was closed");
        assert_eq!(masked(&got), masked(&expected), "docs/protocol.md:{number}");
    }
}

#[test]
fn every_message_that_the_server_knows_has_an_example() {
    let shown: BTreeSet<String> = example_lines()
        .into_iter()
        .filter_map(|(_, line)| serde_json::from_str::<Value>(line.split_once(['>', '<'])?.1).ok())
        .filter_map(|value| Some(value.get("type")?.as_str()?.to_owned()))
        .collect();
    let requests = [
        "ping",
        "register",
        "login",
        "sync",
        "logout",
        "password",
        "find_user",
        "send",
        "ack",
        "read",
        "typing",
        "marks",
        "history",
        "conversations",
        "friend_request",
        "friend_accept",
        "friend_reject",
        "friend_remove",
        "friends",
        "block",
        "unblock",
        "blocked",
        "group_create",
        "group_join",
        "group_leave",
        "group_invite",
        "group_kick",
        "group_role",
        "group_rename",
        "group_members",
        "groups",
    ];
    let pushes = [
        "hello",
        "bye",
        "message",
        "synced",
        "reset",
        "read",
        "delivered",
        "typing",
        "friend",
        "presence",
        "invite",
    ];
    for kind in requests.into_iter().chain(pushes).chain(["ok", "error"]) {
        assert!(shown.contains(kind), "docs/protocol.md shows no `{kind}`");
    }
}
