//! What the writer remembers of conversations, so that a message costs no read.

use rustc_hash::FxHashMap;
use schema::{ConvId, Seq};

use crate::connection::Connection;
use crate::dao::ConversationDao;
use crate::entity::Members;
use crate::error::StoreError;

/// A conversation as the writer needs it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) members: Members,
    pub(crate) last_seq: Seq,
}

/// Heads by conversation, with a bound: two generations, of which the older one is forgotten when the younger is full.
///
/// Right only while this writer is the only one, and dropped whenever a batch fails or a job writes as it likes.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    young: FxHashMap<ConvId, Head>,
    old: FxHashMap<ConvId, Head>,
}

/// Conversations of one generation; both together hold some 20 MB.
const GENERATION_MAX: usize = 65_536;

impl Heads {
    /// The head of `conv`, read when it is not known, or `None` where there is no such conversation.
    pub(crate) fn get(&mut self, db: &mut Connection, conv: ConvId) -> Result<Option<&mut Head>, StoreError> {
        if !self.young.contains_key(&conv) {
            let head = match self.old.remove(&conv) {
                Some(head) => head,
                None => match ConversationDao::new(db).get(conv)? {
                    Some(row) => Head { members: row.members, last_seq: row.last_seq },
                    None => return Ok(None),
                },
            };
            if self.young.len() >= GENERATION_MAX {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(conv, head);
        }
        Ok(self.young.get_mut(&conv))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
