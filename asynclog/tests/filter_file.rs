//! The filter file: what it says holds, when it changes what it says then.
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
use std::path::PathBuf;

use asynclog::{AsyncLog, Builder, Guard, LogError};
use common::{Gate, LONG, wait_until};
use log::{Level, Log, Metadata};

struct Rig {
    log: AsyncLog,
    guard: Guard,
    gate: Gate,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn rig(text: Option<&str>) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filter");
    if let Some(text) = text {
        fs::write(&path, text).unwrap();
    }
    let gate = Gate::default();
    let builder = Builder::new().writer(gate.clone()).filter("warn").filter_file(&path);
    let (log, guard) = builder.build().unwrap();
    Rig { log, guard, gate, path, _dir: dir }
}

impl Rig {
    fn allows(&self, level: Level, target: &str) -> bool {
        self.log.enabled(&Metadata::builder().level(level).target(target).build())
    }

    fn told(&self, part: &str) -> bool {
        self.guard.barrier(LONG).unwrap();
        self.gate.messages().iter().any(|message| message.contains(part))
    }
}

#[test]
fn the_file_decides_and_without_it_the_builder() {
    let rig = rig(Some("chatd=debug\n"));
    assert!(rig.allows(Level::Debug, "chatd") && !rig.allows(Level::Debug, "store"));
    fs::remove_file(&rig.path).unwrap();
    rig.guard.reload().unwrap();
    assert!(!rig.allows(Level::Info, "chatd") && rig.allows(Level::Warn, "chatd"));
}

#[test]
fn a_file_that_is_no_filter_leaves_the_old_one_in_force() {
    let rig = rig(Some("debug"));
    fs::write(&rig.path, "chatd=loud").unwrap();
    assert!(matches!(rig.guard.reload(), Err(LogError::Filter { .. })));
    assert!(rig.allows(Level::Debug, "chatd"));
    let wrong = Builder::new().stderr().filter_file(&rig.path).build();
    assert!(matches!(wrong, Err(LogError::Filter { .. })));
}

#[test]
fn a_filter_set_by_hand_holds_until_the_file_is_read_again() {
    let rig = rig(Some("debug"));
    rig.guard.set_filter("off").unwrap();
    assert!(!rig.allows(Level::Error, "chatd"));
    rig.guard.reload().unwrap();
    assert!(rig.allows(Level::Debug, "chatd"));
    assert!(rig.told("the filter is now `debug`, other targets at INFO"));
}

#[cfg(target_os = "linux")]
#[test]
fn changes_are_noticed_however_they_are_made() {
    let rig = rig(None);
    assert!(!rig.allows(Level::Info, "chatd"));
    fs::write(&rig.path, "info").unwrap();
    wait_until("a new file to be read", || rig.allows(Level::Info, "chatd"));

    let aside = rig.path.with_extension("new");
    fs::write(&aside, "chatd=trace").unwrap();
    fs::rename(&aside, &rig.path).unwrap();
    wait_until("a file moved into its place to be read", || rig.allows(Level::Trace, "chatd"));

    fs::write(&rig.path, "chatd=loud").unwrap();
    wait_until("the mistake to be told", || rig.told("bad log filter `chatd=loud`"));
    assert!(rig.allows(Level::Trace, "chatd"));

    fs::remove_file(&rig.path).unwrap();
    wait_until("its removal to be noticed", || !rig.allows(Level::Info, "chatd"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_is_gone_ends_the_watch_and_is_told() {
    let rig = rig(Some("info"));
    fs::remove_file(&rig.path).unwrap();
    fs::remove_dir(rig.path.parent().unwrap()).unwrap();
    wait_until("the end of the watch", || rig.told("the filter file is not watched any more"));
    rig.guard.reload().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_is_missing_at_the_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let built = Builder::new().stderr().filter_file(dir.path().join("no/filter")).build();
    assert!(matches!(built, Err(LogError::FilterFile { .. })));
}
