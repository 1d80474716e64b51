//! What a loop keeps of a connection and of the session on it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use reactor::{PauseReason, TimerKey};
use rustc_hash::FxHashMap;
use schema::error::ByeCode;
use schema::limits::{PUSH_WINDOW, REQUESTS_UNANSWERED_MAX};
use schema::login::TokenId;
use schema::{ConvId, Seq, SessionId, UserId};

use crate::rates::Bucket;

/// Too many requests without their reply.
pub(crate) const PAUSE_REQUESTS: PauseReason = PauseReason::user(0);
/// The login service is deciding: what comes behind depends on it.
pub(crate) const PAUSE_LOGIN: PauseReason = PauseReason::user(1);
/// A conversation is being looked up: the writes behind it wait in order.
pub(crate) const PAUSE_RESOLVE: PauseReason = PauseReason::user(2);
/// The server is shutting down.
pub(crate) const PAUSE_DRAIN: PauseReason = PauseReason::user(3);

/// Queries of one connection under way. Their replies can be long, and what a client does not read must stay small.
pub(crate) const QUERIES_MAX: usize = 16;

/// Acks that are kept while the streams start; further ones without an `id` are let go, and what they covered is pushed again at the next login.
pub(crate) const EARLY_ACKS_MAX: usize = 1_024;

/// What few connections need: an idle one is to cost little.
#[derive(Debug, Default)]
pub(crate) struct RareOfClient {
    /// Requests refused in a row for coming too often, and when the last one was.
    pub(crate) refused: u32,
    pub(crate) refused_at: Option<Instant>,
}

/// What few sessions need.
#[derive(Debug, Default)]
pub(crate) struct RareOfSession {
    /// Acks that came while the streams were starting, with their requests' ids.
    pub(crate) early_acks: Vec<(Option<u64>, ConvId, Seq)>,
    /// How often it has tried passwords.
    pub(crate) passwords: Bucket,
    /// Streams that have ended: the last places of groups that the user has left.
    ended: Vec<(ConvId, Seq)>,
}

/// A connection, from `on_open` to `on_close`.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) session: Option<Box<Session>>,
    /// Requests whose reply is still to come.
    pub(crate) unanswered: usize,
    /// Those of them whose reply may be a whole line of [`schema::limits::LINE_BYTES_MAX`].
    pub(crate) queries: usize,
    /// Bad lines since the last good one.
    pub(crate) bad_lines: u32,
    /// When the client last gave a sign of life.
    pub(crate) heard: Instant,
    /// When it connected, in milliseconds since 1970.
    pub(crate) opened_ms: u64,
    /// What few connections need.
    rare: Option<Box<RareOfClient>>,
    /// When the login must have come; pushed back by the time that logins wait in our own queue.
    pub(crate) login_due: Instant,
    /// Since when a login is in our own queue.
    pub(crate) login_since: Option<Instant>,
    pub(crate) timer: Option<TimerKey>,
    /// The client shut down its writing side: it gets its replies, then the close.
    pub(crate) half_closed: bool,
    /// The close that comes as soon as every accepted request is answered.
    pub(crate) leaving: Option<ByeCode>,
}

impl Client {
    pub(crate) const fn new(now: Instant, now_ms: u64, login_due: Instant) -> Self {
        Self {
            session: None,
            unanswered: 0,
            queries: 0,
            bad_lines: 0,
            heard: now,
            opened_ms: now_ms,
            rare: None,
            login_due,
            login_since: None,
            timer: None,
            half_closed: false,
            leaving: None,
        }
    }

    /// What few connections need.
    pub(crate) fn rare(&mut self) -> &mut RareOfClient {
        self.rare.get_or_insert_default()
    }

    /// Whether nothing more is read until something was answered.
    pub(crate) const fn is_busy(&self) -> bool {
        self.unanswered >= REQUESTS_UNANSWERED_MAX || self.queries >= QUERIES_MAX
    }

    /// The session, if it is still this one.
    pub(crate) fn session_is(&mut self, session: SessionId) -> Option<&mut Session> {
        self.session.as_deref_mut().filter(|found| found.id == session)
    }

    /// The login came back from our queue: the time it waited does not count against the client.
    pub(crate) fn login_answered(&mut self, now: Instant) {
        if let Some(since) = self.login_since.take() {
            self.login_due += now.saturating_duration_since(since);
        }
    }

    /// When the connection's timer must look again, and what for.
    pub(crate) fn next_check(&self, idle: Duration) -> Instant {
        let idle_at = self.heard + idle;
        if self.session.is_some() { idle_at } else { idle_at.min(self.login_due) }
    }
}

