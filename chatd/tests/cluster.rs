//! Several nodes on one MariaDB and one Redis, as clients on different nodes meet them.

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
use testkit::{Chatd, ChatdBuilder, FaultProxy, LineClient, MariaDb, Redis, To, wait_joined, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// A database, a Redis, and nodes.
struct Cluster {
    nodes: Vec<Chatd>,
    redis: Redis,
    _maria: MariaDb,
}

impl Cluster {
    /// `None`, and a line that says so, where a program is missing.
    fn start(nodes: usize) -> Option<Self> {
        let (maria, redis) = servers()?;
        let nodes = (0..nodes).map(|at| Self::node(&maria, &redis.url(), at).start().unwrap()).collect();
        Some(Self::of(nodes, redis, maria))
    }

    /// Two nodes with more arguments, the second of which reaches Redis through a proxy.
    fn proxied(args: &[&str]) -> Option<(Self, FaultProxy)> {
        let (maria, redis) = servers()?;
        let proxy = FaultProxy::start(redis.addr());
        let urls = [redis.url(), Redis::url_at(proxy.addr())];
        let node = |(at, url): (usize, &String)| Self::node(&maria, url, at).args(args).start().unwrap();
        let nodes = urls.iter().enumerate().map(node).collect();
        Some((Self::of(nodes, redis, maria), proxy))
    }

    fn of(nodes: Vec<Chatd>, redis: Redis, maria: MariaDb) -> Self {
        let cluster = Self { nodes, redis, _maria: maria };
        cluster.wait_joined();
        cluster
    }

    fn node(maria: &MariaDb, redis: &str, at: usize) -> ChatdBuilder {
        let args = ["--mysql", &maria.url("chat"), "--redis", redis, "--node", &format!("node-{at}")];
        Chatd::builder(env!("CARGO_BIN_EXE_chatd")).args(args)
    }

    fn wait_joined(&self) {
        wait_joined(&self.nodes.iter().collect::<Vec<_>>());
    }

    fn client(&self, node: usize, name: &str) -> LineClient {
        let mut client = self.nodes[node].client_as(name);
        client.set_patience(LONG);
        // What is a mere hint is told to whoever is past this.
        client.next_push("synced");
        client
    }
}

fn servers() -> Option<(MariaDb, Redis)> {
    let are_there = MariaDb::available() && Redis::available();
    are_there.then(|| (MariaDb::start().unwrap(), Redis::start().unwrap()))
}

fn befriend(one: &mut LineClient, other: &mut LineClient, one_name: &str, other_name: &str) {
    one.ok(json!({"type": "friend_request", "user": other_name}));
    other.ok(json!({"type": "friend_accept", "user": one_name}));
}

fn seqs_and_texts(pushes: &[Value]) -> Vec<(u64, String)> {
    pushes
        .iter()
        .filter(|push| push["type"] == "message")
        .map(|push| {
            (
                push["seq"].as_u64().unwrap(),
                push["text"].as_str().or(push["event"].as_str()).unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn a_message_reaches_every_session_of_both_on_all_nodes() {
    let Some(cluster) = Cluster::start(3) else { return };
    let mut amy = cluster.client(0, "amy");
    let mut amy_too = cluster.client(2, "amy");
    let mut bob = cluster.client(1, "bob");
    let mut bob_too = cluster.client(0, "bob");
    let sent = amy.send_text(To::Name("bob"), "hello over there");
    for client in [&mut bob, &mut bob_too, &mut amy_too] {
        let push = client.next_push("message");
        assert_eq!((&push["seq"], &push["text"]), (&json!(1), &json!("hello over there")));
    }
    let conv = sent["conv"].as_u64().unwrap();
    // Both write, from everywhere, and everyone sees one order without gaps.
    for round in 0..20 {
        amy.send_text(To::Conv(conv), &format!("amy {round}"));
        bob.send_text(To::Conv(conv), &format!("bob {round}"));
        amy_too.send_text(To::Conv(conv), &format!("amy too {round}"));
    }
    let all = bob_too.ok(json!({"type": "history", "conv": conv, "limit": 200}));
    let all: Vec<u64> =
        all["messages"].as_array().unwrap().iter().map(|m| m["seq"].as_u64().unwrap()).collect();
    assert_eq!(all, (1..=61).collect::<Vec<_>>());
    let mut seen = Vec::new();
    while seen.len() < 60 {
        seen.push(bob_too.next_push("message")["seq"].as_u64().unwrap());
    }
    assert_eq!(seen, (2..=61).collect::<Vec<_>>());
}

#[test]
fn a_group_is_one_publish_and_one_row_however_many_nodes_it_is_on() {
    let Some(cluster) = Cluster::start(3) else { return };
    let mut amy = cluster.client(0, "amy");
    let group = amy.ok(json!({"type": "group_create", "name": "all", "open": true}));
    let conv = group["conv"].as_u64().unwrap();
    let mut others: Vec<LineClient> =
        (0..9).map(|at| cluster.client(at % 3, &format!("user-{at}"))).collect();
    for other in &mut others {
        other.ok(json!({"type": "group_join", "conv": conv}));
    }
    for (at, other) in others.iter_mut().enumerate() {
        // Everyone is pushed from its own joining on.
        let first = other.next_push("message");
        assert_eq!((&first["event"], &first["seq"]), (&json!("joined"), &json!(at + 2)), "{first}");
    }
    let published = |node: &Chatd| node.metric("chatd_redis_published_total").unwrap();
    wait_until("cursors have been told", LONG, || {
        let before = published(&cluster.nodes[0]);
        std::thread::sleep(Duration::from_millis(300));
        before == published(&cluster.nodes[0])
    });
    let before = published(&cluster.nodes[0]);
    amy.send_text(To::Conv(conv), "to all of you");
    for other in &mut others {
        loop {
            let push = other.next_push("message");
            if push["text"] == "to all of you" {
                break;
            }
        }
    }
    assert_eq!(published(&cluster.nodes[0]) - before, 1);
}

#[test]
fn whoever_is_invited_joined_kicked_or_leaves_elsewhere_sees_its_span_exactly() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let conv = amy.ok(json!({"type": "group_create", "name": "club"}))["conv"].as_u64().unwrap();
    amy.send_text(To::Conv(conv), "before bob");
    amy.ok(json!({"type": "group_invite", "conv": conv, "user": "bob"}));
    assert_eq!(bob.next_push("invite")["conv"], json!(conv));
    bob.ok(json!({"type": "group_join", "conv": conv}));
    amy.send_text(To::Conv(conv), "with bob");
    assert_eq!(bob.next_push("message")["event"], "joined");
    assert_eq!(bob.next_push("message")["text"], "with bob");
    let bob_id = bob.ok(json!({"type": "find_user", "name": "bob"}))["user"].as_u64().unwrap();
    amy.ok(json!({"type": "group_kick", "conv": conv, "user": bob_id}));
    amy.send_text(To::Conv(conv), "without bob");
    assert_eq!(bob.next_push("message")["event"], "kicked");
    bob.err(json!({"type": "send", "conv": conv, "text": "let me in"}), "forbidden");
    amy.ok(json!({"type": "group_invite", "conv": conv, "user": "bob"}));
    bob.ok(json!({"type": "group_join", "conv": conv}));
    amy.send_text(To::Conv(conv), "bob again");
    let again = [bob.next_push("message"), bob.next_push("message")];
    assert_eq!(seqs_and_texts(&again), [(7, "joined".to_owned()), (8, "bob again".to_owned())]);
}

#[test]
fn friends_on_different_nodes_see_each_other_come_and_go() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    befriend(&mut amy, &mut bob, "amy", "bob");
    assert_eq!(bob.next_push("friend")["event"], "requested");
    assert_eq!(amy.next_push("friend")["event"], "accepted");
    let online =
        |client: &mut LineClient| client.ok(json!({"type": "friends"}))["friends"][0]["online"].clone();
    assert_eq!(online(&mut amy), json!(true));
    // The other session keeps bob online, wherever it is.
    let bob_too = cluster.client(0, "bob");
    drop(bob);
    wait_until("the session has ended", LONG, || cluster.nodes[1].metric("chatd_users_online") == Some(0));
    assert_eq!(online(&mut amy), json!(true));
    drop(bob_too);
    let gone = amy.next_push("presence");
    assert_eq!((&gone["name"], &gone["online"]), (&json!("bob"), &json!(false)));
    assert_eq!(online(&mut amy), json!(false));
    let _bob = cluster.client(1, "bob");
    assert_eq!(amy.next_push("presence")["online"], json!(true));
}

#[test]
fn typing_and_cursors_and_blocks_are_seen_on_the_other_node() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let conv = amy.send_text(To::Name("bob"), "hi")["conv"].as_u64().unwrap();
    bob.next_push("message");
    bob.ok(json!({"type": "typing", "conv": conv}));
    assert_eq!(amy.next_push("typing")["conv"], json!(conv));
    bob.ack(conv, 1);
    assert_eq!(amy.next_push("delivered")["seq"], json!(1));
    bob.ok(json!({"type": "read", "conv": conv, "seq": 1}));
    assert_eq!(amy.next_push("read")["seq"], json!(1));
    bob.ok(json!({"type": "block", "user": "amy"}));
    amy.err(json!({"type": "send", "conv": conv, "text": "hello?"}), "forbidden");
}

#[test]
fn a_token_of_one_node_is_good_on_the_other_and_a_revocation_ends_sessions_on_both() {
    let Some(cluster) = Cluster::start(2) else { return };
    let mut amy = cluster.nodes[0].client();
    amy.set_patience(LONG);
    amy.register("amy", Chatd::PASSWORD);
    let token = amy.login("amy", Chatd::PASSWORD)["token"].as_str().unwrap().to_owned();
    let mut there = cluster.nodes[1].client();
    there.set_patience(LONG);
    there.login_token(&token);
    let mut other = cluster.client(1, "amy");
    amy.ok(json!({"type": "logout", "all": true}));
    there.expect_bye("logged_out");
    other.expect_bye("logged_out");
    let mut again = cluster.nodes[1].client();
    again.err(json!({"type": "login", "token": token}), "unauthorized");

    let (mut one, mut two) = (cluster.client(0, "bob"), cluster.client(1, "bob"));
    one.ok(json!({"type": "password", "old": Chatd::PASSWORD, "new": "another password"}));
    two.expect_bye("logged_out");
    one.ok(json!({"type": "ping"}));
}

#[test]
fn a_ninth_session_ends_the_oldest_wherever_it_is() {
    let Some(cluster) = Cluster::start(2) else { return };
    let mut sessions: Vec<LineClient> = Vec::new();
    for at in 0..8 {
        sessions.push(cluster.client(at % 2, "amy"));
        // Stamped by Redis's clock, so the order is that of the logins.
        wait_until("both nodes know of it", LONG, || {
            cluster.nodes.iter().all(|node| node.metric("chatd_cluster_users_online") == Some(1))
        });
    }
    let _ninth = cluster.client(1, "amy");
    sessions[0].expect_bye("replaced");
    let _tenth = cluster.client(0, "amy");
    sessions[1].expect_bye("replaced");
    for session in &mut sessions[2..] {
        session.ping();
    }
}

#[test]
fn the_users_of_a_killed_node_are_offline_everywhere_and_only_they() {
    let Some(cluster) = Cluster::start(3) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let mut cat = cluster.client(2, "cat");
    befriend(&mut amy, &mut bob, "amy", "bob");
    befriend(&mut amy, &mut cat, "amy", "cat");
    cluster.nodes[1].kill9();
    let gone = amy.next_push("presence");
    assert_eq!((&gone["name"], &gone["online"]), (&json!("bob"), &json!(false)));
    let friends = amy.ok(json!({"type": "friends"}));
    let online: Vec<_> = friends["friends"].as_array().unwrap().iter().map(|f| f["online"].clone()).collect();
    assert_eq!(online, [json!(false), json!(true)]);
    // Its users come back elsewhere.
    let _bob = cluster.client(2, "bob");
    assert_eq!(amy.next_push("presence")["online"], json!(true));
}

#[test]
fn what_was_written_while_redis_was_away_is_pushed_when_it_is_back() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let conv = amy.send_text(To::Name("bob"), "one")["conv"].as_u64().unwrap();
    bob.next_push("message");
    let group =
        amy.ok(json!({"type": "group_create", "name": "all", "open": true}))["conv"].as_u64().unwrap();
    cluster.redis.kill9();
    amy.send_text(To::Conv(conv), "two");
    // One that begins meanwhile.
    let mut cat = cluster.client(0, "cat");
    cat.send_text(To::Name("bob"), "new here");
    // And a group in which bob becomes a member by an elder session's doing on the other node.
    let mut bob_there = cluster.client(0, "bob");
    bob_there.ok(json!({"type": "group_join", "conv": group}));
    amy.send_text(To::Conv(group), "to the group");
    cluster.redis.restart().unwrap();
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < 4 {
        let push = bob.next_push("message");
        seen.push(push["text"].as_str().or(push["event"].as_str()).unwrap().to_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["joined", "new here", "to the group", "two"]);
    // And everything goes its usual way again.
    amy.send_text(To::Conv(conv), "three");
    assert_eq!(bob.next_push("message")["text"], "three");
    cluster.wait_joined();
}

#[test]
fn an_emptied_redis_logs_nobody_out_and_nobody_goes_offline() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    befriend(&mut amy, &mut bob, "amy", "bob");
    amy.next_push("friend");
    cluster.redis.flush_all().unwrap();
    // Longer than a lease and all patience.
    for push in amy.listen(Duration::from_secs(9)) {
        assert_ne!(push["type"], "presence", "{push}");
    }
    bob.send_text(To::Name("amy"), "still here");
    assert_eq!(amy.next_push("message")["text"], "still here");
    assert_eq!(amy.ok(json!({"type": "friends"}))["friends"][0]["online"], json!(true));
}

#[test]
fn a_node_cut_off_from_redis_catches_up_when_it_hears_again() {
    let Some((cluster, proxy)) = Cluster::proxied(&[]) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let conv = amy.send_text(To::Name("bob"), "one")["conv"].as_u64().unwrap();
    bob.next_push("message");
    proxy.go_silent(true);
    for number in 0..10 {
        amy.send_text(To::Conv(conv), &format!("unheard {number}"));
    }
    bob.send_text(To::Conv(conv), "from the cut off one");
    proxy.go_silent(false);
    proxy.cut_all();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        seen.push(bob.next_push("message")["seq"].as_u64().unwrap());
    }
    assert_eq!(seen, (2..=11).collect::<Vec<_>>());
    assert_eq!(amy.next_push("message")["text"], "from the cut off one");
}

