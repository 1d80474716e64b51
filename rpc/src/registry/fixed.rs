//! A registry in memory: for a list from the configuration, and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    Entry, Instance, InstanceState, Observer, Registration, Registry, RegistryError, Standing, Watching, Wish,
};

#[derive(Default)]
struct Service {
    instances: Vec<Instance>,
    observers: Vec<(u64, Arc<Observer>)>,
}

#[derive(Default)]
struct Inner {
    services: BTreeMap<String, Service>,
    numbers: u64,
}

/// Services and their instances, in memory. Clones are the same registry. What is set or registered in one place is seen by all who watch.
///
/// ```
/// use rpc::registry::{Instance, Registry as _, StaticRegistry};
///
/// let registry = StaticRegistry::new();
/// registry.set("chat.Login", [Instance::new("one", "127.0.0.1:7000".parse()?)]);
/// assert_eq!(registry.instances("chat.Login")?.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct StaticRegistry {
    inner: Arc<Mutex<Inner>>,
}

impl StaticRegistry {
    /// One that is empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the instances of a service.
    pub fn set(&self, service: &str, instances: impl IntoIterator<Item = Instance>) {
        let instances = instances.into_iter().collect();
        self.change(service, |known| *known = instances);
    }

    /// Changes the instances of a service, and tells who watches it, outside the lock.
    fn change(&self, service: &str, change: impl FnOnce(&mut Vec<Instance>)) {
        let mut inner = self.inner.lock();
        let known = inner.services.entry(service.to_owned()).or_default();
        change(&mut known.instances);
        let (instances, observers) = (known.instances.clone(), known.observers.clone());
        drop(inner);
        for (_, observer) in observers {
            observer(&instances);
        }
    }

    fn number(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.numbers += 1;
        inner.numbers
    }
}

impl Registry for StaticRegistry {
    fn watch(&self, service: &str, observer: Observer) -> Watching {
        let number = self.number();
        let observer = Arc::new(observer);
        let mut inner = self.inner.lock();
        let known = inner.services.entry(service.to_owned()).or_default();
        known.observers.push((number, Arc::clone(&observer)));
        let instances = known.instances.clone();
        drop(inner);
        observer(&instances);
        let (registry, service) = (self.clone(), service.to_owned());
        Watching::new(move || {
            if let Some(known) = registry.inner.lock().services.get_mut(&service) {
                known.observers.retain(|(other, _)| *other != number);
            }
        })
    }

    fn register(&self, service: &str, instance: Instance) -> Registration {
        let entry = Entry::new(Standing::Entered(instance.state));
        let (id, address) = (instance.id.clone(), instance.address);
        self.change(service, |known| {
            known.retain(|other| other.address != address);
            known.push(instance);
        });
        let (registry, service, theirs) = (self.clone(), service.to_owned(), Arc::clone(&entry));
        Registration::new(entry, move |wish| {
            let is_it = |other: &Instance| other.id == id && other.address == address;
            if theirs.get() == Standing::Gone {
                return;
            }
            registry.change(&service, |known| match wish {
                Wish::Leave => known.retain(|other| !is_it(other)),
                Wish::Drain => {
                    for own in known.iter_mut().filter(|other| is_it(other)) {
                        own.state = InstanceState::Draining;
                    }
                }
            });
            theirs.set(match wish {
                Wish::Leave => Standing::Gone,
                Wish::Drain => Standing::Entered(InstanceState::Draining),
            });
        })
    }

    fn services(&self) -> Result<Vec<String>, RegistryError> {
        Ok(self.inner.lock().services.keys().cloned().collect())
    }

    fn instances(&self, service: &str) -> Result<Vec<Instance>, RegistryError> {
        Ok(self.inner.lock().services.get(service).map(|known| known.instances.clone()).unwrap_or_default())
    }
}

impl std::fmt::Debug for StaticRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticRegistry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_watches_sees_entries_come_drain_and_go() {
        let registry = StaticRegistry::new();
        let (tell, told) = crossbeam_channel::unbounded();
        let watching = registry.watch(
            "s",
            Box::new(move |all| tell.send(all.iter().map(|one| one.state).collect::<Vec<_>>()).unwrap()),
        );
        let entry = registry.register("s", Instance::new("a", "127.0.0.1:1".parse().unwrap()));
        assert_eq!(entry.wait_entered(Duration::ZERO), Ok(()));
        assert!(entry.drain(Duration::ZERO));
        assert!(entry.leave(Duration::ZERO));
        drop(watching);
        drop(entry);
        registry.set("s", []);
        let seen: Vec<_> = told.try_iter().collect();
        assert_eq!(seen, [vec![], vec![InstanceState::Up], vec![InstanceState::Draining], vec![]]);
    }
}
