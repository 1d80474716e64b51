//! What survives: a restart, every script, a full disk, a folder that cannot be used.
//!
//! What is broken here, and what must hold:
//! 1. the process ends and starts again: everything is there, cursors and client_ids included;
//! 2. the disk is full: `Unavailable`, the writer lives on, and works again when there is room; nothing acknowledged is lost;
//! 3. the engine refuses to grow the file: the same;
//! 4. another process has the folder, or the folder cannot be made: an error that names it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "test code"
)]

#[path = "suite/common.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use schema::{ConvId, UserId};
use store::dao::{ConversationDao, UserDao};
use store::{DbConfig, SendError, Sent, StoreError};

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let (amy, bob, conv) = house.pair();
    for number in 1..=700 {
        house.store.send(message(conv, amy, &number.to_string())).unwrap();
    }
    house.sends(700);
    house.moved(cursor(bob, conv, Some(600), Some(500)));
    let before = house.entries(conv);
    let position = move |db: &mut store::Connection| ConversationDao::new(db).list(bob, None, 10);
    let listed = house.store.read_wait(position).unwrap();
    house.store.close();
    let house = Harness::with(&DbConfig::at(folder.path()));
    assert_eq!(house.entries(conv), before);
    assert_eq!(house.store.read_wait(position).unwrap(), listed);
    assert_eq!(new(house.say(message(conv, bob, "next"))).seq.get(), 701);
    let cat = house.user("cat");
    assert!(cat > bob, "ids go on where they were");
    assert!(house.direct(amy, cat) > conv);
}

#[test]
fn a_log_that_was_never_checkpointed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let (amy, _bob, conv) = house.pair();
    for number in 1..=50 {
        house.say(message(conv, amy, &number.to_string())).unwrap();
    }
    // What a killed process leaves behind: the file and the log as they are now.
    for name in ["chat.sqlite3", "chat.sqlite3-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let again = Harness::with(&DbConfig::at(copy.path()));
    assert_eq!(again.entries(conv), house.entries(conv));
    assert_eq!(assert_gapless(&again, conv).len(), 50);
}

#[test]
fn a_clean_close_leaves_no_log_behind() {
    let folder = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let (amy, _bob, conv) = house.pair();
    house.say(message(conv, amy, "x")).unwrap();
    house.store.close();
    let log = folder.path().join("chat.sqlite3-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |meta| meta.len()), 0);
}

#[test]
fn every_script_and_every_quote_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let texts = [
        "'; DROP TABLE message; --",
        "\"double\" 'single' `back` \\ backslash % _ ? ?1 :a @b $c",
        "👩‍👩‍👧‍👦 🇺🇳 🏴󠁧󠁢󠁳󠁣󠁴󠁿 👍🏿 \u{10ffff}",
        "日本語 한국어 ไทย العربية עברית हिन्दी ქართული Ελληνικά кириллица",
        "e\u{301} \u{e9} \u{200f}rtl\u{200e} zero\u{200b}width \u{feff}bom",
        "line\nbreak\ttab  two spaces ",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𒀀 𓀀",
    ];
    let (amy, _bob, conv) = house.pair();
    for (at, text) in texts.iter().enumerate() {
        let client_id = format!("{at}'\"\\%");
        assert_eq!(new(house.say(with_id(conv, amy, &client_id, text))).text(), *text);
        assert!(matches!(house.say(with_id(conv, amy, &client_id, text)), Ok(Sent::Duplicate { .. })));
    }
    for (at, name) in ["o'hara\\", "名前👩‍👩‍👧‍👦", "\"; --"].into_iter().enumerate() {
        let user = house.user(name);
        let found = house.store.read_wait(move |db| UserDao::new(db).by_name_key(name)).unwrap().unwrap();
        assert_eq!((found.id, &*found.name), (user, name));
        let conv = house.direct(amy, user);
        assert_eq!(&*new(house.say(message(conv, user, &at.to_string()))).sender_name, name);
    }
    house.store.close();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let stored: Vec<_> = house.entries(conv).into_iter().map(|entry| entry.text().to_owned()).collect();
    assert_eq!(stored, texts);
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let error = Harness::try_with(&DbConfig::at(folder.path())).err().unwrap();
    let pid = Some(std::process::id());
    assert_eq!(error, StoreError::DataFolderInUse { path: folder.path().to_path_buf(), pid });
    house.say(message(house.pair().2, UserId::new(1).unwrap(), "the first is not disturbed")).unwrap();
    house.store.close();
    Harness::with(&DbConfig::at(folder.path()));
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    for path in [folder.path().join("file"), folder.path().join("file/below"), PathBuf::from("/proc/nothing")]
    {
        let error = Harness::try_with(&DbConfig::at(&path)).err().unwrap();
        let StoreError::DataFolder { path: named, .. } = &error else { panic!("{error}") };
        assert!(named.starts_with(&path), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn a_file_that_may_not_grow_gives_unavailable_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let house = Harness::with(&DbConfig::at(folder.path()));
    let (amy, _bob, conv) = house.pair();
    house.say(message(conv, amy, "before")).unwrap();
    let limit = |db: &mut store::Connection| {
        let pages = db.query_row("PRAGMA page_count", &[], |row| row.get::<i64>(0))?.unwrap();
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), &[], |_| Ok(()))
    };
    house.store.write_wait(limit).unwrap();
    let text = "x".repeat(16_000);
    let hold = house.stop_writer();
    let (reply, answer) = crossbeam_channel::bounded(1);
    house.store.send(message(conv, amy, "small, but in the same batch")).unwrap();
    house
        .store
        .write(|db| UserDao::new(db).create("cat", "cat", "", 1), move |r| reply.send(r).unwrap())
        .unwrap();
    for _ in 0..20 {
        house.store.send(message(conv, amy, &text)).unwrap();
    }
    drop(hold);
    let refused = house.sends(21);
    assert!(refused.iter().all(|o| o.result == Err(SendError::Unavailable)), "all of the batch or nothing");
    assert!(answer.recv_timeout(LONG).unwrap().unwrap_err().is_unavailable());
    assert_eq!(house.store.stats().failed_batches, 1);
    // The limit was the connection's, and the writer has a new one.
    assert_eq!(new(house.say(message(conv, amy, &text))).seq.get(), 2);
    assert_eq!(assert_gapless(&house, conv).len(), 2);
    assert!(house.store.read_wait(|db| UserDao::new(db).by_name_key("cat")).unwrap().is_none());
}

