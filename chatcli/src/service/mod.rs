//! `ClientService`: the protocol's state machine on the client's side, without I/O: lines, commands and `now` in, actions and events out.
//!
//! # Invariants
//!
//! - **No line is lost or doubled.** A login always holds the streams back until `sync` has given this client's own cursors. What arrives is counted by `Stream`,
//!   which says of each entry whether it is new; [`Event::Message`] comes for each entry once, over all connections of a run.
//! - **A send is answered once.** It keeps its `client_id` over all attempts and connections. After a reconnect, what the server may already have is asked
//!   about before the streams start, so that an own message does not come back as a stranger's.
//! - Acks and cursors cover only what has arrived without a hole.

mod ask;
mod conversation;
mod event;
mod friends;
#[cfg(test)]
mod group_tests;
mod groups;
mod inbox;
mod login;
mod marks;
#[cfg(test)]
pub(crate) mod model;
mod outbox;
#[cfg(test)]
mod property;
mod reached;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use schema::request::RequestId;
use schema::text::{TextFault, check_text, name_key};
use schema::{ConvId, UserId};

use crate::limits::{ASKS_MAX, OUTBOX_MAX};
use ask::Ask;
pub(crate) use ask::{FriendAct, GroupAct, Question};
pub(crate) use conversation::Conversation;
pub(crate) use event::{Action, Content, Entry, Event, Listed, Refusal, Ticket};
pub(crate) use friends::Friend;
use friends::People;
pub(crate) use groups::{Group, Member};
pub(crate) use login::Credential;
use login::Login;
use marks::Marking;
use outbox::Outbox;
pub(crate) use outbox::{Outgoing, To};
pub(crate) use reached::Progress;
use request::Request;

/// How far the way to the server leads at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection.
    Offline,
    /// Connected; the server has not said hello.
    Greeting,
    /// Nobody is logged in.
    Anonymous,
    /// A login is on its way.
    LoggingIn,
    /// Logged in; the streams are held while lists and doubtful sends are settled.
    Preparing,
    /// The streams run.
    Online,
}

/// Who is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    pub(crate) id: UserId,
    pub(crate) name: Arc<str>,
}

/// What an answer is the answer to.
#[derive(Debug)]
enum Waiting {
    Login,
    /// The list of conversations before the streams start.
    Start,
    Sync,
    Send,
    Ask(Ticket),
    Marks(ConvId),
    /// The history that is to fill a hole.
    Repair(ConvId),
}

/// The protocol's state machine.
#[derive(Debug)]
pub(crate) struct ClientService {
    /// Makes this run's `client_id`s differ from those of all others.
    run: String,
    phase: Phase,
    me: Option<Me>,
    login: Login,
    synced: bool,
    conversations: BTreeMap<ConvId, Conversation>,
    /// Direct conversations by the key of the other's name.
    by_name: HashMap<String, ConvId>,
    /// Groups that the user is in or is invited to, as far as they are known.
    groups: BTreeMap<ConvId, Group>,
    people: People,
    outbox: Outbox,
    asks: VecDeque<Ask>,
    waiting: HashMap<RequestId, Waiting>,
    marking: Marking,
    /// The conversation that is being looked at.
    shown: Option<ConvId>,
    last_request: RequestId,
    last_ticket: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl ClientService {
    /// A service that has said nothing yet. `run` is 1 to 40 printable ASCII characters that no other run uses.
    pub(crate) fn new(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            phase: Phase::Offline,
            me: None,
            login: Login::default(),
            synced: false,
            conversations: BTreeMap::new(),
            by_name: HashMap::new(),
            groups: BTreeMap::new(),
            people: People::default(),
            outbox: Outbox::default(),
            asks: VecDeque::new(),
            waiting: HashMap::new(),
            marking: Marking::default(),
            shown: None,
            last_request: 0,
            last_ticket: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// How far the way to the server leads.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Who is, or was before the connection was lost, logged in.
    pub(crate) fn me(&self) -> Option<&Me> {
        self.me.as_ref()
    }

    /// The next thing to be done outside.
    pub(crate) fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// All conversations, by id.
    pub(crate) fn conversations(&self) -> impl Iterator<Item = &Conversation> {
        self.conversations.values()
    }

    /// One conversation.
    pub(crate) fn conversation(&self, conv: ConvId) -> Option<&Conversation> {
        self.conversations.get(&conv)
    }

    /// The direct conversation with a user.
    pub(crate) fn conversation_with(&self, name: &str) -> Option<&Conversation> {
        self.conversations.get(self.by_name.get(&name_key(name))?)
    }

    /// What is on its way to a place, in the order in which it was written.
    pub(crate) fn on_the_way(&self, to: &To) -> impl Iterator<Item = &Outgoing> {
        let place = self.place(to);
        self.outbox.iter().filter(move |item| self.place(&item.to) == place)
    }

    /// How many sends are not answered yet.
    pub(crate) fn unanswered_sends(&self) -> usize {
        self.outbox.len()
    }

    /// Whether another send is taken now.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_MAX
    }

    /// Sends a message; [`Event::Sent`] or [`Event::Refused`] follows, whatever happens to the connection in between.
    ///
    /// # Errors
    /// When nobody is logged in, the text cannot be sent, or too much is on its way.
    pub(crate) fn send(&mut self, now: Instant, to: To, text: &str) -> Result<Ticket, Refusal> {
        if self.me.is_none() {
            return Err(not_logged_in());
        }
        check_text(text).map_err(|fault| match fault {
            TextFault::Empty => Refusal::new("bad_request", "the text is empty"),
            TextFault::TooLarge => Refusal::new("too_large", "the text has more than 16384 bytes"),
            TextFault::Control => Refusal::new("bad_request", "the text has a control character"),
        })?;
        if !self.has_room() {
            return Err(Refusal::new("busy", "too many messages are on their way"));
        }
        let ticket = self.ticket();
        let client_id = format!("{}-{}", self.run, ticket.0);
        self.outbox.push(ticket, client_id, to, text);
        self.pump(now);
        Ok(ticket)
    }

    /// Asks something; an event with the ticket follows, whatever happens to the connection in between.
    ///
    /// # Errors
    /// When it needs a login and nobody is logged in, or too much is asked already.
    pub(crate) fn ask(&mut self, now: Instant, question: Question) -> Result<Ticket, Refusal> {
        if question.needs_login() && self.me.is_none() {
            return Err(not_logged_in());
        }
        if self.asks.iter().filter(|ask| !ask.is_quiet()).count() >= ASKS_MAX {
            return Err(Refusal::new("busy", "too much is being asked"));
        }
        let ticket = self.ticket();
        self.asks.push_back(Ask::new(ticket, question));
        self.connect_if_offline();
        self.pump(now);
        Ok(ticket)
    }

    /// When `handle_time` is to be called next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [self.login.retry_at, self.outbox_due(), self.marking.next_due()].into_iter().flatten().min()
    }