/// Where a session's streams are in their life.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Logged in with `hold`: gathering the device's own cursors.
    Held(FxHashMap<ConvId, Seq>),
    /// Reading from the store where the streams start.
    Starting(FxHashMap<ConvId, Seq>),
    /// Pushing.
    Running,
}

/// A conversation in which a session is behind the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) conv: ConvId,
    /// Everything up to here was pushed, or was the session's own and answered.
    pub(crate) pos: Seq,
    /// At this place the conversation counts as synced: its last entry at login.
    pub(crate) until: Option<Seq>,
}

/// A cursor that a session is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) conv: ConvId,
    pub(crate) user: UserId,
    pub(crate) delivered: Option<Seq>,
    pub(crate) read: Option<Seq>,
}

/// A logged-in connection.
///
/// In each conversation it is either *live*, that is exactly as far as the loop's `contiguous`, and then nothing is kept of it; or it *lags*, and has
/// an entry.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    pub(crate) token: TokenId,
    pub(crate) stage: Stage,
    /// The reading of where its streams start is under way.
    pub(crate) is_starting: bool,
    /// How often it has sent, and looked things up.
    pub(crate) sends: Bucket,
    pub(crate) lookups: Bucket,
    /// What few sessions need.
    rare: Option<Box<RareOfSession>>,
    /// The lagging conversations; the first is the next to be read.
    pub(crate) lags: VecDeque<Lag>,
    /// The conversation that is being read, if any.
    pub(crate) reading: Option<ConvId>,
    /// Conversations not yet synced, while `synced` has not been said.
    pub(crate) unsynced: Option<usize>,
    /// `message` pushes that are not acked, at most [`PUSH_WINDOW`].
    unacked: VecDeque<(ConvId, Seq)>,
    /// For conversations that are not live: the last run of places that came to this connection as the `ok` of its own sends.
    own_runs: Vec<(ConvId, Seq, Seq)>,
    /// Cursors of others that could not be told while the output was full: the latest of each.
    pub(crate) hints: Vec<Hint>,
    /// A timer is set to pump again.
    pub(crate) looks_again: bool,
    /// Acks that are to be written.
    pub(crate) acks: Vec<(ConvId, Seq)>,
}

impl Session {
    pub(crate) fn new(id: SessionId, user: UserId, token: TokenId, hold: bool) -> Self {
        let stage =
            if hold { Stage::Held(FxHashMap::default()) } else { Stage::Starting(FxHashMap::default()) };
        Self {
            id,
            user,
            token,
            stage,
            is_starting: false,
            sends: Bucket::default(),
            lookups: Bucket::default(),
            rare: None,
            lags: VecDeque::new(),
            reading: None,
            unsynced: None,
            unacked: VecDeque::new(),
            own_runs: Vec::new(),
            hints: Vec::new(),
            looks_again: false,
            acks: Vec::new(),
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    pub(crate) fn lag(&self, conv: ConvId) -> Option<&Lag> {
        self.lags.iter().find(|lag| lag.conv == conv)
    }

    pub(crate) fn lag_mut(&mut self, conv: ConvId) -> Option<&mut Lag> {
        self.lags.iter_mut().find(|lag| lag.conv == conv)
    }

    /// What few sessions need.
    pub(crate) fn rare(&mut self) -> &mut RareOfSession {
        self.rare.get_or_insert_default()
    }

    /// The acks that came while the streams were starting.
    pub(crate) fn take_early_acks(&mut self) -> Vec<(Option<u64>, ConvId, Seq)> {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.early_acks)).unwrap_or_default()
    }

    /// The stream of a conversation has ended here.
    pub(crate) fn ended(&mut self, conv: ConvId, until: Seq) {
        let ended = &mut self.rare().ended;
        match ended.iter_mut().find(|(ended, _)| *ended == conv) {
            Some((_, seq)) => *seq = until.max(*seq),
            None => ended.push((conv, until)),
        }
    }

    /// Up to where this connection's stream of a conversation that it follows no longer is complete.
    pub(crate) fn complete_apart(&self, conv: ConvId) -> Seq {
        let all = self.rare.as_ref().map(|rare| rare.ended.as_slice()).unwrap_or_default();
        let ended = all.iter().find(|(ended, _)| *ended == conv).map_or(Seq::ZERO, |(_, seq)| *seq);
        self.lag(conv).map_or(ended, |lag| lag.pos)
    }

    /// Everything up to here was pushed that may be: what lies between is not the user's to see.
    pub(crate) fn pass(&mut self, conv: ConvId, upto: Seq) {
        if let Some(lag) = self.lag_mut(conv) {
            lag.pos = lag.pos.max(upto);
            self.settle(conv);
        }
    }

