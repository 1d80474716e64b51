//! The events of one wait, handed to the services in their order.

use mio::event::Event;

use crate::flags::Readiness;
use crate::id::Token;
use crate::slab::Key;

/// What is left of the events of a turn. Each service takes those at its front that are its own, so that the loop makes one dynamic call for a run of them.
pub(crate) struct Batch<'a> {
    events: mio::event::Iter<'a>,
    /// The first that is left, once it was looked at.
    held: Option<&'a Event>,
    /// Events that were taken.
    pub(crate) taken: u64,
    /// Whom the last one was for, for who has to clean up after it.
    pub(crate) last: Key,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(events: &'a mio::Events) -> Self {
        let nobody = Key { slot: u32::MAX, generation: 0 };
        Self { events: events.iter(), held: None, taken: 0, last: nobody }
    }

    /// Whose the next event is.
    pub(crate) fn service(&mut self) -> Option<u8> {
        if self.held.is_none() {
            self.held = self.events.next();
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
            None => self.events.next()?,
        };
        let token = Token::from_mio(event.token());
        if token.service != service {
            self.held = Some(event);
            return None;
        }
        self.taken += 1;
        self.last = token.key;
        let closed = event.is_read_closed();
        let error = event.is_error() || event.is_write_closed();
        Some((token, Readiness::new(event.is_readable(), event.is_writable(), closed, error)))
    }

    /// Passes an event over that no service is for. Answers whether it was the loop's wake-up.
    pub(crate) fn skip(&mut self) -> bool {
        self.held.take().is_some_and(|event| event.token() == Token::WAKER)
    }
}
