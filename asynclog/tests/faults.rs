//! What breaks underneath the log, and what must hold.
//!
//! 1. The file is removed or renamed: it is made again, nothing is lost.
//! 2. The folder is removed and made again: the log goes on and tells of the gap.
//! 3. The disk is full, at once or within a line: no torn line, what has no room is counted, the gap is told.
//! 4. The disk stays full to the end: the program ends, all is counted.
//! 5. The target hangs for ever: dropping the guard still returns.
//! 6. A caller's own writer panics: logging goes on without harm, all is counted.
//! 7. A record is larger than its thread's buffer: it is cut between characters and says so.
//! 8. A pipe is full: a loop thread goes on, all is counted and told.
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
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use asynclog::{Builder, LogError};
use common::{Gate, LONG, info, messages_of, never, told_drops, wait_until};

#[test]
fn a_removed_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    info(&log, "one");
    guard.barrier(LONG).unwrap();
    fs::remove_file(&path).unwrap();
    info(&log, "two");
    guard.barrier(LONG).unwrap();
    assert_eq!(messages_of(&path), ["two"]);
    assert_eq!((guard.stats().reopens, guard.stats().write_errors), (1, 0));
}

#[test]
fn a_renamed_file_keeps_its_lines_and_a_new_one_takes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("a.log"), dir.path().join("away"));
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    info(&log, "one");
    guard.barrier(LONG).unwrap();
    fs::rename(&path, &away).unwrap();
    info(&log, "two");
    drop(guard);
    assert_eq!(messages_of(&away), ["one"]);
    assert_eq!(messages_of(&path), ["two"]);
}

#[test]
fn a_file_replaced_by_another_is_left_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("a.log"), dir.path().join("away"));
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    info(&log, "one");
    guard.barrier(LONG).unwrap();
    fs::rename(&path, &away).unwrap();
    fs::write(&path, "").unwrap();
    info(&log, "two");
    drop(guard);
    assert_eq!(messages_of(&away), ["one"]);
    assert_eq!(messages_of(&path), ["two"]);
}

#[test]
fn what_an_outage_held_is_written_at_the_end() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    gate.room(Some(0));
    info(&log, "one");
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    gate.room(None);
    drop(guard);
    assert_eq!(gate.messages()[0], "one");
    assert_eq!(log.stats().written, 1);
}

#[test]
fn an_asked_for_reopen_happens_though_nothing_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    info(&log, "one");
    guard.reopen();
    wait_until("the write before the reopen", || guard.stats().written == 1);
    fs::remove_file(&path).unwrap();
    guard.reopen();
    wait_until("the new file", || path.exists());
    info(&log, "two");
    drop(guard);
    assert_eq!(messages_of(&path), ["two"]);
}

#[test]
fn a_folder_removed_and_made_again_leaves_no_gap_that_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    let path = folder.join("a.log");
    fs::create_dir(&folder).unwrap();
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    info(&log, "one");
    guard.barrier(LONG).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    info(&log, "two");
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    info(&log, "three");
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    assert!(guard.stats().write_errors >= 2);

    fs::create_dir(&folder).unwrap();
    // Nobody logs: the writer tries again by itself.
    wait_until("the held records", || guard.stats().written == 3);
    guard.barrier(LONG).unwrap();
    let messages = messages_of(&path);
    assert_eq!(messages[..2], ["two", "three"]);
    assert!(messages[2].starts_with("0 records dropped "), "{messages:?}");
    assert!(messages[2].contains("because writing failed from 20"), "{messages:?}");
    info(&log, "four");
    guard.barrier(LONG).unwrap();
    assert_eq!(messages_of(&path).last().unwrap(), "four");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_stops_neither_the_program_nor_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (log, guard) = Builder::new().file(&path).thread_buffer(8 << 20).build().unwrap();
    let text = "x".repeat(100);
    // More than is held: some must be dropped.
    for _ in 0..30_000 {
        info(&log, &text);
    }
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    let stats = guard.stats();
    assert_eq!((stats.produced, stats.written), (30_000, 0));
    assert!(stats.dropped() > 0 && stats.dropped() < 30_000, "{stats:?}");

    fs::remove_file(&path).unwrap();
    guard.barrier(LONG).unwrap();
    info(&log, "after");
    drop(guard);
    let stats = log.stats();
    assert_eq!(stats.produced, 30_001);
    assert_eq!(stats.produced, stats.written + stats.dropped());
    let messages = messages_of(&path);
    assert_eq!(messages.iter().filter(|m| **m == text).count() as u64, stats.written - 1);
    assert_eq!(told_drops(&messages), stats.dropped());
    assert!(messages.iter().any(|m| m.contains("No space left")));
    assert_eq!(messages.last().unwrap(), "after");
}

