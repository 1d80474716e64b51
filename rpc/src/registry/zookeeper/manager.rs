//! The thread that does all that is done with ZooKeeper: keeps a session, keeps our entries entered, fetches what changed.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};
use reactor::Backoff;

use super::super::{Instance, Observer, RegistryError, Wish};
use super::consumer::{Consumer, fetch};
use super::paths;
use super::provider::{Provider, found};
use super::servers;
use super::session::{Event, Failure, Session};
use super::snapshot::Snapshot;
use super::{Counts, ZooKeeperConfig};

/// What the owner of the registry asks of its thread.
pub(super) enum Command {
    Watch(u64, String, Observer),
    Unwatch(u64),
    Register(Provider),
    Wish(u64, Wish),
    Services(Sender<Result<Vec<String>, RegistryError>>),
    Instances(String, Sender<Result<Vec<Instance>, RegistryError>>),
    /// Nobody holds the registry any more.
    Stop,
}

/// After how long what differs is compared again.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether what is known is what is there.
enum Compared {
    Same,
    Differs,
}

/// Why a session ended, or a wait.
enum End {
    Lost,
    Stopped,
}

impl From<Failure> for End {
    fn from(_: Failure) -> Self {
        Self::Lost
    }
}

pub(super) struct Manager {
    config: ZooKeeperConfig,
    commands: Receiver<Command>,
    counts: std::sync::Arc<Counts>,
    providers: Vec<Provider>,
    consumers: Vec<Consumer>,
    snapshot: Snapshot,
    /// What was known differed from what was there when it was compared last.
    doubts: bool,
    /// The server that is tried next.
    next: usize,
    rng: fastrand::Rng,
}

impl Manager {
    pub(super) fn new(
        config: ZooKeeperConfig,
        commands: Receiver<Command>,
        counts: std::sync::Arc<Counts>,
    ) -> Self {
        let snapshot = Snapshot::open(config.snapshot.clone());
        let mut rng = fastrand::Rng::new();
        let next = rng.usize(..config.servers.len().max(1));
        Self {
            config,
            commands,
            counts,
            providers: Vec::new(),
            consumers: Vec::new(),
            snapshot,
            doubts: false,
            next,
            rng,
        }
    }

    pub(super) fn run(mut self) {
        let mut backoff = Backoff::from_config(self.config.backoff);
        loop {
            if let Some(mut session) = self.connect() {
                self.counts.session_began();
                backoff.on_connected(Instant::now());
                let end = self.live(&mut session);
                backoff.on_closed(Instant::now());
                if matches!(end, Err(End::Stopped)) {
                    return self.stop(Some(session));
                }
            }
            self.forget_session();
            let wait = backoff.next(&mut self.rng);
            if self.wait(wait).is_err() {
                return self.stop(None);
            }
        }
    }

    /// Tries each server once, beginning behind the one that was tried last.
    fn connect(&mut self) -> Option<Session> {
        let count = self.config.servers.len();
        for _ in 0..count {
            if self.counts.stops() {
                return None;
            }
            let server = self.config.servers.get(self.next % count)?;
            self.next = self.next.wrapping_add(1);
            for address in servers::addresses(server, self.config.call_timeout()) {
                let timeout = self.config.session_timeout;
                match Session::open(address, timeout, self.config.call_timeout()) {
                    Ok(session) => return Some(session),
                    Err(failure) => log::debug!("no session with ZooKeeper at {address}: {failure:?}"),
                }
            }
        }
        log::warn!("ZooKeeper cannot be reached; what is known of it stays in use");
        None
    }

    fn forget_session(&mut self) {
        self.doubts = false;
        for provider in &mut self.providers {
            provider.forget_session();
        }
        self.providers.retain(|provider| !provider.leave_without_session());
        for consumer in &mut self.consumers {
            consumer.forget_session();
            consumer.make_do(&self.snapshot);
        }
    }

