//! The lists: `history` and `conversations`, their bounds, limits and pages.

use crate::server::{House, User, assert_recent, has_more, shared};
use serde_json::{Value, json};

/// Two people and `count` messages, numbered by their text.
fn talk(house: &House, count: u64) -> (User, User, u64) {
    let (amy, bob) = house.pair();
    let conv = house.session(&amy).say_many(&bob, 1, count);
    (amy, bob, conv)
}

fn seqs(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|entry| entry["seq"].as_u64().expect("seq"))
        .collect()
}

#[test]
fn history_gives_the_last_page_in_increasing_order() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 250);
    let mut client = house.session(&bob);
    let page = client.ok(json!({"type": "history", "conv": conv}));
    assert_eq!(seqs(&page), Vec::from_iter(151..=250), "100 unless told otherwise");
    assert!(has_more(&page));
    for entry in page["messages"].as_array().unwrap() {
        assert_eq!(
            (&entry["from"], &entry["text"]),
            (&json!(amy.id), &json!(entry["seq"].to_string())),
            "{entry}"
        );
        assert_recent(&entry["time_ms"]);
    }
}

#[test]
fn history_pages_backwards_to_the_beginning() {
    let house = shared();
    let (_, bob, conv) = talk(house, 95);
    let mut client = house.session(&bob);
    let (mut bound, mut pages) = (96, Vec::new());
    loop {
        let page = client.ok(json!({"type": "history", "conv": conv, "before": bound, "limit": 30}));
        let seqs = seqs(&page);
        bound = seqs[0];
        pages.push(seqs);
        if !has_more(&page) {
            break;
        }
    }
    let expected = [(66, 95), (36, 65), (6, 35), (1, 5)].map(|(first, last)| Vec::from_iter(first..=last));
    assert_eq!(pages, expected);
}

#[test]
fn history_pages_forwards_to_the_end() {
    let house = shared();
    let (_, bob, conv) = talk(house, 95);
    let mut client = house.session(&bob);
    let (mut bound, mut pages) = (1, Vec::new());
    loop {
        let page = client.ok(json!({"type": "history", "conv": conv, "after": bound, "limit": 30}));
        let seqs = seqs(&page);
        bound = seqs[seqs.len() - 1];
        pages.push(seqs);
        if !has_more(&page) {
            break;
        }
    }
    let expected = [(2, 31), (32, 61), (62, 91), (92, 95)].map(|(first, last)| Vec::from_iter(first..=last));
    assert_eq!(pages, expected);
}

#[test]
fn a_page_that_ends_exactly_says_that_there_is_no_more() {
    let house = shared();
    let (_, bob, conv) = talk(house, 30);
    let mut client = house.session(&bob);
    for bounds in [json!({}), json!({"after": 15}), json!({"before": 16})] {
        let mut request =
            json!({"type": "history", "conv": conv, "limit": if bounds == json!({}) { 30 } else { 15 }});
        for (field, value) in bounds.as_object().unwrap() {
            request[field] = value.clone();
        }
        let page = client.ok(request.clone());
        assert!(!has_more(&page) && !seqs(&page).is_empty(), "{request}");
    }
}

#[test]
fn history_beyond_the_ends_is_empty() {
    let house = shared();
    let (_, bob, conv) = talk(house, 5);
    let mut client = house.session(&bob);
    for (field, bound) in [("before", 1), ("after", 5), ("after", 1000)] {
        let mut request = json!({"type": "history", "conv": conv});
        request[field] = json!(bound);
        let page = client.ok(request);
        assert!(seqs(&page).is_empty() && !has_more(&page), "{field} {bound}: {page}");
    }
    let page = client.ok(json!({"type": "history", "conv": conv, "before": 1000}));
    assert_eq!(seqs(&page), [1, 2, 3, 4, 5]);
}

