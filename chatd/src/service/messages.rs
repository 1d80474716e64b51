//! `send`: from a checked request to the commit pipeline, and from the commit back to an `ok`.

use std::sync::Arc;

use reactor::ConnId;
use schema::error::ErrorCode;
use schema::reply::Sent as SentBody;
use schema::request::{RequestId, Target, UserRef};
use schema::{ConvId, SessionId, UserId};
use store::dao::{ConversationDao, FriendDao, UserDao};
use store::{SendError, SendOutcome, SendRequest, Sent, StoreError, Ticket};

use super::{ChatService, Cx, OTHER_POSTS_MAX, now_ms};
use crate::passing::Passing;
use crate::post::{Committed, LastSeq, PeerKey, Post, Refused, Resolved};
use crate::session::PAUSE_RESOLVE;
use crate::sink::millis;

/// Direct conversations that a loop remembers by the peer's name or id. Past it the memory starts anew; a look-up costs one row.
const DIRECTS_MAX: usize = 65_536;

/// A `send` on its way.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) conn: ConnId,
    pub(super) session: SessionId,
    pub(super) user: UserId,
    pub(super) id: Option<RequestId>,
    pub(super) client_id: Option<Box<str>>,
    pub(super) text: String,
}

impl ChatService {
    pub(super) fn send(&mut self, cx: &mut Cx<'_>, draft: Draft, target: Target<'_>) {
        let peer = match target {
            Target::Conv(conv) => {
                Self::begin(cx, draft.conn);
                return self.submit(cx, draft, conv);
            }
            Target::User(UserRef::Id(user)) => PeerKey::Id(user),
            Target::User(UserRef::Name(name)) => PeerKey::Name(name.key().into()),
        };
        if peer == PeerKey::Id(draft.user) {
            return self.refuse(cx, draft.conn, draft.id, Refused::TO_ONESELF);
        }
        let known = (draft.user, peer);
        if let Some(conv) = self.directs.get(&known) {
            let conv = *conv;
            Self::begin(cx, draft.conn);
            return self.submit(cx, draft, conv);
        }
        self.resolve(cx, draft, known.1);
    }

    /// Looks the direct conversation up, or begins it. The connection's further requests wait, so that its writes take effect in their order.
    fn resolve(&mut self, cx: &mut Cx<'_>, draft: Draft, peer: PeerKey) {
        let Draft { conn, session, user, id, client_id, text } = draft;
        let resolved = move |client_id, text, peer, result| {
            Post::Resolved(Box::new(Resolved { conn, session, id, client_id, text, peer, result }))
        };
        let not_taken = Err(Refused::OVERLOADED);
        let Some(slot) = self.slot(resolved(None, String::new(), peer.clone(), not_taken)) else {
            return self.refuse(cx, conn, id, Refused::OVERLOADED);
        };
        Self::begin(cx, conn);
        cx.pause(conn, PAUSE_RESOLVE);
        let wanted = peer.clone();
        let look_up = move |db: &mut store::Connection| find_or_begin(db, user, &wanted);
        let queued = self.node.store.write(look_up, move |found| {
            let result = found.unwrap_or_else(|error| Err(Refused::from(error)));
            slot.fill(resolved(client_id, text, peer, result));
        });
        if let Err(error) = queued {
            log::debug!("a look-up was not taken: {error}");
        }
    }

    pub(super) fn on_resolved(&mut self, cx: &mut Cx<'_>, resolved: Resolved) {
        self.jobs = self.jobs.saturating_sub(1);
        let Resolved { conn, session, id, client_id, text, peer, result } = resolved;
        let user =
            cx.conn_mut(conn).and_then(|client| client.session_is(session).map(|session| session.user));
        match (result, user) {
            (Ok(conv), Some(user)) => {
                if self.directs.len() >= DIRECTS_MAX {
                    self.directs.clear();
                }
                self.directs.insert((user, peer), conv);
                self.submit(cx, Draft { conn, session, user, id, client_id, text }, conv);
            }
            (Err(refused), _) => {
                self.refuse(cx, conn, id, refused);
                self.finish(cx, conn);
            }
            // The session ended while we looked; nothing was sent.
            (Ok(_), None) => {
                self.refuse(cx, conn, id, Refused::LOGIN_FIRST);
                self.finish(cx, conn);
            }
        }
        cx.resume(conn, PAUSE_RESOLVE);
    }

    /// Hands a begun request to the pipeline. Its answer comes with the commit.
    fn submit(&mut self, cx: &mut Cx<'_>, draft: Draft, conv: ConvId) {
        let Draft { conn, session, user, id, client_id, text } = draft;
        let ticket = ticket(conn, id);
        let request = SendRequest { ticket, conv, sender: user, session, client_id, text };
        if let Err(error) = self.node.store.send(request) {
            self.refuse(cx, conn, id, error.into());
            self.finish(cx, conn);
        }
    }

    pub(super) fn on_committed(&mut self, cx: &mut Cx<'_>, committed: &Arc<Committed>) {
        for (outcome, line) in &committed.sends {
            if outcome.result == Err(SendError::Unavailable) {
                self.doubt(cx, outcome.conv);
            }
            self.answer_send(cx, outcome);
            if let Ok(Sent::New(entry)) = &outcome.result {
                self.deliver(cx, &Passing::from(entry), line);
            }
        }
        for outcome in &committed.cursors {
            self.on_cursor(cx, outcome);
        }
    }

