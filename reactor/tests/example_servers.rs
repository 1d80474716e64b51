//! The small servers among the examples do what they say.
//!
//! 1. `discard` and `daytime`: RFC 863 and 867, also for clients that send what nobody reads.
//! 2. `chargen`: endless, in order, and no faster than it is read.
//! 3. `relay`: both directions, half-closes, a slow reader, a target that is not there, a reset.
//! 4. `idle`: the silent leave, the chatting stay.
//! 5. `http_hello`: pipelining, one byte at a time, HEAD, garbage, what is too long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use support::example::{Running, rest, run};
use support::{BOUND, finish, pattern, reset, until};

/// With two loops.
fn start(name: &str, more: &[&str]) -> Running {
    Running::start(name, "2", more)
}

#[test]
fn discard_takes_all_and_says_nothing() {
    let server = start("discard", &[]);
    let mut client = server.connect();
    client.write_all(&vec![7; 8 << 20]).unwrap();
    finish(&client);
    assert_eq!(rest(&mut client), "");
}

#[test]
fn daytime_tells_the_time_also_to_those_who_talk() {
    let server = start("daytime", &[]);
    for talk in ["", "what time is it?"] {
        let mut client = server.connect();
        let _ = client.write_all(talk.as_bytes());
        let said = rest(&mut client);
        assert!(chrono::DateTime::parse_from_rfc2822(said.trim_end()).is_ok(), "{said:?}");
    }
}

#[test]
fn chargen_sends_as_fast_as_is_read_and_no_faster() {
    let server = start("chargen", &[]);
    let idle = server.connect();
    let mut client = server.connect();
    let printable: Vec<u8> = (b' '..=b'~').collect();
    let mut reader = BufReader::new(&mut client);
    for number in 0..200_000 {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line.len(), 74);
        assert_eq!(line[0], printable[number % 95], "line {number}");
    }
    assert!(server.resident() < 64 * 1024, "{} KiB for one who does not read", server.resident());
    drop(idle);
}

#[test]
fn relay_passes_both_directions_and_their_ends() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
    let mut client = relay.connect();
    client.write_all(b"question").unwrap();
    finish(&client);
    let (mut server, _) = target.accept().unwrap();
    server.set_read_timeout(Some(BOUND)).unwrap();
    assert_eq!(rest(&mut server), "question", "the end of the question comes through");
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "answer");
    // Both ends are told of, with what came from them, in either order.
    let said = [relay.line(), relay.line()].concat();
    assert!(said.contains(": 8 bytes relayed from ") && said.contains(": 6 bytes relayed from "), "{said}");
}

#[test]
fn relay_passes_an_end_that_the_server_makes_first() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
    let mut client = relay.connect();
    let (mut server, _) = target.accept().unwrap();
    server.set_read_timeout(Some(BOUND)).unwrap();
    server.write_all(b"greeting, and no more").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "greeting, and no more");
    client.write_all(b"but I have more to say").unwrap();
    finish(&client);
    assert_eq!(rest(&mut server), "but I have more to say");
}

#[test]
fn relay_holds_little_for_a_slow_reader_and_loses_nothing() {
    const ALL: usize = 64 << 20;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
    let mut client = relay.connect();
    let (mut server, _) = target.accept().unwrap();
    server.set_read_timeout(Some(BOUND)).unwrap();
    let before = relay.resident();
    let writer = std::thread::spawn(move || {
        client.write_all(&pattern(ALL)).unwrap();
        finish(&client);
        client
    });
    // What the kernel's buffers take is taken; the rest waits with its writer.
    let mut got = vec![0; 1 << 20];
    server.read_exact(&mut got).unwrap();
    until("the relay has read what it will", || {
        let first = relay.resident();
        std::thread::sleep(std::time::Duration::from_millis(50));
        relay.resident() == first
    });
    let held = relay.resident() - before;
    assert!(held < 8 * 1024, "{held} KiB are held");
    let mut all = got;
    server.read_to_end(&mut all).unwrap();
    assert!(all == pattern(ALL));
    drop(writer.join().unwrap());
}

