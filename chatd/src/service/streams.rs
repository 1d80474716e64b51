//! The stream promise: what a session is pushed, in order, exactly once.
//!
//! The loop keeps per conversation how far it is (`contiguous`). A session is either live, that is exactly there, or it lags and has an entry of its own,
//! which is served from the store, never beyond `contiguous`. Whatever a session sent itself is answered by its `ok` and skipped here: a row in the store
//! names the session that wrote it.

use std::time::Duration;

use bytes::Bytes;
use reactor::ConnId;
use rustc_hash::FxHashMap;
use schema::limits::PUSH_OUTPUT_BYTES_MAX;
use schema::reply::Push;
use schema::{ConvId, Seq, SessionId, UserId};
use store::dao::{ConversationDao, GroupDao, MessageDao, PageLimit, UserDao};
use store::{Entry, Position, Span, StoreError};

use super::following::{LocalConv, Membership, Who};
use super::friends::all_friends;
use super::lifecycle::{RETRY, TICK_PUMP, TICK_REREAD, TICK_START};
use super::{ChatService, Cx};
use crate::passing::Passing;
use crate::post::{LastSeq, LatePage, PageEntry, Post, Start};
use crate::session::{Lag, Session, Stage};
use crate::sink::write_message;

/// Entries read for catching up at a time. A window's worth is read in two, so that conversations take turns.
const PAGE_ENTRIES: u32 = 128;

/// Before the start of a session whose user's cursors are being written.
const SOON: Duration = Duration::from_millis(5);

impl ChatService {
    /// A committed entry: pushed to whoever is live, noted for whoever lags.
    pub(super) fn deliver(&mut self, cx: &mut Cx<'_>, entry: &Passing, line: &Bytes) {
        self.deliver_one(cx, entry, line);
        if self.node.cluster.is_some() {
            self.pass_early(cx, entry.conv);
        }
    }

    pub(super) fn deliver_one(&mut self, cx: &mut Cx<'_>, entry: &Passing, line: &Bytes) {
        let here = self.convs.get(&entry.conv).map(|here| here.contiguous);
        // What lies between may be another node's, and on its way.
        if self.node.cluster.is_some() && here.is_some_and(|contiguous| entry.seq > contiguous.next()) {
            return self.wait_for_gap(cx, entry, line);
        }
        let Some(before) = self.place_before(cx, entry) else { return };
        if entry.seq <= before {
            return;
        }
        if entry.seq > before.next() {
            if self.node.cluster.is_some() {
                return self.wait_for_gap(cx, entry, line);
            }
            self.note_hole(cx, entry.conv, before, entry.seq.prev());
        }
        if let Some(here) = self.convs.get_mut(&entry.conv) {
            here.contiguous = entry.seq;
        }
        self.note_newborn(entry.conv, before);
        for conn in self.sessions_in(entry.conv) {
            self.push_live(cx, conn, entry, line);
        }
        self.note_gone(cx, entry);
    }

    /// Up to where the loop had followed the entry's conversation; `None` when it concerns nobody here.
    fn place_before(&mut self, cx: &Cx<'_>, entry: &Passing) -> Option<Seq> {
        let Some(members) = entry.pair else { return self.note_change(entry) };
        if !members.iter().any(|member| self.users.contains_key(member)) {
            return None;
        }
        Some(match self.convs.get(&entry.conv) {
            Some(here) => here.contiguous,
            // Whose streams run knows every older conversation, so to them this one begins now, at 0.
            None if self.is_running(cx, &members) => self.meet_pair(entry.conv, members, Seq::ZERO),
            None => self.meet_pair(entry.conv, members, entry.seq.prev()),
        })
    }

    fn push_live(&mut self, cx: &mut Cx<'_>, conn: ConnId, entry: &Passing, line: &Bytes) {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
        let Some(session) = session.filter(|session| session.is_running()) else { return };
        if session.lag(entry.conv).is_some() {
            return self.pump(cx, conn);
        }
        if entry.session == Some(session.id) {
            return;
        }
        if choked || session.room() == 0 {
            session.lags.push_back(Lag { conv: entry.conv, pos: entry.seq.prev(), until: None });
            return Self::look_again(cx, conn);
        }
        session.pushed(entry.conv, entry.seq);
        // A connection that is gone or too far behind is closed by the reactor, and its session with it.
        let _ = cx.send_bytes(conn, line.clone());
    }

