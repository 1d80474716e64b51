//! Threads that end, logs that end, and records that come in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use asynclog::{AsyncLog, Builder, Overflow};
use common::{Gate, LONG, info, never};

#[test]
fn threads_that_end_at_once_lose_nothing() {
    let gate = Gate::default();
    let overflow = Overflow::Block { at_most: LONG };
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).overflow(overflow).build().unwrap();
    let together = Barrier::new(64);
    thread::scope(|scope| {
        for t in 0..64 {
            let (log, together) = (&log, &together);
            scope.spawn(move || {
                together.wait();
                (0..50).for_each(|n| info(log, &format!("{t} {n}")));
            });
        }
    });
    drop(guard);
    assert_eq!(gate.messages().iter().collect::<BTreeSet<_>>().len(), 64 * 50);
    assert_eq!(log.stats().written, 64 * 50);
}

/// Logs when its thread ends.
struct Farewell(AsyncLog);

impl Drop for Farewell {
    fn drop(&mut self) {
        info(&self.0, "from a destructor");
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

#[test]
fn a_destructor_at_thread_exit_can_log_under_its_threads_name() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
    for (name, logs_before) in [("speaks", true), ("silent", false)] {
        let log = log.clone();
        let body = move || {
            if logs_before {
                info(&log, "from the thread");
            }
            FAREWELL.set(Some(Farewell(log)));
        };
        thread::Builder::new().name(name.into()).spawn(body).unwrap().join().unwrap();
    }
    drop(guard);
    let text = gate.text();
    assert!(text.contains(" speaks test - | from a destructor\n"), "{text}");
    assert!(text.contains(" silent test - | from a destructor\n"), "{text}");
}

#[test]
fn a_destructor_can_log_after_the_logs_end() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
    let ended = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            FAREWELL.set(Some(Farewell(log.clone())));
            ended.wait();
        });
        drop(guard);
        ended.wait();
    });
    assert_eq!(gate.text(), "");
}

#[test]
fn logging_after_the_end_is_counted_and_harmless() {
    let gate = Gate::default();
    let (log, guard) =
        Builder::new().writer(gate.clone()).overflow(Overflow::Block { at_most: LONG }).build().unwrap();
    drop(guard);
    (0..100_000).for_each(|_| info(&log, "too late"));
    log::Log::flush(&log);
    assert_eq!(gate.text(), "");
    let stats = log.stats();
    assert_eq!((stats.produced, stats.written, stats.dropped_by_level.info), (100_000, 0, 100_000));
}

#[test]
fn records_that_race_the_end_are_written_or_counted() {
    for _ in 0..50 {
        let gate = Gate::default();
        let (log, guard) = Builder::new().writer(gate.clone()).thread_buffer(4096).build().unwrap();
        let (stop, logged) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        info(&log, "racing");
                        logged.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            common::wait_until("some records", || logged.load(Ordering::SeqCst) > 100);
            drop(guard);
            let before = logged.load(Ordering::SeqCst);
            common::wait_until("some more", || logged.load(Ordering::SeqCst) > before + 100);
            stop.store(true, Ordering::SeqCst);
        });
        let stats = log.stats();
        assert_eq!(stats.produced, logged.load(Ordering::SeqCst));
        assert_eq!(stats.produced, stats.written + stats.dropped());
        let written = gate.messages().iter().filter(|m| *m == "racing").count();
        assert_eq!(written as u64, stats.written);
    }
}

/// Logs while it is formatted.
struct Chatty<'a>(&'a AsyncLog);

impl std::fmt::Display for Chatty<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info(self.0, "inner");
        f.write_str("outer")
    }
}

#[test]
fn a_display_may_log_while_it_is_logged() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
    let args = Chatty(&log);
    log::Log::log(&log, &log::Record::builder().args(format_args!("{args}")).build());
    drop(guard);
    assert_eq!(gate.messages(), ["inner", "outer"]);
}

#[test]
fn a_display_that_panics_leaves_no_half_line() {
    struct Panics;
    impl std::fmt::Display for Panics {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("within a record");
        }
    }
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
    let attempt = || log::Log::log(&log, &log::Record::builder().args(format_args!("a {Panics}")).build());
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).unwrap_err();
    info(&log, "after");
    drop(guard);
    assert_eq!(gate.messages(), ["after"]);
    assert_eq!(log.stats().produced, 1);
}

#[test]
fn many_logs_live_side_by_side() {
    let logs: Vec<_> = (0..20)
        .map(|n| {
            let gate = Gate::default();
            let (log, guard) = Builder::new().writer(gate.clone()).build().unwrap();
            info(&log, &n.to_string());
            (gate, guard)
        })
        .collect();
    for (n, (gate, guard)) in logs.into_iter().enumerate() {
        drop(guard);
        assert_eq!(gate.messages(), [n.to_string()]);
    }
}

#[test]
fn statistics_tell_what_is_under_way_and_where_the_rest_went() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    info(&log, "one");
    info(&log, "two");
    let stats = guard.stats();
    assert_eq!((stats.produced, stats.pending_records, stats.threads), (2, 2, 1));
    assert!(stats.pending_bytes > 0 && stats.bytes_written == 0);
    guard.barrier(LONG).unwrap();
    let stats = guard.stats();
    assert_eq!((stats.written, stats.pending_records, stats.pending_bytes), (2, 0, 0));
    assert_eq!(stats.bytes_written, gate.text().len() as u64);
    drop(guard);
    info(&log, "late");
    assert_eq!((log.stats().late_by_level.info, log.stats().dropped()), (1, 1));
}
