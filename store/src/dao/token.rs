//! Tokens, which are stored as hashes only.

use schema::UserId;

use crate::connection::Connection;
use crate::entity::{TokenHash, TokenRow};
use crate::error::StoreError;
use crate::row::Row;

/// Makes, finds, renews and revokes tokens.
#[derive(Debug)]
pub struct TokenDao<'a> {
    db: &'a mut Connection,
}

pub(super) const INSERT: &str =
    "INSERT INTO token (hash, user, device, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?)";
pub(super) const FIND: &str = "SELECT hash, user, device, created_ms, expires_ms FROM token WHERE hash = ?";
pub(super) const OF_USER: &str =
    "SELECT hash, user, device, created_ms, expires_ms FROM token WHERE user = ? ORDER BY expires_ms, hash";
pub(super) const RENEW: &str = "UPDATE token SET expires_ms = ? WHERE hash = ? AND expires_ms < ?";
pub(super) const DELETE: &str = "DELETE FROM token WHERE hash = ? AND user = ?";
pub(super) const EXPIRED: &str =
    "SELECT hash, user FROM token WHERE expires_ms <= ? ORDER BY expires_ms LIMIT ?";

impl<'a> TokenDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// Stores a new token.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] when it is there already; the engine's.
    pub fn insert(&mut self, token: &TokenRow) -> Result<(), StoreError> {
        self.db.execute(
            INSERT,
            &[
                (&token.hash).into(),
                token.user.into(),
                token.device.as_deref().into(),
                token.created_ms.into(),
                token.expires_ms.into(),
            ],
        )?;
        Ok(())
    }

    /// The token with this hash, expired or not.
    ///
    /// # Errors
    /// The engine's.
    pub fn find(&mut self, hash: &TokenHash) -> Result<Option<TokenRow>, StoreError> {
        self.db.query_row(FIND, &[hash.into()], token)
    }

    /// All tokens of a user, expired ones too; the one that expires first comes first.
    ///
    /// # Errors
    /// The engine's.
    pub fn of_user(&mut self, user: UserId) -> Result<Vec<TokenRow>, StoreError> {
        self.db.query(OF_USER, &[user.into()], token)
    }

    /// Moves the expiry of a token, never back. False when there is no such token, or nothing to gain.
    ///
    /// # Errors
    /// The engine's.
    pub fn renew(&mut self, hash: &TokenHash, expires_ms: i64) -> Result<bool, StoreError> {
        Ok(self.db.execute(RENEW, &[expires_ms.into(), hash.into(), expires_ms.into()])? > 0)
    }

    /// Revokes one token of a user; false when the user has no such token.
    ///
    /// # Errors
    /// The engine's.
    pub fn delete(&mut self, user: UserId, hash: &TokenHash) -> Result<bool, StoreError> {
        Ok(self.db.execute(DELETE, &[hash.into(), user.into()])? > 0)
    }

    /// Revokes all tokens of a user but `keep`, and returns which.
    ///
    /// # Errors
    /// The engine's.
    pub fn delete_all(
        &mut self,
        user: UserId,
        keep: Option<&TokenHash>,
    ) -> Result<Vec<TokenHash>, StoreError> {
        let mut gone: Vec<TokenHash> = self.of_user(user)?.into_iter().map(|row| row.hash).collect();
        gone.retain(|hash| Some(hash) != keep);
        for hash in &gone {
            self.delete(user, hash)?;
        }
        Ok(gone)
    }

    /// Removes up to `limit` tokens that have expired, of whomever, and returns how many it removed.
    ///
    /// # Errors
    /// The engine's.
    pub fn delete_expired(&mut self, now_ms: i64, limit: u32) -> Result<usize, StoreError> {
        let read = |row: &Row<'_>| Ok((row.get::<TokenHash>(0)?, row.get::<UserId>(1)?));
        let expired = self.db.query(EXPIRED, &[now_ms.into(), i64::from(limit).into()], read)?;
        for (hash, user) in &expired {
            self.delete(*user, hash)?;
        }
        Ok(expired.len())
    }
}

fn token(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        hash: row.get(0)?,
        user: row.get(1)?,
        device: row.get(2)?,
        created_ms: row.get(3)?,
        expires_ms: row.get(4)?,
    })
}
