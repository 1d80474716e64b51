//! One service that somebody watches: which instances are known, which of them have to be fetched again, and who is told.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::super::{Instance, Observer};
use super::Counts;
use super::paths;
use super::provider::{found, make_folder};
use super::session::{Event, Failure, Session};
use super::snapshot::Snapshot;

/// What watches gather before something is fetched: a restart of many is one change.
const DEBOUNCE: Duration = Duration::from_millis(50);

pub(super) struct Consumer {
    service: String,
    observers: Vec<(u64, Observer)>,
    /// By the names of their nodes; `None` for one that cannot be read.
    known: BTreeMap<String, Option<Instance>>,
    /// Whether the list, and which nodes, have to be fetched again.
    stale_list: bool,
    stale_nodes: BTreeSet<String>,
    /// When they are.
    due: Option<Instant>,
    /// What was told last.
    told: Option<Vec<Instance>>,
}

impl Consumer {
    pub(super) const fn new(service: String) -> Self {
        Self {
            service,
            observers: Vec::new(),
            known: BTreeMap::new(),
            stale_list: true,
            stale_nodes: BTreeSet::new(),
            due: None,
            told: None,
        }
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) fn add(&mut self, number: u64, observer: Observer) {
        if let Some(told) = &self.told {
            notify(&observer, told);
        }
        self.observers.push((number, observer));
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.observers.retain(|(other, _)| *other != number);
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.observers.is_empty()
    }

    /// A new session watches nothing yet, and may know better about everything.
    pub(super) fn forget_session(&mut self) {
        self.known.clear();
        self.stale_nodes.clear();
        self.stale_list = true;
        self.due = None;
    }

    /// While nothing can be fetched and nothing was told, the snapshot is better than nothing; and nothing is better than to keep callers waiting.
    pub(super) fn make_do(&mut self, snapshot: &Snapshot) {
        if self.told.is_none() {
            let instances = snapshot.instances(&self.service).unwrap_or_default().to_vec();
            self.tell(instances);
        }
    }

    /// A watch has fired.
    pub(super) fn changed(&mut self, event: &Event, now: Instant) {
        match event {
            Event::List(_) => self.stale_list = true,
            Event::Data(_, node) => {
                self.stale_nodes.insert(node.clone());
            }
            Event::Lost => return,
        }
        self.due.get_or_insert(now + DEBOUNCE);
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Fetches what has changed, and watches it again: a list at most, and each node that is new or has changed.
    pub(super) fn refresh(
        &mut self,
        session: &mut Session,
        root: &str,
        snapshot: &mut Snapshot,
        counts: &Counts,
    ) -> Result<(), Failure> {
        self.due = None;
        let folder = paths::service(root, &self.service);
        if std::mem::take(&mut self.stale_list) {
            counts.listed();
            let nodes = self.list(session, &folder)?;
            self.known.retain(|node, _| nodes.contains(node));
            for node in nodes {
                if !self.known.contains_key(&node) {
                    self.stale_nodes.insert(node);
                }
            }
        }
        for node in std::mem::take(&mut self.stale_nodes) {
            counts.fetched();
            let fetched = fetch(session, &folder, &node, Some(&self.service))?;
            match fetched {
                Some(instance) => self.known.insert(node, instance),
                None => self.known.remove(&node),
            };
        }
        self.tell_known(snapshot);
        Ok(())
    }

    fn list(&self, session: &mut Session, folder: &str) -> Result<Vec<String>, Failure> {
        for _ in 0..2 {
            let (path, service, tell) = (folder.to_owned(), self.service.clone(), session.teller());
            let listed = session.call(move |client| {
                client.get_children_w(&path, move |_| {
                    // On the client's event thread, which must not wait.
                    let _ = tell.send(Event::List(service.clone()));
                })
            });
            if let Some(nodes) = found(listed)? {
                return Ok(nodes);
            }
            make_folder(session, folder)?;
        }
        Ok(Vec::new())
    }

    /// Compares all with what is there, without watching it again. `false` when something is different: a watch was lost.
    pub(super) fn compare(&self, session: &mut Session, root: &str) -> Result<bool, Failure> {
        let folder = paths::service(root, &self.service);
        let path = folder.clone();
        let nodes = found(session.call(move |client| client.get_children(&path, false)))?.unwrap_or_default();
        if nodes.len() != self.known.len() || !nodes.iter().all(|node| self.known.contains_key(node)) {
            return Ok(false);
        }
        for (node, instance) in &self.known {
            if fetch(session, &folder, node, None)?.as_ref() != Some(instance) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something is known to have changed that was not fetched yet.
    pub(super) fn is_stale(&self) -> bool {
        self.stale_list || !self.stale_nodes.is_empty()
    }

    fn tell_known(&mut self, snapshot: &mut Snapshot) {
        let instances: Vec<Instance> = self.known.values().flatten().cloned().collect();
        snapshot.keep(&self.service, &instances);
        self.tell(instances);
    }

    fn tell(&mut self, instances: Vec<Instance>) {
        if self.told.as_ref() == Some(&instances) {
            return;
        }
        for (_, observer) in &self.observers {
            notify(observer, &instances);
        }
        self.told = Some(instances);
    }
}

/// Tells one observer. Its panic is its own: our entries and the other observers depend on this thread.
fn notify(observer: &Observer, instances: &[Instance]) {
    if catch_unwind(AssertUnwindSafe(|| observer(instances))).is_err() {
        log::error!("an observer of the registry panicked");
    }
}

/// An instance by its node; `None` when there is no such node, `Some(None)` when it cannot be read. Watched for `service`.
pub(super) fn fetch(
    session: &mut Session,
    folder: &str,
    node: &str,
    service: Option<&str>,
) -> Result<Option<Option<Instance>>, Failure> {
    let path = format!("{folder}/{node}");
    let fetched = match service {
        None => session.call(move |client| client.get_data(&path, false)),
        Some(service) => {
            let (service, name, tell) = (service.to_owned(), node.to_owned(), session.teller());
            session.call(move |client| {
                client.get_data_w(&path, move |_| {
                    let _ = tell.send(Event::Data(service.clone(), name.clone()));
                })
            })
        }
    };
    Ok(found(fetched)?.map(|(data, _)| match serde_json::from_slice(&data) {
        Ok(instance) => Some(instance),
        Err(error) => {
            log::warn!("{folder}/{node} is no instance: {error}");
            None
        }
    }))
}
