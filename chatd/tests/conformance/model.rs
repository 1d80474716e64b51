//! What the stream promise says, as a model: the one truth, and what a connection may be told of it.

use std::collections::{BTreeMap, BTreeSet};

/// A conversation and a number in it.
pub(crate) type Place = (u64, u64);

/// All that any connection has been told. No two may be told different things.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    entries: BTreeMap<Place, (u64, String)>,
    places: BTreeMap<String, Place>,
}

impl Truth {
    /// Takes note of an entry. Texts are unique, so one that appears at two places was doubled.
    pub(crate) fn learn(&mut self, place: Place, from: u64, text: &str) -> Result<(), String> {
        let at = *self.places.entry(text.to_owned()).or_insert(place);
        if at != place {
            let text = text.chars().take(60).collect::<String>();
            return Err(format!("{text:?} is at {at:?} and at {place:?}"));
        }
        let known = self.entries.entry(place).or_insert_with(|| (from, text.to_owned()));
        if (known.0, known.1.as_str()) != (from, text) {
            return Err(format!("{place:?} was {known:?} and is now {text:?} from {from}"));
        }
        Ok(())
    }

    /// Each conversation's highest number.
    pub(crate) fn lasts(&self) -> BTreeMap<u64, u64> {
        // In order, so the last of a conversation is the one that stays.
        self.entries.keys().copied().collect()
    }

    /// A conversation's highest number.
    pub(crate) fn last(&self, conv: u64) -> u64 {
        self.entries.range((conv, 0)..=(conv, u64::MAX)).next_back().map_or(0, |(place, _)| place.1)
    }

    /// Who wrote what at a place.
    pub(crate) fn at(&self, place: Place) -> Option<&(u64, String)> {
        self.entries.get(&place)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first number that nobody was told of, below one that somebody was told of.
    pub(crate) fn gap(&self) -> Option<Place> {
        let lasts = self.lasts();
        lasts.iter().find_map(|(&conv, &last)| {
            (1..=last).map(|seq| (conv, seq)).find(|place| !self.entries.contains_key(place))
        })
    }
}

/// One conversation's stream on one connection.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The start is not below this.
    pub(crate) low: u64,
    /// The start is not above this.
    pub(crate) high: u64,
    /// With `synced` everything up to here has come.
    pub(crate) synced_to: u64,
    /// Whether a device's own cursor is the start.
    pub(crate) named: bool,
    /// The highest ack that this connection has sent.
    pub(crate) acked: u64,
    pushed: BTreeSet<u64>,
    own: BTreeSet<u64>,
}

impl Stream {
    /// A `message` push: after the start, above all earlier pushes, and not twice.
    pub(crate) fn on_push(&mut self, seq: u64) -> Result<(), String> {
        let last = self.pushed.last().copied().unwrap_or(0);
        if seq <= self.low {
            return Err(format!("{seq} was pushed, and the stream starts at {} or later", self.low));
        }
        if seq <= last {
            return Err(format!("{seq} was pushed after {last}"));
        }
        if self.own.contains(&seq) {
            return Err(format!("{seq} was pushed and came as this connection's own ok"));
        }
        self.pushed.insert(seq);
        Ok(())
    }

    /// The `ok`, no duplicate, of this connection's own send.
    pub(crate) fn on_own(&mut self, seq: u64) -> Result<(), String> {
        if self.pushed.contains(&seq) || !self.own.insert(seq) {
            return Err(format!("{seq} came twice, at last as an ok"));
        }
        Ok(())
    }

    /// Another session's ack may still have moved the start, which the page lets be taken any time after the login.
    pub(crate) fn on_others_ack(&mut self, seq: u64) {
        if !self.named && self.pushed.is_empty() {
            self.high = self.high.max(seq);
        }
    }

    /// Whether the start is known exactly.
    pub(crate) fn is_exact(&self) -> bool {
        self.low == self.high
    }

    /// How many pushes this connection has not acked.
    pub(crate) fn unacked(&self) -> usize {
        self.pushed.range(self.acked + 1..).count()
    }

    /// The number up to which nothing is missing, as far as a client can tell for certain.
    pub(crate) fn complete_to(&self) -> u64 {
        // Where the start is not known, the first entry tells it if it was pushed; an own one may have overtaken pushes.
        let first = self.after(self.low).next().filter(|first| self.pushed.contains(first));
        let mut complete = match first {
            Some(first) if !self.is_exact() && first <= self.high + 1 => first - 1,
            _ => self.low,
        };
        complete = complete.max(self.synced_to);
        for seq in self.after(complete) {
            if seq != complete + 1 {
                break;
            }
            complete = seq;
        }
        complete
    }

    /// Whether everything from the start up to `last` has come.
    pub(crate) fn has_all_to(&self, last: u64) -> bool {
        let mut expected = None;
        for seq in self.after(self.low).take_while(|&seq| seq <= last) {
            if expected.is_none_or(|expected| seq == expected) && (expected.is_some() || seq <= self.high + 1)
            {
                expected = Some(seq + 1);
            } else {
                return false;
            }
        }
        expected.map_or(last <= self.high, |expected| expected == last + 1)
    }

    /// What has come after a number, in order.
    fn after(&self, seq: u64) -> impl Iterator<Item = u64> {
        let both = self.pushed.range(seq + 1..).chain(self.own.range(seq + 1..)).copied();
        BTreeSet::from_iter(both).into_iter()
    }
}

#[test]
fn the_model_knows_a_gap_a_doubled_entry_and_a_late_one() {
    let mut stream = Stream { low: 2, high: 2, ..Stream::default() };
    assert!(stream.on_push(2).is_err() && stream.on_push(3).is_ok() && stream.on_push(3).is_err());
    assert!(stream.on_own(5).is_ok() && stream.on_own(3).is_err());
    assert_eq!((stream.complete_to(), stream.has_all_to(3), stream.has_all_to(5)), (3, true, false));
    assert!(stream.on_push(5).is_err() && stream.on_push(4).is_ok());
    assert_eq!((stream.complete_to(), stream.has_all_to(5), stream.has_all_to(6)), (5, true, false));
    stream.acked = 3;
    assert_eq!(stream.unacked(), 1);
}

#[test]
fn the_model_knows_that_a_start_lies_in_a_range() {
    let mut stream = Stream { low: 2, high: 5, ..Stream::default() };
    assert!(stream.has_all_to(5) && !stream.has_all_to(6));
    stream.on_push(5).unwrap();
    stream.on_push(6).unwrap();
    assert!(stream.has_all_to(6) && stream.complete_to() == 6);
    let mut late = Stream { low: 2, high: 5, ..Stream::default() };
    late.on_push(7).unwrap();
    assert!(!late.has_all_to(7) && late.complete_to() == 2);
}

#[test]
fn the_truth_is_one() {
    let mut truth = Truth::default();
    assert!(truth.learn((1, 1), 5, "a").is_ok() && truth.learn((1, 1), 5, "a").is_ok());
    assert!(truth.learn((1, 1), 5, "b").is_err() && truth.learn((1, 2), 5, "a").is_err());
    truth.learn((1, 3), 5, "c").unwrap();
    assert_eq!((truth.gap(), truth.last(1), truth.len()), (Some((1, 2)), 3, 2));
}
