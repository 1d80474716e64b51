//! A group of 10,000: who is there gets a message once, nobody else costs anything, and what is told of members stays bounded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::path::Path;

use schema::limits::GROUP_MEMBERS_MAX;
use schema::{ConvId, UserId};
use serde_json::{Value, json};
use store::dao::{GroupDao, UserDao};
use store::{CommittedBatch, Connection, DbConfig, Store};
use testkit::{Chatd, LineClient};

const ONLINE: usize = 12;

/// Fills a group up to the limit but for one, while no server runs.
fn fill(folder: &Path, conv: u64, members: u64) {
    let store = Store::open(&DbConfig::at(folder), Box::new(|_: CommittedBatch| {})).unwrap();
    let conv = ConvId::new(conv).unwrap();
    for first in (members..GROUP_MEMBERS_MAX - 1).step_by(500) {
        let until = (first + 500).min(GROUP_MEMBERS_MAX - 1);
        let join = move |db: &mut Connection| {
            for n in first..until {
                let name = format!("m{n}");
                let user: UserId = UserDao::new(db).create(&name, &name, "no hash", 1)?;
                GroupDao::new(db).join(conv, user, 2)?.unwrap();
            }
            Ok(())
        };
        store.write_in_wait(conv, join).unwrap();
    }
    store.close();
}

fn messages(client: &mut LineClient, count: usize) -> Vec<Value> {
    (0..count).map(|_| client.next_push("message")).collect()
}

/// Goes on with an empty page's worth acknowledged: as if all of the past had arrived.
fn session(server: &Chatd, name: &str, conv: u64, cursor: u64) -> LineClient {
    let mut client = server.client();
    client.ok(json!({"type": "login", "name": name, "password": Chatd::PASSWORD, "hold": true}));
    client.ok(json!({"type": "sync", "cursors": {conv.to_string(): cursor}}));
    client.next_push("synced");
    client
}

#[test]
fn ten_thousand_members_are_a_group_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let start = || Chatd::builder(env!("CARGO_BIN_EXE_chatd")).data_dir(folder.path()).start().unwrap();
    let server = start();
    let names: Vec<String> = (0..ONLINE).map(|n| format!("on{n}")).collect();
    let mut owner = server.client_as(&names[0]);
    let conv =
        owner.ok(json!({"type": "group_create", "name": "all", "open": true}))["conv"].as_u64().unwrap();
    for name in &names[1..] {
        server.client_as(name).ok(json!({"type": "group_join", "conv": conv}));
    }
    for name in ["last", "late"] {
        server.client().register(name, Chatd::PASSWORD);
    }
    drop((owner, server));
    fill(folder.path(), conv, ONLINE as u64);

    let server = start();
    let end = GROUP_MEMBERS_MAX - 1;
    let mut online: Vec<LineClient> = names.iter().map(|name| session(&server, name, conv, end)).collect();
    // One place is left.
    let mut last = session(&server, "last", conv, end);
    last.ok(json!({"type": "group_join", "conv": conv}));
    let mut late = session(&server, "late", conv, 0);
    late.err(json!({"type": "group_join", "conv": conv}), "forbidden");
    late.err(json!({"type": "send", "conv": conv, "text": "no"}), "forbidden");
    let listed = last.ok(json!({"type": "groups"}))["groups"][0].clone();
    assert_eq!(listed["members"], json!(GROUP_MEMBERS_MAX));

    // Everybody hears of the last one and of three messages, in one order, and the one who sends by its answer.
    for (n, client) in online.iter_mut().take(3).enumerate() {
        client.ok(json!({"type": "send", "conv": conv, "text": format!("from {n}")}));
    }
    for (at, client) in online.iter_mut().enumerate() {
        let got = messages(client, if at < 3 { 3 } else { 4 });
        let seqs: Vec<u64> = got.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
        let all = end + 1..=end + 4;
        let own = end + 2 + at as u64;
        assert_eq!(seqs, all.filter(|seq| at >= 3 || *seq != own).collect::<Vec<_>>(), "of {at}");
    }
    assert_eq!(messages(&mut last, 4).last().unwrap()["text"], json!("from 2"));

    // One row for each entry, the joining among them, however many members there are.
    let page = server.admin_get("/metrics").unwrap().1;
    assert!(page.contains("chatd_store_messages_total 4\n"), "{page}");

    // Marks are not kept for so many, nor told; typing is.
    online[0].err(json!({"type": "marks", "conv": conv}), "forbidden");
    online[1].ok(json!({"type": "read", "conv": conv, "seq": end + 4}));
    online[1].ok(json!({"type": "ack", "conv": conv, "seq": end + 4}));
    online[1].ok(json!({"type": "typing", "conv": conv}));
    online[2].next_push("typing");
    assert!(online[2].take_pushes().iter().all(|push| push["type"] != "read" && push["type"] != "delivered"));

    // All of them are listed, in pages.
    let (mut seen, mut after) = (BTreeSet::new(), 0);
    loop {
        let mut request = json!({"type": "group_members", "conv": conv, "limit": 200});
        if after > 0 {
            request["after"] = json!(after);
        }
        let page = last.ok(request);
        for member in page["members"].as_array().unwrap() {
            after = member["user"].as_u64().unwrap();
            assert!(seen.insert(after), "twice");
        }
        if page["more"] != json!(true) {
            break;
        }
    }
    assert_eq!(seen.len() as u64, GROUP_MEMBERS_MAX);

    // Changes are entries as everywhere, and the owner has a successor.
    online[0].ok(json!({"type": "group_kick", "conv": conv, "user": "m77"}));
    online[0].ok(json!({"type": "group_leave", "conv": conv}));
    let events: Vec<Value> = messages(&mut last, 3).iter().map(|entry| entry["event"].clone()).collect();
    assert_eq!(events, [json!("kicked"), json!("left"), json!("role")]);
    late.ok(json!({"type": "group_join", "conv": conv}));
    assert_eq!(
        messages(&mut late, 1)[0]["event"],
        json!("joined"),
        "there was room, and it sees nothing from before"
    );
    let history = late.ok(json!({"type": "history", "conv": conv}));
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
}
