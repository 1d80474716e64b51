//! What nginx does with our configuration in front of real servers.
//!
//! What is broken: a server behind nginx is killed; nginx is reloaded, and killed; a client falls silent, or shuts down its writing side.
//! What must hold: 1. each server gets its share; 2. a server knows the client's own address; 3. TLS ends at nginx; 4. a reload cuts
//! nobody; 5. it is chatd who ends a silent chat, in words; 6. what was acknowledged before nginx died is there afterwards, once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::CertifiedKey;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use testkit::{Balancer, Chatd, Choice, LineClient, Nginx, To, bin, free_port, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn node(name: &str, more: &str) -> Chatd {
    let config =
        format!("proxies = [\"127.0.0.1/32\"]\n[login]\nhash_memory_kib = 64\nhash_passes = 1\n{more}");
    Chatd::builder(bin("chatd")).config(config).args(["--node", name]).start().unwrap()
}

fn free_addr() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

fn before(nodes: &[&Chatd]) -> Balancer {
    let upstreams = nodes.iter().map(|node| node.chat_addr()).collect();
    Balancer { plain: Some(free_addr()), upstreams, workers: 1, ..Balancer::default() }
}

/// The node that a new connection comes to, and the connection.
fn arrive(nginx: &Nginx) -> (String, LineClient) {
    let mut client = LineClient::connect(nginx.addr());
    let hello = client.next_push("hello");
    (hello["node"].as_str().unwrap().to_owned(), client)
}

#[test]
fn each_new_connection_goes_to_the_next_server_and_a_dead_one_is_passed_over() {
    if !Nginx::available() {
        return;
    }
    let (a, b) = (node("a", ""), node("b", ""));
    let mut balancer = before(&[&a, &b]);
    let nginx = Nginx::balance(&balancer, &[]).unwrap();
    let mut seen = BTreeMap::new();
    let clients: Vec<_> = (0..10).map(|_| arrive(&nginx)).collect();
    for (name, _) in &clients {
        *seen.entry(name.as_str()).or_insert(0) += 1;
    }
    assert_eq!(seen, BTreeMap::from([("a", 5), ("b", 5)]));

    a.kill9();
    for _ in 0..6 {
        assert_eq!(arrive(&nginx).0, "b");
    }
    a.restart().unwrap();
    wait_until("a gets its share again", LONG, || arrive(&nginx).0 == "a");

    balancer.choice = Choice::Hash;
    nginx.rebalance(&balancer).unwrap();
    wait_until("one address, one server", LONG, || {
        let first = arrive(&nginx).0;
        (0..4).all(|_| arrive(&nginx).0 == first)
    });
}

#[test]
fn a_server_sees_the_clients_own_address_and_the_limit_is_per_address() {
    if !Nginx::available() {
        return;
    }
    let chatd = node("a", "");
    let balancer = Balancer { connections_per_address: 3, ..before(&[&chatd]) };
    let nginx = Nginx::balance(&balancer, &[]).unwrap();

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 99], 0)).into()).unwrap();
    socket.connect(&nginx.addr().into()).unwrap();
    wait_until("its address in /connz", LONG, || chatd.admin_get("/connz").unwrap().1.contains("127.0.0.99"));

    let three: Vec<_> = (0..3).map(|_| arrive(&nginx)).collect();
    let mut fourth = LineClient::connect(nginx.addr());
    assert_eq!(fourth.expect_closed(), Vec::<Vec<u8>>::new());
    drop(three);
    wait_until("room for the address again", LONG, || {
        LineClient::connect(nginx.addr()).try_next_push("hello", Duration::from_secs(5)).is_some()
    });
}

