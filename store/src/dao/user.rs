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
