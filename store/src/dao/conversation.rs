//! Conversations and who is in them.

use rustc_hash::FxHashMap;
use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::dao::id::{IdDao, IdName};
use crate::entity::{Conversation, Kind, Listed, Members, Position, Span};
use crate::error::StoreError;
use crate::row::Row;

/// Makes and finds conversations.
#[derive(Debug)]
pub struct ConversationDao<'a> {
    db: &'a mut Connection,
}

pub(super) const BY_ID: &str =
    "SELECT c.id, c.kind, c.user_lo, c.user_hi, lo.name, hi.name, c.last_seq, c.members_version
    FROM conversation c LEFT JOIN user lo ON lo.id = c.user_lo LEFT JOIN user hi ON hi.id = c.user_hi
    WHERE c.id = ?";
pub(super) const BY_PAIR: &str =
    "SELECT c.id, c.kind, c.user_lo, c.user_hi, lo.name, hi.name, c.last_seq, c.members_version
    FROM conversation c JOIN user lo ON lo.id = c.user_lo JOIN user hi ON hi.id = c.user_hi
    WHERE c.user_lo = ? AND c.user_hi = ?";
pub(super) const INSERT: &str =
    "INSERT INTO conversation (id, kind, user_lo, user_hi, created_ms) VALUES (?, ?, ?, ?, ?)";
pub(super) const INSERT_MEMBER: &str = "INSERT INTO member (user, conv) VALUES (?, ?)";
pub(super) const LIST: &str =
    "SELECT c.id, c.kind, p.id, COALESCE(p.name, g.name), c.last_seq, m.delivered_seq, m.read_seq, m.own_seq,
        (SELECT MAX(s.to_seq) FROM span s WHERE s.conv = m.conv AND s.user = m.user),
        (SELECT o.seq FROM message o WHERE o.conv = m.conv ORDER BY o.seq LIMIT 1)
    FROM member m
    JOIN conversation c ON c.id = m.conv
    LEFT JOIN user p ON p.id = CASE WHEN c.user_lo = m.user THEN c.user_hi ELSE c.user_lo END
    LEFT JOIN chat_group g ON g.conv = m.conv
    WHERE m.user = ? AND m.conv > ? AND c.last_seq > 0
    ORDER BY m.conv LIMIT ?";
pub(super) const IDS: &str = "SELECT id FROM conversation WHERE id > ? ORDER BY id LIMIT ?";
pub(super) const POSITIONS: &str = "SELECT m.conv, c.user_lo, c.user_hi, m.delivered_seq, c.last_seq,
        (SELECT COUNT(*) FROM blocked b WHERE b.user = c.user_lo AND b.other = c.user_hi)
            + (SELECT COUNT(*) FROM blocked b WHERE b.user = c.user_hi AND b.other = c.user_lo)
    FROM member m JOIN conversation c ON c.id = m.conv
    WHERE m.user = ? ORDER BY m.conv";
