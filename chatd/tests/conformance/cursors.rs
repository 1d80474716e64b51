//! Acks, reading, typing: the marks of a conversation and who hears of them.

use crate::client::{Client, WAIT};
use crate::server::{House, User, shared};
use serde_json::{Value, json};

/// Two people and `count` messages from amy to bob.
fn talk(house: &House, count: u64) -> (User, User, u64) {
    let (amy, bob) = house.pair();
    let conv = house.session(&amy).say_many(&bob, 1, count);
    (amy, bob, conv)
}

/// The `read` or `delivered` push of these values; those that are coalesced into it may come before.
fn await_mark(client: &mut Client, kind: &str, conv: u64, user: &User, seq: u64) -> Value {
    let expected = json!({"type": kind, "conv": conv, "user": user.id, "seq": seq});
    client.take(&expected.to_string(), |line| *line == expected)
}

#[test]
fn marks_start_at_nothing() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 3);
    let mut amys = house.session(&amy);
    let ok = amys.ok(json!({"type": "marks", "conv": conv}));
    assert_eq!(ok["marks"].as_array().unwrap().len(), 2, "{ok}");
    assert_eq!(amys.marks_of(conv, &bob), (0, 0));
    assert_eq!(amys.marks_of(conv, &amy).0, 0, "her own are not acked either");
}

#[test]
fn an_ack_moves_delivered_and_never_back() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 10);
    let mut bobs = house.session(&bob);
    let mut amys = house.session(&amy);
    for (ack, delivered) in [(5, 5), (2, 5), (5, 5), (9, 9), (1, 9)] {
        bobs.ack(conv, ack);
        assert_eq!(amys.marks_of(conv, &bob).0, delivered, "after an ack of {ack}");
    }
}

#[test]
fn delivered_is_the_highest_ack_of_any_session() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 10);
    let (mut first, mut second) = (house.session(&bob), house.session(&bob));
    let mut amys = house.session(&amy);
    first.ack(conv, 4);
    second.ack(conv, 8);
    first.ack(conv, 6);
    assert_eq!(amys.marks_of(conv, &bob).0, 8);
}

#[test]
fn an_ack_beyond_the_last_entry_does_not_count_there() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 3);
    let mut bobs = house.session(&bob);
    bobs.request(json!({"type": "ack", "conv": conv, "seq": 100}));
    let mut amys = house.session(&amy);
    assert!(amys.marks_of(conv, &bob).0 <= 3);
    let (mut again, _) = house.login(&bob);
    again.push("synced");
    amys.say(&bob, "the fourth");
    again.take("the fourth", |line| line["seq"] == 4);
}

#[test]
fn ones_own_sends_can_be_acked() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let conv = amys.say_many(&bob, 1, 5);
    amys.ack(conv, 5);
    assert_eq!(amys.marks_of(conv, &amy).0, 5);
    assert!(house.session(&amy).seen("message").is_empty());
}

#[test]
fn an_ack_counts_all_that_came_also_while_catching_up() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 1);
    let mut amys = house.session(&amy);
    let mut last = 1;
    for _ in 0..20 {
        amys.say_many(&bob, 1, 16);
        let (mut bobs, _) = house.login(&bob);
        bobs.say_many(&amy, 1, 200);
        last += 216;
        while bobs.push("message")["seq"] != json!(last - 200) {}
        // Each of these came as an ok, and what was before them as a push: nothing is missing on this connection.
        bobs.ack(conv, last);
        assert_eq!(bobs.marks_of(conv, &bob).0, last);
        amys.ack(conv, last);
    }
}

#[test]
fn delivered_is_told_to_the_sender_and_to_ones_other_sessions() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 3);
    let (mut amys, mut acks, mut other) = (house.session(&amy), house.session(&bob), house.session(&bob));
    acks.tell(&json!({"type": "ack", "conv": conv, "seq": 3}));
    await_mark(&mut amys, "delivered", conv, &bob, 3);
    await_mark(&mut other, "delivered", conv, &bob, 3);
    acks.seen("message");
    acks.assert_quiet();
}

#[test]
fn delivered_comes_to_the_last_ack_of_many() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 100);
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    for seq in 1..=100 {
        bobs.tell(&json!({"type": "ack", "conv": conv, "seq": seq}));
    }
    await_mark(&mut amys, "delivered", conv, &bob, 100);
    let seqs = Vec::from_iter(amys.seen("delivered").iter().map(|push| push["seq"].as_u64().unwrap()));
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
}

#[test]
fn read_is_told_to_the_sender_and_to_ones_other_sessions() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 3);
    let (mut amys, mut reads, mut other) = (house.session(&amy), house.session(&bob), house.session(&bob));
    reads.ok(json!({"type": "read", "conv": conv, "seq": 2}));
    await_mark(&mut amys, "read", conv, &bob, 2);
    await_mark(&mut other, "read", conv, &bob, 2);
    assert_eq!(amys.marks_of(conv, &bob).1, 2);
    reads.fence();
    assert!(reads.seen("read").is_empty());
}

#[test]
fn read_never_goes_back_nor_beyond_the_last_entry() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 4}));
    bobs.request(json!({"type": "read", "conv": conv, "seq": 2}));
    assert_eq!(amys.marks_of(conv, &bob).1, 4);
    bobs.request(json!({"type": "read", "conv": conv, "seq": 1000}));
    assert!((4..=5).contains(&amys.marks_of(conv, &bob).1));
}

#[test]
fn marks_outlive_the_session() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 5);
    let mut bobs = house.session(&bob);
    bobs.ack(conv, 5);
    bobs.ok(json!({"type": "read", "conv": conv, "seq": 3}));
    drop(bobs);
    house.session(&amy).await_marks(conv, &bob, (5, 3));
}

#[test]
fn typing_is_told_to_who_is_online() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 1);
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let expected = json!({"type": "typing", "conv": conv, "user": bob.id});
    // It may be dropped: bob goes on typing.
    testkit::wait_until("amy sees bob typing", WAIT, || {
        bobs.ok(json!({"type": "typing", "conv": conv}));
        amys.fence();
        amys.seen("typing").first() == Some(&expected)
    });
}

#[test]
fn typing_is_not_stored() {
    let house = shared();
    let (amy, bob, conv) = talk(house, 1);
    let mut bobs = house.session(&bob);
    for _ in 0..10 {
        bobs.tell(&json!({"type": "typing", "conv": conv}));
    }
    bobs.fence();
    let mut amys = house.session(&amy);
    amys.seen("message");
    amys.assert_quiet();
}

#[test]
fn marks_of_nowhere_are_not_found() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    for kind in ["marks", "typing"] {
        let code = client.err(json!({"type": kind, "conv": 1_000_000_000}));
        assert!(["not_found", "forbidden"].contains(&code.as_str()), "{kind}: {code}");
    }
    for kind in ["ack", "read"] {
        let code = client.err(json!({"type": kind, "conv": 1_000_000_000, "seq": 1}));
        assert!(["not_found", "forbidden"].contains(&code.as_str()), "{kind}: {code}");
    }
}
