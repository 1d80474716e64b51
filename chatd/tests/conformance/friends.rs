//! *Friends*: requests with consent, presence, and blocks.

use crate::client::Client;
use crate::server::{House, User, shared};
use serde_json::{Value, json};
use std::time::Duration;

/// Two people with a session each.
fn two(house: &House) -> ((User, Client), (User, Client)) {
    let (amy, bob) = house.pair();
    let (a, b) = (house.session(&amy), house.session(&bob));
    ((amy, a), (bob, b))
}

impl Client {
    fn friend_state(&mut self, other: &User) -> Option<(String, bool)> {
        let ok = self.ok(json!({"type": "friends"}));
        let all = ok["friends"].as_array().expect("a list of friends").clone();
        let found = all.iter().find(|friend| friend["user"] == json!(other.id))?;
        assert_eq!(found["name"], json!(other.name));
        Some((
            found["state"].as_str().expect("a state").to_owned(),
            found["online"].as_bool().expect("online"),
        ))
    }

    fn befriend(&mut self, me: &User, other: &mut Client, them: &User) {
        self.ok(json!({"type": "friend_request", "user": them.id}));
        other.push("friend");
        other.ok(json!({"type": "friend_accept", "user": me.id}));
        self.push("friend");
    }
}

fn event(push: &Value) -> (String, u64) {
    (push["event"].as_str().expect("an event").to_owned(), push["user"].as_u64().expect("a user"))
}

#[test]
fn a_request_is_told_listed_on_both_sides_and_accepted() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    a.ok(json!({"type": "friend_request", "user": bob.name}));
    let push = b.push("friend");
    assert_eq!((event(&push), &push["name"]), (("requested".into(), amy.id), &json!(amy.name)));
    assert_eq!(a.friend_state(&bob), Some(("requested".into(), false)));
    assert_eq!(b.friend_state(&amy), Some(("incoming".into(), false)));
    b.ok(json!({"type": "friend_accept", "user": amy.id}));
    assert_eq!(event(&a.push("friend")), ("accepted".into(), bob.id));
    assert_eq!(a.friend_state(&bob), Some(("friend".into(), true)));
    assert_eq!(b.friend_state(&amy), Some(("friend".into(), true)));
}

#[test]
fn a_request_that_meets_one_is_an_acceptance() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    a.ok(json!({"type": "friend_request", "user": bob.id}));
    b.push("friend");
    b.ok(json!({"type": "friend_request", "user": amy.id}));
    assert_eq!(event(&a.push("friend")), ("accepted".into(), bob.id));
    assert_eq!(b.friend_state(&amy), Some(("friend".into(), true)));
}

#[test]
fn accepting_or_rejecting_what_was_not_requested_is_not_found() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    for kind in ["friend_accept", "friend_reject", "friend_remove", "unblock"] {
        assert_eq!(a.err(json!({"type": kind, "user": bob.id})), "not_found", "{kind}");
    }
    a.ok(json!({"type": "friend_request", "user": bob.id}));
    assert_eq!(a.err(json!({"type": "friend_accept", "user": bob.id})), "not_found", "one's own request");
    b.push("friend");
    b.ok(json!({"type": "friend_reject", "user": amy.id}));
    assert_eq!(event(&a.push("friend")), ("rejected".into(), bob.id));
    assert_eq!((a.friend_state(&bob), b.friend_state(&amy)), (None, None));
    for kind in ["friend_request", "block"] {
        assert_eq!(a.err(json!({"type": kind, "user": 9_007_199_254_740_000_u64})), "not_found");
        assert_eq!(a.err(json!({"type": kind, "user": "nobody.at.all"})), "not_found");
        assert_eq!(a.err(json!({"type": kind, "user": amy.id})), "bad_request", "oneself");
    }
}

#[test]
fn a_friendship_is_ended_by_either_side() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    a.befriend(&amy, &mut b, &bob);
    b.ok(json!({"type": "friend_remove", "user": amy.id}));
    assert_eq!(event(&a.push("friend")), ("removed".into(), bob.id));
    assert_eq!((a.friend_state(&bob), b.friend_state(&amy)), (None, None));
}

#[test]
fn a_pending_request_is_pushed_at_login() {
    let house = shared();
    let (amy, bob) = house.pair();
    house.session(&amy).ok(json!({"type": "friend_request", "user": bob.id}));
    let mut b = house.session(&bob);
    assert_eq!(event(&b.push("friend")), ("requested".into(), amy.id));
}

