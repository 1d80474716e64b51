//! The commit pipeline: order, duplicates, refusals, bounds, and what a panic may do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::*;
use schema::{Seq, UserId};
use store::dao::{ConversationDao, CursorDao, UserDao};
use store::{
    Audience, CommittedBatch, CursorError, CursorWrite, DbConfig, SendError, SendRequest, Sent, Store,
    StoreError,
};

#[test]
fn sequences_of_concurrent_senders_have_no_gaps() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, one) = house.pair();
    let cat = house.user("cat");
    let two = house.direct(amy, cat);
    const EACH: u64 = 500;
    std::thread::scope(|scope| {
        for (at, (sender, conv)) in [(amy, one), (bob, one), (amy, two), (cat, two)].into_iter().enumerate() {
            let store = &house.store;
            scope.spawn(move || {
                for number in 0..EACH {
                    let token = u64::try_from(at).unwrap() * EACH + number;
                    let text = format!("{number}");
                    let request =
                        SendRequest { ticket: ticket(token), ..with_id(conv, sender, &text, &text) };
                    store.send(request).unwrap();
                }
            });
        }
    });
    let outcomes = house.sends(4 * 500);
    let mut last = HashMap::new();
    let mut tickets: Vec<u64> = outcomes.iter().map(|outcome| outcome.ticket.unwrap().token).collect();
    for outcome in outcomes {
        let entry = new(outcome.result);
        let before = last.insert(entry.conv, entry.seq).unwrap_or(Seq::ZERO);
        assert_eq!(entry.seq, before.next(), "outcomes are not in commit order");
    }
    tickets.sort_unstable();
    assert!(tickets.into_iter().eq(0..4 * EACH), "every request is answered exactly once");
    for conv in [one, two] {
        let entries = assert_gapless(&house, conv);
        for sender in [amy, bob, cat] {
            let own: Vec<u64> =
                entries.iter().filter(|e| e.sender == sender).map(|e| e.text().parse().unwrap()).collect();
            assert!(own.is_sorted(), "one sender's order is kept");
        }
    }
}

#[test]
fn an_entry_carries_what_a_push_shows() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    let entry = new(house.say(message(conv, bob, "hi")));
    assert_eq!((entry.sender, &*entry.sender_name), (bob, "bob"));
    assert_eq!(entry.to, Some((amy, "amy".into())));
    assert_eq!((entry.conv, entry.seq.get(), entry.session.unwrap().get()), (conv, 1, bob.get()));
    assert!(entry.time_ms > 1_600_000_000_000);
    assert_eq!(house.entries(conv), [entry]);
}

#[test]
fn a_refused_item_leaves_the_batch_and_the_rest_is_committed() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, one) = house.pair();
    let stranger = house.user("eve");
    let hold = house.stop_writer();
    let requests = [
        message(one, amy, "1"),
        message(conv(999), amy, "nowhere"),
        message(one, stranger, "not a member"),
        message(one, UserId::new(77).unwrap(), "no user"),
        message(one, bob, "2"),
    ];
    for request in requests {
        house.store.send(request).unwrap();
    }
    drop(hold);
    let batch = house.batches.recv_timeout(LONG).unwrap();
    let results: Vec<_> =
        batch.sends.into_iter().map(|o| o.result.map(|sent| matches!(sent, Sent::New(_)))).collect();
    let (gone, no) = (Err(SendError::NotFound), Err(SendError::Forbidden));
    assert_eq!(results, [Ok(true), gone, no, no, Ok(true)], "all in one batch, in order");
    let texts: Vec<_> = assert_gapless(&house, one).into_iter().map(|e| e.text().to_owned()).collect();
    assert_eq!(texts, ["1", "2"]);
}

#[test]
fn a_client_id_is_answered_from_the_first_send() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, one) = house.pair();
    let cat = house.user("cat");
    let two = house.direct(amy, cat);
    let first = new(house.say(with_id(one, amy, "c", "hi")));
    let again = Ok(Sent::Duplicate { conv: one, seq: first.seq, time_ms: first.time_ms });
    assert_eq!(house.say(with_id(one, amy, "c", "hi")), again);
    assert_eq!(house.say(with_id(one, amy, "c", "ho")), Err(SendError::Conflict));
    // Unique per sender and per conversation, and exact.
    assert_eq!(new(house.say(with_id(one, bob, "c", "hi"))).seq.get(), 2);
    assert_eq!(new(house.say(with_id(two, amy, "c", "hi"))).seq.get(), 1);
    assert_eq!(new(house.say(with_id(one, amy, "C", "hi"))).seq.get(), 3);
    // Without one nothing is a duplicate.
    assert_eq!(new(house.say(message(one, amy, "hi"))).seq.get(), 4);
    assert_gapless(&house, one);
    // It outlives the process.
    house.store.close();
    let house = place.open();
    assert_eq!(house.say(with_id(one, amy, "c", "hi")), again);
    assert_eq!(house.say(with_id(one, amy, "c", "ho")), Err(SendError::Conflict));
}

