//! What other threads hold of a loop: handles that are `Send + Sync + Clone`, and the queues behind them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::address::Address;
use crate::event_loop::EventLoop;
use crate::gate::Gate;
use crate::group::Group;
use crate::id::ConnId;
use crate::poller::Waker;
use crate::reason::PostError;
use crate::resolve::LookUp;
use crate::stats::{LoopStats, SharedStats};
use crate::stream::Stream;

/// What a loop and its handles share.
pub(crate) struct LoopShared {
    pub(crate) index: u16,
    pub(crate) waker: Waker,
    pub(crate) control: Sender<Control>,
    pub(crate) gate: Gate,
    pub(crate) thread: OnceLock<ThreadId>,
    /// A stop for which the control queue had no room.
    pub(crate) stop: StopRequest,
    pub(crate) stats: SharedStats,
}

impl LoopShared {
    #[cold]
    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake event loop {}: {error}", self.index);
        }
    }

    /// Hands `item` to a queue of this loop, unless the loop has stopped. What was taken will be run.
    pub(crate) fn push<T>(&self, queue: &Sender<T>, item: T) -> Result<(), (PostError, T)> {
        let Some(inside) = self.gate.enter() else { return Err((PostError::Stopped, item)) };
        match queue.try_send(item) {
            Ok(()) => {
                if inside.ring() {
                    self.wake();
                }
                Ok(())
            }
            Err(TrySendError::Full(item)) => Err((PostError::Full, item)),
            Err(TrySendError::Disconnected(item)) => Err((PostError::Stopped, item)),
        }
    }

    fn control(&self, command: Control) -> Result<(), PostError> {
        self.push(&self.control, command).map_err(|(error, _)| error)
    }
}

/// A stop that takes no place in a queue: the deadline in milliseconds and one more, or 0 for none.
#[derive(Debug, Default)]
pub(crate) struct StopRequest(AtomicU64);

impl StopRequest {
    /// Stands for the deadline of the loop's configuration.
    const BY_CONFIG: u64 = u64::MAX;

