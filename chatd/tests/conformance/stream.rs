//! *The stream promise* after a plain login: what was missed, `synced`, the window, and what comes again.

use crate::server::{House, User, place, shared};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};

/// Two people, and `count` messages to bob, who was away: their conversation. Amy has acked her own.
fn backlog(house: &House, count: u64) -> (User, User, u64) {
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let conv = amys.say_many(&bob, 1, count);
    amys.ack(conv, count);
    (amy, bob, conv)
}

#[test]
fn synced_comes_once_also_when_nothing_was_missed() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    client.assert_quiet();
}

#[test]
fn what_was_missed_comes_in_order_and_then_synced_once() {
    let house = shared();
    let (amy, bob, conv) = backlog(house, 50);
    let (mut bobs, _) = house.login(&bob);
    for seq in 1..=50 {
        let push = bobs.line();
        assert_eq!((place(&push), &push["type"]), ((conv, seq), &json!("message")));
        assert_eq!((&push["from"], &push["text"]), (&json!(amy.id), &json!(seq.to_string())));
    }
    assert_eq!(bobs.line(), json!({"type": "synced"}));
    bobs.assert_quiet();
}

#[test]
fn what_was_missed_in_several_conversations_comes_before_synced() {
    let house = shared();
    let bob = house.user("bob");
    let mut convs = Vec::new();
    for _ in 0..5 {
        let amy = house.user("amy");
        convs.push(house.session(&amy).say_many(&bob, 1, 7));
    }
    let mut bobs = house.session(&bob);
    let missed = bobs.seen("message");
    for conv in convs {
        let seqs =
            Vec::from_iter(missed.iter().map(place).filter(|place| place.0 == conv).map(|place| place.1));
        assert_eq!(seqs, Vec::from_iter(1..=7));
    }
    bobs.assert_quiet();
}

#[test]
fn ones_own_messages_are_part_of_the_stream() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut first = house.session(&amy);
    let conv = first.say_many(&bob, 1, 5);
    first.ack(conv, 2);
    let mut second = house.session(&amy);
    assert_eq!(second.seen("message").iter().map(|push| place(push).1).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn what_is_acked_does_not_come_again_and_the_rest_does() {
    let house = shared();
    let (_, bob, conv) = backlog(house, 10);
    for (expected, ack) in [(1, 4), (5, 9), (10, 10)] {
        let mut bobs = house.session(&bob);
        let seqs = bobs.seen("message").iter().map(|push| place(push).1).collect::<Vec<_>>();
        assert_eq!(seqs, Vec::from_iter(expected..=10));
        bobs.ack(conv, ack);
    }
    assert!(house.session(&bob).seen("message").is_empty());
}

#[test]
fn without_an_ack_everything_comes_at_each_login() {
    let house = shared();
    let (_, bob, _) = backlog(house, 10);
    for _ in 0..3 {
        assert_eq!(house.session(&bob).seen("message").len(), 10);
    }
}

#[test]
fn an_ack_without_an_id_is_written_at_a_close() {
    let house = shared();
    let (amy, bob, conv) = backlog(house, 10);
    let mut bobs = house.session(&bob);
    bobs.tell(&json!({"type": "ack", "conv": conv, "seq": 7}));
    bobs.shutdown_write();
    bobs.rest();
    house.session(&amy).await_marks(conv, &bob, (7, 0));
    assert_eq!(house.session(&bob).next_seqs(3), [8, 9, 10]);
}

#[test]
fn an_ack_without_an_id_is_written_soon_while_the_session_lives() {
    let house = shared();
    let (amy, bob, conv) = backlog(house, 10);
    let mut bobs = house.session(&bob);
    bobs.tell(&json!({"type": "ack", "conv": conv, "seq": 7}));
    house.session(&amy).await_marks(conv, &bob, (7, 0));
    bobs.fence();
}

#[test]
fn a_conversation_that_begins_while_one_is_online_starts_at_its_first_entry() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut bobs = house.session(&bob);
    house.session(&amy).say_many(&bob, 1, 20);
    assert_eq!(bobs.next_seqs(20), Vec::from_iter(1..=20));
    bobs.assert_quiet();
}

#[test]
fn live_entries_follow_what_was_missed_without_a_seam() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    for round in 0..5 {
        amys.say_many(&bob, 1, 40);
        let ids = Vec::from_iter(
            (0..40).map(|n| amys.ask(json!({"type": "send", "user": bob.id, "text": n.to_string()}))),
        );
        let (mut bobs, _) = house.login(&bob);
        let last = (round + 1) * 80;
        let seqs = bobs.next_seqs(80);
        assert_eq!(seqs, Vec::from_iter(last - 79..=last));
        let conv = place(&amys.reply(ids[0])).0;
        for id in &ids[1..] {
            amys.reply(*id);
        }
        bobs.push("synced");
        bobs.assert_quiet();
        bobs.ack(conv, last);
    }
}

