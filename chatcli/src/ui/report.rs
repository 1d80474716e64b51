//! What the program says of lists and of what happens in groups, in words.

use schema::UserId;
use schema::friend::{FriendEvent, FriendState};
use schema::group::GroupEvent;

use crate::service::{ClientService, Entry, Friend, Group, Listed, Member};

/// The conversations.
pub(super) fn conversations(service: &ClientService, list: &[Listed]) -> Vec<String> {
    if list.is_empty() {
        return vec!["no conversations yet: /to NAME begins one".into()];
    }
    let line = |info: &Listed| {
        let name = service.conversation(info.conv).map(|found| found.label().into_owned());
        let name = name.unwrap_or_else(|| info.name.clone());
        let unread = if info.unread > 0 { format!(", {} unread", info.unread) } else { String::new() };
        format!("{name}: {} messages{unread}", info.last_seq)
    };
    list.iter().map(line).collect()
}

/// Friends, and who is to become one.
pub(super) fn friends(list: &[Friend]) -> Vec<String> {
    if list.is_empty() {
        return vec!["no friends yet: /friend add NAME asks somebody".into()];
    }
    let line = |friend: &Friend| {
        let state = match friend.state {
            FriendState::Friend if friend.online => "online",
            FriendState::Friend => "offline",
            FriendState::Requested => "has not answered yet",
            FriendState::Incoming => "asks to be a friend: /friend accept or reject",
        };
        format!("{}: {state}", friend.name)
    };
    list.iter().map(line).collect()
}

/// Who is blocked.
pub(super) fn blocked(list: &[(UserId, String)]) -> String {
    if list.is_empty() {
        return "you have blocked nobody".into();
    }
    let names: Vec<&str> = list.iter().map(|(_, name)| name.as_str()).collect();
    format!("blocked: {}", names.join(", "))
}

/// Groups and invitations.
pub(super) fn groups(list: &[Group]) -> Vec<String> {
    if list.is_empty() {
        return vec!["no groups yet: /group create NAME makes one".into()];
    }
    let line = |group: &Group| {
        let (name, conv) = (&group.name, group.conv);
        match group.role {
            Some(role) => {
                format!("#{name} (#{conv}): {} members, you are {}", group.members, role.as_str())
            }
            None => format!("#{name} (#{conv}): you are invited: /group join #{conv}"),
        }
    };
    list.iter().map(line).collect()
}

/// The members of a group.
pub(super) fn members(list: &[Member], more: bool) -> String {
    let one = |member: &Member| {
        let role = match member.role {
            schema::group::Role::Member => String::new(),
            role => format!(" ({})", role.as_str()),
        };
        let online = if member.online { " •" } else { "" };
        format!("{}{role}{online}", member.name)
    };
    let names: Vec<String> = list.iter().map(one).collect();
    let more = if more { " and more" } else { "" };
    format!("{} members (• online): {}{more}", list.len(), names.join(", "))
}

/// What another user did about friendship.
pub(super) fn friendship(event: FriendEvent, name: &str) -> String {
    match event {
        FriendEvent::Requested => format!("{name} asks to be a friend: /friend accept {name}"),
        FriendEvent::Accepted => format!("{name} is a friend now"),
        FriendEvent::Rejected => format!("{name} does not want to be a friend"),
        FriendEvent::Removed => format!("{name} is not a friend any more"),
    }
}

/// What happened to a group.
pub(super) fn group_event(service: &ClientService, entry: &Entry, event: &GroupEvent<'_>) -> String {
    let by = &entry.from_name;
    let user = event.user();
    let told = match event {
        GroupEvent::Kicked { name, .. } | GroupEvent::Role { name, .. } => name.as_deref(),
        _ => None,
    };
    let own = user == entry.from;
    let who = || match told.or_else(|| service.name_of(user)) {
        _ if own => by.to_string(),
        Some(name) => name.to_owned(),
        None => format!("user {user}"),
    };
    match event {
        GroupEvent::Created { name, .. } => format!("{by} made the group {name}"),
        GroupEvent::Joined { .. } if own => format!("{by} joined"),
        GroupEvent::Joined { .. } => format!("{by} added {}", who()),
        GroupEvent::Left { .. } => format!("{} left", who()),
        GroupEvent::Kicked { .. } => format!("{by} removed {}", who()),
        GroupEvent::Renamed { name, .. } => format!("{by} renamed the group to {name}"),
        GroupEvent::Role { role, .. } => format!("{} is {} now", who(), with_article(role.as_str())),
    }
}

fn with_article(role: &str) -> String {
    match role {
        "owner" => "the owner".into(),
        "admin" => "an admin".into(),
        other => format!("a {other}"),
    }
}
