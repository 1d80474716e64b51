//! This node's entry in ZooKeeper, and what nginx makes of all nodes' entries.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rpc::registry::{
    Instance, InstanceState, Registration, Registry as _, RegistryError, ZooKeeperConfig, ZooKeeperRegistry,
};

use crate::config::Config;

/// Under this name the nodes are entered, each with the address at which it takes clients.
const SERVICE: &str = "chat";

/// How long the end of a node waits for the registry to know of it.
const REGISTRY_MAX: Duration = Duration::from_secs(1);

/// The entry, as long as this lives.
#[derive(Debug)]
pub(crate) struct NodeEntry {
    registration: Registration,
    // After its registration.
    _registry: ZooKeeperRegistry,
}

impl NodeEntry {
    /// Enters this node, where there is a ZooKeeper and an address that others can reach. The ZooKeeper need not be there yet.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn new(config: &Config, bound: SocketAddr) -> io::Result<Option<Self>> {
        let Some(zookeeper) = config.zookeeper.clone() else { return Ok(None) };
        let address = config.advertise.unwrap_or(bound);
        if address.ip().is_unspecified() {
            log::warn!(
                "this node is not entered in ZooKeeper: {address} is no address for others, see `advertise`"
            );
            return Ok(None);
        }
        let registry = ZooKeeperRegistry::start(zookeeper)?;
        let mut instance = Instance::new(config.node.as_str(), address);
        instance.version = env!("CARGO_PKG_VERSION").to_owned();
        let registration = registry.register(SERVICE, instance);
        Ok(Some(Self { registration, _registry: registry }))
    }

    /// The node takes no more clients.
    pub(crate) fn drain(&self) {
        if !self.registration.drain(REGISTRY_MAX) {
            log::warn!("ZooKeeper does not know yet that this node ends");
        }
    }

    /// Takes the entry out.
    pub(crate) fn leave(self) {
        self.registration.leave(REGISTRY_MAX);
    }
}

/// The nodes that are entered, as nginx's `upstream` wants them.
///
/// # Errors
/// When the registry cannot be asked.
pub(crate) fn upstreams(zookeeper: ZooKeeperConfig) -> Result<Option<String>, UpstreamsError> {
    let registry = ZooKeeperRegistry::start(zookeeper).map_err(UpstreamsError::Threads)?;
    Ok(list(registry.instances(SERVICE)?))
}

/// Why there is no list. The text is for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UpstreamsError {
    #[error("cannot start a thread: {0}")]
    Threads(io::Error),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// By address, so that the same nodes give the same text. `None` when there is none: an empty list would turn all clients away.
fn list(mut nodes: Vec<Instance>) -> Option<String> {
    nodes.sort_unstable_by_key(|node| node.address);
    let mut text = String::new();
    for node in &nodes {
        // A single connect that came too early does not take it off the list.
        let _ = write!(text, "server {} max_fails=3 fail_timeout=2s", node.address);
        if node.weight > 1 {
            let _ = write!(text, " weight={}", node.weight);
        }
        text.push_str(if node.state == InstanceState::Draining { " down;\n" } else { ";\n" });
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_drain_are_marked_and_no_nodes_are_no_list() {
        let mut leaving = Instance::new("b", "10.0.0.2:6000".parse().unwrap());
        leaving.state = InstanceState::Draining;
        let staying = Instance::new("a", "10.0.0.1:6000".parse().unwrap());
        assert_eq!(
            list(vec![leaving, staying]).unwrap(),
            "server 10.0.0.1:6000 max_fails=3 fail_timeout=2s;\nserver 10.0.0.2:6000 max_fails=3 fail_timeout=2s down;\n"
        );
        assert_eq!(list(Vec::new()), None);
    }
}
