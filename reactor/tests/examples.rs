//! The examples do what they say.
//!
//! 1. `echo`: its server answers its own client, over several loops; `--help` teaches; a wrong flag, an address in use and a server that is not
//!    there are errors that a person can read.
//! 2. `chat_hub`: a line reaches everybody but its speaker, on all loops, once.
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

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use support::example::{Running, run};
use support::{BOUND, connect, until};

#[test]
fn echo_answers_its_own_client() {
    let server = Running::start("echo", "2", &[]);
    let address = server.address.to_string();
    for (connections, messages, size) in [("1", "100", "1"), ("8", "200", "64"), ("2", "2", "3000000")] {
        let arguments = [
            "client",
            "--connect",
            &address,
            "--connections",
            connections,
            "--messages",
            messages,
            "--size",
            size,
        ];
        let (output, out, err) = run("echo", &arguments);
        assert!(output.status.success(), "{err}");
        assert!(out.contains("messages/s"), "{out}");
        let all = connections.parse::<u64>().unwrap() * messages.parse::<u64>().unwrap();
        assert!(
            out.starts_with(&format!("{all} messages of {size} bytes over {connections} connections")),
            "{out}"
        );
    }
}

#[test]
fn the_echo_client_notices_a_server_that_changes_bytes() {
    let liar = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = liar.local_addr().unwrap().to_string();
    let lying = std::thread::spawn(move || {
        let (mut peer, _) = liar.accept().unwrap();
        let mut message = [0; 10];
        peer.read_exact(&mut message).unwrap();
        message[7] ^= 1;
        peer.write_all(&message).unwrap();
        // Until the client has gone.
        let _ = peer.read(&mut message);
    });
    let (output, _, err) = run("echo", &["client", "--connect", &address, "--size", "10"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("byte 7"), "{err}");
    lying.join().unwrap();
}

#[test]
fn the_examples_explain_themselves_and_their_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for name in ["echo", "chat_hub"] {
        let (output, out, _) = run(name, &["--help"]);
        assert!(
            output.status.success() && out.contains("--listen ADDR") && out.contains("--threads N"),
            "{out}"
        );
        let wrong: [&[&str]; 5] = [
            &[],
            &["--listen"],
            &["--listen", "nonsense"],
            &["--colour", "red", "--listen", "127.0.0.1:0"],
            &["--listen", &taken.1],
        ];
        for arguments in wrong {
            let (output, out, err) = run(name, arguments);
            assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}");
            assert!(
                err.starts_with(&format!("{name}: ")) && err.lines().count() == 1 && out.is_empty(),
                "{err}"
            );
        }
    }
    let (output, _, err) = run("echo", &["client", "--connect", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("cannot connect to") && err.contains("refused"), "{err}");
}

#[test]
fn a_line_in_the_hub_reaches_everybody_but_its_speaker() {
    for threads in ["1", "3"] {
        let hub = Running::start("chat_hub", threads, &[]);
        let mut clients: Vec<_> = (0..6).map(|_| BufReader::new(connect(hub.address))).collect();
        // Who is heard by the first has been accepted; until then it says so again.
        clients[0].get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        for speaker in 1..clients.len() {
            let line = format!("{speaker} is here\n");
            let mut heard = String::new();
            until("the speaker is heard", || {
                clients[speaker].get_mut().write_all(line.as_bytes()).unwrap();
                // A read that times out keeps what it has.
                let _ = clients[0].read_line(&mut heard);
                heard.ends_with(&line)
            });
        }
        clients[0].get_ref().set_read_timeout(Some(BOUND)).unwrap();
        for speaker in 0..clients.len() {
            let text: String = (0..50).map(|n| format!("{speaker} says {n}\n")).collect();
            clients[speaker].get_mut().write_all(text.as_bytes()).unwrap();
            for listener in (0..clients.len()).filter(|listener| *listener != speaker) {
                let lines = clients[listener].by_ref().lines().map(Result::unwrap);
                let mut said = lines.filter(|line| line.contains(" says "));
                for n in 0..50 {
                    assert_eq!(said.next().unwrap(), format!("{speaker} says {n}"), "heard by {listener}");
                }
            }
        }
    }
}
