//! An idle log makes no wake-ups, seen from the kernel's side. Alone in its process, for it counts by the threads' names.
#![cfg(target_os = "linux")]
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
use std::thread;
use std::time::Duration;

use asynclog::Builder;
use common::{LONG, info, wait_until};

/// How often each of the log's threads gave up the processor, and whether both sleep.
fn switches() -> (bool, Vec<String>) {
    let mut asleep = true;
    let mut counts = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let name = field("Name:");
        if name == "log" || name == "log-writer" {
            asleep &= field("State:").starts_with('S');
            counts.push(format!(
                "{name} {} {}",
                field("voluntary_ctxt_switches:"),
                field("nonvoluntary_ctxt_switches:")
            ));
        }
    }
    counts.sort();
    (asleep, counts)
}

#[test]
fn an_idle_log_makes_no_wake_ups() {
    let dir = tempfile::tempdir().unwrap();
    let (log, guard) = Builder::new().file(dir.path().join("a.log")).build().unwrap();
    (0..100).for_each(|_| info(&log, "busy"));
    guard.barrier(LONG).unwrap();
    wait_until("both threads to sleep", || switches().0);
    let (_, before) = switches();
    assert_eq!(before.len(), 2, "{before:?}");
    // Five times the flush interval is what is observed here; nothing is waited for.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(switches().1, before);
}
