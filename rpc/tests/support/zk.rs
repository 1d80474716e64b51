//! What tests with a ZooKeeper share: registries with short sessions, and somebody who watches.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "test code; each test uses a part of it"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rpc::ServerConfig;
use rpc::registry::{Instance, Registration, Registry, Watching, ZooKeeperConfig, ZooKeeperRegistry};
use testkit::{ZooKeeper, wait_until};

use crate::support::{Fixture, LONG, serve};

pub const SERVICE: &str = "rpc.test.Echo";

pub fn config(servers: &[SocketAddr]) -> ZooKeeperConfig {
    let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let mut config = ZooKeeperConfig::new(&list.join(",")).unwrap();
    config.session_timeout = Duration::from_millis(1500);
    config
}

pub fn registry(server: SocketAddr) -> ZooKeeperRegistry {
    ZooKeeperRegistry::start(config(&[server])).unwrap()
}

pub fn instance(id: &str, port: u16) -> Instance {
    Instance::new(id, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A provider of `Echo` with its entry.
pub fn provider(zookeeper: &ZooKeeper, id: &str) -> (Fixture, ZooKeeperRegistry, Registration) {
    let fixture = serve(ServerConfig::default());
    let registry = registry(zookeeper.addr());
    let entry = registry.register(SERVICE, Instance::new(id, fixture.server.local_addr()));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    (fixture, registry, entry)
}

/// What a consumer was told.
#[derive(Clone, Default)]
pub struct Seen(pub Arc<Mutex<Vec<Vec<Instance>>>>);

impl Seen {
    pub fn watch(registry: &impl Registry) -> (Self, Watching) {
        let seen = Self::default();
        let theirs = seen.clone();
        let watching = registry.watch(SERVICE, Box::new(move |all| theirs.0.lock().push(all.to_vec())));
        (seen, watching)
    }

    /// The names of those that it was told of last.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.0.lock().last().into_iter().flatten().map(|one| one.id.clone()).collect();
        ids.sort();
        ids
    }

    pub fn until(&self, ids: &[&str]) {
        wait_until(&format!("{ids:?} to be seen"), LONG, || self.ids() == ids);
    }
}
