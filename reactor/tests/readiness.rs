//! Edge-triggered readiness: what a loop must not miss, for no event comes twice.
//!
//! 1. Input beyond a turn's budget arrives without another event.
//! 2. The end of input is met although it came in the same edge as the last bytes.
//! 3. Frames that wait, for the frame budget or for a resume, are delivered without another event.
//! 4. Half-close is not close: the peer still gets what was to be sent to it.
//! 5. Whoever does not read still notices a dead peer: paused, paused in the very read, half-closed, after a bad frame, not reading.
//! 6. Writable is not connected (the white-box half of this is in the crate): a refused attempt is no connection.
//! 7. Interrupted system calls are nothing; a waiting loop does not spin, and no timer fires early.
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
use std::net::TcpListener;
use std::time::{Duration, Instant};

use reactor::{CloseReason, ConnectError, LoopConfig, PauseReason, ServiceConfig};
use support::{BOUND, Bench, Event, Server, connect, finish, limits, lines, pattern, raw, reset};

/// A loop that reads 4 KiB at a time.
fn small_reads() -> LoopConfig {
    let mut config = LoopConfig::default();
    config.scratch_bytes = 4096;
    config
}

#[test]
fn input_beyond_a_turns_budget_arrives_without_another_event() {
    let mut bench = Bench::with_loop(small_reads(), limits(|c| c.read_bytes_per_turn = 1), raw);
    let (mut client, _) = bench.connect_named();
    let sent = pattern(64 * 1024);
    client.write_all(&sent).unwrap();
    let before = bench.stats();
    let mut got = Vec::new();
    bench.turn_until("all input", |bench| {
        for event in bench.told.rest() {
            if let Event::Frame(_, frame) = event {
                got.extend(frame);
            }
        }
        got.len() == sent.len()
    });
    assert!(got == sent);
    let after = bench.stats();
    assert!(after.turns - before.turns >= 16, "each turn read no more than its budget");
    assert!(after.events - before.events <= 2, "and it took no event for each: {after:?}");
}

#[test]
fn the_end_of_input_is_met_although_it_came_with_the_last_bytes() {
    // Around the size of a read, where a short read and a full one say different things.
    for len in [1, 100, 4095, 4096, 4097, 8192, 20_000] {
        let mut bench = Bench::with_loop(small_reads(), ServiceConfig::default(), raw);
        let (mut client, id) = bench.connect_named();
        client.write_all(&pattern(len)).unwrap();
        finish(&client);
        let (mut got, mut ended) = (0, false);
        bench.turn_until("the end", |bench| {
            for event in bench.told.rest() {
                match event {
                    Event::Frame(_, frame) if !ended => got += frame.len(),
                    Event::Eof(_) => ended = true,
                    Event::Closed(closed, reason) => {
                        assert_eq!((closed, reason), (id, CloseReason::PeerClosed));
                    }
                    other => panic!("{other:?} after {got} bytes"),
                }
            }
            ended
        });
        assert_eq!(got, len);
    }
}

#[test]
fn a_connection_that_sent_and_ended_before_it_was_accepted_is_served() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let mut client = connect(bench.address);
    client.write_all(b"one\ntwo\n").unwrap();
    finish(&client);
    bench.turn_for(|event| matches!(event, Event::Frame(_, frame) if frame == b"two"));
    bench.turn_for(|event| matches!(event, Event::Eof(_)));
}

#[test]
fn frames_over_the_frame_budget_are_delivered_without_another_event() {
    let mut bench = Bench::new(limits(|c| c.frames_per_turn = 1), lines);
    let (mut client, _) = bench.connect_named();
    let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
    client.write_all(text.as_bytes()).unwrap();
    finish(&client);
    let before = bench.stats();
    for n in 0..100 {
        let frame = bench.turn_for(|event| matches!(event, Event::Frame(..)));
        assert!(matches!(frame, Event::Frame(_, frame) if frame == format!("line {n}").as_bytes()));
    }
    bench.turn_for(|event| matches!(event, Event::Eof(_)));
    let after = bench.stats();
    assert!(after.turns - before.turns >= 100, "one frame a turn");
    assert!(after.events - before.events <= 2);
}

#[test]
fn frames_that_waited_for_a_resume_are_delivered_without_another_event() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, _| cx.pause(id, PauseReason::user(0)))
    });
    let (mut client, id) = bench.connect_named();
    client.write_all(b"one\ntwo\nthree\nhalf").unwrap();
    for expected in ["one", "two", "three"] {
        bench.turn_for(|event| matches!(event, Event::Frame(_, frame) if frame == expected.as_bytes()));
        bench.turn();
        bench.turn();
        assert_eq!(bench.told.rest(), [], "nothing comes while the connection is paused");
        bench.post(move |cx| cx.resume(id, PauseReason::user(0)));
    }
    client.write_all(b"-line\n").unwrap();
    bench.turn_for(|event| matches!(event, Event::Frame(_, frame) if frame == b"half-line"));
}

