//! A call that is being made: its options, and the three ways to get its answer.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use prost::Message;

use crate::client::{Channel, Outgoing};
use crate::completion::{Completion, Outcome};
use crate::context::{CallContext, inherited, is_loop_thread};
use crate::method::MethodInfo;
use crate::status::{Code, Status};
use crate::wire::Entry;

/// A call that is ready to be made. Nothing happens before [`Call::then`], [`Call::wait`], [`Call::start`] or `.await`.
#[must_use = "a call is not made before then(), wait(), start() or .await"]
pub struct Call<T> {
    channel: Channel,
    outgoing: Outgoing,
    _gives: PhantomData<fn() -> T>,
}

impl<T: Message + Default + 'static> Call<T> {
    pub(crate) fn new(channel: Channel, method: &'static MethodInfo, body: Bytes) -> Self {
        let outgoing = Outgoing {
            method,
            body,
            timeout: None,
            until: inherited(),
            metadata: Vec::new(),
            waits: false,
            retries: true,
        };
        Self { channel, outgoing, _gives: PhantomData }
    }

    /// How long to wait for the answer, all tries together, instead of the channel's default. What the call inherits can only be shorter.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.outgoing.timeout = Some(timeout);
        self
    }

    /// Makes this a part of serving another call: not to take longer than that has left. Calls made by a handler on its own thread are so by themselves.
    pub fn within(mut self, cx: &CallContext) -> Self {
        self.outgoing.until = earlier(self.outgoing.until, cx.deadline());
        self
    }

    /// Says something besides the request; [`CallContext::metadata`] reads it.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.outgoing.metadata.push(Entry { key: key.into(), value: value.into() });
        self
    }

    /// Waits for an endpoint while there is none, as long as the call's time allows. Otherwise a call for which nobody can be reached fails at once.
    pub fn wait_for_ready(mut self) -> Self {
        self.outgoing.waits = true;
        self
    }

    /// Is not tried a second time, whatever happens.
    pub fn once(mut self) -> Self {
        self.outgoing.retries = false;
        self
    }

    /// Makes the call, and runs `callback` with its outcome on one of the channel's loops, where it must not block. On a loop of the channel, it is that loop.
    /// A call that cannot even be given to a loop runs it here and now.
    pub fn then(self, callback: impl FnOnce(Result<T, Status>) + Send + 'static) -> CallHandle {
        let Self { channel, outgoing, .. } = self;
        let key = channel.start(outgoing, Completion::new(move |outcome| callback(decode(outcome))));
        CallHandle { channel, key }
    }

    /// Makes the call and waits for its outcome.
    ///
    /// # Errors
    /// The call's own failure; and on the thread of a loop, where waiting could be waiting for oneself, `failed_precondition`.
    pub fn wait(self) -> Result<T, Status> {
        if is_loop_thread() && !self.channel.is_local() {
            return Err(Status::not_sent(
                Code::FailedPrecondition,
                "a loop's thread cannot wait for an answer",
            ));
        }
        let slot = Arc::new(Slot::default());
        let theirs = Arc::clone(&slot);
        // The handle is not kept: nobody is left to cancel.
        let _ = self.then(move |outcome| theirs.fill(outcome));
        slot.wait()
    }

    /// Makes the call at once; what is given can be awaited on any executor. Dropping it cancels the call.
    pub fn start(self) -> CallFuture<T> {
        let slot = Arc::new(Slot::default());
        let theirs = Arc::clone(&slot);
        let handle = self.then(move |outcome| theirs.fill(outcome));
        CallFuture { slot, handle: Some(handle) }
    }
}

impl<T: Message + Default + 'static> IntoFuture for Call<T> {
    type Output = Result<T, Status>;
    type IntoFuture = CallFuture<T>;

    fn into_future(self) -> CallFuture<T> {
        self.start()
    }
}

impl<T> std::fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("method", &self.outgoing.method.path).finish_non_exhaustive()
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn decode<T: Message + Default>(outcome: Outcome<'_>) -> Result<T, Status> {
    let body = outcome?;
    T::decode(body)
        .map_err(|error| Status::new(Code::Internal, format!("the answer cannot be read: {error}")))
}

/// A call under way, to give it up.
#[derive(Clone, Debug)]
pub struct CallHandle {
    channel: Channel,
    key: u64,
}

impl CallHandle {
    /// Gives the call up: it ends as `cancelled`, unless it has ended already, and the server is told.
    pub fn cancel(&self) {
        self.channel.cancel(self.key);
    }
}

/// Where one thread leaves the outcome and another finds it.
struct Slot<T> {
    state: Mutex<SlotState<T>>,
    filled: Condvar,
}

struct SlotState<T> {
    outcome: Option<Result<T, Status>>,
    waker: Option<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { state: Mutex::new(SlotState { outcome: None, waker: None }), filled: Condvar::new() }
    }
}

impl<T> Slot<T> {
    fn fill(&self, outcome: Result<T, Status>) {
        let mut state = self.state.lock();
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.filled.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A completion runs always, so this ends.
    fn wait(&self) -> Result<T, Status> {
        let mut state = self.state.lock();
        loop {
            match state.outcome.take() {
                Some(outcome) => return outcome,
                None => self.filled.wait(&mut state),
            }
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Result<T, Status>> {
        let mut state = self.state.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A call under way, as a future for any executor. Dropped before its end, it cancels the call.
pub struct CallFuture<T> {
    slot: Arc<Slot<T>>,
    /// Until the call has ended.
    handle: Option<CallHandle>,
}

impl<T> Future for CallFuture<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.slot.poll(cx);
        if outcome.is_ready() {
            self.handle = None;
        }
        outcome
    }
}

impl<T> Drop for CallFuture<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

impl<T> std::fmt::Debug for CallFuture<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallFuture").field("under_way", &self.handle.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_crosses_threads() {
        fn crosses<T: Send>() {}
        crosses::<Call<crate::echo::Payload>>();
        crosses::<CallFuture<crate::echo::Payload>>();
        crosses::<CallHandle>();
        crosses::<Channel>();
    }

    #[test]
    fn the_earlier_of_two_deadlines_counts() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(earlier(Some(later), Some(now)), Some(now));
        assert_eq!(earlier(None, Some(now)), Some(now));
        assert_eq!(earlier(None, None), None);
    }
}
