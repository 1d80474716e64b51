//! What the server says: each line is read once, here, and given to who waits for it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use schema::reply::{
    ConversationInfo, Conversations, History, Kind, LoggedIn, Marks, Message, Push, Sent, ServerHead,
};
use schema::request::RequestId;
use schema::{ConvId, Seq};
use serde::Deserialize;

use super::event::{Action, Content, Entry, Event, Listed, Refusal};
use super::{ClientService, Conversation, Phase, Waiting};

/// An `error`, read leniently: a newer server may have codes that we do not know.
#[derive(Deserialize)]
struct ErrorLine<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    retry_after_ms: Option<u64>,
}

/// A `bye`, read leniently too.
#[derive(Deserialize)]
struct ByeLine<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

impl From<ErrorLine<'_>> for Refusal {
    fn from(line: ErrorLine<'_>) -> Self {
        let message = if line.message.is_empty() { line.code.clone() } else { line.message };
        Self {
            code: line.code.into_owned(),
            message: message.into_owned(),
            retry_after: line.retry_after_ms.map(Duration::from_millis),
        }
    }
}

impl From<&ConversationInfo<'_>> for Listed {
    fn from(info: &ConversationInfo<'_>) -> Self {
        Self {
            conv: info.conv,
            kind: info.kind,
            name: info.name.to_string(),
            user: info.user,
            last_seq: info.last_seq,
            delivered: info.delivered,
            read: info.read,
            unread: info.unread,
        }
    }
}