#[test]
fn a_drained_node_sends_its_users_elsewhere_and_they_miss_nothing() {
    let Some(cluster) = Cluster::start(2) else { return };
    let mut amy = cluster.client(0, "amy");
    let mut bob = cluster.nodes[1].client();
    bob.set_patience(LONG);
    bob.register("bob", Chatd::PASSWORD);
    let token = bob.login("bob", Chatd::PASSWORD)["token"].as_str().unwrap().to_owned();
    bob.next_push("synced");
    befriend(&mut amy, &mut bob, "amy", "bob");
    let conv = amy.send_text(To::Name("bob"), "one")["conv"].as_u64().unwrap();
    bob.next_push("message");
    cluster.nodes[1].terminate();
    let bye = bob.expect_bye("shutdown");
    assert!(bye["reconnect_after_ms"].as_u64().is_some(), "{bye}");
    amy.send_text(To::Conv(conv), "while you were out");
    let mut back = cluster.nodes[0].client();
    back.set_patience(LONG);
    back.ok(json!({"type": "login", "token": token, "hold": true}));
    back.ok(json!({"type": "sync", "cursors": {conv.to_string(): 1}}));
    assert_eq!(back.next_push("message")["text"], "while you were out");
    // Nobody was told that bob had gone, for he had not.
    for push in amy.listen(Duration::from_secs(7)) {
        assert!(push["type"] != "presence" || push["online"] == true, "{push}");
    }
}

