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
use smallvec::SmallVec;
use store::dao::{ConversationDao, MessageDao, PageLimit};
use store::{Entry, Position};

use super::lifecycle::{RETRY, TICK_PUMP, TICK_REREAD, TICK_START};
use super::{ChatService, Cx, LocalConv};
use crate::post::{LastSeq, PageEntry, Post};
use crate::session::{Lag, Session, Stage};
use crate::sink::write_message;

/// Entries read for catching up at a time. A window's worth is read in two, so that conversations take turns.
const PAGE_ENTRIES: u32 = 128;

impl LocalConv {
    fn in_hole(&self, seq: Seq) -> bool {
        self.holes.iter().any(|(from, to)| *from <= seq && seq <= *to)
    }
}

impl ChatService {
    /// A committed entry: pushed to whoever is live, noted for whoever lags.
    pub(super) fn deliver(&mut self, cx: &mut Cx<'_>, entry: &Entry, line: &Bytes) {
        let members = [entry.sender, entry.recipient];
        if !members.iter().any(|member| self.users.contains_key(member)) {
            return;
        }
        let before = match self.convs.get(&entry.conv) {
            Some(here) => here.contiguous,
            // Whose streams run knows every older conversation, so to them this one begins now, at 0.
            None if self.is_running(cx, members) => self.meet(entry.conv, members, Seq::ZERO),
            None => self.meet(entry.conv, members, entry.seq.prev()),
        };
        if entry.seq <= before {
            return;
        }
        if entry.seq > before.next() {
            self.note_hole(cx, entry.conv, before, entry.seq.prev());
        }
        if let Some(here) = self.convs.get_mut(&entry.conv) {
            here.contiguous = entry.seq;
        }
        for conn in self.sessions_of(members) {
            self.push_live(cx, conn, entry, line);
        }
    }

    /// Makes sure that the loop follows a conversation, and says up to where it had done so.
    fn meet(&mut self, conv: ConvId, members: [UserId; 2], contiguous: Seq) -> Seq {
        let here =
            self.convs.entry(conv).or_insert_with(|| LocalConv { members, contiguous, holes: Vec::new() });
        for member in members {
            if let Some(local) = self.users.get_mut(&member) {
                local.convs.insert(conv);
            }
        }
        here.contiguous
    }

    /// Whether a session of one of them has begun its streams.
    fn is_running(&self, cx: &Cx<'_>, members: [UserId; 2]) -> bool {
        self.sessions_of(members).into_iter().any(|conn| {
            let session = cx.conn(conn).and_then(|client| client.session.as_deref());
            session.is_some_and(Session::is_running)
        })
    }

    pub(super) fn sessions_of(&self, members: [UserId; 2]) -> SmallVec<[ConnId; 4]> {
        let mut conns = SmallVec::new();
        for member in members {
            if let Some(local) = self.users.get(&member) {
                conns.extend(local.conns.iter().copied());
            }
        }
        conns
    }

