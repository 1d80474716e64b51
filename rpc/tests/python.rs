//! `docs/rpc.md` is enough to write a client in another language.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rpc::ServerConfig;
use support::*;

/// A Python that has the `protobuf` package. Without one there is no test, and that is an error: a page that nobody reads is worth nothing.
fn python() -> &'static str {
    let has = |python: &&str| {
        let tried =
            Command::new(python).args(["-c", "import google.protobuf"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find(has);
    found.expect("this test needs python3 and its protobuf package: cargo xtask setup")
}

#[test]
fn a_client_that_knows_the_page_alone_can_do_all_that_is_on_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fixture = serve(ServerConfig::default());
    let address = fixture.server.local_addr();
    let mut child = Command::new(python())
        .arg(folder.join("tests/python/client.py"))
        .arg(folder.join("../docs/rpc.md"))
        .arg(folder.join("proto/echo.proto"))
        .args([address.ip().to_string(), address.port().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in std::io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
        match line.as_str() {
            "answer the one that waits" => {
                let Parked { cx, reply, .. } = fixture.parked();
                assert!(
                    cx.remaining().is_some_and(|left| left <= Duration::from_secs(30)),
                    "its time came along"
                );
                reply.send(payload("late"));
            }
            "ready to drain" => assert!(fixture.server.drain(LONG), "the client leaves by itself"),
            _ => {}
        }
        said.push(line);
    }
    assert!(child.wait().unwrap().success(), "the last it said: {:?}", said.last());
    assert_eq!(said.last().map(String::as_str), Some("drained"));
    assert!(fixture.parked().cx.is_cancelled(), "what it gave up");
}
