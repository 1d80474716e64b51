//! Who the user's friends are, and what everybody is called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schema::UserId;
use schema::friend::{FriendEvent, FriendInfo, FriendState};
use schema::text::name_key;

use super::ClientService;
use super::ask::Question;
use super::event::Event;
use crate::limits::NAMES_KEPT;

/// A friend, or who is to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Friend {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) state: FriendState,
    pub(crate) online: bool,
}

impl From<&FriendInfo<'_>> for Friend {
    fn from(info: &FriendInfo<'_>) -> Self {
        Self { user: info.user, name: info.name.to_string(), state: info.state, online: info.online }
    }
}

/// What is known of other users.
#[derive(Debug, Default)]
pub(super) struct People {
    friends: BTreeMap<UserId, Friend>,
    /// What users are called, as far as they were seen.
    names: HashMap<UserId, Arc<str>>,
}

impl People {
    /// A user was seen under this name.
    pub(super) fn saw(&mut self, user: UserId, name: &str) {
        if self.names.get(&user).is_some_and(|known| known.as_ref() == name) {
            return;
        }
        if self.names.len() < NAMES_KEPT || self.names.contains_key(&user) {
            self.names.insert(user, Arc::from(name));
        }
    }
}

impl ClientService {
    /// All friends, and who is to become one.
    pub(crate) fn friends(&self) -> impl Iterator<Item = &Friend> {
        self.people.friends.values()
    }

    /// Whether a user is online, as far as that is known: of friends alone.
    pub(crate) fn presence(&self, name: &str) -> Option<bool> {
        let key = name_key(name);
        let known = |friend: &&Friend| friend.state == FriendState::Friend && name_key(&friend.name) == key;
        self.friends().find(known).map(|friend| friend.online)
    }

    /// What a user is called, as far as they were seen.
    pub(crate) fn name_of(&self, user: UserId) -> Option<&str> {
        match &self.me {
            Some(me) if me.id == user => Some(&me.name),
            _ => self.people.names.get(&user).map(AsRef::as_ref),
        }
    }

    /// The names of all users that were seen.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.people.names.values().map(AsRef::as_ref)
    }

    /// The whole list of friends has come.
    pub(super) fn handle_friends(&mut self, list: &[Friend]) {
        list.iter().for_each(|friend| self.people.saw(friend.user, &friend.name));
        self.people.friends = list.iter().map(|friend| (friend.user, friend.clone())).collect();
    }

    /// Somebody did something about friendship.
    pub(super) fn handle_friend(&mut self, event: FriendEvent, user: UserId, name: &str) {
        self.people.saw(user, name);
        let state = match event {
            FriendEvent::Requested => Some(FriendState::Incoming),
            FriendEvent::Accepted => Some(FriendState::Friend),
            FriendEvent::Rejected | FriendEvent::Removed => None,
        };
        // At each login the open requests are told again.
        let news = self.people.friends.get(&user).map(|friend| friend.state) != state;
        match state {
            Some(state) => {
                let online = event == FriendEvent::Accepted;
                let friend = Friend { user, name: name.to_owned(), state, online };
                self.people.friends.insert(user, friend);
            }
            None => {
                self.people.friends.remove(&user);
            }
        }
        if news {
            self.events.push_back(Event::Friendship { event, user, name: name.to_owned() });
        }
        // It was a hint: the truth is in the list.
        self.refresh(Question::Friends);
    }

    /// A friend came or went.
    pub(super) fn handle_presence(&mut self, user: UserId, name: &str, online: bool) {
        self.people.saw(user, name);
        if let Some(friend) = self.people.friends.get_mut(&user) {
            friend.online = online;
        }
        self.events.push_back(Event::Presence { user, name: name.to_owned(), online });
    }

    /// The streams run and all that was missed is here: what else there is to know?
    pub(super) fn ask_around(&mut self) {
        self.refresh(Question::Friends);
        self.refresh(Question::Groups);
        if let Some(conv) = self.shown {
            self.ask_members(conv);
        }
        self.pump_asks();
    }
}
