//! Who is online on which nodes, as this node has heard it: a mirror of what stands in Redis, so that nobody has to ask there.
//!
//! A node's sessions are one hash in Redis that lives as long as the node's lease. Nobody writes another one's: a node that dies is forgotten with its hash,
//! and one that was only thought dead puts its own there again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use schema::limits::SESSIONS_PER_USER_MAX;
use schema::{SessionId, UserId};
use smallvec::SmallVec;

use super::wire::Origin;
use crate::service::GONE_AFTER;

/// How long a node's lease may be missing before the node counts as gone: time enough to write it again after Redis was emptied.
pub(super) const MISSING_MAX: Duration = Duration::from_millis(2_500);

/// How long it is known who left last: longer than anybody asks.
const LEFT_KEPT: Duration = Duration::from_secs(30);

/// A session somewhere in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) origin: Origin,
    pub(super) session: SessionId,
    /// When it began, by Redis's clock; the greatest number while that is not known.
    pub(super) stamp: u64,
}

/// The mirror.
#[derive(Debug)]
pub(super) struct Presence {
    me: Origin,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    users: FxHashMap<UserId, SmallVec<[Held; 1]>>,
    nodes: FxHashMap<Origin, Node>,
    /// Users whose last session has ended a moment ago.
    left: FxHashMap<UserId, LastLeft>,
    /// Users who have come to this node, whose friends it has still to tell.
    news: FxHashSet<UserId>,
}

/// The end of a user's last session.
#[derive(Clone, Copy, Debug)]
struct LastLeft {
    at: Instant,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// From this node: that is for this node to tell.
    FromHere,
    FromElsewhere,
    /// The friends of the user believe that it is gone: this node has told them.
    Told(Reach),
}

/// Whom a node tells of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those with sessions on this node. Of a node that is gone each node tells its own.
    Here,
    Everywhere,
}

#[derive(Debug, Default)]
struct Node {
    name: String,
    missing_since: Option<Instant>,
    /// What was heard of the node while its hash is being read: the reading may be older.
    meanwhile: Option<Vec<Event>>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Entered(UserId, SessionId, u64),
    Left(UserId, SessionId),
}

/// What a look at the leases came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leases {
    /// Nodes that were not known: their sessions have to be read.
    pub(super) new: Vec<Origin>,
    /// Nodes that are gone, with their users who are nowhere else.
    pub(super) gone: Vec<(Origin, Vec<UserId>)>,
}

/// What the reading of a node's sessions has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replaced {
    /// Users who have gone by that.
    pub(super) gone: Vec<UserId>,
    /// Users who are there, and of whom friends here believe that they went with their node.
    pub(super) back: Vec<UserId>,
}

impl Presence {
    pub(super) fn new(me: Origin) -> Self {
        Self { me, state: Mutex::default() }
    }

    /// Whether the user has a session on another node.
    pub(super) fn is_elsewhere(&self, user: UserId) -> bool {
        let state = self.state.lock();
        state.users.get(&user).is_some_and(|held| held.iter().any(|held| held.origin != self.me))
    }

    /// Whether there is any other node.
    pub(super) fn has_others(&self) -> bool {
        !self.state.lock().nodes.is_empty()
    }

