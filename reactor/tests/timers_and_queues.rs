//! Timers, posts, and nobody starving anybody.
//!
//! 25. A timer cancelled in the batch it is due in does not fire; one that is set while timers fire runs in a later turn; a delay of zero does not
//!     spin; a connection's timers end with it.
//! 26. A task that posts itself starves nobody, and does not keep a loop from stopping; a hot connection starves nobody.
//!
//! And what idle loops and batches cost:
//!
//! 27. An idle loop makes no turns.
//! 28. However often a turn sends to a connection, it is written to once.
//! 29. Posts of other threads coalesce: far fewer wake-ups than posts. A full queue gives the post back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use reactor::codec::LinesCodec;
use reactor::{CloseReason, EventLoop, LoopConfig, LoopHandle, PostError, ServiceConfig};
use support::{BOUND, Bench, Event, Job, Server, lines, pattern, raw, until};

#[test]
fn a_timer_cancelled_in_its_batch_does_not_fire() {
    let (tell, told) = unbounded();
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_timer(move |cx, _| {
            for key in told.try_iter() {
                cx.cancel_timer(key);
                // A second time, and below its own: nothing.
                cx.cancel_timer(key);
            }
        })
    });
    bench.post(move |cx| {
        cx.set_timer(Duration::from_millis(5), 1);
        tell.send(cx.set_timer(Duration::from_millis(5), 2)).unwrap();
        tell.send(cx.set_timer(Duration::from_millis(5), 3)).unwrap();
        let own = cx.set_timer(Duration::from_millis(20), 4);
        cx.cancel_timer(own);
        cx.set_timer(Duration::from_millis(30), 5);
    });
    let mut fired = Vec::new();
    bench.turn_until("the last", |bench| {
        fired.extend(bench.told.rest());
        fired.last() == Some(&Event::Timer(5))
    });
    assert_eq!(fired, [Event::Timer(1), Event::Timer(5)]);
}

#[test]
fn a_timer_set_while_timers_fire_runs_in_a_later_turn_and_zero_delay_does_not_spin() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_timer(|cx, fired| {
            cx.set_timer(Duration::ZERO, fired.token + 1);
        })
    });
    bench.post(|cx| {
        cx.set_timer(Duration::ZERO, 1);
    });
    bench.turn();
    let (started, before) = (std::time::Instant::now(), bench.stats());
    for next in 1..=30 {
        let mut told = Vec::new();
        while told.is_empty() {
            bench.event_loop.turn(Some(BOUND)).unwrap();
            told = bench.told.rest();
        }
        assert_eq!(told, [Event::Timer(next)], "one per turn");
    }
    // A tick each: the loop slept in between.
    assert!(started.elapsed() >= Duration::from_millis(28));
    let turns = bench.stats().turns - before.turns;
    assert!(turns <= 100, "{turns} turns for 30 timers");
}

#[test]
fn a_connections_timers_end_with_it() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (client, id) = bench.connect_named();
    bench.post(move |cx| {
        cx.set_conn_timer(id, Duration::from_millis(1), 1);
        let cancelled = cx.set_conn_timer(id, Duration::from_millis(1), 2);
        cx.cancel_timer(cancelled);
    });
    bench.turn_for(|event| *event == Event::Timer(1));
    bench.post(move |cx| {
        for _ in 0..1000 {
            cx.set_conn_timer(id, Duration::from_millis(40), 3);
        }
        cx.abort(id, CloseReason::Local("enough"));
        cx.set_conn_timer(id, Duration::from_millis(1), 4);
    });
    bench.turn_until("it is gone", |bench| bench.event_loop.connections() == 0);
    drop(client);
    bench.post(move |cx| {
        cx.set_conn_timer(id, Duration::from_millis(1), 4);
        cx.set_timer(Duration::from_millis(80), 5);
    });
    let before = bench.stats();
    let mut told = Vec::new();
    while !told.contains(&Event::Timer(5)) {
        bench.event_loop.turn(Some(BOUND)).unwrap();
        told.extend(bench.told.rest());
    }
    assert!(!told.iter().any(|event| matches!(event, Event::Timer(1..=4))), "{told:?}");
    let turns = bench.stats().turns - before.turns;
    assert!(turns <= 5, "the loop did not wake up for them either: {turns} turns");
}

#[test]
fn a_delay_that_no_clock_can_hold_is_a_long_time() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    bench.post(|cx| {
        cx.set_timer(Duration::MAX, 1);
        cx.set_timer(Duration::from_millis(2), 2);
    });
    assert_eq!(bench.turn_for(|_| true), Event::Timer(2));
    assert_eq!(bench.stats().panics, 0);
}

