//! `chatload` against the real server, and against one that breaks its promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod faulty;
mod running;

use std::net::SocketAddr;

use testkit::Chatd;

use faulty::{Fault, FaultyServer};
use running::{chatload, words};

#[test]
fn a_server_that_keeps_its_promises_gets_a_clean_verdict() {
    let chatd = Chatd::builder(testkit::bin("chatd")).start().unwrap();
    let pid = chatd.pid().to_string();
    let args = ["--shape", "pairs", "--users", "10", "--window", "8", "--seconds", "0.5", "--warmup", "0.2"];
    let (output, report) = chatload(chatd.chat_addr(), &[&args[..], &["--pid", &pid]].concat());
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).contains("clean: "), "{}", words(&output));
    let report = report.unwrap();
    let verdict = &report["verdict"];
    assert!(verdict["sent"].as_u64() > Some(80), "more than the first windows: {report}");
    assert_eq!(
        (&verdict["accepted"], &verdict["received"]),
        (&verdict["sent"], &verdict["sent"]),
        "{report}"
    );
    assert!(report["server"]["after"]["rss_bytes"].as_u64() > Some(0), "{report}");
}

#[test]
fn idle_users_come_in_by_token_and_stay() {
    let chatd = Chatd::builder(testkit::bin("chatd")).start().unwrap();
    let pid = chatd.pid().to_string();
    let (output, report) =
        chatload(chatd.chat_addr(), &["--shape", "idle", "--conns", "50", "--seconds", "0.2", "--pid", &pid]);
    assert!(output.status.success(), "{}", words(&output));
    let report = report.unwrap();
    assert_eq!((&report["users"], &report["synced"], &report["closed"]), (&50.into(), &50.into(), &0.into()));
    assert!(report["bytes_per_connection"].is_number(), "{report}");
}

#[test]
fn a_run_id_serves_once() {
    let chatd = Chatd::builder(testkit::bin("chatd")).start().unwrap();
    let args = ["--shape", "pairs", "--users", "2", "--seconds", "0.1", "--warmup", "0", "--run-id", "again"];
    assert!(chatload(chatd.chat_addr(), &args).0.status.success());
    let (output, report) = chatload(chatd.chat_addr(), &args);
    assert_eq!((output.status.code(), report), (Some(1), None));
    assert!(words(&output).contains("used only once"), "{}", words(&output));
}

#[test]
fn what_cannot_be_run_is_wrong_usage() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for args in [&["--shape", "pairs", "--users", "3"][..], &["--shape", "pairs", "--pid", "4194304"]] {
        let (output, _) = chatload(nobody, args);
        assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    }
    let (output, _) = chatload(nobody, &["--shape", "pairs", "--users", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("could not connect"), "{}", words(&output));
}

/// What breaks: a push is left out; a push comes twice; two pushes change places; an ok comes twice; an ok names a place that is not the
/// message's; a send is refused; a connection is closed. What must hold: each is named in the verdict, and the exit code is 1.
#[test]
fn every_broken_promise_is_found() {
    let args = [
        "--shape",
        "pairs",
        "--users",
        "4",
        "--window",
        "4",
        "--seconds",
        "0.3",
        "--warmup",
        "0",
        "--drain",
        "1",
    ];
    let (output, report) = chatload(FaultyServer::start(None), &args);
    assert!(output.status.success(), "without a fault: {}\n{report:?}", words(&output));
    for (fault, counts) in [
        (Fault::LosePush, &["lost", "holes"][..]),
        (Fault::DoublePush, &["doubled"]),
        (Fault::SwapPushes, &["disordered"]),
        (Fault::DoubleOk, &["doubled"]),
        (Fault::WrongPlace, &["holes"]),
        (Fault::Refuse, &["refused"]),
        (Fault::Close, &["closed"]),
    ] {
        let (output, report) = chatload(FaultyServer::start(Some(fault)), &args);
        assert_eq!(output.status.code(), Some(1), "{fault:?}: {}", words(&output));
        let verdict = &report.unwrap()["verdict"];
        for count in counts {
            assert!(verdict[count].as_u64() > Some(0), "{fault:?}: no {count} in {verdict}");
        }
        assert!(verdict["trouble"].is_string(), "{fault:?}: {verdict}");
    }
}

#[test]
fn a_message_that_the_server_wants_again_is_sent_again_and_counts_once() {
    let args = ["--shape", "pairs", "--users", "4", "--window", "4", "--seconds", "0.3", "--warmup", "0"];
    let (output, report) = chatload(FaultyServer::start(Some(Fault::Overload)), &args);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(report.unwrap()["verdict"]["resent"], 1);
}