    fn answer_send(&mut self, cx: &mut Cx<'_>, outcome: &SendOutcome) {
        let Some(ticket) = outcome.ticket else { return };
        let conn = ConnId::from_parts(ticket.owner, ticket.token);
        if !cx.is_open(conn) {
            return;
        }
        let id = ticket.call;
        match &outcome.result {
            Ok(Sent::New(entry)) => {
                let session = entry.session;
                let session = session
                    .and_then(|session| cx.conn_mut(conn).and_then(|client| client.session_is(session)));
                if let Some(session) = session {
                    session.answered(entry.conv, entry.seq);
                }
                let time_ms = millis(entry.time_ms);
                let body = SentBody { conv: entry.conv, seq: entry.seq, time_ms, duplicate: false };
                self.ok_with(cx, conn, id, &body);
            }
            Ok(Sent::Duplicate { conv, seq, time_ms }) => {
                let body = SentBody { conv: *conv, seq: *seq, time_ms: millis(*time_ms), duplicate: true };
                self.ok_with(cx, conn, id, &body);
            }
            Err(error) => self.refuse(cx, conn, id, send_refusal(*error)),
        }
        self.finish(cx, conn);
    }

    /// A send failed in a way that leaves open whether it was committed: the conversation is compared with the store until it is known. Whether this loop has
    /// met it does not matter, for the lost entry may be its first.
    pub(super) fn doubt(&mut self, cx: &mut Cx<'_>, conv: ConvId) {
        if self.is_to_find_out() && self.doubtful.insert(conv) && !self.doubt_timer {
            self.doubt_timer = true;
            cx.set_timer(super::lifecycle::RETRY, super::lifecycle::TICK_DOUBT);
        }
    }

    /// Asks the writer, behind all that it has committed so far, for the last entries of the doubtful conversations.
    pub(super) fn ask_last_seqs(&mut self, cx: &mut Cx<'_>) {
        self.doubt_timer = false;
        for conv in std::mem::take(&mut self.doubtful) {
            self.ask_last_seq(cx, conv, true);
        }
    }

    /// Asks for one conversation's last entry. With `tell` the other nodes are told of it too.
    pub(super) fn ask_last_seq(&mut self, cx: &mut Cx<'_>, conv: ConvId, tell: bool) {
        let Some(slot) = self.slot(Post::LastSeq { conv, answer: LastSeq::Unknown, tell }) else {
            return self.doubt(cx, conv);
        };
        let queued = self.node.store.write_in(
            conv,
            move |db| ConversationDao::new(db).get(conv),
            move |found| {
                let answer = match found {
                    Ok(Some(found)) => LastSeq::At(found.pair.map(|pair| pair.ids()), found.last_seq),
                    Ok(None) => LastSeq::Nowhere,
                    Err(_) => LastSeq::Unknown,
                };
                slot.fill(Post::LastSeq { conv, answer, tell });
            },
        );
        if let Err(error) = queued {
            log::debug!("a comparison was not taken: {error}");
        }
    }

    /// Whether this loop finds out what became of a conversation's sends: one with users, and in a cluster the first for the other nodes' sake.
    fn is_to_find_out(&self) -> bool {
        let first = self.node.loops.first().is_some_and(|first| first.loop_index() == self.me.loop_index());
        !self.users.is_empty() || (first && self.node.cluster.is_some())
    }

    pub(super) fn typing(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        conv: ConvId,
    ) {
        match self.convs.get(&conv).map(|here| here.has(user)) {
            Some(true) => {
                self.ok(cx, conn, id);
                self.push_typing(cx, conv, user);
                self.tell_typing(conv, user);
                for handle in self.other_loops() {
                    // It may be dropped, says the protocol: a loop that is behind has better things to do.
                    if handle.backlog() < OTHER_POSTS_MAX / 2 {
                        let _ = handle.post(Post::Typing { conv, user });
                    }
                }
            }
            Some(false) => self.refuse(cx, conn, id, Refused::NOT_A_MEMBER),
            // Not met on this loop yet: the store knows whether it exists.
            None => self.query(cx, conn, id, move |db, id| {
                let (_, spans) = super::history::visible(db, conv, user)?;
                if !spans.last().is_some_and(store::Span::is_open) {
                    return Err(Refused::NOT_A_MEMBER);
                }
                let mut line = Vec::new();
                schema::reply::write_ok(id, &mut line);
                Ok(line)
            }),
        }
    }
}

/// The name under which a request's outcome comes back.
pub(super) const fn ticket(conn: ConnId, call: Option<RequestId>) -> Ticket {
    let (owner, token) = conn.to_parts();
    Ticket { owner, token, call }
}

fn find_or_begin(
    db: &mut store::Connection,
    user: UserId,
    peer: &PeerKey,
) -> Result<Result<ConvId, Refused>, StoreError> {
    let found = match peer {
        PeerKey::Id(id) => UserDao::new(db).by_id(*id)?,
        PeerKey::Name(key) => UserDao::new(db).by_name_key(key)?,
    };
    let Some(found) = found else { return Ok(Err(Refused::NO_USER)) };
    if found.id == user {
        return Ok(Err(Refused::TO_ONESELF));
    }
    let now = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    if ConversationDao::new(db).find_direct(user, found.id)?.is_none()
        && FriendDao::new(db).is_blocked(user, found.id)?
    {
        return Ok(Err(Refused::BLOCKED));
    }
    match ConversationDao::new(db).direct(user, found.id, now)? {
        Some(conversation) => Ok(Ok(conversation.id)),
        None => Ok(Err(Refused::NO_USER)),
    }
}

fn send_refusal(error: SendError) -> Refused {
    match error {
        SendError::NotFound => Refused::NO_CONVERSATION,
        SendError::Forbidden => Refused::NOT_A_MEMBER,
        SendError::Blocked => Refused::BLOCKED,
        SendError::Conflict => {
            Refused::new(ErrorCode::Conflict, "this client_id stands for another text in this conversation")
        }
        _ => Refused::UNAVAILABLE,
    }
}