/// A task that posts itself again each time it runs, until it is told to end or the loop has ended.
fn post_forever(handle: &LoopHandle, ran: &Arc<AtomicU64>, end: &Arc<AtomicBool>) {
    let (again, ran, end) = (handle.clone(), Arc::clone(ran), Arc::clone(end));
    let _ = handle.post(move |_| {
        ran.fetch_add(1, Ordering::Relaxed);
        if !end.load(Ordering::Relaxed) {
            post_forever(&again, &ran, &end);
        }
    });
}

#[test]
fn a_task_that_posts_itself_starves_neither_sockets_nor_timers_nor_a_stop() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, line| cx.send_frame(id, line).unwrap())
    });
    let (ran, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    post_forever(&server.pool.handles()[0], &ran, &end);
    let mut client = server.connect();
    for n in 0..20 {
        let line = format!("line {n}\n");
        client.write_all(line.as_bytes()).unwrap();
        let mut got = vec![0; line.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, line.as_bytes());
    }
    server.ask(|cx| cx.set_timer(Duration::from_millis(5), 7));
    server.told.wait(|event| *event == Event::Timer(7));
    let before = ran.load(Ordering::Relaxed);
    until("it still runs", || ran.load(Ordering::Relaxed) > before);
    drop(client);
    server.pool.handles()[0].stop();
    until("the loop has ended", || server.pool.handles()[0].post(|_| ()) == Err(PostError::Stopped));
}

#[test]
fn a_hot_connection_does_not_starve_the_others() {
    let mut bench = Bench::new(ServiceConfig::default(), raw);
    let (mut hot, hot_id) = bench.connect_named();
    let (mut calm, calm_id) = bench.connect_named();
    let end = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&end);
    let flood = std::thread::spawn(move || {
        let block = vec![0; 1 << 20];
        while !flag.load(Ordering::Relaxed) && hot.write_all(&block).is_ok() {}
    });
    bench.turn_for(|event| matches!(event, Event::Frame(id, _) if *id == hot_id));
    let budget =
        ServiceConfig::default().read_bytes_per_turn as u64 + LoopConfig::default().scratch_bytes as u64;
    for _ in 0..50 {
        calm.write_all(b"hello").unwrap();
        let mut told = false;
        // The kernel may take a turn or two to bring it; then it is served in the very turn.
        bench.turn_until("the calm one is served", |bench| {
            let before = bench.stats().bytes_in;
            bench.turn();
            assert!(bench.stats().bytes_in - before <= budget + 5, "a turn's budget");
            told |= bench.told.rest().contains(&Event::Frame(calm_id, b"hello".to_vec()));
            told
        });
    }
    end.store(true, Ordering::Relaxed);
    drop(bench);
    flood.join().unwrap();
}

#[test]
fn an_idle_loop_makes_no_turns() {
    let server = Server::new(2, ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, line| cx.send_frame(id, line).unwrap())
    });
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello\n").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
    }
    let turns = |loop_index: usize| server.pool.handles()[loop_index].stats().turns;
    // Half a line each: a frame's deadline is far off and costs a few turns on the way at most.
    clients.iter_mut().for_each(|client| client.write_all(b"half").unwrap());
    until("all is read", || {
        server.pool.handles().iter().map(|handle| handle.stats().bytes_in).sum::<u64>() == 20 * 10
    });
    // The other loop works meanwhile, so that time passes by a measure of its own.
    let before = turns(0);
    let busy = EventLoop::new(LoopConfig::default());
    let mut busy = busy.unwrap();
    for _ in 0..100 {
        busy.turn(Some(Duration::from_millis(2))).unwrap();
    }
    let after = turns(0);
    assert!(after - before <= 4, "{} turns of an idle loop", after - before);
}

#[test]
fn a_turn_writes_once_to_each_connection_however_often_it_sends() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (mut client, id) = bench.connect_named();
    let (mut other, other_id) = bench.connect_named();
    let before = bench.stats();
    let shared = Bytes::from(vec![b'y'; 600]);
    bench.post(move |cx| {
        for _ in 0..50 {
            cx.send(id, b"little").unwrap();
            cx.send_bytes(other_id, shared.clone()).unwrap();
            cx.send_frame(id, b"by").unwrap();
        }
    });
    bench.post(move |cx| cx.send(id, b"little").unwrap());
    bench.turn();
    let after = bench.stats();
    assert_eq!(after.writes - before.writes, 2);
    assert_eq!(after.bytes_out - before.bytes_out, 50 * (6 + 600 + 3) + 6);
    client.read_exact(&mut vec![0; 51 * 6 + 50 * 3]).unwrap();
    other.read_exact(&mut vec![0; 50 * 600]).unwrap();
}

