//! Questions to the server: each is asked again after a lost connection until it is answered, and long answers are read page by page.

use schema::reply::{Conversations, Found, History, Registered};
use schema::{ConvId, Seq};

use super::event::{Entry, Event, Listed, Refusal, Ticket};
use super::request::Request;
use super::{ClientService, Conversation, Phase, Waiting};
use crate::limits::PAGE;
use crate::secret::Secret;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Make a user.
    Register { name: String, password: Secret },
    /// End the session.
    Logout,
    /// Who is this?
    FindUser { name: String },
    /// The last `count` entries before `before`, or the last of all.
    History { conv: ConvId, before: Option<Seq>, count: usize },
    /// All conversations.
    Conversations,
    /// Everything up to here was read.
    Read { conv: ConvId, seq: Seq },
}

impl Question {
    pub(super) fn needs_login(&self) -> bool {
        !matches!(self, Self::Register { .. })
    }
}

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) ticket: Ticket,
    pub(super) question: Question,
    in_flight: bool,
    /// It was asked on a connection that ended.
    again: bool,
    entries: Vec<Entry>,
    listed: Vec<Listed>,
}

impl Ask {
    pub(super) fn new(ticket: Ticket, question: Question) -> Self {
        Self { ticket, question, in_flight: false, again: false, entries: Vec::new(), listed: Vec::new() }
    }

    pub(super) fn connection_lost(&mut self) {
        self.again |= self.in_flight;
        self.in_flight = false;
    }

    fn may_be_asked(&self, phase: Phase) -> bool {
        match phase {
            Phase::Offline | Phase::Greeting | Phase::LoggingIn | Phase::Preparing => false,
            Phase::Anonymous => !self.question.needs_login(),
            Phase::Online => true,
        }
    }
}

impl ClientService {
    /// Asks what may be asked in this phase.
    pub(super) fn pump_asks(&mut self) {
        let phase = self.phase;
        let mut asks = std::mem::take(&mut self.asks);
        for ask in &mut asks {
            if !ask.in_flight && ask.may_be_asked(phase) {
                ask.in_flight = true;
                self.ask_now(ask);
            }
        }
        self.asks = asks;
    }

    fn ask_now(&mut self, ask: &Ask) {
        let request = match &ask.question {
            Question::Register { name, password } => Request::Register { name, password: password.reveal() },
            Question::Logout => Request::Logout,
            Question::FindUser { name } => Request::FindUser { name },
            Question::History { conv, before, count } => {
                let before = ask.entries.first().map(|entry| entry.seq).or(*before);
                let limit = count.saturating_sub(ask.entries.len()).clamp(1, PAGE);
                Request::History { conv: *conv, before, after: None, limit }
            }
            Question::Conversations => {
                Request::Conversations { after: ask.listed.last().map(|listed| listed.conv), limit: PAGE }
            }
            Question::Read { conv, seq } => Request::Read { conv: *conv, seq: *seq },
        };
        self.request(Waiting::Ask(ask.ticket), &request);
    }

    /// An `ok` to a question.
    ///
    /// # Errors
    /// When its fields are not what they should be.
    pub(super) fn handle_answer(&mut self, ticket: Ticket, line: &str) -> Result<(), serde_json::Error> {
        let Some(at) = self.asks.iter().position(|ask| ask.ticket == ticket) else { return Ok(()) };
        let Some(mut ask) = self.asks.remove(at) else { return Ok(()) };
        let answered = self.read_answer(&mut ask, line);
        match answered {
            Ok(Some(event)) => self.events.push_back(event),
            // A further page of it, unless the session has ended with it.
            Ok(None) if self.me.is_some() => {
                self.ask_now(&ask);
                self.asks.push_back(ask);
            }
            Ok(None) => {}
            Err(error) => {
                // The caller will refuse it.
                self.asks.push_back(ask);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads one page of an answer. The event, when it is the last.
    fn read_answer(&mut self, ask: &mut Ask, line: &str) -> Result<Option<Event>, serde_json::Error> {
        let ticket = ask.ticket;
        Ok(match ask.question.clone() {
            Question::Register { .. } => {
                let body: Registered = serde_json::from_str(line)?;
                Some(Event::Registered { ticket, user: body.user })
            }
            Question::Logout => {
                self.end_session(Some(ticket), "logged out".into());
                None
            }
            Question::FindUser { .. } => {
                let body: Found<'_> = serde_json::from_str(line)?;
                let (user, name, online) = (body.user, body.name.into_owned(), body.online);
                Some(Event::Found { ticket, user, name, online })
            }
            Question::History { conv, count, .. } => {
                let body: History<'_> = serde_json::from_str(line)?;
                self.handle_history(ask, conv, count, body)
            }
            Question::Conversations => {
                let body: Conversations<'_> = serde_json::from_str(line)?;
                self.handle_list(ask, &body)
            }
            Question::Read { conv, seq } => Some(Event::Marked { ticket, conv, seq }),
        })
    }

    fn handle_history(
        &mut self,
        ask: &mut Ask,
        conv: ConvId,
        count: usize,
        body: History<'_>,
    ) -> Option<Event> {
        let page: Vec<Entry> = body.messages.into_iter().map(Entry::from).collect();
        let ends = page.is_empty() || !body.more;
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            page.iter().for_each(|entry| conversation.place(entry.clone()));
        }
        ask.entries.splice(0..0, page);
        if !ends && ask.entries.len() < count {
            return None;
        }
        let entries = std::mem::take(&mut ask.entries);
        Some(Event::History { ticket: ask.ticket, conv, entries, more: !ends })
    }

    fn handle_list(&mut self, ask: &mut Ask, body: &Conversations<'_>) -> Option<Event> {
        ask.listed.extend(body.conversations.iter().map(Listed::from));
        if body.more && !body.conversations.is_empty() {
            return None;
        }
        let list = std::mem::take(&mut ask.listed);
        for info in &list {
            // A stream that is running knows better where it starts; the names and numbers are news.
            let new = Conversation::new(info.conv, info.kind, info.name.clone(), info.user);
            let conversation = self.conversation_or_new(new);
            conversation.name.clone_from(&info.name);
            conversation.peer = info.user;
        }
        Some(Event::Conversations { ticket: ask.ticket, list })
    }

    /// An `error` to a question.
    pub(super) fn handle_ask_refused(&mut self, ticket: Ticket, mut refusal: Refusal) {
        let Some(at) = self.asks.iter().position(|ask| ask.ticket == ticket) else { return };
        let Some(ask) = self.asks.remove(at) else { return };
        if ask.again && matches!(ask.question, Question::Register { .. }) && refusal.code == "conflict" {
            refusal.message =
                format!("{} (perhaps by this very registration: try to log in)", refusal.message);
        }
        self.events.push_back(Event::Refused { ticket, refusal });
    }

    /// Forgets a question or a login whose answer is no longer of interest.
    pub(crate) fn give_up(&mut self, ticket: Ticket) {
        self.asks.retain(|ask| ask.ticket != ticket);
        self.give_up_login(ticket);
    }
}