    fn set(&self, deadline: Option<Duration>) {
        let millis = |deadline: Duration| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let word = deadline
            .map_or(Self::BY_CONFIG, |deadline| millis(deadline).saturating_add(1).min(Self::BY_CONFIG - 1));
        // The first stop counts, here as in the queue.
        let _ = self.0.compare_exchange(0, word, Ordering::Release, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// The request with its deadline, if there is one.
    pub(crate) fn take(&self) -> Option<Option<Duration>> {
        // A plain look first: this is done in every turn.
        if !self.is_set() {
            return None;
        }
        match self.0.swap(0, Ordering::AcqRel) {
            0 => None,
            Self::BY_CONFIG => Some(None),
            word => Some(Some(Duration::from_millis(word - 1))),
        }
    }
}

/// A task for the loop's thread.
pub(crate) type Task = Box<dyn FnOnce(&mut EventLoop) + Send>;

/// What goes over a loop's control queue.
pub(crate) enum Control {
    Task(Task),
    Conn(ConnId, ConnCommand),
    /// Boxed, for it is seldom and would make every command larger.
    Adopt(Box<Adoption>),
    /// A message to the members of a group on this loop.
    Group(Group, Bytes),
    /// A task that is to run later.
    Later(Duration, Task),
    LookedUp(u8, u64, LookUp),
    StopAccepting(u8),
    StopClient(u8),
    Stop(Option<Duration>),
}

/// A connection on its way from the loop that accepted it to the one that serves it.
pub(crate) struct Adoption {
    pub(crate) service: u8,
    pub(crate) stream: Stream,
    pub(crate) peer: Address,
}

/// What another thread can ask of one connection.
pub(crate) enum ConnCommand {
    Send(Bytes),
    Close(&'static str),
    Abort(&'static str),
}

/// A handle on an event loop, for any thread.
#[derive(Clone)]
pub struct LoopHandle {
    pub(crate) shared: Arc<LoopShared>,
}

impl LoopHandle {
    /// The loop's index in its pool.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.shared.index
    }

    /// Runs `task` on the loop's thread, in a coming turn. What was accepted is run, even if the loop stops before.
    ///
    /// # Errors
    /// [`PostError::Full`] while the loop is behind by its queue's length, [`PostError::Stopped`] once it ended; the task is dropped.
    pub fn post<F: FnOnce(&mut EventLoop) + Send + 'static>(&self, task: F) -> Result<(), PostError> {
        self.shared.control(Control::Task(Box::new(task)))
    }

    /// Asks the loop to stop: its connections are closed, what they hold is delivered within the deadline of the loop's configuration, then it ends.
    /// Asked before the loop runs, it is remembered. Asked again, it can only bring the end forward.
    pub fn stop(&self) {
        self.stop_within(None);
    }

    /// Like [`LoopHandle::stop`], with a deadline of its own.
    pub fn stop_within(&self, deadline: Option<Duration>) {
        // By the queue, so that what was posted before comes before. A stop is not lost because the queue is full.
        if self.shared.control(Control::Stop(deadline)) == Err(PostError::Full) {
            self.shared.stop.set(deadline);
            if self.shared.gate.ring() {
                self.shared.wake();
            }
        }
    }

    /// Whether the calling thread is the one that runs this loop.
    #[must_use]
    pub fn is_loop_thread(&self) -> bool {
        self.shared.thread.get() == Some(&std::thread::current().id())
    }

    /// The loop's counters, as they stood at the end of its last turn.
    #[must_use]
    pub fn stats(&self) -> LoopStats {
        self.shared.stats.read()
    }

    /// A queue for messages to a service that is yet to be put on this loop: at most `capacity` may wait.
    #[must_use]
    pub fn service_slot<P: Send + 'static>(&self, capacity: usize) -> ServiceSlot<P> {
        let (sender, receiver) = bounded(capacity.max(1));
        ServiceSlot { handle: ServiceHandle { shared: Arc::clone(&self.shared), sender }, receiver }
    }

    /// A handle on one of this loop's connections.
    #[must_use]
    pub fn conn(&self, id: ConnId) -> ConnHandle {
        ConnHandle { shared: Arc::clone(&self.shared), id }
    }

    /// Runs `task` on the loop's thread after `delay`, rounded up to a millisecond. A loop that stops before drops it.
    ///
    /// # Errors
    /// Like [`LoopHandle::post`].
    pub fn post_after<F: FnOnce(&mut EventLoop) + Send + 'static>(
        &self,
        delay: Duration,
        task: F,
    ) -> Result<(), PostError> {
        self.shared.control(Control::Later(delay, Box::new(task)))
    }

    pub(crate) fn send_group(&self, group: Group, bytes: Bytes) -> Result<(), PostError> {
        self.shared.control(Control::Group(group, bytes))
    }

    pub(crate) fn looked_up(&self, service: u8, attempt: u64, found: LookUp) -> Result<(), PostError> {
        self.shared.control(Control::LookedUp(service, attempt, found))
    }

    /// Hands a connection over, or gives it back.
    pub(crate) fn adopt(&self, adoption: Adoption) -> Result<(), (PostError, Option<Adoption>)> {
        let command = Control::Adopt(Box::new(adoption));
        self.shared.push(&self.shared.control, command).map_err(|(error, back)| match back {
            Control::Adopt(adoption) => (error, Some(*adoption)),
            _ => (error, None),
        })
    }

    pub(crate) fn stop_accepting(&self, service: u8) -> Result<(), PostError> {
        self.shared.control(Control::StopAccepting(service))
    }

    pub(crate) fn stop_client(&self, service: u8) -> Result<(), PostError> {
        self.shared.control(Control::StopClient(service))
    }
}

impl std::fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopHandle").field("index", &self.shared.index).finish_non_exhaustive()
    }
}

