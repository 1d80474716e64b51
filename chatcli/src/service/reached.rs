//! How far the others in a conversation have come, and with them one's own messages.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schema::{Seq, UserId};

/// How far an own message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Not known to be accepted.
    Sending,
    /// Durable on the server.
    Sent,
    /// On a device of so many members of a group.
    DeliveredTo(usize),
    /// On a device of the other, or of all others.
    Delivered,
    /// Read by so many members of a group.
    ReadBy(usize),
    /// Read by the other, or by all others.
    Read,
}

impl Progress {
    /// The word for it.
    pub(crate) fn word(self) -> Cow<'static, str> {
        match self {
            Self::Sending => "sending".into(),
            Self::Sent => "sent".into(),
            Self::DeliveredTo(count) => format!("delivered to {count}").into(),
            Self::Delivered => "delivered".into(),
            Self::ReadBy(count) => format!("read by {count}").into(),
            Self::Read => "read".into(),
        }
    }
}

/// Up to where one of the others has received and read.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    delivered: Seq,
    read: Seq,
}

/// Up to where each of the others has received and read.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    users: BTreeMap<UserId, Reach>,
    /// Whether nobody is missing: in a pair always, in a group once the server has said all marks.
    whole: bool,
}

impl Reached {
    /// In a conversation of two.
    pub(super) fn pair() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// Somebody has received up to here.
    pub(super) fn delivered(&mut self, user: UserId, seq: Seq) {
        let reach = self.users.entry(user).or_default();
        reach.delivered = reach.delivered.max(seq);
    }

    /// Somebody has read up to here.
    pub(super) fn read(&mut self, user: UserId, seq: Seq) {
        let reach = self.users.entry(user).or_default();
        reach.read = reach.read.max(seq);
        reach.delivered = reach.delivered.max(seq);
    }

    /// The marks of all others have come.
    pub(super) fn complete(&mut self) {
        self.whole = true;
    }

    /// There is one more.
    pub(super) fn joined(&mut self, user: UserId) {
        self.users.entry(user).or_default();
    }

    /// There is one less.
    pub(super) fn left(&mut self, user: UserId) {
        self.users.remove(&user);
    }

    /// The conversation ends at `last`.
    pub(super) fn reset(&mut self, last: Seq) {
        for reach in self.users.values_mut() {
            reach.delivered = reach.delivered.min(last);
            reach.read = reach.read.min(last);
        }
    }

    /// How far the own message `seq` has come.
    pub(super) fn progress(&self, seq: Seq) -> Progress {
        let count = |reaches: fn(&Reach) -> Seq| self.users.values().filter(|r| reaches(r) >= seq).count();
        let (read, delivered) = (count(|reach| reach.read), count(|reach| reach.delivered));
        let all = if self.whole { self.users.len() } else { usize::MAX };
        match (read, delivered) {
            (_, 0) => Progress::Sent,
            (read, _) if read == all => Progress::Read,
            (1.., _) => Progress::ReadBy(read),
            (0, delivered) if delivered == all => Progress::Delivered,
            (0, delivered) => Progress::DeliveredTo(delivered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    #[test]
    fn a_message_to_one_is_sent_then_delivered_then_read() {
        let mut reached = Reached::pair();
        assert_eq!(reached.progress(seq(1)), Progress::Sent);
        reached.delivered(user(2), seq(1));
        assert_eq!(reached.progress(seq(1)), Progress::Delivered);
        reached.read(user(2), seq(1));
        reached.delivered(user(2), seq(1));
        assert_eq!(reached.progress(seq(1)), Progress::Read);
        assert_eq!(reached.progress(seq(2)), Progress::Sent);
    }

    #[test]
    fn in_a_group_it_is_counted_until_all_have_it() {
        let mut reached = Reached::default();
        reached.delivered(user(2), seq(5));
        reached.read(user(3), seq(5));
        assert_eq!(reached.progress(seq(5)), Progress::ReadBy(1));
        reached.read(user(2), seq(5));
        assert_eq!(
            reached.progress(seq(5)),
            Progress::ReadBy(2),
            "there may be more of whom we have not heard"
        );
        reached.complete();
        assert_eq!(reached.progress(seq(5)), Progress::Read);
        reached.joined(user(4));
        assert_eq!(reached.progress(seq(5)), Progress::ReadBy(2));
        reached.left(user(4));
        assert_eq!(reached.progress(seq(5)), Progress::Read);
        reached.delivered(user(2), seq(6));
        assert_eq!(reached.progress(seq(6)), Progress::DeliveredTo(1));
        reached.delivered(user(3), seq(6));
        assert_eq!(reached.progress(seq(6)), Progress::Delivered);
        reached.reset(seq(5));
        assert_eq!(reached.progress(seq(6)), Progress::Sent);
    }
}