#[test]
fn duplicates_and_conflicts_are_found_within_one_batch() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _bob, conv) = house.pair();
    let hold = house.stop_writer();
    for text in ["hi", "hi", "ho"] {
        house.store.send(with_id(conv, amy, "c", text)).unwrap();
    }
    drop(hold);
    let sends = house.batches.recv_timeout(LONG).unwrap().sends;
    let [first, second, third] = <[_; 3]>::try_from(sends).unwrap();
    let entry = new(first.result);
    assert_eq!(second.result, Ok(Sent::Duplicate { conv, seq: entry.seq, time_ms: entry.time_ms }));
    assert_eq!(third.result, Err(SendError::Conflict));
    assert_eq!(assert_gapless(&house, conv).len(), 1);
}

#[test]
fn cursors_never_go_back_and_never_pass_the_last_entry() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, one) = house.pair();
    for number in 1..=5 {
        house.say(message(one, amy, &number.to_string())).unwrap();
    }
    let outcome = house.moved(cursor(bob, one, Some(3), None));
    assert_eq!((outcome.delivered, outcome.read, outcome.result), (Some(seq(3)), None, Ok(())));
    assert_eq!(outcome.audience, Audience::Pair([amy, bob]));
    let outcome = house.moved(cursor(bob, one, Some(2), Some(2)));
    assert_eq!((outcome.delivered, outcome.read), (None, Some(seq(2))), "only one advanced");
    let outcome = house.moved(cursor(bob, one, Some(3), Some(1)));
    assert_eq!((outcome.delivered, outcome.read, outcome.result), (None, None, Ok(())));
    let outcome = house.moved(cursor(bob, one, Some(99), Some(u64::from(u32::MAX))));
    assert_eq!((outcome.delivered, outcome.read), (Some(seq(5)), Some(seq(5))), "clamped");
    let eve = house.user("eve");
    assert_eq!(house.moved(cursor(eve, one, Some(1), None)).result, Err(CursorError::Forbidden));
    assert_eq!(house.moved(cursor(bob, conv(99), Some(1), None)).result, Err(CursorError::NotFound));
    let marks = house.store.read_wait(move |db| CursorDao::new(db).marks(one)).unwrap();
    let marks: Vec<_> = marks.iter().map(|m| (m.user, m.delivered.get(), m.read.get())).collect();
    assert_eq!(marks, [(amy, 0, 0), (bob, 5, 5)]);
}

#[test]
fn cursor_writes_are_merged_while_they_wait_and_every_ticket_is_answered_once() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    for number in 1..=9 {
        house.say(message(conv, amy, &number.to_string())).unwrap();
    }
    let hold = house.stop_writer();
    for number in [4, 9, 7] {
        let ticket = Some(ticket(number));
        house.store.move_cursor(CursorWrite { ticket, ..cursor(bob, conv, Some(number), None) }).unwrap();
    }
    for number in 1..=8 {
        house.store.move_cursor(cursor(amy, conv, None, Some(number))).unwrap();
    }
    assert_eq!(house.store.stats().cursor_queue, 2);
    drop(hold);
    let cursors = house.batches.recv_timeout(LONG).unwrap().cursors;
    let seen: Vec<_> = cursors.iter().map(|c| (c.ticket.map(|t| t.token), c.delivered, c.read)).collect();
    let nothing = None;
    let expected = [
        (Some(4), nothing, nothing),
        (Some(9), Some(seq(9)), nothing),
        (Some(7), nothing, nothing),
        (None, nothing, Some(seq(8))),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_cursor_queued_behind_a_send_of_its_batch_counts_that_entry() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    let hold = house.stop_writer();
    house.store.send(message(conv, amy, "1")).unwrap();
    house.store.move_cursor(cursor(bob, conv, Some(5), None)).unwrap();
    drop(hold);
    let mut cursors = Vec::new();
    while cursors.is_empty() {
        cursors = house.batches.recv_timeout(LONG).unwrap().cursors;
    }
    assert_eq!(cursors[0].delivered, Some(seq(1)));
}

