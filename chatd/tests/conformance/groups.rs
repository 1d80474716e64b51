//! *Groups*: roles, invitations, spans of membership, and entries that tell of changes in the group's own sequence.

use crate::client::Client;
use crate::server::{House, PASSWORD, User, shared};
use serde_json::{Value, json};

impl Client {
    fn create(&mut self, name: &str, open: bool) -> u64 {
        let ok = self.ok(json!({"type": "group_create", "name": name, "open": open}));
        ok["conv"].as_u64().expect("a conv")
    }

    fn join(&mut self, conv: u64) {
        self.ok(json!({"type": "group_join", "conv": conv}));
    }

    fn post(&mut self, conv: u64, text: &str) -> u64 {
        self.ok(json!({"type": "send", "conv": conv, "text": text}))["seq"].as_u64().expect("a seq")
    }

    fn entries(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.push("message")).collect()
    }

    fn roles(&mut self, conv: u64) -> Vec<(u64, String)> {
        let ok = self.ok(json!({"type": "group_members", "conv": conv}));
        let members = ok["members"].as_array().expect("members");
        let role = |member: &Value| {
            (member["user"].as_u64().expect("id"), member["role"].as_str().expect("role").into())
        };
        members.iter().map(role).collect()
    }
}

/// People with a session each.
fn people<const N: usize>(house: &House) -> [(User, Client); N] {
    std::array::from_fn(|at| {
        let user = house.user(&format!("g{at}"));
        let client = house.session(&user);
        (user, client)
    })
}

/// What an entry tells in short: its place, `event` or text, whom it concerns.
fn told(entry: &Value) -> (u64, String, Option<u64>) {
    assert_eq!(entry["kind"], json!("group"));
    assert!(entry.get("to").is_none(), "{entry}");
    let said = entry["event"].as_str().or(entry["text"].as_str()).expect("event or text").to_owned();
    (entry["seq"].as_u64().expect("a seq"), said, entry["user"].as_u64())
}

#[test]
fn a_group_begins_with_created_and_is_heard_by_who_made_it() {
    let house = shared();
    let [(amy, mut a)] = people(house);
    let mut second = house.session(&amy);
    let tea = a.create("Tea \u{2615}", false);
    for client in [&mut a, &mut second] {
        let entry = client.push("message");
        assert_eq!(told(&entry), (1, "created".into(), Some(amy.id)));
        assert_eq!((&entry["name"], &entry["from"]), (&json!("Tea \u{2615}"), &json!(amy.id)));
        assert_eq!(entry["conv"], json!(tea));
    }
    assert_eq!(a.roles(tea), [(amy.id, "owner".into())]);
    let listed = a.ok(json!({"type": "groups"}))["groups"].clone();
    let wanted =
        json!([{"conv": tea, "name": "Tea \u{2615}", "role": "owner", "members": 1, "invited": false}]);
    assert_eq!(listed, wanted);
    let listed = a.ok(json!({"type": "conversations"}))["conversations"][0].clone();
    assert_eq!((&listed["kind"], &listed["name"]), (&json!("group"), &json!("Tea \u{2615}")));
    assert!(listed.get("user").is_none(), "direct only");
}

#[test]
fn messages_reach_every_other_session_of_every_member_in_order() {
    let house = shared();
    let [(_, mut a), (bob, mut b), (_, mut c)] = people(house);
    let mut b2 = house.session(&bob);
    let tea = a.create("tea", true);
    b.join(tea);
    c.join(tea);
    a.entries(3);
    assert_eq!(a.post(tea, "one"), 4);
    assert_eq!(c.post(tea, "two"), 5);
    let texts = |entries: Vec<Value>| entries.iter().map(|entry| told(entry).1).collect::<Vec<_>>();
    assert_eq!(texts(b.entries(4)), ["joined", "joined", "one", "two"]);
    assert_eq!(texts(b2.entries(4)), ["joined", "joined", "one", "two"], "the member's other session");
    assert_eq!(texts(a.entries(1)), ["two"], "not one's own");
    assert_eq!(texts(c.entries(2)), ["joined", "one"]);
    for client in [&mut a, &mut b, &mut c] {
        client.assert_no_more("message");
    }
}