    /// Entries were committed that no commit told of. Whoever was live reads them from the store, and their own sender gets them too.
    fn note_hole(&mut self, cx: &mut Cx<'_>, conv: ConvId, before: Seq, last: Seq) {
        let Some(here) = self.convs.get_mut(&conv) else { return };
        log::warn!("conversation {conv} has entries up to {last} that no commit told of");
        here.jump(last);
        let is_group = here.is_group();
        self.note_newborn(conv, before);
        for conn in self.sessions_in(conv) {
            let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
            if let Some(session) = session.filter(|session| session.is_running())
                && session.lag(conv).is_none()
            {
                session.lags.push_back(Lag { conv, pos: before, until: None });
            }
        }
        if is_group {
            self.ask_members(cx, conv);
        }
    }

    pub(super) fn on_last_seq(&mut self, cx: &mut Cx<'_>, conv: ConvId, answer: LastSeq, tell: bool) {
        self.jobs = self.jobs.saturating_sub(1);
        let (pair, last) = match answer {
            LastSeq::Unknown => return self.doubt(cx, conv),
            LastSeq::Nowhere => return,
            LastSeq::At(pair, last) => (pair, last),
        };
        if let Some(cluster) = self.node.cluster.as_ref().filter(|_| tell) {
            cluster.tell_head(conv, pair, last);
        }
        let before = match (pair, self.convs.get(&conv)) {
            (_, Some(here)) => here.contiguous,
            (Some(members), None) if members.iter().any(|member| self.users.contains_key(member)) => {
                // One that this loop has not met has no entry that a session here was answered with.
                self.meet_pair(conv, members, Seq::ZERO)
            }
            // Of a group that nobody here is in, as far as is known, somebody may have become a member.
            (None, None) => return self.ask_members(cx, conv),
            _ => return,
        };
        if last > before {
            self.note_hole(cx, conv, before, last);
            for conn in self.sessions_in(conv) {
                self.pump(cx, conn);
            }
        }
        self.pass_early(cx, conv);
    }