#[test]
fn at_most_a_window_of_unacked_messages_is_pushed() {
    let house = shared();
    let (amy, bob, conv) = backlog(house, 300);
    let mut amys = house.session(&amy);
    let (mut bobs, _) = house.login(&bob);
    assert_eq!(bobs.next_seqs(256), Vec::from_iter(1..=256));
    bobs.assert_quiet();
    amys.say(&bob, "live, and behind the window");
    bobs.assert_quiet();
    bobs.tell(&json!({"type": "ack", "conv": conv, "seq": 10}));
    assert_eq!(bobs.next_seqs(10), Vec::from_iter(257..=266));
    bobs.assert_no_more("message");
    bobs.ack(conv, 266);
    assert_eq!(bobs.next_seqs(35), Vec::from_iter(267..=301));
    bobs.push("synced");
    bobs.assert_no_more("message");
}

#[test]
fn the_window_is_one_for_all_conversations_and_they_take_turns() {
    let house = shared();
    let (bob, carol) = (house.user("bob"), house.user("carol"));
    for _ in 0..4 {
        let amy = house.user("amy");
        house.session(&amy).say_many(&bob, 1, 100);
    }
    let (mut bobs, _) = house.login(&bob);
    let (mut last, mut acks) = (BTreeMap::new(), VecDeque::new());
    for n in 1..=401 {
        if n == 257 {
            house.session(&carol).say(&bob, "one more conversation");
            bobs.assert_quiet();
        }
        if n >= 257 {
            // One more ack, one more message.
            let (conv, seq) = acks.pop_front().expect("something to ack");
            bobs.tell(&json!({"type": "ack", "conv": conv, "seq": seq}));
        }
        let (conv, seq) = place(&bobs.push("message"));
        assert_eq!(last.insert(conv, seq).unwrap_or(0) + 1, seq, "in order and without gaps");
        acks.push_back((conv, seq));
    }
    assert_eq!(Vec::from_iter(last.into_values()), [100, 100, 100, 100, 1]);
    bobs.push("synced");
    bobs.assert_no_more("message");
}

#[test]
fn a_long_conversation_does_not_keep_a_short_one_waiting() {
    let house = shared();
    let (bob, carol) = (house.user("bob"), house.user("carol"));
    let long = house.session(&house.user("amy")).say_many(&bob, 1, 2000);
    let short = house.session(&carol).say(&bob, "short").0;
    let (mut bobs, _) = house.login(&bob);
    let mut from_long = 0;
    loop {
        let (conv, seq) = place(&bobs.push("message"));
        if conv == short {
            break;
        }
        assert_eq!(conv, long);
        from_long += 1;
        bobs.tell(&json!({"type": "ack", "conv": conv, "seq": seq}));
    }
    assert!(from_long < 2000, "the short conversation came last");
}

#[test]
fn a_full_window_stops_pushes_and_nothing_else() {
    let house = shared();
    let (amy, bob, conv) = backlog(house, 260);
    let mut amys = house.session(&amy);
    let (mut bobs, _) = house.login(&bob);
    bobs.next_seqs(256);
    let (_, seq) = bobs.say(&amy, "I can still write");
    assert_eq!(seq, 261);
    assert_eq!(amys.push("message")["seq"], 261);
    let page = bobs.ok(json!({"type": "history", "conv": conv, "limit": 200}));
    assert_eq!(page["messages"].as_array().unwrap().len(), 200);
    bobs.ok(json!({"type": "find_user", "name": amy.name}));
    bobs.ack(conv, 256);
    assert_eq!(bobs.next_seqs(4), [257, 258, 259, 260], "and its own came as the ok");
    bobs.push("synced");
    bobs.assert_no_more("message");
}

#[test]
fn an_ok_waits_for_no_window() {
    let house = shared();
    let (amy, bob) = house.pair();
    let _never_acks = house.session(&bob);
    let mut amys = house.session(&amy);
    let conv = amys.say_many(&bob, 1, 600);
    assert_eq!(amys.say(&bob, "the last"), (conv, 601));
}

#[test]
fn an_ack_beyond_what_came_counts_up_to_what_came() {
    let house = shared();
    let (_, bob, conv) = backlog(house, 300);
    let (mut bobs, _) = house.login(&bob);
    bobs.next_seqs(256);
    bobs.ack(conv, 1_000_000);
    assert_eq!(bobs.next_seqs(44), Vec::from_iter(257..=300));
    assert_eq!(bobs.marks_of(conv, &bob).0, 256);
    assert_eq!(house.session(&bob).next_seqs(44), Vec::from_iter(257..=300));
}

#[test]
fn one_sessions_ack_is_the_users_and_does_not_cut_anothers_stream() {
    let house = shared();
    let (_, bob, conv) = backlog(house, 10);
    let (mut first, _) = house.login(&bob);
    let (mut second, _) = house.login(&bob);
    assert_eq!(first.next_seqs(10), Vec::from_iter(1..=10));
    // The page leaves open when exactly after the login the delivered cursor is taken; with the first push it has been.
    assert_eq!(second.next_seqs(1), [1]);
    first.ack(conv, 10);
    assert_eq!(second.next_seqs(9), Vec::from_iter(2..=10));
    assert!(house.session(&bob).seen("message").is_empty());
}
