//! Friends, requests between them, and blocks.

use schema::UserId;

use crate::connection::Connection;
use crate::dao::{ConversationDao, UserDao};
use crate::entity::{Friend, FriendState, User};
use crate::error::{Denied, StoreError};
use crate::row::Row;

/// Makes and ends friendships, blocks and unblocks. Two rows tell of each pair, one for the view of each side.
#[derive(Debug)]
pub struct FriendDao<'a> {
    db: &'a mut Connection,
}

pub(super) const STATE: &str = "SELECT state FROM friend WHERE user = ? AND other = ?";
pub(super) const INSERT: &str = "INSERT INTO friend (user, other, state) VALUES (?, ?, ?)";
pub(super) const SET: &str = "UPDATE friend SET state = ? WHERE user = ? AND other = ?";
pub(super) const DELETE: &str = "DELETE FROM friend WHERE user = ? AND other = ?";
pub(super) const LIST: &str = "SELECT f.other, u.name, f.state FROM friend f JOIN user u ON u.id = f.other
    WHERE f.user = ? AND f.other > ? ORDER BY f.other LIMIT ?";
pub(super) const IS_BLOCKED: &str = "SELECT user FROM blocked WHERE user = ? AND other = ?";
pub(super) const BLOCK: &str = "INSERT INTO blocked (user, other) VALUES (?, ?)";
pub(super) const UNBLOCK: &str = "DELETE FROM blocked WHERE user = ? AND other = ?";
pub(super) const BLOCKED: &str = "SELECT b.other, u.name FROM blocked b JOIN user u ON u.id = b.other
    WHERE b.user = ? AND b.other > ? ORDER BY b.other LIMIT ?";
pub(super) const BUMP: &str = "UPDATE conversation SET members_version = members_version + 1 WHERE id = ?";

/// Rows that are looked at at once while a user is erased.
const ERASED_AT_ONCE: u32 = 500;

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// The other side is asked now, or again.
    Asked,
    /// The other side had asked before: they are friends now.
    Accepted,
    /// They are friends already.
    AlreadyFriends,
}

