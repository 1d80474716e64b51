//! What a loop waits with and asks the time of: the operating system, or a simulated world.

use std::io;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::id::Token;
#[cfg(any(test, feature = "test-util"))]
use crate::sim::loop_io::{SimPoller, SimRegistry, SimWaker};

/// Waits for events, and holds those of the last wait.
pub(crate) enum Poller {
    Os(mio::Poll, mio::Events),
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimPoller),
}

/// Where streams and listeners are registered.
pub(crate) enum Registry {
    Os(mio::Registry),
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimRegistry),
}

/// Ends a wait from another thread.
pub(crate) enum Waker {
    Os(mio::Waker),
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimWaker),
}

/// A monotonic clock.
pub(crate) enum Clock {
    Os,
    #[cfg(any(test, feature = "test-util"))]
    Sim(SimRegistry),
}

impl Poller {
    /// The operating system's, for at most `events_max` events per wait.
    pub(crate) fn os(events_max: usize) -> io::Result<Self> {
        Ok(Self::Os(mio::Poll::new()?, mio::Events::with_capacity(events_max)))
    }

    pub(crate) fn registry(&self) -> io::Result<Registry> {
        match self {
            Self::Os(poll, _) => poll.registry().try_clone().map(Registry::Os),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Ok(Registry::Sim(sim.registry())),
        }
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        match self {
            Self::Os(poll, _) => mio::Waker::new(poll.registry(), Token::WAKER).map(Waker::Os),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Ok(Waker::Sim(sim.waker())),
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        match self {
            Self::Os(..) => Clock::Os,
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Clock::Sim(sim.registry()),
        }
    }

    /// Waits at most for `timeout`, without one until something happens. An interruption is an end of the wait like another.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Os(poll, events) => match poll.poll(events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    events.clear();
                    Ok(())
                }
                result => result,
            },
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => {
                sim.wait(timeout);
                Ok(())
            }
        }
    }

    /// Whether the last wait brought nothing.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Os(_, events) => events.is_empty(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.events().is_empty(),
        }
    }

    /// The events of the last wait.
    pub(crate) fn batch(&self) -> Batch<'_> {
        match self {
            Self::Os(_, events) => Batch::new(events),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => Batch::simulated(sim.events()),
        }
    }

    /// Forgets them: they were dealt with.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Os(_, events) => events.clear(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.clear(),
        }
    }
}

impl Waker {
    pub(crate) fn wake(&self) -> io::Result<()> {
        match self {
            Self::Os(waker) => waker.wake(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(waker) => {
                waker.wake();
                Ok(())
            }
        }
    }
}

impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::Os => Instant::now(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(sim) => sim.now(),
        }
    }

    /// Whether the system's coarse clock goes with this one.
    pub(crate) const fn is_os(&self) -> bool {
        matches!(self, Self::Os)
    }
}
