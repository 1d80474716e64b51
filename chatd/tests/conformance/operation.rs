//! The process: its flags and exit codes, the end by SIGTERM, a restart, and its memory under slow readers.

use crate::client::{Client, Got, WAIT};
use crate::server::{House, PASSWORD, User, place};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use testkit::process::rss_bytes;
use testkit::{Chatd, ChatdBuilder, ExitReport};

const MIB: u64 = 1 << 20;

fn builder() -> ChatdBuilder {
    Chatd::builder(env!("CARGO_BIN_EXE_chatd"))
}

/// How the server ends when it is started with these arguments, and where needed with free ports and a fresh data folder.
fn refused(args: &[&str]) -> ExitReport {
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().join("data").display().to_string();
    let mut all = args.to_vec();
    for (flag, value) in [("--listen", "127.0.0.1:0"), ("--admin", "127.0.0.1:0"), ("--data-dir", &data)] {
        if !args.contains(&flag) {
            all.extend([flag, value]);
        }
    }
    let report = builder().run_expecting_exit(all).expect("it ends by itself");
    assert_eq!(report.stdout, "", "standard output is for what was asked for");
    report
}

#[test]
fn a_cluster_without_common_tables_is_refused() {
    let report = refused(&["--redis", "redis://127.0.0.1:1"]);
    assert_eq!(report.code, Some(2), "{}", report.stderr);
    assert!(report.stderr.contains("`redis`: needs `mysql`"), "{}", report.stderr);
    // What is wrong with a URL is said without repeating its password.
    let report =
        refused(&["--redis", "rediss://u:secret@127.0.0.1:1", "--mysql", "mysql://u@127.0.0.1:1/chat"]);
    assert_eq!(report.code, Some(2), "{}", report.stderr);
    assert!(report.stderr.contains("redis://") && !report.stderr.contains("secret"), "{}", report.stderr);
}