/// The place of a service on a loop before the service exists: hand out its handle first, make the service later.
pub struct ServiceSlot<P> {
    pub(crate) handle: ServiceHandle<P>,
    pub(crate) receiver: Receiver<P>,
}

impl<P> ServiceSlot<P> {
    /// The handle by which other threads will reach the service. What is posted before it is there waits for it.
    #[must_use]
    pub fn handle(&self) -> ServiceHandle<P> {
        self.handle.clone()
    }
}

impl<P> std::fmt::Debug for ServiceSlot<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceSlot").field("loop", &self.handle.shared.index).finish_non_exhaustive()
    }
}

/// A handle on a service: sends it messages from any thread.
pub struct ServiceHandle<P> {
    shared: Arc<LoopShared>,
    sender: Sender<P>,
}

impl<P> ServiceHandle<P> {
    /// Sends `post` to the service; `on_post` gets it in a coming turn. Messages of one thread arrive in their order. One wake-up serves all that is
    /// posted while the loop sleeps, none is needed while it is awake.
    ///
    /// # Errors
    /// The message comes back with [`PostError::Full`] when the queue is full, with [`PostError::Stopped`] when the loop has ended.
    pub fn post(&self, post: P) -> Result<(), (PostError, P)> {
        self.shared.push(&self.sender, post)
    }

    pub(crate) fn loop_shared(&self) -> Arc<LoopShared> {
        Arc::clone(&self.shared)
    }

    /// The index of the loop.
    #[must_use]
    pub fn loop_index(&self) -> u16 {
        self.shared.index
    }

    /// Messages waiting.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.sender.len()
    }
}

impl<P> Clone for ServiceHandle<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), sender: self.sender.clone() }
    }
}

impl<P> std::fmt::Debug for ServiceHandle<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceHandle").field("loop", &self.shared.index).finish_non_exhaustive()
    }
}

/// A handle on one connection, for any thread. It holds the connection's name, not the connection: once that is gone, nothing is reached by it.
#[derive(Clone)]
pub struct ConnHandle {
    shared: Arc<LoopShared>,
    id: ConnId,
}

impl ConnHandle {
    /// The connection's name.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Sends `bytes` as they are, in a coming turn of the loop. If the connection is gone by then they are dropped and counted as a stale send.
    ///
    /// # Errors
    /// When the loop's queue is full or the loop has ended.
    pub fn send(&self, bytes: Bytes) -> Result<(), PostError> {
        self.shared.control(Control::Conn(self.id, ConnCommand::Send(bytes)))
    }

    /// Closes the connection after what was sent has gone out.
    ///
    /// # Errors
    /// When the loop's queue is full or the loop has ended.
    pub fn close(&self, why: &'static str) -> Result<(), PostError> {
        self.shared.control(Control::Conn(self.id, ConnCommand::Close(why)))
    }

    /// Closes the connection at once with a reset; what is unsent is discarded.
    ///
    /// # Errors
    /// When the loop's queue is full or the loop has ended.
    pub fn abort(&self, why: &'static str) -> Result<(), PostError> {
        self.shared.control(Control::Conn(self.id, ConnCommand::Abort(why)))
    }
}

impl std::fmt::Debug for ConnHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ConnHandle").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_cross_threads() {
        fn crosses<T: Send + Sync + Clone>() {}
        crosses::<LoopHandle>();
        crosses::<ConnHandle>();
        crosses::<ServiceHandle<Vec<u8>>>();
        crosses::<crate::TcpClient>();
        crosses::<ConnId>();
        crosses::<crate::TimerKey>();
    }

    #[test]
    fn what_owns_loops_crosses_threads_too() {
        fn crosses<T: Send + Sync>() {}
        crosses::<crate::RunningServer<Vec<u8>>>();
        crosses::<crate::EventLoopThreadPool>();
        crosses::<crate::TcpServer>();
    }
}
