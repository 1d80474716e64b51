//! What people say about friends and groups, on the screen behind a slash and in scripts as it stands.

use schema::ConvId;
use schema::group::Role;

use crate::service::{ClientService, FriendAct, GroupAct, Question, Refusal};

/// A command about friends or groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Do something about friendship with a user.
    Friend(FriendAct, String),
    Friends,
    Blocked,
    Groups,
    /// Make a group.
    Create {
        name: String,
        open: bool,
    },
    /// Do something in a group; without one, in the one that is open.
    Group(GroupAct, Option<String>),
    /// Who is in a group; without one, in the one that is open.
    Members(Option<String>),
}

/// The commands, with what they do.
pub(crate) const ORDERS: &[(&str, &str)] = &[
    ("friend add|remove USER", "ask USER to be a friend; be friends no longer"),
    ("friend accept|reject USER", "answer who has asked"),
    ("friends", "your friends, and who is online"),
    ("block USER, unblock USER", "no messages, requests or invitations from USER"),
    ("blocked", "whom you have blocked"),
    ("group create [--open] NAME", "make a group; anyone may join an open one"),
    ("group join GROUP", "accept an invitation, or join an open group"),
    ("group leave [GROUP]", "leave it"),
    ("group invite|kick USER [GROUP]", "for its owner and admins"),
    ("group role USER ROLE [GROUP]", "ROLE is owner, admin or member; for its owner"),
    ("group rename [#NUMBER] NAME", "for its owner and admins"),
    ("group members [GROUP]", "who is in it"),
    ("groups", "your groups and invitations"),
];

/// The words behind `friend`.
pub(crate) const FRIEND_WORDS: &[&str] = &["accept", "add", "reject", "remove"];

/// The words behind `group`.
pub(crate) const GROUP_WORDS: &[&str] =
    &["create", "invite", "join", "kick", "leave", "members", "rename", "role"];

impl Order {
    /// Reads a command whose first word is `word`. `None` when it is about something else, what is wrong with it when it is no good.
    pub(crate) fn parse(word: &str, rest: &str) -> Option<Result<Self, String>> {
        let rest = rest.trim();
        let user = |act, usage: &str| match one_word(rest) {
            Some(name) => Ok(Self::Friend(act, name)),
            None => Err(format!("usage: {usage}")),
        };
        Some(match word {
            "friends" => Ok(Self::Friends),
            "blocked" => Ok(Self::Blocked),
            "groups" => Ok(Self::Groups),
            "block" => user(FriendAct::Block, "block USER"),
            "unblock" => user(FriendAct::Unblock, "unblock USER"),
            "friend" => Self::friend(rest),
            "group" => Self::group(rest),
            _ => return None,
        })
    }

    fn friend(rest: &str) -> Result<Self, String> {
        let usage = || "usage: friend add|accept|reject|remove USER".to_owned();
        let (word, name) = split(rest);
        let act = match word {
            "add" => FriendAct::Request,
            "accept" => FriendAct::Accept,
            "reject" => FriendAct::Reject,
            "remove" => FriendAct::Remove,
            _ => return Err(usage()),
        };
        one_word(name).map(|name| Self::Friend(act, name)).ok_or_else(usage)
    }

    fn group(rest: &str) -> Result<Self, String> {
        let (word, rest) = split(rest);
        let group = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let member = |act: fn(String) -> GroupAct| {
            let (user, text) = split(rest);
            match one_word(user) {
                Some(user) => Ok(Self::Group(act(user), group(text))),
                None => Err(format!("usage: group {word} USER [GROUP]")),
            }
        };
        match word {
            "create" => {
                let (open, name) = match rest.strip_prefix("--open") {
                    Some(name) if name.is_empty() || name.starts_with(char::is_whitespace) => {
                        (true, name.trim())
                    }
                    _ => (false, rest),
                };
                match group(name) {
                    Some(name) => Ok(Self::Create { name, open }),
                    None => Err("usage: group create [--open] NAME".into()),
                }
            }
            "join" if rest.is_empty() => Err("usage: group join GROUP".into()),
            "join" => Ok(Self::Group(GroupAct::Join, group(rest))),
            "leave" => Ok(Self::Group(GroupAct::Leave, group(rest))),
            "invite" => member(GroupAct::Invite),
            "kick" => member(GroupAct::Kick),
            "role" => Self::role(rest),
            "rename" => Self::rename(rest),
            "members" => Ok(Self::Members(group(rest))),
            _ => Err(format!("usage: group {} …", GROUP_WORDS.join("|"))),
        }
    }

    fn role(rest: &str) -> Result<Self, String> {
        let (user, rest) = split(rest);
        let (role, group) = split(rest);
        match (one_word(user), Role::from_word(role)) {
            (Some(user), Some(role)) => {
                let group = (!group.is_empty()).then(|| group.to_owned());
                Ok(Self::Group(GroupAct::Role(user, role), group))
            }
            _ => Err("usage: group role USER owner|admin|member [GROUP]".into()),
        }
    }

