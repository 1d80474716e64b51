//! Whether a caller waits for room in its buffer, told to the log thread, which makes it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Said by the caller *before* it looks for room for the last time, asked by the log thread *after* it has made some: so either the caller sees the room, or the log
/// thread sees that it waits.
#[derive(Debug)]
pub(crate) struct Waits(AtomicBool);

impl Waits {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The caller will wait, unless it finds room now.
    pub(crate) fn announce(&self) {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// There is room: whether somebody must be told, which is then done with.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// No caller sleeps beside an empty buffer.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    #[test]
    fn who_waits_for_room_sees_it_or_is_told() {
        loom::model(|| {
            let (waits, free) = (Arc::new(Waits::new()), Arc::new(AtomicUsize::new(0)));
            let told = Arc::new(AtomicBool::new(false));
            let log_thread = {
                let (waits, free, told) = (Arc::clone(&waits), Arc::clone(&free), Arc::clone(&told));
                thread::spawn(move || {
                    // As the ring does it: no more than release and acquire.
                    free.store(1, Ordering::Release);
                    if waits.take() {
                        told.store(true, Ordering::SeqCst);
                    }
                })
            };
            waits.announce();
            let saw_room = free.load(Ordering::Acquire) > 0;
            log_thread.join().unwrap();
            assert!(saw_room || told.load(Ordering::SeqCst));
        });
    }
}
