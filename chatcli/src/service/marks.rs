//! Acks, read marks, typing: what is said about what has arrived, in batches.

use std::collections::BTreeSet;
use std::time::Instant;

use schema::reply::Marks;
use schema::{ConvId, Seq, UserId};

use super::event::Event;
use super::request::Request;
use super::{ClientService, Phase, Waiting};
use crate::limits::{ACK_DELAY, ACK_EVERY, HOLE_PATIENCE, MARKS_ASKED_MAX, PAGE, TYPING_EVERY};

/// What is to be said about what has arrived.
#[derive(Debug, Default)]
pub(super) struct Marking {
    /// Conversations with entries that are not acked.
    to_ack: BTreeSet<ConvId>,
    /// Entries since acks were last said.
    since_acks: u32,
    acks_due: Option<Instant>,
    holes_due: Option<Instant>,
    /// Conversations that something was acked or marked as read in on this connection: what the server has not written when it dies is said again.
    said: BTreeSet<ConvId>,
    typing: Option<(ConvId, Instant)>,
}

impl Marking {
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.acks_due, self.holes_due].into_iter().flatten().min()
    }

    pub(super) fn connection_lost(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.to_ack.extend(said);
        (self.acks_due, self.holes_due, self.typing, self.since_acks) = (None, None, None, 0);
    }
}

impl ClientService {
    /// Something arrived in a conversation.
    pub(super) fn handle_arrival(&mut self, now: Instant, conv: ConvId) {
        self.marking.to_ack.insert(conv);
        self.marking.since_acks += 1;
        if self.marking.acks_due.is_none() {
            self.marking.acks_due = Some(now + ACK_DELAY);
        }
        let holed = self.conversations.get(&conv).is_some_and(|c| c.stream.beyond_hole().is_some());
        if holed && self.marking.holes_due.is_none() {
            self.marking.holes_due = Some(now + HOLE_PATIENCE);
        }
        self.handle_marks_due(now);
    }

    pub(super) fn handle_marks_due(&mut self, now: Instant) {
        if self.phase != Phase::Online {
            return;
        }
        if self.marking.since_acks >= ACK_EVERY || self.marking.acks_due.is_some_and(|at| at <= now) {
            self.say_acks();
        }
        if self.marking.holes_due.is_some_and(|at| at <= now) {
            self.marking.holes_due = None;
            self.repair_holes();
        }
    }

    /// Says everything that is to be acked or marked as read.
    pub(super) fn say_acks(&mut self) {
        (self.marking.acks_due, self.marking.since_acks) = (None, 0);
        for conv in std::mem::take(&mut self.marking.to_ack) {
            self.say_ack(conv);
        }
    }

    /// The program is about to end: says what is to be acked, without delay.
    pub(crate) fn say_goodbye(&mut self) {
        if self.phase == Phase::Online {
            self.say_acks();
        }
    }

    fn say_ack(&mut self, conv: ConvId) {
        let shown = self.shown == Some(conv);
        let Some(conversation) = self.conversations.get_mut(&conv) else { return };
        let Some(complete) = conversation.stream.complete() else { return };
        let ack = complete > conversation.acked;
        conversation.acked = conversation.acked.max(complete);
        if shown {
            conversation.read = conversation.read.max(complete);
        }
        let read = conversation.read;
        let say_read = read > conversation.read_said;
        conversation.read_said = read;
        if ack {
            self.tell(&Request::Ack { conv, seq: complete });
        }
        if say_read {
            self.tell(&Request::Read { conv, seq: read });
        }
        if ack || say_read {
            self.marking.said.insert(conv);
        }
    }

    /// A conversation is being looked at: what is in it counts as read, now and until another is shown.
    pub(crate) fn show(&mut self, conv: Option<ConvId>) {
        if self.shown == conv {
            return;
        }
        self.shown = conv;
        let Some(conv) = conv else { return };
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            conversation.unread = 0;
        }
        if self.phase == Phase::Online {
            self.say_ack(conv);
            self.request(Waiting::Marks(conv), &Request::Marks { conv });
            self.ask_members(conv);
        } else {
            self.marking.to_ack.insert(conv);
        }
    }

    /// The user is typing in a conversation. Said now and then only.
    pub(crate) fn typing(&mut self, now: Instant, conv: ConvId) {
        let lately = self.marking.typing.is_some_and(|(last, at)| last == conv && now < at + TYPING_EVERY);
        if self.phase == Phase::Online && self.synced && !lately {
            self.marking.typing = Some((conv, now));
            self.tell(&Request::Typing { conv });
        }
    }

    /// After a login: how far have the own messages come meanwhile?
    pub(super) fn ask_marks(&mut self) {
        let Some(me) = self.me.as_ref().map(|me| me.id) else { return };
        let wanted = self.conversations.values().rev().filter(|conversation| conversation.wants_marks(me));
        let convs: Vec<ConvId> = wanted.map(|conversation| conversation.conv).take(MARKS_ASKED_MAX).collect();
        for conv in convs {
            self.request(Waiting::Marks(conv), &Request::Marks { conv });
        }
    }

    pub(super) fn handle_marks(&mut self, conv: ConvId, marks: &Marks) {
        let me = self.me.as_ref().map(|me| me.id);
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            let others = marks.marks.iter().filter(|mark| Some(mark.user) != me);
            others.for_each(|mark| conversation.reached.joined(mark.user));
            conversation.reached.complete();
        }
        for mark in &marks.marks {
            self.handle_delivered(conv, mark.user, mark.delivered);
            self.handle_read(conv, mark.user, mark.read);
        }
    }

    pub(super) fn handle_delivered(&mut self, conv: ConvId, user: UserId, seq: Seq) {
        let own = self.me.as_ref().is_some_and(|me| me.id == user);
        let Some(conversation) = self.conversations.get_mut(&conv) else { return };
        if !own && seq > Seq::ZERO {
            conversation.seen(user);
            conversation.reached.delivered(user, seq);
            self.events.push_back(Event::Delivered { conv, user, seq });
        }
    }

    pub(super) fn handle_read(&mut self, conv: ConvId, user: UserId, seq: Seq) {
        let own = self.me.as_ref().is_some_and(|me| me.id == user);
        let Some(conversation) = self.conversations.get_mut(&conv) else { return };
        if own {
            conversation.read_elsewhere(seq, user);
        } else if seq > Seq::ZERO {
            conversation.seen(user);
            conversation.reached.read(user, seq);
            self.events.push_back(Event::Read { conv, user, seq });
        }
    }

    /// Asks for what is missing where an entry arrived beyond a hole and nothing of ours that would fill it is on its way.
    fn repair_holes(&mut self) {
        let under_way = self.outbox.len() > 0;
        let holes: Vec<(ConvId, Option<Seq>)> = self
            .conversations
            .values()
            .filter(|conversation| conversation.stream.beyond_hole().is_some())
            .map(|conversation| (conversation.conv, conversation.stream.complete()))
            .collect();
        for (conv, complete) in holes {
            // Without a start the first push will tell; an answer on its way may fill it.
            let Some(after) = complete.filter(|_| !under_way) else { continue };
            let request = Request::History { conv, before: None, after: Some(after), limit: PAGE };
            self.request(Waiting::Repair(conv), &request);
        }
    }
}
