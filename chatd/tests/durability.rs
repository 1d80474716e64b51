//! What *acknowledged* means, seen from outside:
//!
//! 1. a batch is synced to disk before any of its acknowledgements is written to a socket (`strace`, for `kill -9` proves nothing about syncing);
//! 2. a full disk: sends get `unavailable`, queries go on, and once there is room again everything acknowledged is there, once, in order;
//! 3. a folder that cannot be written to: the server does not start, and says why;
//! 4. a second server on the same folder does not start, and says why, and the first one goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Chatd, LineClient, SmallDisk, Strace, To, wait_until};

const CHATD: &str = env!("CARGO_BIN_EXE_chatd");

fn pair(server: &Chatd) -> (LineClient, LineClient) {
    (server.client_as("amy"), server.client_as("bob"))
}

fn texts(client: &mut LineClient, conv: u64) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = client.ok(json!({"type": "history", "conv": conv, "after": after, "limit": 200}));
        for message in page["messages"].as_array().unwrap() {
            after = message["seq"].as_u64().unwrap();
            all.push((after, message["text"].as_str().unwrap().to_owned()));
        }
        if page["more"] == json!(false) {
            return all;
        }
    }
}

#[test]
fn a_batch_is_synced_before_any_of_its_acks_is_written() {
    if !Strace::available() {
        return;
    }
    let server = Chatd::builder(CHATD).start().unwrap();
    let (mut amy, _bob) = pair(&server);
    let conv = amy.send_text(To::Name("bob"), "the conversation begins")["conv"].as_u64().unwrap();
    let trace = Strace::attach(
        server.pid(),
        &["-f", "-s", "4096", "-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg"],
    );
    for number in 0..20 {
        amy.send_text(To::Conv(conv), &format!("traced-{number}"));
    }
    assert!(
        trace.wait_for(Duration::from_secs(10), |text| text.matches("\\\"type\\\":\\\"ok\\\"").count() >= 20)
    );
    let text = trace.stop();

    let mut wal_dirty = false;
    let (mut acks, mut syncs) = (0, 0);
    // With several threads a call may be shown in two halves; a sync counts when it has returned, a write to a socket when it begins.
    let mut syncing: Vec<&str> = Vec::new();
    for line in text.lines() {
        let thread = line.split_whitespace().nth(1).unwrap_or_default();
        if line.contains("pwrite64(") {
            wal_dirty = true;
        } else if line.contains("fdatasync(") || line.contains("fsync(") {
            if line.contains("<unfinished") {
                syncing.push(thread);
            } else {
                wal_dirty = false;
                syncs += 1;
            }
        } else if line.contains("sync resumed>") {
            syncing.retain(|other| *other != thread);
            wal_dirty = false;
            syncs += 1;
        } else if line.contains("\\\"type\\\":\\\"ok\\\"") && line.contains("\\\"seq\\\":") {
            assert!(!wal_dirty, "an ack was written while its batch was not synced:\n{line}\n\nin:\n{text}");
            acks += 1;
        }
    }
    assert_eq!(acks, 20, "the trace shows other acks than were sent:\n{text}");
    assert!(syncs >= 20, "one at a time, each message needs its sync; the trace shows {syncs}:\n{text}");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::new(6 << 20) else { return };
    let server = Chatd::builder(CHATD).data_dir(disk.path().join("data")).start().unwrap();
    let (mut amy, mut bob) = pair(&server);
    let conv = amy.send_text(To::Name("bob"), "0")["conv"].as_u64().unwrap();
    let mut acknowledged = vec!["0".to_owned()];
    disk.fill();
    let filler = "x".repeat(8_000);
    let mut refused = Vec::new();
    // The log file already has some room of its own; it is soon used up.
    for number in 1..2_000 {
        let text = format!("{number} {filler}");
        let id = format!("c-{number}");
        let reply = amy.request(json!({"type": "send", "conv": conv, "client_id": id, "text": text}));
        match reply["type"].as_str().unwrap() {
            "ok" => acknowledged.push(text),
            _ => {
                assert_eq!(reply["code"], json!("unavailable"), "{reply}");
                refused.push((id, text));
            }
        }
        if refused.len() == 3 {
            break;
        }
    }
    assert_eq!(refused.len(), 3, "the disk never got full");
    // Reading goes on, and the error names no path.
    assert!(amy.ok(json!({"type": "ping"}))["time_ms"].is_u64());
    let known: Vec<String> = texts(&mut bob, conv).into_iter().map(|(_, text)| text).collect();
    assert_eq!(known, acknowledged);

    disk.make_room();
    let retry = |amy: &mut LineClient, (id, text): &(String, String)| -> Value {
        amy.request(json!({"type": "send", "conv": conv, "client_id": id, "text": text}))
    };
    wait_until("the server accepts again", Duration::from_secs(20), || {
        retry(&mut amy, &refused[0])["type"] == json!("ok")
    });
    for unsent in &refused[1..] {
        assert_eq!(retry(&mut amy, unsent)["type"], json!("ok"));
    }
    acknowledged.extend(refused.into_iter().map(|(_, text)| text));
    server.kill9();
    server.restart().unwrap();
    let mut bob = server.client();
    bob.login("bob", Chatd::PASSWORD);
    let entries = texts(&mut bob, conv);
    let seqs: Vec<u64> = entries.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=acknowledged.len() as u64).collect::<Vec<_>>(), "gaps or doubles");
    assert_eq!(entries.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), acknowledged);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_a_clear_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("occupied");
    std::fs::write(&file, "not a folder").unwrap();
    for path in [file.as_path(), std::path::Path::new("/proc/chat-data")] {
        let report =
            Chatd::builder(CHATD).run_expecting_exit(["--data-dir", path.to_str().unwrap()]).unwrap();
        assert_eq!(report.code, Some(1), "{report:?}");
        assert!(report.stderr.contains(path.to_str().unwrap()), "{report:?}");
        assert!(report.stdout.is_empty(), "{report:?}");
    }
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let server = Chatd::builder(CHATD).start().unwrap();
    let (mut amy, _bob) = pair(&server);
    let data_dir = server.data_dir().to_str().unwrap().to_owned();
    let args = ["--data-dir", &data_dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let report = Chatd::builder(CHATD).run_expecting_exit(args).unwrap();
    assert_eq!(report.code, Some(1), "{report:?}");
    assert!(report.stderr.contains("in use"), "{report:?}");
    assert!(report.stderr.contains(&server.pid().to_string()), "{report:?}");
    assert_eq!(amy.send_text(To::Name("bob"), "still here")["seq"], json!(1));
}
