//! The client as both faces use it: [`ClientService`] wired to [`ClientNet`].

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::net::{ClientNet, Epoch, NetEvent};
use crate::service::{Action, ClientService, Event};

/// How the wire is at present, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// An attempt is on its way.
    Connecting,
    /// Connected.
    Up,
    /// Not connected: why, and when the next attempt is.
    Down { why: String, retry_at: Option<Instant> },
}

/// What the program is told.
#[derive(Debug)]
pub(crate) enum News {
    /// The state of the wire changed.
    Link,
    /// Something of the protocol happened.
    Event(Event),
}

/// The protocol's state machine and the wire.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) service: ClientService,
    net: ClientNet,
    epoch: Epoch,
    link: Link,
    link_changed: bool,
}

impl Client {
    /// A client on a wire that has just been started.
    pub(crate) fn new(net: ClientNet) -> Self {
        let run: String = std::iter::repeat_with(fastrand::alphanumeric).take(12).collect();
        Self { service: ClientService::new(&run), net, epoch: 0, link: Link::Connecting, link_changed: false }
    }

    /// How the wire is.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// What happens on the wire, to be waited for; each event goes to [`Client::handle`].
    pub(crate) fn wire(&self) -> &Receiver<NetEvent> {
        self.net.events()
    }

    /// Something happened on the wire.
    pub(crate) fn handle(&mut self, now: Instant, event: NetEvent) {
        match event {
            NetEvent::Connecting => self.set_link(Link::Connecting),
            NetEvent::Up(epoch) => {
                self.epoch = epoch;
                self.service.handle_connected();
                self.set_link(Link::Up);
            }
            NetEvent::Line(line) => self.service.handle_line(now, &line),
            NetEvent::Down { why, retry_in } => {
                self.service.handle_lost();
                let retry_at = retry_in.and_then(|wait| now.checked_add(wait));
                self.set_link(Link::Down { why, retry_at });
            }
        }
    }

    fn set_link(&mut self, link: Link) {
        self.link = link;
        self.link_changed = true;
    }

    /// Does what the service wants done. To be called after everything that was done with it.
    pub(crate) fn flush(&mut self) {
        while let Some(action) = self.service.take_action() {
            match action {
                Action::Line(line) => self.net.say(self.epoch, line),
                Action::Connect => self.net.connect(),
                Action::Drop(why) => self.net.drop_connection(self.epoch, why),
            }
        }
    }

    /// The next thing to tell.
    pub(crate) fn news(&mut self) -> Option<News> {
        if std::mem::take(&mut self.link_changed) {
            return Some(News::Link);
        }
        self.service.take_event().map(News::Event)
    }

    /// How long to wait for the wire before [`ClientService::handle_time`] is due; at most `at_most`.
    pub(crate) fn patience(&self, now: Instant, at_most: Duration) -> Duration {
        let due = self.service.next_due();
        due.map_or(at_most, |due| due.saturating_duration_since(now).min(at_most))
    }
}
