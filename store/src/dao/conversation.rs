//! Conversations and who is in them.

use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::dao::id::{IdDao, IdName};
use crate::entity::{Conversation, Kind, Listed, Members, Position};
use crate::error::StoreError;
use crate::row::Row;

/// Makes and finds conversations.
#[derive(Debug)]
pub struct ConversationDao<'a> {
    db: &'a mut Connection,
}

pub(super) const BY_ID: &str = "SELECT c.id, c.kind, c.user_lo, c.user_hi, lo.name, hi.name, c.last_seq
    FROM conversation c JOIN user lo ON lo.id = c.user_lo JOIN user hi ON hi.id = c.user_hi
    WHERE c.id = ?";
pub(super) const BY_PAIR: &str = "SELECT c.id, c.kind, c.user_lo, c.user_hi, lo.name, hi.name, c.last_seq
    FROM conversation c JOIN user lo ON lo.id = c.user_lo JOIN user hi ON hi.id = c.user_hi
    WHERE c.user_lo = ? AND c.user_hi = ?";
pub(super) const INSERT: &str =
    "INSERT INTO conversation (id, kind, user_lo, user_hi, created_ms) VALUES (?, ?, ?, ?, ?)";
pub(super) const INSERT_MEMBER: &str = "INSERT INTO member (user, conv) VALUES (?, ?)";
pub(super) const LIST: &str =
    "SELECT c.id, c.kind, p.id, p.name, c.last_seq, m.delivered_seq, m.read_seq, m.own_seq
    FROM member m
    JOIN conversation c ON c.id = m.conv
    JOIN user p ON p.id = CASE WHEN c.user_lo = m.user THEN c.user_hi ELSE c.user_lo END
    WHERE m.user = ? AND m.conv > ? AND c.last_seq > 0
    ORDER BY m.conv LIMIT ?";
pub(super) const POSITIONS: &str = "SELECT m.conv, c.user_lo, c.user_hi, m.delivered_seq, c.last_seq
    FROM member m JOIN conversation c ON c.id = m.conv
    WHERE m.user = ? ORDER BY m.conv";

impl<'a> ConversationDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// The conversation with this id.
    ///
    /// # Errors
    /// The engine's.
    pub fn get(&mut self, conv: ConvId) -> Result<Option<Conversation>, StoreError> {
        self.db.query_row(BY_ID, &[conv.into()], conversation)
    }

    /// The direct conversation of two users, if it has begun. The order of the two does not matter.
    ///
    /// # Errors
    /// The engine's.
    pub fn find_direct(&mut self, a: UserId, b: UserId) -> Result<Option<Conversation>, StoreError> {
        self.db.query_row(BY_PAIR, &[a.min(b).into(), a.max(b).into()], conversation)
    }

    /// The direct conversation of two users, made when it is missing. `None` when one of them does not exist, or both are
    /// the same. Belongs in a write job.
    ///
    /// # Errors
    /// The engine's.
    pub fn direct(&mut self, a: UserId, b: UserId, now_ms: i64) -> Result<Option<Conversation>, StoreError> {
        if a == b {
            return Ok(None);
        }
        if let Some(found) = self.find_direct(a, b)? {
            return Ok(Some(found));
        }
        for user in [a, b] {
            if super::UserDao::new(self.db).by_id(user)?.is_none() {
                return Ok(None);
            }
        }
        let id = IdDao::new(self.db).take(IdName::Conv, 1)?;
        let id = ConvId::new(id).ok_or_else(|| StoreError::internal("conversation ids are used up"))?;
        let kind = Kind::Direct.as_i64();
        self.db
            .execute(INSERT, &[id.into(), kind.into(), a.min(b).into(), a.max(b).into(), now_ms.into()])?;
        for user in [a, b] {
            self.db.execute(INSERT_MEMBER, &[user.into(), id.into()])?;
        }
        self.get(id)
    }

    /// Who is in the conversation; `None` when there is no such conversation.
    ///
    /// # Errors
    /// The engine's.
    pub fn members(&mut self, conv: ConvId) -> Result<Option<Members>, StoreError> {
        Ok(self.get(conv)?.map(|found| found.members))
    }

    /// The user's conversations that have an entry, in order of their ids, after the id `after`.
    ///
    /// # Errors
    /// The engine's.
    pub fn list(
        &mut self,
        user: UserId,
        after: Option<ConvId>,
        limit: u32,
    ) -> Result<Vec<Listed>, StoreError> {
        let after = after.map_or(0, ConvId::as_i64);
        self.db.query(LIST, &[user.into(), after.into(), i64::from(limit).into()], listed)
    }

    /// Where the user stands in all its conversations, those without an entry included, in order of their ids.
    ///
    /// # Errors
    /// The engine's.
    pub fn positions(&mut self, user: UserId) -> Result<Vec<Position>, StoreError> {
        self.db.query(POSITIONS, &[user.into()], |row| {
            let (lo, hi): (UserId, UserId) = (row.get(1)?, row.get(2)?);
            let other = if lo == user { hi } else { lo };
            Ok(Position { conv: row.get(0)?, other, delivered: row.get(3)?, last_seq: row.get(4)? })
        })
    }
}

fn kind(row: &Row<'_>, at: usize) -> Result<Kind, StoreError> {
    let number = row.get(at)?;
    Kind::from_i64(number).ok_or_else(|| StoreError::corrupt(format!("conversation kind {number}")))
}

fn conversation(row: &Row<'_>) -> Result<Conversation, StoreError> {
    let members = Members { lo: row.get(2)?, hi: row.get(3)?, lo_name: row.get(4)?, hi_name: row.get(5)? };
    Ok(Conversation { id: row.get(0)?, kind: kind(row, 1)?, members, last_seq: row.get(6)? })
}

fn listed(row: &Row<'_>) -> Result<Listed, StoreError> {
    let (last_seq, read, own): (Seq, Seq, Seq) = (row.get(4)?, row.get(6)?, row.get(7)?);
    Ok(Listed {
        conv: row.get(0)?,
        kind: kind(row, 1)?,
        peer: row.get(2)?,
        peer_name: row.get(3)?,
        last_seq,
        delivered: row.get(5)?,
        read,
        // After one's own last message every entry of a direct conversation is the other's.
        unread: last_seq.get().saturating_sub(read.max(own).get()),
    })
}
