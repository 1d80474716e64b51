//! A conversation as this client has it: its entries, the state of its stream, and who has received and read how much.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::reply::{Kind, Message};
use schema::{ConvId, Seq, UserId};

use super::event::{Entry, Listed};
use super::stream::Stream;
use crate::limits::ENTRIES_KEPT;

/// How far an own message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Not known to be accepted.
    Sending,
    /// Durable on the server.
    Sent,
    /// On one of the other's devices.
    Delivered,
    /// Read by the other.
    Read,
}

impl Progress {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) conv: ConvId,
    pub(crate) kind: Kind,
    /// The other user's name, or the group's.
    pub(crate) name: String,
    /// The other user of a direct conversation.
    pub(crate) peer: Option<UserId>,
    pub(crate) stream: Stream,
    entries: BTreeMap<Seq, Entry>,
    /// The last `seq` that we heard of.
    pub(crate) last_seq: Seq,
    pub(crate) unread: u64,
    /// Entries up to here are part of `unread` already.
    counted: Seq,
    /// Up to here the others have received and read.
    peer_delivered: Seq,
    peer_read: Seq,
    /// The last ack on this connection.
    pub(crate) acked: Seq,
    /// The user's own read mark, and the last one that was said on this connection.
    pub(crate) read: Seq,
    pub(crate) read_said: Seq,
}

impl Conversation {
    pub(crate) fn new(conv: ConvId, kind: Kind, name: String, peer: Option<UserId>) -> Self {
        Self {
            conv,
            kind,
            name,
            peer,
            stream: Stream::default(),
            entries: BTreeMap::new(),
            last_seq: Seq::ZERO,
            unread: 0,
            counted: Seq::ZERO,
            peer_delivered: Seq::ZERO,
            peer_read: Seq::ZERO,
            acked: Seq::ZERO,
            read: Seq::ZERO,
            read_said: Seq::ZERO,
        }
    }

    /// What the server's list says of it.
    pub(crate) fn listed(&mut self, info: &Listed) {
        self.name.clone_from(&info.name);
        self.kind = info.kind;
        self.peer = info.user;
        self.stream.start(info.delivered);
        self.unread = info.unread;
        self.counted = self.counted.max(info.last_seq);
        self.last_seq = self.last_seq.max(info.last_seq);
        self.read = self.read.max(info.read);
        // The server has these; they need not be said again.
        self.read_said = self.read_said.max(info.read);
        self.acked = self.acked.max(info.delivered);
    }

    /// Keeps an entry in its place. The oldest goes when there are too many.
    pub(crate) fn place(&mut self, entry: Entry) {
        self.last_seq = self.last_seq.max(entry.seq);
        self.entries.insert(entry.seq, entry);
        if self.entries.len() > ENTRIES_KEPT {
            self.entries.pop_first();
        }
    }

    /// Counts an entry that arrived as unread, unless it is one's own, which says that all before it was seen.
    pub(crate) fn count(&mut self, seq: Seq, own: bool, shown: bool) {
        if own || shown {
            self.unread = 0;
        } else if seq > self.counted {
            self.unread += 1;
        }
        self.counted = self.counted.max(seq);
    }

    /// The entries, in order.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many entries there are here.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first entry that is here.
    pub(crate) fn first_seq(&self) -> Option<Seq> {
        self.entries.first_key_value().map(|(seq, _)| *seq)
    }

    /// How far the own message `seq` has come.
    pub(crate) fn progress(&self, seq: Seq) -> Progress {
        if seq <= self.peer_read {
            Progress::Read
        } else if seq <= self.peer_delivered {
            Progress::Delivered
        } else {
            Progress::Sent
        }
    }

    /// The other user of a direct conversation has given a sign: a conversation that we began by name learns who it is with.
    pub(crate) fn seen(&mut self, user: UserId) {
        if self.kind == Kind::Direct && self.peer.is_none() {
            self.peer = Some(user);
        }
    }

    /// Somebody else has received up to here.
    pub(crate) fn peer_delivered(&mut self, seq: Seq) {
        self.peer_delivered = self.peer_delivered.max(seq);
    }

    /// Somebody else has read up to here.
    pub(crate) fn peer_read(&mut self, seq: Seq) {
        self.peer_read = self.peer_read.max(seq);
    }

