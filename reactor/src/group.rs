//! Groups: one message to many connections, wherever they live.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use crate::handle::{LoopHandle, LoopShared};
use crate::reason::PostError;
use crate::slab::Key;

/// A set of connections over the loops of a pool, to all of which one [`Bytes`] can be sent from any thread.
///
/// Connections join in their own callbacks ([`Context::join`](crate::Context::join)) and leave there or by closing. A message is encoded once and shared: it
/// costs one post for each loop that has members, and one write for each member. Messages of one thread reach each member in their order.
///
/// ```
/// let pool = reactor::EventLoopThreadPool::start(2, reactor::LoopConfig::default())?;
/// let room = reactor::Group::new(pool.handles());
/// room.send(&bytes::Bytes::from_static(b"nobody is here yet\n"))?;
/// assert!(room.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    loops: Vec<LoopShare>,
}

struct LoopShare {
    handle: LoopHandle,
    /// Members on this loop. Written by that loop alone.
    members: AtomicUsize,
}

/// A group's identity: where it lies in memory. Whoever keeps one keeps the group too, so no other comes to lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupId(usize);

impl Group {
    /// A group without members, for connections of these loops.
    #[must_use]
    pub fn new(loops: &[LoopHandle]) -> Self {
        let share = |handle: &LoopHandle| LoopShare { handle: handle.clone(), members: AtomicUsize::new(0) };
        Self { inner: Arc::new(Inner { loops: loops.iter().map(share).collect() }) }
    }

    /// Sends `bytes` to all members. Who joins or leaves at the same time may or may not get them.
    ///
    /// # Errors
    /// The first loop's that did not take the message, its queue being full or it having ended; the other loops' members get it all the same.
    pub fn send(&self, bytes: &Bytes) -> Result<(), PostError> {
        let mut result = Ok(());
        for share in &self.inner.loops {
            if share.members.load(Ordering::Relaxed) > 0 {
                let sent = share.handle.send_group(self.clone(), bytes.clone());
                result = result.and(sent);
            }
        }
        result
    }

    /// How many connections are members now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.loops.iter().map(|share| share.members.load(Ordering::Relaxed)).sum()
    }

    /// Whether nobody is a member now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn id(&self) -> GroupId {
        GroupId(Arc::as_ptr(&self.inner).addr())
    }

    fn share(&self, shared: &Arc<LoopShared>) -> Option<&LoopShare> {
        self.inner.loops.iter().find(|share| Arc::ptr_eq(&share.handle.shared, shared))
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("members", &self.len()).finish_non_exhaustive()
    }
}

/// The members of one group on one loop, by service.
pub(crate) struct Members {
    group: Group,
    pub(crate) by_service: SmallVec<[(u8, FxHashSet<Key>); 1]>,
}

/// All memberships of one loop.
#[derive(Default)]
pub(crate) struct Groups {
    by_id: FxHashMap<GroupId, Members>,
}

impl Groups {
    /// Makes a connection a member. `false` when it is one already, or the group does not know this loop.
    pub(crate) fn join(
        &mut self,
        group: &Group,
        loop_shared: &Arc<LoopShared>,
        service: u8,
        key: Key,
    ) -> bool {
        let Some(share) = group.share(loop_shared) else { return false };
        let empty = || Members { group: group.clone(), by_service: SmallVec::new() };
        let members = self.by_id.entry(group.id()).or_insert_with(empty);
        let keys = match members.by_service.iter_mut().find(|(owner, _)| *owner == service) {
            Some((_, keys)) => keys,
            None => {
                members.by_service.push((service, FxHashSet::default()));
                let Some((_, keys)) = members.by_service.last_mut() else { return false };
                keys
            }
        };
        let new = keys.insert(key);
        share.members.fetch_add(usize::from(new), Ordering::Relaxed);
        new
    }

    /// Ends a membership, if there is one.
    pub(crate) fn leave(&mut self, id: GroupId, loop_shared: &Arc<LoopShared>, service: u8, key: Key) {
        let Some(members) = self.by_id.get_mut(&id) else { return };
        let was_there = members
            .by_service
            .iter_mut()
            .find(|(owner, _)| *owner == service)
            .is_some_and(|(_, keys)| keys.remove(&key));
        if was_there && let Some(share) = members.group.share(loop_shared) {
            share.members.fetch_sub(1, Ordering::Relaxed);
        }
        if members.by_service.iter().all(|(_, keys)| keys.is_empty()) {
            self.by_id.remove(&id);
        }
    }

    /// Takes a group's members out, to be [given back](Self::give_back) after they were sent to.
    pub(crate) fn take(&mut self, id: GroupId) -> Option<Members> {
        self.by_id.remove(&id)
    }

    pub(crate) fn give_back(&mut self, id: GroupId, members: Members) {
        self.by_id.insert(id, members);
    }
}