#[test]
fn only_members_write_read_and_list() {
    let house = shared();
    let [(_, mut a), (_, mut e)] = people(house);
    let tea = a.create("tea", false);
    assert_eq!(e.err(json!({"type": "send", "conv": tea, "text": "no"})), "forbidden");
    for kind in ["group_leave", "group_join", "history", "marks", "group_members", "typing"] {
        assert_eq!(e.err(json!({"type": kind, "conv": tea})), "forbidden", "{kind}");
    }
    assert_eq!(e.err(json!({"type": "group_rename", "conv": tea, "name": "x"})), "forbidden");
    for kind in ["group_join", "group_leave", "group_members"] {
        assert_eq!(e.err(json!({"type": kind, "conv": 9_007_199_254_740_000_u64})), "not_found", "{kind}");
    }
}

#[test]
fn names_roles_and_flags_are_checked() {
    let house = shared();
    let [(amy, mut a)] = people(house);
    let tea = a.create("tea", false);
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(a.err(json!({"type": "group_create", "name": name})), "bad_request", "{name:?}");
        assert_eq!(a.err(json!({"type": "group_rename", "conv": tea, "name": name})), "bad_request");
    }
    assert_eq!(a.err(json!({"type": "group_create"})), "bad_request");
    assert_eq!(a.err(json!({"type": "group_create", "name": "x", "open": 1})), "bad_request");
    assert_eq!(
        a.err(json!({"type": "group_role", "conv": tea, "user": amy.id, "role": "king"})),
        "bad_request"
    );
    a.ok(json!({"type": "group_create", "name": "\u{4e2d}".repeat(64)}));
}

#[test]
fn a_closed_group_needs_an_invitation_which_is_told_and_told_again_at_login() {
    let house = shared();
    let [(amy, mut a), (bob, mut b)] = people(house);
    let cat = house.user("cat");
    let tea = a.create("tea", false);
    a.ok(json!({"type": "group_invite", "conv": tea, "user": bob.name}));
    let invite = b.push("invite");
    assert_eq!((&invite["conv"], &invite["name"]), (&json!(tea), &json!("tea")));
    assert_eq!((&invite["from"], &invite["from_name"]), (&json!(amy.id), &json!(amy.name)));
    let listed = b.ok(json!({"type": "groups"}))["groups"][0].clone();
    assert_eq!((&listed["invited"], &listed["members"]), (&json!(true), &json!(1)));
    assert!(listed["role"].is_null());
    a.ok(json!({"type": "group_invite", "conv": tea, "user": cat.id}));
    let mut c = house.session(&cat);
    assert_eq!(c.push("invite")["conv"], json!(tea));
    b.join(tea);
    assert_eq!(told(&b.push("message")), (2, "joined".into(), Some(bob.id)));
    assert_eq!(b.err(json!({"type": "group_join", "conv": tea})), "conflict");
    assert_eq!(a.err(json!({"type": "group_invite", "conv": tea, "user": bob.id})), "conflict");
    let mut b2 = house.session(&bob);
    b2.assert_no_more("invite");
    // Used up.
    b.ok(json!({"type": "group_leave", "conv": tea}));
    assert_eq!(b.err(json!({"type": "group_join", "conv": tea})), "forbidden");
}