    /// Takes commands while there is no session.
    fn wait(&mut self, time: Duration) -> Result<(), End> {
        let until = Instant::now() + time;
        loop {
            match self.commands.recv_deadline(until) {
                Ok(command) => {
                    self.take(command, None)?;
                    for consumer in &mut self.consumers {
                        consumer.make_do(&self.snapshot);
                    }
                    self.providers.retain(|provider| !provider.leave_without_session());
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(End::Stopped),
            }
        }
    }

    /// Lives through one session.
    fn live(&mut self, session: &mut Session) -> Result<(), End> {
        self.settle(session)?;
        let mut probe = Instant::now() + self.config.probe();
        let mut compare = Instant::now() + self.jittered(self.config.resync);
        loop {
            self.refresh_due(session)?;
            let now = Instant::now();
            if now >= probe {
                self.settle(session)?;
                probe = Instant::now() + self.config.probe();
            }
            if now >= compare {
                let wait = match self.compare(session)? {
                    Compared::Same => self.config.resync,
                    Compared::Differs => AGAIN.min(self.config.resync),
                };
                compare = Instant::now() + self.jittered(wait);
            }
            let dues = self.consumers.iter().filter_map(Consumer::due);
            let until = dues.chain([probe, compare]).min().unwrap_or(probe);
            select! {
                recv(self.commands) -> command => match command {
                    Ok(command) => self.take(command, Some(session))?,
                    Err(_) => return Err(End::Stopped),
                },
                recv(session.events) -> event => match event {
                    Ok(Event::Lost) | Err(_) => return Err(End::Lost),
                    Ok(event) => self.on_event(&event),
                },
                default(until.saturating_duration_since(now)) => {}
            }
        }
    }

    /// Brings all entries into their state; this is a sign of life to the server, and asks for one.
    fn settle(&mut self, session: &mut Session) -> Result<(), End> {
        session.call(|client| client.exists("/", false))?;
        let mut left = Vec::new();
        for provider in &mut self.providers {
            if provider.settle(session, &self.config.root)? {
                left.push(provider.number);
            }
        }
        self.providers.retain(|provider| !left.contains(&provider.number));
        self.refresh(session, Consumer::is_stale)
    }

    /// Fetches what is to be fetched for those that `which` names.
    fn refresh(&mut self, session: &mut Session, which: impl Fn(&Consumer) -> bool) -> Result<(), End> {
        for consumer in self.consumers.iter_mut().filter(|consumer| which(consumer)) {
            consumer.refresh(session, &self.config.root, &mut self.snapshot, &self.counts)?;
        }
        Ok(())
    }

    fn refresh_due(&mut self, session: &mut Session) -> Result<(), End> {
        let now = Instant::now();
        self.refresh(session, |consumer| consumer.due().is_some_and(|due| due <= now))
    }

    /// What watches should have told is there. If it was not told, none of them is trusted any more. What is told just now may be on its way from thread to thread: so
    /// one difference is no proof, only a second one after a while.
    fn compare(&mut self, session: &mut Session) -> Result<Compared, End> {
        let mut differs = false;
        for consumer in self.consumers.iter().filter(|consumer| !consumer.is_stale()) {
            if !consumer.compare(session, &self.config.root)? {
                differs = true;
                if self.doubts {
                    log::warn!("ZooKeeper did not tell of a change of {}: a new session", consumer.service());
                    return Err(End::Lost);
                }
            }
        }
        self.doubts = differs;
        Ok(if differs { Compared::Differs } else { Compared::Same })
    }

    fn on_event(&mut self, event: &Event) {
        let (Event::List(service) | Event::Data(service, _)) = event else { return };
        let now = Instant::now();
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.service() == service) {
            consumer.changed(event, now);
        }
    }

    fn take(&mut self, command: Command, session: Option<&mut Session>) -> Result<(), End> {
        match (command, session) {
            (Command::Stop, _) => Err(End::Stopped),
            (Command::Watch(number, service, observer), session) => {
                let at = self.consumers.iter().position(|consumer| consumer.service() == service);
                let at = at.unwrap_or_else(|| {
                    self.consumers.push(Consumer::new(service));
                    self.consumers.len() - 1
                });
                if let Some(consumer) = self.consumers.get_mut(at) {
                    consumer.add(number, observer);
                }
                session.map_or(Ok(()), |session| self.settle(session))
            }
            (Command::Unwatch(number), _) => {
                for consumer in &mut self.consumers {
                    consumer.remove(number);
                }
                // The watches that are left fire once more at most, for nobody.
                self.consumers.retain(Consumer::is_watched);
                Ok(())
            }
            (Command::Register(provider), session) => {
                self.providers.push(provider);
                session.map_or(Ok(()), |session| self.settle(session))
            }
            (Command::Wish(number, wish), session) => {
                for provider in self.providers.iter_mut().filter(|provider| provider.number == number) {
                    provider.wish(wish);
                }
                session.map_or(Ok(()), |session| self.settle(session))
            }
            (Command::Services(tell), session) => {
                // Who asked may have stopped waiting, here and below.
                let _ = tell
                    .send(session.map_or(Err(RegistryError::Unreachable), |session| self.services(session)));
                Ok(())
            }
            (Command::Instances(service, tell), session) => {
                let answer = session
                    .map_or(Err(RegistryError::Unreachable), |session| self.instances(session, &service));
                let _ = tell.send(answer);
                Ok(())
            }
        }
    }

    fn services(&self, session: &mut Session) -> Result<Vec<String>, RegistryError> {
        let root = self.config.root.clone();
        let mut names =
            asked(found(session.call(move |client| client.get_children(&root, false))))?.unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }

    fn instances(&self, session: &mut Session, service: &str) -> Result<Vec<Instance>, RegistryError> {
        let folder = paths::service(&self.config.root, service);
        let path = folder.clone();
        let nodes = asked(found(session.call(move |client| client.get_children(&path, false))))?;
        let mut instances = Vec::new();
        for node in nodes.unwrap_or_default() {
            instances.extend(asked(fetch(session, &folder, &node, None))?.flatten());
        }
        Ok(instances)
    }

    /// Leaves in good order, as far as there is a session.
    fn stop(mut self, session: Option<Session>) {
        for provider in &mut self.providers {
            provider.wish(Wish::Leave);
        }
        if let Some(mut session) = session
            && self.settle(&mut session).is_ok()
        {
            session.close();
        }
        for provider in &self.providers {
            provider.leave_without_session();
        }
    }

    /// A time, give or take a fifth, so that many do not do the same at once.
    fn jittered(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.8 + 0.4 * self.rng.f64())
    }
}

fn asked<T>(result: Result<T, Failure>) -> Result<T, RegistryError> {
    result.map_err(|failure| match failure {
        Failure::Lost => RegistryError::Unreachable,
        Failure::Refused(error) => RegistryError::Refused(format!("{error:?}")),
    })
}