#[test]
fn tls_ends_at_nginx() {
    if !Nginx::available() {
        return;
    }
    let chatd = node("a", "");
    let tls = free_addr();
    let balancer = Balancer { tls: Some(tls), ..before(&[&chatd]) };
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (cert.pem(), signing_key.serialize_pem());
    let nginx = Nginx::balance(&balancer, &[("chat.crt", &chain), ("chat.key", &key)]).unwrap();

    let mut child = Command::new(bin("chatcli"))
        .args([
            "--connect",
            &format!("localhost:{}", tls.port()),
            "--tls",
            "--script",
            "--no-remember",
            "--ca",
        ])
        .arg(nginx.dir().join("chat.crt"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"register amy correct-horse\nlogin amy correct-horse\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let mut client = LineClient::connect(nginx.addr());
    client.login("amy", "correct-horse");
}

#[test]
fn a_reload_cuts_nobody_and_new_connections_follow_the_new_list() {
    if !Nginx::available() {
        return;
    }
    let (a, b) = (node("a", ""), node("b", ""));
    let mut balancer = before(&[&a]);
    let nginx = Nginx::balance(&balancer, &[]).unwrap();
    let (name, mut old) = arrive(&nginx);
    assert_eq!(name, "a");
    old.register("amy", "correct horse");
    old.login("amy", "correct horse");
    balancer.upstreams = vec![b.chat_addr()];
    nginx.rebalance(&balancer).unwrap();
    wait_until("the new list", LONG, || arrive(&nginx).0 == "b");
    old.ping();
    assert_eq!(old.ok(json!({"type": "find_user", "name": "amy"}))["online"], true);

    balancer.upstreams.clear();
    nginx.rebalance(&balancer).unwrap();
    wait_until("nobody takes new ones", LONG, || {
        LineClient::connect(nginx.addr()).try_next_push("hello", Duration::from_secs(5)).is_none()
    });
    old.ping();
}

#[test]
fn who_is_silent_is_told_so_by_chatd_and_a_shorter_time_at_nginx_would_cut_without_a_word() {
    if !Nginx::available() {
        return;
    }
    let chatd = node("a", "[limits]\nidle_timeout_ms = 1500\n");
    let come = |silence_max| {
        let balancer = Balancer { silence_max, ..before(&[&chatd]) };
        let nginx = Nginx::balance(&balancer, &[]).unwrap();
        let mut client = LineClient::connect(nginx.addr());
        client.next_push("hello");
        (nginx, client)
    };
    let (_nginx, mut client) = come(Balancer::default().silence_max);
    client.expect_bye("idle");
    client.expect_closed();
    // The known mistake, shown so that the test above is known to test it.
    let (_nginx, mut client) = come(Duration::from_millis(300));
    assert_eq!(client.expect_closed(), Vec::<Vec<u8>>::new());
}

#[test]
fn who_has_shut_down_writing_still_gets_the_answers() {
    if !Nginx::available() {
        return;
    }
    let chatd = node("a", "");
    let nginx = Nginx::balance(&before(&[&chatd]), &[]).unwrap();
    let (_, mut client) = arrive(&nginx);
    let id = client.post(json!({"type": "register", "name": "amy", "password": "correct horse"}));
    client.shutdown_write();
    assert_eq!(client.reply(id)["type"], "ok");
    client.expect_closed();
}

#[test]
fn when_nginx_is_killed_clients_come_back_and_nothing_is_lost_or_doubled() {
    if !Nginx::available() {
        return;
    }
    let chatd = node("a", "");
    let nginx = Nginx::balance(&before(&[&chatd]), &[]).unwrap();
    let join = |name| {
        let (_, mut client) = arrive(&nginx);
        client.register(name, "correct horse");
        let token = client.login(name, "correct horse")["token"].as_str().unwrap().to_owned();
        (client, token)
    };
    let (mut amy, amys_token) = join("amy");
    let (mut bob, bobs_token) = join("bob");
    let first = amy.send_text_as(To::Name("bob"), "c-1", "one");
    let conv = first["conv"].as_u64().unwrap();
    assert_eq!(bob.next_push("message")["text"], "one");
    // Unanswered, as far as its sender knows.
    amy.post(To::Conv(conv).request(Some("c-2"), "two"));
    nginx.kill9();
    amy.expect_closed();
    bob.expect_closed();
    nginx.restart().unwrap();

    let resume = |token: &str, seen: u64| {
        let (_, mut client) = arrive(&nginx);
        client.ok(json!({"type": "login", "token": token, "hold": true}));
        client.ok(json!({"type": "sync", "cursors": {conv.to_string(): seen}}));
        client
    };
    let mut amy = resume(&amys_token, 1);
    let again = amy.send_text_as(To::Conv(conv), "c-2", "two");
    assert_eq!(again["seq"], 2);
    let mut bob = resume(&bobs_token, 1);
    let push = bob.next_push("message");
    assert_eq!((push["seq"].as_u64(), push["text"].as_str()), (Some(2), Some("two")));
    amy.send_text(To::Conv(conv), "three");
    assert_eq!(bob.next_push("message")["text"], "three");
}
