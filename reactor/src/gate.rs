//! The door of a loop's queues: open until the loop ends, and closed in such a way that nothing is pushed unseen behind the last look.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(loom)]
use loom::thread::yield_now;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::thread::yield_now;

/// Lets producers in until the loop closes it; closing waits for those who are inside, so that whatever they pushed is seen by the last drain.
///
/// Count and door are one word, so each producer comes either before the closing, and is waited for, or after it, and is told.
#[derive(Debug)]
pub(crate) struct Gate {
    /// How many are inside, and the top bit once closed.
    state: AtomicUsize,
}

const CLOSED: usize = !(usize::MAX >> 1);

impl Gate {
    pub(crate) fn new() -> Self {
        Self { state: AtomicUsize::new(0) }
    }

    /// Lets a producer in, until it drops what it gets.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let before = self.state.fetch_add(1, Ordering::Acquire);
        // Made before the answer, for who is turned away has been counted too.
        let inside = Inside(self);
        if before & CLOSED == 0 { Some(inside) } else { None }
    }

    /// Lets nobody in any more, and waits for those who are inside.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        // Producers are inside for one `try_send` and one eventfd write: a matter of microseconds.
        while self.state.load(Ordering::Acquire) != CLOSED {
            yield_now();
        }
    }
}

/// A producer that is inside.
pub(crate) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        // What was pushed is seen by whoever sees the producer gone.
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_lets_nobody_in() {
        let gate = Gate::new();
        drop(gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.state.load(Ordering::SeqCst), CLOSED);
    }
}

/// In all interleavings that matter; `cargo xtask ci` runs it.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Two producers push, a third thread is the loop that closes and then looks for the last time. What a producer was let in for is seen by that look; who is
    /// not let in knows it.
    #[test]
    fn what_was_let_in_is_seen_by_the_last_look() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(|| {
            // Relaxed on purpose: the order has to come from the gate, not from a lock that some queue may happen to have.
            let shared = Arc::new((Gate::new(), AtomicUsize::new(0)));
            let producers = [(); 2].map(|()| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let Some(_inside) = shared.0.enter() else { return 0 };
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    1
                })
            });
            shared.0.close();
            let seen = shared.1.load(Ordering::Relaxed);
            let pushed: usize = producers.into_iter().map(|producer| producer.join().unwrap()).sum();
            assert_eq!(seen, pushed);
        });
    }
}