#[test]
fn reading_goes_on_only_when_the_last_reason_to_pause_is_gone() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (mut client, id) = bench.connect_named();
    bench.post(move |cx| {
        cx.pause(id, PauseReason::user(0));
        cx.pause(id, PauseReason::user(1));
        cx.pause(id, PauseReason::user(1));
    });
    bench.turn();
    client.write_all(b"hello\n").unwrap();
    bench.post(move |cx| cx.resume(id, PauseReason::user(1)));
    for _ in 0..5 {
        bench.turn();
    }
    assert_eq!(bench.told.rest(), []);
    bench.post(move |cx| cx.resume(id, PauseReason::user(0)));
    bench.turn_for(|event| matches!(event, Event::Frame(..)));
}

#[test]
fn a_half_closed_peer_still_gets_what_was_to_be_sent() {
    let sent = pattern(4 << 20);
    let reply = sent.clone();
    let server = Server::new(1, ServiceConfig::default(), move |log| {
        let reply = reply.clone();
        lines(log).on_frame(move |cx, id, _| cx.send(id, &reply).unwrap())
    });
    let mut client = server.connect();
    client.write_all(b"all of it, please\n").unwrap();
    finish(&client);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(server.told.closed(), CloseReason::PeerClosed);
}

#[test]
fn a_handler_may_answer_long_after_the_peers_half_close() {
    let server = Server::new(1, ServiceConfig::default(), |log| lines(log).on_eof(|_, _| {}));
    let (mut client, id) = server.connect_named();
    finish(&client);
    server.told.wait(|event| *event == Event::Eof(id));
    assert!(server.ask(move |cx| cx.is_open(id)));
    server.ask(move |cx| {
        cx.send(id, b"late\n").unwrap();
        cx.close(id, CloseReason::Local("answered"));
    });
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "late\n");
}

#[test]
fn a_paused_reader_notices_a_reset() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (client, id) = bench.connect_named();
    bench.post(move |cx| cx.pause(id, PauseReason::user(3)));
    bench.turn();
    reset(client);
    let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed, Event::Closed(id, CloseReason::PeerReset));
}

#[test]
fn a_reader_that_pauses_in_the_read_that_carried_the_reset_notices_it() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, _| cx.pause(id, PauseReason::user(0)))
    });
    let (mut client, id) = bench.connect_named();
    client.write_all(b"one\ntwo\n").unwrap();
    reset(client);
    let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed, Event::Closed(id, CloseReason::PeerReset));
}

#[test]
fn a_half_closed_connection_notices_a_reset() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| lines(log).on_eof(|_, _| {}));
    let (client, id) = bench.connect_named();
    finish(&client);
    bench.turn_for(|event| *event == Event::Eof(id));
    reset(client);
    let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed, Event::Closed(id, CloseReason::PeerReset));
}

#[test]
fn a_handler_that_keeps_a_connection_after_a_bad_frame_hears_of_its_end() {
    for ended_with_the_frame in [true, false] {
        let mut bench = Bench::new(ServiceConfig::default(), |log| {
            support::Script::new(log, || reactor::codec::LinesCodec::new(4)).on_frame_error(|_, _| {})
        });
        let (mut client, id) = bench.connect_named();
        client.write_all(b"far too long\nok\n").unwrap();
        if !ended_with_the_frame {
            bench.turn_for(|event| *event == Event::FrameError(id));
        }
        finish(&client);
        bench.turn_for(|event| *event == Event::Eof(id));
        bench.turn_for(|event| matches!(event, Event::Closed(..)));
    }
}

#[test]
fn a_peer_that_stopped_reading_is_noticed_by_a_paused_reader() {
    let config = limits(|c| c.write_stall = Some(Duration::from_millis(50)));
    let server = Server::new(1, config, lines);
    let (client, id) = server.connect_named();
    server.ask(move |cx| {
        cx.pause(id, PauseReason::user(0));
        cx.send(id, &pattern(8 << 20)).unwrap();
    });
    assert_eq!(server.told.closed(), CloseReason::WriteStalled);
    drop(client);
}

#[test]
fn a_refused_attempt_is_no_connection() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.post(move |cx| {
        cx.connect(unused, reactor::codec::LinesCodec::new(80)).unwrap();
    });
    let event = bench.turn_for(|_| true);
    let Event::ConnectFailed(id, ConnectError::Io { kind, .. }, None) = event else { panic!("{event:?}") };
    assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
    assert_eq!(bench.event_loop.connections(), 0);
    bench.post(move |cx| assert!(!cx.is_open(id)));
    bench.turn();
    assert_eq!(bench.stats().panics, 0);
    assert_eq!(bench.running.connections(), 0, "an attempt is not counted as a connection");
}

#[test]
fn a_loop_that_waits_for_a_timer_does_not_spin_and_no_timer_is_early() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    for millis in [0_u64, 1, 3, 10, 47, 100] {
        let (delay, before) = (Duration::from_millis(millis), bench.stats());
        let set = Instant::now();
        bench.post(move |cx| {
            cx.set_timer(delay, millis);
        });
        let deadline = Instant::now() + BOUND;
        while bench.told.rest() != [Event::Timer(millis)] {
            assert!(Instant::now() < deadline);
            // However long the wait, only the timer ends it.
            bench.event_loop.turn(Some(BOUND)).unwrap();
        }
        assert!(set.elapsed() >= delay, "{millis} ms fired after {:?}", set.elapsed());
        // One for the post, one for the timer, and one for each level of the wheel that the timer came down.
        assert!(bench.stats().turns - before.turns <= 5, "{:?}", bench.stats());
    }
}
