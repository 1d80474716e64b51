//! Rolling under load: every line is in exactly one file, and no file overwrites another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use asynclog::{Builder, FlushConfig, Overflow, RollConfig};
use common::{LONG, info, messages_of, never};

/// The line that ends a file is beyond its limit, but not longer than this.
const SEAL_BYTES: u64 = 200;

/// All files of the log, oldest first, the current one last.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort_by_key(|file| (file == path, file.clone()));
    files
}

#[test]
fn hundreds_of_files_rolled_within_a_second_keep_every_line_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let roll = RollConfig { bytes_max: 500, keep: 100_000, ..RollConfig::default() };
    let builder = Builder::new().file(&path).roll(roll).overflow(Overflow::Block { at_most: LONG });
    let (log, guard) = builder.build().unwrap();
    let expected: Vec<_> = (0..3000).map(|n| n.to_string()).collect();
    expected.iter().for_each(|text| info(&log, text));
    drop(guard);

    let files = files(&path);
    assert!(files.len() > 200, "{}", files.len());
    assert_eq!(files.len() as u64, log.stats().rolls + 1);
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 500 + SEAL_BYTES));
    let found: Vec<_> = files.iter().flat_map(|file| messages_of(file)).collect();
    assert_eq!(found, expected);
    assert_eq!(log.stats().written, 3000);
}

#[test]
fn a_restart_does_not_overwrite_what_an_earlier_run_rolled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let roll = RollConfig { bytes_max: 100, keep: 100_000, ..RollConfig::default() };
    for run in 0..20 {
        let (log, _guard) = Builder::new().file(&path).roll(roll).build().unwrap();
        (0..5).for_each(|n| info(&log, &format!("{run} {n}")));
    }
    let found: Vec<_> = files(&path).iter().flat_map(|file| messages_of(file)).collect();
    let expected: Vec<_> = (0..20).flat_map(|run| (0..5).map(move |n| format!("{run} {n}"))).collect();
    assert_eq!(found, expected);
}

#[test]
fn only_so_many_rolled_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    fs::write(dir.path().join("a.log.gz"), "not ours").unwrap();
    let roll = RollConfig { bytes_max: 100, keep: 3, ..RollConfig::default() };
    let (log, guard) = Builder::new().file(&path).roll(roll).build().unwrap();
    (0..100).for_each(|n| info(&log, &n.to_string()));
    drop(guard);
    assert_eq!(files(&path).len(), 3 + 2);
    let found: Vec<_> = files(&path)[..]
        .iter()
        .filter(|file| !file.ends_with("a.log.gz"))
        .flat_map(|file| messages_of(file))
        .collect();
    assert_eq!(found.last().unwrap(), "99");
}

#[test]
fn two_logs_that_roll_one_file_lose_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let roll = RollConfig { bytes_max: 2000, keep: 100_000, ..RollConfig::default() };
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let path = &path;
            scope.spawn(move || {
                let flush = FlushConfig { records: 7, ..never() };
                let builder = Builder::new().file(path).roll(roll).flush(flush);
                let (log, guard) = builder.overflow(Overflow::Block { at_most: LONG }).build().unwrap();
                (0..3000).for_each(|n| info(&log, &format!("{name} {n}")));
                drop(guard);
                assert_eq!(log.stats().written, 3000);
            });
        }
    });
    let files = files(&path);
    let lines: Vec<_> = files.iter().flat_map(|file| messages_of(file)).collect();
    assert_eq!(lines.len(), 6000);
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 6000);
}

#[cfg(unix)]
#[test]
fn a_link_leads_to_the_file_and_replaces_no_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("current");
    for name in ["a.log", "b.log"] {
        let (log, _guard) = Builder::new().file(dir.path().join(name)).link(&link).build().unwrap();
        info(&log, name);
    }
    assert_eq!(messages_of(&link), ["b.log"]);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "a file").unwrap();
    assert!(Builder::new().file(dir.path().join("a.log")).link(&link).build().is_err());
    assert_eq!(fs::read_to_string(&link).unwrap(), "a file");
}

#[test]
fn a_log_that_syncs_writes_what_one_does_that_does_not() {
    use asynclog::SyncPolicy;
    let dir = tempfile::tempdir().unwrap();
    let policies = [
        SyncPolicy::Barrier,
        SyncPolicy::Level(log::Level::Info),
        SyncPolicy::Interval(std::time::Duration::from_millis(1)),
    ];
    for (n, policy) in policies.into_iter().enumerate() {
        let path = dir.path().join(format!("{n}.log"));
        let (log, guard) = Builder::new().file(&path).sync(policy).build().unwrap();
        (0..10).for_each(|n| {
            info(&log, &n.to_string());
            guard.barrier(LONG).unwrap();
        });
        drop(guard);
        assert_eq!(messages_of(&path), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