    fn push_live(&mut self, cx: &mut Cx<'_>, conn: ConnId, entry: &Entry, line: &Bytes) {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
        let Some(session) = session.filter(|session| session.is_running()) else { return };
        if session.lag(entry.conv).is_some() {
            return self.pump(cx, conn);
        }
        if session.id == entry.session {
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
        here.holes.push((before.next(), last));
        here.contiguous = last;
        let members = here.members;
        for conn in self.sessions_of(members) {
            let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
            if let Some(session) = session.filter(|session| session.is_running())
                && session.lag(conv).is_none()
            {
                session.lags.push_back(Lag { conv, pos: before, until: None });
            }
        }
    }

    pub(super) fn on_last_seq(&mut self, cx: &mut Cx<'_>, conv: ConvId, answer: LastSeq) {
        self.jobs = self.jobs.saturating_sub(1);
        let (members, last) = match answer {
            LastSeq::Unknown => return self.doubt(cx, conv),
            LastSeq::Nowhere => return,
            LastSeq::At(members, last) => (members, last),
        };
        if !members.iter().any(|member| self.users.contains_key(member)) {
            return;
        }
        // One that this loop has not met has no entry that a session here was answered with.
        let before = self.meet(conv, members, Seq::ZERO);
        if last > before {
            self.note_hole(cx, conv, before, last);
            for conn in self.sessions_of(members) {
                self.pump(cx, conn);
            }
        }
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
        let Some(slot) = self.slot(Post::Positions { conn, session, positions: None }) else {
            cx.set_conn_timer(conn, RETRY, TICK_START);
            return;
        };
        let queued = self.node.store.read(move |db| {
            let positions = ConversationDao::new(db).positions(user);
            if let Err(error) = &positions {
                log::warn!("cannot read the conversations of user {user}: {error}");
            }
            slot.fill(Post::Positions { conn, session, positions: positions.ok() });
        });
        if let Err(error) = queued {
            log::debug!("a start was not taken: {error}");
        }
    }

    pub(super) fn on_positions(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        session: SessionId,
        positions: Option<Vec<Position>>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session_is(session)) else { return };
        let Some(positions) = positions else {
            cx.set_conn_timer(conn, RETRY, TICK_START);
            return;
        };
        let Stage::Starting(cursors) = std::mem::replace(&mut session.stage, Stage::Running) else { return };
        let user = session.user;
        let mut lags = Vec::new();
        for position in &positions {
            let last =
                self.meet(position.conv, [user, position.other], position.last_seq).max(position.last_seq);
            let mut pos = cursors.get(&position.conv).copied().unwrap_or(position.delivered);
            if pos > last {
                self.push(cx, conn, &Push::Reset { conv: position.conv, seq: last });
                pos = last;
            }
            self.add_lag(&mut lags, position.conv, pos, position.last_seq);
        }
        self.add_newborn(&mut lags, user, &positions);
        let unsynced = lags.iter().filter(|lag| lag.until.is_some()).count();
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.lags.extend(lags);
            session.unsynced = Some(unsynced);
        }
        self.pump(cx, conn);
    }

    fn add_lag(&self, lags: &mut Vec<Lag>, conv: ConvId, pos: Seq, last_at_login: Seq) {
        let Some(here) = self.convs.get(&conv) else { return };
        let until = (pos < last_at_login).then_some(last_at_login);
        // Ahead of the loop counts as lagging too: until the loop has come that far, nothing may be pushed.
        if until.is_some() || pos != here.contiguous {
            lags.push(Lag { conv, pos, until });
        }
    }

    /// Conversations that began after the positions were read start at 0.
    fn add_newborn(&self, lags: &mut Vec<Lag>, user: UserId, positions: &[Position]) {
        let Some(local) = self.users.get(&user) else { return };
        if local.convs.len() == positions.len() {
            return;
        }
        let old: FxHashMap<ConvId, ()> = positions.iter().map(|position| (position.conv, ())).collect();
        for conv in local.convs.iter().filter(|conv| !old.contains_key(conv)) {
            self.add_lag(lags, *conv, Seq::ZERO, Seq::ZERO);
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
        let Some(upto) = convs.get(&conv).map(|here| here.contiguous) else { return };
        session.reading = Some(conv);
        let session = session.id;
        self.read_page(cx, conn, session, (conv, pos, upto), room);
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

    fn read_page(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        session: SessionId,
        (conv, pos, upto): (ConvId, Seq, Seq),
        room: usize,
    ) {
        let Some(slot) = self.slot(Post::Page { conn, session, conv, entries: None }) else {
            return Self::read_later(cx, conn, conv);
        };
        let entries = u32::try_from(room).unwrap_or(u32::MAX).min(PAGE_ENTRIES);
        let queued = self.node.store.read(move |db| {
            let limit = PageLimit { entries, bytes: PUSH_OUTPUT_BYTES_MAX };
            let page = MessageDao::new(db).after(conv, pos, upto, limit);
            if let Err(error) = &page {
                log::warn!("cannot read entries of conversation {conv}: {error}");
            }
            let entries = page.ok().map(|page| page.entries.iter().map(encode).collect());
            slot.fill(Post::Page { conn, session, conv, entries });
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
        entries: Option<Vec<PageEntry>>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let Some(found) = cx.conn_mut(conn).and_then(|client| client.session_is(session)) else { return };
        let Some(entries) = entries.filter(|entries| !entries.is_empty()) else {
            return Self::read_later(cx, conn, conv);
        };
        found.reading = None;
        for entry in entries {
            if !self.push_late(cx, conn, conv, &entry) {
                break;
            }
        }
        if let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) {
            session.next_in_turn(conv);
        }
        self.pump(cx, conn);
    }

    /// Pushes one entry to a session that lags. `false` when window or output are full, or it does not fit the stream.
    fn push_late(&mut self, cx: &mut Cx<'_>, conn: ConnId, conv: ConvId, entry: &PageEntry) -> bool {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let in_hole = self.convs.get(&conv).is_some_and(|here| here.in_hole(entry.seq));
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return false;
        };
        let own = entry.session == session.id && !in_hole;
        if !own && (choked || session.room() == 0) {
            return false;
        }
        let Some(lag) = session.lag_mut(conv) else { return false };
        if entry.seq <= lag.pos {
            // An own one, passed by its `ok` meanwhile.
            return true;
        }
        if entry.seq != lag.pos.next() {
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

fn encode(entry: &Entry) -> PageEntry {
    let mut line = Vec::with_capacity(entry.text.len() + 256);
    write_message(entry, &mut line);
    PageEntry { seq: entry.seq, session: entry.session, line: Bytes::from(line) }
}