#[test]
fn relay_breaks_off_where_the_other_side_did() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
    let mut client = relay.connect();
    let (server, _) = target.accept().unwrap();
    client.write_all(b"x").unwrap();
    reset(server);
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Nobody there at all.
    drop(target);
    let mut client = relay.connect();
    let gone = client.read(&mut [0; 8]);
    assert!(gone.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn idle_closes_the_silent_and_not_the_chatting() {
    let server = start("idle", &["--seconds", "0.5"]);
    let mut chatting = server.connect();
    let mut silent = server.connect();
    silent.set_nonblocking(true).unwrap();
    let mut lines = 0;
    let deadline = Instant::now() + BOUND;
    loop {
        assert!(Instant::now() < deadline, "the silent one stays");
        chatting.write_all(b"hi\n").unwrap();
        chatting.read_exact(&mut [0; 3]).unwrap();
        lines += 1;
        match silent.read(&mut [0]) {
            Ok(0) => break,
            Ok(_) => panic!("the silent one was sent something"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert!(lines > 0);
}

#[test]
fn http_hello_answers_requests_however_they_arrive() {
    let server = start("http_hello", &[]);
    let hello = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, world!\n";
    let mut client = server.connect();
    // Three in one write, one of them with a body.
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcHEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let head_only = hello.trim_end_matches("Hello, world!\n");
    let expected = format!("{hello}{hello}{head_only}");
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    // One byte at a time, on the same connection; this one ends it.
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(
        rest(&mut client),
        "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nHello, world!\n"
    );
}

#[test]
fn http_hello_refuses_what_is_no_request() {
    let server = start("http_hello", &[]);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let large = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n";
    let two_lengths = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    let signed = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc";
    let no_host = "GET / HTTP/1.1\r\n\r\n";
    let two_hosts = "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n";
    for garbage in [
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        large,
        two_lengths,
        signed,
        no_host,
        two_hosts,
        &long,
    ] {
        let mut client = server.connect();
        let _ = client.write_all(garbage.as_bytes());
        let answer = rest(&mut client);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer:?}");
    }
    let mut client = server.connect();
    client.write_all(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert!(rest(&mut client).starts_with("HTTP/1.1 405"));
    // Two lengths that agree are one; who waits for leave to send a body is told that it is not wanted.
    let mut client = server.connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        .unwrap();
    assert!(rest(&mut client).starts_with("HTTP/1.1 200"));
    let mut client = server.connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert!(rest(&mut client).starts_with("HTTP/1.1 417"));
}

#[test]
fn a_signal_ends_them_and_what_was_sent_is_delivered() {
    for name in ["chargen", "chat_hub", "daytime", "discard", "echo", "http_hello", "idle", "relay"] {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = target.local_addr().unwrap().to_string();
        let more: &[&str] = if name == "relay" { &["--to", &to] } else { &[] };
        let mut server = start(name, more);
        assert!(server.terminate().success(), "{name}");
        assert!(TcpStream::connect(server.address).is_err(), "{name} still listens");
    }
    let mut server = start("idle", &[]);
    let mut client = server.connect();
    client.write_all(b"hello\n").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let client = std::thread::spawn(move || rest(&mut client));
    assert!(server.terminate().success());
    assert_eq!(client.join().unwrap(), "");
    assert!(server.line().ends_with("the loop is stopping"));
}

#[test]
fn what_cannot_be_done_is_said_in_a_line_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["chargen", "daytime", "discard", "http_hello", "idle"] {
        let (output, out, err) = run(name, &["--listen", &address]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(
            err.starts_with(&format!("cannot listen on {address}: ")) && err.lines().count() == 1,
            "{err}"
        );
        assert_eq!(out, "");
        let (output, _, err) = run(name, &["--listen", "nonsense"]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(err.contains("nonsense"), "{err}");
    }
}

#[test]
fn ping_pong_bounces_blocks_and_says_how_many() {
    let server = start("echo", &[]);
    let address = server.address.to_string();
    let (output, out, err) = run(
        "ping_pong",
        &[
            "--connect",
            &address,
            "--connections",
            "7",
            "--size",
            "100000",
            "--seconds",
            "1",
            "--threads",
            "2",
        ],
    );
    assert!(output.status.success(), "{err}");
    assert!(out.starts_with("7 of 7 connections, ") && out.contains("blocks of 100000 bytes/s"), "{out}");
    let rate: f64 = out.split(", ").nth(1).unwrap().trim_end_matches(" MiB/s").parse().unwrap();
    assert!(rate > 0.0, "{out}");
    drop(server);
    let (output, _, err) = run("ping_pong", &["--connect", &address, "--connections", "3", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.starts_with(&format!("3 not connected to {address}, 0 lost: ")), "{err}");
}
