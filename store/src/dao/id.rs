//! Ids from a table, which no clock and no crash can give out twice.

use crate::connection::Connection;
use crate::error::StoreError;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdName {
    /// Users.
    User,
    /// Conversations.
    Conv,
    /// Sessions.
    Session,
    /// Writing threads.
    Worker,
}

impl IdName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Conv => "conv",
            Self::Session => "session",
            Self::Worker => "worker",
        }
    }
}

/// Hands out blocks of ids.
#[derive(Debug)]
pub struct IdDao<'a> {
    db: &'a mut Connection,
}

pub(super) const TAKE: &str = "UPDATE id_block SET next = next + ? WHERE name = ?";
pub(super) const NEXT: &str = "SELECT next FROM id_block WHERE name = ?";

impl<'a> IdDao<'a> {
    /// On this connection, inside a transaction.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// Takes `count` ids and returns the first of them. They are the caller's when the transaction commits.
    ///
    /// # Errors
    /// The engine's; [`StoreError::Corrupt`] when the block's row is missing.
    pub fn take(&mut self, name: IdName, count: u32) -> Result<u64, StoreError> {
        self.db.execute(TAKE, &[i64::from(count).into(), name.as_str().into()])?;
        let next: Option<u64> = self.db.query_row(NEXT, &[name.as_str().into()], |row| row.get(0))?;
        next.and_then(|next| next.checked_sub(count.into()))
            .filter(|first| *first > 0)
            .ok_or_else(|| StoreError::corrupt(format!("id_block has no good row `{}`", name.as_str())))
    }
}
