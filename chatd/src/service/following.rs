//! The conversations that a loop follows: who of them is here, and up to where every commit has passed.

use reactor::ConnId;
use rustc_hash::FxHashMap;
use schema::{ConvId, Seq, UserId};
use smallvec::SmallVec;
use store::dao::GroupDao;

use super::afar::Ahead;
use super::{ChatService, Cx};
use crate::passing::{Moved, Passing};
use crate::post::Post;
use crate::session::{Lag, Session};

/// A conversation with a member on this loop.
pub(crate) struct LocalConv {
    pub(crate) who: Who,
    /// Every commit up to here has passed this loop, or is known to be in the store. No hole below.
    pub(crate) contiguous: Seq,
    /// Places up to `contiguous` that no commit told us of: they were committed although their senders got an error.
    pub(crate) holes: Vec<(Seq, Seq)>,
    /// What lies beyond `contiguous`, where something is known of that.
    pub(super) ahead: Option<Box<Ahead>>,
    /// In a cluster, where cursors of several nodes come in any order: those that were told, `delivered` and `read`.
    pub(super) told: Option<Box<FxHashMap<UserId, (Seq, Seq)>>>,
}

/// Who is in a conversation, as far as a loop has to know.
pub(crate) enum Who {
    /// A direct one's two users, and whether one has blocked the other.
    Pair { members: [UserId; 2], blocked: bool },
    /// Those of a group's members that are on this loop, and those who were and still have something of it to come.
    Group(FxHashMap<UserId, Membership>),
}

/// One user of this loop in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Where the stream of the present span begins.
    pub(crate) start: Seq,
    /// The place of the entry that ended it.
    pub(crate) until: Option<Seq>,
}

impl LocalConv {
    /// Whether no commit told of this place.
    pub(super) fn in_hole(&self, seq: Seq) -> bool {
        self.holes.iter().any(|(from, to)| *from <= seq && seq <= *to)
    }

    /// Whether the user is in it now.
    pub(crate) fn has(&self, user: UserId) -> bool {
        match &self.who {
            Who::Pair { members, .. } => members.contains(&user),
            Who::Group(members) => members.get(&user).is_some_and(|member| member.until.is_none()),
        }
    }

    /// Who of its members may be on this loop.
    pub(crate) fn members(&self) -> SmallVec<[UserId; 4]> {
        match &self.who {
            Who::Pair { members, .. } => SmallVec::from_slice(members),
            Who::Group(members) => {
                members.iter().filter(|(_, member)| member.until.is_none()).map(|(user, _)| *user).collect()
            }
        }
    }

    pub(crate) const fn is_group(&self) -> bool {
        matches!(self.who, Who::Group(_))
    }
}

impl ChatService {
    /// Makes sure that the loop follows a direct conversation, and says up to where it had done so.
    pub(super) fn meet_pair(&mut self, conv: ConvId, members: [UserId; 2], contiguous: Seq) -> Seq {
        let here = self.convs.entry(conv).or_insert_with(|| LocalConv {
            who: Who::Pair { members, blocked: false },
            contiguous,
            holes: Vec::new(),
            ahead: None,
            told: None,
        });
        for member in members {
            if let Some(local) = self.users.get_mut(&member) {
                local.convs.insert(conv);
            }
        }
        here.contiguous
    }

    /// Makes sure that the loop follows a group for one of its users, and says up to where it had done so. `at_least`: the place of the last entry that is known to
    /// be in the store.
    pub(super) fn meet_group(
        &mut self,
        conv: ConvId,
        user: UserId,
        membership: Membership,
        at_least: Seq,
    ) -> Seq {
        let seen = self.unfollowed.remove(&conv).unwrap_or(Seq::ZERO);
        let here = self.convs.entry(conv).or_insert_with(|| {
            if let Some(cluster) = &self.node.cluster {
                cluster.follow(conv);
            }
            LocalConv {
                who: Who::Group(FxHashMap::default()),
                contiguous: at_least.max(seen),
                holes: Vec::new(),
                ahead: None,
                told: None,
            }
        });
        if let Who::Group(members) = &mut here.who {
            let known = members.entry(user).or_insert(membership);
            // A newer span takes the place of an older one.
            if membership.start > known.start || (membership.start == known.start && known.until.is_none()) {
                *known = membership;
            }
        }
        if let Some(local) = self.users.get_mut(&user) {
            local.convs.insert(conv);
        }
        here.contiguous
    }

    /// What an entry of a group says of the users of this loop, before it is pushed to them. `None`: nobody here has anything to do with the group.
    pub(super) fn note_change(&mut self, entry: &Passing) -> Option<Seq> {
        let before = entry.seq.prev();
        match entry.moved {
            Some(Moved::In(user)) if self.users.contains_key(&user) => {
                if self.starting > 0 {
                    self.newborn.insert((user, entry.conv), before);
                }
                let membership = Membership { start: before, until: None };
                return Some(self.meet_group(entry.conv, user, membership, before));
            }
            // A login of the user may be under way, and have read of the group before this.
            Some(Moved::Out(user)) if self.starting > 0 && self.users.contains_key(&user) => {
                self.gone.insert((user, entry.conv), entry.seq);
            }
            _ => {}
        }
        let here = self.convs.get(&entry.conv);
        if here.is_none() && self.starting > 0 {
            // Somebody who is about to start may be in it.
            self.unfollowed.insert(entry.conv, entry.seq);
        }
        here.map(|here| here.contiguous)
    }

    /// After an entry was pushed: whoever it made leave gets nothing more.
    pub(super) fn note_gone(&mut self, cx: &mut Cx<'_>, entry: &Passing) {
        let Some(Moved::Out(user)) = entry.moved else { return };
        let Some(LocalConv { who: Who::Group(members), .. }) = self.convs.get_mut(&entry.conv) else {
            return;
        };
        if let Some(member) = members.get_mut(&user) {
            member.until = Some(entry.seq);
            self.let_go(cx, entry.conv, user);
        }
    }

