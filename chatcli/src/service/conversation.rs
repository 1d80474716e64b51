//! A conversation as this client has it: its entries, the state of its stream, and who has received and read how much.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schema::reply::{Body, Kind, Message};
use schema::{ConvId, Seq, UserId};

use super::event::{Content, Entry, Listed};
use super::groups::Member;
use super::reached::{Progress, Reached};
use super::stream::Stream;
use crate::limits::ENTRIES_KEPT;

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
    /// The first entry that the user may see, once that is known.
    pub(super) begins: Option<Seq>,
    /// The last `seq` that we heard of.
    pub(crate) last_seq: Seq,
    pub(crate) unread: u64,
    /// Entries up to here are part of `unread` already.
    counted: Seq,
    /// Up to where the others have received and read.
    pub(super) reached: Reached,
    /// The members of a group, as far as they are known.
    pub(super) members: BTreeMap<UserId, Member>,
    /// Whether those are all.
    pub(super) members_known: bool,
    /// The user is no member of the group any more.
    pub(crate) gone: bool,
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
            begins: None,
            last_seq: Seq::ZERO,
            unread: 0,
            counted: Seq::ZERO,
            reached: if kind == Kind::Direct { Reached::pair() } else { Reached::default() },
            members: BTreeMap::new(),
            members_known: false,
            gone: false,
            acked: Seq::ZERO,
            read: Seq::ZERO,
            read_said: Seq::ZERO,
        }
    }

    /// What people call it: a user's name, or a group's with a sign before it.
    pub(crate) fn label(&self) -> Cow<'_, str> {
        match self.kind {
            Kind::Direct => Cow::Borrowed(&self.name),
            _ => Cow::Owned(format!("#{}", self.name)),
        }
    }

    /// The members of a group, as far as they are known.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// How many members a group has, once that is known.
    pub(crate) fn member_count(&self) -> Option<usize> {
        self.members_known.then_some(self.members.len())
    }

    /// The first entry of those that are unread.
    pub(crate) fn first_unread(&self, me: UserId) -> Option<Seq> {
        let unread = usize::try_from(self.unread).ok()?.checked_sub(1)?;
        let by_others = self.entries.values().rev().filter(|entry| entry.from != me);
        by_others.take(unread + 1).last().map(|entry| entry.seq)
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

    /// Whether there is nothing before the first entry that is here. In a group one sees nothing from before one's own joining.
    pub(crate) fn is_whole(&self) -> bool {
        self.first_seq().is_some_and(|first| first == Seq::ZERO.next() || self.begins == Some(first))
    }

    /// Whether no more can be kept here.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_KEPT
    }

    /// How far the own message `seq` has come.
    pub(crate) fn progress(&self, seq: Seq) -> Progress {
        self.reached.progress(seq)
    }

    /// The other user of a direct conversation has given a sign: a conversation that we began by name learns who it is with.
    pub(crate) fn seen(&mut self, user: UserId) {
        if self.kind == Kind::Direct && self.peer.is_none() {
            self.peer = Some(user);
        }
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
        let own = |entry: &&Entry| entry.from == me && entry.text().is_some();
        self.entries.values().rev().find(own).is_some_and(|own| self.progress(own.seq) < Progress::Read)
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
        self.reached.reset(last);
    }
}

impl From<Message<'_>> for Entry {
    fn from(message: Message<'_>) -> Self {
        Self {
            seq: message.seq,
            from: message.from,
            from_name: Arc::from(message.from_name.as_ref()),
            content: match message.body {
                Body::Text { text } => Content::Text(Arc::from(text.as_ref())),
                Body::Event(event) => Content::Event(Arc::new(event.into_owned())),
            },
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
        Entry {
            seq: seq(number),
            from: user(from),
            from_name: "x".into(),
            content: Content::Text("t".into()),
            time_ms: 0,
        }
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
    fn the_unread_begin_behind_what_was_seen() {
        let mut conversation = conversation();
        assert_eq!(conversation.first_unread(user(1)), None);
        for (number, from) in [(1, 2), (2, 2), (3, 1), (4, 2), (5, 2)] {
            conversation.place(entry(number, from));
            conversation.count(seq(number), from == 1, false);
        }
        assert_eq!((conversation.unread, conversation.first_unread(user(1))), (2, Some(seq(4))));
        conversation.unread = 9;
        assert_eq!(conversation.first_unread(user(1)), Some(seq(1)), "of what is here");
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
