//! How often who may do what, and who counts as whom behind a proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Chatd, LineClient};

fn limited(rates: &str) -> Chatd {
    Chatd::builder(env!("CARGO_BIN_EXE_chatd")).rate_limits_on().more_config(rates).start().unwrap()
}

fn wait_of(reply: &Value) -> u64 {
    assert_eq!(reply["code"], json!("rate_limited"), "{reply}");
    reply["retry_after_ms"].as_u64().unwrap()
}

/// A connection that comes through a proxy, from this address.
fn through_proxy(chatd: &Chatd, address: &str) -> LineClient {
    let mut client = LineClient::connect(chatd.chat_addr());
    client.send_raw(format!("PROXY TCP4 {address} 10.0.0.1 1234 6000\r\n").as_bytes());
    client.next_push("hello");
    client
}

fn register(client: &mut LineClient, name: &str) -> Value {
    client.request(json!({"type": "register", "name": name, "password": "correct horse"}))
}

fn guess(client: &mut LineClient, name: &str, password: &str) -> Value {
    client.request(json!({"type": "login", "name": name, "password": password}))
}

#[test]
fn a_session_sends_its_burst_and_is_told_how_long_to_wait() {
    let chatd = limited("[rates]\nsends = { burst = 5, per_minute = 60 }\n");
    let (mut amy, mut bob) = (chatd.client_as("amy"), chatd.client_as("bob"));
    let send = |text: &str| json!({"type": "send", "user": "bob", "text": text});
    for number in 0..5 {
        amy.ok(send(&number.to_string()));
    }
    let wait = wait_of(&amy.request(send("too much")));
    assert!((1..=1_000).contains(&wait), "{wait}");
    amy.ok(json!({"type": "ping"}));
    amy.ok(json!({"type": "conversations"}));
    bob.ok(json!({"type": "send", "user": "amy", "text": "another session has its own"}));
    std::thread::sleep(Duration::from_millis(wait));
    amy.ok(send("after the wait"));
    let texts: Vec<_> = (0..6).map(|_| bob.next_push("message")["text"].clone()).collect();
    assert_eq!(texts[5], json!("after the wait"), "what was refused was not sent");
}

#[test]
fn look_ups_and_acks_are_counted_apart_from_messages() {
    let chatd = limited("[rates]\nlookups = { burst = 3, per_minute = 6 }\n");
    let mut amy = chatd.client_as("amy");
    for _ in 0..3 {
        amy.ok(json!({"type": "conversations"}));
    }
    wait_of(&amy.request(json!({"type": "find_user", "name": "amy"})));
    wait_of(&amy.request(json!({"type": "groups"})));
    for _ in 0..20 {
        amy.ok(json!({"type": "ping"}));
    }
}

#[test]
fn who_never_listens_is_disconnected() {
    let chatd = limited("[rates]\nsends = { burst = 1, per_minute = 1 }\n");
    let mut amy = chatd.client_as("amy");
    for _ in 0..600 {
        if amy.try_send_raw(b"{\"type\":\"typing\",\"conv\":1}\n").is_err() {
            break;
        }
    }
    amy.expect_bye("rate_limited");
}

#[test]
fn registrations_are_counted_by_address_and_a_proxy_names_the_address() {
    let rates = "[rates]\nregistrations = { burst = 2, per_minute = 2 }\n";
    let chatd = Chatd::builder(env!("CARGO_BIN_EXE_chatd"))
        .rate_limits_on()
        .config(format!(
            "proxies = [\"127.0.0.0/8\"]\n[login]\nhash_memory_kib = 64\nhash_passes = 1\n{rates}"
        ))
        .start()
        .unwrap();
    let mut one = through_proxy(&chatd, "203.0.113.9");
    assert_eq!(register(&mut one, "amy")["type"], "ok");
    let mut again = through_proxy(&chatd, "203.0.113.9");
    assert_eq!(register(&mut again, "bob")["type"], "ok");
    assert!(wait_of(&register(&mut again, "cat")) > 1_000);
    let mut other = through_proxy(&chatd, "203.0.113.10");
    assert_eq!(register(&mut other, "cat")["type"], "ok");
    let (_, page) = chatd.admin_get("/connz").unwrap();
    assert!(page.contains("203.0.113.9:1234") && page.contains("203.0.113.10:1234"), "{page}");
    // Without a header nobody comes in that way.
    let mut plain = LineClient::connect(chatd.chat_addr());
    plain.send_raw(b"{\"type\":\"ping\",\"id\":1}\n");
    assert!(plain.expect_closed().is_empty());
}

#[test]
fn failed_logins_wait_and_tokens_and_other_accounts_do_not() {
    let chatd = limited("");
    let (mut amy, mut bob) = (chatd.client(), chatd.client());
    register(&mut amy, "amy");
    register(&mut bob, "bob");
    let token = guess(&mut amy, "amy", "correct horse")["token"].as_str().unwrap().to_owned();
    let mut thief = chatd.client();
    for _ in 0..5 {
        assert_eq!(guess(&mut thief, "AMY", "wrong horse")["code"], json!("unauthorized"));
    }
    // The wait doubles with each try that it was too short for, as it may be on a machine that stands still.
    let mut next = (0..8).map(|_| guess(&mut thief, "Amy", "wrong horse"));
    let told = next.find(|reply| reply["code"] != json!("unauthorized"));
    assert!(wait_of(&told.expect("a wait, however the name is spelled")) > 0);
    assert_eq!(guess(&mut bob, "bob", "correct horse")["type"], "ok");
    let mut device = chatd.client();
    assert_eq!(device.request(json!({"type": "login", "token": token}))["type"], "ok");
}

#[test]
fn connections_of_one_address_are_bounded() {
    let chatd = limited("[rates]\nconnections_per_address_max = 3\n");
    // Greeted, so that they are counted before the fourth.
    let greeted = || {
        let mut client = chatd.client();
        client.next_push("hello");
        client
    };
    let mut held: Vec<_> = (0..3).map(|_| greeted()).collect();
    let mut fourth = LineClient::try_connect(chatd.chat_addr()).unwrap();
    assert!(fourth.expect_closed().is_empty(), "closed without a word");
    drop(held.pop());
    testkit::wait_until("a place", Duration::from_secs(30), || {
        let mut client = LineClient::try_connect(chatd.chat_addr()).unwrap();
        client.try_next_push("hello", Duration::from_millis(500)).is_some()
    });
}

#[test]
fn a_closed_registration_is_forbidden_and_logins_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).data_dir(folder.path()).start().unwrap();
    register(&mut open.client(), "amy");
    drop(open);
    let closed = Chatd::builder(env!("CARGO_BIN_EXE_chatd"))
        .data_dir(folder.path())
        .arg("--registration")
        .arg("closed")
        .start()
        .unwrap();
    let mut client = closed.client();
    assert_eq!(register(&mut client, "bob")["code"], json!("forbidden"));
    assert_eq!(guess(&mut client, "amy", "correct horse")["type"], "ok");
}
