//! What a user has missed: the entries after its delivered cursors.

use schema::{ConvId, UserId};

use crate::connection::Connection;
use crate::dao::message::{MessageDao, PageLimit};
use crate::dao::{ConversationDao, CursorDao};
use crate::entity::{Page, Position};
use crate::error::StoreError;

/// Reads what a user has missed. Nothing is ever deleted here: a message stops being offline when the cursor passes it.
#[derive(Debug)]
pub struct OfflineMessageDao<'a> {
    db: &'a mut Connection,
}

impl<'a> OfflineMessageDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// The user's conversations in which something lies beyond its delivered cursor.
    ///
    /// # Errors
    /// The engine's.
    pub fn conversations(&mut self, user: UserId) -> Result<Vec<Position>, StoreError> {
        let mut all = ConversationDao::new(self.db).positions(user)?;
        all.retain(|position| position.has_beyond(position.delivered));
        Ok(all)
    }

    /// The first entries of a conversation after the user's delivered cursor; none for who is not a member.
    ///
    /// # Errors
    /// The engine's.
    pub fn page(&mut self, user: UserId, conv: ConvId, limit: PageLimit) -> Result<Page, StoreError> {
        let Some(mark) = CursorDao::new(self.db).get(user, conv)? else {
            return Ok(Page::default());
        };
        let mut dao = ConversationDao::new(self.db);
        let Some(found) = dao.get(conv)? else {
            return Ok(Page::default());
        };
        let mut spans = dao.spans(&found, user)?;
        for span in &mut spans {
            span.from = span.from.max(mark.delivered.next());
        }
        MessageDao::new(self.db).after_in(conv, &spans, limit)
    }
}
