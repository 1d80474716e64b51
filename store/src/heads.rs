//! What a writer remembers of conversations, so that a message costs no read.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use schema::limits::MARKS_MEMBERS_MAX;
use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::dao::{ConversationDao, CursorDao, FriendDao, GroupDao};
use crate::entity::{Conversation, Members};
use crate::error::StoreError;
use crate::pipeline::{Audience, SendError};

/// A conversation as a writer needs it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    conv: ConvId,
    version: u64,
    pub(crate) last_seq: Seq,
    who: Who,
}

/// Who may write to it.
#[derive(Clone, Debug)]
enum Who {
    Pair {
        members: Members,
        blocked: bool,
    },
    /// Those who have written lately, and how many are in it.
    Group {
        known: FxHashMap<UserId, Arc<str>>,
        members: u64,
    },
}

/// A sender who may write, and to whom it does in a direct conversation.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) sender: Arc<str>,
    pub(crate) to: Option<(UserId, Arc<str>)>,
}

/// Members of one group that are remembered by name.
const KNOWN_MAX: usize = 1_024;

impl Head {
    fn read(db: &mut Connection, found: Conversation) -> Result<Self, StoreError> {
        let who = match found.pair {
            Some(members) => {
                let blocked = FriendDao::new(db).is_blocked(members.lo, members.hi)?;
                Who::Pair { members, blocked }
            }
            None => {
                let members = GroupDao::new(db).get(found.id)?.map_or(0, |group| group.members);
                Who::Group { known: FxHashMap::default(), members }
            }
        };
        Ok(Self { conv: found.id, version: found.version, last_seq: found.last_seq, who })
    }

    /// Whether `sender` may write here, and the names that an entry shows.
    pub(crate) fn sender(
        &mut self,
        db: &mut Connection,
        sender: UserId,
    ) -> Result<Result<Names, SendError>, StoreError> {
        match &mut self.who {
            Who::Pair { members, blocked } => {
                let (Some(name), Some((to, to_name))) = (members.name(sender), members.other(sender)) else {
                    return Ok(Err(SendError::Forbidden));
                };
                if *blocked {
                    return Ok(Err(SendError::Blocked));
                }
                Ok(Ok(Names { sender: Arc::clone(name), to: Some((to, Arc::clone(to_name))) }))
            }
            Who::Group { known, .. } => {
                if let Some(name) = known.get(&sender) {
                    return Ok(Ok(Names { sender: Arc::clone(name), to: None }));
                }
                let Some(member) = GroupDao::new(db).member(self.conv, sender)? else {
                    return Ok(Err(SendError::Forbidden));
                };
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(sender, Arc::clone(&member.name));
                Ok(Ok(Names { sender: member.name, to: None }))
            }
        }
    }

    /// How far the user's cursors may go, and who is told of them; `None` for who never was a member.
    pub(crate) fn reader(
        &self,
        db: &mut Connection,
        user: UserId,
    ) -> Result<Option<(Seq, Audience)>, StoreError> {
        Ok(match &self.who {
            Who::Pair { members, .. } if !members.has(user) => None,
            Who::Pair { blocked: true, .. } => Some((self.last_seq, Audience::Own)),
            Who::Pair { members, .. } => Some((self.last_seq, Audience::Pair(members.ids()))),
            Who::Group { members, .. } => CursorDao::new(db).upto(user, self.conv)?.map(|upto| {
                let tells = *members <= MARKS_MEMBERS_MAX as u64 && upto == Seq::MAX;
                (self.last_seq.min(upto), if tells { Audience::Group } else { Audience::Own })
            }),
        })
    }
}

/// Heads by conversation, with a bound: two generations, of which the older one is forgotten when the younger is full.
///
/// Of a file they are right while this writer is the only one, and dropped whenever a batch fails or a job writes as it likes. Of a server's tables they are right
/// only for the version that the row has under its lock.
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
                    Some(found) => Head::read(db, found)?,
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

    /// What stands in the conversation's row, under its lock: a head of another version is forgotten.
    pub(crate) fn locked(&mut self, conv: ConvId, version: u64, last_seq: Seq) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some(head) = generation.get_mut(&conv) {
                if head.version == version {
                    head.last_seq = last_seq;
                } else {
                    generation.remove(&conv);
                }
            }
        }
    }

    /// Forgets one.
    pub(crate) fn forget(&mut self, conv: ConvId) {
        self.young.remove(&conv);
        self.old.remove(&conv);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
