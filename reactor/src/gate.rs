//! The door of a loop's queues and its bell, in one word: whether the loop still takes anything, and whether it has to be woken for it.
//!
//! The loop and its producers keep to this order:
//!
//! ```text
//! producer                            loop
//!   P1  enter()                         L1  prepare_sleep()
//!   P2  push to the queue               L2  more pushes than seen?  yes: awake(), and handle them
//!   P3  ring(): count, leave, look      L3                          no: wait, awake(), and handle what came
//!   P4  if it sleeps, write the eventfd
//! ```
//!
//! # Why no wake-up is lost, and none is needed while the loop is awake
//!
//! P3 and L1 are both read-modify-writes of the one word, so one of them comes first, and the later one sees what the earlier one released. If P3 is first, the
//! loop sees the count of pushes risen, and what was pushed. If L1 is first, P3 sees that the loop sleeps. No fence is needed, as it would be with a flag in a word of its
//! own, where each side writes one place and reads the other's.
//!
//! When several producers see that the loop sleeps, the taking of the bit lets exactly one of them have it: whoever has it goes on to write the eventfd, and the
//! others rely on that. A wake-up that comes when the loop has noticed by itself makes it turn once for nothing and is harmless; it cannot be mistaken for a later
//! one, for the loop looks at the count before each sleep.
//!
//! # Why nothing is pushed unseen
//!
//! Count and door are one word too: each producer comes either before the closing, and is waited for, or after it, and is told.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(loom)]
use loom::thread::yield_now;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::thread::yield_now;

/// Lets producers in until the loop closes it; see the module's text.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Two bits; above them how many are inside; above these, wrapping, how many pushes there were.
    state: AtomicUsize,
}

/// Nobody is let in any more.
const CLOSED: usize = 1;
/// The loop sleeps, or is about to, and nobody has undertaken to wake it.
const ASLEEP: usize = 1 << 1;
/// One producer inside. There is room for a million, more threads than a system has.
const INSIDE: usize = 1 << 2;
/// One push. After 2^42 of them the count begins anew, which only matters to a loop that sleeps through exactly so many.
const PUSH: usize = 1 << 22;
const ALL_INSIDE: usize = PUSH - INSIDE;

const _: () = assert!(usize::BITS == 64, "the count of pushes needs the upper bits");

/// How many pushes there were, modulo the word: whether there were any since is one comparison, without a look into any queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushes(usize);

impl Pushes {
    /// Of a gate that nobody has come through.
    pub(crate) const NONE: Self = Self(0);
}

impl Gate {
    /// The gate of a loop that is awake. A loop that does not run yet counts as awake: it looks at its queues before its first sleep.
    pub(crate) fn new() -> Self {
        Self { state: AtomicUsize::new(0) }
    }

    /// Lets a producer in, until it rings or drops what it gets.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let before = self.state.fetch_add(INSIDE, Ordering::Acquire);
        // Made before the answer, for who is turned away has been counted too.
        let inside = Inside(self);
        if before & CLOSED == 0 { Some(inside) } else { None }
    }

    /// Loop thread: the pushes so far, each of which is in its queue.
    #[inline]
    pub(crate) fn pushes(&self) -> Pushes {
        Pushes(self.state.load(Ordering::Acquire) / PUSH)
    }

    /// Loop thread: announces that it is about to sleep, and says what has been pushed by then. More than was seen before means that it must not sleep.
    pub(crate) fn prepare_sleep(&self) -> Pushes {
        Pushes(self.state.fetch_or(ASLEEP, Ordering::AcqRel) / PUSH)
    }

    /// Loop thread: after the sleep, or instead of it.
    pub(crate) fn awake(&self) {
        // Whoever saw the bit has taken it; then there is nothing to write.
        if self.state.load(Ordering::Relaxed) & ASLEEP != 0 {
            self.state.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
    }

    /// Any thread, when it left something where no queue is, also at a closed gate: counts it as a push, and says whether the caller has to wake the loop.
    #[must_use = "whoever is told to wake the loop has to do it, or nobody does"]
    pub(crate) fn ring(&self) -> bool {
        self.after_push(self.state.fetch_add(PUSH, Ordering::AcqRel))
    }

    #[inline]
    fn after_push(&self, before: usize) -> bool {
        // The exchange lets exactly one of those who saw the bit have it.
        before & ASLEEP != 0 && self.state.fetch_and(!ASLEEP, Ordering::AcqRel) & ASLEEP != 0
    }

    /// Lets nobody in any more, and waits for those who are inside.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        // Producers are inside for one `try_send`: a matter of nanoseconds, unless the system takes the processor from them.
        while self.state.load(Ordering::Acquire) & ALL_INSIDE != 0 {
            yield_now();
        }
    }
}