/// A small file system that is gone when this is.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_gives_unavailable_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), "4m") else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    let data = disk.0.join("data");
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let house = Harness::with(&DbConfig::at(&data));
    let (amy, bob, conv) = house.pair();
    let mut acked = Vec::new();
    let mut number = 0_u32;
    let mut say = |house: &Harness, acked: &mut Vec<String>| {
        number += 1;
        let text = format!("{number} {}", "x".repeat(2_000));
        let result = house.say(with_id(conv, amy, &number.to_string(), &text));
        if result.is_ok() {
            acked.push(text);
        }
        result
    };
    let refused = (0..10_000).find_map(|_| say(&house, &mut acked).err());
    assert_eq!(refused, Some(SendError::Unavailable), "the disk fills up");
    assert!(!acked.is_empty());
    // It stays so for as long as the disk is full, and reading goes on.
    for _ in 0..5 {
        assert_eq!(say(&house, &mut acked), Err(SendError::Unavailable));
    }
    assert_eq!(house.moved(cursor(bob, conv, Some(1), None)).ticket, None);
    assert_eq!(texts(&house, conv), acked);
    std::fs::remove_file(&ballast).unwrap();
    for _ in 0..20 {
        say(&house, &mut acked).unwrap();
    }
    assert_eq!(texts(&house, conv), acked);
    house.store.close();
    let house = Harness::with(&DbConfig::at(&data));
    assert_gapless(&house, conv);
    assert_eq!(texts(&house, conv), acked);
    house.store.close();
}

#[test]
fn a_read_only_disk_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), "16m") else {
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    std::fs::create_dir(disk.0.join("data")).unwrap();
    let remount = |how: &str| {
        let how = format!("remount,{how}");
        Command::new("mount").args(["-o", &how]).arg(&disk.0).status().unwrap().success()
    };
    assert!(remount("ro"));
    let error = Harness::try_with(&DbConfig::at(disk.0.join("data"))).err().unwrap();
    assert!(matches!(error, StoreError::DataFolder { .. }), "{error}");
    assert!(error.to_string().contains("data"), "{error}");
    assert!(remount("rw"));
    let house = Harness::with(&DbConfig::at(disk.0.join("data")));
    let (amy, _bob, conv) = house.pair();
    house.say(message(conv, amy, "1")).unwrap();
    house.store.close();
}

fn texts(house: &Harness, conv: ConvId) -> Vec<String> {
    house.entries(conv).into_iter().map(|entry| entry.text().to_owned()).collect()
}

/// Where the tables are: each test names its folder.
mod engine {
    use store::DbConfig;

    pub struct Place(tempfile::TempDir);

    impl Place {
        pub fn config(&self) -> DbConfig {
            DbConfig::at(self.0.path())
        }
    }
}
