//! The check of the stream promise on one connection and conversation: every entry exactly once, as a push or as the `ok` of the own send.

use std::collections::VecDeque;

/// What one connection has seen of one conversation, from its first entry on.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Everything up to here was seen.
    complete: u64,
    /// Whether the entries above `complete` were seen; the first is `complete + 1`.
    above: VecDeque<bool>,
    /// The last push.
    pushed: u64,
}

/// What an entry's coming means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// As promised.
    Fine,
    /// It was seen before.
    Doubled,
    /// A push came behind one with a higher `seq`.
    Disordered,
}

/// An entry so far above all others is no entry but a broken number.
const AHEAD_MAX: u64 = 1 << 20;

impl Stream {
    /// One that begins after this place.
    pub(crate) fn after(seq: u64) -> Self {
        Self { complete: seq, above: VecDeque::new(), pushed: seq }
    }

    /// The `ok` of an own send, which may come before lower entries do.
    pub(crate) fn own(&mut self, seq: u64) -> Seen {
        self.mark(seq)
    }

    /// A push.
    pub(crate) fn push(&mut self, seq: u64) -> Seen {
        let seen = self.mark(seq);
        if seen == Seen::Fine && seq <= self.pushed {
            return Seen::Disordered;
        }
        self.pushed = self.pushed.max(seq);
        seen
    }

    /// Everything up to here has arrived: what may be acked.
    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }

    /// Entries that are missing below others that came.
    pub(crate) fn holes(&self) -> usize {
        self.above.iter().filter(|seen| !**seen).count()
    }

    fn mark(&mut self, seq: u64) -> Seen {
        let Some(ahead) = seq.checked_sub(self.complete + 1) else { return Seen::Doubled };
        if ahead >= AHEAD_MAX {
            return Seen::Disordered;
        }
        // Checked just above; on no platform does it not fit.
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
        if self.above.len() <= ahead {
            self.above.resize(ahead + 1, false);
        }
        match self.above.get_mut(ahead) {
            Some(seen) if !*seen => *seen = true,
            _ => return Seen::Doubled,
        }
        while self.above.front() == Some(&true) {
            self.above.pop_front();
            self.complete += 1;
        }
        Seen::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ok_may_come_before_lower_pushes() {
        let mut stream = Stream::default();
        assert_eq!(stream.own(2), Seen::Fine);
        assert_eq!((stream.complete(), stream.holes()), (0, 1));
        assert_eq!(stream.push(1), Seen::Fine);
        assert_eq!((stream.complete(), stream.holes()), (2, 0));
        assert_eq!(stream.push(3), Seen::Fine);
        assert_eq!(stream.complete(), 3);
    }

    #[test]
    fn pushes_must_increase() {
        let mut stream = Stream::default();
        assert_eq!(stream.push(2), Seen::Fine);
        assert_eq!(stream.push(1), Seen::Disordered);
        assert_eq!(stream.complete(), 2, "it did come, though");
    }

    #[test]
    fn an_entry_comes_once_whether_as_push_or_as_ok() {
        let mut stream = Stream::default();
        stream.push(1);
        assert_eq!(stream.push(1), Seen::Doubled);
        assert_eq!(stream.own(1), Seen::Doubled);
        stream.own(3);
        assert_eq!(stream.push(3), Seen::Doubled);
        assert_eq!(stream.push(0), Seen::Doubled);
    }

    #[test]
    fn what_does_not_come_leaves_a_hole() {
        let mut stream = Stream::default();
        stream.push(1);
        stream.push(4);
        assert_eq!((stream.complete(), stream.holes()), (1, 2));
        assert_eq!(stream.push(u64::MAX), Seen::Disordered, "and costs no memory");
    }
}