impl ClientService {
    /// A line from the server, without its end. One that makes no sense is logged and otherwise ignored.
    pub(crate) fn handle_line(&mut self, now: Instant, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else {
            log::warn!("the server sent a line that is not UTF-8");
            return;
        };
        let head = match serde_json::from_str::<ServerHead<'_>>(text) {
            Ok(head) => head,
            Err(error) => {
                log::warn!("the server sent a line that is no message: {error}");
                return;
            }
        };
        let result = match (head.kind.as_ref(), head.id) {
            ("ok", Some(id)) => self.handle_ok(now, id, text),
            ("error", Some(id)) => self.handle_error(now, id, text),
            ("error", None) => {
                log::warn!("the server refused a request without an id: {text}");
                Ok(())
            }
            ("bye", _) => self.handle_bye(text),
            _ => self.handle_push(now, text),
        };
        if let Err(error) = result {
            log::warn!("cannot read a `{}` of the server: {error}", head.kind);
        }
    }

    fn handle_ok(&mut self, now: Instant, id: RequestId, line: &str) -> Result<(), serde_json::Error> {
        let Some(waiting) = self.waiting.remove(&id) else { return Ok(()) };
        let result = self.dispatch_ok(now, &waiting, id, line);
        if result.is_err() {
            // The request is answered, only we cannot read how.
            self.refuse(now, &waiting, id, unreadable());
        }
        self.pump(now);
        result
    }

    fn dispatch_ok(
        &mut self,
        now: Instant,
        waiting: &Waiting,
        id: RequestId,
        line: &str,
    ) -> Result<(), serde_json::Error> {
        match waiting {
            Waiting::Login => self.handle_logged_in(&serde_json::from_str::<LoggedIn<'_>>(line)?),
            Waiting::Start => self.handle_start_page(&serde_json::from_str::<Conversations<'_>>(line)?),
            Waiting::Sync => {}
            Waiting::Send => {
                let sent = serde_json::from_str(line)?;
                self.handle_sent(now, id, &sent);
            }
            Waiting::Ask(ticket) => self.handle_answer(*ticket, line)?,
            Waiting::Marks(conv) => self.handle_marks(*conv, &serde_json::from_str::<Marks>(line)?),
            Waiting::Repair(conv) => {
                self.handle_repair(now, *conv, serde_json::from_str::<History<'_>>(line)?);
            }
        }
        Ok(())
    }

    fn handle_error(&mut self, now: Instant, id: RequestId, line: &str) -> Result<(), serde_json::Error> {
        let Some(waiting) = self.waiting.remove(&id) else { return Ok(()) };
        let read = serde_json::from_str::<ErrorLine<'_>>(line);
        let (refusal, result) = match read {
            Ok(line) => (line.into(), Ok(())),
            Err(error) => (unreadable(), Err(error)),
        };
        self.refuse(now, &waiting, id, refusal);
        self.pump(now);
        result
    }

    fn refuse(&mut self, now: Instant, waiting: &Waiting, id: RequestId, refusal: Refusal) {
        match waiting {
            Waiting::Login => self.handle_login_refused(now, refusal),
            // Without the list the streams tell their starts themselves.
            Waiting::Start => self.settle_doubtful(),
            Waiting::Sync => self.actions.push_back(Action::Drop("the server refused the cursors")),
            Waiting::Send => self.handle_send_refused(now, id, refusal),
            Waiting::Ask(ticket) => self.handle_ask_refused(*ticket, refusal),
            Waiting::Marks(_) => {}
            Waiting::Repair(conv) => {
                log::warn!("conversation {conv} has a hole, and its history was refused: {refusal}");
            }
        }
    }

    fn handle_sent(&mut self, now: Instant, id: RequestId, sent: &Sent) {
        let Some(item) = self.outbox.take(id) else { return };
        self.remember_target(&item.to, sent.conv);
        let me = self.me.clone();
        if let (Some(conversation), Some(me)) = (self.conversations.get_mut(&sent.conv), me) {
            conversation.place(Entry {
                seq: sent.seq,
                from: me.id,
                from_name: me.name,
                content: Content::Text(item.text.clone()),
                time_ms: sent.time_ms,
            });
            conversation.stream.arrived(sent.seq);
            conversation.count(sent.seq, true, false);
            let to = conversation.label().into_owned();
            self.events.push_back(Event::Sent { ticket: item.ticket, conv: sent.conv, seq: sent.seq, to });
            self.handle_arrival(now, sent.conv);
        }
        self.sync_if_settled();
    }

    fn handle_send_refused(&mut self, now: Instant, id: RequestId, refusal: Refusal) {
        if matches!(refusal.code.as_str(), "unavailable" | "overloaded" | "rate_limited") {
            self.outbox.postpone(id, now, refusal.retry_after);
        } else if let Some(item) = self.outbox.take(id) {
            self.events.push_back(Event::Refused { ticket: item.ticket, refusal });
        }
        self.sync_if_settled();
    }

    fn handle_bye(&mut self, line: &str) -> Result<(), serde_json::Error> {
        let bye: ByeLine<'_> = serde_json::from_str(line)?;
        let (code, message) = (bye.code.into_owned(), bye.message.into_owned());
        match code.as_str() {
            // To come back by itself would only push another device out.
            "replaced" => {
                self.end_session(None, "another login has taken this session's place".into(), true);
            }
            "logged_out" => self.end_session(None, "logged out from elsewhere".into(), false),
            _ => {}
        }
        self.events.push_back(Event::Bye { code, message });
        Ok(())
    }

    fn handle_push(&mut self, now: Instant, line: &str) -> Result<(), serde_json::Error> {
        match serde_json::from_str::<Push<'_>>(line)? {
            Push::Hello { server, node, .. } => {
                let (server, node) = (server.into_owned(), node.into_owned());
                self.events.push_back(Event::Greeted { server, node });
                self.handle_hello(now);
            }
            // What comes late for a session that has ended concerns nobody.
            _ if self.phase != Phase::Online => {}
            Push::Message(message) => self.handle_message(now, message),
            Push::Synced => {
                self.synced = true;
                self.events.push_back(Event::Synced);
                self.ask_marks();
                self.ask_around();
            }
            Push::Reset { conv, seq } => self.handle_reset(conv, seq),
            Push::Read { conv, user, seq } => self.handle_read(conv, user, seq),
            Push::Delivered { conv, user, seq } => self.handle_delivered(conv, user, seq),
            Push::Typing { conv, user } => self.events.push_back(Event::Typing { conv, user }),
            Push::Friend { event, user, name } => self.handle_friend(event, user, &name),
            Push::Presence { user, name, online, .. } => self.handle_presence(user, &name, online),
            Push::Invite { conv, name, from, from_name } => {
                self.handle_invite(conv, &name, from, &from_name);
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_message(&mut self, now: Instant, message: Message<'_>) {
        let Some(me) = self.me.clone() else { return };
        let conv = message.conv;
        let own = message.from == me.id;
        let shown = self.shown == Some(conv);
        let conversation = self.conversation_of(&message, own);
        let conversation = self.conversation_or_new(conversation);
        if !conversation.stream.push_arrived(message.seq) {
            // What we have already takes room in the server's window all the same, until it is acked on this connection.
            conversation.acked = conversation.acked.min(message.seq.prev());
            self.handle_arrival(now, conv);
            return;
        }
        let entry = Entry::from(message);
        conversation.place(entry.clone());
        conversation.count(entry.seq, own, shown);
        if !own {
            conversation.seen(entry.from);
        } else if let Some(text) = entry.text() {
            self.outbox.hurry(text);
        }
        self.handle_group_entry(conv, &entry);
        self.events.push_back(Event::Message { conv, entry });
        self.handle_arrival(now, conv);
    }

    fn handle_reset(&mut self, conv: ConvId, seq: Seq) {
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            conversation.reset(seq);
            self.events.push_back(Event::Reset { conv, seq });
        }
    }

    /// A history that was asked for because of a hole: what is in it has arrived now, and what is not will not come.
    fn handle_repair(&mut self, now: Instant, conv: ConvId, history: History<'_>) {
        let mut new = Vec::new();
        let Some(conversation) = self.conversations.get_mut(&conv) else { return };
        for message in history.messages {
            let entry = Entry::from(message);
            conversation.stream.skip_to(entry.seq);
            if conversation.stream.arrived(entry.seq) {
                conversation.place(entry.clone());
                new.push(entry);
            }
        }
        if !history.more
            && let Some(beyond) = conversation.stream.beyond_hole()
        {
            conversation.stream.skip_to(beyond);
        }
        for entry in new {
            self.handle_group_entry(conv, &entry);
            self.events.push_back(Event::Message { conv, entry });
        }
        self.handle_arrival(now, conv);
    }

    /// The conversation that a message is in, as far as the message tells, and what is known of groups.
    fn conversation_of(&self, message: &Message<'_>, own: bool) -> Conversation {
        let (peer, name) = match message.kind {
            Kind::Direct if own => (message.to, message.to_name.as_deref().unwrap_or("?").to_owned()),
            Kind::Direct => (Some(message.from), message.from_name.to_string()),
            _ => {
                let known = self.groups.get(&message.conv);
                (None, known.map_or_else(|| message.conv.to_string(), |group| group.name.clone()))
            }
        };
        Conversation::new(message.conv, message.kind, name, peer)
    }
}

fn unreadable() -> Refusal {
    Refusal::new("bad_reply", "the server's answer cannot be read")
}