    /// How many other nodes there are, and how many users with sessions on any.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.nodes.len(), state.users.len())
    }

    /// A session of this node began. Says whether that is news: the user had no session for `GONE_AFTER`.
    pub(super) fn enter_here(&self, user: UserId, session: SessionId, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_new = !state.users.contains_key(&user) && !state.was_here_lately(user, now);
        if is_new {
            state.news.insert(user);
        }
        state.enter(user, Held { origin: self.me, session, stamp: u64::MAX });
        is_new
    }

    /// Whether this node has to tell that the user has come; once.
    pub(super) fn take_news(&self, user: UserId) -> bool {
        self.state.lock().news.remove(&user)
    }

    /// When a session of this node began, unless it has ended since.
    pub(super) fn stamp_here(&self, user: UserId, session: SessionId, stamp: u64) {
        let mut state = self.state.lock();
        let held =
            state.users.get_mut(&user).and_then(|all| all.iter_mut().find(|held| held.session == session));
        if let Some(held) = held {
            held.stamp = stamp;
        }
    }

    /// A session of this node ended. `alone`: the others are not heard, so that none of them can have been later.
    pub(super) fn leave_here(&self, user: UserId, session: SessionId, alone: bool, now: Instant) {
        let mut state = self.state.lock();
        state.leave(user, self.me, session);
        state.note_left(user, now, if alone { How::FromHere } else { How::FromElsewhere });
    }

    /// This node hears its own word that a session of it has ended. Where that was the last one, by the one order in which all nodes hear all words, the user has
    /// left from here.
    pub(super) fn left_here(&self, user: UserId, now: Instant) {
        self.state.lock().note_left(user, now, How::FromHere);
    }

    /// Whether the end of the user's last session is for this node to tell.
    pub(super) fn was_last_here(&self, user: UserId) -> bool {
        let state = self.state.lock();
        !state.users.contains_key(&user)
            && state.left.get(&user).is_some_and(|left| left.how == How::FromHere)
    }

    /// All friends of a user are about to be told that it is gone. Says whether it is.
    pub(super) fn note_told(&self, user: UserId, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.note_left(user, now, How::Told(Reach::Everywhere));
        !state.users.contains_key(&user)
    }

    /// A session began elsewhere. Names the friends who believe that the user is gone, since this node has told them so.
    pub(super) fn entered(
        &self,
        origin: Origin,
        user: UserId,
        session: SessionId,
        stamp: u64,
    ) -> Option<Reach> {
        let mut state = self.state.lock();
        state.remember(origin, Event::Entered(user, session, stamp));
        state.enter(user, Held { origin, session, stamp });
        match state.left.remove(&user)?.how {
            How::Told(friends) => Some(friends),
            How::FromHere | How::FromElsewhere => None,
        }
    }

    /// The friends here of these users are told that they are gone with their node.
    pub(super) fn note_told_here(&self, users: &[UserId], now: Instant) {
        let mut state = self.state.lock();
        users.iter().for_each(|user| state.note_left(*user, now, How::Told(Reach::Here)));
    }

    /// A session ended elsewhere.
    pub(super) fn left(&self, origin: Origin, user: UserId, session: SessionId, now: Instant) {
        let mut state = self.state.lock();
        state.remember(origin, Event::Left(user, session));
        state.leave(user, origin, session);
        state.note_left(user, now, How::FromElsewhere);
    }

    /// All sessions of this node, for its hash.
    pub(super) fn here(&self) -> Vec<(UserId, Held)> {
        let state = self.state.lock();
        let all = state.users.iter().flat_map(|(user, held)| held.iter().map(|held| (*user, *held)));
        all.filter(|(_, held)| held.origin == self.me).collect()
    }

    /// From here on what is heard of a node is kept, until [`Presence::replace`].
    pub(super) fn begin_reading(&self, origin: Origin) {
        if let Some(node) = self.state.lock().nodes.get_mut(&origin) {
            node.meanwhile = Some(Vec::new());
        }
    }

    /// The other nodes.
    pub(super) fn others(&self) -> Vec<Origin> {
        self.state.lock().nodes.keys().copied().collect()
    }

    /// A node's hash was read: this is what it has, and what was heard since the reading began.
    pub(super) fn replace(&self, origin: Origin, all: &[(UserId, SessionId, u64)]) -> Replaced {
        let mut state = self.state.lock();
        let Some(node) = state.nodes.get_mut(&origin) else { return Replaced::default() };
        let meanwhile = node.meanwhile.take().unwrap_or_default();
        let had = state.forget(origin);
        for (user, session, stamp) in all {
            state.enter(*user, Held { origin, session: *session, stamp: *stamp });
        }
        for event in meanwhile {
            match event {
                Event::Entered(user, session, stamp) => state.enter(user, Held { origin, session, stamp }),
                Event::Left(user, session) => state.leave(user, origin, session),
            }
        }
        let gone = had.into_iter().filter(|user| !state.users.contains_key(user)).collect();
        let State { users, left, .. } = &mut *state;
        let back = left.extract_if(|user, left| matches!(left.how, How::Told(_)) && users.contains_key(user));
        Replaced { gone, back: back.map(|(user, _)| user).collect() }
    }

    /// A node says that it ends. Its users who are nowhere else are gone.
    pub(super) fn end(&self, origin: Origin) -> Vec<UserId> {
        let mut state = self.state.lock();
        state.nodes.remove(&origin);
        let had = state.forget(origin);
        had.into_iter().filter(|user| !state.users.contains_key(user)).collect()
    }

    /// The leases that there are now, by node. `emptied`: our own was missing too, so that nothing follows from what is missing.
    pub(super) fn leases(&self, all: &[(Origin, Option<String>)], emptied: bool, now: Instant) -> Leases {
        let mut state = self.state.lock();
        state.left.retain(|_, left| now.saturating_duration_since(left.at) < LEFT_KEPT);
        let mut leases = Leases::default();
        for (origin, name) in all.iter().filter(|(origin, _)| *origin != self.me) {
            if let Some(name) = name {
                let node = state.nodes.entry(*origin).or_insert_with(|| {
                    leases.new.push(*origin);
                    Node { name: name.clone(), ..Node::default() }
                });
                node.missing_since = None;
            }
        }
        let there = |origin: &Origin| all.iter().any(|(other, name)| other == origin && name.is_some());
        let mut gone = Vec::new();
        for (origin, node) in state.nodes.iter_mut().filter(|(origin, _)| !there(origin)) {
            if emptied {
                node.missing_since = Some(now);
            }
            let since = *node.missing_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= MISSING_MAX {
                log::warn!("node {:?} is gone", node.name);
                gone.push(*origin);
            }
        }
        for origin in gone {
            state.nodes.remove(&origin);
            let had = state.forget(origin);
            let nowhere = had.into_iter().filter(|user| !state.users.contains_key(user)).collect();
            leases.gone.push((origin, nowhere));
        }
        leases
    }

    /// While the user has more sessions than are allowed: those of this node among the oldest, which have to end. They no longer count.
    pub(super) fn too_many(&self, user: UserId) -> Vec<SessionId> {
        let mut state = self.state.lock();
        let Some(held) = state.users.get_mut(&user) else { return Vec::new() };
        let over = held.len().saturating_sub(SESSIONS_PER_USER_MAX);
        if over == 0 {
            return Vec::new();
        }
        let mut all: Vec<Held> = held.to_vec();
        all.sort_unstable_by_key(|held| (held.stamp, held.session));
        let mine: Vec<SessionId> =
            all.iter().take(over).filter(|held| held.origin == self.me).map(|held| held.session).collect();
        held.retain(|held| !mine.contains(&held.session));
        mine
    }
}

