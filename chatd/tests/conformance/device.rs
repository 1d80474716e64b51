//! One device of a user in the randomised test: its connection, and what it has kept over all its connections.

use crate::client::{Client, Got};
use crate::model::{Place, Stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request whose reply has not come.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A send, by its number in the world's list.
    Send(usize),
    /// An ack with an id.
    Ack(Place),
    /// A page of history, from the entry after this bound.
    History(Place),
    /// Anything that has to be answered with `ok`.
    Other,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// No connection.
    Offline,
    /// Logged in with `hold`: nothing may be pushed.
    Held,
    /// The streams run.
    Live,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Whose it is, by number.
    pub(crate) user: usize,
    /// Where its connection is.
    pub(crate) phase: Phase,
    /// The connection.
    pub(crate) client: Option<Client>,
    /// The streams of this connection.
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// The requests of this connection that are unanswered.
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Whether `synced` has come on this connection.
    pub(crate) synced: bool,
    /// What the world knew of each conversation before this connection's login.
    pub(crate) lasts_at_login: BTreeMap<u64, u64>,
    /// What was known to be delivered to the user before this connection's login.
    pub(crate) floor_at_login: BTreeMap<u64, u64>,
    /// Steps for which it does not read.
    pub(crate) slow: u32,
    /// What it has kept, over all connections.
    have: BTreeMap<u64, BTreeSet<u64>>,
    /// The last `delivered` that this connection was told, by conversation and user.
    delivered: BTreeMap<(u64, u64), u64>,
}

impl Device {
    /// A device that has never been online.
    pub(crate) fn new(user: usize) -> Self {
        Self {
            user,
            phase: Phase::Offline,
            client: None,
            streams: BTreeMap::new(),
            pending: BTreeMap::new(),
            synced: false,
            lasts_at_login: BTreeMap::new(),
            floor_at_login: BTreeMap::new(),
            slow: 0,
            have: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }

    /// A new connection takes the place of the old one.
    pub(crate) fn begin(&mut self, client: Client, phase: Phase) {
        self.client = Some(client);
        self.phase = phase;
        self.streams.clear();
        self.pending.clear();
        self.synced = false;
        self.delivered.clear();
        self.slow = 0;
    }

    /// The connection.
    pub(crate) fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is online")
    }

    /// Ends the test, with the last lines of this device's connection.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let what = format!("device of user {}, {:?}: {what}", self.user, self.phase);
        match &self.client {
            Some(client) => client.fail(&what),
            None => panic!("{what}"),
        }
    }

    /// Keeps an entry.
    pub(crate) fn keep(&mut self, (conv, seq): Place) {
        self.have.entry(conv).or_default().insert(seq);
    }

    /// The device's own cursors: up to where it has everything of each conversation.
    pub(crate) fn cursors(&self) -> BTreeMap<u64, u64> {
        let complete =
            |seqs: &BTreeSet<u64>| seqs.iter().zip(1..).take_while(|(seq, n)| *seq == n).count() as u64;
        self.have.iter().map(|(&conv, seqs)| (conv, complete(seqs))).collect()
    }

    /// An entry as a push: it has to keep to the promise and to the window.
    pub(crate) fn on_push(&mut self, (conv, seq): Place, window: usize) -> Result<(), String> {
        if self.phase != Phase::Live {
            return Err(format!("{conv}/{seq} was pushed before the streams were started"));
        }
        self.streams
            .entry(conv)
            .or_default()
            .on_push(seq)
            .map_err(|fault| format!("conversation {conv}: {fault}"))?;
        self.keep((conv, seq));
        let unacked = self.unacked();
        if unacked > window {
            return Err(format!("{unacked} pushes are unacked, the window is {window}"));
        }
        Ok(())
    }

    /// An entry as the `ok` of an own send.
    pub(crate) fn on_own(&mut self, (conv, seq): Place) -> Result<(), String> {
        self.keep((conv, seq));
        self.streams
            .entry(conv)
            .or_default()
            .on_own(seq)
            .map_err(|fault| format!("conversation {conv}: {fault}"))
    }

    /// `synced`: once, and all that was there at login has come.
    pub(crate) fn on_synced(&mut self) -> Result<(), String> {
        if self.synced || self.phase != Phase::Live {
            return Err("synced out of turn".to_owned());
        }
        self.synced = true;
        for (&conv, &last) in &self.lasts_at_login {
            self.streams.entry(conv).or_default().synced_to = last;
        }
        match self.missing(&self.lasts_at_login) {
            Some(conv) => {
                Err(format!("synced, and conversation {conv} is not complete: {:?}", self.streams.get(&conv)))
            }
            None => Ok(()),
        }
    }

    /// A `delivered` push: it does not go back.
    pub(crate) fn on_delivered(&mut self, push: &Value) -> Result<(), String> {
        let number = |field: &str| push[field].as_u64().ok_or_else(|| format!("no {field} in {push}"));
        let seq = number("seq")?;
        match self.delivered.insert((number("conv")?, number("user")?), seq) {
            Some(before) if before > seq => Err(format!("delivered went back from {before}")),
            _ => Ok(()),
        }
    }

    /// The first conversation whose stream is not complete up to these numbers.
    pub(crate) fn missing(&self, lasts: &BTreeMap<u64, u64>) -> Option<u64> {
        let untold = Stream::default();
        let complete = |conv: &u64, last: &u64| self.streams.get(conv).unwrap_or(&untold).has_all_to(*last);
        lasts.iter().find(|(conv, last)| !complete(conv, last)).map(|(conv, _)| *conv)
    }

    /// The pushes of all conversations that this connection has not acked.
    pub(crate) fn unacked(&self) -> usize {
        self.streams.values().map(Stream::unacked).sum()
    }

    /// Ends the writing side and reads up to the end: what it sent has to be answered.
    pub(crate) fn part(&mut self) -> Vec<Value> {
        self.client().shutdown_write();
        self.client().rest()
    }

    /// What has come by now, waiting a moment when `patient`.
    pub(crate) fn arrived(&mut self, patient: bool) -> Vec<Value> {
        let client = self.client();
        let mut lines = client.arrived();
        if lines.is_empty()
            && patient
            && !client.is_closed()
            && let Got::Line(line) = client.next(Duration::from_millis(2))
        {
            lines.push(line);
        }
        lines
    }
}
