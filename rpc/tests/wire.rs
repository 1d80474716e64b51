//! What strangers can send, and what becomes of them and of everybody else:
//! 1. Garbage, lengths that lie, frames that end in the middle: the connection ends, the server does not.
//! 2. Frames that may not come now or from there: the same.
//! 3. Requests that cannot be carried out: an error reply that says so and that they were not.
//! 4. The same from a server to a client: each call ends once, with whether it may have been carried out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use crossbeam_channel::unbounded;
use prost::Message as _;
use rpc::wire::{self, Header, Hello, Kind};
use rpc::{ChannelConfig, Code, Executed, ServerConfig};
use support::*;

/// A quick answer shows that the server is well.
fn is_well(fixture: &Fixture) {
    let mut raw = Raw::client(fixture.server.local_addr());
    raw.send(&request(1, "rpc.test.Echo/Say"), &payload("well").encode_to_vec());
    let (header, body) = raw.next().unwrap();
    assert_eq!((header.kind(), body), (Kind::Response, payload("well").encode_to_vec()));
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let fixture = serve(ServerConfig::default());
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..100 {
        let mut raw = Raw::connect(fixture.server.local_addr());
        let len = rng.usize(8..4000);
        // Beginning with a length that is allowed, so that the rest is looked at.
        let mut bytes = u32::try_from(len - 4).unwrap().to_be_bytes().to_vec();
        bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(len - 4));
        raw.send_bytes(&bytes);
        assert!(raw.next().is_none());
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[255; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 1, 2, 3],
        &[0, 0, 0, 8, 255, 255, 255, 255, 0, 0, 0, 0],
    ] {
        let mut raw = Raw::connect(fixture.server.local_addr());
        raw.send_bytes(bytes);
        assert!(raw.next().is_none(), "{bytes:?}");
    }
    is_well(&fixture);
}

#[test]
fn garbage_after_the_hello_ends_the_connection_too() {
    let fixture = serve(ServerConfig::default());
    let mut rng = fastrand::Rng::with_seed(8);
    for round in 0..100 {
        let mut raw = Raw::client(fixture.server.local_addr());
        let mut good = Vec::new();
        let header = Header { timeout_us: Some(1_000_000), ..request(1, "rpc.test.Echo/Say") };
        wire::put_frame_raw(&header, &payload("x").encode_to_vec(), &mut good);
        // Any one byte behind the length: whatever it leads to, the server lives.
        let at = 4 + round % (good.len() - 4);
        good[at] ^= rng.u8(1..);
        raw.send_bytes(&good);
        drop(raw);
    }
    is_well(&fixture);
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_of_it_arrives() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::client(fixture.server.local_addr());
    raw.send_bytes(&[0x7f, 255, 255, 255]);
    assert!(raw.next().is_none());
    is_well(&fixture);
}

#[test]
fn a_frame_that_is_cut_off_harms_nobody() {
    let fixture = serve(ServerConfig::default());
    let mut whole = Vec::new();
    wire::put_frame_raw(&request(1, "rpc.test.Echo/Count"), &[], &mut whole);
    for cut in 1..whole.len() {
        let mut raw = Raw::client(fixture.server.local_addr());
        raw.send_bytes(&whole[..cut]);
        drop(raw);
    }
    testkit::wait_until("all are gone", LONG, || fixture.server.connections() == 0);
    is_well(&fixture);
    assert_eq!(fixture.ended("Count", Code::Ok), 0);
}

#[test]
fn a_client_that_breaks_the_order_is_closed() {
    let fixture = serve(ServerConfig::default());
    let address = fixture.server.local_addr();
    let mut raw = Raw::connect(address);
    raw.send(&request(1, "rpc.test.Echo/Say"), &[]);
    assert!(raw.next().is_none(), "a request before the hello");
    for kind in [Kind::Hello, Kind::Response, Kind::Error, Kind::Drain, Kind::Unspecified] {
        let mut raw = Raw::client(address);
        raw.send(&Header::of(kind, 1), &[]);
        assert!(raw.next().is_none(), "{kind:?}");
    }
    let mut raw = Raw::client(address);
    raw.send(&Header { kind: 77, ..Header::default() }, &[]);
    assert!(raw.next().is_none(), "a kind that does not exist");
    let mut raw = Raw::client(address);
    for _ in 0..2 {
        raw.send(&request(5, "rpc.test.Echo/Wait"), &[]);
    }
    assert!(raw.next().is_none(), "one number for two calls");
    is_well(&fixture);
}