    /// Nobody here has anything to do with the conversation any more.
    pub(super) fn drop_conv(&mut self, conv: ConvId) {
        let gone = self.convs.remove(&conv);
        self.doubtful.remove(&conv);
        if let (Some(LocalConv { who: Who::Group(_), .. }), Some(cluster)) = (gone, &self.node.cluster) {
            cluster.unfollow(conv);
        }
    }

    /// A user who has left a group is forgotten here, once none of its sessions has anything of it to come.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_>, conv: ConvId, user: UserId) {
        let Some(LocalConv { who: Who::Group(members), .. }) = self.convs.get(&conv) else { return };
        let Some(Membership { until: Some(until), .. }) = members.get(&user).copied() else { return };
        let conns = self.users.get(&user).map(|local| local.conns.clone()).unwrap_or_default();
        for conn in conns {
            let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
            if let Some(session) = session.filter(|session| session.is_running()) {
                if session.lag(conv).is_some() {
                    return;
                }
                session.ended(conv, until);
            }
        }
        if let Some(LocalConv { who: Who::Group(members), .. }) = self.convs.get_mut(&conv) {
            members.remove(&user);
            if members.is_empty() {
                self.drop_conv(conv);
            }
        }
        if let Some(local) = self.users.get_mut(&user) {
            local.convs.remove(&conv);
        }
    }

    /// Whether a session of one of them has begun its streams.
    pub(super) fn is_running(&self, cx: &Cx<'_>, members: &[UserId]) -> bool {
        self.is_running_beside(cx, members, None)
    }

    /// The same of all sessions but this one.
    pub(super) fn is_running_beside(&self, cx: &Cx<'_>, members: &[UserId], but: Option<ConnId>) -> bool {
        self.sessions_of(members).into_iter().filter(|conn| Some(*conn) != but).any(|conn| {
            let session = cx.conn(conn).and_then(|client| client.session.as_deref());
            session.is_some_and(Session::is_running)
        })
    }

    pub(super) fn sessions_of(&self, members: &[UserId]) -> SmallVec<[ConnId; 4]> {
        let mut conns = SmallVec::new();
        for member in members {
            if let Some(local) = self.users.get(member) {
                conns.extend(local.conns.iter().copied());
            }
        }
        conns
    }

    /// The sessions of who is in a conversation now.
    pub(super) fn sessions_in(&self, conv: ConvId) -> SmallVec<[ConnId; 4]> {
        self.convs.get(&conv).map(|here| self.sessions_of(&here.members())).unwrap_or_default()
    }

    /// One of a pair has blocked the other, or does so no longer.
    pub(super) fn on_blocked(&mut self, conv: ConvId, now: bool) {
        if let Some(LocalConv { who: Who::Pair { blocked, .. }, .. }) = self.convs.get_mut(&conv) {
            *blocked = now;
        }
    }

    /// Entries of a group have passed this loop by; among them may have been a joining or a leaving. Reads who is in it.
    pub(super) fn ask_members(&mut self, cx: &mut Cx<'_>, conv: ConvId) {
        let Some(slot) = self.slot(Post::Members { conv, members: None }) else {
            return self.doubt(cx, conv);
        };
        let queued = self.node.store.read(move |db| {
            let mut all = Vec::new();
            let mut after = None;
            let members = loop {
                match GroupDao::new(db).members(conv, after, 1_000) {
                    Ok(some) => {
                        let Some(last) = some.last() else { break Some(all) };
                        after = Some(last.user);
                        all.extend(some.into_iter().map(|member| (member.user, member.since)));
                    }
                    Err(error) => {
                        log::warn!("cannot read the members of group {conv}: {error}");
                        break None;
                    }
                }
            };
            slot.fill(Post::Members { conv, members });
        });
        if let Err(error) = queued {
            log::debug!("a look at members was not taken: {error}");
        }
    }

    pub(super) fn on_members(&mut self, cx: &mut Cx<'_>, conv: ConvId, members: Option<Vec<(UserId, Seq)>>) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(members) = members else { return self.doubt(cx, conv) };
        let now: FxHashMap<UserId, Seq> =
            members.into_iter().filter(|(user, _)| self.users.contains_key(user)).collect();
        let Some(LocalConv { who: Who::Group(known), contiguous, .. }) = self.convs.get_mut(&conv) else {
            return;
        };
        let contiguous = *contiguous;
        let mut left = Vec::new();
        for (user, member) in known.iter_mut().filter(|(user, member)| {
            member.until.is_none() && !now.contains_key(user) && member.start < contiguous
        }) {
            member.until = Some(contiguous);
            left.push(*user);
        }
        let came: Vec<(UserId, Seq)> = now
            .into_iter()
            .filter(|(user, since)| *since <= contiguous && !known.contains_key(user))
            .collect();
        for (user, since) in came {
            let start = since.prev();
            self.meet_group(conv, user, Membership { start, until: None }, contiguous);
            self.lag_newcomers(cx, conv, user, start);
        }
        for user in left {
            self.let_go(cx, conv, user);
        }
    }

    /// The user's sessions are in a group since `start` without having heard of it: they read on from there.
    pub(super) fn lag_newcomers(&mut self, cx: &mut Cx<'_>, conv: ConvId, user: UserId, start: Seq) {
        for conn in self.sessions_of(&[user]) {
            let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
            if let Some(session) =
                session.filter(|session| session.is_running() && session.lag(conv).is_none())
            {
                session.lags.push_back(Lag { conv, pos: start, until: None });
                self.pump(cx, conn);
            }
        }
    }
}
