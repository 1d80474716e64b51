//! Providers in processes of their own, found by way of a real ZooKeeper:
//! 1. One is killed with -9 under load, and comes back at the same address.
//! 2. One is stopped for longer than its session lives, and goes on.
//! 3. One is cut off from ZooKeeper alone.
//!
//! What must hold: calls go on elsewhere at once, who answers is called although it is not listed, who is back is called again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/load.rs"]
mod load;
mod support;
#[path = "support/zk.rs"]
mod zk;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use backend::{Backend, quick, ready};
use load::Load;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::EchoClient;
use rpc::registry::{Instance, Registry as _, Standing, ZooKeeperRegistry};
use rpc::{Channel, Code, Executed, ServerConfig};
use support::*;
use testkit::{FaultProxy, ZooKeeper, wait_until};
use zk::{SERVICE, Seen, config, registry};

/// Set in the environment of a child process: it is a provider of this name, at this port, that registers with this ZooKeeper.
const CHILD: &str = "RPC_TEST_REGISTERED";

#[test]
fn provider_process() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let parts: Vec<&str> = what.split(' ').collect();
    let backend = Backend::start_at(parts[1].parse().unwrap(), Ok);
    let registry = ZooKeeperRegistry::start(config(&[parts[2].parse().unwrap()])).unwrap();
    let _entry = registry.register(SERVICE, Instance::new(parts[0], backend.address()));
    // Until the parent goes away.
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}

struct Provider {
    child: Child,
    id: &'static str,
    address: SocketAddr,
}

impl Provider {
    fn start(id: &'static str, zookeeper: &ZooKeeper) -> Self {
        Self::start_at(id, SocketAddr::from(([127, 0, 0, 1], testkit::free_port())), zookeeper)
    }

    fn start_at(id: &'static str, address: SocketAddr, zookeeper: &ZooKeeper) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "provider_process", "--nocapture"])
            .env(CHILD, format!("{id} {address} {}", zookeeper.addr()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, id, address }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A channel by way of the registry, what the registry tells, and what keeps both alive.
fn consumer(zookeeper: &ZooKeeper) -> (Channel, Seen, impl Sized) {
    let registry = registry(zookeeper.addr());
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let channel = Channel::of_service(pool.handles(), &registry, SERVICE, quick()).unwrap();
    let (seen, watching) = Seen::watch(&registry);
    (channel, seen, (watching, pool, registry))
}

#[test]
fn a_provider_killed_under_load_fails_only_what_was_on_it_and_its_next_life_takes_its_entry_over() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let (mut killed, _other) = (Provider::start("one", &zookeeper), Provider::start("two", &zookeeper));
    let (channel, seen, _kept) = consumer(&zookeeper);
    ready(&channel, 2);
    let client = EchoClient::new(channel.clone());
    let (once, again) = (Load::count(&client, 8), Load::say(&client, 8));
    once.more(100);
    again.more(100);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    once.more(500);
    again.more(500);
    // Its session may live on for a while: the entry that it left is no hindrance to who comes back as the same.
    let reborn = Provider::start_at(killed.id, killed.address, &zookeeper);
    ready(&channel, 2);
    seen.until(&["one", "two"]);
    again.more(500);
    assert_eq!(again.stop(), [], "what may be repeated notices nothing");
    let failed = once.stop();
    assert!(failed.len() <= 8, "{}", failed.len());
    for status in failed {
        assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::Unknown));
    }
    drop(reborn);
}

#[test]
fn a_provider_that_is_stopped_loses_its_entry_and_has_it_and_its_calls_back_when_it_goes_on() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let (stopped, _other) = (Provider::start("one", &zookeeper), Provider::start("two", &zookeeper));
    let (channel, seen, _kept) = consumer(&zookeeper);
    ready(&channel, 2);
    stopped.signal("-STOP");
    seen.until(&["two"]);
    ready(&channel, 1);
    let client = EchoClient::new(channel.clone());
    let load = Load::count(&client, 4);
    load.more(500);
    stopped.signal("-CONT");
    seen.until(&["one", "two"]);
    ready(&channel, 2);
    load.more(500);
    assert_eq!(load.stop(), []);
}

#[test]
fn a_provider_that_is_cut_off_from_zookeeper_alone_is_called_on() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let cut = FaultProxy::start(zookeeper.addr());
    let fixture = serve(ServerConfig::default());
    let theirs = registry(cut.addr());
    let entry = theirs.register(SERVICE, Instance::new("one", fixture.server.local_addr()));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let (channel, seen, _kept) = consumer(&zookeeper);
    ready(&channel, 1);
    let load = Load::count(&EchoClient::new(channel), 4);
    load.more(100);
    cut.go_silent(true);
    seen.until(&[]);
    let before = fixture.counted.load(Ordering::SeqCst);
    load.more(500);
    assert!(fixture.counted.load(Ordering::SeqCst) >= before + 500);
    cut.go_silent(false);
    seen.until(&["one"]);
    wait_until("it knows", LONG, || matches!(entry.standing(), Standing::Entered(_)));
    assert_eq!(load.stop(), []);
}