    fn outbox_due(&self) -> Option<Instant> {
        if self.phase == Phase::Online { self.outbox.next_due() } else { None }
    }

    /// Does what is due. Calling it early or often is harmless.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        if self.login.retry_at.is_some_and(|at| at <= now) {
            self.login.retry_at = None;
            self.begin_login();
        }
        self.pump(now);
        self.handle_marks_due(now);
    }

    /// Says what may be said in this phase.
    fn pump(&mut self, now: Instant) {
        self.pump_asks();
        while self.phase == Phase::Online {
            let id = self.last_request + 1;
            let (conversations, by_name) = (&self.conversations, &self.by_name);
            let Some(item) = self.outbox.next(now, id, |to| place(conversations, by_name, to)) else { break };
            let line = send_line(item, &place(conversations, by_name, &item.to), id);
            self.last_request = id;
            self.waiting.insert(id, Waiting::Send);
            self.actions.push_back(Action::Line(line));
        }
    }

    fn place(&self, to: &To) -> To {
        place(&self.conversations, &self.by_name, to)
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Says a request whose answer is awaited.
    fn request(&mut self, waiting: Waiting, request: &Request<'_>) {
        self.last_request += 1;
        self.waiting.insert(self.last_request, waiting);
        self.actions.push_back(Action::Line(request::line(request, Some(self.last_request))));
    }

    /// Says a request that has no answer.
    fn tell(&mut self, request: &Request<'_>) {
        self.actions.push_back(Action::Line(request::line(request, None)));
    }

    fn connect_if_offline(&mut self) {
        if self.phase == Phase::Offline {
            self.actions.push_back(Action::Connect);
        }
    }

    /// The conversation, made when it is new.
    fn conversation_or_new(&mut self, make: Conversation) -> &mut Conversation {
        if make.kind == schema::reply::Kind::Direct {
            self.by_name.insert(name_key(&make.name), make.conv);
        }
        self.conversations.entry(make.conv).or_insert(make)
    }
}

/// The line of a message.
fn send_line(item: &Outgoing, place: &To, id: RequestId) -> Vec<u8> {
    let (user, conv) = match place {
        To::User(name) => (Some(name.as_str()), None),
        To::Conv(conv) => (None, Some(*conv)),
    };
    request::line(&Request::Send { client_id: &item.client_id, user, conv, text: &item.text }, Some(id))
}

/// A user with whom there is a conversation means that conversation.
fn place(conversations: &BTreeMap<ConvId, Conversation>, by_name: &HashMap<String, ConvId>, to: &To) -> To {
    match to {
        To::User(name) => match by_name.get(&name_key(name)) {
            Some(conv) if conversations.contains_key(conv) => To::Conv(*conv),
            _ => to.clone(),
        },
        To::Conv(_) => to.clone(),
    }
}

fn not_logged_in() -> Refusal {
    Refusal::new("not_logged_in", "log in first")
}
