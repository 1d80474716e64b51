//! Friends and blocks, as the protocol shows them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// How two users stand, seen by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FriendState {
    /// They are friends.
    Friend,
    /// The user has asked and waits for the other.
    Requested,
    /// The other has asked and waits for the user.
    Incoming,
}

/// What the other one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FriendEvent {
    /// They ask to be a friend.
    Requested,
    /// They said yes.
    Accepted,
    /// They said no.
    Rejected,
    /// They are a friend no longer, or have taken their request back.
    Removed,
}

/// A friend, or who is to become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FriendInfo<'a> {
    /// The other user.
    pub user: UserId,
    /// Their name.
    pub name: Cow<'a, str>,
    /// How they stand.
    pub state: FriendState,
    /// Whether they have a session; always `false` for who is no friend.
    pub online: bool,
}

/// The `ok` of `friends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Friends<'a> {
    /// In increasing `user`.
    #[serde(borrow)]
    pub friends: Vec<FriendInfo<'a>>,
    /// Whether there are more.
    pub more: bool,
}

/// A user who is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedUser<'a> {
    /// The user.
    pub user: UserId,
    /// Their name.
    pub name: Cow<'a, str>,
}

/// The `ok` of `blocked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked<'a> {
    /// In increasing `user`.
    #[serde(borrow)]
    pub users: Vec<BlockedUser<'a>>,
    /// Whether there are more.
    pub more: bool,
}
