//! The user's groups, who is in them, and what happens to them.

use std::collections::BTreeMap;

use schema::group::{GroupEvent, GroupInfo, MemberInfo, Role};
use schema::reply::Kind;
use schema::text::name_key;
use schema::{ConvId, UserId};

use super::ask::Question;
use super::conversation::Conversation;
use super::event::{Content, Entry, Event};
use super::{ClientService, Refusal};

/// A group that the user is in or is invited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) conv: ConvId,
    pub(crate) name: String,
    /// The user's role; none while invited only.
    pub(crate) role: Option<Role>,
    pub(crate) members: u64,
    pub(crate) invited: bool,
}

impl From<&GroupInfo<'_>> for Group {
    fn from(info: &GroupInfo<'_>) -> Self {
        Self {
            conv: info.conv,
            name: info.name.to_string(),
            role: info.role.filter(|_| !info.invited),
            members: info.members,
            invited: info.invited,
        }
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) online: bool,
}

impl From<&MemberInfo<'_>> for Member {
    fn from(info: &MemberInfo<'_>) -> Self {
        Self { user: info.user, name: info.name.to_string(), role: info.role, online: info.online }
    }
}

impl ClientService {
    /// All groups that the user is in or is invited to.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// One of them.
    pub(crate) fn group(&self, conv: ConvId) -> Option<&Group> {
        self.groups.get(&conv)
    }

    /// The group that a person means by `text`: a name or the number of the conversation, a `#` before it or not.
    ///
    /// # Errors
    /// When there is none by that name, or several are.
    pub(crate) fn find_group(&self, text: &str) -> Result<ConvId, Refusal> {
        let plain = text.strip_prefix('#').unwrap_or(text);
        let key = name_key(plain);
        let known = self.groups.values().map(|group| (group.conv, group.name.as_str()));
        let talks = self.conversations.values().filter(|conversation| conversation.kind == Kind::Group);
        let all: BTreeMap<ConvId, &str> =
            known.chain(talks.map(|found| (found.conv, found.name.as_str()))).collect();
        let mut named = all.iter().filter(|(_, name)| name_key(name) == key).map(|(conv, _)| *conv);
        match (named.next(), named.next()) {
            (Some(conv), None) => Ok(conv),
            (Some(one), Some(other)) => {
                let message = format!("several groups are called {plain}: say #{one} or #{other}");
                Err(Refusal::new("conflict", message))
            }
            // Any number will do: one may join a group of which one has only heard.
            (None, _) => plain
                .parse()
                .ok()
                .and_then(ConvId::new)
                .ok_or_else(|| Refusal::new("not_found", format!("there is no group called {plain}"))),
        }
    }

