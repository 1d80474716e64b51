//! Writing and closing.
//!
//! 20. Output is bounded: reading pauses at a mark, the hard limit and the stall timeout end a connection that takes nothing.
//! 21. The last data reaches a peer that still sends: no reset overtakes it. A peer that never closes is cut off by the linger timeout.
//! 22. Watermark callbacks come for real transitions only, after the turn's writes, and never inside a send.
//! 23. Sending after the close is refused. A closed peer is an error, never a signal. More slices than one call takes arrive whole.
//! 24. A frame has a deadline from its first byte, which further bytes do not renew; only our own pause suspends it.
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

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::{CloseReason, PauseReason, SendError, ServiceConfig};
use support::{BOUND, Bench, Event, Server, finish, limits, lines, pattern, raw, until};

const WHY: CloseReason = CloseReason::Local("the test says so");

/// Writes until the peer has taken nothing for a while; what it has taken.
fn write_until_blocked(client: &mut TcpStream) -> Vec<u8> {
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let block = pattern(64 * 1024);
    let mut written = Vec::new();
    loop {
        match client.write(&block) {
            Ok(count) => written.extend_from_slice(&block[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return written;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let config = limits(|c| {
        c.output_high = 64 * 1024;
        c.output_pauses_reading = 64 * 1024;
        c.output_low = 16 * 1024;
    });
    let server = Server::new(1, config, |log| raw(log).on_frame(|cx, id, bytes| cx.send(id, bytes).unwrap()));
    let (mut client, id) = server.connect_named();
    let written = write_until_blocked(&mut client);
    let unsent = server.ask(move |cx| cx.unsent(id));
    // One turn's reads may come on top of the mark.
    let budget = ServiceConfig::default().read_bytes_per_turn;
    assert!((64 * 1024..=64 * 1024 + budget + 64 * 1024).contains(&unsent), "{unsent}");
    let read = server.stats().bytes_in;
    assert!(read < written.len() as u64, "the kernel's buffers hold the rest: {read} of {}", written.len());

    // All of it comes back when the client reads after all.
    finish(&client);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == written, "{} of {} bytes", got.len(), written.len());
}

#[test]
fn more_unsent_output_than_the_hard_limit_ends_the_connection() {
    let server = Server::new(1, limits(|c| c.output_max = 1 << 20), lines);
    let (client, id) = server.connect_named();
    // Eventually the kernel takes no more, and what is over stays here.
    let mut refused = None;
    until("the limit", || {
        refused = server.ask(move |cx| cx.send(id, &pattern(256 * 1024))).err();
        refused.is_some()
    });
    assert_eq!(refused, Some(SendError::OutputLimit));
    assert_eq!(server.told.closed(), CloseReason::OutputLimit);
    assert_eq!(server.ask(move |cx| cx.send(id, b"x")), Err(SendError::Gone));
    drop(client);
}

#[test]
fn a_peer_that_takes_nothing_for_the_stall_time_is_closed() {
    let server = Server::new(1, limits(|c| c.write_stall = Some(Duration::from_millis(50))), lines);
    let (_dead, dead) = server.connect_named();
    let (_idle, idle) = server.connect_named();
    server.ask(move |cx| cx.send(dead, &pattern(12 << 20)).unwrap());
    assert_eq!(
        server.told.wait(|event| matches!(event, Event::Closed(..))),
        Event::Closed(dead, CloseReason::WriteStalled)
    );
    assert!(server.ask(move |cx| cx.is_open(idle)), "who is sent nothing stalls nothing");
}

#[test]
fn the_last_data_reaches_a_peer_that_is_still_sending() {
    let reply = pattern(300_000);
    let output = reply.clone();
    let server = Server::new(1, limits(|c| c.linger = BOUND), move |log| {
        let output = output.clone();
        lines(log).on_frame(move |cx, id, _| {
            cx.send(id, &output).unwrap();
            cx.close(id, WHY);
        })
    });
    for _ in 0..10 {
        let (mut client, _) = server.connect_named();
        client.write_all(b"goodbye\n").unwrap();
        let mut writer = client.try_clone().unwrap();
        // Far more than a turn's budget and than the kernel's buffers: were the socket closed over it, the reply would be lost.
        let flood =
            std::thread::spawn(move || writer.write_all(&vec![b'x'; 16 << 20]).map(|()| finish(&writer)));
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == reply, "{} of {} bytes", got.len(), reply.len());
        flood.join().unwrap().unwrap();
        assert_eq!(server.told.closed(), WHY);
    }
    until("all slots are free", || server.running.connections() == 0);
}

#[test]
fn a_peer_that_sends_all_before_it_reads_still_gets_its_output() {
    // Neither side's kernel buffers hold it: unless the closed connection's input is taken, both wait for each other.
    let reply = pattern(12 << 20);
    let output = reply.clone();
    let server = Server::new(1, limits(|c| c.linger = BOUND), move |log| {
        let output = output.clone();
        lines(log).on_frame(move |cx, id, _| {
            cx.send(id, &output).unwrap();
            cx.close(id, WHY);
        })
    });
    let mut client = server.connect();
    client.write_all(b"goodbye\n").unwrap();
    client.write_all(&vec![b'x'; 16 << 20]).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == reply, "{} of {} bytes", got.len(), reply.len());
}

#[test]
fn a_closed_peer_that_never_closes_is_cut_off_by_the_linger_timeout() {
    let server = Server::new(1, limits(|c| c.linger = Duration::from_millis(50)), |log| {
        lines(log).on_frame(|cx, id, line| {
            if line == b"much" {
                cx.send(id, &pattern(12 << 20)).unwrap();
            }
            cx.close(id, WHY);
        })
    });
    // One with nothing to deliver, and one that does not take what is for it.
    for line in [&b"nothing\n"[..], b"much\n"] {
        let (mut client, _) = server.connect_named();
        client.write_all(line).unwrap();
        assert_eq!(server.told.closed(), WHY);
        until("its slot is free", || server.running.connections() == 0);
        drop(client);
    }
}

#[test]
fn marks_are_crossed_once_in_each_direction() {
    let config = limits(|c| {
        c.output_high = 100_000;
        c.output_pauses_reading = 100_000;
        c.output_low = 10_000;
        c.output_max = usize::MAX;
    });
    let mut bench = Bench::new(config, |log| {
        let note = log.clone();
        let tell = move |text| note.send(Event::Note(text)).unwrap();
        let low = tell.clone();
        lines(log)
            .on_high(move |cx, id| {
                tell("high begins");
                // Above the mark already: no further callback, neither here nor later.
                cx.send(id, &pattern(200_000)).unwrap();
                tell("high ends");
            })
            .on_low(move |cx, id| {
                low("low begins");
                cx.send(id, b"x").unwrap();
                low("low ends");
            })
    });
    let (mut client, id) = bench.connect_named();
    client.set_nonblocking(true).unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        // What the kernel takes at once never was above the mark, however much it is.
        bench.post(move |cx| cx.send(id, &pattern(120_000)).unwrap());
        bench.turn();
        assert_eq!(bench.told.rest(), [], "round {round}: all was written in the turn");
        for _ in 0..3 {
            bench.post(move |cx| {
                cx.send(id, &pattern(8 << 20)).unwrap();
                cx.send(id, b"and more").unwrap();
            });
            bench.turn();
        }
        expected.extend([Event::High(id), Event::Note("high begins"), Event::Note("high ends")]);
        assert_eq!(bench.told.rest(), expected, "round {round}");
        expected.clear();
        let mut told = Vec::new();
        let mut block = vec![0; 1 << 16];
        let mut got = 0;
        bench.turn_until("all is read", |bench| {
            told.extend(bench.told.rest());
            while let Ok(count) = client.read(&mut block) {
                got += count;
            }
            // 1 for what `on_low` sends.
            got == 120_000 + 3 * ((8 << 20) + 8) + 200_000 + 1
        });
        assert_eq!(
            told,
            [Event::Low(id), Event::Note("low begins"), Event::Note("low ends")],
            "round {round}"
        );
    }
    assert_eq!(bench.stats().panics, 0);
}