    /// Reads where a session's streams start.
    pub(super) fn start_streams(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let session = cx.conn(conn).and_then(|client| client.session.as_deref());
        let Some((session, user)) = session
            .filter(|session| matches!(session.stage, Stage::Starting(_)))
            .map(|session| (session.id, session.user))
        else {
            return;
        };
        // From here on the loop remembers what begins and what it does not follow: the reading may not have seen it, or see it acknowledged by another session.
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut())
            && !std::mem::replace(&mut session.is_starting, true)
        {
            self.starting += 1;
        }
        if !self.is_heard(user, conn, session) {
            return;
        }
        // Acks of a session that has just ended are to count.
        if self.node.store.has_pending_cursors(user) {
            cx.set_conn_timer(conn, SOON, TICK_START);
            return;
        }
        let Some(slot) = self.slot(Post::Start { conn, session, start: None }) else {
            cx.set_conn_timer(conn, RETRY, TICK_START);
            return;
        };
        let queued = self.node.store.read(move |db| {
            let start = read_start(db, user);
            if let Err(error) = &start {
                log::warn!("cannot read the conversations of user {user}: {error}");
            }
            slot.fill(Post::Start { conn, session, start: start.ok().map(Box::new) });
        });
        if let Err(error) = queued {
            log::debug!("a start was not taken: {error}");
        }
    }

    pub(super) fn on_start(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        session: SessionId,
        start: Option<Box<Start>>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session_is(session)) else { return };
        let Some(start) = start else {
            cx.set_conn_timer(conn, RETRY, TICK_START);
            return;
        };
        let Stage::Starting(cursors) = std::mem::replace(&mut session.stage, Stage::Running) else { return };
        let user = session.user;
        let was_starting = std::mem::take(&mut session.is_starting);
        let mut lags = Vec::new();
        for position in &start.positions {
            let named = cursors.get(&position.conv).or_else(|| self.newborn.get(&(user, position.conv)));
            let pos = named.copied().unwrap_or(position.delivered);
            self.begin_stream(cx, conn, user, position, pos, &mut lags);
        }
        self.add_newborn(&mut lags, user, &start.positions);
        let unsynced = lags.iter().filter(|lag| lag.until.is_some()).count();
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.lags.extend(lags);
            session.unsynced = Some(unsynced);
        }
        if was_starting {
            self.started();
        }
        self.greet_session(cx, conn, user, *start);
        self.replay_acks(cx, conn);
        self.pump(cx, conn);
    }

    /// One session less is starting. While none is, nothing has to be remembered for it.
    pub(super) fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
        if self.starting == 0 {
            self.newborn = FxHashMap::default();
            self.unfollowed = FxHashMap::default();
            self.gone = FxHashMap::default();
        }
    }

    /// A direct conversation begins while sessions of this loop are about to start.
    fn note_newborn(&mut self, conv: ConvId, before: Seq) {
        if self.starting == 0 || before != Seq::ZERO {
            return;
        }
        if let Some(LocalConv { who: Who::Pair { members, .. }, .. }) = self.convs.get(&conv) {
            self.newborn.extend(members.iter().map(|member| ((*member, conv), Seq::ZERO)));
        }
    }

    fn begin_stream(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        user: UserId,
        position: &Position,
        pos: Seq,
        lags: &mut Vec<Lag>,
    ) {
        let Position { conv, last_seq, blocked, .. } = *position;
        let end = match position.other {
            Some(other) => {
                let members = [user.min(other), user.max(other)];
                let at = if self.is_newborn(cx, conv, &members, conn) { Seq::ZERO } else { last_seq };
                let contiguous = self.meet_pair(conv, members, at);
                if blocked {
                    self.on_blocked(conv, true);
                }
                contiguous.max(last_seq)
            }
            None => {
                let Some(span) = position.spans.last() else { return };
                // It may have ended since it was read.
                let gone = self.gone.get(&(user, conv)).filter(|gone| **gone > last_seq).copied();
                let until = gone.or_else(|| (!span.is_open()).then_some(span.to));
                if until.is_some() && gone.is_none() && !position.has_beyond(pos) {
                    return;
                }
                let membership = Membership { start: span.from.prev(), until };
                let is_newborn = until.is_none() && self.is_newborn(cx, conv, &[user], conn);
                let at = if is_newborn { membership.start } else { last_seq };
                let contiguous = self.meet_group(conv, user, membership, at);
                until.unwrap_or_else(|| contiguous.max(last_seq))
            }
        };
        self.reaches(cx, conv, position.visible_end().min(last_seq));
        let mut pos = pos;
        if pos > end {
            self.push(cx, conn, &Push::Reset { conv, seq: end });
            pos = end;
        }
        let last_at_login = if position.has_beyond(pos) { position.visible_end() } else { Seq::ZERO };
        self.add_lag(lags, conv, pos, last_at_login);
    }

    /// Whether a conversation that was read has yet to come to this loop: other streams than this one's run here, which would know it if it had. To them it
    /// begins as it comes, and not where it was read.
    fn is_newborn(&self, cx: &Cx<'_>, conv: ConvId, members: &[UserId], conn: ConnId) -> bool {
        !self.convs.contains_key(&conv) && self.is_running_beside(cx, members, Some(conn))
    }

    fn add_lag(&self, lags: &mut Vec<Lag>, conv: ConvId, pos: Seq, last_at_login: Seq) {
        let Some(here) = self.convs.get(&conv) else { return };
        let until = (pos < last_at_login).then_some(last_at_login);
        // Ahead of the loop counts as lagging too: until the loop has come that far, nothing may be pushed.
        if until.is_some() || pos != here.contiguous {
            lags.push(Lag { conv, pos, until });
        }
    }

    /// Conversations that began after the positions were read start at 0, groups where the user joined.
    fn add_newborn(&self, lags: &mut Vec<Lag>, user: UserId, positions: &[Position]) {
        let Some(local) = self.users.get(&user) else { return };
        if local.convs.len() == positions.len() {
            return;
        }
        let old: FxHashMap<ConvId, ()> = positions.iter().map(|position| (position.conv, ())).collect();
        for conv in local.convs.iter().filter(|conv| !old.contains_key(conv)) {
            let start = match self.convs.get(conv).map(|here| &here.who) {
                Some(Who::Group(members)) => members.get(&user).map_or(Seq::ZERO, |member| member.start),
                _ => Seq::ZERO,
            };
            self.add_lag(lags, *conv, start, Seq::ZERO);
        }
    }

    /// Says `synced`, once, when nothing that was missed at login is left.
    fn settle_synced(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return;
        };
        if session.unsynced == Some(0) {
            session.unsynced = None;
            self.push(cx, conn, &Push::Synced);
        }
    }

    /// Serves a lagging session: takes what has caught up off its list and reads on for the next in turn, as far as window and output allow.
    pub(super) fn pump(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.tell_hints(cx, conn);
        self.serve_lags(cx, conn);
        self.settle_synced(cx, conn);
    }

    fn serve_lags(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return;
        };
        if !session.is_running() || session.reading.is_some() {
            return;
        }
        session.skip_own();
        let convs = &self.convs;
        session.lags.retain(|lag| {
            lag.until.is_some() || convs.get(&lag.conv).is_some_and(|here| here.contiguous != lag.pos)
        });
        let room = session.room();
        if room == 0 {
            return;
        }
        if choked {
            return Self::look_again(cx, conn);
        }
        let behind = |lag: &Lag| convs.get(&lag.conv).is_some_and(|here| lag.pos < here.contiguous);
        let Some(at) = session.lags.iter().position(behind) else { return };
        session.lags.rotate_left(at);
        let Some(Lag { conv, pos, .. }) = session.lags.front().copied() else { return };
        let Some(here) = convs.get(&conv) else { return };
        session.reading = Some(conv);
        let (session, user) = (session.id, session.user);
        let wanted = Wanted { conv, pos, upto: here.contiguous, group_of: here.is_group().then_some(user) };
        self.read_page(cx, conn, session, wanted, room);
    }

    /// Output is full now. If the turn's writes leave it so, the low-water mark calls; if they do not, nobody would, so a timer does.
    pub(super) fn look_again(cx: &mut Cx<'_>, conn: ConnId) {
        if cx.unsent(conn) < PUSH_OUTPUT_BYTES_MAX || cx.is_above_high(conn) {
            return;
        }
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut())
            && !session.looks_again
        {
            session.looks_again = true;
            cx.set_conn_timer(conn, Duration::ZERO, TICK_PUMP);
        }
    }

    pub(super) fn on_pump_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.looks_again = false;
        }
        self.pump(cx, conn);
    }

    /// Reading does not work out now. Until the timer nobody tries again: the conversation counts as being read.
    fn read_later(cx: &mut Cx<'_>, conn: ConnId, conv: ConvId) {
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.reading = Some(conv);
            cx.set_conn_timer(conn, RETRY, TICK_REREAD);
        }
    }

    /// A page could not be read a while ago: tries again.
    pub(super) fn on_reread_timer(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.reading = None;
        }
        self.pump(cx, conn);
    }

    fn read_page(&mut self, cx: &mut Cx<'_>, conn: ConnId, session: SessionId, wanted: Wanted, room: usize) {
        let conv = wanted.conv;
        let Some(slot) = self.slot(Post::Page { conn, session, conv, page: None }) else {
            return Self::read_later(cx, conn, conv);
        };
        let entries = u32::try_from(room).unwrap_or(u32::MAX).min(PAGE_ENTRIES);
        let queued = self.node.store.read(move |db| {
            let limit = PageLimit { entries, bytes: PUSH_OUTPUT_BYTES_MAX };
            let page = wanted.read(db, limit);
            if let Err(error) = &page {
                log::warn!("cannot read entries of conversation {conv}: {error}");
            }
            slot.fill(Post::Page { conn, session, conv, page: page.ok() });
        });
        if let Err(error) = queued {
            log::debug!("a page was not taken: {error}");
        }
    }

    pub(super) fn on_page(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        session: SessionId,
        conv: ConvId,
        page: Option<LatePage>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let is_group = self.convs.get(&conv).is_some_and(LocalConv::is_group);
        let Some(found) = cx.conn_mut(conn).and_then(|client| client.session_is(session)) else { return };
        // In a direct conversation there always is what was asked for, unless it has gone by age.
        let is_whole = |page: &LatePage| is_group || page.gone.is_some() || !page.entries.is_empty();
        let Some(page) = page.filter(is_whole) else {
            return Self::read_later(cx, conn, conv);
        };
        found.reading = None;
        let user = found.user;
        if let Some(gone) = page.gone {
            found.pass(conv, gone);
        }
        let all = page.entries.iter().all(|entry| self.push_late(cx, conn, conv, entry));
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            if all && !page.more {
                session.pass(conv, page.upto);
            }
            session.next_in_turn(conv);
        }
        if all && !page.more && page.is_over {
            self.end_stream(cx, conn, conv, user);
        }
        self.pump(cx, conn);
    }

    /// All that a user who has left a group may see of it was pushed.
    fn end_stream(&mut self, cx: &mut Cx<'_>, conn: ConnId, conv: ConvId, user: UserId) {
        let until = match self.convs.get(&conv).map(|here| &here.who) {
            Some(Who::Group(members)) => members.get(&user).and_then(|member| member.until),
            _ => None,
        };
        // It may have joined again since.
        let Some(until) = until else { return };
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.lags.retain(|lag| lag.conv != conv);
            session.ended(conv, until);
        }
        self.let_go(cx, conv, user);
    }

    /// Pushes one entry to a session that lags. `false` when window or output are full, or it does not fit the stream.
    fn push_late(&mut self, cx: &mut Cx<'_>, conn: ConnId, conv: ConvId, entry: &PageEntry) -> bool {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let here = self.convs.get(&conv);
        let in_hole = here.is_some_and(|here| here.in_hole(entry.seq));
        let is_group = here.is_some_and(LocalConv::is_group);
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return false;
        };
        let own = entry.session == Some(session.id) && !in_hole;
        if !own && (choked || session.room() == 0) {
            return false;
        }
        let Some(lag) = session.lag_mut(conv) else { return false };
        if entry.seq <= lag.pos {
            // An own one, passed by its `ok` meanwhile.
            return true;
        }
        // Of a group a user sees spans, with gaps between them.
        if !is_group && entry.seq != lag.pos.next() {
            log::error!("conversation {conv} lacks the entry after {}", lag.pos);
            Self::read_later(cx, conn, conv);
            return false;
        }
        lag.pos = entry.seq;
        session.settle(conv);
        if !own {
            session.pushed(conv, entry.seq);
            // See `push_live`.
            let _ = cx.send_bytes(conn, entry.line.clone());
        }
        true
    }
}

