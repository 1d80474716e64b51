//! What goes wrong for a while, and what must hold then and afterwards.
//!
//! 1. The reader of a pipe sleeps for 5 s: no caller is held up, all is counted, told and proven.
//! 2. A small disk is full: warnings have a reserve, the rest is told when there is room, and the file is proven.
//! 3. What writes the log logs itself: it waits for nobody, and nothing is lost.
//! 4. A limit lies within a character: it is cut before it, in either format.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use asynclog::{AsyncLog, Builder, Format, Overflow, Verifier};
use common::{Gate, LONG, info, messages, messages_of, never, say, told_drops};
use log::Level;

#[test]
fn a_pipe_whose_reader_sleeps_for_seconds_holds_up_nobody_and_hides_no_drop() {
    const SLEEP: Duration = Duration::from_secs(5);
    let (mut reader, pipe) = io::pipe().unwrap();
    let (log, guard) = Builder::new().writer(pipe).thread_buffer(16 * 1024).build().unwrap();
    let begin = Instant::now();
    let reading = thread::spawn(move || {
        // The fault itself: nothing is waited for here.
        thread::sleep(SLEEP);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let log = log.clone();
            thread::spawn(move || {
                if caller == 0 {
                    asynclog::mark_loop_thread();
                }
                let mut logged = 0_u64;
                while begin.elapsed() < SLEEP {
                    info(&log, "while nobody reads");
                    logged += 1;
                    thread::sleep(Duration::from_micros(50));
                }
                logged
            })
        })
        .collect();
    let logged: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    drop(guard);
    let stats = log.stats();
    // One that had waited for the reader would have logged a pipe's worth and no more.
    assert!(stats.dropped() > 0);
    assert_eq!((stats.produced, stats.written + stats.dropped()), (logged, logged));
    // The pipe's end is closed with the log's own thread.
    let found = messages(&reading.join().unwrap());
    assert_eq!(told_drops(&found), stats.dropped());
    assert_eq!(found.iter().filter(|message| *message == "while nobody reads").count() as u64, stats.written);
}

#[test]
fn a_full_disk_keeps_the_warnings_and_tells_of_the_rest_when_there_is_room() {
    let Some(disk) = testkit::SmallDisk::new(4 * 1024 * 1024) else { return };
    let path = disk.path().join("a.log");
    let (log, guard) = Builder::new().file(&path).thread_buffer(8 * 1024 * 1024).build().unwrap();
    info(&log, "before");
    guard.barrier(LONG).unwrap();
    disk.fill();
    // 2 MiB of infos, for which there is no room in memory either, and some warnings behind them.
    let text = "x".repeat(1000);
    for n in 0..2000 {
        info(&log, &format!("{n} {text}"));
        if n % 100 == 99 {
            assert!(guard.barrier(LONG).is_err());
        }
    }
    (0..100).for_each(|n| say(&log, Level::Warn, &format!("warning {n}")));
    assert!(guard.barrier(LONG).is_err());
    let lost = guard.stats().lost_by_level;
    assert!(lost.info > 0 && lost.warn == 0, "{lost:?}");

    disk.make_room();
    // Tries at once, so that there is room in memory again for what comes then.
    guard.barrier(LONG).unwrap();
    info(&log, "after");
    guard.barrier(LONG).unwrap();
    drop(guard);
    let found = messages_of(&path);
    assert_eq!(found.iter().filter(|message| message.starts_with("warning ")).count(), 100);
    assert!(found.iter().any(|message| message == "after"));
    assert!(found.iter().any(|message| message.contains("because writing failed from 20")));
    assert_eq!(told_drops(&found), log.stats().dropped());
    let mut verifier = Verifier::default();
    verifier.read("a.log", BufReader::new(File::open(&path).unwrap())).unwrap();
    let report = verifier.finish();
    assert!(report.is_proven() && report.runs[0].whole, "{report:?}");
    assert_eq!(report.runs[0].dropped, log.stats().dropped());
}

#[test]
fn a_writer_that_logs_waits_for_nobody() {
    const OWN: usize = 500;
    struct Chatty(Gate, Arc<OnceLock<AsyncLog>>, usize);
    impl Write for Chatty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(log) = self.1.get().filter(|_| self.2 < OWN) {
                self.2 += 1;
                info(log, &format!("written {}", bytes.len()));
                // It would wait for itself.
                log::Log::flush(log);
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (gate, own) = (Gate::default(), Arc::new(OnceLock::new()));
    let overflow = Overflow::Block { at_most: LONG };
    let builder = Builder::new().writer(Chatty(gate.clone(), Arc::clone(&own), 0)).overflow(overflow);
    let (log, guard) = builder.thread_buffer(1024).build().unwrap();
    own.set(log.clone()).unwrap();
    for _ in 0..OWN {
        info(&log, "a caller's");
        guard.barrier(LONG).unwrap();
    }
    drop(guard);
    let stats = log.stats();
    assert_eq!(stats.produced, 2 * OWN as u64);
    assert_eq!(stats.written + stats.dropped(), stats.produced);
    let callers = gate.messages().iter().filter(|message| *message == "a caller's").count();
    assert_eq!(callers, OWN);
}

#[test]
fn a_limit_within_a_character_cuts_before_it_in_either_format() {
    for format in [Format::Text, Format::Json] {
        let gate = Gate::default();
        let builder = Builder::new().writer(gate.clone()).format(format).record_bytes(256).flush(never());
        let (log, guard) = builder.build().unwrap();
        let texts: Vec<_> =
            (0..8).map(|n| "y".repeat(n) + &["é", "€", "😀", "\u{2028}"].concat().repeat(100)).collect();
        texts.iter().for_each(|text| info(&log, text));
        drop(guard);
        // Whole UTF-8, or this would panic.
        let text = gate.text();
        for (line, whole) in text.lines().zip(&texts) {
            let kept = match format {
                Format::Json => {
                    let object: serde_json::Value = serde_json::from_str(line).unwrap();
                    let kept = object["message"].as_str().unwrap().to_owned();
                    assert_eq!(object["bytes_cut"], whole.len() - kept.len());
                    kept
                }
                _ => {
                    let (_, message) = line.split_once(" | ").unwrap();
                    let (kept, note) = message.split_once("...[").unwrap();
                    let kept = kept.replace("\\u{2028}", "\u{2028}");
                    assert_eq!(note, format!("{} bytes cut]", whole.len() - kept.len()));
                    kept
                }
            };
            assert!(whole.starts_with(&kept) && kept.len() > 50, "{line}");
        }
        assert_eq!(text.lines().count(), texts.len());
    }
}
