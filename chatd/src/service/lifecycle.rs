//! The life of a connection: greeting, signs of life, bye, shutdown.

use std::borrow::Cow;
use std::time::Duration;

use reactor::{CloseReason, ConnId, TimerFired};
use schema::error::ByeCode;
use schema::limits::{HEARTBEAT, LINE_BYTES_MAX, PROTOCOL_VERSION, PUSH_WINDOW, TEXT_BYTES_MAX};
use schema::reply::Push;
use schema::{ConvId, SessionId, UserId};

use super::following::Who;
use super::{ChatService, Cx, now_ms};
use crate::session::{Client, PAUSE_DRAIN};

/// The timers of the service, by their token.
pub(super) const TICK_ALIVE: u64 = 1;
pub(super) const TICK_START: u64 = 2;
pub(super) const TICK_PUMP: u64 = 3;
pub(super) const TICK_ACKS: u64 = 4;
pub(super) const TICK_DOUBT: u64 = 5;
pub(super) const TICK_REREAD: u64 = 6;
pub(super) const TICK_GONE: u64 = 7;
pub(super) const TICK_GAP: u64 = 8;
pub(super) const TICK_COMPARE: u64 = 9;

/// How long after a failure the store is asked again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Clients come back spread over this time, so that they do not all come at once.
const RECONNECT_MS: std::ops::Range<u64> = 200..5_000;

impl ChatService {
    pub(super) fn greet(&mut self, cx: &mut Cx<'_>, conn: ConnId) -> Client {
        let node = std::sync::Arc::clone(&self.node);
        let hello = Push::Hello {
            version: PROTOCOL_VERSION,
            server: Cow::Borrowed(concat!("chatd/", env!("CARGO_PKG_VERSION"))),
            node: Cow::Borrowed(&node.name),
            heartbeat_secs: HEARTBEAT.as_secs(),
            max_line_bytes: LINE_BYTES_MAX,
            max_text_bytes: TEXT_BYTES_MAX,
            push_window: PUSH_WINDOW,
            time_ms: now_ms(),
        };
        self.push(cx, conn, &hello);
        let now = cx.now();
        let mut client = Client::new(now, now_ms(), now + node.login_timeout);
        let wait = client.next_check(node.idle_timeout).saturating_duration_since(now);
        client.timer = Some(cx.set_conn_timer(conn, wait, TICK_ALIVE));
        if self.draining {
            client.leaving = Some(ByeCode::Shutdown);
            self.say_bye(cx, conn, ByeCode::Shutdown);
        }
        client
    }

    pub(super) fn on_tick(&mut self, cx: &mut Cx<'_>, timer: TimerFired) {
        match (timer.token, timer.conn) {
            (TICK_ALIVE, Some(conn)) => self.check_alive(cx, conn),
            (TICK_START, Some(conn)) => self.start_streams(cx, conn),
            (TICK_PUMP, Some(conn)) => self.on_pump_timer(cx, conn),
            (TICK_REREAD, Some(conn)) => self.on_reread_timer(cx, conn),
            (TICK_ACKS, None) => self.write_acks(cx),
            (TICK_DOUBT, None) => self.ask_last_seqs(cx),
            (TICK_GONE, None) => self.tell_gone(cx),
            (TICK_GAP, None) => self.on_gap_timer(cx),
            (TICK_COMPARE, None) => self.compare_some(cx),
            _ => {}
        }
    }

    /// Looks whether a connection was silent for too long, or has not logged in. Set once per connection and again only when it fires: a line that arrives
    /// costs the timer nothing.
    fn check_alive(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let now = cx.now();
        let idle = self.node.idle_timeout;
        // Whose output is full is not read from, and is watched by the write-stall timer.
        let is_full = cx.is_above_high(conn);
        let Some(client) = cx.conn_mut(conn) else { return };
        client.timer = None;
        let waits_for_us = is_full || client.login_since.is_some() || client.unanswered > 0;
        if !waits_for_us && now >= client.heard + idle {
            return self.say_bye(cx, conn, ByeCode::Idle);
        }
        if !waits_for_us && client.session.is_none() && now >= client.login_due {
            return self.say_bye(cx, conn, ByeCode::LoginTimeout);
        }
        let wait = client.next_check(idle).saturating_duration_since(now).max(Duration::from_millis(10));
        self.watch(cx, conn, if waits_for_us { wait.max(RETRY) } else { wait });
    }