pub(super) const LAST_SEQ: &str = "SELECT id, last_seq FROM conversation WHERE id = ?";
pub(super) const SPANS_OF_USER: &str = "SELECT conv, from_seq, to_seq FROM span WHERE user = ?";
pub(super) const SPANS: &str =
    "SELECT from_seq, to_seq FROM span WHERE conv = ? AND user = ? ORDER BY from_seq";

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
        let row = [id.into(), kind.into(), a.min(b).into(), a.max(b).into(), now_ms.into()];
        match self.db.execute(INSERT, &row) {
            // The other one was quicker, on a server with several writers.
            Err(StoreError::Duplicate { .. }) => return self.find_direct(a, b),
            other => other?,
        };
        for user in [a, b] {
            self.db.execute(INSERT_MEMBER, &[user.into(), id.into()])?;
        }
        self.get(id)
    }

    /// What the user may see of the conversation, in order: nothing for who never was in it.
    ///
    /// # Errors
    /// The engine's.
    pub fn spans(&mut self, conversation: &Conversation, user: UserId) -> Result<Vec<Span>, StoreError> {
        match &conversation.pair {
            Some(pair) if pair.has(user) => Ok(vec![Span::ALL]),
            Some(_) => Ok(Vec::new()),
            None => self.db.query(SPANS, &[conversation.id.into(), user.into()], |row| {
                Ok(Span { from: row.get(0)?, to: row.get(1)? })
            }),
        }
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
    /// The places of the last entries of these conversations, of those that exist.
    ///
    /// # Errors
    /// The engine's.
    pub fn last_seqs(&mut self, convs: &[ConvId]) -> Result<Vec<(ConvId, Seq)>, StoreError> {
        let mut all = Vec::with_capacity(convs.len());
        for conv in convs {
            all.extend(self.db.query_row(LAST_SEQ, &[(*conv).into()], |row| Ok((row.get(0)?, row.get(1)?)))?);
        }
        Ok(all)
    }

    /// The next ids of conversations, in order.
    pub(crate) fn ids(&mut self, after: Option<ConvId>, limit: u32) -> Result<Vec<ConvId>, StoreError> {
        let after = after.map_or(0, ConvId::as_i64);
        self.db.query(IDS, &[after.into(), i64::from(limit).into()], |row| row.get(0))
    }

    /// Where the user stands in all its conversations, those without an entry included, in order of their ids.
    ///
    /// # Errors
    /// The engine's.
    pub fn positions(&mut self, user: UserId) -> Result<Vec<Position>, StoreError> {
        let mut spans: FxHashMap<ConvId, Vec<Span>> = FxHashMap::default();
        self.db.query_each(SPANS_OF_USER, &[user.into()], |row| {
            let span = Span { from: row.get(1)?, to: row.get(2)? };
            spans.entry(row.get(0)?).or_default().push(span);
            Ok(true)
        })?;
        self.db.query(POSITIONS, &[user.into()], |row| {
            let (conv, delivered): (ConvId, Seq) = (row.get(0)?, row.get(3)?);
            let (lo, hi): (Option<UserId>, Option<UserId>) = (row.get(1)?, row.get(2)?);
            let other = if lo == Some(user) { hi } else { lo };
            let spans = match other {
                Some(_) => vec![Span::ALL],
                None => {
                    let mut spans = spans.remove(&conv).unwrap_or_default();
                    spans.sort_unstable_by_key(|span| span.from);
                    spans
                }
            };
            let blocked = row.get::<i64>(5)? > 0;
            Ok(Position { conv, other, delivered, last_seq: row.get(4)?, spans, blocked })
        })
    }
}

fn kind(row: &Row<'_>, at: usize) -> Result<Kind, StoreError> {
    let number = row.get(at)?;
    Kind::from_i64(number).ok_or_else(|| StoreError::corrupt(format!("conversation kind {number}")))
}

fn conversation(row: &Row<'_>) -> Result<Conversation, StoreError> {
    let pair = match kind(row, 1)? {
        Kind::Group => None,
        Kind::Direct => {
            Some(Members { lo: row.get(2)?, hi: row.get(3)?, lo_name: row.get(4)?, hi_name: row.get(5)? })
        }
    };
    Ok(Conversation { id: row.get(0)?, pair, last_seq: row.get(6)?, version: row.get(7)? })
}

fn listed(row: &Row<'_>) -> Result<Listed, StoreError> {
    let (read, own): (Seq, Seq) = (row.get(6)?, row.get(7)?);
    let upto = row.get::<Option<Seq>>(8)?.unwrap_or(Seq::MAX);
    let end = row.get::<Seq>(4)?;
    let gone = row.get::<Option<Seq>>(9)?.map_or(end, Seq::prev);
    let last_seq = end.min(upto);
    Ok(Listed {
        conv: row.get(0)?,
        kind: kind(row, 1)?,
        peer: row.get(2)?,
        name: row.get(3)?,
        last_seq,
        delivered: row.get(5)?,
        read,
        // After one's own last entry all are by others, and one's joining is an entry of one's own: no older span lies behind it. What has gone by age cannot be read.
        unread: last_seq.get().saturating_sub(read.max(own).max(gone).get()),
    })
}
