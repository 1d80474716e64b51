//! A block: whole lines, ready to be written with one call, and which records they are.

use std::time::{Duration, Instant};

use log::Level;

use crate::frame::Frame;
use crate::lost::Lost;
use crate::printer::{From, Printer};
use crate::stamp::now_micros;

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

/// One line of a block.
#[derive(Clone, Copy, Debug)]
struct Line {
    end: usize,
    /// None for what the log says of itself.
    record: Option<(Level, RecordId)>,
}

/// Which record: its thread's lane, and its number there. Written `#3.1042`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordId {
    pub(crate) lane: u32,
    pub(crate) number: u64,
}

impl Block {
    /// Adds a record's line, which comes from this lane.
    pub(crate) fn push(&mut self, printer: &mut Printer, frame: &Frame<'_>, lane: u32, from: From<'_>) {
        printer.record(&mut self.bytes, frame, from);
        let id = RecordId { lane, number: frame.number };
        self.lines.push(Line { end: self.bytes.len(), record: Some((frame.level, id)) });
        self.records += 1;
        self.urgent |= frame.level == Level::Error;
    }

    /// Adds a line of the log about itself; its text is ours and needs no escaping but for what the system said.
    pub(crate) fn push_notice(&mut self, printer: &mut Printer, text: &str) {
        printer.notice(&mut self.bytes, Level::Warn, text);
        self.lines.push(Line { end: self.bytes.len(), record: None });
    }

    /// The same, but it is no trouble.
    pub(crate) fn push_remark(&mut self, printer: &mut Printer, text: &str) {
        printer.notice(&mut self.bytes, Level::Info, text);
        self.lines.push(Line { end: self.bytes.len(), record: None });
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

    /// The worst level of its records.
    pub(crate) fn worst(&self) -> Option<Level> {
        self.lines.iter().filter_map(|line| line.record).map(|(level, _)| level).min()
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
    pub(crate) fn lost_behind(&self, done: usize) -> Lost {
        let mut lost = Lost::default();
        for (level, id) in self.lines.iter().filter(|line| line.end > done).filter_map(|line| line.record) {
            lost.add(level, id);
        }
        lost
    }

    /// Takes out all records below level warn; what is lost is returned.
    pub(crate) fn keep_warnings(&mut self) -> Lost {
        let mut lost = Lost::default();
        let mut kept = Self::default();
        let mut start = 0;
        for line in &self.lines {
            match line.record {
                Some((level, id)) if level > Level::Warn => lost.add(level, id),
                record => {
                    kept.bytes.extend_from_slice(self.bytes.get(start..line.end).unwrap_or_default());
                    kept.lines.push(Line { end: kept.bytes.len(), record });
                    kept.records += usize::from(record.is_some());
                }
            }
            start = line.end;
        }
        kept.urgent = self.urgent;
        *self = kept;
        lost
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
        let mut printer = Printer::default();
        for (number, (body, level)) in (1..).zip(bodies) {
            let frame = Frame {
                level: *level,
                micros: 0,
                number,
                target: "t",
                file: None,
                line: None,
                fields: "",
                message: body,
                cut: 0,
                failed: false,
                bytes: 0,
            };
            let from = From { label: "main", lane: Some(3), record_bytes_max: 8192 };
            block.push(&mut printer, &frame, 3, from);
        }
        block
    }

    #[test]
    fn what_is_behind_a_cut_is_counted_by_whole_lines() {
        let mut block = block(&[("one", Level::Info), ("two", Level::Warn)]);
        block.push_notice(&mut Printer::default(), "of the log itself");
        let first = block.bytes().iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(block.lost_behind(0).by_level.total(), 2);
        assert_eq!(block.lost_behind(first - 1).by_level.total(), 2);
        assert_eq!(block.lost_behind(first).by_level.warn, 1);
        assert_eq!(block.lost_behind(first).by_level.total(), 1);
        assert_eq!(block.lost_behind(block.bytes().len()).by_level.total(), 0);
        assert_eq!(block.line_start(first - 1), 0);
        assert_eq!(block.line_start(first), first);
        assert_eq!(block.line_start(first + 5), first);
        assert_eq!(block.records(), 2);
    }

    #[test]
    fn warnings_and_the_logs_own_lines_stay_when_room_is_short() {
        let mut block = block(&[
            ("one", Level::Info),
            ("two", Level::Warn),
            ("three", Level::Debug),
            ("four", Level::Error),
        ]);
        block.push_notice(&mut Printer::default(), "of the log itself");
        let lost = block.keep_warnings();
        assert_eq!((lost.by_level.info, lost.by_level.debug, lost.by_level.total()), (1, 1, 2));
        let text = String::from_utf8(block.bytes().to_vec()).unwrap();
        assert!(
            text.contains("#3.2 | two\n") && text.contains("#3.4 | four\n") && text.contains("itself"),
            "{text}"
        );
        assert!(!text.contains("one") && !text.contains("three"));
        assert_eq!((block.records(), block.lost_behind(0).by_level.total()), (2, 2));
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
