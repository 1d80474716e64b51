//! Fields of a thread and of a record, and the limit of a place that logs too much.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::fs;
use std::io::BufReader;
use std::time::Duration;

use asynclog::{Builder, RateLimit, Verifier};
use common::{Gate, LONG, info};
use log::{Level, Log, Record};

#[test]
fn fields_stand_between_the_place_and_the_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).build().unwrap();
    {
        let _conv = asynclog::context("conv", 55);
        let pairs = [("took_us", 12), ("members", 3)];
        let mut record = Record::builder();
        record.target("chatd").file(Some("chatd/src/session.rs")).line(Some(142)).key_values(&pairs);
        log.log(&record.args(format_args!("sent")).build());
        info(&log, "with context");
    }
    info(&log, "without");
    drop(guard);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(" chatd session.rs:142 conv=55 took_us=12 members=3 #1.1 | sent\n"), "{text}");
    assert!(text.contains(" test - conv=55 #1.2 | with context\n"), "{text}");
    assert!(text.contains(" test - #1.3 | without\n"), "{text}");
    let mut verifier = Verifier::default();
    verifier.read("a.log", BufReader::new(text.as_bytes())).unwrap();
    assert!(verifier.finish().is_proven());
}

#[test]
fn a_field_cannot_forge_the_end_of_the_head() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
    let pairs = [("k", "a | b\n2026")];
    log.log(&Record::builder().target("t").key_values(&pairs).args(format_args!("m")).build());
    drop(guard);
    assert!(gate.text().ends_with(" t - k=a\\x20|\\x20b\\n2026 | m\n"), "{}", gate.text());
}

#[test]
fn a_place_that_logs_too_much_is_limited_and_says_so() {
    let gate = Gate::default();
    // So long that the test is within one time.
    let limit = RateLimit { records: 3, per: Duration::from_secs(1_000_000_000) };
    let (log, guard) = Builder::new().writer(gate.clone()).rate_limit(limit).build().unwrap();
    let at = |line, level| {
        let mut record = Record::builder();
        record.level(level).target("t").file(Some("a.rs")).line(Some(line));
        log.log(&record.args(format_args!("{line}")).build());
    };
    (0..10).for_each(|_| at(1, Level::Info));
    (0..10).for_each(|_| at(2, Level::Error));
    guard.barrier(LONG).unwrap();
    let count = |text| gate.messages().iter().filter(|m| *m == text).count();
    assert_eq!((count("1"), count("2")), (3, 10));
    assert_eq!((guard.stats().produced, guard.stats().suppressed), (13, 7));
}

#[test]
fn the_next_record_of_a_place_tells_what_was_suppressed() {
    let gate = Gate::default();
    let limit = RateLimit { records: 1, per: Duration::from_millis(1) };
    let (log, guard) = Builder::new().writer(gate.clone()).rate_limit(limit).build().unwrap();
    let told = || {
        let tells = |m: &String| m.ends_with(" records of test were suppressed here by the rate limit");
        guard.barrier(LONG).unwrap();
        gate.messages().iter().any(tells)
    };
    common::wait_until("a line about suppressed records", || {
        (0..1000).for_each(|_| info(&log, "wild"));
        guard.stats().suppressed > 0 && told()
    });
}