impl<'a> FriendDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// How `user` stands to `other`; `None` when neither has asked.
    ///
    /// # Errors
    /// The engine's.
    pub fn state(&mut self, user: UserId, other: UserId) -> Result<Option<FriendState>, StoreError> {
        self.db.query_row(STATE, &[user.into(), other.into()], |row| state(row, 0))
    }

    /// `user` asks `other`. A request that meets one in the other direction is an acceptance.
    ///
    /// # Errors
    /// The engine's.
    pub fn request(
        &mut self,
        user: UserId,
        other: UserId,
    ) -> Result<Result<(Requested, User), Denied>, StoreError> {
        if user == other {
            return Ok(Err(Denied::BadRequest("nobody is one's own friend here")));
        }
        let Some(found) = UserDao::new(self.db).by_id(other)? else { return Ok(Err(Denied::NotFound)) };
        if self.is_blocked(user, other)? {
            return Ok(Err(Denied::Forbidden("one of you has blocked the other")));
        }
        let came = match self.state(user, other)? {
            Some(FriendState::Friend) => Requested::AlreadyFriends,
            Some(FriendState::Requested) => Requested::Asked,
            Some(FriendState::Incoming) => {
                self.set_both(user, other, FriendState::Friend)?;
                Requested::Accepted
            }
            None => {
                self.db
                    .execute(INSERT, &[user.into(), other.into(), FriendState::Requested.as_i64().into()])?;
                self.db
                    .execute(INSERT, &[other.into(), user.into(), FriendState::Incoming.as_i64().into()])?;
                Requested::Asked
            }
        };
        Ok(Ok((came, found)))
    }

    /// `user` accepts what `other` has asked.
    ///
    /// # Errors
    /// The engine's.
    pub fn accept(&mut self, user: UserId, other: UserId) -> Result<Result<(), Denied>, StoreError> {
        if self.state(user, other)? != Some(FriendState::Incoming) {
            return Ok(Err(Denied::NotFound));
        }
        self.set_both(user, other, FriendState::Friend)?;
        Ok(Ok(()))
    }

    /// `user` rejects what `other` has asked.
    ///
    /// # Errors
    /// The engine's.
    pub fn reject(&mut self, user: UserId, other: UserId) -> Result<Result<(), Denied>, StoreError> {
        if self.state(user, other)? != Some(FriendState::Incoming) {
            return Ok(Err(Denied::NotFound));
        }
        self.delete_both(user, other)?;
        Ok(Ok(()))
    }

    /// `user` ends a friendship, or takes its own request back.
    ///
    /// # Errors
    /// The engine's.
    pub fn remove(&mut self, user: UserId, other: UserId) -> Result<Result<(), Denied>, StoreError> {
        match self.state(user, other)? {
            Some(FriendState::Friend | FriendState::Requested) => {}
            Some(FriendState::Incoming) | None => return Ok(Err(Denied::NotFound)),
        }
        self.delete_both(user, other)?;
        Ok(Ok(()))
    }

    /// The user's friends, and requests in both directions, in order of their ids, after the id `after`.
    ///
    /// # Errors
    /// The engine's.
    pub fn list(
        &mut self,
        user: UserId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Friend>, StoreError> {
        let params = [user.into(), after.map_or(0, UserId::as_i64).into(), i64::from(limit).into()];
        self.db.query(LIST, &params, |row| {
            Ok(Friend { user: row.get(0)?, name: row.get(1)?, state: state(row, 2)? })
        })
    }

    /// `user` blocks `other`: a friendship or request ends, and neither may write to the other directly any more. Says whether there was a friendship or request.
    ///
    /// # Errors
    /// The engine's.
    pub fn block(&mut self, user: UserId, other: UserId) -> Result<Result<bool, Denied>, StoreError> {
        if user == other {
            return Ok(Err(Denied::BadRequest("nobody can block oneself")));
        }
        if UserDao::new(self.db).by_id(other)?.is_none() {
            return Ok(Err(Denied::NotFound));
        }
        self.bump(user, other)?;
        let knew = self.state(user, other)?.is_some();
        self.delete_both(user, other)?;
        if !self.has_blocked(user, other)? {
            self.db.execute(BLOCK, &[user.into(), other.into()])?;
        }
        Ok(Ok(knew))
    }

    /// `user` no longer blocks `other`; `false` when it did not.
    ///
    /// # Errors
    /// The engine's.
    pub fn unblock(&mut self, user: UserId, other: UserId) -> Result<bool, StoreError> {
        self.bump(user, other)?;
        Ok(self.db.execute(UNBLOCK, &[user.into(), other.into()])? > 0)
    }

    /// Whom the user blocks, in order of their ids, after the id `after`. The friends' state is of no meaning here.
    ///
    /// # Errors
    /// The engine's.
    pub fn blocked(
        &mut self,
        user: UserId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<User>, StoreError> {
        let params = [user.into(), after.map_or(0, UserId::as_i64).into(), i64::from(limit).into()];
        self.db.query(BLOCKED, &params, |row| Ok(User { id: row.get(0)?, name: row.get(1)?, created_ms: 0 }))
    }

    /// Removes all that the user has to do with others: friendships and requests, on both sides, and its own blocks. Others may go on blocking it.
    ///
    /// # Errors
    /// The engine's.
    pub fn erase(&mut self, user: UserId) -> Result<(), StoreError> {
        loop {
            let some = self.list(user, None, ERASED_AT_ONCE)?;
            if some.is_empty() {
                break;
            }
            for friend in some {
                self.delete_both(user, friend.user)?;
            }
        }
        loop {
            let some = self.blocked(user, None, ERASED_AT_ONCE)?;
            if some.is_empty() {
                return Ok(());
            }
            for blocked in some {
                self.unblock(user, blocked.id)?;
            }
        }
    }

    /// Whether one of the two blocks the other.
    ///
    /// # Errors
    /// The engine's.
    pub fn is_blocked(&mut self, a: UserId, b: UserId) -> Result<bool, StoreError> {
        Ok(self.has_blocked(a, b)? || self.has_blocked(b, a)?)
    }

    fn has_blocked(&mut self, user: UserId, other: UserId) -> Result<bool, StoreError> {
        Ok(self.db.query_row(IS_BLOCKED, &[user.into(), other.into()], |_| Ok(()))?.is_some())
    }

    /// Whoever writes to the conversation of the two looks again whether it may. Comes first, for the conversation is what writers lock first.
    fn bump(&mut self, a: UserId, b: UserId) -> Result<(), StoreError> {
        if let Some(found) = ConversationDao::new(self.db).find_direct(a, b)? {
            self.db.execute(BUMP, &[found.id.into()])?;
        }
        Ok(())
    }

    fn set_both(&mut self, a: UserId, b: UserId, state: FriendState) -> Result<(), StoreError> {
        for (user, other) in [(a.min(b), a.max(b)), (a.max(b), a.min(b))] {
            self.db.execute(SET, &[state.as_i64().into(), user.into(), other.into()])?;
        }
        Ok(())
    }

    fn delete_both(&mut self, a: UserId, b: UserId) -> Result<(), StoreError> {
        for (user, other) in [(a.min(b), a.max(b)), (a.max(b), a.min(b))] {
            self.db.execute(DELETE, &[user.into(), other.into()])?;
        }
        Ok(())
    }
}

fn state(row: &Row<'_>, at: usize) -> Result<FriendState, StoreError> {
    let number = row.get(at)?;
    FriendState::from_i64(number).ok_or_else(|| StoreError::corrupt(format!("friend state {number}")))
}