#[test]
fn each_role_may_what_the_page_says() {
    let house = shared();
    let [(amy, mut a), (bob, mut b), (cat, mut c), (dan, mut d)] = people(house);
    let tea = a.create("tea", true);
    for client in [&mut b, &mut c, &mut d] {
        client.join(tea);
    }
    // A member.
    for request in [
        json!({"type": "group_invite", "conv": tea, "user": 1}),
        json!({"type": "group_kick", "conv": tea, "user": cat.id}),
        json!({"type": "group_rename", "conv": tea, "name": "x"}),
        json!({"type": "group_role", "conv": tea, "user": cat.id, "role": "admin"}),
    ] {
        assert_eq!(b.err(request.clone()), "forbidden", "{request}");
    }
    // An admin.
    a.ok(json!({"type": "group_role", "conv": tea, "user": bob.id, "role": "admin"}));
    let entry = d.take("the role", |line| line["event"] == json!("role"));
    assert_eq!(
        (&entry["user"], &entry["role"], &entry["from"]),
        (&json!(bob.id), &json!("admin"), &json!(amy.id))
    );
    b.ok(json!({"type": "group_rename", "conv": tea, "name": "coffee"}));
    let entry = d.take("the name", |line| line["event"] == json!("renamed"));
    assert_eq!((&entry["user"], &entry["name"]), (&json!(bob.id), &json!("coffee")));
    assert_eq!(b.err(json!({"type": "group_kick", "conv": tea, "user": amy.id})), "forbidden", "the owner");
    assert_eq!(
        b.err(json!({"type": "group_role", "conv": tea, "user": cat.id, "role": "admin"})),
        "forbidden"
    );
    b.ok(json!({"type": "group_kick", "conv": tea, "user": cat.name}));
    let entry = c.take("the kick", |line| line["event"] == json!("kicked"));
    assert_eq!((&entry["user"], &entry["from"]), (&json!(cat.id), &json!(bob.id)));
    assert_eq!(c.err(json!({"type": "send", "conv": tea, "text": "no"})), "forbidden");
    assert_eq!(a.err(json!({"type": "group_kick", "conv": tea, "user": cat.id})), "not_found");

    // When the owner leaves the oldest admin is next, then the oldest member; the last one closes the group.
    a.ok(json!({"type": "group_leave", "conv": tea}));
    let entry = d.take("the new owner", |line| line["role"] == json!("owner"));
    assert_eq!(entry["user"], json!(bob.id));
    b.ok(json!({"type": "group_leave", "conv": tea}));
    let entry = d.take("the next owner", |line| line["role"] == json!("owner"));
    assert_eq!(entry["user"], json!(dan.id));
    assert_eq!(d.roles(tea), [(dan.id, "owner".into())]);
    d.ok(json!({"type": "group_leave", "conv": tea}));
    assert_eq!(a.err(json!({"type": "group_join", "conv": tea})), "not_found");
    assert_eq!(d.ok(json!({"type": "groups"}))["groups"], json!([]));
}

#[test]
fn a_member_sees_from_its_joined_to_its_left_and_nothing_else() {
    let house = shared();
    let [(_, mut a), (bob, mut b)] = people(house);
    let tea = a.create("tea", true);
    a.post(tea, "before");
    b.join(tea);
    a.post(tea, "in");
    b.ok(json!({"type": "group_leave", "conv": tea}));
    a.post(tea, "between");
    let said: Vec<_> = b.entries(3).iter().map(|entry| (told(entry).0, told(entry).1)).collect();
    assert_eq!(said, [(3, "joined".into()), (4, "in".into()), (5, "left".into())]);
    b.assert_no_more("message");
    b.ack(tea, 5);
    b.join(tea);
    a.post(tea, "again");
    let said: Vec<_> = b.entries(2).iter().map(|entry| (told(entry).0, told(entry).1)).collect();
    assert_eq!(said, [(7, "joined".into()), (8, "again".into())], "the stream jumps over what was between");
    let page = |client: &mut Client, bound: Value| {
        let mut request = json!({"type": "history", "conv": tea, "limit": 3});
        for (key, value) in bound.as_object().expect("bounds") {
            request[key] = value.clone();
        }
        let ok = client.ok(request);
        let seqs: Vec<u64> = ok["messages"]
            .as_array()
            .expect("a page")
            .iter()
            .map(|m| m["seq"].as_u64().expect("a seq"))
            .collect();
        (seqs, crate::server::has_more(&ok))
    };
    assert_eq!(page(&mut b, json!({})), (vec![5, 7, 8], true));
    assert_eq!(page(&mut b, json!({"before": 5})), (vec![3, 4], false));
    assert_eq!(page(&mut b, json!({"after": 0})), (vec![3, 4, 5], true));
    assert_eq!(page(&mut b, json!({"after": 5})), (vec![7, 8], false));
    let listed = b.ok(json!({"type": "conversations"}))["conversations"][0].clone();
    assert_eq!((&listed["last_seq"], &listed["unread"]), (&json!(8), &json!(1)));
    // All of it comes again to a device that has nothing.
    let mut device = house.held(&bob);
    device.ok(json!({"type": "sync", "cursors": {tea.to_string(): 0}}));
    let seqs: Vec<_> = device.entries(5).iter().map(|entry| told(entry).0).collect();
    assert_eq!(seqs, [3, 4, 5, 7, 8]);
    device.push("synced");
}

#[test]
fn what_was_missed_of_a_span_that_ended_comes_at_a_later_login() {
    let house = shared();
    let [(_, mut a), (bob, mut b)] = people(house);
    let tea = a.create("tea", true);
    b.join(tea);
    b.ack(tea, 2);
    drop(b);
    a.post(tea, "missed");
    a.ok(json!({"type": "group_kick", "conv": tea, "user": bob.id}));
    a.post(tea, "not to be seen");
    let (mut b, _) = house.login(&bob);
    let said: Vec<_> = b.entries(2).iter().map(|entry| (told(entry).0, told(entry).1)).collect();
    assert_eq!(said, [(3, "missed".into()), (4, "kicked".into())]);
    b.push("synced");
    b.ack(tea, 4);
    drop(b);
    let mut b = house.session(&bob);
    b.assert_no_more("message");
}

