//! What a handler knows of the call it serves, and what calls made meanwhile inherit.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reactor::Address;

use crate::method::MethodInfo;
use crate::wire::Entry;

thread_local! {
    /// The deadline of the call that this thread serves at the moment.
    static INHERITED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether this thread runs a loop, and so may not wait.
    static IS_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// What a call's context, its reply and its server share.
#[derive(Default)]
pub(crate) struct CallState {
    cancelled: AtomicBool,
    /// What is to be done when the call is cancelled.
    hooks: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl CallState {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Nobody waits for the call any more. Runs the hooks, outside the lock.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        let hooks = std::mem::take(&mut *self.hooks.lock());
        for hook in hooks {
            hook();
        }
    }

    fn on_cancel(&self, hook: Box<dyn FnOnce() + Send>) {
        let mut hooks = self.hooks.lock();
        // Looked at under the lock, so that a cancel meanwhile either sees the hook or is seen here.
        if self.is_cancelled() {
            drop(hooks);
            hook();
        } else {
            hooks.push(hook);
        }
    }
}

/// What a handler knows of the call that it serves.
pub struct CallContext {
    pub(crate) method: &'static MethodInfo,
    pub(crate) deadline: Option<Instant>,
    pub(crate) metadata: Vec<Entry>,
    pub(crate) peer: Option<Address>,
    pub(crate) state: Arc<CallState>,
}

impl CallContext {
    /// The method that was called.
    #[must_use]
    pub fn method(&self) -> &'static MethodInfo {
        self.method
    }

    /// Who calls; `None` within one process.
    #[must_use]
    pub fn peer(&self) -> Option<&Address> {
        self.peer.as_ref()
    }

    /// Until when the caller waits; `None`: for ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether nobody waits any more: the caller gave up, its connection is gone, or the time is over. Worth a look before costly work.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.is_cancelled() || self.is_expired()
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Runs `hook` when the caller gives up or its connection is gone, on the loop's thread; at once when that has happened already.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        self.state.on_cancel(Box::new(hook));
    }

    /// What the caller said besides the request.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&[u8]> {
        self.metadata.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_slice())
    }

    /// Runs `work` as a part of serving this call: calls made in it inherit its deadline. It is so by itself while a handler runs; for work that goes on on
    /// another thread, say it there.
    pub fn scope<R>(&self, work: impl FnOnce() -> R) -> R {
        scoped(self.deadline, work)
    }
}

impl std::fmt::Debug for CallContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallContext").field("method", &self.method.path).finish_non_exhaustive()
    }
}

/// Runs `work` with a deadline for what it calls.
pub(crate) fn scoped<R>(deadline: Option<Instant>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Instant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            INHERITED.set(self.0);
        }
    }
    let _restore = Restore(INHERITED.replace(deadline));
    work()
}

/// The deadline that a call made now inherits.
pub(crate) fn inherited() -> Option<Instant> {
    INHERITED.get()
}

/// From now on nobody may wait on this thread.
pub(crate) fn mark_loop_thread() {
    IS_LOOP.set(true);
}

pub(crate) fn is_loop_thread() -> bool {
    IS_LOOP.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_inherited_within_its_scope_only() {
        let deadline = Some(Instant::now());
        assert_eq!(inherited(), None);
        scoped(deadline, || {
            assert_eq!(inherited(), deadline);
            scoped(None, || assert_eq!(inherited(), None));
            assert_eq!(inherited(), deadline);
        });
        assert_eq!(inherited(), None);
    }

    #[test]
    fn a_hook_runs_once_whether_it_comes_before_or_after_the_cancel() {
        let state = CallState::default();
        let (tell, told) = crossbeam_channel::unbounded();
        let other = tell.clone();
        state.on_cancel(Box::new(move || tell.send(1).unwrap()));
        assert!(told.try_recv().is_err());
        state.cancel();
        state.on_cancel(Box::new(move || other.send(2).unwrap()));
        state.cancel();
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_context_crosses_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<CallContext>();
    }
}
