//! The operator's pages: `/metrics` and `/connz`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Chatd, MariaDb, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn metrics(chatd: &Chatd) -> String {
    let (status, text) = chatd.admin_get("/metrics").unwrap();
    assert_eq!(status, 200);
    text
}

/// The value of a metric, by its name and labels as they are written.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn connz(chatd: &Chatd) -> Value {
    let (status, text) = chatd.admin_get("/connz").unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn metrics_count_what_happens() {
    let chatd = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).arg("--threads").arg("1").start().unwrap();
    let (mut amy, _bob) = (chatd.client_as("amy"), chatd.client_as("bob"));
    for number in 0..5 {
        amy.ok(json!({"type": "send", "user": "bob", "text": number.to_string()}));
    }
    // A loop's counters are published at the end of its turns.
    wait_until("the counters", LONG, || value(&metrics(&chatd), "chatd_store_messages_total") == Some(5.0));
    let text = metrics(&chatd);
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(value(&text, "chatd_users_online"), Some(2.0));
    assert!(value(&text, "chatd_connections{loop=\"0\"}").is_some_and(|open| open >= 2.0), "{text}");
    assert!(value(&text, "chatd_lines_in_total{loop=\"0\"}").is_some_and(|lines| lines >= 7.0));
    assert!(value(&text, "chatd_log_records_total").is_some_and(|records| records >= 2.0));
    assert_eq!(value(&text, "chatd_log_dropped_by_cause_total{cause=\"full\"}"), Some(0.0));
    assert_eq!(value(&text, "chatd_log_dropped_by_level_total{level=\"error\"}"), Some(0.0));
    assert!(value(&text, "chatd_log_threads").is_some_and(|threads| threads >= 1.0), "{text}");
    assert!(!text.contains("chatd_pool"), "there is no pool");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("chatd_") && number.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn the_pool_is_seen_going_down_and_coming_back() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start().unwrap();
    let chatd =
        Chatd::builder(env!("CARGO_BIN_EXE_chatd")).arg("--mysql").arg(server.url("chat")).start().unwrap();
    let mut amy = chatd.client_as("amy");
    let state =
        |name: &str| value(&metrics(&chatd), &format!("chatd_pool_state{{state=\"{name}\"}}")) == Some(1.0);
    assert!(state("up"), "{}", metrics(&chatd));
    server.kill9();
    wait_until("down", LONG, || {
        amy.request(json!({"type": "conversations"}));
        state("down")
    });
    server.restart().unwrap();
    wait_until("up again", LONG, || state("up"));
    assert!(value(&metrics(&chatd), "chatd_pool_connect_failures_total").is_some_and(|count| count > 0.0));
}

#[test]
fn connz_says_who_is_there_and_why_others_went() {
    let chatd = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    let _amy = chatd.client_as("amy");
    let stranger = chatd.client();
    let page = connz(&chatd);
    assert_eq!(page["connections"], json!(2));
    let open = page["open"].as_array().unwrap();
    assert_eq!(open.len(), 2);
    assert!(open.iter().all(|conn| conn["address"].as_str().unwrap().starts_with("127.0.0.1:")), "{page}");
    assert_eq!(open.iter().filter(|conn| conn["user"].is_null()).count(), 1, "the stranger");
    let mine = open.iter().find(|conn| !conn["user"].is_null()).unwrap();
    assert!(mine["bytes_in"].as_u64().unwrap() > 0 && mine["lines_in"].as_u64().unwrap() >= 2, "{mine}");
    drop(stranger);
    wait_until("the end is told", LONG, || !connz(&chatd)["closed"].as_array().unwrap().is_empty());
    let closed = connz(&chatd)["closed"][0].clone();
    assert!(!closed["reason"].as_str().unwrap().is_empty());
    assert!(closed["closed_ms"].as_u64().unwrap() >= closed["opened_ms"].as_u64().unwrap());
    assert_eq!(chatd.admin_get("/nothing").unwrap().0, 404);
}
