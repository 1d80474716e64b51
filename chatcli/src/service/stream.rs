//! How much of one conversation's stream has arrived: complete up to a cursor, and single entries beyond holes.

use std::collections::BTreeSet;

use schema::Seq;

/// What has arrived of a conversation's stream. Says of each entry whether it is new, and up to where nothing is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Everything up to here has arrived, or lies before the stream's start. `None` while the start is not known.
    complete: Option<Seq>,
    /// What arrived beyond a hole. The answer to one's own send may come before lower entries do.
    beyond: BTreeSet<Seq>,
}

impl Stream {
    /// Up to where nothing is missing.
    pub(crate) fn complete(&self) -> Option<Seq> {
        self.complete
    }

    /// The stream begins behind `cursor`, unless its start is known already.
    pub(crate) fn start(&mut self, cursor: Seq) {
        if self.complete.is_none() {
            self.complete = Some(cursor);
            self.absorb();
        }
    }

    /// An entry came as a push. `false` when it was here already.
    pub(crate) fn push_arrived(&mut self, seq: Seq) -> bool {
        // Pushes come in order: what lies below the first one is before the start, or is an answer that counts for itself.
        self.start(seq.prev());
        self.arrived(seq)
    }

    /// An entry came as the answer to one's own send. `false` when it was here already.
    pub(crate) fn arrived(&mut self, seq: Seq) -> bool {
        if self.complete.is_some_and(|complete| seq <= complete) || !self.beyond.insert(seq) {
            return false;
        }
        if seq == Seq::ZERO.next() {
            self.start(Seq::ZERO);
        }
        self.absorb();
        true
    }

    /// The server's copy ends at `last`: what was beyond is no more, and the stream goes on from there.
    pub(crate) fn reset(&mut self, last: Seq) {
        self.complete = Some(last);
        self.beyond.clear();
    }

    /// There is nothing to come below `seq`.
    pub(crate) fn skip_to(&mut self, seq: Seq) {
        if self.complete.is_none_or(|complete| complete < seq.prev()) {
            self.complete = Some(seq.prev());
        }
        self.absorb();
    }

    /// The first entry beyond a hole.
    pub(crate) fn beyond_hole(&self) -> Option<Seq> {
        self.beyond.first().copied()
    }

    fn absorb(&mut self) {
        let Some(mut complete) = self.complete else { return };
        while let Some(first) = self.beyond.first().copied() {
            if first > complete.next() {
                break;
            }
            complete = complete.max(first);
            self.beyond.pop_first();
        }
        self.complete = Some(complete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    #[test]
    fn an_answer_that_came_early_waits_for_what_is_below_it() {
        let mut stream = Stream::default();
        stream.start(seq(5));
        assert!(stream.arrived(seq(8)));
        assert_eq!(stream.complete(), Some(seq(5)));
        assert_eq!(stream.beyond_hole(), Some(seq(8)));
        assert!(stream.push_arrived(seq(6)) && stream.push_arrived(seq(7)));
        assert_eq!(stream.complete(), Some(seq(8)));
        assert_eq!(stream.beyond_hole(), None);
    }

    #[test]
    fn what_came_before_is_not_new() {
        let mut stream = Stream::default();
        stream.start(seq(5));
        assert!(!stream.push_arrived(seq(3)) && !stream.push_arrived(seq(5)));
        assert!(stream.arrived(seq(7)) && !stream.push_arrived(seq(7)));
        assert!(stream.push_arrived(seq(6)) && !stream.push_arrived(seq(7)));
    }

    #[test]
    fn an_unknown_start_is_told_by_the_first_push() {
        let mut stream = Stream::default();
        assert!(stream.arrived(seq(9)), "an own send");
        assert_eq!(stream.complete(), None);
        assert!(stream.push_arrived(seq(7)));
        assert_eq!(stream.complete(), Some(seq(7)));
        assert!(stream.push_arrived(seq(8)));
        assert_eq!(stream.complete(), Some(seq(9)));
    }

    #[test]
    fn the_first_entry_of_all_needs_no_start() {
        let mut stream = Stream::default();
        assert!(stream.arrived(seq(1)));
        assert_eq!(stream.complete(), Some(seq(1)));
    }

    #[test]
    fn a_reset_goes_back_and_goes_on_from_there() {
        let mut stream = Stream::default();
        stream.start(seq(50));
        assert!(stream.arrived(seq(52)));
        stream.reset(seq(40));
        assert_eq!((stream.complete(), stream.beyond_hole()), (Some(seq(40)), None));
        assert!(stream.push_arrived(seq(41)));
    }

    #[test]
    fn a_hole_in_which_nothing_is_can_be_skipped() {
        let mut stream = Stream::default();
        stream.start(seq(5));
        stream.push_arrived(seq(9));
        stream.push_arrived(seq(12));
        stream.skip_to(seq(9));
        assert_eq!((stream.complete(), stream.beyond_hole()), (Some(seq(9)), Some(seq(12))));
        stream.skip_to(seq(4));
        assert_eq!(stream.complete(), Some(seq(9)), "never back");
    }
}
