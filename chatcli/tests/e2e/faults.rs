//! What breaks here, and what must hold:
//!
//! 1. `kill -9` of the server while two people write, again and again: each message arrives once, in its order.
//! 2. A restart by SIGTERM: both come back by themselves and go on.
//! 3. A server that stops in its tracks for a while: nothing is lost when it goes on.

use std::collections::BTreeSet;

use crate::chatd;
use crate::person::Person;

/// The place and text of a `message` line.
fn message(line: &str) -> Option<(u64, String)> {
    let mut words = line.strip_prefix("message ")?.splitn(4, ' ');
    let seq = words.nth(1)?.parse().ok()?;
    Some((seq, words.nth(1)?.to_owned()))
}

fn count(said: &[String], kind: &str) -> usize {
    said.iter().filter(|line| line.split(' ').next() == Some(kind)).count()
}

/// What one heard of the other: all of it, once, in the order in which it was written.
fn assert_heard(said: &[String], from: &str, total: usize) {
    let heard: Vec<(u64, String)> = said.iter().filter_map(|line| message(line)).collect();
    let seqs: BTreeSet<u64> = heard.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs.len(), heard.len(), "an entry came twice: {heard:?}");
    let mut sorted = heard;
    sorted.sort();
    let texts: Vec<String> = sorted.into_iter().map(|(_, text)| text).collect();
    let written: Vec<String> = (0..total).map(|n| format!("\"{from} {n}\"")).collect();
    assert_eq!(texts, written, "lost, doubled or out of order");
}

#[test]
fn kill_9_in_the_middle_loses_nothing_and_doubles_nothing() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut bob = Person::join(&chatd, "bob");
    let (mut written, rounds, each) = (0, 5, 60);
    for round in 0..rounds {
        for n in written..written + each {
            amy.say(&format!("send bob amy {n}"));
            bob.say(&format!("send amy bob {n}"));
        }
        written += each;
        // In the midst of it: some of this round are answered, others are not yet.
        let some = written - each + each / 4;
        amy.wait_until("some answers", |said| count(said, "sent") >= some);
        chatd.kill9();
        chatd.restart().unwrap();
        let logins = round + 2;
        for person in [&amy, &bob] {
            person.wait_until("to be online again", |said| count(said, "online") >= logins);
        }
    }
    for person in [&amy, &bob] {
        person.wait_until("all answers", |said| count(said, "sent") == written);
        person.wait_until("all messages", |said| count(said, "message") >= written);
    }
    let ((code, amy), (_, bob)) = (amy.end(), bob.end());
    assert!(code.success(), "{}", amy.join("\n"));
    assert_heard(&amy, "bob", written);
    assert_heard(&bob, "amy", written);
}

#[test]
fn a_restarted_server_is_come_back_to() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut bob = Person::join(&chatd, "bob");
    amy.say("send bob amy 0");
    bob.wait_until("the first", |said| count(said, "message") == 1);
    chatd.restart().unwrap();
    amy.say("send bob amy 1");
    bob.wait_until("the second", |said| count(said, "message") == 2);
    bob.say("send amy bob 0");
    amy.wait_until("an answer", |said| count(said, "message") == 1);
    assert!(amy.said().iter().any(|line| line.starts_with("bye shutdown ")), "{:?}", amy.said());
    assert_heard(&bob.end().1, "amy", 2);
    assert_heard(&amy.end().1, "bob", 1);
}

#[test]
fn a_server_that_pauses_loses_nothing() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let bob = Person::join(&chatd, "bob");
    chatd.pause();
    for n in 0..50 {
        amy.say(&format!("send bob amy {n}"));
    }
    chatd.resume();
    bob.wait_until("all of them", |said| count(said, "message") == 50);
    let (code, _) = amy.end();
    assert!(code.success());
    assert_heard(&bob.end().1, "amy", 50);
}
