//! The messages of one user that are under way: sent, and not yet both answered and received.

use std::collections::VecDeque;
use std::time::Instant;

/// Messages under way, numbered from 1 in the order of their sending.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The number of the first of `flights`; all below are done.
    first: u64,
    flights: VecDeque<Flight>,
    unanswered: usize,
}

#[derive(Debug)]
struct Flight {
    sent: Instant,
    answered: bool,
    received: bool,
    refused: bool,
}

/// What an arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first; it was sent at this time.
    First(Instant),
    /// It had arrived before.
    Again,
    /// Nothing of this number was sent, or it was refused for good.
    Unknown,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { first: 1, flights: VecDeque::new(), unanswered: 0 }
    }
}

impl Outbox {
    /// Notes a message as sent; its number.
    pub(crate) fn send(&mut self, now: Instant) -> u64 {
        self.flights.push_back(Flight { sent: now, answered: false, received: false, refused: false });
        self.unanswered += 1;
        self.first + count(self.flights.len()) - 1
    }

    /// Messages that wait for their answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Messages that were accepted and have not arrived.
    pub(crate) fn lost(&self) -> usize {
        self.flights.iter().filter(|flight| flight.answered && !flight.received).count()
    }

    /// Whether every message was answered and has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The server has accepted a message.
    pub(crate) fn answer(&mut self, number: u64) -> Arrival {
        let Some(flight) = self.flight(number) else { return self.absent(number) };
        if flight.answered {
            return Arrival::Again;
        }
        flight.answered = true;
        let sent = flight.sent;
        self.unanswered -= 1;
        self.sweep();
        Arrival::First(sent)
    }

    /// The server has refused a message for good: it is not to arrive.
    pub(crate) fn refuse(&mut self, number: u64) {
        if let Some(flight) = self.flight(number)
            && !flight.answered
        {
            flight.answered = true;
            flight.refused = true;
            flight.received = true;
            self.unanswered -= 1;
            self.sweep();
        }
    }

    /// A message has arrived at its recipient.
    pub(crate) fn receive(&mut self, number: u64) -> Arrival {
        let Some(flight) = self.flight(number) else { return self.absent(number) };
        if flight.refused {
            return Arrival::Unknown;
        }
        if flight.received {
            return Arrival::Again;
        }
        flight.received = true;
        let sent = flight.sent;
        self.sweep();
        Arrival::First(sent)
    }

    fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        let at = number.checked_sub(self.first)?;
        self.flights.get_mut(usize::try_from(at).ok()?)
    }

    fn absent(&self, number: u64) -> Arrival {
        if (1..self.first).contains(&number) { Arrival::Again } else { Arrival::Unknown }
    }

    fn sweep(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.answered && flight.received) {
            self.flights.pop_front();
            self.first += 1;
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_done_when_it_was_answered_and_has_arrived_in_either_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        assert_eq!([outbox.send(now), outbox.send(now), outbox.send(now)], [1, 2, 3]);
        assert_eq!(outbox.answer(2), Arrival::First(now));
        assert_eq!(outbox.receive(1), Arrival::First(now));
        assert_eq!((outbox.unanswered(), outbox.lost()), (2, 1));
        assert_eq!(outbox.answer(1), Arrival::First(now));
        assert_eq!(outbox.receive(2), Arrival::First(now));
        assert!(!outbox.is_empty());
        assert_eq!((outbox.receive(3), outbox.answer(3)), (Arrival::First(now), Arrival::First(now)));
        assert!(outbox.is_empty());
        assert_eq!(outbox.send(now), 4);
    }

    #[test]
    fn a_second_arrival_is_told_from_one_that_nobody_sent() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.send(now);
        outbox.send(now);
        outbox.receive(1);
        assert_eq!(outbox.receive(1), Arrival::Again, "while it waits for its answer");
        outbox.answer(1);
        assert_eq!(outbox.receive(1), Arrival::Again, "and when it is done");
        assert_eq!(outbox.answer(1), Arrival::Again);
        assert_eq!([outbox.receive(0), outbox.receive(3)], [Arrival::Unknown; 2]);
    }

    #[test]
    fn what_was_refused_is_not_expected() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.send(now);
        outbox.send(now);
        outbox.refuse(2);
        assert_eq!((outbox.unanswered(), outbox.lost()), (1, 0));
        assert_eq!(outbox.receive(2), Arrival::Unknown);
    }
}
