//! `register`, `login`, `sync`, `logout`, `password`, `find_user`: who a connection is.

use std::borrow::Cow;

use reactor::ConnId;
use schema::error::{ByeCode, ErrorCode};
use schema::limits::{LINE_BYTES_MAX, LINE_BYTES_MAX_STRANGER, PROTOCOL_VERSION, SYNC_CURSORS_MAX};
use schema::login::{
    LoggedIn, LoginBy, LoginCall, LoginError, LoginReply, LoginReplyOk, LoginRequest, Origin, TokenId,
};
use schema::reply::{Found, Registered, write_ok_with};
use schema::request::{Proof, RequestId};
use schema::text::Name;
use schema::{ConvId, Seq, SessionId, UserId};
use store::dao::{FriendDao, UserDao};

use super::{ChatService, Cx};
use crate::config::Registration;
use crate::directory::{Entered, Live};
use crate::post::{Post, Purpose, Refused};
use crate::session::{PAUSE_LOGIN, Session, Stage};
use crate::sink::millis;

impl ChatService {
    /// Asks the login service. What the client sends behind it waits, since it depends on the answer.
    fn ask_login(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        purpose: Purpose,
        call: LoginCall,
    ) {
        let failed = Post::Login { conn, id, purpose, reply: Err(LoginError::Internal) };
        let Some(slot) = self.slot(failed) else {
            return self.refuse(cx, conn, id, Refused::OVERLOADED);
        };
        Self::begin(cx, conn);
        cx.pause(conn, PAUSE_LOGIN);
        let now = cx.now();
        if let Some(client) = cx.conn_mut(conn) {
            client.login_since = Some(now);
        }
        let reply = Box::new(move |reply| slot.fill(Post::Login { conn, id, purpose, reply }));
        let address = cx.peer(conn).and_then(reactor::Address::ip);
        let origin = Origin { address, node: std::sync::Arc::clone(&self.node.name) };
        self.node.login.submit(call, origin, reply);
    }

    pub(super) fn on_login_reply(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        purpose: Purpose,
        reply: LoginReply,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        let now = cx.now();
        match cx.conn_mut(conn) {
            Some(client) => {
                client.login_answered(now);
                self.serve_login_reply(cx, conn, id, purpose, reply);
            }
            // Whoever left before the answer has no session here to end, but what was revoked is revoked.
            None => match (purpose, reply) {
                (
                    Purpose::Logout { user } | Purpose::Password { user },
                    Ok(LoginReplyOk::Revoked { tokens }),
                ) => self.revoke(user, &tokens, None),
                (_, Ok(LoginReplyOk::LoggedIn(gone))) => self.revoke(gone.user, &gone.evicted, None),
                _ => {}
            },
        }
        cx.resume(conn, PAUSE_LOGIN);
        self.finish(cx, conn);
    }

    fn serve_login_reply(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        purpose: Purpose,
        reply: LoginReply,
    ) {
        match (purpose, reply) {
            (Purpose::Login { hold }, Ok(LoginReplyOk::LoggedIn(logged_in))) => {
                self.begin_session(cx, conn, id, logged_in, hold);
            }
            (_, Ok(LoginReplyOk::Registered { user })) => {
                self.ok_with(cx, conn, id, &Registered { user });
            }
            (Purpose::Logout { user }, Ok(LoginReplyOk::Revoked { tokens })) => {
                let session = cx.conn_mut(conn).and_then(|client| client.session.take());
                if let Some(session) = session {
                    self.end_session(cx, conn, *session);
                }
                self.revoke(user, &tokens, None);
                self.become_stranger(cx, conn);
                self.ok(cx, conn, id);
            }
            (Purpose::Password { user }, Ok(LoginReplyOk::Revoked { tokens })) => {
                let session = cx.conn(conn).and_then(|client| client.session.as_deref());
                let own = session.map(|session| session.id);
                self.revoke(user, &tokens, own);
                // One that rests on the very token that was kept is another session all the same.
                for live in self.node.directory.others(user, own) {
                    self.node.end(live, ByeCode::LoggedOut);
                }
                if let Some(cluster) = &self.node.cluster {
                    cluster.tell_end_all(user, own);
                }
                self.ok(cx, conn, id);
            }
            (_, Ok(other)) => {
                log::error!("the login service answered {other:?}, which is a defect");
                self.refuse(cx, conn, id, refusal(LoginError::Internal));
            }
            (_, Err(LoginError::RateLimited { retry_after_ms })) => {
                self.too_often(cx, conn, id, std::time::Duration::from_millis(retry_after_ms));
            }
            (_, Err(error)) => self.refuse(cx, conn, id, refusal(error)),
        }
    }