    /// `message` pushes that are not acked.
    pub(crate) fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// How many more `message` pushes the window allows.
    pub(crate) fn room(&self) -> usize {
        PUSH_WINDOW.saturating_sub(self.unacked.len())
    }

    /// An entry of this connection's own was answered with its place. Where the session is live nothing has to be kept of it.
    pub(crate) fn answered(&mut self, conv: ConvId, seq: Seq) {
        if self.is_running() && self.lag(conv).is_none() {
            return;
        }
        match self.own_runs.iter_mut().find(|(run, ..)| *run == conv) {
            Some((_, _, to)) if to.next() == seq => *to = seq,
            Some(run) => *run = (conv, seq, seq),
            None => self.own_runs.push((conv, seq, seq)),
        }
    }

    /// Moves lagging conversations over entries that came as `ok`s: of these nothing is left to be read.
    pub(crate) fn skip_own(&mut self) {
        for (conv, from, to) in std::mem::take(&mut self.own_runs) {
            let Some(lag) = self.lags.iter_mut().find(|lag| lag.conv == conv) else { continue };
            if from <= lag.pos.next() && lag.pos < to {
                lag.pos = to;
                self.settle(conv);
            } else if lag.pos < from {
                self.own_runs.push((conv, from, to));
            }
        }
    }

    /// Counts a conversation as synced once its place at login is reached.
    pub(crate) fn settle(&mut self, conv: ConvId) {
        let Some(lag) = self.lag_mut(conv) else { return };
        if lag.until.is_some_and(|until| until <= lag.pos) {
            lag.until = None;
            self.unsynced = self.unsynced.map(|count| count.saturating_sub(1));
        }
    }

    /// Notes a cursor to be told later; the latest of each is enough.
    pub(crate) fn hint_later(&mut self, hint: Hint) {
        match self.hints.iter_mut().find(|old| (old.conv, old.user) == (hint.conv, hint.user)) {
            Some(old) => {
                old.delivered = old.delivered.max(hint.delivered);
                old.read = old.read.max(hint.read);
            }
            None => self.hints.push(hint),
        }
    }

    pub(crate) fn pushed(&mut self, conv: ConvId, seq: Seq) {
        self.unacked.push_back((conv, seq));
    }

    /// Takes the pushes that an ack covers out of the window and notes the ack for writing.
    pub(crate) fn acked(&mut self, conv: ConvId, upto: Seq) {
        self.unacked.retain(|(pushed, seq)| *pushed != conv || *seq > upto);
        // An idle session keeps nothing of a busy hour.
        if self.unacked.is_empty() && self.unacked.capacity() > 32 {
            self.unacked = VecDeque::new();
        }
        if upto == Seq::ZERO {
            return;
        }
        match self.acks.iter_mut().find(|(acked, _)| *acked == conv) {
            Some((_, seq)) => *seq = upto.max(*seq),
            None => self.acks.push((conv, upto)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(SessionId::new(1).unwrap(), UserId::new(1).unwrap(), TokenId([0; 32]), false)
    }

    fn conv(number: u64) -> ConvId {
        ConvId::new(number).unwrap()
    }

    fn seq(number: u64) -> Seq {
        Seq::new(number).unwrap()
    }

    #[test]
    fn an_ack_opens_the_window_for_its_conversation_only() {
        let mut session = session();
        for number in 1..=3 {
            session.pushed(conv(1), seq(number));
            session.pushed(conv(2), seq(number));
        }
        assert_eq!(session.room(), PUSH_WINDOW - 6);
        session.acked(conv(1), seq(2));
        assert_eq!(session.room(), PUSH_WINDOW - 4);
        session.acked(conv(2), seq(9));
        assert_eq!(session.room(), PUSH_WINDOW - 1);
    }

    #[test]
    fn acks_wait_as_one_per_conversation_and_never_go_back() {
        let mut session = session();
        session.acked(conv(1), seq(5));
        session.acked(conv(1), seq(3));
        session.acked(conv(2), seq(1));
        session.acked(conv(3), Seq::ZERO);
        assert_eq!(session.acks, [(conv(1), seq(5)), (conv(2), seq(1))]);
    }

    #[test]
    fn waiting_in_our_own_queue_does_not_count_against_a_login() {
        let start = Instant::now();
        let mut client = Client::new(start, 0, start + Duration::from_secs(60));
        client.login_since = Some(start + Duration::from_secs(50));
        client.login_answered(start + Duration::from_secs(70));
        assert_eq!(client.login_due, start + Duration::from_secs(80));
    }
}
