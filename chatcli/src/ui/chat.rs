//! The chat's state: which conversation is open, what is being written, what the program has said; and what keys do to it.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use schema::reply::Kind;
use schema::text::name_key;
use schema::{ConvId, Seq, UserId};

use super::command::{Command, help};
use super::completion::Completion;
use super::line_editor::LineEditor;
use super::password_entry::{Entered, PasswordEntry};
use crate::limits::TYPING_SHOWN;
use crate::order::Order;
use crate::service::{ClientService, Conversation, Question, Refusal, Ticket, To};

/// What the program has said that is kept.
const NOTICES_MAX: usize = 200;

/// Entries that an opened conversation should have at least, and how many are asked for then.
const OPENED_WITH: usize = 50;

/// Entries that scrolling up asks for.
const SCROLLED: usize = 200;

/// Where a conversation is, so that two names for the same place are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// With the user of this key.
    User(String),
    Conv(ConvId),
}

impl From<&To> for Place {
    fn from(to: &To) -> Self {
        match to {
            To::User(name) => Self::User(name_key(name)),
            To::Conv(conv) => Self::Conv(*conv),
        }
    }
}

/// A line of the program's own in the message pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The conversation that was open.
    place: Option<Place>,
    /// It stands behind this entry.
    pub(crate) after: Seq,
    pub(crate) text: String,
    pub(crate) error: bool,
}

/// Why something was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Who,
    /// To open the conversation with a user, once it is known that there is such a user.
    Open,
    List,
    /// Older entries, which the user asked for.
    History,
    /// The entries that an opened conversation should show.
    Fill,
    Logout,
    Password,
    Order(Order),
    /// A message, with its receiver and its text.
    Send(To, String),
}

/// The chat.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    /// The conversation that is open: with a user by name, or a group.
    open: Option<To>,
    pub(crate) editor: LineEditor,
    completion: Option<Completion>,
    /// A password that is being entered in place of a message.
    pub(crate) password: Option<PasswordEntry>,
    notices: Vec<Notice>,
    pub(super) asked: HashMap<Ticket, Purpose>,
    /// Who was seen typing where, and when.
    pub(super) typing: HashMap<ConvId, BTreeMap<UserId, Instant>>,
    /// The first entry that was unread when the conversation was opened.
    pub(crate) unread_from: Option<Seq>,
    /// Rows below the pane.
    pub(crate) scroll: usize,
    /// What the last drawing found: whether the first entry was in sight.
    pub(crate) top_seen: bool,
    /// And which entry was the last.
    pub(crate) last_drawn: Seq,
    pub(crate) quit: bool,
    /// The login is to be forgotten, whether the server hears of it or not.
    pub(crate) logging_out: bool,
}

impl Chat {
    /// The conversation that is open.
    pub(crate) fn open(&self) -> Option<&To> {
        self.open.as_ref()
    }

    /// What the open conversation is called.
    pub(crate) fn label(&self, service: &ClientService) -> Option<String> {
        self.open.as_ref().map(|to| label(service, to))
    }

