//! When records are written: by count, bytes and age, at once for errors and on demand, and all of them at the end.
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
use std::time::Duration;

use asynclog::{Builder, FlushConfig, LogError};
use common::{Gate, LONG, info, messages_of, never, say, wait_until};
use log::Level;

#[test]
fn a_count_of_records_flushes() {
    let gate = Gate::default();
    let flush = FlushConfig { records: 10, ..never() };
    let (log, guard) = Builder::new().writer(gate.clone()).flush(flush).build().unwrap();
    for round in 1..=5 {
        for n in 0..10 {
            info(&log, &format!("{round} {n}"));
        }
        wait_until("the flush", || guard.stats().flushes == round);
        // Exactly ten in one flush: the nine before it had waited for the tenth.
        assert_eq!(gate.messages().len() as u64, 10 * round);
    }
}

#[test]
fn a_count_of_bytes_flushes() {
    let gate = Gate::default();
    let flush = FlushConfig { bytes: 10_000, ..never() };
    let (log, guard) = Builder::new().writer(gate.clone()).flush(flush).build().unwrap();
    // With its header a line has more than 1,000 bytes and less than 1,100: the tenth goes over the mark.
    let text = "x".repeat(1000);
    for round in 1..=50 {
        for _ in 0..10 {
            info(&log, &text);
            std::thread::yield_now();
        }
        wait_until("the flush", || guard.stats().flushes == round);
        assert_eq!(gate.messages().len() as u64, 10 * round);
    }
}

#[test]
fn age_flushes() {
    let gate = Gate::default();
    let flush = FlushConfig { interval: Duration::from_millis(20), ..never() };
    let (log, guard) = Builder::new().writer(gate.clone()).flush(flush).build().unwrap();
    for round in 1..=3 {
        info(&log, "alone");
        wait_until("the flush", || guard.stats().flushes == round);
        assert_eq!(gate.messages().len() as u64, round);
    }
}

#[test]
fn an_error_flushes_what_came_before_it_too() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    // Often, so that the log thread is met in all its states.
    for round in 1..=200 {
        info(&log, "before");
        if round % 2 == 0 {
            std::thread::yield_now();
        }
        say(&log, Level::Error, "error");
        wait_until("the flush", || guard.stats().written == 2 * round);
    }
    assert_eq!(gate.messages(), ["before", "error"].repeat(200));
}

#[test]
fn a_barrier_flushes_all_that_was_logged_before_it() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    for n in 1..=100 {
        info(&log, &format!("{n}"));
        guard.barrier(LONG).unwrap();
        assert_eq!(gate.messages().len(), n);
    }
    assert_eq!(guard.stats().written, 100);
}

#[test]
fn the_facades_flush_flushes() {
    let gate = Gate::default();
    let (log, _guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    info(&log, "one");
    log::Log::flush(&log);
    assert_eq!(gate.messages(), ["one"]);
}

#[test]
fn a_loop_thread_may_ask_for_a_flush_but_not_wait_for_it() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            asynclog::mark_loop_thread();
            gate.shut();
            info(&log, "one");
            log::Log::flush(&log);
            assert!(matches!(guard.barrier(LONG), Err(LogError::LoopThread)));
            gate.open();
        });
    });
    wait_until("the flush", || guard.stats().flushes == 1);
    assert_eq!(gate.messages(), ["one"]);
}

#[test]
fn a_barrier_that_cannot_be_kept_in_time_says_so() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    gate.shut();
    info(&log, "one");
    assert!(matches!(guard.barrier(Duration::from_millis(10)), Err(LogError::Timeout(_))));
    gate.open();
    guard.barrier(LONG).unwrap();
    assert_eq!(gate.messages(), ["one"]);
}

#[test]
fn dropping_the_guard_writes_all_and_counts_match() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    for n in 0..5000 {
        info(&log, &format!("{n}"));
    }
    drop(guard);
    let stats = log.stats();
    assert_eq!((stats.produced, stats.written, stats.dropped()), (5000, 5000, 0));
    let expected: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    assert_eq!(messages_of(&path), expected);
}

#[test]
fn a_second_start_appends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    for round in ["one", "two"] {
        let (log, _guard) = Builder::new().file(&path).build().unwrap();
        info(&log, round);
    }
    assert_eq!(messages_of(&path), ["one", "two"]);
}

#[test]
fn the_filter_decides_and_can_be_changed() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).filter("test=warn").build().unwrap();
    info(&log, "unwanted");
    assert!(guard.set_filter("test=loud").is_err());
    info(&log, "still unwanted");
    guard.set_filter("test=info").unwrap();
    info(&log, "wanted");
    guard.barrier(LONG).unwrap();
    assert_eq!(gate.messages(), ["wanted"]);
    assert_eq!(guard.stats().produced, 1);
}

#[test]
fn no_message_forges_a_line_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).sealed(false).build().unwrap();
    let forged = "2026-09-23T10:15:04.123456Z E main test a.rs:1 | forged";
    for separator in ["\n", "\r", "\r\n", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}", "\0\n"] {
        info(&log, &format!("x{separator}{forged}"));
    }
    drop(guard);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches('\n').count(), 9);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    // A reader that divides lines at any separator sees nine, and each begins as ours do.
    let lines: Vec<_> =
        text.split(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')).collect();
    assert_eq!(lines.iter().filter(|line| line.contains(" I ")).count(), 9);
    assert!(!lines.iter().any(|line| line.starts_with(forged)));
}
