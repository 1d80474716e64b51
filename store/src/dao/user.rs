//! Users.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use schema::UserId;

use crate::connection::Connection;
use crate::dao::id::{IdDao, IdName};
use crate::entity::{Credentials, User};
use crate::error::StoreError;
use crate::row::{Param, Row};
use crate::rows::Rows;

/// Makes and finds users.
#[derive(Debug)]
pub struct UserDao<'a> {
    db: &'a mut Connection,
}

pub(super) const INSERT: &str =
    "INSERT INTO user (id, name, name_key, password_hash, created_ms) VALUES (?, ?, ?, ?, ?)";
pub(super) const BY_ID: &str = "SELECT id, name, created_ms FROM user WHERE id = ?";
pub(super) const BY_KEY: &str = "SELECT id, name, created_ms FROM user WHERE name_key = ?";
pub(super) const CREDENTIALS_BY_ID: &str =
    "SELECT id, name, created_ms, password_hash FROM user WHERE id = ?";
pub(super) const CREDENTIALS_BY_KEY: &str =
    "SELECT id, name, created_ms, password_hash FROM user WHERE name_key = ?";
pub(super) const SET_HASH: &str = "UPDATE user SET password_hash = ? WHERE id = ?";

pub(super) const LIST: &str =
    "SELECT id, name, created_ms, password_hash FROM user WHERE id > ? ORDER BY id LIMIT ?";
pub(super) const RENAME: &str = "UPDATE user SET name = ?, name_key = ?, password_hash = ? WHERE id = ?";

/// A password hash that no password fits, which becomes the one that it was made from when the account is enabled again.
#[must_use]
pub fn disabled(password_hash: &str) -> String {
    format!("!{password_hash}")
}

/// Whether a password hash is such a one.
#[must_use]
pub fn is_disabled(password_hash: &str) -> bool {
    password_hash.starts_with('!')
}

/// By the primary key, so it needs no place in the list of the plan test, which knows no repeated rows.
const NAMES: Rows =
    Rows { head: "SELECT id, name FROM user WHERE id IN (", row: "?", between: ", ", tail: ")" };

impl<'a> UserDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// Makes a user. `name_key` is what makes two spellings the same name.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when the name is taken.
    pub fn create(
        &mut self,
        name: &str,
        name_key: &str,
        password_hash: &str,
        now_ms: i64,
    ) -> Result<UserId, StoreError> {
        // Looked up first, so that a taken name uses up no id.
        if self.by_name_key(name_key)?.is_some() {
            return Err(StoreError::Duplicate { message: "user.name_key".into() });
        }
        let id = IdDao::new(self.db).take(IdName::User, 1)?;
        let id = UserId::new(id).ok_or_else(|| StoreError::internal("user ids are used up"))?;
        self.db.execute(
            INSERT,
            &[id.into(), name.into(), name_key.into(), password_hash.into(), now_ms.into()],
        )?;
        Ok(id)
    }

    /// The user with this id.
    ///
    /// # Errors
    /// The engine's.
    pub fn by_id(&mut self, id: UserId) -> Result<Option<User>, StoreError> {
        self.db.query_row(BY_ID, &[id.into()], user)
    }

    /// The names of these users; those who do not exist are left out.
    ///
    /// # Errors
    /// The engine's.
    pub fn names(
        &mut self,
        users: impl IntoIterator<Item = UserId>,
    ) -> Result<FxHashMap<UserId, Arc<str>>, StoreError> {
        let ids: Vec<Param<'_>> = users.into_iter().map(Param::from).collect();
        let mut names = FxHashMap::default();
        for (sql, ids) in NAMES.filled(&ids, 1) {
            self.db.query_each(&sql, &ids, |row| {
                names.insert(row.get(0)?, row.get(1)?);
                Ok(true)
            })?;
        }
        Ok(names)
    }

    /// The user with this name key.
    ///
    /// # Errors
    /// The engine's.
    pub fn by_name_key(&mut self, name_key: &str) -> Result<Option<User>, StoreError> {
        self.db.query_row(BY_KEY, &[name_key.into()], user)
    }

    /// The user with this name key, and its password hash.
    ///
    /// # Errors
    /// The engine's.
    pub fn credentials_by_name_key(&mut self, name_key: &str) -> Result<Option<Credentials>, StoreError> {
        self.db.query_row(CREDENTIALS_BY_KEY, &[name_key.into()], credentials)
    }

    /// The user with this id, and its password hash.
    ///
    /// # Errors
    /// The engine's.
    pub fn credentials_by_id(&mut self, id: UserId) -> Result<Option<Credentials>, StoreError> {
        self.db.query_row(CREDENTIALS_BY_ID, &[id.into()], credentials)
    }

    /// Users and their password hashes, in order of their ids, after the id `after`.
    ///
    /// # Errors
    /// The engine's.
    pub fn list(&mut self, after: Option<UserId>, limit: u32) -> Result<Vec<Credentials>, StoreError> {
        let after = after.map_or(0, UserId::as_i64);
        self.db.query(LIST, &[after.into(), i64::from(limit).into()], credentials)
    }

    /// Lets nobody log in by password as this user any more, or lets the old password fit again; false where there is no such user.
    ///
    /// # Errors
    /// The engine's.
    pub fn set_disabled(&mut self, id: UserId, now: bool) -> Result<bool, StoreError> {
        let Some(found) = self.credentials_by_id(id)? else { return Ok(false) };
        let hash = match (now, found.password_hash.strip_prefix('!')) {
            (true, None) => disabled(&found.password_hash),
            (false, Some(hash)) => hash.to_owned(),
            _ => return Ok(true),
        };
        self.set_password_hash(id, &hash)
    }

    /// Takes name and password from a user. Its messages stay, under a name that tells nothing; the old name is free.
    ///
    /// # Errors
    /// The engine's.
    pub fn erase(&mut self, id: UserId) -> Result<bool, StoreError> {
        let name = format!("deleted.{id}");
        let params = [name.as_str().into(), name.as_str().into(), "!".into(), id.into()];
        Ok(self.db.execute(RENAME, &params)? > 0)
    }

    /// Replaces the password hash; false where there is no such user.
    ///
    /// # Errors
    /// The engine's.
    pub fn set_password_hash(&mut self, id: UserId, password_hash: &str) -> Result<bool, StoreError> {
        Ok(self.db.execute(SET_HASH, &[password_hash.into(), id.into()])? > 0)
    }
}

fn user(row: &Row<'_>) -> Result<User, StoreError> {
    Ok(User { id: row.get(0)?, name: row.get(1)?, created_ms: row.get(2)? })
}

fn credentials(row: &Row<'_>) -> Result<Credentials, StoreError> {
    Ok(Credentials { user: user(row)?, password_hash: row.get(3)? })
}