/// A producer that is inside.
pub(crate) struct Inside<'a>(&'a Gate);

impl Inside<'_> {
    /// After the push: counts it, leaves, and says whether this caller has to wake the loop. True for one caller per sleep at most.
    #[inline]
    #[must_use = "whoever is told to wake the loop has to do it, or nobody does"]
    pub(crate) fn ring(self) -> bool {
        let gate = self.0;
        std::mem::forget(self);
        gate.after_push(gate.state.fetch_add(PUSH - INSIDE, Ordering::AcqRel))
    }
}

impl Drop for Inside<'_> {
    /// Leaves without a push.
    #[inline]
    fn drop(&mut self) {
        self.0.state.fetch_sub(INSIDE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_closed_gate_lets_nobody_in() {
        let gate = Gate::new();
        drop(gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none());
        assert_eq!(gate.state.load(Ordering::SeqCst), CLOSED);
        assert_eq!(gate.pushes(), Pushes::NONE);
    }

    #[test]
    fn a_loop_that_is_awake_is_not_woken() {
        let gate = Gate::new();
        assert!(!gate.enter().unwrap().ring());
        gate.prepare_sleep();
        gate.awake();
        assert!(!gate.enter().unwrap().ring());
    }

    #[test]
    fn pushes_are_counted_and_the_count_may_wrap() {
        let gate = Gate::new();
        gate.state.store(usize::MAX / PUSH * PUSH, Ordering::SeqCst);
        let before = gate.prepare_sleep();
        drop(gate.enter().unwrap());
        assert_eq!(gate.pushes(), before, "who pushed nothing is not counted");
        assert!(gate.enter().unwrap().ring());
        assert_eq!(gate.pushes(), Pushes::NONE);
        assert_eq!(gate.state.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn one_sleep_takes_one_wake_up() {
        let gate = Gate::new();
        for _ in 0..3 {
            gate.prepare_sleep();
            drop(gate.enter().unwrap());
            assert!(gate.enter().unwrap().ring());
            assert!(!gate.enter().unwrap().ring());
            assert!(!gate.ring());
            gate.awake();
        }
    }

    #[test]
    fn every_push_of_many_threads_is_handled() {
        const PRODUCERS: usize = 4;
        const PUSHES: usize = 5000;
        let gate = Gate::new();
        let (push, queue) = mpsc::channel();
        // Stands for the eventfd.
        let (wake, woken) = mpsc::channel();
        let (mut handled, mut sleeps, mut wakes) = (0, 0, 0);
        thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                let (gate, push, wake) = (&gate, push.clone(), wake.clone());
                scope.spawn(move || {
                    for n in 0..PUSHES {
                        let inside = gate.enter().unwrap();
                        push.send(n).unwrap();
                        if inside.ring() {
                            wake.send(()).unwrap();
                        }
                    }
                });
            }
            let mut seen = Pushes::NONE;
            while handled < PRODUCERS * PUSHES {
                let pushes = gate.prepare_sleep();
                sleeps += 1;
                if pushes == seen {
                    // The bound is for a failing test only: a lost wake-up would hang it.
                    woken.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
                    wakes += 1;
                }
                gate.awake();
                seen = gate.pushes();
                handled += queue.try_iter().count();
            }
        });
        wakes += woken.try_iter().count();
        assert!(wakes <= sleeps, "{wakes} wake-ups for {sleeps} sleeps");
    }
}

