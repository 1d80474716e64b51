//! The queue of cursor writes: merged while they wait, and never in the way of a message.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use schema::{ConvId, Seq, UserId};

use crate::error::StoreError;
use crate::pipeline::{CursorWrite, Ticket};

/// Distinct (user, conversation) pairs that may wait, and as many tickets: about 8 MB.
const WAITING_MAX: usize = 65_536;

/// The writes of one user in one conversation, merged.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) user: UserId,
    pub(crate) conv: ConvId,
    pub(crate) delivered: Option<Seq>,
    pub(crate) read: Option<Seq>,
    /// Whose write gave `delivered`, and `read`: that asker knows of it already.
    pub(crate) delivered_by: Option<Ticket>,
    pub(crate) read_by: Option<Ticket>,
    pub(crate) tickets: Vec<Ticket>,
}

#[derive(Debug)]
pub(crate) struct CursorQueue {
    state: Mutex<State>,
    /// Holds at most one token: the writer is told once that there is something.
    wake: Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: FxHashMap<(UserId, ConvId), Waiting>,
    order: VecDeque<(UserId, ConvId)>,
    /// How many writes of each user wait or are being written.
    pending: FxHashMap<UserId, u32>,
    tickets: usize,
    closed: bool,
}

impl CursorQueue {
    pub(crate) fn new(wake: Sender<()>) -> Self {
        Self { state: Mutex::new(State::default()), wake }
    }

    pub(crate) fn push(&self, write: CursorWrite) -> Result<(), StoreError> {
        let first = self.state.lock().push(write)?;
        if first {
            // A full channel means that the writer has been told already.
            let _ = self.wake.try_send(());
        }
        Ok(())
    }

    /// Takes the `max` writes that have waited longest.
    pub(crate) fn take(&self, max: usize) -> Vec<Waiting> {
        let mut state = self.state.lock();
        let count = max.min(state.order.len());
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(key) = state.order.pop_front() else { break };
            if let Some(waiting) = state.waiting.remove(&key) {
                state.tickets -= waiting.tickets.len();
                taken.push(waiting);
            }
        }
        taken
    }

    /// What was taken is written, or has failed. Takes the users in the order of the writes.
    pub(crate) fn written(&self, users: impl Iterator<Item = UserId>) {
        let mut state = self.state.lock();
        for user in users {
            if let Some(count) = state.pending.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    state.pending.remove(&user);
                }
            }
        }
    }

    /// Whether a write of this user waits or is being written.
    pub(crate) fn is_pending(&self, user: UserId) -> bool {
        self.state.lock().pending.contains_key(&user)
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().order.len()
    }

    /// From now on nothing is taken in; what waits still goes out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }
}

impl State {
    /// Returns whether the queue was empty.
    fn push(&mut self, write: CursorWrite) -> Result<bool, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if write.ticket.is_some() && self.tickets >= WAITING_MAX {
            return Err(StoreError::Overloaded);
        }
        let key = (write.user, write.conv);
        let full = self.waiting.len() >= WAITING_MAX;
        let first = self.order.is_empty();
        let waiting = match self.waiting.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return Err(StoreError::Overloaded),
            Entry::Vacant(entry) => {
                self.order.push_back(key);
                *self.pending.entry(write.user).or_default() += 1;
                entry.insert(Waiting {
                    user: write.user,
                    conv: write.conv,
                    delivered: None,
                    read: None,
                    delivered_by: None,
                    read_by: None,
                    tickets: Vec::new(),
                })
            }
        };
        if write.delivered > waiting.delivered {
            (waiting.delivered, waiting.delivered_by) = (write.delivered, write.ticket);
        }
        if write.read > waiting.read {
            (waiting.read, waiting.read_by) = (write.read, write.ticket);
        }
        waiting.tickets.extend(write.ticket);
        self.tickets += usize::from(write.ticket.is_some());
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(user: u64, conv: u64, delivered: u64, call: Option<u64>) -> CursorWrite {
        CursorWrite {
            ticket: call.map(|call| Ticket { owner: 0, token: 0, call: Some(call) }),
            user: UserId::new(user).unwrap(),
            conv: ConvId::new(conv).unwrap(),
            delivered: Seq::new(delivered),
            read: None,
        }
    }

    #[test]
    fn writes_of_one_pair_are_merged_and_keep_their_tickets() {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let queue = CursorQueue::new(wake);
        queue.push(write(1, 1, 5, Some(1))).unwrap();
        queue.push(write(1, 1, 3, None)).unwrap();
        queue.push(write(2, 1, 9, None)).unwrap();
        queue.push(write(1, 1, 7, Some(2))).unwrap();
        assert_eq!(woken.len(), 1);
        let taken = queue.take(10);
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].delivered, Seq::new(7));
        assert_eq!(taken[0].delivered_by.and_then(|ticket| ticket.call), Some(2), "who asked for it");
        assert_eq!(taken[0].tickets.iter().map(|t| t.call).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!(taken[1].user.get(), 2);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn distinct_pairs_and_tickets_are_bounded() {
        let (wake, _woken) = crossbeam_channel::bounded(1);
        let queue = CursorQueue::new(wake);
        for user in 1..=u64::try_from(WAITING_MAX).unwrap() {
            queue.push(write(user, 1, 1, Some(user))).unwrap();
        }
        assert_eq!(queue.push(write(1_000_000, 1, 1, None)), Err(StoreError::Overloaded));
        assert_eq!(queue.push(write(1, 1, 2, Some(1))), Err(StoreError::Overloaded));
        queue.push(write(1, 1, 2, None)).unwrap();
        assert_eq!(queue.take(1).len(), 1);
        queue.push(write(1_000_000, 1, 1, Some(1))).unwrap();
    }

    #[test]
    fn a_closed_queue_takes_nothing_but_gives_what_it_has() {
        let (wake, _woken) = crossbeam_channel::bounded(1);
        let queue = CursorQueue::new(wake);
        queue.push(write(1, 1, 1, None)).unwrap();
        queue.close();
        assert_eq!(queue.push(write(1, 1, 2, None)), Err(StoreError::Closed));
        assert_eq!(queue.take(10).len(), 1);
    }
}