#[test]
fn a_node_that_was_stopped_for_long_is_believed_gone_and_is_right_again_afterwards() {
    let Some(cluster) = Cluster::start(3) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let mut cat = cluster.client(2, "cat");
    befriend(&mut amy, &mut bob, "amy", "bob");
    befriend(&mut bob, &mut cat, "bob", "cat");
    let conv = amy.send_text(To::Name("bob"), "one")["conv"].as_u64().unwrap();
    bob.next_push("message");
    cluster.nodes[1].pause();
    let gone = amy.next_push("presence");
    assert_eq!((&gone["name"], &gone["online"]), (&json!("bob"), &json!(false)));
    amy.send_text(To::Conv(conv), "while you were stopped");
    // Meanwhile a friend moves from one node to another.
    drop(cat);
    let mut cat = cluster.client(0, "cat");
    cluster.nodes[1].resume();
    assert_eq!(bob.next_push("message")["text"], "while you were stopped");
    assert_eq!(amy.next_push("presence")["online"], json!(true));
    wait_until("each sees the other", LONG, || {
        let online = |client: &mut LineClient| {
            let friends = client.ok(json!({"type": "friends"}));
            friends["friends"].as_array().unwrap().iter().all(|friend| friend["online"] == true)
        };
        online(&mut amy) && online(&mut bob) && online(&mut cat)
    });
    bob.send_text(To::Name("cat"), "hello");
    assert_eq!(cat.next_push("message")["text"], "hello");
}

