//! What happened, told in the chat: answers to what was asked, and what others did.

use std::time::Instant;

use schema::ConvId;

use super::chat::{Chat, Purpose, label, place_of};
use super::report;
use crate::order::Order;
use crate::service::{ClientService, Entry, Event, GroupAct, Question, Refusal, Ticket, To};

impl Chat {
    /// Something happened.
    pub(crate) fn handle(&mut self, now: Instant, service: &mut ClientService, event: &Event) {
        match event {
            Event::Message { conv, entry } => self.handle_message(now, service, *conv, entry),
            Event::Sent { ticket, .. } => self.handle_sent(service, *ticket),
            Event::Typing { conv, user } => {
                self.typing.entry(*conv).or_default().insert(*user, now);
            }
            Event::Reset { .. } => {
                self.complain(service, "the server has restored an older copy of this conversation");
            }
            Event::History { ticket, entries, more, .. } => {
                let asked = self.asked.remove(ticket) == Some(Purpose::History);
                if asked && !more && entries.is_empty() {
                    self.say(service, "this is the beginning");
                }
            }
            Event::Found { ticket, name, online, .. } => match self.asked.remove(ticket) {
                Some(Purpose::Open) => self.show(now, service, To::User(name.clone())),
                _ => self.say(service, &format!("{name} is {}", if *online { "online" } else { "offline" })),
            },
            Event::Refused { ticket, refusal } => self.handle_refused(service, *ticket, refusal),
            Event::Bye { message, .. } => self.say(service, &format!("the server closes: {message}")),
            Event::Friendship { event, name, .. } => self.say(service, &report::friendship(*event, name)),
            Event::Invited { conv, name, from } => {
                self.say(service, &format!("{from} invites you to #{name}: /group join #{conv}"));
            }
            Event::Done { ticket } => self.handle_done(now, service, *ticket),
            Event::GroupCreated { ticket, conv } => {
                self.asked.remove(ticket);
                self.show(now, service, To::Conv(*conv));
            }
            _ => self.handle_list(service, event),
        }
        self.follow(service);
    }

    /// A list that was asked for.
    fn handle_list(&mut self, service: &ClientService, event: &Event) {
        let (ticket, lines) = match event {
            Event::Conversations { ticket, list } => (ticket, report::conversations(service, list)),
            Event::Friends { ticket, list } => (ticket, report::friends(list)),
            Event::Blocked { ticket, list } => (ticket, vec![report::blocked(list)]),
            Event::Members { ticket, list, more, .. } => (ticket, vec![report::members(list, *more)]),
            Event::Groups { ticket, list } => (ticket, report::groups(list)),
            _ => return,
        };
        self.asked.remove(ticket);
        lines.iter().for_each(|line| self.say(service, line));
    }

    fn handle_message(&mut self, now: Instant, service: &mut ClientService, conv: ConvId, entry: &Entry) {
        if let Some(users) = self.typing.get_mut(&conv) {
            users.remove(&entry.from);
        }
        let own = service.me().is_some_and(|me| me.id == entry.from);
        if self.open().is_none() && !own {
            // Nothing is open: what arrives opens.
            if let Some(to) = service.conversation(conv).map(place_of) {
                self.show(now, service, to);
                // It is looked at from its beginning on.
                self.unread_from = None;
            }
        }
    }

    fn handle_done(&mut self, now: Instant, service: &mut ClientService, ticket: Ticket) {
        let order = match self.asked.remove(&ticket) {
            Some(Purpose::Order(order)) => order,
            Some(Purpose::Password) => {
                return self.say(service, "the password is changed; other devices are logged out");
            }
            _ => return,
        };
        if let Some(text) = order.done() {
            self.say(service, &text);
        }
        // One joins to take part.
        if let Order::Group(GroupAct::Join, _) = &order
            && let Ok(Question::Group { conv, .. }) = order.question(service, None)
        {
            self.show(now, service, To::Conv(conv));
        }
    }

    fn handle_sent(&mut self, service: &ClientService, ticket: Ticket) {
        let Some(Purpose::Send(to, text)) = self.asked.remove(&ticket) else { return };
        if !self.is_open(&to) {
            self.say(service, &format!("sent to {}: {text}", label(service, &to)));
        }
    }

    fn handle_refused(&mut self, service: &ClientService, ticket: Ticket, refusal: &Refusal) {
        let text = match self.asked.remove(&ticket) {
            Some(Purpose::Send(To::User(name), text)) if refusal.code == "not_found" => {
                format!("not sent: there is nobody called {name}: {text}")
            }
            Some(Purpose::Send(to, text)) => {
                format!("not sent to {} ({refusal}): {text}", label(service, &to))
            }
            Some(Purpose::Who | Purpose::Open) if refusal.code == "not_found" => {
                "there is nobody by that name".into()
            }
            _ => refusal.to_string(),
        };
        self.complain(service, &text);
    }
}
