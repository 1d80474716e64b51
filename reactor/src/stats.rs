//! What a loop counts: plain numbers on the loop, published once per turn for other threads to read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reason::CloseReason;

const REASONS: usize = CloseReason::LABELS.len();

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A loop's counters since its start, as they stood at the end of a turn.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct LoopStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Closed connections by reason, in the order of [`CloseReason::LABELS`].
            pub closes: [u64; REASONS],
        }

        /// The published copy. Written by the loop thread alone, so relaxed stores suffice: each number is right by itself.
        #[derive(Debug, Default)]
        pub(crate) struct SharedStats {
            $($name: AtomicU64,)*
            closes: [AtomicU64; REASONS],
        }

        impl SharedStats {
            pub(crate) fn publish(&self, stats: &LoopStats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
                for (shared, local) in self.closes.iter().zip(stats.closes) {
                    shared.store(local, Ordering::Relaxed);
                }
            }

            pub(crate) fn read(&self) -> LoopStats {
                let mut stats = LoopStats { $($name: self.$name.load(Ordering::Relaxed),)* ..LoopStats::default() };
                for (local, shared) in stats.closes.iter_mut().zip(&self.closes) {
                    *local = shared.load(Ordering::Relaxed);
                }
                stats
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Waits that ended by a wake-up from another thread.
    wakeups,
    /// Readiness events.
    events,
    /// Events for a connection that was gone already.
    stale_events,
    /// Sends to a name whose connection was gone already.
    stale_sends,
    /// Connections accepted by this loop's listeners.
    accepted,
    /// Connections that were refused for a limit, or shed for want of descriptors.
    shed,
    /// Failed accepts (`EMFILE` and its kin) that led to a back-off.
    accept_errors,
    /// Connections opened on this loop, accepted or connected.
    opened,
    /// Connections closed on this loop.
    closed,
    /// Bytes read.
    bytes_in,
    /// Bytes written.
    bytes_out,
    /// Read calls.
    reads,
    /// Read calls that found nothing.
    reads_blocked,
    /// Write calls.
    writes,
    /// Frames given to handlers.
    frames,
    /// Posted messages, tasks and commands run.
    posts,
    /// Timers fired.
    timers,
    /// Panics caught in handlers.
    panics,
}
