//! What `verify` proves, and what it does not let pass.
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
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use asynclog::{Builder, Overflow, RollConfig, Verifier, VerifyReport};
use common::{LONG, info, is_seal, never};
use log::Level;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort_by_key(|file| (file.ends_with("a.log"), file.clone()));
    files
}

fn verify(dir: &Path) -> VerifyReport {
    let mut verifier = Verifier::default();
    for file in files(dir) {
        let text = fs::read(&file).unwrap();
        verifier.read(file.file_name().unwrap().to_str().unwrap(), text.as_slice()).unwrap();
    }
    verifier.finish()
}

/// A log of four threads over many files.
fn rolled_log(dir: &Path) {
    let roll = RollConfig { bytes_max: 4000, keep: 10_000, ..RollConfig::default() };
    let overflow = Overflow::Block { at_most: LONG };
    let (log, guard) = Builder::new().file(dir.join("a.log")).roll(roll).overflow(overflow).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|n| info(&log, &n.to_string())));
        }
    });
    drop(guard);
}

/// A log of one thread in one file: three records.
fn small_log(dir: &Path) -> String {
    let path = dir.join("a.log");
    let (log, guard) = Builder::new().file(&path).flush(never()).build().unwrap();
    ["one", "two", "three"].iter().for_each(|text| info(&log, text));
    drop(guard);
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_log_of_many_threads_and_files_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    rolled_log(dir.path());
    assert!(files(dir.path()).len() > 10);
    let report = verify(dir.path());
    assert!(report.is_proven(), "{:?}", report.findings);
    let run = &report.runs[0];
    assert_eq!((run.written, run.dropped, run.threads, run.whole), (2000, 0, 4, true));
}

#[test]
fn drops_are_proven_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).thread_buffer(1024).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5000).for_each(|n| common::say(&log, Level::Warn, &n.to_string())));
        }
    });
    drop(guard);
    let report = verify(dir.path());
    assert!(report.is_proven(), "{:?}", report.findings);
    let (stats, run) = (log.stats(), &report.runs[0]);
    assert!(stats.dropped() > 0, "nothing was dropped: the test shows nothing");
    assert_eq!((run.written, run.dropped), (stats.written, stats.dropped()));
    assert_eq!(run.written + run.dropped, 20_000);
}

#[test]
fn no_line_can_be_taken_out_changed_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let text = small_log(dir.path());
    assert!(verify(dir.path()).is_proven());
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for at in 0..lines.len() {
        let (before, line, after) = (lines[..at].concat(), lines[at], lines[at + 1..].concat());
        let mut spoiled = vec![format!("{before}{line}{line}{after}")];
        // Without its last line a log is one that was killed, which is no fault.
        if at + 1 < lines.len() {
            spoiled.push(format!("{before}{after}"));
            spoiled.push(format!("{before}{}{after}", line.replacen("202", "203", 1)));
        }
        for text in spoiled {
            // The beginning has no checksum of its own, but for its name and part: only its time can be changed.
            if at == 0 && text.starts_with("203") {
                continue;
            }
            fs::write(&path, &text).unwrap();
            assert!(!verify(dir.path()).is_proven(), "{text}");
        }
    }
}

#[test]
fn a_file_that_is_missing_is_noticed_unless_it_was_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    rolled_log(dir.path());
    let names = files(dir.path());
    fs::remove_file(&names[0]).unwrap();
    let report = verify(dir.path());
    assert!(report.is_proven(), "{:?}", report.findings);
    assert!(!report.runs[0].whole);
    fs::remove_file(&names[5]).unwrap();
    assert!(!verify(dir.path()).is_proven());
}

#[test]
fn a_run_that_was_killed_is_proven_as_far_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let text = small_log(dir.path());
    let records: Vec<_> = text.split_inclusive('\n').filter(|line| !is_seal(line)).collect();
    let begin = text.split_inclusive('\n').next().unwrap();
    // Killed within the last line; the next run ends it and appends.
    let torn = format!("{begin}{}{}", records[..2].concat(), &records[2][..20]);
    fs::write(&path, &torn).unwrap();
    let report = verify(dir.path());
    assert!(report.is_proven() && !report.runs[0].whole, "{:?}", report.findings);
    assert_eq!(report.runs[0].written, 2);

    small_log(dir.path());
    let report = verify(dir.path());
    assert!(report.is_proven(), "{:?}", report.findings);
    let runs: Vec<_> = report.runs.iter().map(|run| (run.written, run.whole)).collect();
    assert_eq!(runs, [(2, false), (3, true)]);
}

#[test]
fn half_a_line_in_the_middle_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let text = small_log(dir.path());
    let at = text.find("| two").unwrap();
    fs::write(dir.path().join("a.log"), format!("{}\n{}", &text[..at - 60], &text[at - 60..])).unwrap();
    assert!(!verify(dir.path()).is_proven());
}

#[test]
fn a_record_that_speaks_like_the_log_itself_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).build().unwrap();
    for text in [
        "9 records dropped (x) y: #1.3-11",
        "opened: run x part 1",
        "ended: run x produced 1 written 1 dropped 0",
    ] {
        let args = format_args!("{text}");
        log::Log::log(&log, &log::Record::builder().target("asynclog").args(args).build());
    }
    drop(guard);
    let report = verify(dir.path());
    assert!(report.is_proven(), "{:?}", report.findings);
    assert_eq!((report.runs.len(), report.runs[0].written), (1, 3));
}

#[test]
fn the_program_says_it_by_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    rolled_log(dir.path());
    let run = |files: &[PathBuf]| {
        Command::new(env!("CARGO_BIN_EXE_asynclog")).arg("verify").args(files).output().unwrap()
    };
    let mut all = files(dir.path());
    // In no order, as a shell's `a.log*` gives them.
    all.reverse();
    let output = run(&all);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains(": 2000 produced = 2000 written + 0 dropped, by 4 threads, whole\n"), "{text}");
    // As logrotate names them.
    for (number, file) in all.iter_mut().enumerate() {
        let renamed = dir.path().join(format!("a.log.{}", number + 1));
        fs::rename(&file, &renamed).unwrap();
        *file = renamed;
    }
    assert!(run(&all).status.success());
    fs::remove_file(&all[3]).unwrap();
    all.remove(3);
    assert_eq!(run(&all).status.code(), Some(1));
    assert_eq!(run(&[]).status.code(), Some(2));
}
