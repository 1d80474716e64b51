//! What is to be sent and not answered yet, in the order in which it was written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::ConvId;
use schema::request::RequestId;
use schema::text::name_key;

use super::event::Ticket;
use crate::limits::{RETRY_BASE, RETRY_CAP, SENDS_IN_FLIGHT_MAX};

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// To a user, by name.
    User(String),
    /// To a conversation.
    Conv(ConvId),
}

impl To {
    /// Whether both surely name the same place.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User(a), Self::User(b)) => name_key(a) == name_key(b),
            (a, b) => a == b,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for its turn.
    Queued,
    /// Was said on this connection, under this id.
    InFlight(RequestId),
    /// Was answered with *not now*; comes again at this time.
    Waiting(Instant),
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) ticket: Ticket,
    /// The same at each attempt, so that the server takes it once.
    pub(crate) client_id: String,
    pub(crate) to: To,
    pub(crate) text: Arc<str>,
    state: State,
    tries: u32,
    /// It was said on a connection that ended: the server may have it.
    doubtful: bool,
}

/// The messages on their way.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Outgoing>,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Outgoing> {
        self.items.iter()
    }

    pub(crate) fn push(&mut self, ticket: Ticket, client_id: String, to: To, text: &str) {
        let text = Arc::from(text);
        self.items.push_back(Outgoing {
            ticket,
            client_id,
            to,
            text,
            state: State::Queued,
            tries: 0,
            doubtful: false,
        });
    }

    /// The next message that may be said, which then counts as in flight under `id`. Messages to one place keep their order: one that waits holds back those
    /// behind it. `place` says which place a target means.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        id: RequestId,
        place: impl Fn(&To) -> To,
    ) -> Option<&Outgoing> {
        let in_flight = self.items.iter().filter(|item| matches!(item.state, State::InFlight(_))).count();
        if in_flight >= SENDS_IN_FLIGHT_MAX {
            return None;
        }
        let mut held: Vec<To> = Vec::new();
        let at = self.items.iter().position(|item| {
            let free = match item.state {
                State::InFlight(_) => return false,
                State::Queued => true,
                State::Waiting(until) => until <= now,
            };
            let to = place(&item.to);
            if held.iter().any(|other| other.same(&to)) {
                return false;
            }
            if !free {
                held.push(to);
            }
            free
        })?;
        let item = self.items.get_mut(at)?;
        item.state = State::InFlight(id);
        Some(item)
    }

    /// The next message that the server may or may not have, which then counts as in flight under `id`.
    pub(crate) fn next_doubtful(&mut self, id: RequestId) -> Option<&Outgoing> {
        let item = self.items.iter_mut().find(|item| item.doubtful && item.state == State::Queued)?;
        item.state = State::InFlight(id);
        Some(item)
    }

    /// Whether an answer is awaited about which it is not known whether the server has it from an earlier connection.
    pub(crate) fn awaits_doubtful(&self) -> bool {
        self.items.iter().any(|item| item.doubtful && matches!(item.state, State::InFlight(_)))
    }

    /// The message was answered for good.
    pub(crate) fn take(&mut self, id: RequestId) -> Option<Outgoing> {
        let at = self.items.iter().position(|item| item.state == State::InFlight(id))?;
        self.items.remove(at)
    }

    /// The message was answered with *not now*.
    pub(crate) fn postpone(&mut self, id: RequestId, now: Instant, after: Option<Duration>) {
        if let Some(item) = self.items.iter_mut().find(|item| item.state == State::InFlight(id)) {
            let wait = after.unwrap_or_else(|| backoff(item.tries));
            item.tries = item.tries.saturating_add(1);
            item.doubtful = false;
            item.state = State::Waiting(now + wait);
        }
    }

    /// An own message with this text turned up in the conversation: if one that waits is the same, ask about it now.
    pub(crate) fn hurry(&mut self, text: &str) {
        for item in &mut self.items {
            if matches!(item.state, State::Waiting(_)) && item.text.as_ref() == text {
                item.state = State::Queued;
            }
        }
    }

    /// The connection ended: what was in flight is in doubt.
    pub(crate) fn connection_lost(&mut self) {
        for item in &mut self.items {
            if matches!(item.state, State::InFlight(_)) {
                item.doubtful = true;
                item.state = State::Queued;
            }
        }
    }

    /// When the next message that waits may be said.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = |item: &Outgoing| match item.state {
            State::Waiting(until) => Some(until),
            State::Queued | State::InFlight(_) => None,
        };
        self.items.iter().filter_map(due).min()
    }

    /// Gives all of them up.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Outgoing> + '_ {
        self.items.drain(..)
    }
}

/// The wait before the next attempt.
pub(crate) fn backoff(tries: u32) -> Duration {
    RETRY_BASE.saturating_mul(1_u32 << tries.min(8)).min(RETRY_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        for (n, name) in names.iter().enumerate() {
            let ticket = Ticket(u64::try_from(n).unwrap());
            outbox.push(ticket, format!("c-{n}"), To::User((*name).into()), "hi");
        }
        outbox
    }

    fn next(outbox: &mut Outbox, now: Instant, id: RequestId) -> Option<u64> {
        outbox.next(now, id, To::clone).map(|item| item.ticket.0)
    }

    #[test]
    fn messages_go_in_order_and_one_that_waits_holds_back_its_own_place_only() {
        let now = Instant::now();
        let mut outbox = with(&["bob", "Bob", "carol"]);
        assert_eq!(next(&mut outbox, now, 1), Some(0));
        outbox.postpone(1, now, None);
        assert_eq!(next(&mut outbox, now, 2), Some(2), "bob's second waits behind his first");
        assert_eq!(next(&mut outbox, now, 3), None);
        let later = outbox.next_due().unwrap();
        assert_eq!(next(&mut outbox, later, 4), Some(0));
        assert_eq!(next(&mut outbox, later, 5), Some(1));
    }

    #[test]
    fn a_lost_connection_makes_doubtful_what_was_in_flight_and_nothing_else() {
        let now = Instant::now();
        let mut outbox = with(&["bob", "bob"]);
        next(&mut outbox, now, 1);
        outbox.connection_lost();
        assert_eq!(outbox.next_doubtful(2).map(|item| item.client_id.clone()), Some("c-0".into()));
        assert!(outbox.awaits_doubtful());
        assert!(outbox.next_doubtful(3).is_none());
        assert_eq!(outbox.take(2).map(|item| item.ticket), Some(Ticket(0)));
        assert!(!outbox.awaits_doubtful());
        assert_eq!(next(&mut outbox, now, 4), Some(1));
    }

    #[test]
    fn only_so_many_are_in_flight() {
        let mut outbox = with(&["bob"; SENDS_IN_FLIGHT_MAX + 1]);
        let now = Instant::now();
        for id in 0..SENDS_IN_FLIGHT_MAX {
            assert!(next(&mut outbox, now, u64::try_from(id).unwrap()).is_some());
        }
        assert_eq!(next(&mut outbox, now, 1000), None);
    }

    #[test]
    fn waits_double_up_to_their_cap() {
        assert_eq!(backoff(0), RETRY_BASE);
        assert_eq!(backoff(1), RETRY_BASE * 2);
        assert_eq!(backoff(99), RETRY_CAP);
    }
}