#[test]
fn both_members_read_the_same_history() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    house.session(&bob).say(&amy, "6");
    let read =
        |user: &User| house.session(user).ok(json!({"type": "history", "conv": conv}))["messages"].clone();
    assert_eq!(read(&amy), read(&bob));
}

#[test]
fn a_limit_is_1_to_200() {
    let house = shared();
    let (_, bob, conv) = talk(house, 220);
    let mut client = house.session(&bob);
    for limit in [1, 2, 200] {
        let page = client.ok(json!({"type": "history", "conv": conv, "limit": limit}));
        assert_eq!(seqs(&page), Vec::from_iter(221 - limit..=220));
    }
    for limit in [json!(0), json!(-1), json!(201), json!(1.5), json!("5"), json!(u64::MAX), json!([])] {
        for request in [
            json!({"type": "history", "conv": conv, "limit": limit}),
            json!({"type": "conversations", "limit": limit}),
        ] {
            assert_eq!(client.err(request.clone()), "bad_request", "{request}");
            client.fence();
        }
    }
}

#[test]
fn bounds_of_the_wrong_type_are_bad_request() {
    let house = shared();
    let (_, bob, conv) = talk(house, 2);
    let mut client = house.session(&bob);
    for bound in [json!("1"), json!(-1), json!(1.5), json!([])] {
        for request in [
            json!({"type": "history", "conv": conv, "before": bound}),
            json!({"type": "history", "conv": conv, "after": bound}),
            json!({"type": "conversations", "after": bound}),
        ] {
            assert_eq!(client.err(request.clone()), "bad_request", "{request}");
            client.fence();
        }
    }
}

#[test]
fn big_entries_make_pages_short_and_complete() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let text = "漢".repeat(5461);
    let mut conv = 0;
    for _ in 0..12 {
        conv = amys.say(&bob, &text).0;
    }
    let mut client = house.held(&bob);
    let (mut bound, mut have) = (0, Vec::new());
    loop {
        let page = client.ok(json!({"type": "history", "conv": conv, "after": bound, "limit": 200}));
        have.extend(seqs(&page));
        bound = *have.last().expect("at least one entry");
        if !has_more(&page) {
            break;
        }
    }
    assert_eq!(have, Vec::from_iter(1..=12));
}

#[test]
fn history_of_nowhere_is_not_found() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    let code = client.err(json!({"type": "history", "conv": 1_000_000_000}));
    assert!(["not_found", "forbidden"].contains(&code.as_str()), "{code}");
}

fn conversations(house: &House, user: &User) -> Vec<Value> {
    let ok = house.held(user).ok(json!({"type": "conversations"}));
    ok["conversations"].as_array().expect("conversations").clone()
}

#[test]
fn who_has_no_conversation_has_an_empty_list() {
    let house = shared();
    let (amy, bob) = house.pair();
    house.session(&amy).err(json!({"type": "send", "user": bob.id, "text": "x".repeat(17_000)}));
    assert!(conversations(house, &amy).is_empty());
    assert!(conversations(house, &bob).is_empty());
}

#[test]
fn a_conversation_is_listed_with_its_cursors_on_both_sides() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let mut bobs = house.session(&bob);
    bobs.ack(conv, 4);
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 2}));
    let seen_by_bob = json!({"conv": conv, "kind": "direct", "name": amy.name, "user": amy.id, "last_seq": 5, "delivered": 4, "read": 2, "unread": 3});
    assert_eq!(conversations(house, &bob), [seen_by_bob]);
    let seen_by_amy = json!({"conv": conv, "kind": "direct", "name": bob.name, "user": bob.id, "last_seq": 5, "delivered": 0, "read": 0, "unread": 0});
    let amys = conversations(house, &amy);
    let fields = |entry: &Value| {
        ["conv", "kind", "name", "user", "last_seq", "unread"].map(|field| entry[field].clone())
    };
    assert_eq!(amys.iter().map(fields).collect::<Vec<_>>(), [fields(&seen_by_amy)]);
}

