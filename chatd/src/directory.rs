//! Who is logged in on this node: what needs to be known across loops, touched at login, logout and look-ups only.

use parking_lot::Mutex;
use reactor::ConnId;
use rustc_hash::FxHashMap;
use schema::limits::SESSIONS_PER_USER_MAX;
use schema::login::TokenId;
use schema::{SessionId, UserId};
use smallvec::SmallVec;

/// A live session and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) session: SessionId,
    pub(crate) token: TokenId,
    pub(crate) conn: ConnId,
}

/// All live sessions of this node by user, each user's in the order of their logins.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: Mutex<FxHashMap<UserId, SmallVec<[Live; 1]>>>,
}

impl Directory {
    /// Adds a session. The oldest one comes back when the user now holds too many; it is no longer listed.
    pub(crate) fn enter(&self, user: UserId, live: Live) -> Option<Live> {
        let mut users = self.users.lock();
        let sessions = users.entry(user).or_default();
        sessions.push(live);
        if sessions.len() > SESSIONS_PER_USER_MAX { Some(sessions.remove(0)) } else { None }
    }

    /// Takes a session out, whether it is listed or not: the clean-up of an old one never hits a newer one.
    pub(crate) fn leave(&self, user: UserId, session: SessionId) {
        let mut users = self.users.lock();
        if let Some(sessions) = users.get_mut(&user) {
            sessions.retain(|live| live.session != session);
            if sessions.is_empty() {
                users.remove(&user);
            }
        }
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.users.lock().contains_key(&user)
    }

    /// The user's sessions that rest on one of these tokens.
    pub(crate) fn with_tokens(&self, user: UserId, tokens: &[TokenId]) -> Vec<Live> {
        let users = self.users.lock();
        let sessions = users.get(&user).map(SmallVec::as_slice).unwrap_or_default();
        sessions.iter().filter(|live| tokens.contains(&live.token)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(number: u64) -> Live {
        let session = SessionId::new(number).unwrap();
        Live {
            session,
            token: TokenId([u8::try_from(number % 2).unwrap(); 32]),
            conn: ConnId::from_parts(0, number),
        }
    }

    #[test]
    fn the_ninth_session_ends_the_oldest() {
        let directory = Directory::default();
        let user = UserId::new(1).unwrap();
        for number in 1..=8 {
            assert_eq!(directory.enter(user, live(number)), None);
        }
        assert_eq!(directory.enter(user, live(9)), Some(live(1)));
        assert_eq!(directory.with_tokens(user, &[TokenId([1; 32])]).len(), 4);
    }

    #[test]
    fn a_late_clean_up_leaves_the_new_session_alone() {
        let directory = Directory::default();
        let user = UserId::new(1).unwrap();
        directory.enter(user, live(1));
        directory.enter(user, live(2));
        directory.leave(user, live(1).session);
        directory.leave(user, live(1).session);
        assert!(directory.is_online(user));
        directory.leave(user, live(2).session);
        assert!(!directory.is_online(user));
    }
}
