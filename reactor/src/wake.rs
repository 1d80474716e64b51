//! Whether a sleeping loop has to be woken: at most one wake-up per sleep, none while the loop is awake.
//!
//! The loop and its producers keep to this order:
//!
//! ```text
//! producer                          loop
//!   P1  push to the queue             L1  prepare_sleep()
//!   P2  needs_wake()?                 L2  anything in the queue?  yes: awake(), and handle it
//!   P3  if so, write the eventfd      L3                          no: wait, awake(), and handle what came
//! ```
//!
//! # Why no wake-up is lost
//!
//! Each side writes one place and then reads the other's: the producer writes the queue (P1) and reads the flag
//! (P2), the loop writes the flag (L1) and reads the queue (L2). With stores and loads alone, release and acquire
//! included, both reads may see the old values, since a processor may let a load pass an earlier store to another
//! place (the *store buffering* of Dekker's algorithm): the producer takes the loop to be awake, the loop takes the
//! queue to be empty, and sleeps on. So both sides have a sequentially consistent fence between their write and
//! their read. All such fences are in one order. If the producer's is first, the loop's read after its own fence
//! sees the push; if the loop's is first, the producer's read sees the flag. At least one of the two notices.
//!
//! When several producers see the flag, the exchange lets exactly one of them have it. The others rely on that one's
//! wake-up, which may be yet to come but will: whoever has the flag goes on to write the eventfd. A wake-up that
//! comes when the loop has noticed by itself makes it turn once for nothing and is harmless; it cannot be mistaken
//! for a later one, for the loop looks at the queue before each sleep.
//!
//! `awake` needs no order: a producer that still sees the old flag writes once too often; one that sees the new
//! flag has its push found by the next L2 at the latest.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Says to producers whether the loop may be asleep; see the module's text for the order of calls.
#[derive(Debug)]
pub(crate) struct WakeFlag {
    asleep: AtomicBool,
}

impl WakeFlag {
    /// The flag of a loop that is awake. A loop that does not run yet counts as awake: it looks at its queues before
    /// its first sleep.
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// Loop thread: announces that it is about to sleep. The queues must be looked at between this and the sleep.
    pub(crate) fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Loop thread: after the sleep, or instead of it.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Any thread, after its push: whether this caller has to wake the loop. True for one caller per sleep at most.
    #[must_use = "whoever is told to wake the loop has to do it, or nobody does"]
    pub(crate) fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // The plain read first: while the loop is awake, producers share the line and none takes it for itself. Then
        // an exchange that writes only where it reads `true`, so that a late one cannot be taken for a later sleep's.
        self.asleep.load(Ordering::Relaxed) && self.take()
    }

    /// Lets exactly one caller have the flag.
    fn take(&self) -> bool {
        self.asleep.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_loop_that_is_awake_is_not_woken() {
        let flag = WakeFlag::new();
        assert!(!flag.needs_wake());
        flag.prepare_sleep();
        flag.awake();
        assert!(!flag.needs_wake());
    }

    #[test]
    fn one_sleep_takes_one_wake_up() {
        let flag = WakeFlag::new();
        for _ in 0..3 {
            flag.prepare_sleep();
            assert!(flag.needs_wake());
            assert!(!flag.needs_wake());
            flag.awake();
        }
    }

    #[test]
    fn every_push_of_many_threads_is_handled() {
        const PRODUCERS: usize = 4;
        const PUSHES: usize = 5000;
        let flag = WakeFlag::new();
        let (push, queue) = mpsc::channel();
        // Stands for the eventfd.
        let (wake, woken) = mpsc::channel();
        let (mut handled, mut sleeps, mut wakes) = (0, 0, 0);
        thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                let (flag, push, wake) = (&flag, push.clone(), wake.clone());
                scope.spawn(move || {
                    for n in 0..PUSHES {
                        push.send(n).unwrap();
                        if flag.needs_wake() {
                            wake.send(()).unwrap();
                        }
                    }
                });
            }
            while handled < PRODUCERS * PUSHES {
                flag.prepare_sleep();
                sleeps += 1;
                let first = queue.try_recv().ok();
                if first.is_none() {
                    // The bound is for a failing test only: a lost wake-up would hang it.
                    woken.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
                    wakes += 1;
                }
                flag.awake();
                handled += first.into_iter().chain(queue.try_iter()).count();
            }
        });
        wakes += woken.try_iter().count();
        assert!(wakes <= sleeps, "{wakes} wake-ups for {sleeps} sleeps");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicUsize;
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
        flag: WakeFlag,
        /// The queue's length, relaxed on purpose: the order has to come from the flag's fences, not from a lock
        /// that some queue may happen to have.
        queued: AtomicUsize,
        event: Event,
        wakes: AtomicUsize,
    }

    /// Two producers push `pushes` each, and the loop handles them all; a lost wake-up is a deadlock, which loom
    /// reports. `needs_wake` is the subject.
    fn model(pushes: usize, needs_wake: fn(&WakeFlag) -> bool) {
        let shared = Arc::new(Shared {
            flag: WakeFlag::new(),
            queued: AtomicUsize::new(0),
            event: Event::default(),
            wakes: AtomicUsize::new(0),
        });
        let producers = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..pushes {
                    shared.queued.fetch_add(1, Ordering::Relaxed);
                    if needs_wake(&shared.flag) {
                        shared.wakes.fetch_add(1, Ordering::Relaxed);
                        shared.event.raise();
                    }
                }
            })
        });
        let (mut handled, mut sleeps) = (0, 0);
        while handled < 2 * pushes {
            shared.flag.prepare_sleep();
            sleeps += 1;
            if shared.queued.load(Ordering::Relaxed) == 0 {
                shared.event.wait();
            }
            shared.flag.awake();
            handled += shared.queued.swap(0, Ordering::Relaxed);
        }
        for producer in producers {
            producer.join().unwrap();
        }
        // Over several sleeps loom's order of writes to one place is looser than the language's (it does not hold an
        // exchange to come right after what it read), and reports what cannot be.
        assert!(pushes > 1 || shared.wakes.load(Ordering::Relaxed) <= sleeps, "one wake-up per sleep");
    }

    fn builder() -> loom::model::Builder {
        let mut builder = loom::model::Builder::new();
        // Three threads: enough switches for every known failure of this shape, and an end within seconds.
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder
    }

    #[test]
    fn no_wake_up_is_lost() {
        builder().check(|| model(1, WakeFlag::needs_wake));
    }

    #[test]
    fn no_wake_up_is_lost_over_several_sleeps() {
        builder().check(|| model(2, WakeFlag::needs_wake));
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fence_a_wake_up_is_lost() {
        let without = |flag: &WakeFlag| flag.asleep.load(Ordering::Relaxed) && flag.take();
        builder().check(move || model(1, without));
    }
}
