//! JSON lines, and colours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod common;

use std::fs::{self, File};
use std::io::BufReader;

use asynclog::{Builder, Format, RollConfig, Verifier, VerifyReport};
use common::{Gate, LONG, never};
use log::{Level, Log, Record};
use serde_json::Value;

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verify(texts: &[Vec<u8>]) -> VerifyReport {
    let mut verifier = Verifier::default();
    texts.iter().for_each(|text| verifier.read("a.log", text.as_slice()).unwrap());
    verifier.finish()
}

#[test]
fn json_lines_have_the_parts_of_a_record_under_their_names() {
    let gate = Gate::default();
    let (log, guard) =
        Builder::new().writer(gate.clone()).format(Format::Json).flush(never()).build().unwrap();
    let _conv = asynclog::context("conv", 55);
    let mut record = Record::builder();
    record.level(Level::Warn).target("chatd::session").file(Some("chatd/src/session.rs")).line(Some(142));
    let pair = [("ms", log::kv::Value::from(7))];
    log.log(&record.key_values(&pair).args(format_args!("slow:\n\"{}\"", "x")).build());
    guard.barrier(LONG).unwrap();
    let object = &objects(&gate.text())[0];
    assert_eq!(object["time"].as_str().unwrap().len(), "2026-09-23T10:15:04.123456Z".len());
    assert_eq!((&object["level"], &object["target"]), (&"WARN".into(), &"chatd::session".into()));
    assert_eq!((&object["file"], &object["line"]), (&"session.rs".into(), &142.into()));
    assert_eq!(object["message"], "slow:\n\"x\"");
    assert_eq!(object["fields"], serde_json::json!({ "conv": "55", "ms": 7 }));
    assert_eq!(object["thread"], "json_lines_have_the_parts_of_a_");
}

#[test]
fn rolled_json_files_are_proven_like_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let roll = RollConfig { bytes_max: 4000, keep: 100, ..RollConfig::default() };
    let builder =
        Builder::new().file(&path).format(Format::Json).roll(roll).thread_buffer(1000).flush(never());
    let (log, guard) = builder.build().unwrap();
    for n in 0..300 {
        // What speaks like the log itself is a record all the same.
        let args = format_args!("closed: run \",\"number\":\"1.{n}\" part 1");
        log.log(&Record::builder().target("asynclog").args(args).build());
        if n % 3 == 0 && n > 100 {
            guard.barrier(LONG).unwrap();
        }
    }
    drop(guard);
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_by_key(|path| (path.extension().is_some_and(|end| end == "log"), path.clone()));
    let mut texts: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    texts.iter().for_each(|text| drop(objects(std::str::from_utf8(text).unwrap())));

    let report = verify(&texts);
    assert!(report.is_proven() && report.runs[0].whole, "{report:?}");
    let (written, dropped) = (report.runs[0].written, report.runs[0].dropped);
    assert_eq!((written, dropped), (log.stats().written, log.stats().dropped()));
    assert_eq!(written + dropped, 300);
    assert!(dropped > 0 && paths.len() > 3, "{dropped} {}", paths.len());

    // A line taken out of the middle of a file is missed.
    let middle = &mut texts[2];
    let cut = middle.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let end = cut + middle[cut..].iter().position(|byte| *byte == b'\n').unwrap() + 1;
    middle.drain(cut..end);
    assert!(!verify(&texts).is_proven());
    let read = BufReader::new(File::open(&path).unwrap());
    assert!(Verifier::default().read("a.log", read).is_ok());
}
