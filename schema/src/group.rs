//! Groups, as the protocol shows them: roles, what happens to a group, and its lists.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::{ConvId, UserId};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything; there is one.
    Owner,
    /// Invite, kick and rename.
    Admin,
    /// Read and write.
    Member,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Admin, Self::Member];

    /// The role as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// An entry of a group that is not text. Who caused it is the entry's `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum GroupEvent<'a> {
    /// The group was made; `seq` 1, and its owner's joining.
    Created {
        /// The owner.
        user: UserId,
        /// The group's name.
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
    /// Somebody became a member.
    Joined {
        /// Who.
        user: UserId,
    },
    /// A member left.
    Left {
        /// Who.
        user: UserId,
    },
    /// A member was put out.
    Kicked {
        /// Who.
        user: UserId,
        /// Their name, for they are not `from` and perhaps nowhere else to be found.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        name: Option<Cow<'a, str>>,
    },
    /// The group is called otherwise.
    Renamed {
        /// Who did it.
        user: UserId,
        /// The group's new name.
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
    /// A member has another role.
    Role {
        /// Who.
        user: UserId,
        /// Their name.
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        name: Option<Cow<'a, str>>,
        /// The new role.
        role: Role,
    },
}

impl GroupEvent<'_> {
    /// Whom it is about.
    #[must_use]
    pub const fn user(&self) -> UserId {
        match self {
            Self::Created { user, .. }
            | Self::Joined { user }
            | Self::Left { user }
            | Self::Kicked { user, .. }
            | Self::Renamed { user, .. }
            | Self::Role { user, .. } => *user,
        }
    }

    /// The same event, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> GroupEvent<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Created { user, name } => GroupEvent::Created { user, name: own(name) },
            Self::Joined { user } => GroupEvent::Joined { user },
            Self::Left { user } => GroupEvent::Left { user },
            Self::Kicked { user, name } => GroupEvent::Kicked { user, name: name.map(own) },
            Self::Renamed { user, name } => GroupEvent::Renamed { user, name: own(name) },
            Self::Role { user, name, role } => GroupEvent::Role { user, name: name.map(own), role },
        }
    }
}

/// The `ok` of `group_create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCreated {
    /// The new group.
    pub conv: ConvId,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo<'a> {
    /// The member.
    pub user: UserId,
    /// Their name.
    pub name: Cow<'a, str>,
    /// What they may do.
    pub role: Role,
    /// Whether they have a session.
    pub online: bool,
}

/// The `ok` of `group_members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMembers<'a> {
    /// In increasing `user`.
    #[serde(borrow)]
    pub members: Vec<MemberInfo<'a>>,
    /// Whether there are more.
    pub more: bool,
}

/// A group, as a member or somebody who is invited sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo<'a> {
    /// The group.
    pub conv: ConvId,
    /// Its name.
    pub name: Cow<'a, str>,
    /// The user's role; whoever is only invited has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// How many members it has.
    pub members: u64,
    /// Whether the user is invited and no member yet.
    pub invited: bool,
}

/// The `ok` of `groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups<'a> {
    /// In increasing `conv`.
    #[serde(borrow)]
    pub groups: Vec<GroupInfo<'a>>,
    /// Whether there are more.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_word_is_the_one_in_json() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.as_str()));
            assert_eq!(Role::from_word(role.as_str()), Some(role));
        }
        assert_eq!(Role::from_word("Owner"), None);
    }
}