#[test]
fn a_client_of_another_version_learns_which_there_are_and_is_closed() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::connect(fixture.server.local_addr());
    let hello = Hello { version: 9, version_min: 8, frame_bytes_max: 1 << 20, ..Hello::default() };
    raw.send(&Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) }, &[]);
    let (header, _) = raw.next().unwrap();
    assert_eq!(header.hello.unwrap().version, wire::VERSION);
    assert!(raw.next().is_none());
}

#[test]
fn a_client_that_says_no_hello_is_closed() {
    let mut config = ServerConfig::default();
    config.hello_timeout = Duration::from_millis(50);
    let fixture = serve(config);
    assert!(Raw::connect(fixture.server.local_addr()).next().is_none());
}

#[test]
fn what_cannot_be_carried_out_is_answered_with_the_reason_and_that_it_was_not() {
    let mut config = ServerConfig::default();
    config.in_flight_per_connection_max = 2;
    config.body_bytes_max = 100;
    let fixture = serve(config);
    let mut raw = Raw::client(fixture.server.local_addr());
    let mut ask = |header: &Header, body: &[u8]| {
        raw.send(header, body);
        let (answer, _) = raw.next().unwrap();
        assert_eq!((answer.kind(), answer.call_id), (Kind::Error, header.call_id));
        assert_eq!(answer.executed(), wire::Executed::Rejected);
        Code::from_number(answer.status)
    };
    assert_eq!(ask(&request(1, "rpc.test.Echo/Nothing"), &[]), Code::Unimplemented);
    let by_name = Header { method: "rpc.test.Nobody/Say".into(), ..Header::of(Kind::Request, 2) };
    assert_eq!(ask(&by_name, &[]), Code::Unimplemented);
    assert_eq!(ask(&request(3, "rpc.test.Echo/Say"), &[0xff; 3]), Code::InvalidArgument);
    assert_eq!(ask(&request(4, "rpc.test.Echo/Say"), &[0; 101]), Code::ResourceExhausted);
    let late = Header { timeout_us: Some(0), ..request(5, "rpc.test.Echo/Say") };
    assert_eq!(ask(&late, &[0xff; 3]), Code::DeadlineExceeded, "not even decoded");
    let _held: Vec<_> = (6..8)
        .map(|call| {
            let mut out = Vec::new();
            wire::put_frame_raw(&request(call, "rpc.test.Echo/Wait"), &[], &mut out);
            std::io::Write::write_all(&mut raw.stream, &out).unwrap();
            fixture.parked()
        })
        .collect();
    raw.send(&request(8, "rpc.test.Echo/Say"), &[]);
    assert_eq!(raw.next().unwrap().0.status, Code::ResourceExhausted.number(), "overloaded, at once");
}

#[test]
fn a_method_may_be_called_by_its_name() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::client(fixture.server.local_addr());
    let by_name = Header { method: "rpc.test.Echo/Say".into(), ..Header::of(Kind::Request, 2) };
    raw.send(&by_name, &payload("x").encode_to_vec());
    assert_eq!(raw.next().unwrap().0.kind(), Kind::Response);
}

#[test]
fn pieces_of_a_body_may_mix_with_other_calls_and_stop_at_a_cancel() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::client(fixture.server.local_addr());
    let body = payload(vec![7; 1000]).encode_to_vec();
    raw.send(&Header { more: true, ..request(1, "rpc.test.Echo/Say") }, &body[..400]);
    raw.send(&Header { more: true, ..request(2, "rpc.test.Echo/Say") }, &body[..400]);
    raw.send(&request(3, "rpc.test.Echo/Say"), &payload("x").encode_to_vec());
    assert_eq!(raw.next().unwrap().0.call_id, 3);
    raw.send(&Header::of(Kind::Cancel, 2), &[]);
    raw.send(&Header::of(Kind::Chunk, 2), &body[400..]);
    raw.send(&Header { more: true, ..Header::of(Kind::Chunk, 1) }, &body[400..900]);
    raw.send(&Header::of(Kind::Chunk, 99), b"of a call that never was");
    raw.send(&Header::of(Kind::Chunk, 1), &body[900..]);
    let (header, answer) = raw.next().unwrap();
    assert_eq!((header.call_id, answer), (1, body));
    raw.send(&Header::of(Kind::Ping, 77), &[]);
    let (header, _) = raw.next().unwrap();
    assert_eq!((header.kind(), header.call_id), (Kind::Pong, 77), "and nothing for call 2");
}

