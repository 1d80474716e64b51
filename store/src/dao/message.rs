//! The entries of conversations.

use std::sync::Arc;

use rustc_hash::FxHashSet;
use schema::{ConvId, Seq, SessionId, UserId};

use crate::connection::Connection;
use crate::dao::{ConversationDao, UserDao};
use crate::entity::{Body, Conversation, Entry, Page, Span};
use crate::error::StoreError;
use crate::row::Row;

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

pub(super) const AFTER: &str = "SELECT seq, sender, session, time_ms, event, text FROM message
    WHERE conv = ? AND seq >= ? AND seq <= ? ORDER BY seq LIMIT ?";
pub(super) const BEFORE: &str = "SELECT seq, sender, session, time_ms, event, text FROM message
    WHERE conv = ? AND seq >= ? AND seq <= ? ORDER BY seq DESC LIMIT ?";
pub(super) const INSERT: &str =
    "INSERT INTO message (conv, seq, event, sender, session, time_ms, text) VALUES (?, ?, ?, ?, ?, ?, ?)";
pub(super) const OLDEST: &str = "SELECT seq, time_ms FROM message WHERE conv = ? ORDER BY seq LIMIT ?";
pub(super) const FORGET: &str = "DELETE FROM message WHERE conv = ? AND seq <= ?";
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
        self.after_in(conv, &[Span { from: seq.next(), to: upto }], limit)
    }

    /// The first entries of these spans, which are in order. `more`: there are later ones in them.
    ///
    /// # Errors
    /// The engine's.
    pub fn after_in(&mut self, conv: ConvId, spans: &[Span], limit: PageLimit) -> Result<Page, StoreError> {
        self.page(conv, AFTER, spans.iter(), limit)
    }

    /// The entries next before `seq`, in increasing order. `more`: there are earlier ones.
    ///
    /// # Errors
    /// The engine's.
    pub fn before(&mut self, conv: ConvId, seq: Seq, limit: PageLimit) -> Result<Page, StoreError> {
        let all = if seq == Seq::ZERO { &[][..] } else { &[Span { from: Seq::ZERO, to: seq.prev() }][..] };
        self.before_in(conv, all, limit)
    }

    /// The last entries, in increasing order. `more`: there are earlier ones.
    ///
    /// # Errors
    /// The engine's.
    pub fn last(&mut self, conv: ConvId, limit: PageLimit) -> Result<Page, StoreError> {
        self.before_in(conv, &[Span::ALL], limit)
    }

    /// The last entries of these spans, which are in order; the entries are too. `more`: there are earlier ones in them.
    ///
    /// # Errors
    /// The engine's.
    pub fn before_in(&mut self, conv: ConvId, spans: &[Span], limit: PageLimit) -> Result<Page, StoreError> {
        let mut page = self.page(conv, BEFORE, spans.iter().rev(), limit)?;
        page.entries.reverse();
        Ok(page)
    }

    fn page<'s>(
        &mut self,
        conv: ConvId,
        sql: &str,
        spans: impl Iterator<Item = &'s Span>,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let Some(found) = ConversationDao::new(self.db).get(conv)? else {
            return Ok(Page::default());
        };
        let max = usize::try_from(limit.entries).unwrap_or(usize::MAX);
        let mut page = Page::default();
        let mut bytes = 0;
        for span in spans.filter(|span| span.from <= span.to) {
            // One more than asked, to know whether there is more.
            let rest = i64::try_from(max - page.entries.len()).unwrap_or(i64::MAX).saturating_add(1);
            let params = [conv.into(), span.from.into(), span.to.into(), rest.into()];
            self.db.query_each(sql, &params, |row| {
                let entry = entry(&found, row)?;
                bytes += entry.body.len();
                page.more = page.entries.len() >= max || (bytes > limit.bytes && !page.entries.is_empty());
                if !page.more {
                    page.entries.push(entry);
                }
                Ok(!page.more)
            })?;
            if page.more {
                break;
            }
        }
        if found.pair.is_none() {
            self.name_senders(&mut page.entries)?;
        }
        Ok(page)
    }

    /// Fills in the names of a group's senders. They are looked up by themselves, for in a join the engine chooses the order, and does not always choose well.
    fn name_senders(&mut self, entries: &mut [Entry]) -> Result<(), StoreError> {
        let senders: FxHashSet<UserId> = entries.iter().map(|entry| entry.sender).collect();
        let names = UserDao::new(self.db).names(senders)?;
        for entry in entries {
            match names.get(&entry.sender) {
                Some(name) => entry.sender_name = Arc::clone(name),
                None => {
                    return Err(StoreError::corrupt(format!(
                        "an entry by user {}, who is not there",
                        entry.sender
                    )));
                }
            }
        }
        Ok(())
    }

    /// The place of the oldest entry that is kept: the one after the last where none is. Older ones have gone by age.
    ///
    /// # Errors
    /// The engine's.
    pub fn oldest(&mut self, conv: ConvId) -> Result<Seq, StoreError> {
        let first = self.db.query_row(OLDEST, &[conv.into(), 1_i64.into()], |row| row.get::<Seq>(0))?;
        match first {
            Some(seq) => Ok(seq),
            None => {
                let found = ConversationDao::new(self.db).get(conv)?;
                Ok(found.map_or(Seq::ZERO, |found| found.last_seq).next())
            }
        }
    }

    /// Whether the conversation's oldest entry is from before `before_ms`.
    pub(crate) fn begins_before(&mut self, conv: ConvId, before_ms: i64) -> Result<bool, StoreError> {
        let first = self.db.query_row(OLDEST, &[conv.into(), 1_i64.into()], |row| row.get::<i64>(1))?;
        Ok(first.is_some_and(|time_ms| time_ms < before_ms))
    }

    /// Removes entries from the beginning of a conversation while they are from before `before_ms`, `limit` at most. One that is younger keeps all behind it, so that what
    /// is kept has no gap. Returns how many went, and whether there may be more. Belongs in a job of the conversation.
    pub(crate) fn forget(
        &mut self,
        conv: ConvId,
        before_ms: i64,
        limit: u32,
    ) -> Result<(usize, bool), StoreError> {
        let mut last = None;
        let mut old = 0;
        self.db.query_each(OLDEST, &[conv.into(), i64::from(limit).into()], |row| {
            let is_old = row.get::<i64>(1)? < before_ms;
            if is_old {
                last = Some(row.get::<Seq>(0)?);
                old += 1;
            }
            Ok(is_old)
        })?;
        let Some(last) = last else { return Ok((0, false)) };
        let removed = self.db.execute(FORGET, &[conv.into(), last.into()])?;
        Ok((removed, old == limit))
    }

    /// Whether one entry may have this text. One that has gone by age can no more be compared: it may.
    pub(crate) fn may_say(&mut self, conv: ConvId, seq: Seq, text: &str) -> Result<bool, StoreError> {
        let found: Option<String> = self.db.query_row(TEXT, &[conv.into(), seq.into()], |row| row.get(0))?;
        Ok(found.is_none_or(|found| found == text))
    }

    /// Writes one entry. Its place was taken from the conversation in the same transaction.
    pub(crate) fn insert(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let event_text;
        let (event, text) = match &entry.body {
            Body::Text(text) => (0, text),
            Body::Event(event) => {
                event_text = event.text();
                (event.number(), &event_text)
            }
        };
        let params = [
            entry.conv.into(),
            entry.seq.into(),
            event.into(),
            entry.sender.into(),
            entry.session.map_or(0, SessionId::as_i64).into(),
            entry.time_ms.into(),
            text.as_str().into(),
        ];
        self.db.execute(INSERT, &params)?;
        Ok(())
    }
}

/// An entry; in a group without the name of its sender.
fn entry(found: &Conversation, row: &Row<'_>) -> Result<Entry, StoreError> {
    let sender: UserId = row.get(1)?;
    let (sender_name, to) = match &found.pair {
        None => (Arc::default(), None),
        Some(pair) => match (pair.name(sender), pair.other(sender)) {
            (Some(name), Some((user, other))) => (Arc::clone(name), Some((user, Arc::clone(other)))),
            _ => {
                let message = format!("conversation {} holds an entry by a stranger", found.id);
                return Err(StoreError::corrupt(message));
            }
        },
    };
    Ok(Entry {
        conv: found.id,
        seq: row.get(0)?,
        sender,
        sender_name,
        to,
        session: SessionId::new(row.get(2)?),
        time_ms: row.get(3)?,
        body: Body::from_columns(row.get(4)?, row.get(5)?)?,
    })
}
