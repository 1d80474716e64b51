//! Panics in callbacks.
//!
//! 14. A panic in a callback, or in a codec, ends the connection it was for with its reason; the others live on. One that was for no connection
//!     is caught and counted.
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
use std::time::Duration;

use crossbeam_channel::unbounded;
use reactor::codec::{Codec, Decoded, FrameError, LinesCodec};
use reactor::{CloseReason, EventLoopThreadPool, LoopConfig, ServiceConfig, TcpServer};
use support::{BOUND, Bench, Event, Script, finish, limits, lines};

const WHY: CloseReason = CloseReason::Local("the test says so");

/// A codec that panics at a `!`, and otherwise cuts lines.
struct Touchy(LinesCodec);

impl Codec for Touchy {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        assert!(!input.starts_with(b"!"), "a test's panic");
        self.0.decode(input)
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        assert!(!payload.starts_with(b"!"), "a test's panic");
        self.0.encode(payload, out)
    }
}

#[test]
fn a_panic_in_a_callback_ends_its_connection_and_nobody_elses() {
    let mut accepted = 0;
    let mut bench = Bench::new(limits(|c| c.output_high = 1), |log| {
        Script::new(log, move || {
            accepted += 1;
            assert!(accepted != 2, "a test's panic");
            Touchy(LinesCodec::new(80))
        })
        .on_frame(|cx, id, frame| match frame {
            b"frame" => panic!("a test's panic"),
            b"close" => cx.close(id, WHY),
            b"encode" => cx.send_frame(id, b"!").unwrap(),
            b"timer" => {
                cx.set_conn_timer(id, Duration::ZERO, 7);
            }
            _ => cx.send_frame(id, frame).unwrap(),
        })
        .on_eof(|_, _| panic!("a test's panic"))
        .on_timer(|_, _| panic!("a test's panic"))
        .on_frame_error(|_, _| panic!("a test's panic"))
        .on_close(|_, _, reason| assert!(reason != WHY, "a test's panic"))
    });
    let (mut witness, witness_id) = bench.connect_named();

    // The codec of the second connection cannot be made.
    let mut unlucky = support::connect(bench.address);
    bench.turn_until("the panic", |bench| bench.stats().panics == 1);
    assert_eq!(unlucky.read(&mut [0]).unwrap_or(0), 0, "closed, and nothing else");

    let too_long = [b"x".repeat(200), b"\n".to_vec()].concat();
    let cases: [(&[u8], CloseReason); 6] = [
        (b"frame\n", CloseReason::HandlerPanicked),
        (b"close\n", WHY),
        (b"encode\n", CloseReason::HandlerPanicked),
        (b"!\n", CloseReason::HandlerPanicked),
        (&too_long, CloseReason::HandlerPanicked),
        (b"", CloseReason::HandlerPanicked),
    ];
    for (at, (line, reason)) in cases.into_iter().enumerate() {
        let (mut client, id) = bench.connect_named();
        if line.is_empty() {
            finish(&client);
        } else {
            client.write_all(line).unwrap();
        }
        let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
        assert_eq!(closed, Event::Closed(id, reason), "case {at}");
        drop(client);
        bench.turn_until("only the witness is left", |bench| bench.event_loop.connections() == 1);
        assert_eq!(bench.stats().panics, at as u64 + 2, "case {at}");
        witness.write_all(b"still here?\n").unwrap();
        bench.turn_for(|event| matches!(event, Event::Frame(id, _) if *id == witness_id));
        let mut got = [0; 12];
        witness.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"still here?\n");
    }

    // Posts, tasks and timers of nobody's connection: caught and counted.
    let before = bench.stats().panics;
    bench.post(|_| panic!("a test's panic"));
    bench.event_loop.handle().post(|_| panic!("a test's panic")).unwrap();
    bench.post(|cx| {
        cx.set_timer(Duration::ZERO, 1);
    });
    bench.turn_until("three panics", |bench| bench.stats().panics == before + 3);
    // A timer of a connection: that connection's end.
    let (mut client, id) = bench.connect_named();
    client.write_all(b"timer\n").unwrap();
    let closed = bench.turn_for(|event| matches!(event, Event::Closed(..)));
    assert_eq!(closed, Event::Closed(id, CloseReason::HandlerPanicked));
    bench.post(move |cx| assert!(cx.is_open(witness_id)));
    bench.turn();
    assert_eq!(bench.stats().panics, before + 4);
}

#[test]
fn a_connection_whose_on_open_panicked_is_reset_and_its_slot_freed() {
    let mut bench =
        Bench::new(ServiceConfig::default(), |log| lines(log).on_open(|_, _| panic!("a test's panic")));
    let mut client = support::connect(bench.address);
    bench.turn_until("the panic", |bench| bench.stats().panics == 1);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((bench.event_loop.connections(), bench.running.connections()), (0, 0));
    assert_eq!(bench.stats().closes[CloseReason::HandlerPanicked.index()], 1);
}

#[test]
fn a_constructor_that_panics_is_an_error_where_it_was_asked_for() {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), ServiceConfig::default()).unwrap();
    let served = server.serve(&pool, |_| -> Script<LinesCodec> { panic!("a test's panic") });
    assert!(served.is_err());
    let (tell, told) = unbounded();
    pool.handles()[0].post(move |_| tell.send(()).unwrap()).unwrap();
    told.recv_timeout(BOUND).expect("the loop lives on");
}
