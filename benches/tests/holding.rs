//! `echoload --shape hold`. Alone in its process, which is the server: its sockets and its memory are looked at, and other tests would be in them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use serde_json::Value;

#[test]
fn held_connections_are_awaited_and_get_one_message_each() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let pid = std::process::id().to_string();
    let args = ["--shape", "hold", "--connections", "50", "--seconds", "0", "--size", "3000", "--pid", &pid];
    let mut command = Command::new(env!("CARGO_BIN_EXE_echoload"));
    let output = command.args(["--json", "--addr", &addr]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["connections"], 50);
    // Fifty threads have been started between the two looks.
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(bytes("fresh_bytes") > bytes("empty_bytes") && report["wakeups"].is_u64(), "{report}");
}