impl State {
    fn enter(&mut self, user: UserId, held: Held) {
        let all = self.users.entry(user).or_default();
        match all.iter_mut().find(|old| old.session == held.session) {
            Some(old) => *old = held,
            None => all.push(held),
        }
    }

    fn leave(&mut self, user: UserId, origin: Origin, session: SessionId) {
        let Some(all) = self.users.get_mut(&user) else { return };
        all.retain(|held| held.session != session || held.origin != origin);
        if all.is_empty() {
            self.users.remove(&user);
        }
    }

    /// Of a user who has no session any more, when the last one ended and how.
    fn note_left(&mut self, user: UserId, at: Instant, how: How) {
        if !self.users.contains_key(&user) {
            self.left.insert(user, LastLeft { at, how });
        }
    }

    /// Whether the user's last session ended so lately that its friends have not been told.
    fn was_here_lately(&self, user: UserId, now: Instant) -> bool {
        let left = self.left.get(&user).filter(|left| !matches!(left.how, How::Told(_)));
        left.is_some_and(|left| now.saturating_duration_since(left.at) < GONE_AFTER)
    }

    fn remember(&mut self, origin: Origin, event: Event) {
        if let Some(node) = self.nodes.get_mut(&origin)
            && let Some(meanwhile) = &mut node.meanwhile
        {
            meanwhile.push(event);
        }
    }

