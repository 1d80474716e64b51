//! *The stream promise* after a login with `hold`: a device resumes by its own cursors.

use crate::client::Client;
use crate::server::{House, User, place, shared};
use serde_json::{Value, json};

/// Two people and a conversation of `count` messages, none of them acked by bob.
fn talk(house: &House, count: u64) -> (User, User, u64) {
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let conv = amys.say_many(&bob, 1, count);
    amys.ack(conv, count);
    (amy, bob, conv)
}

fn sync(client: &mut Client, cursors: &[(u64, u64)], more: bool) {
    let mut request = json!({"type": "sync", "cursors": {}});
    for (conv, seq) in cursors {
        request["cursors"][conv.to_string()] = json!(seq);
    }
    if more {
        request["more"] = json!(true);
    }
    client.ok(request);
}

/// The numbers that come up to `synced`, of one conversation.
fn until_synced(client: &mut Client, conv: u64) -> Vec<u64> {
    client.push("synced");
    client.seen("message").iter().map(place).filter(|place| place.0 == conv).map(|place| place.1).collect()
}

#[test]
fn nothing_is_pushed_until_the_sync() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let mut bobs = house.held(&bob);
    bobs.assert_quiet();
    let mut amys = house.session(&amy);
    amys.say(&bob, "live, and held back too");
    bobs.assert_quiet();
    sync(&mut bobs, &[], false);
    assert_eq!(until_synced(&mut bobs, conv), [1, 2, 3, 4, 5, 6]);
    bobs.assert_quiet();
}

#[test]
fn requests_are_served_before_the_sync() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let mut bobs = house.held(&bob);
    assert_eq!(bobs.ok(json!({"type": "history", "conv": conv}))["messages"].as_array().unwrap().len(), 5);
    assert_eq!(bobs.ok(json!({"type": "find_user", "name": bob.name}))["online"], true);
    assert_eq!(bobs.say(&amy, "before the sync").1, 6);
    sync(&mut bobs, &[(conv, 3)], false);
    assert_eq!(until_synced(&mut bobs, conv), [4, 5], "its own send came as the ok");
    bobs.assert_quiet();
}

#[test]
fn a_named_conversation_starts_at_the_devices_cursor() {
    let house = shared();
    let (_, bob, conv) = talk(house, 10);
    for (cursor, first) in [(0, 1), (4, 5), (9, 10), (10, 11)] {
        let mut bobs = house.held(&bob);
        sync(&mut bobs, &[(conv, cursor)], false);
        assert_eq!(until_synced(&mut bobs, conv), Vec::from_iter(first..=10), "from {cursor}");
        bobs.assert_quiet();
    }
}

#[test]
fn a_devices_cursor_may_be_before_the_delivered_one() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 10);
    house.session(&bob).ack(conv, 8);
    let mut behind = house.held(&bob);
    sync(&mut behind, &[(conv, 2)], false);
    assert_eq!(until_synced(&mut behind, conv), Vec::from_iter(3..=10));
    behind.ack(conv, 5);
    assert_eq!(house.session(&amy).marks_of(conv, &bob).0, 8, "delivered never goes back");
}

#[test]
fn a_conversation_that_was_not_named_starts_at_the_delivered_cursor() {
    let house = shared();
    let (_, bob, conv) = talk(house, 10);
    let carol = house.user("carol");
    let other = house.session(&carol).say_many(&bob, 1, 6);
    house.session(&bob).ack(conv, 7);
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(other, 4)], false);
    bobs.push("synced");
    let mut places = Vec::from_iter(bobs.seen("message").iter().map(place));
    places.sort_unstable();
    let mut expected = vec![(conv, 8), (conv, 9), (conv, 10), (other, 5), (other, 6)];
    expected.sort_unstable();
    assert_eq!(places, expected);
}

