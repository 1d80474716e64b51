//! Section *Conversations and messages*: what `send` does, answers and refuses.

use crate::client::ID_MAX;
use crate::server::{assert_recent, fresh_name, place, shared};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn a_conversation_starts_at_one_and_has_no_gaps() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let first = amys.ok(json!({"type": "send", "user": bob.id, "text": "one"}));
    let (conv, seq) = place(&first);
    assert_eq!(seq, 1);
    assert_recent(&first["time_ms"]);
    assert!(!first["duplicate"].as_bool().unwrap_or(false), "{first}");
    for expected in [2, 4, 6] {
        assert_eq!(bobs.say(&amy, "even"), (conv, expected), "both directions are one conversation");
        assert_eq!(amys.say(&bob, "odd"), (conv, expected + 1));
    }
}

#[test]
fn a_user_is_named_by_id_or_by_name_and_a_conversation_by_its_id() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let (conv, _) = amys.say(&bob, "by id");
    let ways = [("user", json!(bob.name)), ("user", json!(bob.name.to_uppercase())), ("conv", json!(conv))];
    for ((field, value), seq) in ways.into_iter().zip(2..) {
        let mut request = json!({"type": "send", "text": "hi"});
        request[field] = value;
        assert_eq!(place(&amys.ok(request.clone())), (conv, seq), "{request}");
    }
}

#[test]
fn a_name_of_digits_is_a_name() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let request = json!({"type": "send", "user": (bob.id + 100_000).to_string(), "text": "hi"});
    assert_eq!(amys.err(request), "not_found");
}

#[test]
fn the_push_of_a_message_has_these_fields() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let ok = amys.ok(json!({"type": "send", "user": bob.id, "text": "hi", "client_id": "c-1"}));
    let expected = json!({"type": "message", "conv": ok["conv"], "kind": "direct", "seq": 1, "from": amy.id, "from_name": amy.name,
        "to": bob.id, "to_name": bob.name, "text": "hi", "time_ms": ok["time_ms"]});
    assert_eq!(bobs.push("message"), expected);
}

#[test]
fn the_senders_other_sessions_get_the_message_and_the_sending_one_does_not() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut sends, mut other, mut bobs) = (house.session(&amy), house.session(&amy), house.session(&bob));
    let (conv, seq) = sends.say(&bob, "hi");
    for session in [&mut other, &mut bobs] {
        let push = session.push("message");
        assert_eq!((place(&push), &push["from"], &push["to"]), ((conv, seq), &json!(amy.id), &json!(bob.id)));
        session.assert_quiet();
    }
    sends.assert_quiet();
}

#[test]
fn all_sessions_of_both_see_the_same_order() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut sessions = Vec::from_iter((0..6).map(|n| house.session(if n % 2 == 0 { &amy } else { &bob })));
    for n in 0..20 {
        for (at, session) in sessions.iter_mut().enumerate() {
            let to = if at % 2 == 0 { &bob } else { &amy };
            session.ask(json!({"type": "send", "user": to.id, "text": format!("{at}.{n}")}));
        }
    }
    for session in &mut sessions {
        let mut seqs = BTreeSet::new();
        let mut last_pushed = 0;
        while seqs.len() < 120 {
            let line =
                session.take("an ok or a message", |line| line["type"] == "ok" || line["type"] == "message");
            let seq = place(&line).1;
            assert!(seqs.insert(seq), "twice: {line}");
            if line["type"] == "message" {
                assert!(seq > last_pushed, "out of order: {line}");
                last_pushed = seq;
            }
        }
        assert_eq!(seqs, (1..=120).collect());
        session.assert_quiet();
    }
}

#[test]
fn pipelined_sends_take_effect_in_their_order() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    amys.say_many(&bob, 1, 200);
    assert_eq!(bobs.next_texts(200), Vec::from_iter((1..=200).map(|n| n.to_string())));
}

#[test]
fn a_send_without_an_id_is_bad_request_and_not_kept() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    amys.tell(&json!({"type": "send", "user": bob.id, "text": "unanswerable"}));
    let line = amys.line();
    assert_eq!((&line["type"], &line["code"]), (&json!("error"), &json!("bad_request")));
    assert_eq!(amys.say(&bob, "hi").1, 1);
    assert_eq!(bobs.push("message")["text"], "hi");
}

