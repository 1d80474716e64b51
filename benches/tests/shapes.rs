//! The shapes of `chatload` beside pairs and idle users, against the real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod running;

use serde_json::Value;
use testkit::Chatd;

use running::{chatload, words};

/// Hashing is not what is looked at.
const CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";

fn chatd() -> Chatd {
    Chatd::builder(testkit::bin("chatd")).config(CONFIG).start().unwrap()
}

/// A run that must end well.
fn clean(chatd: &Chatd, args: &str) -> Value {
    let args: Vec<&str> = args.split(' ').collect();
    let (output, report) = chatload(chatd.chat_addr(), &args);
    assert!(output.status.success(), "{}", words(&output));
    assert!(words(&output).contains("clean"), "{}", words(&output));
    report.unwrap()
}

#[test]
fn users_who_were_away_fetch_all_that_was_stored() {
    let report = clean(&chatd(), "--shape offline --users 6 --messages 900 --window 8");
    assert_eq!((&report["accepted"], &report["fetched"]["messages"]), (&900.into(), &900.into()), "{report}");
}

/// What breaks: the server is killed at the moment in which the last `ok` has come. What must hold: nothing is lost, nothing is doubled.
#[test]
fn what_was_answered_outlives_a_kill() {
    let chatd = chatd();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let (state, pid) = (state.display(), chatd.pid());
    let stored = clean(
        &chatd,
        &format!("--shape store --users 6 --messages 900 --window 8 --state {state} --then-kill {pid}"),
    );
    assert_eq!(stored["accepted"], 900);
    chatd.restart().unwrap();
    let fetched = clean(&chatd, &format!("--shape fetch --users 6 --state {state}"));
    assert_eq!(fetched["fetched"]["messages"], 900, "{fetched}");
}

#[test]
fn a_login_storm_lets_everybody_in() {
    let report = clean(&chatd(), "--shape storm --users 20 --warmup 0 --seconds 1.5");
    assert!(report["logins"].as_u64() > Some(0), "{report}");
}

#[test]
fn on_a_mixed_day_everybody_gets_their_messages() {
    let report = clean(&chatd(), "--shape mixed --users 200 --rate 200 --warmup 0 --seconds 1.5");
    assert_eq!((&report["in_pairs"], &report["in_groups"]), (&10.into(), &20.into()));
    assert!(report["verdict"]["accepted"].as_u64() > Some(0), "{report}");
}

#[test]
fn a_rate_of_its_own_is_kept_and_the_recovery_behind_it_is_told() {
    let report = clean(
        &chatd(),
        "--shape pairs --users 10 --window 64 --rate 300 --then-rate 100 --warmup 0 --seconds 0.5",
    );
    assert!(report["pace"]["recovered_ms"].is_number(), "{report}");
    assert_eq!(report["pace"]["offered_per_second"], 300.0, "{report}");
}
