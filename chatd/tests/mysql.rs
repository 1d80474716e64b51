//! `chatd` on a MariaDB server, as its operator meets it: what a start would do, what it refuses, and what clients see while the database is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Chatd, ChatdBuilder, ExitReport, MariaDb, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn on(server: &MariaDb) -> ChatdBuilder {
    Chatd::builder(env!("CARGO_BIN_EXE_chatd")).arg("--mysql").arg(server.url("chat"))
}

fn check_db(builder: ChatdBuilder) -> ExitReport {
    let nothing: [&str; 0] = [];
    builder.arg("--check-db").run_expecting_exit(nothing).expect("it ends by itself")
}

#[test]
fn check_db_says_what_a_start_would_do_and_does_nothing() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start().unwrap();
    for _ in 0..2 {
        let report = check_db(on(&server));
        assert_eq!(report.code, Some(0), "{}", report.stderr);
        assert!(report.stdout.contains("no tables yet"), "{}", report.stdout);
        assert!(report.stdout.contains("migration 1 (direct), migration 2 (groups)"), "{}", report.stdout);
    }
    drop(on(&server).start().unwrap());
    let report = check_db(on(&server));
    assert!(report.stdout.contains("schema version 2; nothing to do"), "{}", report.stdout);

    // The same for a file.
    let folder = tempfile::tempdir().unwrap();
    let file = || {
        Chatd::builder(env!("CARGO_BIN_EXE_chatd"))
            .data_dir(folder.path())
            .arg("--data-dir")
            .arg(folder.path())
    };
    assert!(check_db(file()).stdout.contains("no tables yet"));
    assert!(!folder.path().join("chat.sqlite3").exists());
    drop(file().start().unwrap());
    assert!(check_db(file()).stdout.contains("nothing to do"));
}

#[test]
fn a_server_that_may_lose_what_it_acknowledged_is_refused_unless_told_otherwise() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start_with(&["--innodb-flush-log-at-trx-commit=2"]).unwrap();
    let nothing: [&str; 0] = [];
    let report = on(&server).run_expecting_exit(nothing).unwrap();
    assert_eq!(report.code, Some(1), "{}", report.stderr);
    assert!(report.stderr.contains("innodb_flush_log_at_trx_commit = 2"), "{}", report.stderr);
    let relaxed = on(&server).more_config("[store.mysql]\ndurability = \"relaxed\"\n");
    let chatd = relaxed.start().unwrap();
    chatd.client_as("amy").ok(json!({"type": "ping"}));
}

#[test]
fn while_the_database_is_gone_requests_are_unavailable_at_once_and_sessions_live_on() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start().unwrap();
    let chatd = on(&server).start().unwrap();
    let (mut amy, mut bob) = (chatd.client_as("amy"), chatd.client_as("bob"));
    let send = |text: &str| json!({"type": "send", "user": "bob", "client_id": text, "text": text});
    amy.ok(send("one"));
    server.kill9();
    let began = Instant::now();
    for number in 0..20 {
        let reply = amy.request(send(&format!("no {number}")));
        assert_eq!(reply["code"], json!("unavailable"), "{reply}");
        amy.ok(json!({"type": "ping"}));
    }
    assert!(began.elapsed() < LONG, "20 refusals took {:?}", began.elapsed());
    server.restart().unwrap();
    wait_until("the database is used again", LONG, || amy.request(send("two"))["type"] == "ok");
    let texts = [(); 2].map(|()| bob.next_push("message")["text"].clone());
    assert_eq!(texts, [json!("one"), json!("two")]);
}
