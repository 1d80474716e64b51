//! The lines that script mode says: each event is one line, its first word the event's name.

use schema::{ConvId, UserId};

use crate::service::{ClientService, Entry, Event, Refusal};

/// The events that `wait` can wait for.
pub(crate) const KINDS: &[&str] = &[
    "connected",
    "disconnected",
    "registered",
    "online",
    "offline",
    "synced",
    "message",
    "sent",
    "delivered",
    "read",
    "typing",
    "reset",
    "entry",
    "history",
    "conversation",
    "conversations",
    "user",
    "marked",
    "token",
    "bye",
    "error",
];

/// A text as a JSON string: one line, and nothing in it that a terminal would obey.
pub(crate) fn quote(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".into());
    // JSON leaves DEL, the C1 controls and the line separators as they are.
    let mut quoted = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            quoted.push(c);
        }
    }
    quoted
}

/// A name as one word: the server's rules let no blank into one, but a server may not keep its rules.
pub(crate) fn word(name: &str) -> String {
    let plain = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"');
    if plain { name.to_owned() } else { quote(name) }
}

/// A failed command.
pub(crate) fn error(refusal: &Refusal) -> String {
    format!("error {} {}", word(&refusal.code), quote(&refusal.message))
}

/// What an event says: one line or several.
pub(crate) fn lines(service: &ClientService, event: &Event) -> Vec<String> {
    let line = match event {
        Event::Greeted { server, node } => format!("connected {} {}", word(server), word(node)),
        Event::Registered { user, .. } => format!("registered {user}"),
        Event::LoggedIn { user, name, .. } => format!("online {user} {}", word(name)),
        Event::LoggedOut { why, .. } => format!("offline {}", quote(why)),
        Event::Synced => "synced".into(),
        Event::Message { conv, entry } => entry_line("message", *conv, entry),
        Event::Sent { conv, seq, to, .. } => format!("sent {conv} {seq} {}", word(to)),
        Event::Delivered { conv, user, seq } => {
            format!("delivered {conv} {seq} {}", who(service, *conv, *user))
        }
        Event::Read { conv, user, seq } => format!("read {conv} {seq} {}", who(service, *conv, *user)),
        Event::Typing { conv, user } => format!("typing {conv} {}", who(service, *conv, *user)),
        Event::Reset { conv, seq } => format!("reset {conv} {seq}"),
        Event::History { conv, entries, more, .. } => {
            let mut lines: Vec<String> =
                entries.iter().map(|entry| entry_line("entry", *conv, entry)).collect();
            lines.push(format!("history {conv} {} {}", entries.len(), if *more { "more" } else { "all" }));
            return lines;
        }
        Event::Conversations { list, .. } => {
            let line = |info: &crate::service::Listed| {
                format!("conversation {} {} {} {}", info.conv, info.unread, info.last_seq, word(&info.name))
            };
            let mut lines: Vec<String> = list.iter().map(line).collect();
            lines.push(format!("conversations {}", list.len()));
            return lines;
        }
        Event::Found { user, name, online, .. } => {
            format!("user {user} {} {}", word(name), if *online { "online" } else { "offline" })
        }
        Event::Marked { conv, seq, .. } => format!("marked {conv} {seq}"),
        Event::Refused { refusal, .. } => error(refusal),
        Event::Bye { code, message } => format!("bye {} {}", word(code), quote(message)),
    };
    vec![line]
}

fn entry_line(kind: &str, conv: ConvId, entry: &Entry) -> String {
    format!("{kind} {conv} {} {} {}", entry.seq, word(&entry.from_name), quote(&entry.text))
}

/// A user of a conversation, by name where it is known.
fn who(service: &ClientService, conv: ConvId, user: UserId) -> String {
    let known = service.conversation(conv).filter(|conversation| conversation.peer == Some(user));
    known.map_or_else(|| user.to_string(), |conversation| word(&conversation.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(quote("a\n\"b\"\u{1b}[2J"), r#""a\n\"b\"\u001b[2J""#);
        assert_eq!(quote("\u{7f}\u{9b}\u{2028}"), r#""\u007f\u009b\u2028""#);
        assert_eq!(quote("grüße 漢字 👋"), "\"grüße 漢字 👋\"");
        assert_eq!(word("bob"), "bob");
        assert_eq!(word("b\nob"), r#""b\nob""#);
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_one_line_and_can_be_read_back(text: String) {
            let quoted = quote(&text);
            prop_assert!(!quoted.chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
    }
}
