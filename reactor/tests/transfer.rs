//! Bytes arrive as they were sent: all of them, once, in their order.
//!
//! 1. Large transfers both ways at once, over one loop and over two, with output limits in the way.
//! 2. However the network cuts a stream, the frames are the same (seeded; a failing seed is printed and can be replayed).
//! 3. What many connections and threads send keeps each sender's order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use reactor::codec::{LengthCodec, LinesCodec, RawCodec};
use reactor::{ClientConfig, CloseReason, EventLoopThreadPool, LoopConfig, ServiceConfig, TcpClient};
use support::{Event, Job, Script, Server, Told, finish, limits, lines, raw, until};

/// Bytes that depend on their place, in every stream others.
fn stream(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

#[test]
fn large_transfers_both_ways_are_exact() {
    const SIZE: usize = 6 << 20;
    for loops in [1, 2] {
        // Small marks: reading pauses and resumes over and over.
        let config = limits(|c| {
            c.output_high = 50_000;
            c.output_pauses_reading = 50_000;
            c.output_low = 10_000;
        });
        let server =
            Server::new(loops, config, |log| raw(log).on_frame(|cx, id, bytes| cx.send(id, bytes).unwrap()));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let mut client = server.connect();
                scope.spawn(move || {
                    let sent = stream(seed, SIZE);
                    let mut writer = client.try_clone().unwrap();
                    let output = sent.clone();
                    let writing = std::thread::spawn(move || {
                        writer.write_all(&output).unwrap();
                        finish(&writer);
                    });
                    let mut got = Vec::with_capacity(SIZE);
                    client.read_to_end(&mut got).unwrap();
                    writing.join().unwrap();
                    assert!(got == sent, "{} of {SIZE} bytes, seed {seed}, {loops} loops", got.len());
                });
            }
        });
        let bytes = || server.pool.handles().iter().map(|handle| handle.stats().bytes_out).sum::<u64>();
        until("all is counted", || bytes() == 4 * SIZE as u64);
    }
}

#[test]
fn a_reactor_at_both_ends_is_exact_too() {
    // More than all buffers between the two hold: would both wait for the other to read, they would for ever.
    const SIZE: usize = 60 << 20;
    let server = Server::new(1, ServiceConfig::default(), |log| {
        raw(log).on_frame(|cx, id, bytes| cx.send(id, bytes).unwrap())
    });
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let handle = &pool.handles()[0];
    let (log, told) = unbounded();
    let sent = stream(1, SIZE);
    let output = Bytes::from(sent.clone());
    let make = move || raw(log).on_open(move |cx, id| cx.send_bytes(id, output.clone()).unwrap());
    let mut config = ClientConfig::new(vec![server.address]);
    config.reconnect = false;
    config.service.output_max = usize::MAX;
    let client = TcpClient::start(handle, handle.service_slot::<Job<RawCodec>>(1), config, make).unwrap();
    let told = Told(told);
    let mut got = Vec::with_capacity(SIZE);
    while got.len() < SIZE {
        got.extend(told.frame());
    }
    assert!(got == sent);
    client.stop().unwrap();
    assert_eq!(told.closed(), CloseReason::Local("the client was stopped"));
}

