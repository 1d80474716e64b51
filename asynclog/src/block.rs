//! A block: whole lines, ready to be written with one call, and which records they are.

use std::time::{Duration, Instant};

use log::Level;

use crate::entry::Entry;
use crate::line;
use crate::stamp::{Stamps, now_micros};
use crate::stats::LevelCounts;

/// Lines that are written together.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// The records among the lines.
    records: usize,
    /// Holds a record that must not wait.
    urgent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    end: usize,
    /// None for what the log says of itself.
    level: Option<Level>,
}

impl Block {
    pub(crate) fn push(&mut self, stamps: &mut Stamps, entry: &Entry) {
        line::push_prefix(&mut self.bytes, stamps, entry.micros, entry.level);
        self.bytes.extend_from_slice(&entry.body);
        self.lines.push(Line { end: self.bytes.len(), level: Some(entry.level) });
        self.records += 1;
        self.urgent |= entry.level == Level::Error;
    }

    /// Adds a line of the log about itself; its text is ours and needs no escaping but for what the system said.
    pub(crate) fn push_notice(&mut self, stamps: &mut Stamps, text: &str) {
        line::push_prefix(&mut self.bytes, stamps, now_micros(), Level::Warn);
        let args = format_args!("{text}");
        let record = log::Record::builder().target("asynclog").args(args).build();
        let mut body = Vec::new();
        line::push_body(&mut body, &record, crate::config::RECORD_BYTES);
        self.bytes.extend_from_slice(&body);
        self.lines.push(Line { end: self.bytes.len(), level: None });
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn records(&self) -> usize {
        self.records
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
        self.records = 0;
        self.urgent = false;
    }

    /// Where the line begins of which byte `at` is a part.
    pub(crate) fn line_start(&self, at: usize) -> usize {
        self.lines.iter().map(|line| line.end).take_while(|end| *end <= at).last().unwrap_or(0)
    }

    /// The records that are not whole within the first `done` bytes.
    pub(crate) fn records_behind(&self, done: usize) -> LevelCounts {
        let mut counts = LevelCounts::default();
        for level in self.lines.iter().filter(|line| line.end > done).filter_map(|line| line.level) {
            counts.add_one(level);
        }
        counts
    }
}

/// When something that was logged at `micros` has waited for `interval`; a clock that was stepped does not count.
pub(crate) fn due_at(micros: i64, interval: Duration) -> Instant {
    let age = u64::try_from(now_micros().saturating_sub(micros)).unwrap_or(0);
    Instant::now() + interval.saturating_sub(Duration::from_micros(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bodies: &[(&str, Level)]) -> Block {
        let mut block = Block::default();
        let mut stamps = Stamps::default();
        for (body, level) in bodies {
            block.push(&mut stamps, &Entry { micros: 0, level: *level, body: format!("{body}\n").into() });
        }
        block
    }

    #[test]
    fn what_is_behind_a_cut_is_counted_by_whole_lines() {
        let mut block = block(&[("one", Level::Info), ("two", Level::Warn)]);
        block.push_notice(&mut Stamps::default(), "of the log itself");
        let first = block.bytes().iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(block.records_behind(0).total(), 2);
        assert_eq!(block.records_behind(first - 1).total(), 2);
        assert_eq!(block.records_behind(first).warn, 1);
        assert_eq!(block.records_behind(first).total(), 1);
        assert_eq!(block.records_behind(block.bytes().len()).total(), 0);
        assert_eq!(block.line_start(first - 1), 0);
        assert_eq!(block.line_start(first), first);
        assert_eq!(block.line_start(first + 5), first);
        assert_eq!(block.records(), 2);
    }

    #[test]
    fn an_error_makes_a_block_urgent_until_it_is_cleared() {
        let mut block = block(&[("one", Level::Info), ("two", Level::Error), ("three", Level::Info)]);
        assert!(block.is_urgent());
        block.clear();
        assert!(!block.is_urgent() && block.is_empty() && block.records() == 0);
    }

    #[test]
    fn a_stepped_clock_neither_delays_nor_hurries_beyond_the_interval() {
        let interval = Duration::from_secs(3600);
        let before = Instant::now();
        assert!(due_at(i64::MAX, interval) >= before + interval);
        assert!(due_at(now_micros() + 60_000_000, interval) <= Instant::now() + interval);
        assert!(due_at(i64::MIN, interval) <= Instant::now());
    }
}