#[test]
fn unread_is_what_others_wrote_after_the_read_mark_and_after_ones_own_last_message() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let unread = |user: &User| conversations(house, user)[0]["unread"].as_u64().unwrap();
    assert_eq!((unread(&amy), unread(&bob)), (0, 5));
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 3}));
    assert_eq!((unread(&amy), unread(&bob)), (0, 2));
    bobs.say(&amy, "who answers has read");
    assert_eq!((unread(&amy), unread(&bob)), (1, 0));
    amys.say_many(&bob, 7, 3);
    assert_eq!((unread(&amy), unread(&bob)), (0, 3));
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 9}));
    assert_eq!((unread(&amy), unread(&bob)), (0, 0));
}

#[test]
fn conversations_come_in_pages_by_increasing_id() {
    let house = shared();
    let amy = house.user("amy");
    let mut amys = house.session(&amy);
    let mut convs = Vec::from_iter((0..25).map(|_| amys.say(&house.user("friend"), "hi").0));
    convs.sort_unstable();
    let (mut after, mut have, mut sizes) = (0, Vec::new(), Vec::new());
    loop {
        let mut request = json!({"type": "conversations", "limit": 10});
        if after > 0 {
            request["after"] = json!(after);
        }
        let page = amys.ok(request);
        let list = page["conversations"].as_array().unwrap();
        have.extend(list.iter().map(|entry| entry["conv"].as_u64().unwrap()));
        sizes.push(list.len());
        after = *have.last().unwrap();
        if !has_more(&page) {
            break;
        }
    }
    assert_eq!((have, sizes), (convs, vec![10, 10, 5]));
    let page = amys.ok(json!({"type": "conversations", "after": after}));
    assert!(page["conversations"].as_array().unwrap().is_empty() && !has_more(&page));
}

#[test]
fn blocked_users_groups_and_members_come_in_pages_by_increasing_id() {
    let house = shared();
    let amy = house.user("amy");
    let mut amys = house.session(&amy);
    let tea = amys.ok(json!({"type": "group_create", "name": "tea", "open": true}))["conv"].clone();
    let mut members = vec![amy.id];
    let mut groups = vec![tea.as_u64().unwrap()];
    let mut blocked = Vec::new();
    for _ in 0..4 {
        let other = house.user("page");
        house.session(&other).ok(json!({"type": "group_join", "conv": tea}));
        members.push(other.id);
        amys.ok(json!({"type": "block", "user": other.id}));
        blocked.push(other.id);
        let more = amys.ok(json!({"type": "group_create", "name": "more"}))["conv"].clone();
        groups.push(more.as_u64().unwrap());
    }
    let mut pages = |request: Value, list: &str, key: &str| {
        let (mut ids, mut sizes) = (Vec::<u64>::new(), Vec::new());
        loop {
            let mut request = request.clone();
            request["limit"] = json!(2);
            if let Some(last) = ids.last() {
                request["after"] = json!(last);
            }
            let ok = amys.ok(request);
            let page = ok[list].as_array().unwrap();
            ids.extend(page.iter().map(|one| one[key].as_u64().unwrap()));
            sizes.push(page.len());
            if !has_more(&ok) {
                return (ids, sizes);
            }
        }
    };
    assert_eq!(pages(json!({"type": "blocked"}), "users", "user"), (blocked, vec![2, 2]));
    groups.sort_unstable();
    assert_eq!(pages(json!({"type": "groups"}), "groups", "conv"), (groups, vec![2, 2, 1]));
    let listed = json!({"type": "group_members", "conv": tea});
    assert_eq!(pages(listed, "members", "user"), (members, vec![2, 2, 1]));
    for kind in ["blocked", "groups", "friends", "conversations"] {
        for limit in [json!(0), json!(201), json!("2")] {
            assert_eq!(amys.err(json!({"type": kind, "limit": limit})), "bad_request", "{kind} {limit}");
        }
    }
}