#[test]
fn a_job_that_fails_writes_nothing_and_its_batch_goes_on() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _bob, conv) = house.pair();
    let hold = house.stop_writer();
    let (reply, answers) = crossbeam_channel::unbounded();
    let job = |name: &'static str, end: fn() -> Result<(), StoreError>| {
        let reply = reply.clone();
        let op = move |db: &mut store::Connection| {
            UserDao::new(db).create(name, name, "hash", 1)?;
            // Nested, to see that a panic unwinds it too.
            db.transaction(|db| {
                UserDao::new(db).create(&format!("{name}-2"), &format!("{name}-2"), "hash", 1)?;
                end()
            })
        };
        house.store.write_in(conv, op, move |result| reply.send(result).unwrap()).unwrap();
    };
    job("good", || Ok(()));
    job("failing", || Err(StoreError::corrupt("on purpose")));
    job("panicking", || panic!("on purpose"));
    job("good", || Ok(()));
    job("last", || Ok(()));
    house.store.send(message(conv, amy, "x")).unwrap();
    drop(hold);
    new(house.sends(1).pop().unwrap().result);
    let results: Vec<_> = (0..5).map(|_| answers.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[1], Err(StoreError::corrupt("on purpose")));
    assert_eq!(results[2], Err(StoreError::Panicked));
    assert!(matches!(results[3], Err(StoreError::Duplicate { .. })), "the name is taken");
    assert_eq!(results[4], Ok(()));
    let found =
        |name: &'static str| house.store.read_wait(move |db| UserDao::new(db).by_name_key(name)).unwrap();
    for name in ["good", "good-2", "last", "last-2"] {
        assert!(found(name).is_some(), "{name}");
    }
    for name in ["failing", "failing-2", "panicking", "panicking-2"] {
        assert!(found(name).is_none(), "{name}");
    }
}

#[test]
fn no_panic_of_a_callback_ends_a_thread() {
    let Some(place) = Place::new() else { return };
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let sink = move |_: CommittedBatch| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("on purpose");
        }
    };
    let config = DbConfig { readers: 1, ..place.config() };
    let house =
        Harness { store: Store::open(&config, Box::new(sink)).unwrap(), batches: crossbeam_channel::never() };
    let (amy, _bob, conv) = house.pair();
    house.store.send(message(conv, amy, "1")).unwrap();
    house.store.write_in(conv, |_| Ok(()), |_| panic!("on purpose")).unwrap();
    house.store.read(|_| panic!("on purpose")).unwrap();
    assert_eq!(house.store.read_wait::<(), _>(|_| panic!("on purpose")), Err(StoreError::Panicked));
    // The first batch is over before the next send, so that they are two.
    house.store.write_in_wait(conv, |_| Ok(())).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    house.store.send(message(conv, amy, "2")).unwrap();
    house.store.write_in_wait(conv, |_| Ok(())).unwrap();
    assert_eq!(assert_gapless(&house, conv).len(), 2);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn waiting_text_is_bounded_in_bytes() {
    let Some(place) = Place::new() else { return };
    let house = Harness::with(&DbConfig { write_queue_bytes_max: 65_536, ..place.config() });
    let (amy, _bob, conv) = house.pair();
    let text = "x".repeat(16_384);
    let hold = house.stop_writer();
    for _ in 0..4 {
        house.store.send(message(conv, amy, &text)).unwrap();
    }
    assert_eq!(house.store.send(message(conv, amy, "x")), Err(StoreError::Overloaded));
    assert_eq!(house.store.stats().write_queue_bytes, 65_536);
    drop(hold);
    house.sends(4);
    house.store.write_in_wait(conv, |_| Ok(())).unwrap();
    assert_eq!(house.store.stats().write_queue_bytes, 0);
    house.say(message(conv, amy, &text)).unwrap();
}