impl Session {
    /// Moves a conversation that was served to the end of the line.
    fn next_in_turn(&mut self, conv: ConvId) {
        if self.lags.front().is_some_and(|lag| lag.conv == conv) {
            self.lags.rotate_left(1);
        }
    }
}

/// What a lagging session is to read next.
#[derive(Clone, Copy)]
struct Wanted {
    conv: ConvId,
    pos: Seq,
    upto: Seq,
    /// For whom, where it sees spans only.
    group_of: Option<UserId>,
}

impl Wanted {
    fn read(self, db: &mut store::Connection, limit: PageLimit) -> Result<LatePage, StoreError> {
        let Self { conv, pos, upto, group_of } = self;
        let (mut is_over, mut gone) = (false, None);
        let page = match group_of {
            None => {
                let mut dao = MessageDao::new(db);
                let page = dao.after(conv, pos, upto, limit)?;
                if page.entries.first().is_none_or(|entry| entry.seq != pos.next()) {
                    let oldest = dao.oldest(conv)?;
                    gone = (oldest > pos.next()).then(|| oldest.prev().min(upto));
                }
                page
            }
            Some(user) => {
                let mut spans = GroupDao::new(db).spans(conv, user)?;
                is_over = spans.last().is_none_or(|span| !span.is_open() && span.to <= upto);
                for span in &mut spans {
                    *span = Span { from: span.from.max(pos.next()), to: span.to.min(upto) };
                }
                MessageDao::new(db).after_in(conv, &spans, limit)?
            }
        };
        let entries = page.entries.iter().map(encode).collect();
        Ok(LatePage { entries, upto, more: page.more, gone, is_over })
    }
}

fn read_start(db: &mut store::Connection, user: UserId) -> Result<Start, StoreError> {
    let positions = ConversationDao::new(db).positions(user)?;
    let name = UserDao::new(db).by_id(user)?.map(|user| user.name);
    let friends = all_friends(db, user)?;
    let invitations = GroupDao::new(db).invitations(user)?;
    Ok(Start { positions, name, friends, invitations })
}

fn encode(entry: &Entry) -> PageEntry {
    let mut line = Vec::with_capacity(entry.text().len() + 256);
    write_message(entry, &mut line);
    PageEntry { seq: entry.seq, session: entry.session, line: Bytes::from(line) }
}