#[test]
fn a_session_that_lags_when_its_user_leaves_still_gets_all_up_to_there() {
    let house = shared();
    let [(_, mut a), (_, mut b)] = people(house);
    let tea = a.create("tea", true);
    b.join(tea);
    // The window is 256 pushes.
    for first in (0..300).step_by(50) {
        let ids: Vec<u64> = (first..first + 50)
            .map(|n| a.ask(json!({"type": "send", "conv": tea, "text": n.to_string()})))
            .collect();
        for id in ids {
            a.reply(id);
        }
    }
    b.ok(json!({"type": "group_leave", "conv": tea}));
    a.post(tea, "not to be seen");
    let mut seen = 1;
    for _ in 0..302 {
        let (seq, ..) = told(&b.push("message"));
        assert_eq!(seq, seen + 1);
        seen = seq;
        if seq % 100 == 0 {
            b.ack(tea, seq);
        }
    }
    b.ack(tea, seen);
    b.assert_no_more("message");
}

#[test]
fn marks_of_a_group_are_pushed_to_its_members() {
    let house = shared();
    let [(amy, mut a), (bob, mut b)] = people(house);
    let tea = a.create("tea", true);
    b.join(tea);
    let seq = a.post(tea, "hi");
    b.entries(2);
    b.ok(json!({"type": "read", "conv": tea, "seq": seq}));
    let push = a.push("read");
    assert_eq!((&push["user"], &push["seq"]), (&json!(bob.id), &json!(seq)));
    b.ack(tea, seq);
    assert_eq!(a.push("delivered")["seq"], json!(seq));
    assert_eq!(a.marks_of(tea, &bob), (seq, seq));
    assert_eq!(a.ok(json!({"type": "marks", "conv": tea}))["marks"].as_array().expect("marks").len(), 2);
    a.ok(json!({"type": "typing", "conv": tea}));
    assert_eq!(b.push("typing")["user"], json!(amy.id));
}

#[test]
fn a_block_does_not_affect_groups() {
    let house = shared();
    let [(_, mut a), (bob, mut b)] = people(house);
    let tea = a.create("tea", true);
    b.join(tea);
    a.ok(json!({"type": "block", "user": bob.id}));
    b.post(tea, "still here");
    a.take("the message", |line| line["text"] == json!("still here"));
    a.post(tea, "so am I");
    b.take("the message", |line| line["text"] == json!("so am I"));
}

#[test]
fn who_joins_while_logging_in_misses_nothing() {
    let house = shared();
    let [(_, mut a)] = people(house);
    let bob = house.user("bob");
    let tea = a.create("tea", true);
    for round in 0..20_u64 {
        // The join goes out before the streams have begun.
        let mut b = house.connect();
        b.ask(json!({"type": "login", "name": bob.name, "password": PASSWORD}));
        let join = b.ask(json!({"type": "group_join", "conv": tea}));
        let text = format!("hi {round}");
        assert_eq!(b.reply(join)["type"], "ok");
        a.post(tea, &text);
        let entry = b.take("the message", |line| line["text"] == json!(text));
        let seq = entry["seq"].as_u64().expect("a seq");
        b.ack(tea, seq);
        b.ok(json!({"type": "group_leave", "conv": tea}));
        let left = b.take("the leaving", |line| line["event"] == json!("left"));
        b.ack(tea, left["seq"].as_u64().expect("a seq"));
    }
}

#[test]
fn client_ids_are_unique_per_sender_in_a_group_too() {
    let house = shared();
    let [(_, mut a), (_, mut b)] = people(house);
    let tea = a.create("tea", true);
    b.join(tea);
    let send = |text: &str| json!({"type": "send", "conv": tea, "client_id": "c-1", "text": text});
    let first = a.ok(send("hi"));
    let again = a.ok(send("hi"));
    assert_eq!((&again["seq"], &again["duplicate"]), (&first["seq"], &json!(true)));
    assert_eq!(a.err(send("ho")), "conflict");
    assert_ne!(b.ok(send("hi"))["seq"], first["seq"]);
}
