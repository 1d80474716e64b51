//! Which records are lost: ranges of numbers by lane, counted by level, and how a line tells of them.

use std::collections::BTreeMap;
use std::fmt::Write;

use log::Level;

use crate::block::RecordId;
use crate::stats::LevelCounts;

/// So many ranges are told in one line: it stays well under the longest line, whatever the numbers.
pub(crate) const RANGES_PER_LINE: usize = 64;

/// Records that will not be written.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) by_level: LevelCounts,
    /// First and last, oldest first.
    ranges: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl Lost {
    pub(crate) fn add(&mut self, level: Level, id: RecordId) {
        self.by_level.add_one(level);
        self.add_range(id.lane, id.number, id.number);
    }

    fn add_range(&mut self, lane: u32, first: u64, last: u64) {
        let ranges = self.ranges.entry(lane).or_default();
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => ranges.push((first, last)),
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.by_level = self.by_level.plus(&other.by_level);
        for (lane, ranges) in other.ranges {
            for (first, last) in ranges {
                self.add_range(lane, first, last);
            }
        }
    }

    /// Tells it in as many lines as are needed: `17 records dropped (…) why: #3.1-16 #4.9`. The levels are in the first.
    pub(crate) fn told(&self, why: &str) -> Vec<String> {
        let all: Vec<_> = self
            .ranges
            .iter()
            .flat_map(|(lane, of)| of.iter().map(|(first, last)| (*lane, *first, *last)))
            .collect();
        if all.is_empty() {
            return vec![told_line(&self.by_level, why, &[])];
        }
        let mut by_level = Some(&self.by_level);
        let none = LevelCounts::default();
        all.chunks(RANGES_PER_LINE)
            .map(|part| told_line(by_level.take().unwrap_or(&none), why, part))
            .collect()
    }
}

/// One line about these ranges, each a lane, a first and a last number.
pub(crate) fn told_line(by_level: &LevelCounts, why: &str, ranges: &[(u32, u64, u64)]) -> String {
    let total: u64 = ranges.iter().map(|(_, first, last)| last - first + 1).sum();
    let LevelCounts { error, warn, info, debug, trace } = by_level;
    let mut text = format!(
        "{total} records dropped (error {error}, warn {warn}, info {info}, debug {debug}, trace {trace}) {why}"
    );
    for (at, (lane, first, last)) in ranges.iter().enumerate() {
        let mark = if at == 0 { ":" } else { "" };
        let _ = match first == last {
            true => write!(text, "{mark} #{lane}.{first}"),
            false => write!(text, "{mark} #{lane}.{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_as_one_range() {
        let mut lost = Lost::default();
        for number in [5, 6, 7, 9] {
            lost.add(Level::Info, RecordId { lane: 2, number });
        }
        lost.add(Level::Error, RecordId { lane: 1, number: 1 });
        let mut more = Lost::default();
        more.add(Level::Info, RecordId { lane: 2, number: 10 });
        lost.append(more);
        assert_eq!(
            lost.told("for a test"),
            ["6 records dropped (error 1, warn 0, info 5, debug 0, trace 0) for a test: #1.1 #2.5-7 #2.9-10"]
        );
    }

    #[test]
    fn many_ranges_take_several_lines_whose_totals_add_up() {
        let mut lost = Lost::default();
        (0..200).for_each(|n| lost.add(Level::Info, RecordId { lane: 1, number: 2 * n }));
        let lines = lost.told("x");
        let total = |line: &String| line.split(' ').next().unwrap().parse::<u64>().unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines.iter().map(total).sum::<u64>(), 200);
    }

    #[test]
    fn nothing_lost_is_told_too() {
        assert!(Lost::default().told("x").concat().starts_with("0 records dropped (error 0"));
    }
}
