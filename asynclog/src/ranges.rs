//! A set of numbers, kept as ranges: small as long as the numbers have few gaps.

use std::collections::BTreeMap;

/// Numbers from 1, by the first of each range; ranges neither touch nor overlap.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    by_first: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `first` to `last`; false, and nothing is added, when one of them is there already.
    pub(crate) fn add(&mut self, mut first: u64, mut last: u64) -> bool {
        let before = self.by_first.range(..=last).next_back().map(|(first, last)| (*first, *last));
        if let Some((start, end)) = before {
            if end >= first {
                return false;
            }
            if end + 1 == first {
                self.by_first.remove(&start);
                first = start;
            }
        }
        if let Some(end) = last.checked_add(1).and_then(|next| self.by_first.remove(&next)) {
            last = end;
        }
        self.by_first.insert(first, last);
        true
    }

    /// What is missing between the ranges, and before the first one unless that is where they begin.
    pub(crate) fn gaps(&self, from_one: bool) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = from_one.then_some(1);
        for (first, last) in &self.by_first {
            if let Some(next) = next.filter(|next| next < first) {
                gaps.push((next, first - 1));
            }
            next = last.checked_add(1);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_join_to_one_range() {
        let mut ranges = Ranges::default();
        for number in [3, 1, 5, 4, 2] {
            assert!(ranges.add(number, number));
        }
        assert_eq!(ranges.by_first.len(), 1);
        assert!(ranges.gaps(true).is_empty());
    }

    #[test]
    fn what_is_there_is_not_added_again() {
        let mut ranges = Ranges::default();
        assert!(ranges.add(5, 9));
        for (first, last) in [(5, 5), (9, 9), (1, 5), (9, 20), (1, 20), (6, 7)] {
            assert!(!ranges.add(first, last), "{first}-{last}");
        }
        assert!(ranges.add(1, 4) && ranges.add(10, 20));
        assert_eq!(ranges.by_first.len(), 1);
    }

    #[test]
    fn gaps_are_named() {
        let mut ranges = Ranges::default();
        assert!(ranges.add(3, 4) && ranges.add(7, 9));
        assert_eq!(ranges.gaps(true), [(1, 2), (5, 6)]);
        assert_eq!(ranges.gaps(false), [(5, 6)]);
    }
}