/// A seed that is replayed with `REACTOR_TEST_SEED`, and printed when a test fails.
fn seed() -> u64 {
    let seed = match std::env::var("REACTOR_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    eprintln!("REACTOR_TEST_SEED={seed} replays this");
    seed
}

#[test]
fn lines_are_the_same_however_the_stream_is_cut() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..30 {
        // A small scratch buffer and small budgets, so that every cut of ours happens too.
        let mut loop_config = LoopConfig::default();
        loop_config.scratch_bytes = rng.usize(4096..20_000);
        let (bytes_per_turn, frames_per_turn) = (rng.usize(1..10_000), rng.u32(1..20));
        let config = limits(|c| {
            c.read_bytes_per_turn = bytes_per_turn;
            c.frames_per_turn = frames_per_turn;
        });
        let server = Server::with_loops(1, loop_config, config, lines);
        let mut client = server.connect();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..200) {
            let longest = if rng.u8(..) < 10 { 30_000 } else { 100 };
            let len = rng.usize(0..longest);
            let line: Vec<u8> = std::iter::repeat_with(|| rng.u8(b' '..)).take(len).collect();
            bytes.extend_from_slice(&line);
            bytes.extend_from_slice(if rng.bool() { b"\n" } else { b"\r\n" });
            expected.push(line);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = if rng.bool() { 20 } else { 20_000 };
            let (now, later) = rest.split_at(rng.usize(1..=rest.len().min(most)));
            client.write_all(now).unwrap();
            rest = later;
        }
        finish(&client);
        let mut got = Vec::new();
        loop {
            match server.told.next() {
                Event::Opened(_) => {}
                Event::Frame(_, frame) => got.push(frame),
                Event::Eof(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(got == expected, "{} of {} lines", got.len(), expected.len());
    }
}

#[test]
fn counted_frames_survive_pauses_at_random() {
    let mut rng = fastrand::Rng::with_seed(seed());
    for _ in 0..10 {
        let mut pauses = rng.fork();
        let choices: Vec<bool> = std::iter::repeat_with(|| pauses.u8(..) < 60).take(500).collect();
        let server = Server::new(1, ServiceConfig::default(), move |log| {
            let mut choices = choices.clone().into_iter();
            Script::new(log, || LengthCodec::u16(60_000))
                .on_frame(move |cx, id, _| {
                    if choices.next() == Some(true) {
                        cx.pause(id, reactor::PauseReason::user(0));
                        cx.set_conn_timer(id, Duration::ZERO, 0);
                    }
                })
                .on_timer(|cx, fired| cx.resume(fired.conn.unwrap(), reactor::PauseReason::user(0)))
        });
        let mut client = server.connect();
        let mut expected = Vec::new();
        for _ in 0..300 {
            let most = if rng.u8(..) < 20 { 60_000 } else { 300 };
            let len = rng.usize(0..most);
            let frame: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            client.write_all(&(frame.len() as u16).to_be_bytes()).unwrap();
            client.write_all(&frame).unwrap();
            expected.push(frame);
        }
        finish(&client);
        let mut got = Vec::new();
        server.told.wait(|event| {
            if let Event::Frame(_, frame) = event {
                got.push(frame.clone());
            }
            matches!(event, Event::Eof(_))
        });
        assert!(got == expected, "{} of {} frames", got.len(), expected.len());
    }
}

#[test]
fn each_threads_sends_to_a_connection_keep_their_order() {
    let server = Server::new(2, ServiceConfig::default(), lines);
    let connections: Vec<_> = (0..2).map(|_| server.connect_named()).collect();
    for (client, id) in connections {
        let handle = server.pool.handles()[usize::from(id.loop_index())].conn(id);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let handle = handle.clone();
                scope.spawn(move || {
                    for n in 0..1000 {
                        handle.send(Bytes::from(format!("{thread} {n}\n"))).unwrap();
                    }
                    handle.close("the first that has sent all").unwrap_or_default();
                });
            }
        });
        let mut next = [0; 3];
        for line in BufReader::new(client).lines() {
            let line = line.unwrap();
            let (thread, n) = line.split_once(' ').unwrap();
            let (thread, n): (usize, u32) = (thread.parse().unwrap(), n.parse().unwrap());
            assert_eq!(n, next[thread], "of thread {thread}");
            next[thread] += 1;
        }
        assert!(next.contains(&1000), "whoever closed had sent all: {next:?}");
    }
}

#[test]
fn what_is_sent_to_all_reaches_all_once() {
    let server = Server::new(2, ServiceConfig::default(), |log| Script::new(log, || LinesCodec::new(80)));
    let mut clients: Vec<_> = (0..40).map(|_| server.connect_named().0).collect();
    let line = Bytes::from(vec![b'z'; 2000]);
    for service in server.running.services() {
        let line = line.clone();
        let job: Job<LinesCodec> = Box::new(move |cx| {
            for id in cx.open_conns() {
                cx.send_bytes(id, line.clone()).unwrap();
                cx.close(id, CloseReason::Local("told"));
            }
        });
        assert!(service.post(job).is_ok());
    }
    for client in &mut clients {
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == line);
    }
    drop(clients);
    until("all are gone", || server.running.connections() == 0);
}

#[test]
fn drained_is_told_once_when_all_is_written_and_not_before() {
    let server = Server::new(1, limits(|c| c.output_max = 64 << 20), |log| {
        raw(log).on_frame(|cx, id, what| {
            let size = if what == b"much" { 32 << 20 } else { 3 };
            cx.send_bytes(id, vec![7; size].into()).unwrap();
            cx.notify_drained(id);
        })
    });
    let (mut client, id) = server.connect_named();
    client.write_all(b"little").unwrap();
    server.told.wait(|event| *event == Event::Drained(id));
    client.read_exact(&mut [0; 3]).unwrap();
    client.write_all(b"much").unwrap();
    server.told.wait(|event| matches!(event, Event::Frame(..)));
    // More than all kernel buffers hold: it cannot be written before the client reads.
    assert!(server.ask(move |cx| cx.unsent(id)) > 0);
    assert!(!server.told.rest().contains(&Event::Drained(id)));
    let mut got = vec![0; 32 << 20];
    client.read_exact(&mut got).unwrap();
    server.told.wait(|event| *event == Event::Drained(id));
    client.write_all(b"quiet").unwrap();
    server.told.wait(|event| *event == Event::Drained(id));
    assert_eq!(server.told.rest(), [], "once for each time it was asked for");
}