#[test]
fn a_line_cut_by_a_full_disk_is_completed_when_there_is_room() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    for room in 0..60 {
        gate.room(Some(room));
        info(&log, "one");
        info(&log, "two");
        assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))), "{room}");
        gate.room(None);
        guard.barrier(LONG).unwrap();
    }
    drop(guard);
    let told = |m: &String| !m.contains("because writing failed");
    let messages: Vec<_> = gate.messages().into_iter().filter(told).collect();
    assert_eq!(messages, ["one", "two"].repeat(60));
    assert_eq!(log.stats().written, 120);
}

#[test]
fn a_disk_full_to_the_end_is_counted_to_the_record() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).flush(never()).build().unwrap();
    info(&log, "first");
    guard.barrier(LONG).unwrap();
    let line = gate.text().len();
    // Two more whole lines and a half.
    gate.room(Some(2 * line + line / 2));
    for _ in 0..10 {
        info(&log, "first");
    }
    drop(guard);
    let stats = log.stats();
    assert_eq!((stats.produced, stats.written, stats.dropped()), (11, 3, 8));
    assert_eq!(gate.text().matches('\n').count(), 3);
}

#[test]
fn a_writer_that_hangs_does_not_hold_the_program_for_ever() {
    let gate = Gate::default();
    let builder = Builder::new().writer(gate.clone()).flush(never());
    let (log, guard) = builder.shutdown_timeout(Duration::from_millis(20)).build().unwrap();
    gate.shut();
    info(&log, "one");
    drop(guard);
    info(&log, "too late");
    // When it comes back after all, nothing is lost and all is counted.
    gate.open();
    wait_until("the rest", || log.stats().written == 1);
    assert_eq!(gate.messages(), ["one"]);
    assert_eq!((log.stats().produced, log.stats().dropped()), (2, 1));
}

struct Panics(Arc<AtomicBool>);

impl Write for Panics {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.0.load(Ordering::SeqCst), "told to panic");
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_panics_harms_no_caller() {
    let now = Arc::new(AtomicBool::new(false));
    let (log, guard) =
        Builder::new().writer(Panics(Arc::clone(&now))).thread_buffer(1024).flush(never()).build().unwrap();
    info(&log, "one");
    guard.barrier(LONG).unwrap();
    now.store(true, Ordering::SeqCst);
    info(&log, "two");
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    for _ in 0..100 {
        info(&log, "three");
    }
    assert!(matches!(guard.barrier(LONG), Err(LogError::Write(_))));
    drop(guard);
    let stats = log.stats();
    assert_eq!((stats.produced, stats.written, stats.dropped()), (102, 1, 101));
}

#[test]
fn a_record_larger_than_its_threads_buffer_is_cut_and_says_so() {
    let gate = Gate::default();
    let (log, guard) = Builder::new().writer(gate.clone()).thread_buffer(512).build().unwrap();
    info(&log, "before");
    guard.barrier(LONG).unwrap();
    // Characters of two bytes: no cut lies between them by chance only.
    for extra in 0..4 {
        info(&log, &format!("{}{}", "x".repeat(extra), "ä".repeat(5000)));
        guard.barrier(LONG).unwrap();
    }
    info(&log, "after");
    drop(guard);
    let messages = gate.messages();
    assert_eq!((messages.len(), messages[0].as_str(), messages[5].as_str()), (6, "before", "after"));
    for (extra, message) in messages[1..5].iter().enumerate() {
        let (kept, note) = message.split_once("...[").unwrap();
        assert_eq!(note, format!("{} bytes cut]", 10_000 + extra - kept.len()));
    }
    assert_eq!(log.stats().dropped(), 0);
}

/// A pipe that nobody reads for a while: writing blocks in the system, not in a test's own lock.
#[cfg(unix)]
#[test]
fn a_pipe_that_is_full_holds_up_no_loop_thread_and_loses_nothing_unseen() {
    use std::io::Read;
    let (mut read, write) = io::pipe().unwrap();
    let (log, guard) = Builder::new().writer(write).thread_buffer(64 * 1024).build().unwrap();
    let text = "x".repeat(100);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            asynclog::mark_loop_thread();
            // Returns, although more is logged than pipe, blocks and buffer hold.
            (0..20_000).for_each(|_| info(&log, &text));
        });
    });
    assert!(log.stats().dropped() > 0);
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        read.read_to_string(&mut all).unwrap();
        all
    });
    drop(guard);
    let messages = common::messages(&reader.join().unwrap());
    let stats = log.stats();
    assert_eq!(stats.written + stats.dropped(), 20_000);
    assert_eq!(messages.iter().filter(|m| **m == text).count() as u64, stats.written);
    assert_eq!(told_drops(&messages), stats.dropped());
}
