//! Codes of the protocol that are met only where something is broken or too slow: `overloaded`, `internal`, and the end of a reader that never reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use store::dao::UserDao;
use store::{CommittedBatch, DbConfig, Store};
use testkit::{Chatd, LineClient, Strace, wait_until};

const LONG: Duration = Duration::from_secs(120);
const BIN: &str = env!("CARGO_BIN_EXE_chatd");
const PASSWORD: &str = Chatd::PASSWORD;
/// What a loop's queue has room for beside answers.
const POSTS_MAX: usize = 4_096;

fn connz(server: &Chatd) -> Value {
    serde_json::from_str(&server.admin_get("/connz").unwrap().1).unwrap()
}

fn reasons(server: &Chatd) -> Vec<String> {
    let page = connz(server);
    let closed = page["closed"].as_array().unwrap().iter();
    closed.map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_finds_a_queue_full_is_overloaded_and_succeeds_later() {
    let slow = "[login]\nhash_memory_kib = 16384\nhash_passes = 2\nhash_queue_max = 1\n";
    let server = Chatd::builder(BIN).config(slow).start().unwrap();
    let mut clients: Vec<LineClient> = (0..12).map(|_| server.client()).collect();
    let register = |n: usize| json!({"type": "register", "name": format!("u{n}"), "password": PASSWORD});
    let ids: Vec<u64> = clients.iter_mut().enumerate().map(|(n, client)| client.post(register(n))).collect();
    let replies: Vec<Value> = clients
        .iter_mut()
        .zip(ids)
        .map(|(client, id)| {
            client.set_patience(LONG);
            client.reply(id)
        })
        .collect();
    let refused: Vec<usize> = (0..12).filter(|n| replies[*n]["type"] == "error").collect();
    assert!(!refused.is_empty() && refused.len() < 12, "{} of 12 were refused", refused.len());
    for n in refused {
        assert_eq!(replies[n]["code"], json!("overloaded"), "{}", replies[n]);
        assert!(replies[n]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", replies[n]);
        // Alone it is not too much.
        clients[n].ok(register(n));
    }
}

fn with_store(folder: &Path, work: impl FnOnce(&Store)) {
    let store = Store::open(&DbConfig::at(folder), Box::new(|_: CommittedBatch| {})).unwrap();
    work(&store);
    store.close();
}

#[test]
fn a_stored_password_that_is_none_is_internal_and_nobody_elses_matter() {
    let folder = tempfile::tempdir().unwrap();
    with_store(folder.path(), |store| {
        store.write_wait(|db| UserDao::new(db).create("amy", "amy", "no hash", 1)).unwrap();
    });
    let server = Chatd::builder(BIN).data_dir(folder.path()).start().unwrap();
    let mut client = server.client();
    let login = json!({"type": "login", "name": "amy", "password": PASSWORD});
    let reply = client.request(login);
    assert_eq!(reply["code"], json!("internal"), "{reply}");
    assert!(!reply["message"].as_str().unwrap().contains("hash"), "{reply}");
    client.register("bob", PASSWORD);
    client.login("bob", PASSWORD);
}

#[test]
fn who_reads_nothing_for_half_a_minute_is_disconnected_for_that() {
    let server = Chatd::builder(BIN).start().unwrap();
    let mut amy = server.client_as("amy");
    server.client().register("bob", PASSWORD);
    let text = "x".repeat(16_000);
    let mut conv = json!(null);
    for _ in 0..4 {
        conv = amy.ok(json!({"type": "send", "user": "bob", "text": text}))["conv"].clone();
    }
    let mut bob = LineClient::connect_with_rcvbuf(server.chat_addr(), 4_096);
    bob.login("bob", PASSWORD);
    for _ in 0..100 {
        bob.post(json!({"type": "history", "conv": conv}));
    }
    wait_until("the reader is gone", LONG, || {
        amy.ping();
        reasons(&server).len() > 1
    });
    assert!(reasons(&server).contains(&"the peer stopped reading".to_owned()), "{:?}", reasons(&server));
    // What it missed is kept for it.
    let mut bob = server.client();
    bob.login("bob", PASSWORD);
    assert_eq!((0..4).map(|_| bob.next_push("message")["text"].clone()).last(), Some(json!(text)));
}

#[test]
fn who_sits_on_a_loop_that_fell_too_far_behind_is_told_to_come_back_and_misses_nothing() {
    if !Strace::available() {
        return;
    }
    // A post to each loop for each message.
    let server = Chatd::builder(BIN).args(["--threads", "2", "--batch-max", "1"]).start().unwrap();
    let mut clients: Vec<(&str, LineClient)> =
        ["a", "b", "c", "d"].map(|name| (name, server.client_as(name))).into();
    let open = connz(&server)["open"].clone();
    let loop_of = |client: &LineClient| {
        let address = client.stream().local_addr().unwrap().to_string();
        let found = open.as_array().unwrap().iter().find(|one| one["address"] == json!(address));
        found.unwrap()["loop_index"].as_u64().unwrap()
    };
    clients.sort_by_key(|(_, client)| loop_of(client));
    let ((name, mut slow), (_, mut quick)) = (clients.pop().unwrap(), clients.remove(0));
    let stuck = loop_of(&slow);
    assert_ne!(loop_of(&quick), stuck);
    quick.set_patience(LONG);
    slow.set_patience(LONG);
    let strace = Strace::attach(
        thread(server.pid(), &format!("io-{stuck}")),
        &["-e", "trace=epoll_wait", "-e", "inject=epoll_wait:delay_enter=600000000"],
    );
    // It is woken once more, and then hangs.
    let ping = slow.post(json!({"type": "ping"}));
    for chunk in 0..POSTS_MAX / 200 + 1 {
        let ids: Vec<u64> = (0..200)
            .map(|n| quick.post(json!({"type": "send", "user": name, "text": (chunk * 200 + n).to_string()})))
            .collect();
        for id in ids {
            assert_eq!(quick.reply(id)["type"], "ok");
        }
    }
    strace.stop();
    slow.reply(ping);
    assert!(slow.expect_bye("internal")["reconnect_after_ms"].is_u64());
    let mut again = server.client();
    again.login(name, PASSWORD);
    for n in 0..256 {
        assert_eq!(again.next_push("message")["text"], json!(n.to_string()));
    }
    quick.ping();
}

fn thread(pid: u32, name: &str) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let path = tasks.into_iter().find(is_it).unwrap();
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
