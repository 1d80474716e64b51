//! A message on its way to being acknowledged.

use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{ConvNumber, UserNumber};

/// To whom it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A conversation.
    Conv(ConvNumber),
    /// A user with whom there may be no conversation yet.
    User(UserNumber),
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be sent at this time.
    Waiting(Duration),
    /// Sent at this time.
    Flying(Duration),
}

/// One message. Its text, which is unique in the run, is its `client_id` too.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) text: String,
    pub(super) target: Target,
    /// It is one that the server must refuse.
    pub(super) may_be_refused: bool,
    state: State,
}

impl Outgoing {
    pub(super) fn new(text: String, target: Target, now: Duration) -> Outgoing {
        Outgoing { text, target, may_be_refused: false, state: State::Waiting(now) }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        matches!(self.state, State::Waiting(at) if at <= now)
    }

    pub(super) fn flying_since(&self) -> Option<Duration> {
        match self.state {
            State::Flying(since) => Some(since),
            State::Waiting(_) => None,
        }
    }

    /// The request; it counts as sent.
    pub(super) fn fly(&mut self, now: Duration) -> Value {
        self.state = State::Flying(now);
        let mut request = json!({"type": "send", "client_id": self.text, "text": self.text});
        match self.target {
            Target::Conv(conv) => request["conv"] = json!(conv),
            Target::User(user) => request["user"] = json!(user),
        }
        request
    }

    /// The connection is over. What was on its way is sent again on the next.
    pub(super) fn unanswered(&mut self, now: Duration) {
        if matches!(self.state, State::Flying(_)) {
            self.state = State::Waiting(now);
        }
    }

    /// To be sent again, with the same `client_id`.
    pub(super) fn again(&mut self, at: Duration) {
        self.state = State::Waiting(at);
    }
}