#[test]
fn cursors_may_come_in_several_requests() {
    let house = shared();
    let bob = house.user("bob");
    let convs = Vec::from_iter((0..3).map(|_| house.session(&house.user("amy")).say_many(&bob, 1, 6)));
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(convs[0], 4)], true);
    sync(&mut bobs, &[(convs[1], 5)], true);
    bobs.assert_quiet();
    sync(&mut bobs, &[], false);
    bobs.push("synced");
    let mut places = Vec::from_iter(bobs.seen("message").iter().map(place));
    places.sort_unstable();
    let mut expected = vec![(convs[0], 5), (convs[0], 6), (convs[1], 6)];
    expected.extend((1..=6).map(|seq| (convs[2], seq)));
    expected.sort_unstable();
    assert_eq!(places, expected);
}

#[test]
fn a_cursor_above_the_last_entry_is_reset_to_it() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(conv, 50)], false);
    assert_eq!(bobs.push("reset"), json!({"type": "reset", "conv": conv, "seq": 5}));
    bobs.push("synced");
    house.session(&amy).say(&bob, "after the reset");
    assert_eq!(bobs.push("message")["seq"], 6);
    assert!(bobs.seen("message").is_empty());
    bobs.assert_quiet();
}

#[test]
fn a_cursor_at_the_last_entry_is_no_reset() {
    let house = shared();
    let (_, bob, conv) = talk(house, 5);
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(conv, 5)], false);
    bobs.push("synced");
    bobs.assert_quiet();
}

#[test]
fn a_device_that_resumes_misses_and_doubles_nothing() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 1);
    let mut amys = house.session(&amy);
    let mut have = Vec::<u64>::new();
    for round in 0..6 {
        amys.say_many(&bob, 1, 15);
        let mut bobs = house.held(&bob);
        sync(&mut bobs, &[(conv, have.len() as u64)], false);
        // Some of it is read, and then the connection is gone.
        have.extend(bobs.next_seqs(3 + round));
        bobs.reset();
    }
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(conv, have.len() as u64)], false);
    have.extend(until_synced(&mut bobs, conv));
    assert_eq!(have, Vec::from_iter(1..=91));
}

#[test]
fn strange_cursors_are_bad_request_or_ignored_and_disturb_nothing() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let stranger = house.user("eve");
    let others = house.session(&amy).say(&stranger, "not for bob").0;
    let mut bobs = house.held(&bob);
    for cursors in [
        json!([]),
        json!(5),
        json!(null),
        json!("55"),
        json!({"x": 1}),
        json!({"1": "x"}),
        json!({"1": -1}),
        json!({"1": 1.5}),
        json!({"-1": 1}),
    ] {
        let code = bobs.err(json!({"type": "sync", "cursors": cursors}));
        assert_eq!(code, "bad_request", "{cursors}");
        bobs.fence();
    }
    assert_eq!(bobs.err(json!({"type": "sync"})), "bad_request");
    bobs.assert_quiet();
    // What is not one's own, or nobody's, gives nothing away.
    let request: Value = json!({"type": "sync", "cursors": {others.to_string(): 0, "9007199254740991": 3, conv.to_string(): 3}});
    let reply = bobs.request(request);
    if reply["type"] == "error" {
        sync(&mut bobs, &[(conv, 3)], false);
    }
    bobs.push("synced");
    let places = Vec::from_iter(bobs.seen("message").iter().map(place));
    assert_eq!(places, [(conv, 4), (conv, 5)]);
}

#[test]
fn the_streams_are_started_once() {
    let house = shared();
    let (_, bob, conv) = talk(house, 5);
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(conv, 5)], false);
    bobs.push("synced");
    bobs.err(json!({"type": "sync", "cursors": {conv.to_string(): 0}}));
    bobs.assert_quiet();
}

#[test]
fn a_held_session_obeys_the_window_too() {
    let house = shared();
    let (_, bob, conv) = talk(house, 280);
    let mut bobs = house.held(&bob);
    sync(&mut bobs, &[(conv, 10)], false);
    assert_eq!(bobs.next_seqs(256), Vec::from_iter(11..=266));
    bobs.assert_quiet();
    bobs.tell(&json!({"type": "ack", "conv": conv, "seq": 266}));
    assert_eq!(until_synced(&mut bobs, conv), Vec::from_iter(267..=280));
}