#[test]
fn a_database_that_cannot_be_used_is_named_without_its_password() {
    for (url, code, says) in [
        ("mysql://u:secret@127.0.0.1:3306", 2, "names no database"),
        ("http://u:secret@127.0.0.1/chat", 2, "mysql://"),
        ("mysql://u:secret@127.0.0.1:1/chat", 1, "127.0.0.1:1"),
    ] {
        let report = refused(&["--mysql", url]);
        assert_eq!(report.code, Some(code), "{url}: {}", report.stderr);
        assert!(report.stderr.contains(says) && !report.stderr.contains("secret"), "{}", report.stderr);
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for args in [
        &["--no-such-flag"][..],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1:99999"],
        &["--rate-limits", "maybe"],
    ] {
        let report = refused(args);
        assert_eq!(report.code, Some(2), "{args:?}: {}", report.stderr);
        assert!(!report.stderr.is_empty());
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_the_line_at_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("chatd.toml");
    let path = file.display().to_string();
    for wrong in ["# fine\n\nlisten = 5\n", "# fine\n\nlisten = = 5\n", "# fine\n\nno_such_key_at_all = 5\n"]
    {
        std::fs::write(&file, wrong).expect("write");
        let report = refused(&["--config", &path, "--check"]);
        assert_eq!(report.code, Some(2), "{wrong}: {}", report.stderr);
        assert!(report.stderr.contains('3'), "line 3 is not named: {}", report.stderr);
    }
    std::fs::write(&file, "# nothing\n").expect("write");
    let report = builder().run_expecting_exit(["--config", &path, "--check"]).expect("it ends by itself");
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    let report = refused(&["--config", "/no/such/file.toml"]);
    assert_eq!(report.code, Some(2), "{}", report.stderr);
}

#[test]
fn a_port_that_is_taken_is_a_runtime_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address").to_string();
    let report = refused(&["--listen", &addr]);
    assert_eq!(report.code, Some(1), "{}", report.stderr);
    assert!(report.stderr.contains(&addr), "{}", report.stderr);
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let house = House::own();
    let amy = house.user("amy");
    let data = house.chatd.data_dir().display().to_string();
    let report = refused(&["--data-dir", &data]);
    assert_eq!(report.code, Some(1), "{}", report.stderr);
    assert!(report.stderr.contains(&data), "the folder is not named: {}", report.stderr);
    assert!(!report.stderr.contains("panicked"), "{}", report.stderr);
    house.session(&amy).fence();
}

#[test]
fn it_says_on_standard_error_where_it_listens_and_where_its_data_and_log_are() {
    let house = House::own();
    let said = house.chatd.stderr();
    let data = house.chatd.data_dir().display().to_string();
    let log = house.chatd.log_path().display().to_string();
    for place in [&house.addr().to_string(), &data, &log] {
        assert!(said.contains(place), "{place} is not in {said:?}");
    }
}

#[test]
fn at_sigterm_everybody_is_told_to_come_back_and_nothing_accepted_is_lost() {
    let house = House::own();
    let (amy, bob) = house.pair();
    let mut clients = Vec::from_iter((0..8).map(|n| house.session(if n % 2 == 0 { &amy } else { &bob })));
    clients.extend((0..3).map(|_| house.connect()));
    clients.push(house.held(&house.user("carol")));
    let mut sent = BTreeMap::new();
    for n in 0..200 {
        let text = format!("in flight {n}");
        let id = clients[0].ask(json!({"type": "send", "user": bob.id, "text": text}));
        sent.insert(id, text);
    }
    house.chatd.terminate();
    let (mut delays, mut accepted) = (BTreeSet::new(), BTreeMap::new());
    for (at, client) in clients.iter_mut().enumerate() {
        let rest = client.rest();
        let bye = rest.last().unwrap_or_else(|| client.fail("no bye"));
        assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!("shutdown")), "client {at}: {bye}");
        delays.insert(bye["reconnect_after_ms"].as_u64().expect("coming back makes sense"));
        for ok in rest.iter().filter(|line| at == 0 && line["type"] == "ok") {
            accepted.insert(place(ok), sent[&ok["id"].as_u64().expect("an id")].clone());
        }
    }
    assert!(delays.len() > 1, "all come back at once: {delays:?}");
    assert_eq!(house.chatd.wait_exit(WAIT).code(), Some(0));
    house.chatd.restart().expect("it starts again");
    let mut bobs = house.session(&bob);
    let kept =
        BTreeMap::from_iter(bobs.seen("message").iter().map(|push| (place(push), push["text"].clone())));
    for (place, text) in &accepted {
        assert_eq!(kept.get(place), Some(&json!(text)), "{place:?} was acknowledged");
    }
    assert!(kept.keys().map(|place| place.1).eq(1..=kept.len() as u64), "gaps: {:?}", kept.keys());
}

#[test]
fn a_restart_keeps_everything() {
    let house = House::own();
    let (amy, bob) = house.pair();
    let (mut amys, login) = house.login(&amy);
    let conv = amys.say_many(&bob, 1, 20);
    let keyed = json!({"type": "send", "user": bob.id, "text": "keyed", "client_id": "c-1"});
    let first = amys.ok(keyed.clone());
    let mut bobs = house.session(&bob);
    bobs.ack(conv, 12);
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 9}));
    bobs.tell(&json!({"type": "ack", "conv": conv, "seq": 15}));
    bobs.fence();
    let before = bobs.ok(json!({"type": "history", "conv": conv}))["messages"].clone();
    house.chatd.terminate();
    assert_eq!(house.chatd.wait_exit(WAIT).code(), Some(0));
    house.chatd.restart().expect("it starts again");

    let mut amys = house.connect();
    let ok = amys.ok(json!({"type": "login", "token": login["token"]}));
    assert_eq!((&ok["user"], &ok["name"]), (&json!(amy.id), &json!(amy.name)));
    assert_eq!(amys.marks_of(conv, &bob), (15, 9));
    let again = amys.ok(keyed);
    assert_eq!((place(&again), &again["duplicate"]), (place(&first), &json!(true)));
    let mut bobs = house.session(&bob);
    assert_eq!(bobs.next_seqs(6), Vec::from_iter(16..=21));
    assert_eq!(bobs.ok(json!({"type": "history", "conv": conv}))["messages"], before);
    assert_eq!(bobs.say(&amy, "goes on"), (conv, 22));
    let taken = json!({"type": "register", "name": amy.name, "password": PASSWORD});
    assert_eq!(house.connect().err(taken), "conflict");
    assert!(house.user("carol").id > amy.id.max(bob.id), "ids are not given twice");
}