    /// A number with its sign before the new name says which group; a name may have blanks and so cannot.
    fn rename(rest: &str) -> Result<Self, String> {
        let (first, name) = split(rest);
        let number = first.strip_prefix('#').is_some_and(|number| number.parse::<u64>().is_ok());
        let (group, name) =
            if number && !name.is_empty() { (Some(first.to_owned()), name) } else { (None, rest) };
        if name.is_empty() {
            return Err("usage: group rename [#NUMBER] NAME".into());
        }
        Ok(Self::Group(GroupAct::Rename(name.to_owned()), group))
    }

    /// What to ask the server; `open` is the group that is meant when none was named.
    ///
    /// # Errors
    /// When no group was named and none is open, or there is none of that name.
    pub(crate) fn question(
        &self,
        service: &ClientService,
        open: Option<ConvId>,
    ) -> Result<Question, Refusal> {
        let find = |group: &Option<String>| match group {
            Some(text) => service.find_group(text),
            None => open.ok_or_else(|| Refusal::new("usage", "which group? none is open")),
        };
        Ok(match self {
            Self::Friend(act, name) => Question::Friend { act: *act, name: name.clone() },
            Self::Friends => Question::Friends,
            Self::Blocked => Question::Blocked,
            Self::Groups => Question::Groups,
            Self::Create { name, open } => Question::GroupCreate { name: name.clone(), open: *open },
            Self::Group(act, group) => Question::Group { conv: find(group)?, act: act.clone() },
            Self::Members(group) => Question::Members { conv: find(group)? },
        })
    }

    /// What there is to say when it is done, besides what the group itself shows.
    pub(crate) fn done(&self) -> Option<String> {
        Some(match self {
            Self::Friend(FriendAct::Request, name) => format!("{name} is asked to be a friend"),
            Self::Friend(FriendAct::Accept, name) => format!("you and {name} are friends"),
            Self::Friend(FriendAct::Reject, name) => format!("the request of {name} is turned down"),
            Self::Friend(FriendAct::Remove, name) => format!("{name} is not a friend any more"),
            Self::Friend(FriendAct::Block, name) => format!("{name} is blocked"),
            Self::Friend(FriendAct::Unblock, name) => format!("{name} is not blocked any more"),
            Self::Group(GroupAct::Invite(name), _) => format!("{name} is invited"),
            Self::Group(GroupAct::Leave, _) => "you have left the group".into(),
            _ => return None,
        })
    }
}

/// The first word, and what comes after it.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// A name: one word, an `@` before it or not.
fn one_word(text: &str) -> Option<String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    (!name.is_empty() && !name.contains(char::is_whitespace)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Result<Order, String>> {
        let (word, rest) = split(line);
        Order::parse(word, rest)
    }

    fn group(act: GroupAct, group: Option<&str>) -> Order {
        Order::Group(act, group.map(str::to_owned))
    }

    #[test]
    fn commands_about_friends_and_groups_are_read() {
        let bob = || "bob".to_owned();
        for (line, expected) in [
            ("friend add @bob", Order::Friend(FriendAct::Request, bob())),
            ("friend accept bob", Order::Friend(FriendAct::Accept, bob())),
            ("friend reject  bob ", Order::Friend(FriendAct::Reject, bob())),
            ("friend remove bob", Order::Friend(FriendAct::Remove, bob())),
            ("block bob", Order::Friend(FriendAct::Block, bob())),
            ("unblock bob", Order::Friend(FriendAct::Unblock, bob())),
            ("friends", Order::Friends),
            ("blocked", Order::Blocked),
            ("groups", Order::Groups),
            ("group create the lunch", Order::Create { name: "the lunch".into(), open: false }),
            ("group create --open lunch", Order::Create { name: "lunch".into(), open: true }),
            ("group create --openly", Order::Create { name: "--openly".into(), open: false }),
            ("group join #55", group(GroupAct::Join, Some("#55"))),
            ("group leave", group(GroupAct::Leave, None)),
            ("group leave the lunch", group(GroupAct::Leave, Some("the lunch"))),
            ("group invite bob", group(GroupAct::Invite(bob()), None)),
            ("group kick bob #the lunch", group(GroupAct::Kick(bob()), Some("#the lunch"))),
            ("group role bob admin", group(GroupAct::Role(bob(), Role::Admin), None)),
            ("group role bob owner #5", group(GroupAct::Role(bob(), Role::Owner), Some("#5"))),
            ("group rename late lunch", group(GroupAct::Rename("late lunch".into()), None)),
            ("group rename #55 late lunch", group(GroupAct::Rename("late lunch".into()), Some("#55"))),
            ("group rename #1", group(GroupAct::Rename("#1".into()), None)),
            ("group members", Order::Members(None)),
        ] {
            assert_eq!(parse(line), Some(Ok(expected)), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_says_how_it_should_be() {
        for line in [
            "friend",
            "friend add",
            "friend bob",
            "friend add bob carol",
            "block",
            "unblock a b",
            "group",
            "group dance",
            "group create",
            "group create --open ",
            "group join",
            "group invite",
            "group kick",
            "group role bob",
            "group role bob boss",
            "group rename",
        ] {
            let wrong = parse(line).expect("it is one of ours").unwrap_err();
            assert!(wrong.starts_with("usage: "), "{line}: {wrong}");
        }
        assert_eq!(parse("who bob"), None);
    }
}
