//! Who is logged in on this node: what needs to be known across loops, touched at login, logout and look-ups only.

use std::time::{Duration, Instant};

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

/// How long a revocation is remembered, for logins that were under way when it came. Far longer than an answer waits in a loop's queue.
const REVOKED_FOR: Duration = Duration::from_secs(60);
/// Revocations at which old ones are looked for.
const REVOKED_SWEEP: usize = 1_024;

/// All live sessions of this node by user, each user's in the order of their logins.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    users: FxHashMap<UserId, SmallVec<[Live; 1]>>,
    /// Users whose friends were told that they are online; of those without a session, since when.
    announced: FxHashMap<UserId, Instant>,
    revoked: FxHashMap<TokenId, Instant>,
}

/// What entering the directory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Fine,
    /// The user now held too many sessions; this one, the oldest, is no longer listed.
    Replaced(Live),
    /// The token was revoked while the login was under way: the new session must end too.
    Revoked,
}

impl Directory {
    /// Adds a session.
    pub(crate) fn enter(&self, user: UserId, live: Live) -> Entered {
        let mut state = self.state.lock();
        let revoked = state.revoked.contains_key(&live.token);
        let sessions = state.users.entry(user).or_default();
        sessions.push(live);
        if revoked {
            Entered::Revoked
        } else if sessions.len() > SESSIONS_PER_USER_MAX {
            Entered::Replaced(sessions.remove(0))
        } else {
            Entered::Fine
        }
    }

    /// Notes that tokens are revoked and says which of the user's sessions rest on them.
    pub(crate) fn revoke(&self, user: UserId, tokens: &[TokenId], now: Instant) -> Vec<Live> {
        let mut state = self.state.lock();
        if state.revoked.len() + tokens.len() > REVOKED_SWEEP {
            state.revoked.retain(|_, since| now.saturating_duration_since(*since) < REVOKED_FOR);
        }
        state.revoked.extend(tokens.iter().map(|token| (*token, now)));
        let sessions = state.users.get(&user).map(SmallVec::as_slice).unwrap_or_default();
        sessions.iter().filter(|live| tokens.contains(&live.token)).copied().collect()
    }

    /// The user's sessions but this one.
    pub(crate) fn others(&self, user: UserId, but: Option<SessionId>) -> Vec<Live> {
        let state = self.state.lock();
        let sessions = state.users.get(&user).map(SmallVec::as_slice).unwrap_or_default();
        sessions.iter().filter(|live| Some(live.session) != but).copied().collect()
    }

    /// Takes a session out, whether it is listed or not: the clean-up of an old one never hits a newer one. Says whether it was the user's last.
    pub(crate) fn leave(&self, user: UserId, session: SessionId, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(sessions) = state.users.get_mut(&user) else { return false };
        sessions.retain(|live| live.session != session);
        let last = sessions.is_empty();
        if last {
            state.users.remove(&user);
            if let Some(since) = state.announced.get_mut(&user) {
                *since = now;
            }
        }
        last
    }

    /// Whether the user's friends are to be told now that it is online: once, until it has gone.
    pub(crate) fn announce(&self, user: UserId) -> bool {
        let mut state = self.state.lock();
        // Of whoever has a session the time means nothing.
        state.users.contains_key(&user) && state.announced.insert(user, Instant::now()).is_none()
    }

    /// Whether the user's friends are to be told now that it has gone: when it has had no session for this time, and they believe it has.
    pub(crate) fn withdraw(&self, user: UserId, now: Instant, after: Duration) -> bool {
        let mut state = self.state.lock();
        let is_due = state.announced.get(&user).is_some_and(|left| *left + after <= now);
        is_due && !state.users.contains_key(&user) && state.announced.remove(&user).is_some()
    }

    /// All live sessions with their users, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<(UserId, Live)> {
        let state = self.state.lock();
        let mut all: Vec<_> =
            state.users.iter().flat_map(|(user, lives)| lives.iter().map(|live| (*user, *live))).collect();
        all.sort_unstable_by_key(|(_, live)| live.session);
        all
    }

    /// How many users have a session.
    pub(crate) fn online(&self) -> usize {
        self.state.lock().users.len()
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.state.lock().users.contains_key(&user)
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
            assert_eq!(directory.enter(user, live(number)), Entered::Fine);
        }
        assert_eq!(directory.enter(user, live(9)), Entered::Replaced(live(1)));
        assert_eq!(directory.revoke(user, &[TokenId([1; 32])], Instant::now()).len(), 4);
    }

    #[test]
    fn a_token_revoked_during_its_login_lets_nobody_in() {
        let directory = Directory::default();
        let user = UserId::new(1).unwrap();
        assert!(directory.revoke(user, &[live(1).token], Instant::now()).is_empty());
        assert_eq!(directory.enter(user, live(1)), Entered::Revoked);
        assert_eq!(directory.enter(user, live(2)), Entered::Fine);
    }

    #[test]
    fn a_late_clean_up_leaves_the_new_session_alone() {
        let directory = Directory::default();
        let user = UserId::new(1).unwrap();
        directory.enter(user, live(1));
        directory.enter(user, live(2));
        directory.leave(user, live(1).session, Instant::now());
        directory.leave(user, live(1).session, Instant::now());
        assert!(directory.is_online(user));
        directory.leave(user, live(2).session, Instant::now());
        assert!(!directory.is_online(user));
    }

    #[test]
    fn a_user_has_gone_when_it_has_had_no_session_for_the_time() {
        let directory = Directory::default();
        let (user, start, time) = (UserId::new(1).unwrap(), Instant::now(), Duration::from_secs(5));
        directory.enter(user, live(1));
        assert!(directory.announce(user) && !directory.announce(user));
        directory.leave(user, live(1).session, start);
        directory.enter(user, live(2));
        assert!(!directory.announce(user), "it has not gone");
        directory.leave(user, live(2).session, start + time / 2);
        assert!(!directory.withdraw(user, start + time, time));
        assert!(directory.withdraw(user, start + time * 2, time));
        assert!(!directory.withdraw(user, start + time * 2, time), "once");
    }
}
