//! Section *Connection*: hello, bye, ping, signs of life, and how connections end.

use crate::client::{Client, Got};
use crate::server::{House, PASSWORD, assert_recent, fresh_name, shared};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn hello_comes_first_and_has_every_field() {
    let mut client = Client::connect(shared().addr());
    let hello = client.line();
    assert_eq!(hello["type"], "hello");
    assert_eq!(hello["version"], 1);
    assert!(hello["server"].as_str().unwrap().starts_with("chatd/"), "{hello}");
    assert!(!hello["node"].as_str().unwrap().is_empty(), "{hello}");
    assert_eq!(hello["heartbeat_secs"], 30);
    assert_eq!(hello["max_line_bytes"], 65_536);
    assert_eq!(hello["max_text_bytes"], 16_384);
    assert_eq!(hello["push_window"], 256);
    assert_recent(&hello["time_ms"]);
    client.assert_quiet();
}

#[test]
fn ping_tells_the_time() {
    let ok = shared().connect().ok(json!({"type": "ping"}));
    assert_recent(&ok["time_ms"]);
}

#[test]
fn requests_may_come_before_hello_is_read() {
    let mut client = Client::connect(shared().addr());
    client.raw(b"{\"type\":\"ping\",\"id\":1}\n");
    assert_eq!(client.line()["type"], "hello");
    assert_eq!(client.line()["id"], 1);
}

#[test]
fn without_a_login_or_a_sign_of_life_the_connection_ends_and_with_them_it_stays() {
    let house = House::with_config("[limits]\nlogin_timeout_ms = 1500\nidle_timeout_ms = 3000\n");
    let user = house.user("amy");
    let mut never_logs_in = house.connect();
    let mut pings_but_never_logs_in = house.connect();
    let mut falls_silent = house.session(&user);
    let mut pings = house.session(&user);
    let (mut timed_out, mut idle) = (false, false);
    // Waiting for the next line is what paces the pings here.
    for _ in 0..300 {
        pings.tell(&json!({"type": "ping"}));
        if !timed_out {
            let _ = pings_but_never_logs_in.try_raw(b"{\"type\":\"ping\"}\n");
            timed_out = ended(&mut pings_but_never_logs_in, "login_timeout");
        }
        idle = idle || ended(&mut falls_silent, "idle");
        if idle && timed_out {
            break;
        }
    }
    assert!(idle, "silence never ended a session");
    assert!(timed_out, "pings count as a login");
    never_logs_in.expect_bye("login_timeout");
    falls_silent.expect_closed();
    pings.assert_quiet();
}

/// Whether this connection gets its `bye` now, having been watched for a moment.
fn ended(client: &mut Client, code: &str) -> bool {
    match client.next(Duration::from_millis(150)) {
        Got::Line(line) => {
            assert_eq!((&line["type"], &line["code"]), (&json!("bye"), &json!(code)), "{line}");
            true
        }
        Got::Silence => false,
        Got::Closed => panic!("closed without a bye"),
    }
}

#[test]
fn a_client_that_ends_its_writing_side_gets_its_replies() {
    let house = shared();
    let mut client = house.connect();
    let mut batch = String::new();
    for id in 1..=100 {
        batch.push_str(&format!("{}\n", json!({"type": "ping", "id": id})));
    }
    client.raw(batch.as_bytes());
    client.shutdown_write();
    let rest = client.rest();
    let ids = Vec::from_iter(rest.iter().map(|reply| reply["id"].as_u64().expect("a reply")));
    assert_eq!(rest.len(), 100, "{rest:?}");
    assert!((1..=100).all(|id| ids.contains(&id)));
}

#[test]
fn a_register_at_the_end_of_the_writing_side_is_answered() {
    let house = shared();
    let name = fresh_name("amy");
    let mut client = house.connect();
    client.tell(&json!({"type": "register", "id": 1, "name": name, "password": PASSWORD}));
    client.shutdown_write();
    let rest = client.rest();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["type"], "ok");
}

#[test]
fn sends_before_the_end_of_the_writing_side_are_answered_and_kept() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut client = house.session(&amy);
    for n in 0..50 {
        client.tell(&json!({"type": "send", "id": n, "user": bob.id, "text": n.to_string()}));
    }
    client.shutdown_write();
    let replies = client.rest().into_iter().filter(|line| line["type"] == "ok").count();
    assert_eq!(replies, 50);
    let mut bobs = house.session(&bob);
    assert_eq!(bobs.next_texts(50), Vec::from_iter((0..50).map(|n| n.to_string())));
}

#[test]
fn a_connection_that_says_nothing_and_goes_is_harmless() {
    let house = shared();
    for _ in 0..20 {
        drop(Client::connect(house.addr()));
        Client::connect(house.addr()).reset();
    }
    house.connect().fence();
}

#[test]
fn a_reset_is_harmless() {
    let house = shared();
    let (amy, bob) = house.pair();
    for n in 0..20 {
        let (mut client, _) = house.login(&amy);
        for id in 0..50 {
            client.tell(&json!({"type": "history", "id": id, "conv": 1}));
            client.tell(&json!({"type": "send", "id": id, "user": bob.id, "text": format!("{n}.{id}")}));
        }
        client.raw(b"{\"type\":\"half");
        client.reset();
    }
    let mut client = house.held(&amy);
    let (conv, seq) = client.say(&bob, "still here");
    let page = client.ok(json!({"type": "history", "conv": conv, "limit": 1}));
    assert_eq!(page["messages"][0]["text"], "still here");
    assert_eq!(page["messages"][0]["seq"], json!(seq));
}

#[test]
fn one_clients_garbage_does_not_touch_another() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let mut noise = Vec::from_iter((0..20).map(|_| house.connect()));
    for client in &mut noise {
        let _ = client.try_raw(&[0xff; 5000]);
        let _ = client.try_raw(b"\n\0\n[]\n");
    }
    let (conv, seq) = amys.say(&bob, "through the noise");
    let push: Value = bobs.push("message");
    assert_eq!((&push["conv"], &push["seq"]), (&json!(conv), &json!(seq)));
}