    /// The open conversation, if it has begun.
    pub(crate) fn conversation<'a>(&self, service: &'a ClientService) -> Option<&'a Conversation> {
        match self.open.as_ref()? {
            To::User(name) => service.conversation_with(name),
            To::Conv(conv) => service.conversation(*conv),
        }
    }

    /// The open group.
    fn open_group(&self) -> Option<ConvId> {
        match self.open {
            Some(To::Conv(conv)) => Some(conv),
            _ => None,
        }
    }

    /// What the program has said in the open conversation, or while none was open.
    pub(crate) fn notices(&self) -> impl DoubleEndedIterator<Item = &Notice> {
        let place = self.place();
        self.notices.iter().filter(move |notice| notice.place == place)
    }

    fn place(&self) -> Option<Place> {
        self.open.as_ref().map(Place::from)
    }

    /// Whether this is the conversation that is open.
    pub(super) fn is_open(&self, to: &To) -> bool {
        self.place() == Some(Place::from(to))
    }

    /// Who is typing in the open conversation.
    pub(crate) fn who_types(&self, service: &ClientService, now: Instant) -> Vec<UserId> {
        let conv = self.conversation(service).map(|conversation| conversation.conv);
        let seen = conv.and_then(|conv| self.typing.get(&conv));
        let lately = seen.into_iter().flatten().filter(|(_, at)| now < **at + TYPING_SHOWN);
        lately.map(|(user, _)| *user).collect()
    }

    /// Whether something on the screen changes by itself.
    pub(crate) fn anybody_types(&self) -> bool {
        !self.typing.is_empty()
    }

    /// Forgets who has stopped typing.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        self.typing.retain(|_, users| {
            users.retain(|_, at| now < *at + TYPING_SHOWN);
            !users.is_empty()
        });
    }

    /// Enter was pressed.
    pub(crate) fn submit(&mut self, now: Instant, service: &mut ClientService) {
        if self.password.is_some() {
            return self.enter_password(now, service);
        }
        self.scroll = 0;
        match Command::parse(&self.editor.submit()) {
            Command::Empty => {}
            Command::Text(text) => match self.open.clone() {
                Some(to) => self.send(now, service, to, &text),
                None => {
                    self.complain(service, "no conversation is open: /to NAME opens one, /help tells more");
                }
            },
            Command::Msg { name, text } => match find(service, &name) {
                Ok(to) => self.send(now, service, to, &text),
                Err(refusal) => self.complain(service, &refusal.to_string()),
            },
            Command::MsgGroup(rest) => match service.split_group(&rest) {
                Ok((conv, text)) => self.send(now, service, To::Conv(conv), text),
                Err(refusal) => self.complain(service, &refusal.to_string()),
            },
            Command::To(name) => self.open_by_name(now, service, &name),
            Command::Who(name) => self.ask(now, service, Purpose::Who, Question::FindUser { name }),
            Command::List => self.ask(now, service, Purpose::List, Question::Conversations),
            Command::History(count) => self.load_history(now, service, count),
            Command::Order(order) => match order.question(service, self.open_group()) {
                Ok(question) => self.ask(now, service, Purpose::Order(order), question),
                Err(refusal) => self.complain(service, &refusal.to_string()),
            },
            Command::Password => self.password = Some(PasswordEntry::default()),
            Command::Logout => {
                self.logging_out = true;
                self.ask(now, service, Purpose::Logout, Question::Logout);
            }
            Command::Quit => self.quit = true,
            Command::Help => help().iter().for_each(|line| self.say(service, line)),
            Command::Bad(message) => self.complain(service, &message),
        }
    }

    fn enter_password(&mut self, now: Instant, service: &mut ClientService) {
        match self.password.as_mut().map(PasswordEntry::enter) {
            None | Some(Entered::More) => {}
            Some(Entered::Wrong(why)) => {
                self.password = None;
                self.complain(service, why);
            }
            Some(Entered::All(old, new)) => {
                self.password = None;
                self.ask(now, service, Purpose::Password, Question::Password { old, new });
            }
        }
    }

    fn open_by_name(&mut self, now: Instant, service: &mut ClientService, name: &str) {
        match find(service, name) {
            Ok(To::Conv(conv)) if service.conversation(conv).is_none() && service.group(conv).is_none() => {
                self.complain(service, "you are not in such a group: /groups lists yours");
            }
            Ok(to @ To::Conv(_)) => self.show(now, service, to),
            Ok(To::User(name)) => match service.conversation_with(&name).map(|found| found.name.clone()) {
                Some(name) => self.show(now, service, To::User(name)),
                None => self.ask(now, service, Purpose::Open, Question::FindUser { name }),
            },
            Err(refusal) => self.complain(service, &refusal.to_string()),
        }
    }

    fn send(&mut self, now: Instant, service: &mut ClientService, to: To, text: &str) {
        if self.is_open(&to) {
            // Who writes has seen what was new.
            self.unread_from = None;
        }
        match service.send(now, to.clone(), text) {
            Ok(ticket) => {
                self.asked.insert(ticket, Purpose::Send(to, text.to_owned()));
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
        if conversation.is_whole() {
            return self.say(service, "this is the beginning");
        }
        if conversation.is_full() {
            return self.say(service, "no more is kept here than what you see");
        }
        self.ask(now, service, Purpose::History, Question::History { conv, before, count });
    }

    /// Opens a conversation.
    pub(super) fn show(&mut self, now: Instant, service: &mut ClientService, to: To) {
        let me = service.me().map(|me| me.id);
        let anew = !self.is_open(&to);
        self.open = Some(to);
        if anew {
            self.scroll = 0;
            let found = self.conversation(service);
            self.unread_from = found.zip(me).and_then(|(found, me)| found.first_unread(me));
        }
        self.follow(service);
        if let Some(conversation) = self.conversation(service)
            && conversation.len() < OPENED_WITH
            && !conversation.is_whole()
        {
            let (conv, before) = (conversation.conv, conversation.first_seq());
            let question = Question::History { conv, before, count: OPENED_WITH };
            self.ask(now, service, Purpose::Fill, question);
        }
    }

    /// Tells the service which conversation is looked at.
    pub(crate) fn follow(&self, service: &mut ClientService) {
        service.show(self.conversation(service).map(|conversation| conversation.conv));
    }

    /// Opens the conversation behind (`step` 1) or before (-1) the open one.
    pub(crate) fn step(&mut self, now: Instant, service: &mut ClientService, step: isize) {
        let open = self.conversation(service).map(|found| found.conv);
        let at = service.conversations().position(|found| Some(found.conv) == open);
        let count = service.conversations().count();
        let next = match at {
            Some(at) => at.checked_add_signed(step),
            None if step > 0 => Some(0),
            None => count.checked_sub(1),
        };
        let next = next.and_then(|next| service.conversations().nth(next)).map(place_of);
        if let Some(to) = next {
            self.show(now, service, to);
        }
    }

    /// Scrolls up by so many rows; at the top, older entries are asked for.
    pub(crate) fn scroll_up(&mut self, now: Instant, service: &mut ClientService, rows: usize) {
        let more = self.conversation(service).is_some_and(|found| !found.is_whole() && !found.is_full());
        let asked = self.asked.values().any(|purpose| matches!(purpose, Purpose::History | Purpose::Fill));
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
        if let Some(entry) = &mut self.password {
            return entry.editor.insert(text.trim_end_matches(['\r', '\n']));
        }
        self.editor.insert(text);
        if !self.editor.text().starts_with('/')
            && let Some(conv) = self.conversation(service).map(|found| found.conv)
        {
            service.typing(now, conv);
        }
    }

    /// Completes what stands before the cursor, or goes on to what else could stand there.
    pub(crate) fn complete(&mut self, service: &ClientService, back: bool) {
        if self.completion.is_none() {
            let open = self.conversation(service);
            self.completion = Completion::begin(self.editor.before(), service, open);
        }
        if let Some(completion) = &mut self.completion {
            let start = completion.start;
            self.editor.replace_before(start, completion.step(back));
        }
    }

    /// Another key was pressed: what was completed stays.
    pub(crate) fn end_completion(&mut self) {
        self.completion = None;
    }

    pub(super) fn say(&mut self, service: &ClientService, text: &str) {
        self.note(service, text, false);
    }

    pub(super) fn complain(&mut self, service: &ClientService, text: &str) {
        self.note(service, text, true);
    }

    fn note(&mut self, service: &ClientService, text: &str, error: bool) {
        let last = self.conversation(service).and_then(|found| found.entries().next_back());
        let after = last.map_or(Seq::ZERO, |entry| entry.seq);
        if self.notices.len() >= NOTICES_MAX {
            self.notices.remove(0);
        }
        self.notices.push(Notice { place: self.place(), after, text: text.to_owned(), error });
    }
}

/// What a place is called.
pub(super) fn label(service: &ClientService, to: &To) -> String {
    match to {
        To::User(name) => name.clone(),
        To::Conv(conv) => {
            let begun = service.conversation(*conv).map(|found| found.label().into_owned());
            let known = || service.group(*conv).map(|group| format!("#{}", group.name));
            begun.or_else(known).unwrap_or_else(|| format!("#{conv}"))
        }
    }
}

/// Where a conversation is.
pub(super) fn place_of(conversation: &Conversation) -> To {
    match conversation.kind {
        Kind::Direct => To::User(conversation.name.clone()),
        _ => To::Conv(conversation.conv),
    }
}

/// The place that a person means: a user, or behind `#` a group.
fn find(service: &ClientService, text: &str) -> Result<To, Refusal> {
    if text.starts_with('#') { service.find_group(text).map(To::Conv) } else { Ok(To::User(plain(text))) }
}

/// A name without the sign that may stand before it.
fn plain(name: &str) -> String {
    name.strip_prefix('@').unwrap_or(name).to_owned()
}