/// A client of a raw server, which is `serve` with the connection.
fn with_raw_server<R>(config: ChannelConfig, serve: impl FnOnce(&Caller, Raw) -> R) -> R {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let caller = call_to(&[listener.local_addr().unwrap()], config);
    let raw = Raw::server(&listener);
    serve(&caller, raw)
}

#[test]
fn a_lost_connection_ends_each_call_on_it_once_and_in_doubt() {
    with_raw_server(ChannelConfig::default(), |caller, mut raw| {
        let (tell, told) = unbounded();
        for _ in 0..10 {
            let tell = tell.clone();
            caller.client.count(&payload("")).then(move |outcome| tell.send(outcome).unwrap());
        }
        for _ in 0..10 {
            raw.next_call();
        }
        drop(raw);
        for _ in 0..10 {
            let status = told.recv_timeout(LONG).unwrap().unwrap_err();
            assert_eq!(
                (status.code(), status.executed()),
                (Code::Unavailable, Executed::Unknown),
                "{status}"
            );
        }
        assert!(told.try_recv().is_err(), "once each");
    });
}

#[test]
fn an_answer_to_a_call_that_timed_out_is_ignored_and_its_number_not_used_again() {
    with_raw_server(ChannelConfig::default(), |caller, mut raw| {
        let status = caller.client.say(&payload("a")).timeout(Duration::from_millis(30)).wait().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let (first, _) = raw.next_call();
        assert_eq!(first.kind(), Kind::Request);
        let (cancel, _) = raw.next_call();
        assert_eq!((cancel.kind(), cancel.call_id), (Kind::Cancel, first.call_id));
        let second = caller.client.say(&payload("b")).start();
        let (header, _) = raw.next_call();
        assert_ne!(header.call_id, first.call_id);
        raw.answer(first.call_id, &payload("an answer to the first"));
        raw.answer(header.call_id, &payload("b"));
        raw.answer(header.call_id, &payload("and once more"));
        let (tell, told) = unbounded();
        std::thread::spawn(move || tell.send(block_on(second)).unwrap());
        assert_eq!(told.recv_timeout(LONG).unwrap(), Ok(payload("b")));
        testkit::wait_until("both late answers", LONG, || caller.channel.stats().late == 2);
    });
}

#[test]
fn garbage_from_a_server_ends_the_calls_and_the_channel_connects_again() {
    let mut rng = fastrand::Rng::with_seed(9);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = ChannelConfig::default();
    config.backoff.cap = Duration::from_millis(5);
    let caller = call_to(&[listener.local_addr().unwrap()], config);
    for round in 0..30 {
        let mut raw = Raw::server(&listener);
        let (tell, told) = unbounded();
        let _ = caller
            .client
            .count(&payload(""))
            .wait_for_ready()
            .then(move |outcome| tell.send(outcome).unwrap());
        let (header, _) = raw.next_call();
        match round % 3 {
            // Too long; random; of a kind that servers do not send.
            0 => raw.send_bytes(&[255; 16]),
            1 => raw.send_bytes(
                &[&[0, 0, 0, 40][..], &std::iter::repeat_with(|| rng.u8(..)).take(40).collect::<Vec<_>>()]
                    .concat(),
            ),
            _ => raw.send(&Header::of(Kind::Request, header.call_id), &[]),
        }
        let status = told.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::Unknown), "{status}");
        assert!(raw.next().is_none());
    }
}

#[test]
fn an_answer_that_is_cut_off_ends_its_call_once_and_in_doubt_wherever_the_cut_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = ChannelConfig::default();
    config.backoff.cap = Duration::from_millis(5);
    let caller = call_to(&[listener.local_addr().unwrap()], config);
    let answer = |call| {
        let mut whole = Vec::new();
        wire::put_frame_raw(&Header::of(Kind::Response, call), &payload("x").encode_to_vec(), &mut whole);
        whole
    };
    for cut in 0..answer(1).len() {
        let mut raw = Raw::server(&listener);
        let (tell, told) = unbounded();
        let call = caller.client.count(&payload("")).wait_for_ready();
        let _ = call.then(move |outcome| tell.send(outcome).unwrap());
        let (header, _) = raw.next_call();
        raw.send_bytes(&answer(header.call_id)[..cut]);
        drop(raw);
        let status = told.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(
            (status.code(), status.executed()),
            (Code::Unavailable, Executed::Unknown),
            "cut at {cut}"
        );
        assert!(told.try_recv().is_err(), "once");
    }
}

