//! What the tests share: records, waiting on conditions, writers that block and fail on command.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use asynclog::{AsyncLog, FlushConfig};
use log::{Level, Log, Record};

/// Longer than any test should take: a bound, not a measurement.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Never flushes by itself.
pub(crate) fn never() -> FlushConfig {
    FlushConfig { records: usize::MAX, bytes: usize::MAX, interval: Duration::from_secs(3600) }
}

pub(crate) fn say(log: &AsyncLog, level: Level, text: &str) {
    log.log(&Record::builder().level(level).target("test").args(format_args!("{text}")).build());
}

pub(crate) fn info(log: &AsyncLog, text: &str) {
    say(log, Level::Info, text);
}

/// The messages of a text's lines, each checked for its form; without the lines that begin and end a file.
pub(crate) fn messages(text: &str) -> Vec<String> {
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line at the end: {text:?}");
    text.lines()
        .filter(|line| !is_seal(line))
        .map(|line| {
            let (head, message) =
                line.split_once(" | ").unwrap_or_else(|| panic!("no line of ours: {line:?}"));
            let fields: Vec<_> = head.split(' ').collect();
            let numbered = fields.last().is_some_and(|field| field.starts_with('#'));
            assert_eq!(fields.len(), 5 + usize::from(numbered), "{line:?}");
            assert_eq!(fields[0].len(), 27, "{line:?}");
            assert!(matches!(fields[1], "E" | "W" | "I" | "D" | "T"), "{line:?}");
            message.to_owned()
        })
        .collect()
}

/// Whether the log wrote this line about a file's beginning or end.
pub(crate) fn is_seal(line: &str) -> bool {
    ["opened", "closed", "ended"].iter().any(|word| line.contains(&format!(" asynclog - | {word}: run ")))
}

pub(crate) fn messages_of(path: &Path) -> Vec<String> {
    messages(&fs::read_to_string(path).unwrap())
}

/// Waits until `done` holds.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Adds up the numbers before " records dropped" in all lines that tell of drops.
pub(crate) fn told_drops(messages: &[String]) -> u64 {
    messages
        .iter()
        .filter_map(|m| m.split_once(" records dropped "))
        .map(|(n, _)| n.parse::<u64>().unwrap())
        .sum()
}

/// A target that can be closed, so that writing blocks, and told to fail.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    inner: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
pub(crate) struct State {
    text: Vec<u8>,
    shut: bool,
    /// A write is waiting at the shut gate.
    waiting: bool,
    /// Bytes that still fit before writing fails.
    room: Option<usize>,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.inner.0.lock().unwrap().shut = true;
    }

    pub(crate) fn open(&self) {
        self.inner.0.lock().unwrap().shut = false;
        self.inner.1.notify_all();
    }

    pub(crate) fn room(&self, room: Option<usize>) {
        self.inner.0.lock().unwrap().room = room;
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.inner.0.lock().unwrap().waiting
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.inner.0.lock().unwrap().text.clone()).unwrap()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        messages(&self.text())
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.inner.0.lock().unwrap();
        while state.shut {
            state.waiting = true;
            state = self.inner.1.wait(state).unwrap();
        }
        state.waiting = false;
        let fits = state.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        state.text.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