#[test]
fn a_text_comes_back_byte_for_byte() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    for text in [
        "\n",
        "\t",
        " ",
        "  two  ",
        "'; drop table message; --",
        "\"\\/%_?$1",
        "😀👨‍👩‍👧‍👦🏳️‍🌈",
        "汉字かなカナ한글",
        "שלום عربي",
        "e\u{301} \u{e9} ﬁ Å",
        "\u{2028}\u{2029}\u{feff}\u{200b}\u{202e}",
        "\u{fffd}\u{ffff}\u{10ffff}",
        "{\"type\":\"bye\"}",
        "null",
        "0",
    ] {
        let conv = amys.say(&bob, text).0;
        assert_eq!(bobs.push("message")["text"], text);
        let page = bobs.ok(json!({"type": "history", "conv": conv, "limit": 1}));
        assert_eq!(page["messages"][0]["text"], text);
    }
}

#[test]
fn a_text_is_1_to_16384_bytes() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    for text in ["x".to_owned(), "x".repeat(16_384), "é".repeat(8192), "😀".repeat(4096), "\"".repeat(16_384)]
    {
        amys.say(&bob, &text);
        assert_eq!(bobs.push("message")["text"], text);
    }
    for text in ["x".repeat(16_385), format!("{}x", "😀".repeat(4096)), "x".repeat(60_000)] {
        assert_eq!(amys.err(json!({"type": "send", "user": bob.id, "text": text})), "too_large");
    }
    assert_eq!(amys.err(json!({"type": "send", "user": bob.id, "text": ""})), "bad_request");
    assert_eq!(amys.say(&bob, "the connection stays").1, 6, "nothing refused was kept");
}

#[test]
fn control_characters_in_a_text_are_bad_request() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    for control in (0..32).map(char::from).chain(['\u{7f}', '\u{80}', '\u{85}', '\u{9f}']) {
        for text in [control.to_string(), format!("a{control}b")] {
            let reply = amys.request(json!({"type": "send", "user": bob.id, "text": text}));
            let expected = if "\n\t".contains(control) { json!(null) } else { json!("bad_request") };
            assert_eq!(reply["code"], expected, "{control:?}");
            amys.fence();
        }
    }
    assert_eq!(amys.say(&bob, "the fifth").1, 5);
}

#[test]
fn a_resend_with_the_same_client_id_is_harmless() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut other, mut bobs) = (house.session(&amy), house.session(&amy), house.session(&bob));
    let send = json!({"type": "send", "user": bob.id, "text": "once", "client_id": "c-1"});
    let first = amys.ok(send.clone());
    let by_conv = json!({"type": "send", "conv": first["conv"], "text": "once", "client_id": "c-1"});
    for (session, request) in [(&mut amys, &send), (&mut other, &send)] {
        for request in [request, &by_conv] {
            let again = session.ok(request.clone());
            assert_eq!(again["duplicate"], true, "{again}");
            assert_eq!((place(&again), &again["time_ms"]), (place(&first), &first["time_ms"]));
        }
    }
    amys.say(&bob, "next");
    assert_eq!(bobs.next_texts(2), ["once", "next"]);
    assert_eq!(other.next_texts(2), ["once", "next"]);
    bobs.assert_quiet();
}

#[test]
fn the_same_client_id_with_another_text_is_a_conflict() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    let conv =
        amys.ok(json!({"type": "send", "user": bob.id, "text": "one", "client_id": "c-1"}))["conv"].clone();
    let other_text = json!({"type": "send", "user": bob.id, "text": "two", "client_id": "c-1"});
    assert_eq!(amys.err(other_text.clone()), "conflict");
    assert_eq!(house.session(&amy).err(other_text), "conflict", "on another session too");
    assert_eq!(
        amys.err(json!({"type": "send", "conv": conv, "text": "One", "client_id": "c-1"})),
        "conflict"
    );
    assert_eq!(amys.say(&bob, "next").1, 2);
}

