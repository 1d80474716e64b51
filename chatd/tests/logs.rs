//! The server's own log: nothing is missing from its files, whatever it went through, and it is turned up and down while the server runs.
//!
//! `CHATD_SOAK_SECS=N` lets the load run for so long, in place of a number of rounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::fs::{self, File};
use std::io::BufReader;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use asynclog::{Verifier, VerifyReport};
use serde_json::{Value, json};
use testkit::{Chatd, wait_until};

const LONG: Duration = Duration::from_secs(60);
const BIN: &str = env!("CARGO_BIN_EXE_chatd");
/// Of short connections and messages, by each thread.
const ROUNDS: u32 = 30;
const PER_ROUND: u32 = 20;
const THREADS: usize = 4;

/// The files of the log, by age.
fn files(chatd: &Chatd) -> Vec<PathBuf> {
    let current = chatd.log_path();
    let folder = fs::read_dir(current.parent().unwrap()).unwrap();
    let is_log = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("chatd.log");
    let mut all: Vec<_> = folder.map(|entry| entry.unwrap().path()).filter(is_log).collect();
    all.sort_by_key(|path| Verifier::place(BufReader::new(File::open(path).unwrap())).unwrap());
    all
}

fn verify(files: &[PathBuf]) -> VerifyReport {
    let mut verifier = Verifier::default();
    for file in files {
        verifier.read(&file.display().to_string(), BufReader::new(File::open(file).unwrap())).unwrap();
    }
    verifier.finish()
}

/// Messages and connections that come and go, until the work is done.
fn load(chatd: &Chatd, name: &str, until: Option<Instant>) {
    let mut client = chatd.client_as(name);
    let mut rounds = 0;
    while until.map_or(rounds < ROUNDS, |end| Instant::now() < end) {
        for _ in 0..PER_ROUND {
            drop(TcpStream::connect(chatd.chat_addr()).unwrap());
        }
        client.ok(json!({"type": "send", "user": "a0", "text": "hi"}));
        rounds += 1;
    }
}

#[test]
fn nothing_is_missing_from_rolled_logs_of_a_busy_server() {
    let roll = "[logging]\nfile_bytes_max = 65536\nkeep_files = 1000000\nthread_buffer_bytes = 4194304\n";
    let chatd = Chatd::builder(BIN).more_config(roll).args(["--log", "debug"]).start().unwrap();
    let soak = std::env::var("CHATD_SOAK_SECS").ok().map(|secs| secs.parse().unwrap());
    let until = soak.map(|secs| Instant::now() + Duration::from_secs(secs));
    drop(chatd.client_as("a0"));
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let chatd = &chatd;
            scope.spawn(move || load(chatd, &format!("a{number}"), until));
        }
        // What an operator and logrotate do meanwhile.
        for number in 0..3 {
            let aside = chatd.log_path().with_extension(format!("log.moved{number}"));
            // It may just be rolled.
            wait_until("the log is moved", LONG, || fs::rename(chatd.log_path(), &aside).is_ok());
            chatd.hang_up();
            wait_until("the log is there again", LONG, || chatd.log_path().exists());
        }
    });
    chatd.terminate();
    assert!(chatd.wait_exit(LONG).success());
    let all = files(&chatd);
    let report = verify(&all);
    assert!(report.is_proven(), "{:?}", report.findings);
    let [run] = &report.runs[..] else { panic!("one run: {report:?}") };
    assert!(run.whole && run.dropped == 0, "{run:?}");
    let least = u64::try_from(THREADS).unwrap() * u64::from(ROUNDS * PER_ROUND);
    assert!(soak.is_some() || run.written >= least, "a record for each connection's end: {run:?}");
    // Three were moved away, and the rest was too much for one file.
    assert!(all.len() > 5, "{all:?}");
    eprintln!("{} records in {} files", run.written, all.len());
}

#[test]
fn a_filter_file_holds_as_soon_as_it_is_saved_and_no_longer_than_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let filter = folder.path().join("filter");
    let flag = [filter.as_os_str()];
    let chatd = Chatd::builder(BIN).arg("--log-filter-file").args(flag).start().unwrap();
    let ends = || chatd.log_text().matches(" ended: ").count();
    let one_more = || drop(TcpStream::connect(chatd.chat_addr()).unwrap());
    one_more();
    chatd.client_as("amy");
    assert_eq!(ends(), 0, "info is the default");
    fs::write(&filter, "# while we look for it\ninfo\nreactor=debug\n").unwrap();
    wait_until("ends of connections are logged", LONG, || {
        one_more();
        ends() > 0
    });
    fs::remove_file(&filter).unwrap();
    wait_until("the filter is the old one", LONG, || {
        chatd.log_text().matches("the filter is now `").count() >= 2
    });
    let before = ends();
    one_more();
    chatd.client_as("bob");
    fs::write(&filter, "no=such=thing").unwrap();
    wait_until("the mistake is told", LONG, || chatd.log_text().contains("the filter stays as it was"));
    assert!(ends() <= before + 1, "but for one that was on its way");
    chatd.hang_up();
    chatd.client_as("cat").ping();
}

#[test]
fn lines_of_json_are_objects_that_tell_what_the_others_do() {
    let chatd = Chatd::builder(BIN).args(["--log-format", "json"]).start().unwrap();
    chatd.terminate();
    assert!(chatd.wait_exit(LONG).success());
    let text = chatd.log_text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |words: &str| {
        lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains(words))).unwrap()
    };
    let line = said("serves chat on");
    assert_eq!(
        (&line["level"], &line["target"], &line["file"]),
        (&json!("INFO"), &json!("chatd"), &json!("main.rs"))
    );
    said("shutting down");
    assert!(verify(&files(&chatd)).is_proven());
}
