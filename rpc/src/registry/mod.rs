//! Where the providers of a service are: a fixed list, or ZooKeeper.

mod fixed;
pub mod zookeeper;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

pub use fixed::StaticRegistry;
pub use zookeeper::{ZooKeeperConfig, ZooKeeperRegistry};

/// Whether a provider takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It does.
    #[default]
    Up,
    /// It is leaving: what is under way is finished, new calls go elsewhere.
    Draining,
}

/// One provider of a service, as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Who it is, among all that ever had its address. Stable over restarts where the operator names it; a program that comes back under the same name takes
    /// its old entry over, one with another name waits until that is gone.
    pub id: String,
    /// Where it is called.
    pub address: SocketAddr,
    /// Which version of the program it is.
    #[serde(default)]
    pub version: String,
    /// Where it stands.
    #[serde(default)]
    pub zone: String,
    /// How much of the load it is meant for, beside others; 0 counts as 1. Who is to get nothing drains.
    #[serde(default = "one")]
    pub weight: u32,
    /// Whether it takes calls.
    #[serde(default)]
    pub state: InstanceState,
    /// A number of the process, by which a program knows its own entry from that of its earlier life.
    #[serde(default)]
    pub run: u64,
}

const fn one() -> u32 {
    1
}

impl Instance {
    /// An instance of this name at this address that takes calls.
    #[must_use]
    pub fn new(id: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            id: id.into(),
            address,
            version: String::new(),
            zone: String::new(),
            weight: 1,
            state: InstanceState::Up,
            run: 0,
        }
    }
}

/// Why the registry did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Another provider is registered at this address. Tried again until that one is gone.
    #[error("{address} is registered by another provider, {id}")]
    Foreign {
        /// The address.
        address: SocketAddr,
        /// Who has it.
        id: String,
    },
    /// Another process took the entry over, under the same name: two are configured alike. This one steps back.
    #[error("another process registered as {id} and took this one's place")]
    Replaced {
        /// The name of both.
        id: String,
    },
    /// The registry cannot be reached, or did not answer in time.
    #[error("the registry cannot be reached")]
    Unreachable,
    /// The registry refused, for the reason that the text gives.
    #[error("the registry refused: {0}")]
    Refused(String),
}

/// What is called with the instances of a service, whenever they change: on a thread of the registry, so it must not block.
pub type Observer = Box<dyn Fn(&[Instance]) + Send + Sync>;

/// A directory of services.
pub trait Registry: Send + Sync {
    /// Calls `observer` with the instances of a service when they are known first, and whenever they change, until what is given back is dropped. Where nothing
    /// can be known for now, it is called with an empty list.
    fn watch(&self, service: &str, observer: Observer) -> Watching;

    /// Enters an instance, and keeps it entered whatever happens to the registry, until what is given back is dropped.
    fn register(&self, service: &str, instance: Instance) -> Registration;

    /// The names of all services.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    fn services(&self) -> Result<Vec<String>, RegistryError>;

    /// The instances of a service as the registry knows them now.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    fn instances(&self, service: &str) -> Result<Vec<Instance>, RegistryError>;
}

type Undo = Box<dyn FnOnce() + Send + Sync>;

/// An observer of a registry, until this is dropped.
#[must_use = "what is not kept is not observed"]
pub struct Watching(Option<Undo>);

impl Watching {
    pub(crate) fn new(undo: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}

/// How an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is being entered, or the registry cannot be reached; it will be.
    Pending,
    /// It is entered, as up or as draining.
    Entered(InstanceState),
    /// It is not, for this reason.
    Refused(RegistryError),
    /// It was taken out.
    Gone,
}

/// What the owner of an entry and the registry share about it.
#[derive(Debug)]
pub(crate) struct Entry {
    standing: Mutex<Standing>,
    changed: Condvar,
}

impl Entry {
    pub(crate) fn new(standing: Standing) -> Arc<Self> {
        Arc::new(Self { standing: Mutex::new(standing), changed: Condvar::new() })
    }

    pub(crate) fn set(&self, standing: Standing) {
        *self.standing.lock() = standing;
        self.changed.notify_all();
    }

    pub(crate) fn get(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Waits until it stands in a way that `wanted` accepts; how it stands at last.
    fn wait(&self, at_most: Duration, wanted: impl Fn(&Standing) -> bool) -> Standing {
        let until = Instant::now() + at_most;
        let mut standing = self.standing.lock();
        while !wanted(&standing) && !self.changed.wait_until(&mut standing, until).timed_out() {}
        standing.clone()
    }
}

/// What the owner of an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Drain,
    Leave,
}

/// An entry in a registry. Dropping it takes the entry out, without waiting for that.
#[must_use = "what is not kept is taken out again"]
pub struct Registration {
    entry: Arc<Entry>,
    ask: Box<dyn Fn(Wish) + Send + Sync>,
}

impl Registration {
    pub(crate) fn new(entry: Arc<Entry>, ask: impl Fn(Wish) + Send + Sync + 'static) -> Self {
        Self { entry, ask: Box::new(ask) }
    }

    /// How the entry stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.entry.get()
    }

    /// Waits until it is entered, or refused. Not for a loop's thread.
    ///
    /// # Errors
    /// Why it is not; [`RegistryError::Unreachable`] when that is not known by then.
    pub fn wait_entered(&self, at_most: Duration) -> Result<(), RegistryError> {
        match self.entry.wait(at_most, |standing| *standing != Standing::Pending) {
            Standing::Entered(_) => Ok(()),
            Standing::Refused(error) => Err(error),
            Standing::Pending | Standing::Gone => Err(RegistryError::Unreachable),
        }
    }

    /// Says that new calls should go elsewhere, and waits until the registry has it. Then it is time for [`crate::RunningServer::drain`], and after that to
    /// leave.
    pub fn drain(&self, at_most: Duration) -> bool {
        (self.ask)(Wish::Drain);
        let drains = |standing: &Standing| *standing == Standing::Entered(InstanceState::Draining);
        drains(&self.entry.wait(at_most, drains))
    }

    /// Takes the entry out, and waits until that is done.
    pub fn leave(&self, at_most: Duration) -> bool {
        (self.ask)(Wish::Leave);
        let gone = |standing: &Standing| *standing == Standing::Gone;
        gone(&self.entry.wait(at_most, gone))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        (self.ask)(Wish::Leave);
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_json_and_what_is_missing_in_it_has_a_meaning() {
        let instance = Instance::new("a", "10.0.0.1:7000".parse().unwrap());
        let json = serde_json::to_string(&instance).unwrap();
        assert_eq!(
            json,
            r#"{"id":"a","address":"10.0.0.1:7000","version":"","zone":"","weight":1,"state":"up","run":0}"#
        );
        let short = r#"{"id":"a","address":"10.0.0.1:7000","of":"the future"}"#;
        assert_eq!(serde_json::from_str::<Instance>(short).unwrap(), instance);
        assert!(serde_json::from_str::<Instance>(r#"{"id":"a","address":"nowhere"}"#).is_err());
    }

    #[test]
    fn registrations_and_observers_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Registration>();
        crosses::<Watching>();
        crosses::<StaticRegistry>();
        crosses::<ZooKeeperRegistry>();
    }
}