#[test]
fn who_moved_while_redis_was_away_is_seen_where_it_is() {
    let Some(cluster) = Cluster::start(3) else { return };
    let (mut amy, mut bob) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    befriend(&mut amy, &mut bob, "amy", "bob");
    cluster.redis.kill9();
    drop(bob);
    let _bob = cluster.client(2, "bob");
    cluster.redis.restart().unwrap();
    cluster.wait_joined();
    wait_until("the friend is online", LONG, || {
        amy.ok(json!({"type": "friends"}))["friends"][0]["online"] == json!(true)
    });
}

#[test]
fn what_begins_while_another_session_logs_in_reaches_the_elder_one_too() {
    // One loop, so that all sessions of a node are on it.
    let Some((cluster, proxy)) = Cluster::proxied(&["--threads", "1"]) else { return };
    let (mut amy, mut elder) = (cluster.client(0, "amy"), cluster.client(1, "bob"));
    let group =
        amy.ok(json!({"type": "group_create", "name": "all", "open": true}))["conv"].as_u64().unwrap();
    let mut there = cluster.client(0, "bob");
    // What is committed comes to the node by its tables before it comes by Redis.
    proxy.delay(Duration::from_millis(500));
    let conv = amy.send_text(To::Name("bob"), "hello")["conv"].as_u64().unwrap();
    there.ok(json!({"type": "group_join", "conv": group}));
    amy.send_text(To::Conv(group), "to all");
    let mut younger = cluster.client(1, "bob");
    proxy.delay(Duration::ZERO);
    for session in [&mut elder, &mut younger] {
        let pushes =
            [session.next_push("message"), session.next_push("message"), session.next_push("message")];
        let of =
            |conv: u64| pushes.iter().filter(|push| push["conv"] == json!(conv)).cloned().collect::<Vec<_>>();
        assert_eq!(seqs_and_texts(&of(conv)), [(1, "hello".to_owned())]);
        assert_eq!(seqs_and_texts(&of(group)), [(2, "joined".to_owned()), (3, "to all".to_owned())]);
    }
}
