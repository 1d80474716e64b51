//! The chat's state: which conversation is open, what is being written, what the program has said; and what keys and events do to it.

use std::collections::HashMap;
use std::time::Instant;

use schema::text::name_key;
use schema::{ConvId, Seq, UserId};

use super::command::{Command, HELP};
use super::line_editor::LineEditor;
use crate::limits::TYPING_SHOWN;
use crate::service::{ClientService, Conversation, Event, Listed, Question, Refusal, Ticket, To};

/// What the program has said that is kept.
const NOTICES_MAX: usize = 200;

/// Entries that an opened conversation should have at least, and how many are asked for then.
const OPENED_WITH: usize = 50;

/// Entries that scrolling up asks for.
const SCROLLED: usize = 200;

/// A line of the program's own in the message pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The key of the name of the conversation that was open.
    place: Option<String>,
    /// It stands behind this entry.
    pub(crate) after: Seq,
    pub(crate) text: String,
    pub(crate) error: bool,
}

/// Why something was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Who,
    /// To open the conversation with a user, once it is known that there is such a user.
    Open,
    List,
    History,
    Logout,
    /// A message, with the name of its receiver and its text.
    Send(String, String),
}

/// The chat.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    /// The name of the user whose conversation is open.
    open: Option<String>,
    pub(crate) editor: LineEditor,
    notices: Vec<Notice>,
    asked: HashMap<Ticket, Purpose>,
    /// Who was seen typing where, and when.
    typing: HashMap<ConvId, (UserId, Instant)>,
    /// Rows below the pane.
    pub(crate) scroll: usize,
    /// What the last drawing found: whether the first entry was in sight.
    pub(crate) top_seen: bool,
    /// And which entry was the last.
    pub(crate) last_drawn: Seq,
    pub(crate) quit: bool,
}

impl Chat {
    /// The name of the user whose conversation is open.
    pub(crate) fn open(&self) -> Option<&str> {
        self.open.as_deref()
    }

