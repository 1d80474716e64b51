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
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};

use support::{BOUND, connect, finish, pattern, reset, until};

struct Running {
    child: Child,
    address: SocketAddr,
    /// Kept open: a program whose standard error is closed cannot say anything.
    _errors: BufReader<ChildStderr>,
}

impl Running {
    fn start(name: &str, more: &[&str]) -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--threads", "2"]).args(more).stderr(Stdio::piped());
        let mut child = command.spawn().expect("an example that `cargo test -p reactor` has built");
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("it said {line:?}")), _errors: errors }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rest(client: &mut TcpStream) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn discard_takes_all_and_says_nothing() {
    let server = Running::start("discard", &[]);
    let mut client = server.connect();
    client.write_all(&vec![7; 8 << 20]).unwrap();
    finish(&client);
    assert_eq!(rest(&mut client), "");
}

#[test]
fn daytime_tells_the_time_also_to_those_who_talk() {
    let server = Running::start("daytime", &[]);
    for talk in ["", "what time is it?"] {
        let mut client = server.connect();
        let _ = client.write_all(talk.as_bytes());
        let said = rest(&mut client);
        assert!(chrono::DateTime::parse_from_rfc2822(said.trim_end()).is_ok(), "{said:?}");
    }
}

#[test]
fn chargen_sends_as_fast_as_is_read_and_no_faster() {
    let server = Running::start("chargen", &[]);
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
    let relay = Running::start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
    let mut client = relay.connect();
    client.write_all(b"question").unwrap();
    finish(&client);
    let (mut server, _) = target.accept().unwrap();
    server.set_read_timeout(Some(BOUND)).unwrap();
    assert_eq!(rest(&mut server), "question", "the end of the question comes through");
    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "answer");
}

#[test]
fn relay_holds_little_for_a_slow_reader_and_loses_nothing() {
    const ALL: usize = 64 << 20;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Running::start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
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
    let relay = Running::start("relay", &["--to", &target.local_addr().unwrap().to_string()]);
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
    let server = Running::start("idle", &["--seconds", "0.5"]);
    let mut chatting = server.connect();
    let mut silent = server.connect();
    silent.set_nonblocking(true).unwrap();
    let mut lines = 0;
    loop {
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
    let server = Running::start("http_hello", &[]);
    let hello = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nHello, world!\n";
    let mut client = server.connect();
    // Three in one write, one of them with a body.
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcHEAD / HTTP/1.1\r\n\r\n")
        .unwrap();
    let head_only = hello.trim_end_matches("Hello, world!\n");
    let expected = format!("{hello}{hello}{head_only}");
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    // One byte at a time, on the same connection; this one ends it.
    for byte in b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(
        rest(&mut client),
        "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nHello, world!\n"
    );
}

#[test]
fn http_hello_refuses_what_is_no_request() {
    let server = Running::start("http_hello", &[]);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let large = "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n";
    for garbage in ["\u{1}\u{2}\u{3}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", large, &long] {
        let mut client = server.connect();
        let _ = client.write_all(garbage.as_bytes());
        let answer = rest(&mut client);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer:?}");
    }
    let mut client = server.connect();
    client.write_all(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert!(rest(&mut client).starts_with("HTTP/1.1 405"));
}
