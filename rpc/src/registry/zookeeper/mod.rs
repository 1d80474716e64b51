//! ZooKeeper as a registry. A provider of a service is an ephemeral node `/chat/services/<service>/<host:port>-<id>` with its [`Instance`] as JSON.
//!
//! The client library is contained: it is reached through `session` alone, which makes a new one at the first doubt about the old. Whatever ZooKeeper does, entries
//! come back by themselves, and the last known instances stay in use.
//!
//! The client library talks much in the log; [`LOG_TARGET`] is to be muted where the log is set up.

mod consumer;
mod manager;
mod paths;
mod provider;
mod relay;
mod servers;
mod session;
mod snapshot;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use reactor::BackoffConfig;

use super::{Entry, Instance, Observer, Registration, Registry, RegistryError, Standing, Watching};
use manager::{Command, Manager};
use provider::Provider;

/// The target under which the client library logs what concerns nobody.
pub const LOG_TARGET: &str = "zookeeper";

/// How long the owner of a registry waits for an answer of its thread beyond what its calls may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How a registry in ZooKeeper behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ZooKeeperConfig {
    /// The servers of the ensemble, each as `host:port`.
    pub servers: Vec<String>,
    /// The folder of the services.
    pub root: String,
    /// How long the server keeps our entries without a sign of life. A third of it is how long one call may take, and how often the server is asked for a sign.
    pub session_timeout: Duration,
    /// How often all is compared with what is there, give or take a fifth, besides being told of changes.
    pub resync: Duration,
    /// The waits between attempts to get a session.
    pub backoff: BackoffConfig,
    /// A file for the last known instances, for a start without ZooKeeper.
    pub snapshot: Option<PathBuf>,
}

impl ZooKeeperConfig {
    /// For the servers of a list such as `10.0.0.1:2181,zk.example:2181`. Names are looked up for each attempt to connect, and all addresses of a name are tried.
    ///
    /// # Errors
    /// When the list is empty, or an entry is not `host:port`.
    pub fn new(servers: &str) -> io::Result<Self> {
        Ok(Self {
            servers: servers::parse(servers)?,
            root: paths::ROOT.to_owned(),
            session_timeout: Duration::from_secs(6),
            resync: Duration::from_secs(300),
            backoff: BackoffConfig {
                base: Duration::from_millis(200),
                // Entries are to be back within three seconds of ZooKeeper's return.
                cap: Duration::from_secs(1),
                stable_after: Duration::from_secs(10),
            },
            snapshot: None,
        })
    }

    fn call_timeout(&self) -> Duration {
        self.session_timeout / 3
    }

    fn probe(&self) -> Duration {
        self.session_timeout / 3
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sessions: AtomicU64,
    lists: AtomicU64,
    fetches: AtomicU64,
    /// The owner is gone. For those who are in the middle of something long; the others hear of it by a command.
    stops: AtomicBool,
}

impl Counts {
    fn session_began(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    fn fetched(&self) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }

    fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }
}

/// A registry in ZooKeeper. It works, as far as it can, before ZooKeeper does. Dropping it takes its entries out and waits for that, at most for as long as a few calls
/// may take.
///
/// ```no_run
/// use rpc::registry::{Instance, Registry as _, ZooKeeperConfig, ZooKeeperRegistry};
///
/// let registry = ZooKeeperRegistry::start(ZooKeeperConfig::new("10.0.0.1:2181,zk.example:2181")?)?;
/// let entry = registry.register("chat.Login", Instance::new("login-1", "10.0.0.9:7000".parse()?));
/// entry.wait_entered(std::time::Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ZooKeeperRegistry {
    commands: Sender<Command>,
    numbers: AtomicU64,
    /// A number of this process.
    run: u64,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl ZooKeeperRegistry {
    /// Starts its thread, which connects.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: ZooKeeperConfig) -> io::Result<Self> {
        let (commands, todo) = unbounded();
        let counts = Arc::new(Counts::default());
        let manager = Manager::new(config, todo, Arc::clone(&counts));
        let thread =
            std::thread::Builder::new().name("zk-registry".to_owned()).spawn(move || manager.run())?;
        let run = fastrand::u64(1..);
        Ok(Self { commands, numbers: AtomicU64::new(0), run, counts, thread: Some(thread) })
    }

    /// Sessions since the start.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.counts.sessions.load(Ordering::Relaxed)
    }

    /// The lists and the instances that were fetched for who watches, since the start: one list and all instances when a session begins, and after that at most one list for each
    /// burst of changes, and those instances which are new or have changed.
    #[must_use]
    pub fn fetched(&self) -> (u64, u64) {
        (self.counts.lists.load(Ordering::Relaxed), self.counts.fetches.load(Ordering::Relaxed))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn post(&self, command: Command) {
        // The thread ends only after this is dropped.
        let _ = self.commands.send(command);
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(Sender<Result<T, RegistryError>>) -> Command,
    ) -> Result<T, RegistryError> {
        let (tell, told) = bounded(1);
        self.post(command(tell));
        told.recv_timeout(ANSWER_MAX).unwrap_or(Err(RegistryError::Unreachable))
    }
}

impl Registry for ZooKeeperRegistry {
    fn watch(&self, service: &str, observer: Observer) -> Watching {
        let number = self.number();
        self.post(Command::Watch(number, service.to_owned(), observer));
        let commands = self.commands.clone();
        Watching::new(move || {
            // The registry may be gone, and with it all that was watched. Likewise below.
            let _ = commands.send(Command::Unwatch(number));
        })
    }

    fn register(&self, service: &str, mut instance: Instance) -> Registration {
        let number = self.number();
        instance.run = self.run;
        let entry = Entry::new(Standing::Pending);
        self.post(Command::Register(Provider::new(number, service.to_owned(), instance, Arc::clone(&entry))));
        let commands = self.commands.clone();
        Registration::new(entry, move |wish| {
            let _ = commands.send(Command::Wish(number, wish));
        })
    }

    fn services(&self) -> Result<Vec<String>, RegistryError> {
        self.ask(Command::Services)
    }

    fn instances(&self, service: &str) -> Result<Vec<Instance>, RegistryError> {
        self.ask(|tell| Command::Instances(service.to_owned(), tell))
    }
}

impl Drop for ZooKeeperRegistry {
    fn drop(&mut self) {
        self.counts.stops.store(true, Ordering::Relaxed);
        self.post(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            log::error!("the registry's thread panicked");
        }
    }
}
