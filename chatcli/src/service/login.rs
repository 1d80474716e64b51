//! The way to the streams: connected, greeted, logged in, listed, doubtful sends settled, synced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schema::reply::{Conversations, Kind, LoggedIn};
use schema::text::name_key;
use schema::{ConvId, Seq};

use super::event::{Action, Event, Listed, Refusal, Ticket};
use super::outbox::backoff;
use super::request::Request;
use super::{ClientService, Conversation, Me, Phase, To, Waiting, place, send_line};
use crate::limits::{CURSORS_PER_LINE, PAGE};
use crate::secret::Secret;

/// By what one logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    Password { name: String, password: Secret },
    Token(Secret),
}

/// What is known about logging in.
#[derive(Debug, Default)]
pub(super) struct Login {
    credential: Option<Credential>,
    /// Who waits for the outcome, besides ourselves.
    ticket: Option<Ticket>,
    tries: u32,
    pub(super) retry_at: Option<Instant>,
}

impl ClientService {
    /// Logs in, now or as soon as there is a connection; [`Event::LoggedIn`] or [`Event::Refused`] follows. From then on the service logs in by itself after each
    /// reconnect, with the token that it was given.
    ///
    /// # Errors
    /// When somebody is logged in or a login is on its way.
    pub(crate) fn login(&mut self, credential: Credential) -> Result<Ticket, Refusal> {
        if self.login.credential.is_some() {
            return Err(Refusal::new("conflict", "somebody is logged in already"));
        }
        let ticket = self.ticket();
        self.login = Login { credential: Some(credential), ticket: Some(ticket), ..Login::default() };
        self.connect_if_offline();
        self.begin_login();
        Ok(ticket)
    }

    /// A login that takes too long is forgotten; one that is on its way is cut off with its connection.
    pub(super) fn give_up_login(&mut self, ticket: Ticket) {
        if self.login.ticket == Some(ticket) {
            self.login = Login::default();
            if self.phase == Phase::LoggingIn {
                self.waiting.clear();
                self.actions.push_back(Action::Drop("the login was given up"));
            }
        }
    }

    /// The token of the present login.
    pub(crate) fn token(&self) -> Option<&Secret> {
        match &self.login.credential {
            Some(Credential::Token(token)) => Some(token),
            _ => None,
        }
    }

    /// A connection was made.
    pub(crate) fn handle_connected(&mut self) {
        self.phase = Phase::Greeting;
    }

    /// The connection was lost, or an attempt to make one has failed.
    pub(crate) fn handle_lost(&mut self) {
        self.phase = Phase::Offline;
        self.synced = false;
        self.waiting.clear();
        self.outbox.connection_lost();
        self.asks.iter_mut().for_each(super::ask::Ask::connection_lost);
        self.login.retry_at = None;
        self.marking.connection_lost();
        for conversation in self.conversations.values_mut() {
            (conversation.acked, conversation.read_said) = (Seq::ZERO, Seq::ZERO);
        }
        // What was to be said on that connection must not be said on the next.
        self.actions.retain(|action| !matches!(action, Action::Line(_)));
    }

    /// The server said hello.
    pub(super) fn handle_hello(&mut self, now: Instant) {
        if self.phase == Phase::Greeting {
            self.phase = Phase::Anonymous;
            self.begin_login();
            self.pump(now);
        }
    }

    pub(super) fn begin_login(&mut self) {
        let (Phase::Anonymous, Some(credential)) = (self.phase, self.login.credential.clone()) else {
            return;
        };
        let (name, password, token) = match &credential {
            Credential::Password { name, password } => (Some(name.as_str()), Some(password.reveal()), None),
            Credential::Token(token) => (None, None, Some(token.reveal())),
        };
        let version = schema::limits::PROTOCOL_VERSION;
        self.request(
            Waiting::Login,
            &Request::Login { name, password, token, device: "chatcli", version, hold: true },
        );
        self.phase = Phase::LoggingIn;
    }

    pub(super) fn handle_logged_in(&mut self, body: &LoggedIn<'_>) {
        if self.me.as_ref().is_some_and(|me| me.id != body.user) {
            self.forget_user("somebody else has logged in");
        }
        self.me = Some(Me { id: body.user, name: Arc::from(body.name.as_ref()) });
        self.login.credential = Some(Credential::Token(Secret::new(body.token.as_ref())));
        self.login.tries = 0;
        let ticket = self.login.ticket.take();
        self.events.push_back(Event::LoggedIn { ticket, user: body.user, name: body.name.to_string() });
        self.phase = Phase::Preparing;
        self.ask_list(None);
    }

