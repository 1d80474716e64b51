//! `ack`, `read`, `marks`: how far members have come, and who is told.

use reactor::ConnId;
use schema::error::ErrorCode;
use schema::limits::{MARKS_MEMBERS_MAX, PUSH_OUTPUT_BYTES_MAX};
use schema::reply::{Mark, Marks, Push, write_ok_with};
use schema::request::RequestId;
use schema::{ConvId, Seq, UserId};
use smallvec::SmallVec;
use store::dao::{CursorDao, FriendDao, GroupDao};
use store::{Audience, CursorError, CursorOutcome, CursorWrite, Ticket};

use super::following::Who;
use super::history::visible;
use super::lifecycle::TICK_ACKS;
use super::messages::ticket;
use super::{ChatService, Cx};
use crate::post::Refused;
use crate::session::{EARLY_ACKS_MAX, Hint, Session, Stage};

/// How long an `ack` without `id` waits for company before it is written. The protocol allows 5 s; the other side sees *delivered* that much later.
const ACK_DELAY: std::time::Duration = std::time::Duration::from_millis(500);

impl ChatService {
    pub(super) fn ack(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        conv: ConvId,
        seq: Seq,
    ) {
        let here = self.convs.get(&conv);
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return;
        };
        // Where the stream starts is being read: until then it is not known what this counts for.
        if matches!(session.stage, Stage::Starting(_)) {
            let early = &mut session.rare().early_acks;
            if id.is_some() || early.len() < EARLY_ACKS_MAX {
                early.push((id, conv, seq));
                Self::begin(cx, conn);
            }
            return;
        }
        // What this connection's stream is complete up to; a client cannot have received more.
        let complete = match here {
            _ if !session.is_running() => Seq::ZERO,
            Some(here) if here.has(session.user) => {
                session.lag(conv).map_or(here.contiguous, |lag| lag.pos.min(here.contiguous))
            }
            _ => session.complete_apart(conv),
        };
        let upto = seq.min(complete);
        let user = session.user;
        let was_clean = session.acks.is_empty();
        session.acked(conv, upto);
        let is_dirty = !session.acks.is_empty();
        if id.is_some() {
            // One that waits to be written goes along, for it may be the higher one.
            let waiting = session.acks.iter().position(|(waiting, _)| *waiting == conv);
            let delivered = waiting.map(|at| session.acks.swap_remove(at).1);
            self.move_cursor(cx, conn, id, CursorWrite { ticket: None, user, conv, delivered, read: None });
        } else if was_clean && is_dirty {
            self.ack_dirty.push(conn);
            if !self.ack_timer {
                self.ack_timer = true;
                cx.set_timer(ACK_DELAY, TICK_ACKS);
            }
        }
        self.pump(cx, conn);
    }

    /// The streams have started: what was acked meanwhile counts now.
    pub(super) fn replay_acks(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
        let early = session.map(Session::take_early_acks).unwrap_or_default();
        for (id, conv, seq) in early {
            self.ack(cx, conn, id, conv, seq);
            self.finish(cx, conn);
        }
    }

    pub(super) fn read(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        conv: ConvId,
        seq: Seq,
    ) {
        let write = CursorWrite { ticket: None, user, conv, delivered: None, read: Some(seq) };
        self.move_cursor(cx, conn, id, write);
    }

    /// Moves a cursor at a request; the answer follows the commit.
    fn move_cursor(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, write: CursorWrite) {
        Self::begin(cx, conn);
        let write = CursorWrite { ticket: Some(ticket(conn, id)), ..write };
        if let Err(error) = self.node.store.move_cursor(write) {
            self.refuse(cx, conn, id, error.into());
            self.finish(cx, conn);
        }
    }

    /// Writes the acks that have waited, of all sessions of this loop.
    pub(super) fn write_acks(&mut self, cx: &mut Cx<'_>) {
        self.ack_timer = false;
        for conn in std::mem::take(&mut self.ack_dirty) {
            let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
                continue;
            };
            // With a ticket, so that the session itself is not told of what it has just said.
            let taken = self.write_session_acks(session, Some(ticket(conn, None)));
            if !session.acks.is_empty() {
                self.ack_dirty.push(conn);
            }
            for _ in 0..taken {
                Self::begin(cx, conn);
            }
        }
        if !self.ack_dirty.is_empty() {
            self.ack_timer = true;
            cx.set_timer(ACK_DELAY, TICK_ACKS);
        }
    }

    /// Writes a session's acks and says how many the store took. Those that it did not take stay with the session; at its end they are let go, and what
    /// they covered is pushed again at the next login.
    pub(super) fn write_session_acks(&self, session: &mut Session, ticket: Option<Ticket>) -> usize {
        let user = session.user;
        let waiting = session.acks.len();
        session.acks.retain(|(conv, seq)| {
            let write = CursorWrite { ticket, user, conv: *conv, delivered: Some(*seq), read: None };
            self.node.store.move_cursor(write).is_err()
        });
        waiting - session.acks.len()
    }

    /// A cursor write was committed or refused: its asker is answered, and whoever may know is told where the cursor is now.
    pub(super) fn on_cursor(&mut self, cx: &mut Cx<'_>, outcome: &CursorOutcome) {
        let origin = outcome.ticket.map(|ticket| ConnId::from_parts(ticket.owner, ticket.token));
        let CursorOutcome { conv, user, mut delivered, mut read, .. } = *outcome;
        if let Some(here) = self.convs.get_mut(&conv).filter(|_| self.node.cluster.is_some()) {
            (delivered, read) = here.further(user, delivered, read);
        }
        if delivered.is_some() || read.is_some() {
            let hint = Hint { conv, user, delivered, read };
            let audience = match outcome.audience {
                Audience::Pair(members) => self.sessions_of(&members),
                Audience::Group => self.sessions_in(conv),
                _ => self.sessions_of(&[user]),
            };
            for conn in audience {
                if Some(conn) != origin {
                    self.hint(cx, conn, hint);
                }
            }
        }
        let (Some(conn), Some(ticket)) = (origin, outcome.ticket) else { return };
        if !cx.is_open(conn) {
            return;
        }
        match outcome.result {
            Ok(()) => self.ok(cx, conn, ticket.call),
            Err(CursorError::NotFound) => self.refuse(cx, conn, ticket.call, Refused::NO_CONVERSATION),
            Err(CursorError::Forbidden) => self.refuse(cx, conn, ticket.call, Refused::NOT_A_MEMBER),
            Err(_) => self.refuse(cx, conn, ticket.call, Refused::UNAVAILABLE),
        }
        self.finish(cx, conn);
    }

    /// Tells a session where a cursor is now: at once if it can be, else later, and then only of the latest. What waits already goes first, so that a
    /// cursor is never told to go back.
    fn hint(&mut self, cx: &mut Cx<'_>, conn: ConnId, hint: Hint) {
        let Some(session) = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut()) else {
            return;
        };
        session.hint_later(hint);
        self.tell_hints(cx, conn);
    }

    /// Tells what waits to be told, once the streams have begun and while the output has room.
    pub(super) fn tell_hints(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let choked = cx.unsent(conn) >= PUSH_OUTPUT_BYTES_MAX;
        let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
        let Some(session) = session.filter(|session| session.is_running() && !session.hints.is_empty())
        else {
            return;
        };
        if choked {
            return Self::look_again(cx, conn);
        }
        for Hint { conv, user, delivered, read } in std::mem::take(&mut session.hints) {
            if let Some(seq) = delivered {
                self.push(cx, conn, &Push::Delivered { conv, user, seq });
            }
            if let Some(seq) = read {
                self.push(cx, conn, &Push::Read { conv, user, seq });
            }
        }
    }

    pub(super) fn marks(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        conv: ConvId,
    ) {
        self.query(cx, conn, id, move |db, id| {
            let (found, spans) = visible(db, conv, user)?;
            let marks = match &found.pair {
                // A block hides the other's.
                Some(pair) if FriendDao::new(db).is_blocked(pair.lo, pair.hi)? => {
                    CursorDao::new(db).get(user, conv)?.into_iter().collect()
                }
                Some(_) => CursorDao::new(db).marks(conv)?,
                None => {
                    let members = GroupDao::new(db).get(conv)?.map_or(0, |group| group.members);
                    if !spans.last().is_some_and(store::Span::is_open) {
                        return Err(Refused::NOT_A_MEMBER);
                    }
                    if members > MARKS_MEMBERS_MAX as u64 {
                        return Err(Refused::new(
                            ErrorCode::Forbidden,
                            "marks are kept for groups of up to 100 members",
                        ));
                    }
                    CursorDao::new(db).group_marks(conv)?
                }
            };
            let marks = marks
                .into_iter()
                .map(|mark| Mark { user: mark.user, delivered: mark.delivered, read: mark.read })
                .collect();
            let mut line = Vec::new();
            write_ok_with(id, &Marks { marks }, &mut line);
            Ok(line)
        });
    }

    /// Tells the other nodes that a user is typing.
    pub(super) fn tell_typing(&self, conv: ConvId, user: UserId) {
        let (Some(cluster), Some(here)) = (&self.node.cluster, self.convs.get(&conv)) else { return };
        match here.who {
            Who::Pair { blocked: true, .. } => {}
            Who::Pair { members, .. } => cluster.tell_typing(conv, user, Some(members)),
            Who::Group(_) => cluster.tell_typing(conv, user, None),
        }
    }

    /// Shows the other members here that a user is typing.
    pub(super) fn push_typing(&mut self, cx: &mut Cx<'_>, conv: ConvId, user: UserId) {
        let Some(here) = self.convs.get(&conv) else { return };
        if !here.has(user) && !matches!(here.who, Who::Group(_))
            || matches!(here.who, Who::Pair { blocked: true, .. })
        {
            return;
        }
        let others: SmallVec<[UserId; 4]> =
            here.members().into_iter().filter(|member| *member != user).collect();
        for conn in self.sessions_of(&others) {
            let is_running = cx
                .conn(conn)
                .and_then(|client| client.session.as_deref())
                .is_some_and(|session| session.is_running());
            if is_running && cx.unsent(conn) < PUSH_OUTPUT_BYTES_MAX {
                self.push(cx, conn, &Push::Typing { conv, user });
            }
        }
    }
}