#[test]
fn close_answers_all_that_was_accepted_and_takes_nothing_more() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob, conv) = house.pair();
    let hold = house.stop_writer();
    for number in 0..2_000 {
        house.store.send(SendRequest { ticket: ticket(number), ..message(conv, amy, "x") }).unwrap();
    }
    house.store.move_cursor(cursor(bob, conv, Some(5), None)).unwrap();
    let (reply, answer) = crossbeam_channel::bounded(1);
    house.store.write(|_| Ok(7), move |result| reply.send(result).unwrap()).unwrap();
    let (read_reply, read_answer) = crossbeam_channel::bounded(1);
    house.store.read(move |_| read_reply.send(8).unwrap()).unwrap();
    drop(hold);
    house.store.close();
    house.store.close();
    assert_eq!(house.sends_after_close(), 2_000);
    assert_eq!(answer.try_recv(), Ok(Ok(7)));
    assert_eq!(read_answer.try_recv(), Ok(8));
    assert_eq!(house.store.send(message(conv, amy, "x")), Err(StoreError::Closed));
    assert_eq!(house.store.move_cursor(cursor(bob, conv, Some(1), None)), Err(StoreError::Closed));
    assert_eq!(house.store.write_wait(|_| Ok(())), Err(StoreError::Closed));
    assert_eq!(house.store.read_wait(|_| Ok(())), Err(StoreError::Closed));
    let house = place.open();
    assert_eq!(assert_gapless(&house, conv).len(), 2_000);
    let marks = house.store.read_wait(move |db| CursorDao::new(db).marks(conv)).unwrap();
    assert_eq!(marks[1].delivered, seq(5));
}

impl Harness {
    /// The outcomes of sends that are there already.
    fn sends_after_close(&self) -> usize {
        self.batches.try_iter().map(|batch| batch.sends.len()).sum()
    }
}

#[test]
fn the_last_handle_may_be_dropped_on_a_thread_of_the_store() {
    let Some(place) = Place::new() else { return };
    let store = Store::open(&place.config(), Box::new(|_: CommittedBatch| {})).unwrap();
    let (reply, answer) = crossbeam_channel::bounded(1);
    let (go, gone) = crossbeam_channel::bounded::<()>(1);
    let own = store.clone();
    let done = move |_| {
        let _ = gone.recv();
        drop(own);
        reply.send(()).unwrap();
    };
    store.write(|_| Ok(()), done).unwrap();
    drop(store);
    go.send(()).unwrap();
    answer.recv_timeout(LONG).unwrap();
}

#[test]
fn a_read_job_sees_one_state_and_the_next_one_what_was_committed() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _bob, conv) = house.pair();
    house.say(message(conv, amy, "1")).unwrap();
    let (looked, looking) = crossbeam_channel::bounded(1);
    let (go, gone) = crossbeam_channel::bounded(1);
    let (reply, answer) = crossbeam_channel::bounded(1);
    let last =
        move |db: &mut store::Connection| ConversationDao::new(db).get(conv).unwrap().unwrap().last_seq;
    let job = move |db: &mut store::Connection| {
        looked.send(last(db)).unwrap();
        gone.recv_timeout(LONG).unwrap();
        reply.send(last(db)).unwrap();
    };
    house.store.read(job).unwrap();
    assert_eq!(looking.recv_timeout(LONG), Ok(seq(1)));
    house.say(message(conv, amy, "2")).unwrap();
    go.send(()).unwrap();
    assert_eq!(answer.recv_timeout(LONG), Ok(seq(1)), "still the state in which it began");
    assert_eq!(house.store.read_wait(move |db| Ok(last(db))), Ok(seq(2)));
}

#[test]
fn a_read_job_cannot_write() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    house.store.read_wait(|db| UserDao::new(db).create("amy", "amy", "", 1)).unwrap_err();
    assert_eq!(house.store.read_wait(|db| UserDao::new(db).by_name_key("amy")), Ok(None));
    house.user("amy");
}

#[test]
fn session_ids_are_never_given_out_twice() {
    let Some(place) = Place::new() else { return };
    let mut all = Vec::new();
    for _ in 0..2 {
        let house = place.open();
        let ids: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let take = || (0..1_500).map(|_| house.store.allocate_session().unwrap().get()).collect();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        all.extend(ids.into_iter().flatten());
        house.store.close();
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn a_gathering_writer_answers_a_lonely_send_too() {
    let Some(place) = Place::new() else { return };
    let house = Harness::with(&DbConfig { gather_ms: 20, batch_max: 3, ..place.config() });
    let (amy, _bob, conv) = house.pair();
    house.say(message(conv, amy, "1")).unwrap();
    for _ in 0..10 {
        house.store.send(message(conv, amy, "x")).unwrap();
    }
    house.sends(10);
    assert_eq!(assert_gapless(&house, conv).len(), 11);
}
