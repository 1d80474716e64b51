//! A full queue: who waits, who does not, and that every drop is counted and told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use asynclog::{AsyncLog, Builder, FlushConfig, Guard, Overflow};
use common::{Gate, LONG, info, never, say, told_drops, wait_until};
use log::Level;

/// Each record goes through alone, so that little is under way between the queue and the gate.
fn one_by_one() -> FlushConfig {
    FlushConfig { records: 1, ..never() }
}

/// Fills everything between a caller and the shut gate, until a record is dropped; says how many were logged.
fn fill(log: &AsyncLog, gate: &Gate) -> u64 {
    gate.shut();
    info(log, "first");
    wait_until("the writer at the gate", || gate.is_waiting());
    let mut logged = 1;
    wait_until("a drop", || {
        info(log, "filling");
        logged += 1;
        log.stats().dropped() > 0
    });
    // The log thread may still have taken some out of the queue; from now on it is stuck, and the queue full.
    for _ in 0..100 {
        info(log, "filling");
        logged += 1;
    }
    logged
}

fn finish(guard: &Guard, gate: &Gate) -> Vec<String> {
    gate.open();
    guard.barrier(LONG).unwrap();
    gate.messages()
}

#[test]
fn drops_are_counted_by_level_and_told_in_the_log() {
    let gate = Gate::default();
    let (log, guard) =
        Builder::new().writer(gate.clone()).thread_buffer(512).flush(one_by_one()).build().unwrap();
    let mut logged = fill(&log, &gate);
    let before = log.stats().dropped_by_level;
    for level in [Level::Error, Level::Warn, Level::Warn, Level::Info] {
        say(&log, level, "dropped");
        logged += 1;
    }
    let after = log.stats().dropped_by_level;
    assert_eq!((after.error - before.error, after.warn - before.warn, after.info - before.info), (1, 2, 1));

    let messages = finish(&guard, &gate);
    let stats = guard.stats();
    assert_eq!(stats.produced, logged);
    assert_eq!(stats.produced, stats.written + stats.dropped());
    assert_eq!(told_drops(&messages), stats.dropped());
    let told = messages.iter().find(|m| m.contains("was full, from 20")).unwrap();
    assert!(told.contains("(error 1, warn 2, info "), "{told}");
    let own = messages.iter().filter(|m| m.contains("records dropped")).count();
    assert_eq!((messages.len() - own) as u64, stats.written);
}

#[test]
fn drops_are_told_though_nobody_logs_again() {
    let gate = Gate::default();
    let flush = FlushConfig { interval: Duration::from_millis(5), ..one_by_one() };
    let (log, _guard) = Builder::new().writer(gate.clone()).thread_buffer(512).flush(flush).build().unwrap();
    fill(&log, &gate);
    gate.open();
    wait_until("the line about the drops", || told_drops(&gate.messages()) == log.stats().dropped());
}

#[test]
fn a_loop_thread_never_waits_whatever_the_policy() {
    let gate = Gate::default();
    // Longer than the test harness would live: waiting would hang the test.
    let overflow = Overflow::Block { at_most: Duration::from_secs(100_000) };
    let builder =
        Builder::new().writer(gate.clone()).thread_buffer(512).flush(one_by_one()).overflow(overflow);
    let (log, guard) = builder.build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            asynclog::mark_loop_thread();
            fill(&log, &gate);
        });
    });
    let dropped = log.stats().dropped();
    assert!(dropped >= 100);
    assert_eq!(told_drops(&finish(&guard, &gate)), dropped);
}

#[test]
fn a_caller_that_may_wait_loses_nothing() {
    let gate = Gate::default();
    let builder =
        Builder::new().writer(gate.clone()).thread_buffer(256).overflow(Overflow::Block { at_most: LONG });
    let (log, guard) = builder.flush(never()).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..2000).for_each(|n| info(&log, &n.to_string())));
        }
    });
    guard.barrier(LONG).unwrap();
    assert_eq!(guard.stats().written, 16_000);
    assert_eq!(guard.stats().dropped(), 0);
    assert_eq!(gate.messages().len(), 16_000);
}

#[test]
fn a_wait_that_is_over_is_a_drop() {
    let gate = Gate::default();
    let overflow = Overflow::Block { at_most: Duration::from_millis(1) };
    let builder =
        Builder::new().writer(gate.clone()).thread_buffer(512).flush(one_by_one()).overflow(overflow);
    let (log, guard) = builder.build().unwrap();
    let logged = fill(&log, &gate);
    let messages = finish(&guard, &gate);
    let stats = guard.stats();
    assert!(stats.dropped() > 0);
    assert_eq!((stats.produced, stats.written + stats.dropped()), (logged, logged));
    assert_eq!(told_drops(&messages), stats.dropped());
}

/// Slow enough that eight callers overrun it.
struct Slow(Gate);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::yield_now();
        self.0.write(&bytes[..bytes.len().min(100)])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn produced_is_written_plus_dropped_under_overload() {
    let gate = Gate::default();
    let (log, guard) =
        Builder::new().writer(Slow(gate.clone())).thread_buffer(4096).flush(one_by_one()).build().unwrap();
    thread::scope(|scope| {
        for t in 0..8 {
            let log = &log;
            scope.spawn(move || (0..5000).for_each(|n| info(log, &format!("{t} {n}"))));
        }
    });
    guard.barrier(LONG).unwrap();
    drop(guard);
    let stats = log.stats();
    let messages = gate.messages();
    assert_eq!(stats.produced, 40_000);
    assert_eq!(stats.produced, stats.written + stats.dropped());
    assert_eq!(told_drops(&messages), stats.dropped());

    // What is there is there once, and each thread's records are in its order.
    let mut last = [None; 8];
    let mut seen = 0;
    for message in messages.iter().filter(|m| !m.contains("records dropped")) {
        let (t, n) = message.split_once(' ').unwrap();
        let (t, n): (usize, i32) = (t.parse().unwrap(), n.parse().unwrap());
        assert!(last[t] < Some(n), "{message} came after {:?}", last[t]);
        last[t] = Some(n);
        seen += 1;
    }
    assert_eq!(seen, stats.written);
}

#[test]
fn debug_is_shed_first_then_info_and_warnings_only_by_a_full_buffer() {
    let gate = Gate::default();
    let builder = Builder::new().level(log::LevelFilter::Trace).writer(gate.clone()).thread_buffer(4096);
    let builder = builder.overflow(Overflow::DebugFirst).flush(one_by_one());
    let (log, guard) = builder.build().unwrap();
    gate.shut();
    let mut logged = 0;
    // Nobody empties the buffer once the log thread is stuck, so each level is refused from one moment on.
    for level in [Level::Debug, Level::Info, Level::Warn] {
        wait_until("a drop", || {
            say(&log, level, "filling");
            logged += 1;
            log.stats().dropped_by_level.of(level) > 0
        });
        (0..30).for_each(|_| say(&log, level, "filling"));
        logged += 30;
        for graver in Level::iter().filter(|graver| *graver < level) {
            assert_eq!(log.stats().dropped_by_level.of(graver), 0, "{level} is dropped, {graver} is not");
        }
    }
    let stats = guard.threads().pop().unwrap();
    assert_eq!((stats.produced, stats.refused_by_level), (logged, log.stats().refused_by_level));
    let messages = finish(&guard, &gate);
    assert_eq!(told_drops(&messages), guard.stats().dropped());
    assert_eq!(guard.stats().produced, guard.stats().written + guard.stats().dropped());
}