#[test]
fn a_request_costs_one_read_one_write_and_no_more() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, line| cx.send_frame(id, line).unwrap())
    });
    let (mut client, _) = bench.connect_named();
    bench.turn();
    let before = bench.stats();
    for _ in 0..20 {
        client.write_all(b"hello\n").unwrap();
        bench.turn_for(|event| matches!(event, Event::Frame(..)));
        client.read_exact(&mut [0; 6]).unwrap();
    }
    let after = bench.stats();
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (20, 20));
    assert_eq!(after.reads_blocked, before.reads_blocked);
}

#[test]
fn posts_of_other_threads_coalesce() {
    const POSTS: u64 = 40_000;
    let server = Server::new(1, ServiceConfig::default(), lines);
    let ran = Arc::new(AtomicU64::new(0));
    let before = server.stats();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (ran, service) = (&ran, server.service().clone());
            scope.spawn(move || {
                for _ in 0..POSTS / 2 {
                    let ran = Arc::clone(ran);
                    let mut job: Job<LinesCodec> = Box::new(move |_| {
                        ran.fetch_add(1, Ordering::Relaxed);
                    });
                    while let Err((error, back)) = service.post(job) {
                        assert_eq!(error, PostError::Full);
                        job = back;
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    until("all have run", || ran.load(Ordering::Relaxed) == POSTS);
    until("all are counted", || server.stats().posts - before.posts >= POSTS);
    let wakeups = server.stats().wakeups - before.wakeups;
    assert!(wakeups <= POSTS / 4, "{wakeups} wake-ups for {POSTS} posts");
}

#[test]
fn posts_before_a_sleep_need_no_wake_up_and_one_that_wakes_serves_all() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    bench.turn();
    let before = bench.stats();
    for _ in 0..100 {
        bench.post(|_| ());
    }
    bench.event_loop.turn(Some(BOUND)).unwrap();
    assert_eq!(bench.stats().posts - before.posts, 100);
    assert_eq!(bench.stats().wakeups, before.wakeups, "the loop was awake");
}

#[test]
fn posts_of_one_thread_arrive_in_their_order_and_a_full_queue_gives_them_back() {
    let mut event_loop = EventLoop::new(LoopConfig::default()).unwrap();
    let slot = event_loop.handle().service_slot::<Job<LinesCodec>>(10);
    let service = slot.handle();
    let (log, _told) = unbounded();
    let (tell, told) = unbounded();
    let job = |n: usize| -> Job<LinesCodec> {
        let tell = tell.clone();
        Box::new(move |_| tell.send(n).unwrap())
    };
    for n in 0..10 {
        assert!(service.post(job(n)).is_ok());
    }
    assert_eq!(service.backlog(), 10);
    let (error, back) = service.post(job(10)).unwrap_err();
    assert_eq!(error, PostError::Full);
    // What is posted before the service is there waits for it.
    event_loop.add_service(slot, ServiceConfig::default(), lines(log)).unwrap();
    event_loop.turn(Some(BOUND)).unwrap();
    assert!(service.post(back).is_ok());
    event_loop.turn(Some(BOUND)).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), (0..=10).collect::<Vec<_>>());
    drop(event_loop);
    assert!(matches!(service.post(job(11)), Err((PostError::Stopped, _))));
}

#[test]
fn posts_over_a_turns_batch_wait_for_the_next_turn() {
    let mut config = LoopConfig::default();
    config.posts_per_turn = 8;
    let mut bench = Bench::with_loop(config, ServiceConfig::default(), lines);
    for _ in 0..20 {
        bench.post(|_| ());
        bench.event_loop.handle().post(|_| ()).unwrap();
    }
    let before = bench.stats();
    for expected in [16, 32, 40, 40] {
        bench.turn();
        assert_eq!(bench.stats().posts - before.posts, expected);
    }
}

#[test]
fn what_goes_out_is_not_delayed_by_later_input() {
    // The output of a turn is written in that turn, also while more input waits.
    let mut config = LoopConfig::default();
    config.scratch_bytes = 4096;
    let limits = support::limits(|c| c.read_bytes_per_turn = 4096);
    let mut bench = Bench::with_loop(config, limits, |log| {
        raw(log).on_frame(|cx, id, bytes| cx.send(id, bytes).unwrap())
    });
    let (mut client, id) = bench.connect_named();
    bench.turn();
    client.write_all(&pattern(40_960)).unwrap();
    bench.turn_for(|event| matches!(event, Event::Frame(..)));
    let stats = bench.stats();
    assert!(stats.bytes_in < 40_960, "or this shows nothing");
    assert_eq!(stats.bytes_out, stats.bytes_in);
    bench.post(move |cx| cx.close(id, CloseReason::Local("enough")));
    bench.turn();
}
