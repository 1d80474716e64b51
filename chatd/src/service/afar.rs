//! What other nodes tell, and what is compared with the store because they may have told something that was not heard.
//!
//! Commits of this node come to a loop in order, those of others when they come. An entry that is ahead of its turn waits a moment for those before it. If
//! they do not come, the conversation's last entry is asked for behind all commits of this node, so that whatever of it has not passed by then is somebody else's, and
//! the rest is read from the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reactor::ConnId;
use schema::{ConvId, Seq, SessionId, UserId};
use store::dao::ConversationDao;
use store::{Position, StoreError};

use super::following::{LocalConv, Membership};
use super::lifecycle::{RETRY, TICK_COMPARE, TICK_GAP};
use super::{ChatService, Cx};
use crate::passing::Passing;
use crate::post::{FromAfar, Post};

/// How long an entry waits for those before it.
const GAP_WAIT: Duration = Duration::from_millis(50);
/// Entries of one conversation that wait at most; further ones of other nodes are read from the store.
const EARLY_MAX: usize = 1_024;
/// Users whose conversations are compared with the store at once.
const USERS_AT_ONCE: usize = 32;
/// Groups of which the last entry is asked at once.
const GROUPS_AT_ONCE: usize = 256;

/// What a loop knows of a conversation beyond the place that it has reached.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The conversation reaches at least up to here.
    head: Seq,
    /// Entries that came before their turn, in order.
    early: Vec<(Passing, Bytes)>,
}

impl LocalConv {
    /// Entries up to here are known to exist.
    fn reaches(&mut self, head: Seq) {
        if head > self.contiguous {
            let ahead = self.ahead.get_or_insert_default();
            ahead.head = ahead.head.max(head);
        }
    }

    /// Keeps an entry until its turn.
    fn keep(&mut self, entry: &Passing, line: &Bytes) {
        self.reaches(entry.seq);
        let ahead = self.ahead.get_or_insert_default();
        // Those of this node are kept in any case: their senders have been answered, and must not get them again.
        if ahead.early.len() >= EARLY_MAX && entry.session.is_none() {
            return;
        }
        let at = ahead.early.partition_point(|(early, _)| early.seq < entry.seq);
        if ahead.early.get(at).is_none_or(|(early, _)| early.seq != entry.seq) {
            ahead.early.insert(at, (*entry, line.clone()));
        }
    }

    /// The next entry, if it waits.
    fn take_next(&mut self) -> Option<(Passing, Bytes)> {
        let ahead = self.ahead.as_mut()?;
        let passed = ahead.early.partition_point(|(early, _)| early.seq <= self.contiguous);
        ahead.early.drain(..passed);
        let is_next = ahead.early.first().is_some_and(|(early, _)| early.seq == self.contiguous.next());
        let next = is_next.then(|| ahead.early.remove(0));
        let reached = next.as_ref().map_or(self.contiguous, |(next, _)| next.seq);
        if ahead.early.is_empty() && ahead.head <= reached {
            self.ahead = None;
        }
        next
    }

    /// What of a user's cursors is further than was told before.
    pub(super) fn further(
        &mut self,
        user: UserId,
        delivered: Option<Seq>,
        read: Option<Seq>,
    ) -> (Option<Seq>, Option<Seq>) {
        let told = self.told.get_or_insert_default().entry(user).or_default();
        let delivered = delivered.filter(|seq| *seq > told.0);
        let read = read.filter(|seq| *seq > told.1);
        *told = (delivered.unwrap_or(told.0), read.unwrap_or(told.1));
        (delivered, read)
    }

    /// Moves on to `last`, which is in the store, and notes the places of which no commit has told.
    pub(super) fn jump(&mut self, last: Seq) {
        let mut from = self.contiguous.next();
        for (early, _) in self.ahead.iter().flat_map(|ahead| &ahead.early) {
            if early.seq > last {
                break;
            }
            if from < early.seq {
                self.holes.push((from, early.seq.prev()));
            }
            from = early.seq.next();
        }
        if from <= last {
            self.holes.push((from, last));
        }
        self.contiguous = last;
    }
}

impl ChatService {
    /// An entry is ahead of its turn.
    pub(super) fn wait_for_gap(&mut self, cx: &mut Cx<'_>, entry: &Passing, line: &Bytes) {
        if let Some(here) = self.convs.get_mut(&entry.conv) {
            here.keep(entry, line);
            self.look_at_gap(cx, entry.conv);
        }
    }

    /// A conversation reaches further than has passed this loop.
    pub(super) fn reaches(&mut self, cx: &mut Cx<'_>, conv: ConvId, last: Seq) {
        if self.node.cluster.is_some()
            && let Some(here) = self.convs.get_mut(&conv)
            && last > here.contiguous
        {
            here.reaches(last);
            self.look_at_gap(cx, conv);
        }
    }

    fn look_at_gap(&mut self, cx: &mut Cx<'_>, conv: ConvId) {
        if self.gaps.insert(conv) && self.gaps.len() == 1 {
            cx.set_timer(GAP_WAIT, TICK_GAP);
        }
    }