#[test]
fn an_answer_that_cannot_be_read_or_is_too_long_is_an_error_of_that_call_alone() {
    let mut config = ChannelConfig::default();
    config.body_bytes_max = 1000;
    with_raw_server(config, |caller, mut raw| {
        let calls: Vec<_> = (0..4).map(|_| caller.client.count(&payload("")).start()).collect();
        let numbers: Vec<u64> = (0..4).map(|_| raw.next_call().0.call_id).collect();
        raw.send(&Header::of(Kind::Response, numbers[0]), &[0xff; 3]);
        raw.send(&Header::of(Kind::Response, numbers[1]), &[0; 1001]);
        raw.send(&Header { more: true, ..Header::of(Kind::Response, numbers[2]) }, &[0; 900]);
        raw.send(&Header { more: true, ..Header::of(Kind::Chunk, numbers[2]) }, &[0; 900]);
        raw.answer(numbers[3], &rpc::echo::Counted { calls: 4 });
        let codes: Vec<_> = calls
            .into_iter()
            .map(|call| block_on(call).map_or_else(|status| status.code(), |_| Code::Ok))
            .collect();
        assert_eq!(codes, [Code::Internal, Code::ResourceExhausted, Code::ResourceExhausted, Code::Ok]);
    });
}

#[test]
fn a_server_that_says_no_hello_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = ChannelConfig::default();
    config.connect_timeout = Duration::from_millis(50);
    let caller = call_to(&[listener.local_addr().unwrap()], config);
    let _held = listener.accept().unwrap();
    let status = caller.client.count(&payload("")).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::NotSent));
}

#[test]
fn a_call_to_nobody_fails_at_once_and_one_that_may_wait_does() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], testkit::free_port()));
    let caller = call_to(&[address], ChannelConfig::default());
    let status = caller.client.count(&payload("")).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::NotSent));
    let status = caller
        .client
        .say(&payload(""))
        .wait_for_ready()
        .timeout(Duration::from_millis(50))
        .wait()
        .unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::DeadlineExceeded, Executed::NotSent));
    let waiting = caller.client.say(&payload("x")).wait_for_ready().timeout(LONG).start();
    let _fixture = serve_at(address, ServerConfig::default());
    assert_eq!(block_on(waiting), Ok(payload("x")));
}

#[test]
fn bodies_of_megabytes_pass_both_ways() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let large = payload(vec![9; 3_000_000]);
    let calls: Vec<_> = (0..8).map(|_| caller.client.say(&large).timeout(LONG).start()).collect();
    for call in calls {
        assert!(block_on(call) == Ok(large.clone()), "not the same three million bytes");
    }
    let status = caller.client.say(&payload(vec![0; 5_000_000])).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::ResourceExhausted, Executed::NotSent));
}

#[test]
fn a_small_request_overtakes_the_rest_of_large_ones() {
    with_raw_server(ChannelConfig::default(), |caller, mut raw| {
        // More than the system's buffers hold, so that most of it is still to be sent when the small one comes.
        let large = payload(vec![9; 4_000_000]);
        let _held: Vec<_> = (0..10).map(|_| caller.client.say(&large).timeout(LONG).start()).collect();
        let (first, _) = raw.next_call();
        assert!(first.more);
        let _small = caller.client.count(&payload("small")).timeout(LONG).start();
        let (mut bodies, mut unfinished) = (1, 1);
        loop {
            let (header, _) = raw.next_call();
            if header.method_id == rpc::method_id("rpc.test.Echo/Count") {
                break;
            }
            if header.kind() == Kind::Request {
                (bodies, unfinished) = (bodies + 1, unfinished + 1);
            }
            if !header.more {
                unfinished -= 1;
            }
            assert!(unfinished <= 4, "no more bodies at once than are allowed");
        }
        assert!(bodies < 10 || unfinished > 0, "{bodies} begun, {unfinished} unfinished");
    });
}

#[test]
fn a_small_answer_overtakes_the_rest_of_large_ones() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::client(fixture.server.local_addr());
    let large = payload(vec![9; 4_000_000]);
    for call in 0..10 {
        raw.send(&request(call, "rpc.test.Echo/Wait"), &delay("").encode_to_vec());
    }
    for _ in 0..10 {
        fixture.parked().reply.send(large.clone());
    }
    assert!(raw.next().unwrap().0.more);
    raw.send(&request(99, "rpc.test.Echo/Say"), &payload("small").encode_to_vec());
    let mut finished = 0;
    while let (header, _) = raw.next().unwrap()
        && header.call_id != 99
    {
        finished += usize::from(!header.more);
    }
    assert!(finished < 10);
}