#[test]
fn a_connection_that_closes_crosses_no_mark() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (client, id) = bench.connect_named();
    bench.post(move |cx| {
        cx.send(id, &pattern(12 << 20)).unwrap();
        cx.close(id, WHY);
    });
    bench.turn();
    bench.turn();
    assert_eq!(bench.told.rest(), [Event::Closed(id, WHY)]);
    drop(client);
}

#[test]
fn limits_in_a_wrong_order_are_put_in_order() {
    let config = limits(|c| {
        c.output_low = 1 << 20;
        c.output_high = 1000;
        c.output_pauses_reading = 10;
        c.read_bytes_per_turn = 0;
        c.frames_per_turn = 0;
        c.accepts_per_turn = 0;
        c.linger = Duration::MAX;
        c.write_stall = Some(Duration::MAX);
        c.frame_deadline = Some(Duration::MAX);
        c.connect_timeout = Duration::MAX;
    });
    let server =
        Server::new(1, config, |log| lines(log).on_frame(|cx, id, line| cx.send_frame(id, line).unwrap()));
    let (mut client, id) = server.connect_named();
    for n in 0..100 {
        client.write_all(format!("line {n}\n").as_bytes()).unwrap();
    }
    server.ask(move |cx| cx.send(id, &pattern(15 << 20)).unwrap());
    server.told.wait(|event| *event == Event::High(id));
    let mut block = vec![0; 1 << 16];
    let mut got = 0;
    while got < 15 << 20 {
        got += client.read(&mut block).unwrap();
    }
    server.told.wait(|event| *event == Event::Low(id));
    client.write_all(b"\nhalf a line").unwrap();
    finish(&client);
    client.read_to_end(&mut block).unwrap();
    assert_eq!(server.told.closed(), CloseReason::PeerClosed);
}