    /// Sets the connection's one timer anew.
    pub(super) fn watch(&mut self, cx: &mut Cx<'_>, conn: ConnId, wait: Duration) {
        if let Some(old) = cx.conn_mut(conn).and_then(|client| client.timer.take()) {
            cx.cancel_timer(old);
        }
        let timer = cx.set_conn_timer(conn, wait, TICK_ALIVE);
        if let Some(client) = cx.conn_mut(conn) {
            client.timer = Some(timer);
        }
    }

    /// Says why, and closes so that it arrives.
    pub(super) fn say_bye(&mut self, cx: &mut Cx<'_>, conn: ConnId, code: ByeCode) {
        let (message, comes_back) = match code {
            ByeCode::LoginTimeout => ("no login in time", false),
            ByeCode::Idle => ("no sign of life", false),
            ByeCode::TooLarge => ("the line is too long", false),
            ByeCode::TooManyErrors => ("too many bad lines in a row", false),
            ByeCode::Replaced => ("a newer session took this one's place", false),
            ByeCode::LoggedOut => ("this session's token was revoked", false),
            ByeCode::Shutdown => ("the server is being shut down", true),
            ByeCode::SlowConsumer => ("what was sent was not read", true),
            ByeCode::RateLimited => ("too many requests", true),
            _ => ("the server failed; please come back", true),
        };
        let reconnect_after_ms = comes_back.then(|| fastrand::u64(RECONNECT_MS));
        self.push(cx, conn, &Push::Bye { code, message: Cow::Borrowed(message), reconnect_after_ms });
        cx.close(conn, CloseReason::Local(code.as_str()));
    }

    /// Reads nothing more and closes as soon as what was accepted is answered.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, conn: ConnId, code: ByeCode) {
        cx.pause(conn, PAUSE_DRAIN);
        let Some(client) = cx.conn_mut(conn) else { return };
        if client.leaving.is_some() {
            return;
        }
        client.leaving = Some(code);
        if client.unanswered == 0 {
            self.say_bye(cx, conn, code);
        }
    }

    /// Another session, on any loop, made this one end.
    pub(super) fn on_end(&mut self, cx: &mut Cx<'_>, conn: ConnId, session: SessionId, code: ByeCode) {
        let Some(client) = cx.conn_mut(conn) else { return };
        if client.session_is(session).is_none() {
            return;
        }
        if let Some(session) = client.session.take() {
            self.end_session(cx, conn, *session);
        }
        self.leave(cx, conn, code);
    }

    pub(super) fn drain(&mut self, cx: &mut Cx<'_>) {
        self.draining = true;
        for conn in cx.open_conns() {
            self.leave(cx, conn, ByeCode::Shutdown);
        }
    }

    /// Commits have passed this loop by: whoever is logged in here comes back and resumes from the store.
    pub(super) fn on_lost(&mut self, cx: &mut Cx<'_>) {
        for conn in cx.open_conns() {
            if cx.conn(conn).is_some_and(|client| client.session.is_some() || client.unanswered > 0) {
                self.say_bye(cx, conn, ByeCode::Internal);
            }
        }
    }

    /// A user has no session here any more. Conversations with nobody left here are forgotten; the direct ones now rest on the other, streams begun or not.
    pub(super) fn forget(&mut self, user: UserId, convs: impl IntoIterator<Item = ConvId>) {
        for conv in convs {
            let Some(here) = self.convs.get_mut(&conv) else { continue };
            let mut wanted = false;
            match &mut here.who {
                Who::Pair { members, .. } => {
                    for member in members {
                        if let Some(local) = self.users.get_mut(member) {
                            local.convs.insert(conv);
                            wanted = true;
                        }
                    }
                }
                Who::Group(members) => {
                    members.remove(&user);
                    wanted = !members.is_empty();
                }
            }
            if !wanted {
                self.drop_conv(conv);
            }
        }
    }
}
