//! The lines that script mode says: each event is one line, its first word the event's name.

use schema::friend::{FriendEvent, FriendState};
use schema::group::GroupEvent;
use schema::{ConvId, UserId};

use crate::service::{ClientService, Content, Entry, Event, Group, Refusal};

/// The events that `wait` can wait for.
pub(crate) const KINDS: &[&str] = &[
    "connected",
    "disconnected",
    "registered",
    "online",
    "offline",
    "synced",
    "message",
    "event",
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
    "done",
    "friendship",
    "friends",
    "blocked",
    "created",
    "member",
    "members",
    "group",
    "groups",
    "friend",
    "presence",
    "invite",
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
        Event::Message { conv, entry } => {
            let kind = if entry.text().is_some() { "message" } else { "event" };
            entry_line(kind, *conv, entry)
        }
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
            return listed("conversations", list, |info| {
                let name = service.conversation(info.conv).map(|found| found.label().into_owned());
                let name = word(&name.unwrap_or_else(|| info.name.clone()));
                format!("conversation {} {} {} {name}", info.conv, info.unread, info.last_seq)
            });
        }
        Event::Found { user, name, online, .. } => {
            format!("user {user} {} {}", word(name), presence(*online))
        }
        Event::Marked { conv, seq, .. } => format!("marked {conv} {seq}"),
        Event::Refused { refusal, .. } => error(refusal),
        Event::Done { .. } => "done".into(),
        Event::Friends { list, .. } => {
            return listed("friends", list, |friend| {
                let (name, state) = (word(&friend.name), state_word(friend.state));
                format!("friendship {} {name} {state} {}", friend.user, presence(friend.online))
            });
        }
        Event::Blocked { list, .. } => {
            let names: String = list.iter().map(|(_, name)| format!(" {}", word(name))).collect();
            format!("blocked {}{names}", list.len())
        }
        Event::GroupCreated { conv, .. } => format!("created {conv}"),
        Event::Members { conv, list, more, .. } => {
            let mut lines = listed("members", list, |member| {
                let (name, role) = (word(&member.name), member.role.as_str());
                format!("member {conv} {} {name} {role} {}", member.user, presence(member.online))
            });
            if let Some(last) = lines.last_mut() {
                *last = format!("members {conv} {} {}", list.len(), if *more { "more" } else { "all" });
            }
            return lines;
        }
        Event::Groups { list, .. } => return listed("groups", list, group_line),
        Event::Friendship { event, user, name } => {
            format!("friend {} {user} {}", friend_word(*event), word(name))
        }
        Event::Presence { user, name, online } => {
            format!("presence {user} {} {}", word(name), presence(*online))
        }
        Event::Invited { conv, name, from } => format!("invite {conv} {} {}", word(from), quote(name)),
        Event::Bye { code, message } => format!("bye {} {}", word(code), quote(message)),
    };
    vec![line]
}

/// A line for each item, and one with their number.
fn listed<T>(kind: &str, list: &[T], line: impl Fn(&T) -> String) -> Vec<String> {
    let count = format!("{kind} {}", list.len());
    list.iter().map(line).chain([count]).collect()
}

const fn presence(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

const fn state_word(state: FriendState) -> &'static str {
    match state {
        FriendState::Friend => "friend",
        FriendState::Requested => "requested",
        FriendState::Incoming => "incoming",
    }
}

const fn friend_word(event: FriendEvent) -> &'static str {
    match event {
        FriendEvent::Requested => "requested",
        FriendEvent::Accepted => "accepted",
        FriendEvent::Rejected => "rejected",
        FriendEvent::Removed => "removed",
    }
}

fn group_line(group: &Group) -> String {
    let role = group.role.map_or("invited", schema::group::Role::as_str);
    format!("group {} {role} {} {}", group.conv, group.members, quote(&group.name))
}

/// A text is quoted; what happened to a group is a word and whom it is about.
fn entry_line(kind: &str, conv: ConvId, entry: &Entry) -> String {
    let what = match &entry.content {
        Content::Text(text) => quote(text),
        Content::Event(event) => event_words(event),
    };
    format!("{kind} {conv} {} {} {what}", entry.seq, word(&entry.from_name))
}

fn event_words(event: &GroupEvent<'_>) -> String {
    let user = event.user();
    let known = |name: &Option<std::borrow::Cow<'_, str>>| match name {
        Some(name) => format!(" {}", word(name)),
        None => String::new(),
    };
    match event {
        GroupEvent::Created { name, .. } => format!("created {user} {}", quote(name)),
        GroupEvent::Joined { .. } => format!("joined {user}"),
        GroupEvent::Left { .. } => format!("left {user}"),
        GroupEvent::Kicked { name, .. } => format!("kicked {user}{}", known(name)),
        GroupEvent::Renamed { name, .. } => format!("renamed {user} {}", quote(name)),
        GroupEvent::Role { name, role, .. } => format!("role {user} {}{}", role.as_str(), known(name)),
    }
}

/// A user of a conversation, by name where it is known.
fn who(service: &ClientService, conv: ConvId, user: UserId) -> String {
    let known = service.conversation(conv).filter(|conversation| conversation.peer == Some(user));
    let name = known.map(|conversation| conversation.name.as_str()).or_else(|| service.name_of(user));
    name.map_or_else(|| user.to_string(), word)
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