    /// The group that `line` begins with, as [`find_group`](Self::find_group) knows it, and the text behind it. A name may have several words: the longest that is one counts.
    ///
    /// # Errors
    /// When it begins with no group, with a name that several groups have, or when nothing is behind it.
    pub(crate) fn split_group<'a>(&self, line: &'a str) -> Result<(ConvId, &'a str), Refusal> {
        let line = line.trim();
        let ends = line.char_indices().filter(|(_, char)| char.is_whitespace()).map(|(at, _)| at);
        let mut first = Err(Refusal::new("usage", "usage: /msg #GROUP TEXT"));
        for end in ends.collect::<Vec<_>>().into_iter().rev() {
            let (name, text) = line.split_at(end);
            if name.ends_with(char::is_whitespace) {
                continue;
            }
            first = self.find_group(name).map(|conv| (conv, text.trim_start()));
            if first.as_ref().map_or_else(|refusal| refusal.code != "not_found", |_| true) {
                return first;
            }
        }
        // What was meant as the text is a part of the name.
        let is_whole = first.is_err() && self.find_group(line).is_ok();
        if is_whole { Err(Refusal::new("usage", "usage: /msg #GROUP TEXT")) } else { first }
    }

    /// The whole list of groups has come.
    pub(super) fn handle_groups(&mut self, list: &[Group]) {
        self.groups = list.iter().map(|group| (group.conv, group.clone())).collect();
        for conversation in self.conversations.values_mut().filter(|found| found.kind == Kind::Group) {
            let group = self.groups.get(&conversation.conv);
            conversation.gone = group.is_none_or(|group| group.invited);
            if let Some(group) = group {
                conversation.name.clone_from(&group.name);
            }
        }
    }

    /// The first members of a group have come.
    pub(super) fn handle_members(&mut self, conv: ConvId, list: &[Member], all: bool) {
        list.iter().for_each(|member| self.people.saw(member.user, &member.name));
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            conversation.members = list.iter().map(|member| (member.user, member.clone())).collect();
            conversation.members_known = all;
        }
    }

    /// Asks who is in a group.
    pub(super) fn ask_members(&mut self, conv: ConvId) {
        if self.conversations.get(&conv).is_some_and(|found| found.kind == Kind::Group && !found.gone) {
            self.refresh(Question::Members { conv });
        }
    }

    /// The user is invited.
    pub(super) fn handle_invite(&mut self, conv: ConvId, name: &str, from: UserId, from_name: &str) {
        self.people.saw(from, from_name);
        let known = self.groups.get(&conv).is_some_and(|group| group.invited);
        let group = Group { conv, name: name.to_owned(), role: None, members: 0, invited: true };
        self.groups.entry(conv).or_insert(group);
        // At each login the open invitations are told again.
        if !known {
            let (name, from) = (name.to_owned(), from_name.to_owned());
            self.events.push_back(Event::Invited { conv, name, from });
        }
    }

    /// An entry has arrived: what it changes about its group.
    pub(super) fn handle_group_entry(&mut self, conv: ConvId, entry: &Entry) {
        self.people.saw(entry.from, &entry.from_name);
        let Content::Event(event) = &entry.content else { return };
        let own = self.me.as_ref().is_some_and(|me| me.id == event.user());
        if let GroupEvent::Kicked { user, name: Some(name) }
        | GroupEvent::Role { user, name: Some(name), .. } = event.as_ref()
        {
            self.people.saw(*user, name);
        }
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            conversation.handle_event(event, entry, own);
        }
        match event.as_ref() {
            GroupEvent::Left { .. } | GroupEvent::Kicked { .. } if own => {
                self.groups.remove(&conv);
            }
            GroupEvent::Created { .. } | GroupEvent::Joined { .. } if own => self.refresh(Question::Groups),
            GroupEvent::Renamed { name, .. } => {
                if let Some(group) = self.groups.get_mut(&conv) {
                    group.name = name.to_string();
                }
            }
            GroupEvent::Role { role, .. } if own => {
                if let Some(group) = self.groups.get_mut(&conv) {
                    group.role = Some(*role);
                }
            }
            _ => {}
        }
    }
}

impl Conversation {
    /// Something happened to the group.
    fn handle_event(&mut self, event: &GroupEvent<'_>, entry: &Entry, own: bool) {
        let user = event.user();
        let member = |role| {
            let name = if user == entry.from { entry.from_name.to_string() } else { String::new() };
            Member { user, name, role, online: true }
        };
        match event {
            GroupEvent::Created { name, .. } => {
                self.name = name.to_string();
                self.members.insert(user, member(Role::Owner));
            }
            GroupEvent::Joined { .. } => {
                if own {
                    // What lies between is not ours to see.
                    self.stream.skip_to(entry.seq);
                    self.gone = false;
                } else {
                    self.reached.joined(user);
                }
                self.members.insert(user, member(Role::Member));
            }
            GroupEvent::Left { .. } | GroupEvent::Kicked { .. } => {
                self.gone |= own;
                self.members.remove(&user);
                self.reached.left(user);
            }
            GroupEvent::Renamed { name, .. } => self.name = name.to_string(),
            GroupEvent::Role { role, .. } => {
                if let Some(member) = self.members.get_mut(&user) {
                    member.role = *role;
                }
            }
        }
    }
}