/// In all interleavings that matter; `cargo xtask ci` runs it.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// Stands for the eventfd.
    #[derive(Default)]
    struct Event {
        raised: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn raise(&self) {
            *self.raised.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut raised = self.raised.lock().unwrap();
            while !*raised {
                raised = self.changed.wait(raised).unwrap();
            }
            *raised = false;
        }
    }

    struct Shared {
        gate: Gate,
        /// The queue's length, relaxed on purpose: the order has to come from the gate, not from a lock that some queue may happen to have.
        queued: AtomicUsize,
        event: Event,
        wakes: AtomicUsize,
    }

    /// Two producers push `pushes` each, and the loop handles them all; a lost wake-up is a deadlock, which loom reports.
    fn model(pushes: usize) {
        let shared = Arc::new(Shared {
            gate: Gate::new(),
            queued: AtomicUsize::new(0),
            event: Event::default(),
            wakes: AtomicUsize::new(0),
        });
        let producers = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..pushes {
                    let Some(inside) = shared.gate.enter() else { unreachable!("nobody closes it") };
                    shared.queued.fetch_add(1, Ordering::Relaxed);
                    if inside.ring() {
                        shared.wakes.fetch_add(1, Ordering::Relaxed);
                        shared.event.raise();
                    }
                }
            })
        });
        let (mut handled, mut sleeps, mut seen) = (0, 0, Pushes::NONE);
        while handled < 2 * pushes {
            let so_far = shared.gate.prepare_sleep();
            sleeps += 1;
            if so_far == seen {
                shared.event.wait();
            }
            shared.gate.awake();
            seen = shared.gate.pushes();
            handled += shared.queued.swap(0, Ordering::Relaxed);
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert!(shared.wakes.load(Ordering::Relaxed) <= sleeps, "one wake-up per sleep");
    }

    fn builder() -> loom::model::Builder {
        let mut builder = loom::model::Builder::new();
        // Three threads: enough switches for every known failure of this shape, and an end within seconds.
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder
    }

    #[test]
    fn no_wake_up_is_lost() {
        builder().check(|| model(1));
    }

    #[test]
    fn no_wake_up_is_lost_over_several_sleeps() {
        builder().check(|| model(2));
    }

    /// One push against one falling asleep: the loop sees the push, or the producer is told to wake it.
    fn one_of_the_two_notices(announces_first: bool) {
        let shared = Arc::new((Gate::new(), AtomicUsize::new(0)));
        let producer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let Some(inside) = shared.0.enter() else { return false };
                shared.1.store(1, Ordering::Relaxed);
                inside.ring()
            })
        };
        let looked = if announces_first {
            shared.0.prepare_sleep()
        } else {
            let looked = shared.0.pushes();
            shared.0.prepare_sleep();
            looked
        };
        let seen = looked != Pushes::NONE;
        assert!(!seen || shared.1.load(Ordering::Relaxed) == 1, "what is counted is in the queue");
        let wakes = producer.join().unwrap();
        assert!(seen || wakes, "the loop sleeps on");
    }

    #[test]
    fn a_push_is_seen_or_wakes() {
        loom::model(|| one_of_the_two_notices(true));
    }

    #[test]
    #[should_panic(expected = "the loop sleeps on")]
    fn a_loop_that_looks_before_it_announces_its_sleep_sleeps_on() {
        loom::model(|| one_of_the_two_notices(false));
    }

    /// Two producers push, a third thread is the loop that closes and then looks for the last time. What a producer was let in for is seen by that look; who is
    /// not let in knows it.
    #[test]
    fn what_was_let_in_is_seen_by_the_last_look() {
        builder().check(|| {
            // Relaxed on purpose, as above.
            let shared = Arc::new((Gate::new(), AtomicUsize::new(0)));
            let producers = [(); 2].map(|()| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let Some(inside) = shared.0.enter() else { return 0 };
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    let _ = inside.ring();
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
