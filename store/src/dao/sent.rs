//! The `client_id`s that make a resend harmless, and how they are forgotten.

use schema::{ConvId, UserId};

use crate::connection::Connection;
use crate::error::StoreError;

/// Forgets old `client_id`s. They are written by the pipeline.
#[derive(Debug)]
pub struct SentDao<'a> {
    db: &'a mut Connection,
}

/// Where a walk over the table stands: the key of the last row that was looked at.
pub(crate) type SentKey = (UserId, ConvId, String);

pub(super) const FIRST: &str =
    "SELECT sender, conv, client_id, time_ms FROM sent ORDER BY sender, conv, client_id LIMIT ?";
pub(super) const NEXT: &str = "SELECT sender, conv, client_id, time_ms FROM sent
    WHERE (sender, conv, client_id) > (?, ?, ?) ORDER BY sender, conv, client_id LIMIT ?";
/// The same for servers, which find no beginning by a row.
pub(super) const NEXT_MYSQL: &str = "SELECT sender, conv, client_id, time_ms FROM sent
    WHERE sender > ? OR (sender = ? AND conv > ?) OR (sender = ? AND conv = ? AND client_id > ?)
    ORDER BY sender, conv, client_id LIMIT ?";
pub(super) const DELETE: &str = "DELETE FROM sent WHERE sender = ? AND conv = ? AND client_id = ?";

impl<'a> SentDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// Looks at the next `limit` rows in the order of their key, and removes those from before `before_ms`. Returns where it stands and how many it removed; no
    /// place at the end of the table. The table is walked, since an index on the time would cost every message more than the walk costs in a day.
    pub(crate) fn sweep(
        &mut self,
        after: Option<&SentKey>,
        before_ms: i64,
        limit: u32,
    ) -> Result<(Option<SentKey>, usize), StoreError> {
        let count = i64::from(limit);
        let read = |row: &crate::Row<'_>| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get::<i64>(3)?));
        let rows: Vec<(SentKey, i64)> = match after {
            None => self.db.query(FIRST, &[count.into()], read)?,
            Some((user, conv, id)) => {
                let (user, conv, id) = ((*user).into(), (*conv).into(), id.as_str().into());
                if self.db.is_server() {
                    self.db.query(NEXT_MYSQL, &[user, user, conv, user, conv, id, count.into()], read)?
                } else {
                    self.db.query(NEXT, &[user, conv, id, count.into()], read)?
                }
            }
        };
        let mut removed = 0;
        for ((user, conv, id), _) in rows.iter().filter(|(_, time_ms)| *time_ms < before_ms) {
            removed += self.db.execute(DELETE, &[(*user).into(), (*conv).into(), id.as_str().into()])?;
        }
        let full = rows.len() == usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((rows.into_iter().next_back().map(|(key, _)| key).filter(|_| full), removed))
    }
}