    /// Ends the sessions that rest on revoked tokens, wherever they are.
    fn revoke(&self, user: UserId, tokens: &[TokenId], but: Option<SessionId>) {
        if let Some(cluster) = &self.node.cluster {
            cluster.tell_revoked(user, tokens);
        }
        for live in self.node.directory.revoke(user, tokens, std::time::Instant::now()) {
            if Some(live.session) != but {
                self.node.end(live, ByeCode::LoggedOut);
            }
        }
    }

    pub(super) fn register(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        name: &Name<'_>,
        password: &str,
    ) {
        if self.node.registration == Registration::Closed {
            let refused = Refused::new(ErrorCode::Forbidden, "registration is closed");
            return self.refuse(cx, conn, id, refused);
        }
        let call = LoginCall::Register { name: name.shown().to_owned(), password: password.to_owned() };
        self.ask_login(cx, conn, id, Purpose::Register, call);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(super) fn login(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        proof: Proof<'_>,
        device: Option<Cow<'_, str>>,
        version: Option<u64>,
        hold: bool,
    ) {
        if cx.conn(conn).is_some_and(|client| client.session.is_some()) {
            let refused = Refused::new(ErrorCode::Conflict, "this connection is logged in already");
            return self.refuse(cx, conn, id, refused);
        }
        if version.is_some_and(|version| version != u64::from(PROTOCOL_VERSION)) {
            let refused = Refused::new(ErrorCode::UnsupportedVersion, "this server speaks version 1");
            return self.refuse(cx, conn, id, refused);
        }
        let by = match proof {
            Proof::Password(name, password) => {
                LoginBy::Password { name: name.shown().to_owned(), password: password.into_owned() }
            }
            Proof::Token(token) => LoginBy::Token(token.into_owned()),
        };
        let call = LoginCall::Login(LoginRequest { by, device: device.map(Cow::into_owned) });
        self.ask_login(cx, conn, id, Purpose::Login { hold }, call);
    }

    fn begin_session(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        logged_in: LoggedIn,
        hold: bool,
    ) {
        let LoggedIn { user, name, token, expires_ms, session, token_id, evicted } = logged_in;
        let Some(client) = cx.conn_mut(conn) else { return };
        client.session = Some(Box::new(Session::new(session, user, token_id, hold)));
        if let Some(codec) = cx.codec_mut(conn) {
            codec.set_max(LINE_BYTES_MAX);
        }
        self.users.entry(user).or_default().conns.push(conn);
        if let Some(cluster) = &self.node.cluster {
            cluster.enter(user, session);
        }
        log::info!("session {session} of user {user} began");
        let body = schema::reply::LoggedIn {
            user,
            name: Cow::Borrowed(&name),
            token: Cow::Borrowed(&token),
            expires_ms: millis(expires_ms),
            session,
        };
        self.ok_with(cx, conn, id, &body);
        let live = Live { session, token: token_id, conn };
        match self.node.directory.enter(user, live) {
            Entered::Fine => {}
            Entered::Replaced(oldest) => self.node.end(oldest, ByeCode::Replaced),
            Entered::Revoked => self.node.end(live, ByeCode::LoggedOut),
        }
        self.revoke(user, &evicted, Some(session));
        if !hold {
            self.start_streams(cx, conn);
        }
    }

    /// The session's end on this loop: no push reaches it from here on, and its acks are written.
    pub(super) fn end_session(&mut self, cx: &mut Cx<'_>, conn: ConnId, mut session: Session) {
        self.write_session_acks(&mut session, None);
        if session.is_starting {
            self.started();
        }
        let user = session.user;
        // Of a node that drains the others hear once, that it ends: until then its users may come back elsewhere.
        if let Some(cluster) = self.node.cluster.as_ref().filter(|_| !self.draining) {
            cluster.leave(user, session.id);
        }
        if self.node.directory.leave(user, session.id, cx.now()) && !self.draining {
            self.announce_later(cx, user);
        }
        let Some(local) = self.users.get_mut(&user) else { return };
        local.conns.retain(|other| *other != conn);
        if local.conns.is_empty() {
            if let Some(gone) = self.users.remove(&user) {
                self.forget(user, gone.convs);
            }
            return;
        }
        // What this session alone had still to get of groups that the user has left.
        let lags: Vec<_> = session.lags.iter().map(|lag| lag.conv).collect();
        for conv in lags {
            self.let_go(cx, conv, user);
        }
    }

    fn become_stranger(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(codec) = cx.codec_mut(conn) {
            codec.set_max(LINE_BYTES_MAX_STRANGER);
        }
        let now = cx.now();
        let timeout = self.node.login_timeout;
        if let Some(client) = cx.conn_mut(conn) {
            client.login_due = now + timeout;
        }
        self.watch(cx, conn, timeout);
    }

    pub(super) fn sync(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        cursors: &[(ConvId, Seq)],
        more: bool,
    ) {
        let session = cx.conn_mut(conn).and_then(|client| client.session.as_deref_mut());
        let Some(Session { stage: stage @ Stage::Held(_), .. }) = session else {
            let refused = Refused::new(ErrorCode::BadRequest, "`sync` comes once, after a login with `hold`");
            return self.refuse(cx, conn, id, refused);
        };
        if let Stage::Held(held) = stage {
            if held.len() + cursors.len() > SYNC_CURSORS_MAX {
                let refused = Refused::new(ErrorCode::TooLarge, "too many cursors");
                return self.refuse(cx, conn, id, refused);
            }
            held.extend(cursors.iter().copied());
            if !more {
                *stage = Stage::Starting(std::mem::take(held));
            }
        }
        self.ok(cx, conn, id);
        if !more {
            self.start_streams(cx, conn);
        }
    }

    pub(super) fn logout(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        all: bool,
    ) {
        let Some(token) = self.token(cx, conn) else { return };
        self.ask_login(cx, conn, id, Purpose::Logout { user }, LoginCall::Logout { token, user, all });
    }

    pub(super) fn change_password(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        old: &str,
        new: &str,
    ) {
        let Some(keep) = self.token(cx, conn) else { return };
        let call = LoginCall::ChangePassword { user, keep, old: old.to_owned(), new: new.to_owned() };
        self.ask_login(cx, conn, id, Purpose::Password { user }, call);
    }

    fn token(&self, cx: &Cx<'_>, conn: ConnId) -> Option<TokenId> {
        cx.conn(conn)?.session.as_ref().map(|session| session.token)
    }

    pub(super) fn find_user(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, key: &str) {
        let key = key.to_owned();
        let node = std::sync::Arc::clone(&self.node);
        let Some(asks) =
            cx.conn(conn).and_then(|client| client.session.as_deref()).map(|session| session.user)
        else {
            return;
        };
        self.query(cx, conn, id, move |db, id| {
            let user = UserDao::new(db).by_name_key(&key)?.ok_or(Refused::NO_USER)?;
            // A block hides presence.
            let online = node.is_online(user.id) && !FriendDao::new(db).is_blocked(asks, user.id)?;
            let mut line = Vec::new();
            write_ok_with(id, &Found { user: user.id, name: Cow::Borrowed(&user.name), online }, &mut line);
            Ok(line)
        });
    }
}

fn refusal(error: LoginError) -> Refused {
    match error {
        LoginError::Unauthorized => Refused::new(ErrorCode::Unauthorized, "wrong name, password or token"),
        LoginError::Conflict => Refused::new(ErrorCode::Conflict, "this name is taken"),
        LoginError::BadRequest(message) => Refused::new(ErrorCode::BadRequest, message),
        LoginError::Forbidden => Refused::new(ErrorCode::Forbidden, "this is not allowed"),
        LoginError::Unavailable => {
            Refused::new(ErrorCode::Unavailable, "the login service is unavailable; try again later")
        }
        LoginError::Overloaded => Refused { retry_after_ms: Some(1_000), ..Refused::OVERLOADED },
        _ => Refused::new(ErrorCode::Internal, "the login service failed; this is a defect"),
    }
}