    /// Takes all sessions of a node away and says whose they were.
    fn forget(&mut self, origin: Origin) -> Vec<UserId> {
        let mut had = Vec::new();
        self.users.retain(|user, all| {
            let before = all.len();
            all.retain(|held| held.origin != origin);
            if all.len() < before {
                had.push(*user);
            }
            !all.is_empty()
        });
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Origin = 1;
    const OTHER: Origin = 2;

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    fn session(number: u64) -> SessionId {
        SessionId::new(number).unwrap()
    }

    fn lease(origin: Origin) -> (Origin, Option<String>) {
        (origin, Some(format!("node {origin}")))
    }

    #[test]
    fn a_user_is_elsewhere_while_another_node_has_a_session() {
        let presence = Presence::new(ME);
        assert!(presence.enter_here(user(1), session(1), Instant::now()));
        assert!(!presence.is_elsewhere(user(1)));
        presence.entered(OTHER, user(1), session(2), 6);
        assert!(presence.is_elsewhere(user(1)));
        // The late end of another session takes nothing away.
        presence.left(OTHER, user(1), session(1), Instant::now());
        assert!(presence.is_elsewhere(user(1)));
        presence.left(OTHER, user(1), session(2), Instant::now());
        assert!(!presence.is_elsewhere(user(1)));
    }

    #[test]
    fn of_two_nodes_whose_sessions_end_at_once_one_tells() {
        // Both hear: first the end on `ME`, then the one on `OTHER`.
        let now = Instant::now();
        let (first, second) = (Presence::new(ME), Presence::new(OTHER));
        for (presence, there) in [(&first, OTHER), (&second, ME)] {
            presence.enter_here(user(1), session(presence.me), now);
            presence.entered(there, user(1), session(there), 1);
            presence.leave_here(user(1), session(presence.me), false, now);
        }
        first.left_here(user(1), now);
        second.left(ME, user(1), session(ME), now);
        first.left(OTHER, user(1), session(OTHER), now);
        second.left_here(user(1), now);
        assert!(!first.was_last_here(user(1)) && second.was_last_here(user(1)));
    }

    #[test]
    fn whoever_comes_back_soon_is_no_news_and_whoever_went_with_its_node_is() {
        let now = Instant::now();
        let presence = Presence::new(ME);
        assert!(presence.enter_here(user(1), session(1), now) && presence.take_news(user(1)));
        presence.leave_here(user(1), session(1), true, now);
        assert!(!presence.enter_here(user(1), session(2), now + GONE_AFTER / 2));
        presence.leave_here(user(1), session(2), true, now);
        assert!(presence.enter_here(user(1), session(3), now + GONE_AFTER));

        presence.note_told_here(&[user(2)], now);
        assert!(presence.enter_here(user(2), session(4), now));
        presence.note_told_here(&[user(3)], now);
        assert_eq!(presence.entered(OTHER, user(3), session(5), 1), Some(Reach::Here));
        assert_eq!(presence.entered(OTHER, user(3), session(6), 1), None);
        // Another node may have been late to hear of the end, and think that nobody was told yet.
        assert!(presence.note_told(user(4), now) && !presence.note_told(user(3), now));
        assert_eq!(presence.entered(OTHER, user(4), session(7), 1), Some(Reach::Everywhere));
    }

    #[test]
    fn a_node_whose_lease_stays_away_is_gone_with_its_users() {
        let presence = Presence::new(ME);
        let start = Instant::now();
        assert_eq!(presence.leases(&[lease(ME), lease(OTHER)], false, start).new, [OTHER]);
        presence.entered(OTHER, user(1), session(1), 1);
        presence.entered(OTHER, user(2), session(2), 1);
        presence.enter_here(user(2), session(3), start);
        assert_eq!(presence.leases(&[lease(ME)], false, start), Leases::default());
        let later = start + MISSING_MAX;
        assert_eq!(presence.leases(&[lease(ME)], false, later).gone, [(OTHER, vec![user(1)])]);
        assert!(!presence.has_others());
    }

    #[test]
    fn where_everything_is_missing_nobody_is_gone() {
        let presence = Presence::new(ME);
        let start = Instant::now();
        presence.leases(&[lease(OTHER)], false, start);
        presence.leases(&[], false, start + MISSING_MAX / 2);
        assert_eq!(presence.leases(&[], true, start + MISSING_MAX).gone, []);
        assert_eq!(presence.leases(&[lease(OTHER)], false, start + MISSING_MAX * 2), Leases::default());
    }

    #[test]
    fn what_is_heard_while_a_hash_is_read_wins() {
        let presence = Presence::new(ME);
        presence.leases(&[lease(OTHER)], false, Instant::now());
        presence.entered(OTHER, user(9), session(9), 1);
        presence.begin_reading(OTHER);
        presence.entered(OTHER, user(1), session(1), 1);
        presence.left(OTHER, user(2), session(2), Instant::now());
        presence.note_told_here(&[user(3)], Instant::now());
        let replaced = presence.replace(OTHER, &[(user(2), session(2), 1), (user(3), session(3), 1)]);
        assert_eq!(replaced, Replaced { gone: vec![user(9)], back: vec![user(3)] });
        for (number, is_there) in [(1, true), (2, false), (3, true), (9, false)] {
            assert_eq!(presence.is_elsewhere(user(number)), is_there, "{number}");
        }
    }

    #[test]
    fn the_oldest_of_too_many_sessions_end_where_they_are() {
        let presence = Presence::new(ME);
        let max = u64::try_from(SESSIONS_PER_USER_MAX).unwrap();
        presence.entered(OTHER, user(1), session(100), 1);
        for number in 1..=max {
            presence.enter_here(user(1), session(number), Instant::now());
            presence.stamp_here(user(1), session(number), number + 1);
        }
        // The oldest is the other node's to end.
        assert_eq!(presence.too_many(user(1)), []);
        presence.enter_here(user(1), session(50), Instant::now());
        assert_eq!(presence.too_many(user(1)), [session(1)]);
        assert_eq!(presence.too_many(user(1)), []);
        presence.left(OTHER, user(1), session(100), Instant::now());
        assert_eq!(presence.too_many(user(1)), []);
    }
}