#[test]
fn sending_after_the_close_is_refused() {
    let mut bench = Bench::new(limits(|c| c.linger = BOUND), lines);
    let (mut client, id) = bench.connect_named();
    bench.post(move |cx| {
        cx.send(id, b"before").unwrap();
        cx.close(id, WHY);
        assert_eq!(cx.send(id, b"after"), Err(SendError::Closing));
        assert_eq!(cx.send_frame(id, b"after"), Err(SendError::Closing));
        assert_eq!(cx.send_bytes(id, Bytes::from_static(b"after")), Err(SendError::Closing));
    });
    bench.turn();
    // It lingers: the slot is still taken, and still nothing is accepted.
    bench.post(move |cx| assert_eq!(cx.send(id, b"after"), Err(SendError::Closing)));
    bench.turn();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "before");
    drop(client);
    bench.turn_until("the slot is free", |bench| bench.event_loop.connections() == 0);
    bench.post(move |cx| assert_eq!(cx.send(id, b"after"), Err(SendError::Gone)));
    bench.turn();
    assert_eq!(bench.stats().panics, 0);
}

#[test]
fn a_payload_that_is_no_frame_is_refused_and_the_connection_lives() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (mut client, id) = bench.connect_named();
    bench.post(move |cx| {
        assert_eq!(cx.send_frame(id, b"two\nlines"), Err(SendError::Unframeable));
        cx.send_frame(id, b"one line").unwrap();
    });
    bench.turn();
    let mut got = [0; 9];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one line\n");
}

#[test]
fn a_closed_peer_is_an_error_and_never_a_signal() {
    // Rust ignores SIGPIPE; a program that links this may not. With a handler the signal would be seen.
    let signalled = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&signalled)).unwrap();
    let mut bench = Bench::new(ServiceConfig::default(), |log| lines(log).on_eof(|_, _| {}));
    // One piece, few, and more than one call takes: the first call is answered by a reset, and the next of the same flush meets it.
    for pieces in [1, 2, 200, 200, 200] {
        let (client, id) = bench.connect_named();
        drop(client);
        bench.turn_for(|event| matches!(event, Event::Eof(_)));
        bench.post(move |cx| {
            for _ in 0..pieces {
                cx.send_bytes(id, Bytes::from(pattern(1000))).unwrap();
            }
        });
        let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
        assert_eq!(closed, Event::Closed(id, CloseReason::PeerReset));
    }
    assert!(!signalled.load(Ordering::Relaxed));
}