    /// Passes on what has waited and is next now.
    pub(super) fn pass_early(&mut self, cx: &mut Cx<'_>, conv: ConvId) {
        while let Some((entry, line)) = self.convs.get_mut(&conv).and_then(LocalConv::take_next) {
            self.deliver_one(cx, &entry, &line);
        }
    }

    /// Some time has gone by: where entries are still missing the store is asked.
    pub(super) fn on_gap_timer(&mut self, cx: &mut Cx<'_>) {
        for conv in std::mem::take(&mut self.gaps) {
            let still = self.convs.get(&conv).and_then(|here| here.ahead.as_ref().map(|ahead| (here, ahead)));
            if still.is_some_and(|(here, ahead)| ahead.head > here.contiguous) {
                self.ask_last_seq(cx, conv, false);
            }
        }
    }

    /// Other nodes have told something.
    pub(super) fn on_from_afar(&mut self, cx: &mut Cx<'_>, heard: &[FromAfar]) {
        for one in heard {
            match one {
                FromAfar::Entry(entry, line) => self.deliver(cx, entry, line),
                FromAfar::Head { conv, last, pair } => self.on_head(cx, *conv, *last, *pair),
                FromAfar::Cursor(outcome) => self.on_cursor(cx, outcome),
                FromAfar::Typing { conv, user } => self.push_typing(cx, *conv, *user),
                FromAfar::Line { to, line } => self.tell(cx, &[*to], line),
                FromAfar::Blocked { conv, now } => self.on_blocked(*conv, *now),
            }
        }
    }

    fn on_head(&mut self, cx: &mut Cx<'_>, conv: ConvId, last: Seq, pair: Option<[UserId; 2]>) {
        if let Some(members) = pair
            && !self.convs.contains_key(&conv)
            && self.is_running(cx, &members)
        {
            self.meet_pair(conv, members, Seq::ZERO);
        }
        self.reaches(cx, conv, last);
    }