#[test]
fn a_client_id_is_unique_per_sender_and_conversation_only() {
    let house = shared();
    let (amy, bob) = house.pair();
    let carol = house.user("carol");
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let send = |to: u64, text: &str| json!({"type": "send", "user": to, "text": text, "client_id": "same"});
    let first = amys.ok(send(bob.id, "to bob"));
    let second = amys.ok(send(carol.id, "to carol"));
    assert_ne!(first["conv"], second["conv"]);
    assert_eq!(place(&second).1, 1);
    assert_eq!(place(&bobs.ok(send(amy.id, "back"))), (place(&first).0, 2));
}

#[test]
fn pipelined_resends_are_kept_once() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut amys, mut other) = (house.session(&amy), house.session(&amy));
    let mut bobs = house.session(&bob);
    let send = json!({"type": "send", "user": bob.id, "text": "once", "client_id": "c-1"});
    let mut replies = Vec::<Value>::new();
    let ids = Vec::from_iter((0..20).map(|_| (amys.ask(send.clone()), other.ask(send.clone()))));
    for (here, there) in ids {
        replies.extend([amys.reply(here), other.reply(there)]);
    }
    assert!(
        replies.iter().all(|reply| reply["type"] == "ok" && place(reply) == place(&replies[0])),
        "{replies:?}"
    );
    let first = replies.iter().filter(|reply| !reply["duplicate"].as_bool().unwrap_or(false)).count();
    assert_eq!(first, 1, "{replies:?}");
    amys.say(&bob, "next");
    assert_eq!(bobs.next_texts(2), ["once", "next"]);
}

#[test]
fn without_a_client_id_the_same_text_is_another_message() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    assert_eq!([amys.say(&bob, "hi").1, amys.say(&bob, "hi").1], [1, 2]);
}

#[test]
fn a_client_id_is_1_to_64_printable_ascii_characters() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut amys = house.session(&amy);
    for client_id in ["c".to_owned(), "c".repeat(64), "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".to_owned()] {
        amys.ok(json!({"type": "send", "user": bob.id, "text": "hi", "client_id": client_id}));
    }
    for client_id in ["", "é", "a\nb", "a\tb", "a\0b", "a\u{7f}b", "😀", &"c".repeat(65)] {
        let request = json!({"type": "send", "user": bob.id, "text": "hi", "client_id": client_id});
        assert_eq!(amys.err(request), "bad_request", "{client_id:?}");
    }
}

#[test]
fn nobody_writes_to_oneself() {
    let house = shared();
    let amy = house.user("amy");
    let mut amys = house.session(&amy);
    for user in [json!(amy.id), json!(amy.name), json!(amy.name.to_uppercase())] {
        assert_eq!(amys.err(json!({"type": "send", "user": user, "text": "hi"})), "bad_request", "{user}");
    }
}

#[test]
fn who_is_written_to_has_to_exist() {
    let house = shared();
    let mut amys = house.session(&house.user("amy"));
    for user in [json!(ID_MAX), json!(1_000_000_000), json!(fresh_name("nobody"))] {
        assert_eq!(amys.err(json!({"type": "send", "user": user, "text": "hi"})), "not_found", "{user}");
    }
    for conv in [ID_MAX, 1_000_000_000] {
        assert_eq!(amys.err(json!({"type": "send", "conv": conv, "text": "hi"})), "not_found", "{conv}");
    }
}

#[test]
fn a_conversation_of_others_is_closed_to_a_stranger() {
    let house = shared();
    let (amy, bob) = house.pair();
    let conv = house.session(&amy).say(&bob, "between us").0;
    let mut strangers = house.session(&house.user("eve"));
    assert_eq!(strangers.err(json!({"type": "send", "conv": conv, "text": "hi"})), "forbidden");
    for request in [
        json!({"type": "history", "conv": conv}),
        json!({"type": "marks", "conv": conv}),
        json!({"type": "ack", "conv": conv, "seq": 1}),
        json!({"type": "read", "conv": conv, "seq": 1}),
        json!({"type": "typing", "conv": conv}),
    ] {
        let code = strangers.err(request.clone());
        assert!(["forbidden", "not_found"].contains(&code.as_str()), "{request}: {code}");
    }
    let mut bobs = house.session(&bob);
    bobs.seen("message");
    bobs.assert_quiet();
    assert_eq!(bobs.marks_of(conv, &bob), (0, 0), "a stranger moved a mark");
    assert!(strangers.ok(json!({"type": "conversations"}))["conversations"].as_array().unwrap().is_empty());
}
