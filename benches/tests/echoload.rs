//! `echoload` against servers that keep an echo server's promises, and against those that break one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// What a server does with its first block of at least two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Changes its last byte.
    Change,
    /// Sends it twice.
    Double,
    /// Does not send it.
    Lose,
    /// Sends its last byte first.
    Move,
    /// Closes instead.
    Close,
}

/// Starts an echo server on a free port. Its threads end with their connections, and the listener's with the test.
fn server(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            // One faulty connection among the others is to be noticed.
            let fault = if number == 0 { fault } else { Fault::None };
            thread::spawn(move || serve(stream, fault));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, mut fault: Fault) {
    let mut buffer = [0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut buffer) {
        let block = &mut buffer[..got];
        let times = match std::mem::replace(&mut fault, Fault::None) {
            Fault::None => 1,
            Fault::Change => {
                block[got - 1] ^= 1;
                1
            }
            Fault::Double => 2,
            Fault::Lose => 0,
            Fault::Move => {
                block.rotate_right(1);
                1
            }
            Fault::Close => return,
        };
        for _ in 0..times {
            if stream.write_all(block).is_err() {
                return;
            }
        }
    }
}

fn echoload(addr: SocketAddr, args: &[&str]) -> (Output, Option<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echoload"));
    let output = command.args(["--addr", &addr.to_string(), "--json"]).args(args).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).ok();
    (output, report)
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_message_is_counted_once_over_all_connections_and_threads() {
    let args = ["--connections", "5", "--messages", "40", "--size", "1000", "--window", "3", "--check"];
    for threads in ["1", "2"] {
        let (output, report) = echoload(server(Fault::None), &[&args[..], &["--threads", threads]].concat());
        assert!(output.status.success(), "{}", words(&output));
        let report = report.unwrap();
        assert_eq!((&report["messages"], &report["starved"]), (&200.into(), &0.into()), "{report}");
        let spread = &report["per_connection"];
        assert_eq!((&spread["least"], &spread["most"]), (&40.into(), &40.into()), "{report}");
    }
}

#[test]
fn a_message_larger_than_all_buffers_comes_back_whole() {
    let args = ["--connections", "2", "--messages", "2", "--size", "12000000", "--check"];
    let (output, report) = echoload(server(Fault::None), &args);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(report.unwrap()["messages"], 4);
}

#[test]
fn a_run_by_the_clock_ends_and_names_what_the_server_used() {
    let pid = std::process::id().to_string();
    let args = ["--connections", "3", "--seconds", "0.3", "--warmup", "0.1", "--pid", &pid];
    let (output, report) = echoload(server(Fault::None), &args);
    assert!(output.status.success(), "{}", words(&output));
    let report = report.unwrap();
    assert!(report["messages"].as_u64() > Some(0), "{report}");
    assert!(report["server_cpu_ns_per_message"].as_f64() > Some(0.0), "{report}");
    assert!(report["latency_us"]["count"].as_u64() > Some(0), "{report}");
}

/// What breaks, on one of three connections, once: a byte is changed; a block comes twice; a block's bytes change places; the connection is closed.
/// What must hold: it is named, no figure is given, and the exit code is 1.
#[test]
fn a_server_that_is_no_echo_is_noticed() {
    for (fault, word) in [
        (Fault::Change, "byte 63 came back changed"),
        // Taken for the answer to the second message, if that was sent already.
        (Fault::Double, "connection 0"),
        (Fault::Move, "byte 0 came back changed"),
        (Fault::Close, "closed by the server"),
    ] {
        let args = ["--connections", "3", "--messages", "20", "--check"];
        let (output, report) = echoload(server(fault), &args);
        assert_eq!((output.status.code(), report), (Some(1), None), "{fault:?}: {}", words(&output));
        assert!(words(&output).contains(word), "{fault:?}: {}", words(&output));
    }
}

#[test]
fn without_a_look_at_every_byte_too_many_or_too_few_are_noticed_all_the_same() {
    for (fault, word) in
        [(Fault::Double, "never sent"), (Fault::Lose, "64 bytes on 1 connections never came")]
    {
        let args = ["--connections", "3", "--messages", "20", "--patience", "3"];
        let (output, report) = echoload(server(fault), &args);
        assert_eq!((output.status.code(), report), (Some(1), None), "{fault:?}: {}", words(&output));
        assert!(words(&output).contains(word), "{fault:?}: {}", words(&output));
    }
}

#[test]
fn a_lost_block_shows_as_a_changed_byte_when_others_follow_it() {
    let args = ["--connections", "1", "--messages", "20", "--window", "4", "--size", "3000", "--check"];
    let (output, _) = echoload(server(Fault::Lose), &args);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("byte 0 came back changed"), "{}", words(&output));
}

#[test]
fn connections_can_be_opened_and_closed_one_after_the_other() {
    for flags in [&[][..], &["--lockstep"]] {
        let args = [&["--shape", "cycles", "--messages", "300"][..], flags].concat();
        let (output, report) = echoload(server(Fault::None), &args);
        assert!(output.status.success(), "{}", words(&output));
        assert_eq!(report.unwrap()["cycles"], 300);
    }
}

#[test]
fn a_sink_counts_what_was_sent_and_does_not_wait_for_answers() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    let args =
        ["--shape", "sink", "--connections", "2", "--size", "65536", "--seconds", "0.3", "--warmup", "0.1"];
    let (output, report) = echoload(addr, &args);
    assert!(output.status.success(), "{}", words(&output));
    assert!(report.unwrap()["mib_per_second"].as_f64() > Some(0.0));
}

/// A hub that sends every line to all others; its third line not to the first connection, or twice.
fn hub(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let members: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            members.lock().unwrap().push(stream.try_clone().unwrap());
            let members = Arc::clone(&members);
            thread::spawn(move || {
                for (count, line) in BufReader::new(stream).lines().map_while(Result::ok).enumerate() {
                    let mut members = members.lock().unwrap();
                    for (at, member) in members.iter_mut().enumerate().filter(|(at, _)| *at != number) {
                        let times = match fault {
                            Fault::Double if (count, at) == (2, 0) => 2,
                            Fault::Lose if (count, at) == (2, 0) => 0,
                            _ => 1,
                        };
                        // A member that has left misses it.
                        let _ = member.write_all(format!("{line}\n").repeat(times).as_bytes());
                    }
                }
            });
        }
    });
    addr
}

/// What breaks: a line comes twice to one connection, or not at all. What must hold: it is noticed, and a hub without a fault is not blamed.
#[test]
fn a_line_that_does_not_come_once_to_all_is_noticed() {
    let args = ["--shape", "hub", "--connections", "5", "--messages", "2", "--size", "40"];
    let (output, report) = echoload(hub(Fault::None), &args);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(report.unwrap()["lines"], 2);
    for fault in [Fault::Double, Fault::Lose] {
        let (output, report) = echoload(hub(fault), &[&args[..], &["--patience", "3"]].concat());
        assert_eq!((output.status.code(), report), (Some(1), None), "{fault:?}: {}", words(&output));
    }
}

#[test]
fn what_cannot_be_run_is_wrong_usage() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for args in [
        &["--shape", "hold"][..],
        &["--connections", "1", "--threads", "2"],
        &["--pid", "4194304"],
        &["--connections", "0"],
    ] {
        let (output, _) = echoload(nobody, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", words(&output));
    }
    let (output, _) = echoload(nobody, &["--connections", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("could not connect (connection 0)"), "{}", words(&output));
}