    /// The user has read up to here, on another device.
    pub(crate) fn read_elsewhere(&mut self, seq: Seq, me: UserId) {
        self.read = self.read.max(seq);
        let beyond = self.entries.range(seq.next()..).filter(|(_, entry)| entry.from != me).count();
        self.unread = self.unread.min(u64::try_from(beyond).unwrap_or(u64::MAX));
        if seq >= self.last_seq {
            self.unread = 0;
        }
    }

    /// Whether the marks of the other matter: an own message is not known to be read.
    pub(crate) fn wants_marks(&self, me: UserId) -> bool {
        self.entries.values().rev().find(|entry| entry.from == me).is_some_and(|own| own.seq > self.peer_read)
    }

    /// The server's copy ends at `last`.
    pub(crate) fn reset(&mut self, last: Seq) {
        self.stream.reset(last);
        self.entries.split_off(&last.next());
        self.last_seq = last;
        self.counted = last;
        self.acked = self.acked.min(last);
        self.read = self.read.min(last);
        self.read_said = self.read_said.min(last);
        self.peer_delivered = self.peer_delivered.min(last);
        self.peer_read = self.peer_read.min(last);
    }
}

impl From<Message<'_>> for Entry {
    fn from(message: Message<'_>) -> Self {
        Self {
            seq: message.seq,
            from: message.from,
            from_name: Arc::from(message.from_name.as_ref()),
            text: Arc::from(message.body.as_text().unwrap_or_default()),
            time_ms: message.time_ms,
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

    fn entry(number: u64, from: u64) -> Entry {
        Entry { seq: seq(number), from: user(from), from_name: "x".into(), text: "t".into(), time_ms: 0 }
    }

    fn conversation() -> Conversation {
        Conversation::new(ConvId::new(1).unwrap(), Kind::Direct, "bob".into(), Some(user(2)))
    }

    #[test]
    fn only_the_last_entries_are_kept() {
        let mut conversation = conversation();
        let last = u64::try_from(ENTRIES_KEPT).unwrap() + 5;
        (1..=last).for_each(|number| conversation.place(entry(number, 2)));
        assert_eq!(conversation.len(), ENTRIES_KEPT);
        assert_eq!(conversation.first_seq(), Some(seq(6)));
    }

    #[test]
    fn entries_stand_by_seq_in_whatever_order_they_come() {
        let mut conversation = conversation();
        [3, 1, 2, 2].into_iter().for_each(|number| conversation.place(entry(number, 2)));
        let seqs: Vec<u64> = conversation.entries().map(|entry| entry.seq.get()).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }

    #[test]
    fn what_the_list_counted_is_not_counted_again() {
        let mut conversation = conversation();
        conversation.listed(&Listed {
            conv: conversation.conv,
            kind: Kind::Direct,
            name: "bob".into(),
            user: Some(user(2)),
            last_seq: seq(5),
            delivered: seq(3),
            read: seq(3),
            unread: 2,
        });
        conversation.count(seq(4), false, false);
        conversation.count(seq(5), false, false);
        assert_eq!(conversation.unread, 2);
        conversation.count(seq(6), false, false);
        assert_eq!(conversation.unread, 3);
        conversation.count(seq(7), true, false);
        assert_eq!(conversation.unread, 0, "who writes has read");
    }

    #[test]
    fn an_own_message_is_sent_then_delivered_then_read() {
        let mut conversation = conversation();
        assert_eq!(conversation.progress(seq(1)), Progress::Sent);
        conversation.peer_delivered(seq(1));
        assert_eq!(conversation.progress(seq(1)), Progress::Delivered);
        conversation.peer_read(seq(1));
        conversation.peer_delivered(seq(1));
        assert_eq!(conversation.progress(seq(1)), Progress::Read);
        assert_eq!(conversation.progress(seq(2)), Progress::Sent);
    }

    #[test]
    fn reading_elsewhere_leaves_what_came_later_unread() {
        let mut conversation = conversation();
        for number in 1..=3 {
            conversation.place(entry(number, 2));
            conversation.count(seq(number), false, false);
        }
        conversation.read_elsewhere(seq(2), user(1));
        assert_eq!(conversation.unread, 1);
        conversation.read_elsewhere(seq(3), user(1));
        assert_eq!(conversation.unread, 0);
    }
}
