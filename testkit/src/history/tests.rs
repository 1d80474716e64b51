//! The checker itself, held against planted violations of each kind.

use super::*;

const AMY: UserNumber = 1;
const BOB: UserNumber = 2;
const CONV: ConvNumber = 55;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn entry(seq: SeqNumber, from: UserNumber, text: &str) -> Entry {
    Entry { seq, from, text: text.to_owned() }
}

fn began(at: u64, cursor: SeqNumber) -> Event {
    Event { at: ms(at), what: What::Began { cursors: BTreeMap::from([(CONV, cursor)]) } }
}

fn ended(at: u64) -> Event {
    Event { at: ms(at), what: What::Ended { why: "the wire broke".to_owned() } }
}

fn sent(at: u64, text: &str) -> Event {
    Event { at: ms(at), what: What::Sent { conv: CONV, text: text.to_owned() } }
}

fn acked(at: u64, seq: SeqNumber, text: &str) -> Event {
    Event { at: ms(at), what: What::Acked { conv: CONV, text: text.to_owned(), seq, duplicate: false } }
}

fn failed(at: u64, text: &str, code: &str) -> Event {
    Event { at: ms(at), what: What::Failed { conv: CONV, text: text.to_owned(), code: code.to_owned() } }
}

fn pushed(at: u64, seq: SeqNumber, from: UserNumber, text: &str) -> Event {
    Event { at: ms(at), what: What::Pushed { conv: CONV, entry: entry(seq, from, text) } }
}

fn looked(at: u64, user: UserNumber, online: bool) -> Event {
    Event { at: ms(at), what: What::Looked { user, online } }
}

fn fetched(entries: &[Entry]) -> Event {
    Event { at: ms(90_000), what: What::Fetched { conv: CONV, entries: entries.to_vec() } }
}

fn settled() -> Event {
    Event { at: ms(80_000), what: What::Settled }
}

fn all() -> Vec<Entry> {
    vec![entry(1, AMY, "m1"), entry(2, BOB, "m2"), entry(3, AMY, "m3")]
}

/// Amy writes two and Bob one; Bob's connection breaks behind the first, so that he gets it again, and his own is answered at the second attempt.
fn healthy() -> History {
    let amy = vec![
        began(0, 0),
        sent(100, "m1"),
        acked(110, 1, "m1"),
        pushed(400, 2, BOB, "m2"),
        sent(500, "m3"),
        acked(510, 3, "m3"),
        settled(),
        fetched(&all()),
    ];
    let bob = vec![
        began(0, 0),
        pushed(111, 1, AMY, "m1"),
        sent(150, "m2"),
        ended(200),
        began(300, 0),
        pushed(310, 1, AMY, "m1"),
        sent(311, "m2"),
        acked(400, 2, "m2"),
        pushed(511, 3, AMY, "m3"),
        settled(),
        fetched(&all()),
    ];
    let log = |user, name: &str, events| ClientLog { user, name: name.to_owned(), events };
    History {
        clients: vec![log(AMY, "amy", amy), log(BOB, "bob", bob)],
        members: BTreeMap::from([(CONV, BTreeMap::from([(AMY, 1), (BOB, 1)]))]),
        seed: 7,
        ..History::default()
    }
}

const AMYS: usize = 0;
const BOBS: usize = 1;

fn index(history: &History, client: usize, event: &Event) -> usize {
    history.clients[client].events.iter().position(|e| e == event).expect("an event of the healthy run")
}

/// Replaces `event` by others in one client's log.
fn plant(client: usize, event: &Event, with: Vec<Event>) -> History {
    let mut history = healthy();
    let at = index(&history, client, event);
    history.clients[client].events.splice(at..=at, with);
    history
}

#[track_caller]
fn kind_of(history: &History) -> Violation {
    match history.check() {
        Ok(summary) => panic!("nothing was found: {summary}"),
        Err(violation) => *violation,
    }
}

#[test]
fn a_run_that_is_in_order_is_found_to_be() {
    let summary = healthy().check().unwrap();
    assert_eq!((summary.sent, summary.acked, summary.resent, summary.pushed), (3, 3, 1, 4));
    assert_eq!(summary.slowest_ack, ms(250));
}

