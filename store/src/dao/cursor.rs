//! The delivered and read cursors of members.

use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::entity::Mark;
use crate::error::StoreError;
use crate::row::Row;

/// Reads cursors. They are written by the pipeline only (`Store::move_cursor`).
#[derive(Debug)]
pub struct CursorDao<'a> {
    db: &'a mut Connection,
}

pub(super) const GET: &str = "SELECT user, delivered_seq, read_seq FROM member WHERE user = ? AND conv = ?";
pub(super) const MARKS: &str =
    "SELECT user, delivered_seq, read_seq FROM member WHERE conv = ? ORDER BY user";
pub(super) const GROUP_MARKS: &str = "SELECT m.user, m.delivered_seq, m.read_seq
    FROM span s JOIN member m ON m.user = s.user AND m.conv = s.conv
    WHERE s.conv = ? AND s.to_seq = ? ORDER BY s.user";
pub(super) const UPTO: &str = "SELECT MAX(to_seq) FROM span WHERE conv = ? AND user = ?";
pub(super) const SET: &str = "UPDATE member SET delivered_seq = ?, read_seq = ? WHERE user = ? AND conv = ?";
pub(super) const SET_OWN: &str = "UPDATE member SET own_seq = ? WHERE user = ? AND conv = ?";

impl<'a> CursorDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// The cursors of one member; `None` for who is none.
    ///
    /// # Errors
    /// The engine's.
    pub fn get(&mut self, user: UserId, conv: ConvId) -> Result<Option<Mark>, StoreError> {
        self.db.query_row(GET, &[user.into(), conv.into()], mark)
    }

    /// The place beyond which the user sees nothing of the group: [`Seq::MAX`] for a member; `None` for who never was one.
    pub(crate) fn upto(&mut self, user: UserId, conv: ConvId) -> Result<Option<Seq>, StoreError> {
        Ok(self.db.query_row(UPTO, &[conv.into(), user.into()], |row| row.get(0))?.flatten())
    }

    /// The cursors of all who are or were members, in order of their ids.
    ///
    /// # Errors
    /// The engine's.
    pub fn marks(&mut self, conv: ConvId) -> Result<Vec<Mark>, StoreError> {
        self.db.query(MARKS, &[conv.into()], mark)
    }

    /// The cursors of who is in a group now, in order of their ids.
    ///
    /// # Errors
    /// The engine's.
    pub fn group_marks(&mut self, conv: ConvId) -> Result<Vec<Mark>, StoreError> {
        self.db.query(GROUP_MARKS, &[conv.into(), Seq::MAX.into()], mark)
    }

    /// Sets both cursors. The caller has seen to it that neither goes back.
    pub(crate) fn set(&mut self, conv: ConvId, mark: Mark) -> Result<(), StoreError> {
        self.db.execute(SET, &[mark.delivered.into(), mark.read.into(), mark.user.into(), conv.into()])?;
        Ok(())
    }

    /// Notes the place of the user's own last message.
    pub(crate) fn set_own(&mut self, user: UserId, conv: ConvId, own: Seq) -> Result<(), StoreError> {
        self.db.execute(SET_OWN, &[own.into(), user.into(), conv.into()])?;
        Ok(())
    }
}

fn mark(row: &Row<'_>) -> Result<Mark, StoreError> {
    Ok(Mark { user: row.get(0)?, delivered: row.get(1)?, read: row.get(2)? })
}
