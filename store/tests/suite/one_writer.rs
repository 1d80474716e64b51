//! What only the one writer of a file promises: all jobs in one order, batches that share a transaction, checkpoints.

use crate::common::*;
use store::dao::ConversationDao;
use store::{CommittedBatch, DbConfig, SendRequest, Store, StoreError};

#[test]
fn a_batch_that_wrote_nothing_is_not_committed() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _bob, conv) = house.pair();
    house.say(with_id(conv, amy, "c", "hi")).unwrap();
    let mark = || {
        let sql = "SELECT mark FROM commit_mark WHERE worker = 0";
        house.store.read_wait(move |db| db.query_row(sql, &[], |row| row.get::<i64>(0))).unwrap()
    };
    let before = mark();
    house.say(with_id(conv, amy, "c", "hi")).unwrap();
    house.say(with_id(conv, amy, "c", "ho")).unwrap_err();
    assert_eq!(mark(), before);
    house.say(message(conv, amy, "hi")).unwrap();
    assert_ne!(mark(), before);
}

#[test]
fn write_jobs_and_sends_take_effect_in_the_order_in_which_they_were_queued() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, bob) = (house.user("amy"), house.user("bob"));
    let hold = house.stop_writer();
    // The first direct send: the conversation and its message may share a batch.
    house.store.write(move |db| ConversationDao::new(db).direct(amy, bob, 1), |_| {}).unwrap();
    house.store.send(message(conv(1), amy, "1")).unwrap();
    let (reply, answer) = crossbeam_channel::bounded(1);
    let look = move |db: &mut store::Connection| ConversationDao::new(db).get(conv(1));
    house.store.write(look, move |found| reply.send(found).unwrap()).unwrap();
    house.store.send(message(conv(1), bob, "2")).unwrap();
    drop(hold);
    assert!(house.sends(2).into_iter().all(|outcome| outcome.result.is_ok()));
    let seen = answer.recv_timeout(LONG).unwrap().unwrap().unwrap();
    assert_eq!(seen.last_seq, seq(1), "a job sees what was queued before it, and no more");
    assert_gapless(&house, conv(1));
}

#[test]
fn the_sink_hears_of_a_batch_before_the_callbacks_of_its_jobs() {
    let Some(place) = Place::new() else { return };
    let (log, lines) = crossbeam_channel::unbounded();
    let sink_log = log.clone();
    let sink = move |batch: CommittedBatch| sink_log.send(format!("sink {}", batch.sends.len())).unwrap();
    let store = Store::open(&place.config(), Box::new(sink)).unwrap();
    let house = Harness { store, batches: crossbeam_channel::never() };
    let (amy, _bob, conv) = house.pair();
    let hold = house.stop_writer();
    for number in [1, 2] {
        let log = log.clone();
        house.store.write(|_| Ok(()), move |_| log.send(format!("done {number}")).unwrap()).unwrap();
        house.store.send(message(conv, amy, "x")).unwrap();
    }
    drop(hold);
    let seen: Vec<String> = (0..3).map(|_| lines.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(seen, ["sink 2", "done 1", "done 2"]);
}

#[test]
fn a_full_queue_is_overloaded_and_no_accepted_job_is_lost() {
    let Some(place) = Place::new() else { return };
    let config = DbConfig { write_queue_max: 10, read_queue_max: 3, readers: 1, ..place.config() };
    let house = Harness::with(&config);
    let (amy, _bob, conv) = house.pair();
    let hold = house.stop_writer();
    for number in 0..10 {
        house.store.send(SendRequest { ticket: ticket(number), ..message(conv, amy, "x") }).unwrap();
    }
    assert_eq!(house.store.send(message(conv, amy, "x")), Err(StoreError::Overloaded));
    assert_eq!(house.store.write(|_| Ok(()), |_| panic!("not accepted")), Err(StoreError::Overloaded));
    assert_eq!(house.store.write_wait(|_| Ok(())), Err(StoreError::Overloaded));
    assert_eq!(house.store.stats().overloads, 3);
    assert_eq!(house.store.stats().write_queue, 10);
    // Cursors and reads have queues of their own.
    house.store.move_cursor(cursor(amy, conv, Some(1), None)).unwrap();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let (reached, reaching) = crossbeam_channel::bounded(1);
    let read = move |_: &mut store::Connection| {
        reached.send(()).unwrap();
        let _ = stopped.recv();
    };
    house.store.read(read).unwrap();
    reaching.recv_timeout(LONG).unwrap();
    let (ran, runs) = crossbeam_channel::bounded(3);
    for _ in 0..3 {
        let ran = ran.clone();
        house.store.read(move |_| ran.send(()).unwrap()).unwrap();
    }
    assert_eq!(house.store.read(|_| {}), Err(StoreError::Overloaded));
    drop((hold, stop));
    let tokens: Vec<_> = house.sends(10).into_iter().map(|o| o.ticket.unwrap().token).collect();
    assert!(tokens.into_iter().eq(0..10));
    for _ in 0..3 {
        runs.recv_timeout(LONG).unwrap();
    }
    house.store.read_wait(|_| Ok(())).unwrap();
    house.say(message(conv, amy, "after")).unwrap();
}

#[test]
fn the_log_is_moved_into_the_file_while_messages_go_on() {
    let Some(place) = Place::new() else { return };
    let house = place.open();
    let (amy, _bob, conv) = house.pair();
    let mut sent = 0;
    let begun = std::time::Instant::now();
    while house.store.stats().checkpoints < 2 {
        assert!(begun.elapsed() < LONG, "no checkpoint after {sent} messages");
        for _ in 0..1_000 {
            house.store.send(message(conv, amy, "x")).unwrap();
        }
        sent += 1_000;
        assert!(house.sends(1_000).iter().all(|outcome| outcome.result.is_ok()));
    }
    assert_eq!(assert_gapless(&house, conv).len(), sent);
}