#[test]
fn an_acknowledged_message_that_a_member_cannot_fetch_is_lost() {
    let without = [entry(1, AMY, "m1"), entry(3, AMY, "m3")];
    let violation = kind_of(&plant(BOBS, &fetched(&all()), vec![fetched(&without)]));
    assert_eq!(violation.kind, Kind::Lost);
    let text = violation.to_string();
    for words in
        ["seed 7", "m2", "seq 2", "sent \"m2\" to 55", "fetched 55 up to 3, without it", "ok for \"m2\""]
    {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
}

#[test]
fn a_stream_that_ran_to_the_end_must_have_brought_everything() {
    let violation = kind_of(&plant(BOBS, &pushed(511, 3, AMY, "m3"), vec![]));
    assert_eq!(violation.kind, Kind::LeftOut);
    assert!(violation.headline.contains("seq 3 never came"), "{violation}");
}

#[test]
fn a_connection_that_ended_may_lack_the_end_and_not_the_middle() {
    let bobs_first = |events: Vec<Event>| plant(BOBS, &pushed(111, 1, AMY, "m1"), events);
    bobs_first(vec![]).check().unwrap();
    // The third came on the connection, and the first did not.
    let violation = kind_of(&bobs_first(vec![pushed(160, 3, AMY, "m3")]));
    assert_eq!(violation.kind, Kind::LeftOut);
    assert!(violation.headline.contains("seq 1 did not come, and 3 did"), "{violation}");
}

#[test]
fn nothing_comes_twice_on_one_connection_be_it_pushed_or_answered() {
    let again =
        plant(BOBS, &pushed(310, 1, AMY, "m1"), vec![pushed(310, 1, AMY, "m1"), pushed(312, 1, AMY, "m1")]);
    assert_eq!(kind_of(&again).kind, Kind::ShownTwice);
    let own = plant(AMYS, &acked(110, 1, "m1"), vec![acked(110, 1, "m1"), pushed(112, 1, AMY, "m1")]);
    assert_eq!(kind_of(&own).kind, Kind::ShownTwice);
    // An answer that says `duplicate` is not the entry's coming.
    let duplicate = What::Acked { conv: CONV, text: "m1".to_owned(), seq: 1, duplicate: true };
    let fine = vec![acked(110, 1, "m1"), Event { at: ms(112), what: duplicate }];
    plant(AMYS, &acked(110, 1, "m1"), fine).check().unwrap();
}

#[test]
fn a_stream_does_not_go_backwards_nor_begin_before_its_start() {
    let mut history = healthy();
    let bob = &mut history.clients[BOBS].events;
    let (one, three) = (5, 8);
    assert!(matches!(bob[one].what, What::Pushed { .. }) && matches!(bob[three].what, What::Pushed { .. }));
    bob.swap(one, three);
    let (one_at, three_at) = (bob[one].at, bob[three].at);
    (bob[one].at, bob[three].at) = (three_at, one_at);
    assert_eq!(kind_of(&history).kind, Kind::OutOfOrder);
    // What lies before the cursor is not to be pushed.
    assert_eq!(kind_of(&plant(BOBS, &began(300, 0), vec![began(300, 1)])).kind, Kind::OutOfOrder);
}

#[test]
fn all_see_the_same_at_one_place() {
    let mut history = plant(BOBS, &pushed(511, 3, AMY, "m3"), vec![pushed(511, 3, AMY, "m1")]);
    assert_eq!(kind_of(&history).kind, Kind::Disagreement);
    history = plant(BOBS, &pushed(511, 3, AMY, "m3"), vec![pushed(511, 3, BOB, "m3")]);
    assert_eq!(kind_of(&history).kind, Kind::Disagreement);
}

#[test]
fn a_message_has_one_place_however_often_it_was_sent() {
    let mut more = all();
    more.push(entry(4, BOB, "m2"));
    let violation = kind_of(&plant(BOBS, &fetched(&all()), vec![fetched(&more)]));
    assert!(violation.counts.contains_key(&Kind::Doubled), "{violation}");
}

#[test]
fn what_was_refused_appears_nowhere_and_what_was_unavailable_may() {
    let answered = |code: &str| {
        let mut history = plant(AMYS, &acked(510, 3, "m3"), vec![failed(510, "m3", code)]);
        // It came to nobody's stream as an answer, so to amy's as a push.
        let at = index(&history, AMYS, &settled());
        history.clients[AMYS].events.insert(at, pushed(520, 3, AMY, "m3"));
        history
    };
    answered("unavailable").check().unwrap();
    let violation = kind_of(&answered("forbidden"));
    assert_eq!(violation.kind, Kind::RefusedAppears);
    assert!(violation.to_string().contains("error `forbidden` for \"m3\""), "{violation}");
}

#[test]
fn what_was_first_unanswered_and_then_refused_may_appear() {
    let mut history =
        plant(AMYS, &acked(510, 3, "m3"), vec![sent(505, "m3"), failed(510, "m3", "overloaded")]);
    let at = index(&history, AMYS, &settled());
    history.clients[AMYS].events.insert(at, pushed(520, 3, AMY, "m3"));
    history.check().unwrap();
}

#[test]
fn a_text_that_nobody_sent_is_found() {
    let mut history = healthy();
    for client in [AMYS, BOBS] {
        let at = index(&history, client, &settled());
        history.clients[client].events.insert(at, pushed(600, 4, AMY, "from nowhere"));
        let mut more = all();
        more.push(entry(4, AMY, "from nowhere"));
        let at = index(&history, client, &fetched(&all()));
        history.clients[client].events[at] = fetched(&more);
    }
    assert_eq!(kind_of(&history).kind, Kind::Invented);
}

#[test]
fn who_is_online_is_said_truly_ten_seconds_after_the_last_change_or_fault() {
    let look = |at, online| {
        let mut history = healthy();
        history.clients[AMYS].events.push(looked(at, BOB, online));
        history
    };
    // Bob has been there from 0.3 s to the end.
    assert_eq!(look(30_000, true).check().unwrap().looks, 1);
    let violation = kind_of(&look(30_000, false));
    assert_eq!(violation.kind, Kind::WrongPresence);
    assert!(violation.story.contains("ended: the wire broke"), "{violation}");
    // Too soon to judge: he came at 0.3 s.
    assert_eq!(look(9_000, false).check().unwrap().looks, 0);
    // A fault that ended less than ten seconds before.
    let mut history = look(30_000, false);
    history.faults.push(Fault { what: "a".to_owned(), from: ms(15_000), until: ms(20_500) });
    history.check().unwrap();
    history.faults[0].until = ms(19_000);
    assert_eq!(kind_of(&history).kind, Kind::WrongPresence);
    history.forgives_presence = true;
    assert_eq!(history.check().unwrap().looks, 0);
    // Gone for good, and still shown.
    let mut history = look(30_000, true);
    history.clients[BOBS].events.push(ended(15_000));
    history.clients[BOBS].events.retain(|e| e.what != What::Settled);
    history.clients[BOBS].events.sort_by_key(|e| e.at);
    assert_eq!(kind_of(&history).kind, Kind::WrongPresence);
}

#[test]
fn a_refused_token_is_a_violation() {
    let refused = What::TokenRefused { code: "unauthorized".to_owned() };
    let violation =
        kind_of(&plant(BOBS, &ended(200), vec![ended(200), Event { at: ms(250), what: refused }]));
    assert_eq!(violation.kind, Kind::LoggedOut);
}

#[test]
fn the_first_in_time_is_told_and_the_others_are_counted() {
    let mut history =
        plant(BOBS, &pushed(310, 1, AMY, "m1"), vec![pushed(310, 1, AMY, "m1"), pushed(312, 1, AMY, "m1")]);
    let at = index(&history, AMYS, &fetched(&all()));
    history.clients[AMYS].events[at] = fetched(&[entry(1, AMY, "m1"), entry(2, BOB, "m2")]);
    let violation = kind_of(&history);
    assert_eq!(violation.kind, Kind::ShownTwice);
    assert_eq!(violation.counts.len(), 2, "{violation}");
}