    /// Whether a session may read where its streams start: not before what the other nodes publish for its user is heard.
    pub(super) fn is_heard(&self, user: UserId, conn: ConnId, session: SessionId) -> bool {
        let cluster = self.node.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.is_heard(user, &self.me, conn, session))
    }

    pub(super) fn on_heard(&mut self, cx: &mut Cx<'_>, conn: ConnId, session: SessionId) {
        let is_there = cx.conn_mut(conn).is_some_and(|client| client.session_is(session).is_some());
        if is_there {
            self.start_streams(cx, conn);
        }
    }

    /// All conversations of all users here are compared with the store, some users at a time.
    pub(super) fn compare(&mut self, cx: &mut Cx<'_>) {
        let was_idle = self.to_compare.is_empty();
        self.to_compare = self.users.keys().copied().collect();
        if was_idle {
            self.compare_some(cx);
        }
    }

    pub(super) fn compare_some(&mut self, cx: &mut Cx<'_>) {
        if self.to_compare.is_empty() {
            return;
        }
        let rest = self.to_compare.len().saturating_sub(USERS_AT_ONCE);
        let asked: Arc<[UserId]> = self.to_compare.split_off(rest).into();
        let Some(slot) = self.slot(Post::Standing { asked: Arc::clone(&asked), found: None }) else {
            return self.compare_later(cx, &asked);
        };
        let queued = self.node.store.read(move |db| {
            let positions = |user: &UserId| Ok((*user, ConversationDao::new(db).positions(*user)?));
            let found: Result<Vec<_>, StoreError> = asked.iter().map(positions).collect();
            if let Err(error) = &found {
                log::warn!("cannot compare conversations: {error}");
            }
            slot.fill(Post::Standing { asked, found: found.ok() });
        });
        if let Err(error) = queued {
            log::debug!("a comparison was not taken: {error}");
        }
    }

    fn compare_later(&mut self, cx: &mut Cx<'_>, users: &[UserId]) {
        self.to_compare.extend(users);
        cx.set_timer(RETRY, TICK_COMPARE);
    }

    /// The positions of the users that were asked for; none where the reading failed.
    pub(super) fn on_standing(
        &mut self,
        cx: &mut Cx<'_>,
        asked: &[UserId],
        found: Option<Vec<(UserId, Vec<Position>)>>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(found) = found else { return self.compare_later(cx, asked) };
        for (user, positions) in found {
            // Whose streams are about to start reads all of it then.
            if self.is_running(cx, &[user]) {
                for position in &positions {
                    self.compare_one(cx, user, position);
                }
            }
        }
        self.compare_some(cx);
    }

    fn compare_one(&mut self, cx: &mut Cx<'_>, user: UserId, position: &Position) {
        let Position { conv, last_seq, .. } = *position;
        let knows = self.users.get(&user).is_some_and(|local| local.convs.contains(&conv));
        match (position.other, position.spans.last()) {
            _ if knows => {}
            // It began while nothing was heard.
            (Some(other), _) => {
                self.meet_pair(conv, [user.min(other), user.max(other)], Seq::ZERO);
            }
            (None, Some(span)) if span.is_open() => {
                let start = span.from.prev();
                self.meet_group(conv, user, Membership { start, until: None }, start);
                self.lag_newcomers(cx, conv, user, start);
            }
            _ => return,
        }
        self.reaches(cx, conv, last_seq);
    }

    /// These groups are heard from now on: what came before is compared with the store.
    pub(super) fn compare_groups(&mut self, cx: &mut Cx<'_>, groups: &[ConvId]) {
        let mine: Vec<ConvId> = groups.iter().copied().filter(|conv| self.convs.contains_key(conv)).collect();
        for some in mine.chunks(GROUPS_AT_ONCE) {
            let Some(slot) = self.slot(Post::Heads { heads: Vec::new() }) else {
                // Then they are asked one by one.
                some.iter().for_each(|conv| self.doubt(cx, *conv));
                continue;
            };
            let wanted: Box<[ConvId]> = some.into();
            let queued = self.node.store.read(move |db| {
                let heads = ConversationDao::new(db).last_seqs(&wanted);
                let heads = heads.unwrap_or_else(|error| {
                    log::warn!("cannot compare groups: {error}");
                    // Beyond everything: each is asked again.
                    wanted.iter().map(|conv| (*conv, Seq::MAX)).collect()
                });
                slot.fill(Post::Heads { heads });
            });
            if let Err(error) = queued {
                log::debug!("a comparison was not taken: {error}");
                some.iter().for_each(|conv| self.doubt(cx, *conv));
            }
        }
    }

    pub(super) fn on_heads(&mut self, cx: &mut Cx<'_>, heads: &[(ConvId, Seq)]) {
        self.jobs = self.jobs.saturating_sub(1);
        for (conv, last) in heads {
            match *last {
                Seq::MAX => self.doubt(cx, *conv),
                last => self.reaches(cx, *conv, last),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::following::Who;
    use super::*;

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn entry(number: u64, session: Option<u64>) -> Passing {
        Passing {
            conv: ConvId::new(1).unwrap(),
            seq: seq(number),
            session: session.map(|number| SessionId::new(number).unwrap()),
            pair: None,
            moved: None,
        }
    }

    fn at(contiguous: u64) -> LocalConv {
        LocalConv {
            who: Who::Group(rustc_hash::FxHashMap::default()),
            contiguous: seq(contiguous),
            holes: Vec::new(),
            ahead: None,
            told: None,
        }
    }

    #[test]
    fn entries_ahead_of_their_turn_come_in_order_once_it_is_their_turn() {
        let mut here = at(4);
        for number in [8, 6, 7, 6] {
            here.keep(&entry(number, None), &Bytes::new());
        }
        assert!(here.take_next().is_none());
        here.contiguous = seq(5);
        for expected in [6, 7, 8] {
            let (next, _) = here.take_next().unwrap();
            assert_eq!(next.seq, seq(expected));
            here.contiguous = next.seq;
        }
        assert!(here.take_next().is_none());
        assert!(here.ahead.is_none(), "nothing is kept of it");
    }

    #[test]
    fn a_cursor_that_was_overtaken_on_its_way_is_not_told() {
        let (mut here, [one, other]) = (at(0), [1, 2].map(|number| UserId::new(number).unwrap()));
        assert_eq!(here.further(one, Some(seq(7)), None), (Some(seq(7)), None));
        assert_eq!(here.further(one, Some(seq(5)), Some(seq(5))), (None, Some(seq(5))));
        assert_eq!(here.further(other, Some(seq(5)), None), (Some(seq(5)), None));
    }

    #[test]
    fn what_has_passed_another_way_is_let_go() {
        let mut here = at(4);
        here.keep(&entry(6, None), &Bytes::new());
        here.contiguous = seq(9);
        assert!(here.take_next().is_none());
        assert!(here.ahead.is_none());
    }

    #[test]
    fn a_jump_leaves_no_hole_where_a_commit_of_this_node_was_told() {
        let mut here = at(4);
        here.keep(&entry(6, Some(1)), &Bytes::new());
        here.keep(&entry(9, Some(1)), &Bytes::new());
        here.keep(&entry(12, Some(1)), &Bytes::new());
        here.jump(seq(10));
        for (number, hole) in
            [(5, true), (6, false), (7, true), (8, true), (9, false), (10, true), (12, false)]
        {
            assert_eq!(here.in_hole(seq(number)), hole, "{number}");
        }
        assert_eq!(here.contiguous, seq(10));
        assert!(here.take_next().is_none(), "11 is missing");
    }

    #[test]
    fn a_flood_of_others_is_left_to_the_store_but_never_an_own_one() {
        let mut here = at(0);
        for number in 0..2 * EARLY_MAX as u64 {
            here.keep(&entry(number + 2, None), &Bytes::new());
        }
        let last = 3 * EARLY_MAX as u64;
        here.keep(&entry(last, Some(1)), &Bytes::new());
        let ahead = here.ahead.as_ref().unwrap();
        assert_eq!(ahead.early.len(), EARLY_MAX + 1);
        assert_eq!(ahead.head, seq(last));
    }
}