#[test]
fn friends_see_each_other_come_and_go() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    a.befriend(&amy, &mut b, &bob);
    drop(b);
    // A short absence is none.
    std::thread::sleep(Duration::from_millis(500));
    let mut b = house.session(&bob);
    a.fence();
    assert!(a.seen("presence").is_empty(), "gone for less than 5 s");
    let second = house.session(&bob);
    drop(second);
    b.fence();
    drop(b);
    let push = a.push("presence");
    assert_eq!(
        (&push["user"], &push["name"], &push["online"]),
        (&json!(bob.id), &json!(bob.name), &json!(false))
    );
    assert_eq!(a.friend_state(&bob), Some(("friend".into(), false)));
    let _b = house.session(&bob);
    assert_eq!(a.push("presence")["online"], json!(true));
}

#[test]
fn strangers_are_told_nothing_of_each_other() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut a = house.session(&amy);
    drop(house.session(&bob));
    std::thread::sleep(Duration::from_secs(6));
    a.assert_no_more("presence");
}

#[test]
fn a_block_ends_the_friendship_and_forbids_in_both_directions() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    a.befriend(&amy, &mut b, &bob);
    let (conv, _) = a.say(&bob, "hi");
    b.ok(json!({"type": "block", "user": amy.name}));
    assert_eq!(event(&a.push("friend")), ("removed".into(), bob.id));
    assert_eq!((a.friend_state(&bob), b.friend_state(&amy)), (None, None));
    for (client, other) in [(&mut a, &bob), (&mut b, &amy)] {
        assert_eq!(client.err(json!({"type": "send", "user": other.id, "text": "no"})), "forbidden");
        assert_eq!(client.err(json!({"type": "send", "conv": conv, "text": "no"})), "forbidden");
        assert_eq!(client.err(json!({"type": "friend_request", "user": other.id})), "forbidden");
        assert_eq!(client.ok(json!({"type": "find_user", "name": other.name}))["online"], json!(false));
        let group = client.ok(json!({"type": "group_create", "name": "tea"}))["conv"].clone();
        let invite = json!({"type": "group_invite", "conv": group, "user": other.id});
        assert_eq!(client.err(invite), "forbidden");
    }
    let blocked = b.ok(json!({"type": "blocked"}));
    assert_eq!(blocked["users"], json!([{"user": amy.id, "name": amy.name}]));
    assert_eq!(a.ok(json!({"type": "blocked"}))["users"], json!([]), "not by the other");

    // Typing and marks are hidden, history is there.
    b.seen("typing");
    a.ok(json!({"type": "typing", "conv": conv}));
    a.ok(json!({"type": "read", "conv": conv, "seq": 1}));
    b.assert_no_more("typing");
    b.assert_no_more("read");
    let marks = b.ok(json!({"type": "marks", "conv": conv}))["marks"].clone();
    assert_eq!(marks.as_array().expect("marks").len(), 1, "one's own");
    assert_eq!(
        b.ok(json!({"type": "history", "conv": conv}))["messages"].as_array().expect("a page").len(),
        1
    );

    b.ok(json!({"type": "unblock", "user": amy.id}));
    a.say(&bob, "again");
    b.take("the message", |line| line["text"] == json!("again"));
    a.ok(json!({"type": "typing", "conv": conv}));
    b.push("typing");
}

#[test]
fn who_is_blocked_before_the_first_message_cannot_begin_a_conversation() {
    let house = shared();
    let ((amy, mut a), (bob, mut b)) = two(house);
    b.ok(json!({"type": "block", "user": amy.id}));
    assert_eq!(a.err(json!({"type": "send", "user": bob.id, "text": "no"})), "forbidden");
    assert_eq!(b.err(json!({"type": "send", "user": amy.id, "text": "no"})), "forbidden");
    assert_eq!(a.ok(json!({"type": "conversations"}))["conversations"], json!([]));
}

#[test]
fn a_list_of_friends_comes_in_pages() {
    let house = shared();
    let amy = house.user("amy");
    let mut a = house.session(&amy);
    let others: Vec<User> = (0..5).map(|_| house.user("f")).collect();
    for other in &others {
        a.ok(json!({"type": "friend_request", "user": other.id}));
    }
    let mut seen = Vec::new();
    let mut after = json!(null);
    loop {
        let mut request = json!({"type": "friends", "limit": 2});
        if !after.is_null() {
            request["after"] = after;
        }
        let ok = a.ok(request);
        let page = ok["friends"].as_array().expect("a list").clone();
        assert!(page.len() <= 2);
        seen.extend(page.iter().map(|friend| friend["user"].as_u64().expect("an id")));
        after = json!(seen.last().expect("one at least"));
        if !crate::server::has_more(&ok) {
            break;
        }
    }
    let mut wanted: Vec<u64> = others.iter().map(|other| other.id).collect();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
}