    pub(super) fn handle_login_refused(&mut self, now: Instant, refusal: Refusal) {
        self.phase = Phase::Anonymous;
        let is_busy = matches!(refusal.code.as_str(), "overloaded" | "unavailable");
        // A person is told of a rate limit; a client that comes back by itself waits.
        if is_busy || (self.login.ticket.is_none() && refusal.code == "rate_limited") {
            self.login.retry_at =
                Some(now + refusal.retry_after.unwrap_or_else(|| backoff(self.login.tries)));
            self.login.tries = self.login.tries.saturating_add(1);
            return;
        }
        match self.login.ticket.take() {
            Some(ticket) => {
                self.login = Login::default();
                self.events.push_back(Event::Refused { ticket, refusal });
            }
            None => {
                let why = format!("the server no longer accepts this session: {refusal}");
                self.end_session(None, why, false);
            }
        }
    }

    /// Nobody is logged in any more, and this client does not log in again by itself.
    pub(super) fn end_session(&mut self, ticket: Option<Ticket>, why: String, token_lives: bool) {
        let ticket = ticket.or_else(|| self.login.ticket.take());
        self.login = Login::default();
        self.synced = false;
        if matches!(self.phase, Phase::LoggingIn | Phase::Preparing | Phase::Online) {
            self.phase = Phase::Anonymous;
        }
        self.forget_user(&why);
        self.me = None;
        self.events.push_back(Event::LoggedOut { ticket, why, token_lives });
    }

    /// What belongs to one user is not shown to the next.
    fn forget_user(&mut self, why: &str) {
        let refusal = Refusal::new("unauthorized", why);
        let asked = self.asks.iter().filter(|ask| ask.question.needs_login() && !ask.is_quiet());
        let asked = asked.map(|ask| ask.ticket);
        let tickets: Vec<Ticket> = self.outbox.drain().map(|item| item.ticket).chain(asked).collect();
        self.asks.retain(|ask| !ask.question.needs_login());
        for ticket in tickets {
            self.events.push_back(Event::Refused { ticket, refusal: refusal.clone() });
        }
        // Answers that are still to come concern nobody.
        self.waiting.clear();
        self.conversations.clear();
        self.by_name.clear();
        self.groups.clear();
        self.people = super::People::default();
        self.marking = super::Marking::default();
        self.shown = None;
    }

    fn ask_list(&mut self, after: Option<ConvId>) {
        self.request(Waiting::Start, &Request::Conversations { after, limit: PAGE });
    }

    /// A page of the list that comes before the streams start.
    pub(super) fn handle_start_page(&mut self, page: &Conversations<'_>) {
        for info in &page.conversations {
            self.handle_listed(&Listed::from(info));
        }
        match page.conversations.last() {
            Some(last) if page.more => self.ask_list(Some(last.conv)),
            _ => self.settle_doubtful(),
        }
    }

    pub(super) fn handle_listed(&mut self, info: &Listed) {
        // A user's spelling may have been another one in what we sent.
        if info.kind == Kind::Direct {
            self.by_name.insert(name_key(&info.name), info.conv);
        }
        let shown = self.shown == Some(info.conv);
        let new = Conversation::new(info.conv, info.kind, info.name.clone(), info.user);
        if let Some(user) = info.user {
            self.people.saw(user, &info.name);
        }
        let conversation = self.conversations.entry(info.conv).or_insert(new);
        conversation.listed(info);
        if shown {
            conversation.unread = 0;
        }
    }

    /// Asks again about what was said on the lost connection, before anything is pushed.
    pub(super) fn settle_doubtful(&mut self) {
        loop {
            let id = self.last_request + 1;
            let Some(item) = self.outbox.next_doubtful(id) else { break };
            let line = send_line(item, &place(&self.conversations, &self.by_name, &item.to), id);
            self.last_request = id;
            self.waiting.insert(id, Waiting::Send);
            self.actions.push_back(Action::Line(line));
        }
        self.sync_if_settled();
    }

    /// Starts the streams at this client's own cursors, once the doubtful sends are answered.
    pub(super) fn sync_if_settled(&mut self) {
        if self.phase != Phase::Preparing || self.outbox.awaits_doubtful() {
            return;
        }
        let known = self.conversations.values();
        let mut cursors =
            known.filter_map(|conversation| Some((conversation.conv, conversation.stream.complete()?)));
        let mut lines: Vec<BTreeMap<ConvId, Seq>> = Vec::new();
        loop {
            let line: BTreeMap<ConvId, Seq> = cursors.by_ref().take(CURSORS_PER_LINE).collect();
            let more = line.len() == CURSORS_PER_LINE;
            lines.push(line);
            if !more {
                break;
            }
        }
        let last = lines.len().saturating_sub(1);
        for (n, cursors) in lines.iter().enumerate() {
            self.request(Waiting::Sync, &Request::Sync { cursors, more: n != last });
        }
        self.phase = Phase::Online;
        // What the server had not written when the connection was lost is said again.
        self.say_acks();
    }

    /// A message to a user was taken: the conversation with them is this one.
    pub(super) fn remember_target(&mut self, to: &To, conv: ConvId) {
        if let To::User(name) = to {
            self.conversation_or_new(Conversation::new(conv, Kind::Direct, name.clone(), None));
        }
    }
}