#[test]
fn a_logout_outlives_a_restart() {
    let house = House::own();
    let amy = house.user("amy");
    let (mut client, login) = house.login(&amy);
    client.ok(json!({"type": "logout"}));
    house.chatd.kill9();
    house.chatd.restart().expect("it starts again");
    assert_eq!(house.connect().err(json!({"type": "login", "token": login["token"]})), "unauthorized");
}

/// A session over a narrow connection that will not be read any more.
fn narrow_session(house: &House, user: &User) -> Client {
    let mut client = Client::connect_narrow(house.addr());
    client.ok(json!({"type": "login", "name": user.name, "password": PASSWORD}));
    client.push("synced");
    client
}

#[test]
fn readers_that_never_read_cost_no_memory_and_hold_nobody_up() {
    let house = House::own();
    let text = "x".repeat(16_000);
    let amy = house.user("amy");
    let mut amys = house.session(&amy);
    let readers = Vec::from_iter((0..10).map(|_| house.user("reader")));
    let mut never_read =
        Vec::from_iter(readers.iter().flat_map(|user| (0..4).map(|_| narrow_session(&house, user))));
    let pump = |client: &mut Client, rounds: usize, to: &[User]| {
        for _ in 0..rounds {
            let sends =
                to.iter().map(|user| client.ask(json!({"type": "send", "user": user.id, "text": text})));
            for id in Vec::from_iter(sends) {
                let reply = client.reply(id);
                assert_eq!(reply["type"], "ok", "{reply}");
            }
        }
    };
    // What the store and the allocator need for such messages when nobody is there to be pushed to.
    pump(&mut amys, 200, &Vec::from_iter((0..10).map(|_| house.user("nobody"))));
    let before = rss_bytes(house.chatd.pid());
    pump(&mut amys, 200, &readers);
    let growth = rss_bytes(house.chatd.pid()).saturating_sub(before);
    println!("32 MB to readers that never read: {} KiB more", growth / 1024);
    assert!(growth < 12 * MIB, "{growth} bytes more");

    let mut attentive = house.session(&readers[0]);
    assert_eq!(attentive.seen("message").len() % 256, 200, "all of them came to a reader that reads");
    // Who reads at last gets everything, or was told why not.
    let mut late = never_read.remove(0);
    let seqs = BTreeSet::from_iter(drained(&mut late).iter().map(|push| place(push).1));
    assert!(late.is_closed() || seqs == BTreeSet::from_iter(1..=200), "{seqs:?}");
}

/// The messages that come until nothing more does.
fn drained(client: &mut Client) -> Vec<serde_json::Value> {
    let mut messages = client.seen("message");
    while let Got::Line(line) = client.next(Duration::from_secs(3)) {
        if line["type"] == "message" {
            messages.push(line);
        }
    }
    messages
}

#[test]
fn who_asks_and_never_reads_costs_no_memory_and_holds_nobody_up() {
    let house = House::own();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let mut conv = 0;
    for _ in 0..4 {
        conv = amys.say(&bob, &"x".repeat(16_000)).0;
    }
    let history = json!({"type": "history", "conv": conv});
    for _ in 0..20 {
        amys.ok(history.clone());
    }
    let before = rss_bytes(house.chatd.pid());
    let mut askers = Vec::from_iter((0..8).map(|_| narrow_session(&house, &bob)));
    for client in &mut askers {
        for _ in 0..250 {
            client.ask(history.clone());
        }
    }
    // Each round is served behind what the askers have asked for.
    for _ in 0..50 {
        amys.ok(history.clone());
        let growth = rss_bytes(house.chatd.pid()).saturating_sub(before);
        assert!(growth < 48 * MIB, "{growth} bytes more for 125 MB of replies");
    }
    let mut late = askers.remove(0);
    let mut replies = 0;
    while !late.is_closed() && replies < 250 {
        match late.next(WAIT) {
            Got::Line(line) => replies += usize::from(line["type"] == "ok"),
            Got::Closed => break,
            Got::Silence => late.fail("neither a reply nor the end"),
        }
    }
    assert!(late.is_closed() || replies == 250, "{replies} replies");
}
