//! The entries of conversations.

use std::sync::Arc;

use schema::{ConvId, Seq, SessionId, UserId};

use crate::connection::Connection;
use crate::dao::ConversationDao;
use crate::entity::{Entry, Members, Page};
use crate::error::StoreError;
use crate::row::{Param, Row};

/// How much of a conversation is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit {
    /// Entries at most.
    pub entries: u32,
    /// Bytes of text at most, but always at least one entry.
    pub bytes: usize,
}

/// Reads entries. Who may see them is for the caller to check.
#[derive(Debug)]
pub struct MessageDao<'a> {
    db: &'a mut Connection,
}

pub(super) const AFTER: &str = "SELECT seq, sender, session, time_ms, text FROM message
    WHERE conv = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?";
pub(super) const BEFORE: &str = "SELECT seq, sender, session, time_ms, text FROM message
    WHERE conv = ? AND seq < ? ORDER BY seq DESC LIMIT ?";
pub(super) const INSERT: &str =
    "INSERT INTO message (conv, seq, sender, session, time_ms, text) VALUES (?, ?, ?, ?, ?, ?)";
pub(super) const TEXT: &str = "SELECT text FROM message WHERE conv = ? AND seq = ?";

impl<'a> MessageDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// The entries after `seq`, up to and including `upto`. `more`: there are later ones up to `upto`. An unknown
    /// conversation has none.
    ///
    /// # Errors
    /// The engine's.
    pub fn after(&mut self, conv: ConvId, seq: Seq, upto: Seq, limit: PageLimit) -> Result<Page, StoreError> {
        self.page(conv, AFTER, &[conv.into(), seq.into(), upto.into()], limit)
    }

    /// The entries next before `seq`, in increasing order. `more`: there are earlier ones.
    ///
    /// # Errors
    /// The engine's.
    pub fn before(&mut self, conv: ConvId, seq: Seq, limit: PageLimit) -> Result<Page, StoreError> {
        let mut page = self.page(conv, BEFORE, &[conv.into(), seq.into()], limit)?;
        page.entries.reverse();
        Ok(page)
    }

    /// The last entries, in increasing order. `more`: there are earlier ones.
    ///
    /// # Errors
    /// The engine's.
    pub fn last(&mut self, conv: ConvId, limit: PageLimit) -> Result<Page, StoreError> {
        let mut page = self.page(conv, BEFORE, &[conv.into(), i64::MAX.into()], limit)?;
        page.entries.reverse();
        Ok(page)
    }

    fn page(
        &mut self,
        conv: ConvId,
        sql: &str,
        keys: &[Param<'_>],
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let Some(members) = ConversationDao::new(self.db).members(conv)? else {
            return Ok(Page::default());
        };
        let max = usize::try_from(limit.entries).unwrap_or(usize::MAX);
        // One more than asked, to know whether there is more.
        let mut params = keys.to_vec();
        params.push((i64::from(limit.entries) + 1).into());
        let mut page = Page::default();
        let mut bytes = 0;
        self.db.query_each(sql, &params, |row| {
            let entry = entry(conv, &members, row)?;
            bytes += entry.text.len();
            page.more = page.entries.len() >= max || (bytes > limit.bytes && !page.entries.is_empty());
            if !page.more {
                page.entries.push(entry);
            }
            Ok(!page.more)
        })?;
        Ok(page)
    }

    /// The text of one entry.
    pub(crate) fn text(&mut self, conv: ConvId, seq: Seq) -> Result<Option<String>, StoreError> {
        self.db.query_row(TEXT, &[conv.into(), seq.into()], |row| row.get(0))
    }

    /// Writes one entry. Its place was taken from the conversation in the same transaction.
    pub(crate) fn insert(
        &mut self,
        conv: ConvId,
        seq: Seq,
        sender: UserId,
        session: SessionId,
        time_ms: i64,
        text: &str,
    ) -> Result<(), StoreError> {
        let params = [conv.into(), seq.into(), sender.into(), session.into(), time_ms.into(), text.into()];
        self.db.execute(INSERT, &params)?;
        Ok(())
    }
}

fn entry(conv: ConvId, members: &Members, row: &Row<'_>) -> Result<Entry, StoreError> {
    let sender: UserId = row.get(1)?;
    let (Some(name), Some((recipient, recipient_name))) = (members.name(sender), members.other(sender))
    else {
        return Err(StoreError::corrupt(format!("conversation {conv} holds an entry by a stranger")));
    };
    Ok(Entry {
        conv,
        seq: row.get(0)?,
        sender,
        sender_name: Arc::clone(name),
        recipient,
        recipient_name: Arc::clone(recipient_name),
        session: row.get(2)?,
        time_ms: row.get(3)?,
        text: row.get(4)?,
    })
}
