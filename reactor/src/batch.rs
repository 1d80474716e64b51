//! The events of one wait, handed to the services in their order.

use crate::flags::Readiness;
use crate::id::Token;
use crate::slab::Key;

/// One event: the system's, or a simulated one.
#[derive(Clone, Copy)]
enum Event<'a> {
    Os(&'a mio::event::Event),
    #[cfg(any(test, feature = "test-util"))]
    Sim(&'a crate::sim::loop_io::SimEvent),
}

enum Events<'a> {
    Os(mio::event::Iter<'a>),
    #[cfg(any(test, feature = "test-util"))]
    Sim(std::slice::Iter<'a, crate::sim::loop_io::SimEvent>),
}

/// What is left of the events of a turn. Each service takes those at its front that are its own, so that the loop makes one dynamic call for a run of them.
pub(crate) struct Batch<'a> {
    events: Events<'a>,
    /// The first that is left, once it was looked at.
    held: Option<Event<'a>>,
    /// Events that were taken.
    pub(crate) taken: u64,
    /// Whom the last one was for, for who has to clean up after it.
    pub(crate) last: Key,
}

impl Event<'_> {
    #[inline]
    fn token(self) -> mio::Token {
        match self {
            Self::Os(event) => event.token(),
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(event) => event.token,
        }
    }

    #[inline]
    fn readiness(self) -> Readiness {
        match self {
            Self::Os(event) => {
                let closed = event.is_read_closed();
                let error = event.is_error() || event.is_write_closed();
                Readiness::new(event.is_readable(), event.is_writable(), closed, error)
            }
            #[cfg(any(test, feature = "test-util"))]
            Self::Sim(event) => event.readiness,
        }
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn new(events: &'a mio::Events) -> Self {
        Self::of(Events::Os(events.iter()))
    }

    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn simulated(events: &'a [crate::sim::loop_io::SimEvent]) -> Self {
        Self::of(Events::Sim(events.iter()))
    }

    fn of(events: Events<'a>) -> Self {
        Self { events, held: None, taken: 0, last: Key { slot: u32::MAX, generation: 0 } }
    }

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        match &mut self.events {
            Events::Os(events) => events.next().map(Event::Os),
            #[cfg(any(test, feature = "test-util"))]
            Events::Sim(events) => events.next().map(Event::Sim),
        }
    }

    /// Whose the next event is.
    pub(crate) fn service(&mut self) -> Option<u8> {
        if self.held.is_none() {
            self.held = self.next();
        }
        self.held.map(|event| Token::from_mio(event.token()).service)
    }

    /// Takes the next event if it is for this service.
    #[inline]
    pub(crate) fn take(&mut self, service: u8) -> Option<(Token, Readiness)> {
        let event = match self.held {
            Some(held) => {
                self.held = None;
                held
            }
            None => self.next()?,
        };
        let token = Token::from_mio(event.token());
        if token.service != service {
            self.held = Some(event);
            return None;
        }
        self.taken += 1;
        self.last = token.key;
        Some((token, event.readiness()))
    }

    /// Passes an event over that no service is for. Answers whether it was the loop's wake-up.
    pub(crate) fn skip(&mut self) -> bool {
        self.held.take().is_some_and(|event| event.token() == Token::WAKER)
    }
}