    /// The open conversation, if it has begun.
    pub(crate) fn conversation<'a>(&self, service: &'a ClientService) -> Option<&'a Conversation> {
        service.conversation_with(self.open.as_deref()?)
    }

    /// What the program has said in the open conversation, or while none was open.
    pub(crate) fn notices(&self) -> impl DoubleEndedIterator<Item = &Notice> {
        let place = self.open.as_deref().map(name_key);
        self.notices.iter().filter(move |notice| notice.place == place)
    }

    /// Whether the other is typing in the open conversation.
    pub(crate) fn is_typing(&self, service: &ClientService, now: Instant) -> bool {
        let conv = self.conversation(service).map(|conversation| conversation.conv);
        let seen = conv.and_then(|conv| self.typing.get(&conv));
        seen.is_some_and(|(_, at)| now < *at + TYPING_SHOWN)
    }

    /// Whether something on the screen changes by itself.
    pub(crate) fn anybody_types(&self) -> bool {
        !self.typing.is_empty()
    }

    /// Forgets who has stopped typing.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        self.typing.retain(|_, (_, at)| now < *at + TYPING_SHOWN);
    }

    /// Enter was pressed.
    pub(crate) fn submit(&mut self, now: Instant, service: &mut ClientService) {
        self.scroll = 0;
        match Command::parse(&self.editor.submit()) {
            Command::Empty => {}
            Command::Text(text) => match self.open.clone() {
                Some(name) => self.send(now, service, &name, &text),
                None => {
                    self.complain(service, "no conversation is open: /to NAME opens one, /help tells more");
                }
            },
            Command::Msg { name, text } => self.send(now, service, &name, &text),
            Command::To(name) => match service.conversation_with(&name).map(|found| found.name.clone()) {
                Some(name) => self.show(now, service, name),
                None => self.ask(now, service, Purpose::Open, Question::FindUser { name }),
            },
            Command::Who(name) => self.ask(now, service, Purpose::Who, Question::FindUser { name }),
            Command::List => self.ask(now, service, Purpose::List, Question::Conversations),
            Command::History(count) => self.load_history(now, service, count),
            Command::Logout => self.ask(now, service, Purpose::Logout, Question::Logout),
            Command::Quit => self.quit = true,
            Command::Help => HELP.iter().for_each(|line| self.say(service, line)),
            Command::Bad(message) => self.complain(service, &message),
        }
    }

    fn send(&mut self, now: Instant, service: &mut ClientService, name: &str, text: &str) {
        match service.send(now, To::User(name.to_owned()), text) {
            Ok(ticket) => {
                self.asked.insert(ticket, Purpose::Send(name.to_owned(), text.to_owned()));
            }
            Err(refusal) => self.complain(service, &format!("not sent: {refusal}")),
        }
    }

    fn ask(&mut self, now: Instant, service: &mut ClientService, purpose: Purpose, question: Question) {
        match service.ask(now, question) {
            Ok(ticket) => {
                self.asked.insert(ticket, purpose);
            }
            Err(refusal) => self.complain(service, &refusal.to_string()),
        }
    }

    /// Loads entries from before those that are here.
    fn load_history(&mut self, now: Instant, service: &mut ClientService, count: usize) {
        let Some(conversation) = self.conversation(service) else {
            return self
                .complain(service, "there is no history: no conversation is open, or it has not begun");
        };
        let (conv, before) = (conversation.conv, conversation.first_seq());
        if before == Some(Seq::ZERO.next()) {
            return self.say(service, "this is the beginning");
        }
        self.ask(now, service, Purpose::History, Question::History { conv, before, count });
    }

    /// Opens the conversation with a user.
    fn show(&mut self, now: Instant, service: &mut ClientService, name: String) {
        if self.open.as_deref() != Some(&name) {
            self.scroll = 0;
        }
        self.open = Some(name);
        self.follow(service);
        if let Some(conversation) = self.conversation(service)
            && conversation.len() < OPENED_WITH
            && conversation.first_seq() != Some(Seq::ZERO.next())
        {
            self.load_history(now, service, OPENED_WITH);
        }
    }

    /// Tells the service which conversation is looked at.
    pub(crate) fn follow(&self, service: &mut ClientService) {
        service.show(self.conversation(service).map(|conversation| conversation.conv));
    }

    /// Opens the conversation behind (`step` 1) or before (-1) the open one.
    pub(crate) fn step(&mut self, now: Instant, service: &mut ClientService, step: isize) {
        let names: Vec<String> = service.conversations().map(|found| found.name.clone()).collect();
        let open = self.conversation(service).map(|found| found.conv);
        let at = service.conversations().position(|found| Some(found.conv) == open);
        let next = match at {
            Some(at) => at.checked_add_signed(step).filter(|next| *next < names.len()),
            None if step > 0 => Some(0),
            None => names.len().checked_sub(1),
        };
        if let Some(name) = next.and_then(|next| names.get(next)) {
            self.show(now, service, name.clone());
        }
    }

    /// Scrolls up by so many rows; at the top, older entries are asked for.
    pub(crate) fn scroll_up(&mut self, now: Instant, service: &mut ClientService, rows: usize) {
        let more = self.conversation(service).is_some_and(|found| found.first_seq() > Some(Seq::ZERO.next()));
        let asked = self.asked.values().any(|purpose| *purpose == Purpose::History);
        if self.top_seen && more && !asked {
            self.load_history(now, service, SCROLLED);
        }
        // The drawing bounds it.
        self.scroll = self.scroll.saturating_add(rows);
    }

    /// Scrolls down by so many rows.
    pub(crate) fn scroll_down(&mut self, rows: usize) {
        self.scroll = self.scroll.saturating_sub(rows);
    }

    /// A text was typed.
    pub(crate) fn typed(&mut self, now: Instant, service: &mut ClientService, text: &str) {
        self.editor.insert(text);
        if !self.editor.text().starts_with('/')
            && let Some(conv) = self.conversation(service).map(|found| found.conv)
        {
            service.typing(now, conv);
        }
    }

    /// Something happened.
    pub(crate) fn handle(&mut self, now: Instant, service: &mut ClientService, event: &Event) {
        match event {
            Event::Message { conv, entry } => {
                self.typing.remove(conv);
                let name = service.conversation(*conv).map(|found| found.name.clone());
                let own = service.me().is_some_and(|me| me.id == entry.from);
                if let (None, false, Some(name)) = (&self.open, own, name) {
                    // Nothing is open: what arrives opens.
                    self.show(now, service, name);
                }
            }
            Event::Sent { ticket, .. } => self.handle_sent(service, *ticket),
            Event::Typing { conv, user } => {
                self.typing.insert(*conv, (*user, now));
            }
            Event::Reset { .. } => {
                self.complain(service, "the server has restored an older copy of this conversation");
            }
            Event::History { ticket, entries, more, .. } => {
                self.asked.remove(ticket);
                if !more && entries.is_empty() {
                    self.say(service, "this is the beginning");
                }
            }
            Event::Conversations { ticket, list } => {
                self.asked.remove(ticket);
                self.say_list(service, list);
            }
            Event::Found { ticket, name, online, .. } => match self.asked.remove(ticket) {
                Some(Purpose::Open) => self.show(now, service, name.clone()),
                _ => self.say(service, &format!("{name} is {}", if *online { "online" } else { "offline" })),
            },
            Event::Refused { ticket, refusal } => self.handle_refused(service, *ticket, refusal),
            Event::Bye { message, .. } => self.say(service, &format!("the server closes: {message}")),
            _ => {}
        }
        self.follow(service);
    }

    fn handle_sent(&mut self, service: &ClientService, ticket: Ticket) {
        let Some(Purpose::Send(name, text)) = self.asked.remove(&ticket) else { return };
        if self.open.as_deref().map(name_key) != Some(name_key(&name)) {
            self.say(service, &format!("sent to {name}: {text}"));
        }
    }

    fn handle_refused(&mut self, service: &ClientService, ticket: Ticket, refusal: &Refusal) {
        let text = match self.asked.remove(&ticket) {
            Some(Purpose::Send(name, text)) if refusal.code == "not_found" => {
                format!("not sent: there is nobody called {name}: {text}")
            }
            Some(Purpose::Send(name, text)) => format!("not sent to {name} ({refusal}): {text}"),
            Some(Purpose::Who | Purpose::Open) if refusal.code == "not_found" => {
                "there is nobody by that name".into()
            }
            _ => refusal.to_string(),
        };
        self.complain(service, &text);
    }

    fn say_list(&mut self, service: &ClientService, list: &[Listed]) {
        if list.is_empty() {
            self.say(service, "no conversations yet: /to NAME begins one");
        }
        for info in list {
            let unread = if info.unread > 0 { format!(", {} unread", info.unread) } else { String::new() };
            self.say(service, &format!("{}: {} messages{unread}", info.name, info.last_seq));
        }
    }

    fn say(&mut self, service: &ClientService, text: &str) {
        self.note(service, text, false);
    }

    fn complain(&mut self, service: &ClientService, text: &str) {
        self.note(service, text, true);
    }

    fn note(&mut self, service: &ClientService, text: &str, error: bool) {
        let last = self.conversation(service).and_then(|found| found.entries().next_back());
        let after = last.map_or(Seq::ZERO, |entry| entry.seq);
        let place = self.open.as_deref().map(name_key);
        if self.notices.len() >= NOTICES_MAX {
            self.notices.remove(0);
        }
        self.notices.push(Notice { place, after, text: text.to_owned(), error });
    }
}