#[test]
fn more_slices_than_one_call_takes_arrive_whole() {
    let server = Server::new(1, ServiceConfig::default(), lines);
    let (mut client, id) = server.connect_named();
    let sent = pattern(3000 * 700);
    let all = Bytes::from(sent.clone());
    let before = server.stats().writes;
    server.ask(move |cx| {
        for at in 0..3000 {
            cx.send_bytes(id, all.slice(at * 700..(at + 1) * 700)).unwrap();
        }
        cx.close(id, WHY);
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    assert!(server.stats().writes - before < 300, "many slices to a write");
}

#[test]
fn a_frame_has_a_deadline_that_its_bytes_do_not_renew() {
    let server = Server::new(1, limits(|c| c.frame_deadline = Some(Duration::from_millis(200))), lines);
    let (mut client, id) = server.connect_named();
    client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let started = Instant::now();
    let mut bytes_sent = 0;
    // A byte again and again, far more often than the deadline, until the server has had enough.
    loop {
        if client.write_all(b"x").is_err() {
            break;
        }
        bytes_sent += 1;
        match client.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(started.elapsed() < BOUND, "{bytes_sent} bytes and still there");
    }
    assert_eq!(server.told.closed(), CloseReason::FrameDeadline);
    assert!(started.elapsed() >= Duration::from_millis(200), "not before its time");
    assert!(server.told.rest().iter().all(|event| !matches!(event, Event::Frame(..))));
    assert!(bytes_sent > 1, "{id} sent one byte only");
}

#[test]
fn whole_frames_and_idle_connections_have_no_deadline() {
    let server = Server::new(1, limits(|c| c.frame_deadline = Some(Duration::from_millis(300))), lines);
    let (mut client, id) = server.connect_named();
    let deadline_has_passed = || {
        server.ask(|cx| cx.set_timer(Duration::from_millis(350), 1));
        server.told.wait(|event| *event == Event::Timer(1));
    };
    deadline_has_passed();
    for _ in 0..2 {
        // Two halves of a line, and a whole one: the time of each begins with its own first byte.
        client.write_all(b"he").unwrap();
        client.write_all(b"llo\nhello\n").unwrap();
        deadline_has_passed();
    }
    assert!(server.ask(move |cx| cx.is_open(id)));
}

#[test]
fn a_frame_that_we_do_not_read_is_not_late() {
    let limit = Duration::from_millis(250);
    let mut bench = Bench::new(limits(|c| c.frame_deadline = Some(limit)), lines);
    let (client, id) = bench.connect_named();
    let pause_beyond_the_deadline = |bench: &mut Bench<_>, rest: &[u8]| {
        bench.post(move |cx| {
            cx.pause(id, PauseReason::user(0));
            cx.set_timer(limit * 2, 1);
        });
        bench.turn();
        (&client).write_all(rest).unwrap();
        bench.turn_for(|event| *event == Event::Timer(1));
        bench.post(move |cx| cx.resume(id, PauseReason::user(0)));
    };
    (&client).write_all(b"whole\nhal").unwrap();
    bench.turn_for(|event| matches!(event, Event::Frame(_, frame) if frame == b"whole"));
    pause_beyond_the_deadline(&mut bench, b"f\n");
    bench.turn_for(|event| matches!(event, Event::Frame(_, frame) if frame == b"half"));

    // The time begins anew; it does not end.
    (&client).write_all(b"hal").unwrap();
    let before = bench.stats().bytes_in;
    bench.turn_until("it is read", |bench| bench.stats().bytes_in == before + 3);
    pause_beyond_the_deadline(&mut bench, b"");
    let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed, Event::Closed(id, CloseReason::FrameDeadline));
}
