//! A channel whose endpoints come from a registry that says strange things:
//! 1. The list is empty, or half of it is missing: who answers is called, also after a connection was lost.
//! 2. Who is missing and does not answer is forgotten.
//! 3. Who says that it leaves gets no more calls, and an address that comes back is called again.
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

use std::net::SocketAddr;

use backend::{Backend, quick, ready};
use load::Load;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::EchoClient;
use rpc::registry::{Instance, InstanceState, Registry as _, StaticRegistry};
use rpc::{Balance, Channel, Code, Executed};
use support::*;
use testkit::{FaultProxy, wait_until};

const SERVICE: &str = "rpc.test.Echo";

fn instance(address: SocketAddr) -> Instance {
    Instance::new(address.port().to_string(), address)
}

/// A channel on one loop to whoever is in the registry, with the loop.
fn channel_of(registry: &StaticRegistry) -> (Channel, EchoClient, EventLoopThreadPool) {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let mut config = quick();
    config.balance = Balance::RoundRobin;
    // Nobody is to be taken for silent here.
    config.heartbeat = LONG;
    let channel = Channel::of_service(pool.handles(), registry, SERVICE, config).unwrap();
    (channel.clone(), EchoClient::new(channel), pool)
}

/// Calls once for each backend, in turn, and says who was called.
fn called(client: &EchoClient, backends: &[Backend]) -> Vec<bool> {
    let before: Vec<u64> = backends.iter().map(Backend::calls).collect();
    for _ in backends {
        client.count(&payload("")).wait().unwrap();
    }
    backends.iter().zip(before).map(|(backend, before)| backend.calls() > before).collect()
}

#[test]
fn an_empty_or_halved_list_throws_nobody_away_who_answers() {
    let backends: Vec<_> = (0..4).map(|_| Backend::start(Ok)).collect();
    let all: Vec<_> = backends.iter().map(|backend| instance(backend.address())).collect();
    let registry = StaticRegistry::new();
    registry.set(SERVICE, all.clone());
    let (channel, client, _pool) = channel_of(&registry);
    ready(&channel, 4);
    for list in [&all[..2], &[], &all[1..2], &all] {
        registry.set(SERVICE, list.to_vec());
        // The list was posted before these calls, to the same loop.
        assert_eq!(called(&client, &backends), [true; 4], "{} on the list", list.len());
        assert_eq!(channel.stats().ready, 4);
    }
}

#[test]
fn who_is_missing_in_an_empty_list_is_connected_to_again_as_long_as_it_answers() {
    let backend = Backend::start(Ok);
    let proxy = FaultProxy::start(backend.address());
    let registry = StaticRegistry::new();
    registry.set(SERVICE, [instance(proxy.addr())]);
    let (channel, client, _pool) = channel_of(&registry);
    ready(&channel, 1);
    registry.set(SERVICE, []);
    for _ in 0..3 {
        let connects = channel.stats().connects;
        proxy.cut_all();
        wait_until("another connection", LONG, || channel.stats().connects > connects);
        ready(&channel, 1);
        client.count(&payload("")).wait().unwrap();
    }
    // Now it does not answer any more: that, together with the list, is believed, and nobody tries again.
    drop((proxy, backend));
    wait_until("the end", LONG, || {
        let status = client.count(&payload("")).wait().unwrap_err();
        status.code() == Code::Unavailable && status.executed() == Executed::NotSent
    });
    let connects = channel.stats().connects;
    let elsewhere = Backend::start(Ok);
    registry.set(SERVICE, [instance(elsewhere.address())]);
    ready(&channel, 1);
    client.count(&payload("")).wait().unwrap();
    assert_eq!(channel.stats().connects, connects + 1, "the one that is on the list, and no other");
}

#[test]
fn one_of_many_that_is_missing_is_called_as_long_as_its_connection_lives() {
    let backends: Vec<_> = (0..4).map(|_| Backend::start(Ok)).collect();
    let proxy = FaultProxy::start(backends[0].address());
    let mut all: Vec<_> = backends.iter().map(|backend| instance(backend.address())).collect();
    all[0] = instance(proxy.addr());
    let registry = StaticRegistry::new();
    registry.set(SERVICE, all.clone());
    let (channel, client, _pool) = channel_of(&registry);
    ready(&channel, 4);
    registry.set(SERVICE, all[1..].to_vec());
    assert_eq!(called(&client, &backends), [true; 4]);
    let accepted = proxy.accepted();
    proxy.cut_all();
    ready(&channel, 3);
    assert_eq!(called(&client, &backends), [false, true, true, true]);
    assert_eq!(proxy.accepted(), accepted, "the list is believed");
}

#[test]
fn who_says_that_it_leaves_gets_no_more_calls_and_who_comes_back_does() {
    let backends: Vec<_> = (0..2).map(|_| Backend::start(Ok)).collect();
    let registry = StaticRegistry::new();
    let entries: Vec<_> =
        backends.iter().map(|backend| registry.register(SERVICE, instance(backend.address()))).collect();
    let (channel, client, _pool) = channel_of(&registry);
    ready(&channel, 2);
    let load = Load::count(&client, 4);
    load.more(50);
    assert!(entries[0].drain(LONG));
    // When the calls that were under way there have ended.
    wait_until("its connection is closed", LONG, || backends[0].server.connections() == 0);
    let before = backends[0].calls();
    load.more(50);
    assert_eq!(backends[0].calls(), before);
    // Gone from the list, it is still one that left, whatever the list looks like.
    assert!(entries[0].leave(LONG));
    registry.set(SERVICE, []);
    load.more(50);
    assert_eq!((backends[0].calls(), channel.stats().ready), (before, 1));
    registry.set(SERVICE, backends.iter().map(|backend| instance(backend.address())));
    ready(&channel, 2);
    wait_until("calls reach it again", LONG, || backends[0].calls() > before);
    assert_eq!(load.stop(), []);
}

#[test]
fn who_has_a_larger_weight_gets_more_calls() {
    let backends: Vec<_> = (0..3).map(|_| Backend::start(Ok)).collect();
    let registry = StaticRegistry::new();
    let weights = [1, 3, 0];
    let all = backends
        .iter()
        .zip(weights)
        .map(|(backend, weight)| Instance { weight, ..instance(backend.address()) });
    registry.set(SERVICE, all.collect::<Vec<_>>());
    let (channel, client, _pool) = channel_of(&registry);
    ready(&channel, 3);
    for _ in 0..50 {
        client.count(&payload("")).wait().unwrap();
    }
    assert_eq!(backends.iter().map(Backend::calls).collect::<Vec<_>>(), [10, 30, 10]);
    // The better of two looks at weights, too: the one with three times the weight and as many calls under way is the better one.
    let mut config = quick();
    config.heartbeat = LONG;
    config.seed = Some(1);
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let channel = Channel::of_service(pool.handles(), &registry, SERVICE, config).unwrap();
    ready(&channel, 3);
    let client = EchoClient::new(channel);
    for _ in 0..1000 {
        client.count(&payload("")).wait().unwrap();
    }
    let calls: Vec<_> = backends.iter().map(Backend::calls).collect();
    assert!(calls[1] > calls[0] + calls[2], "{calls:?}");
}

#[test]
fn a_service_whose_instances_all_drain_is_one_without_instances() {
    let backend = Backend::start(Ok);
    let registry = StaticRegistry::new();
    registry.set(SERVICE, [Instance { state: InstanceState::Draining, ..instance(backend.address()) }]);
    let (_channel, client, _pool) = channel_of(&registry);
    let status = client.count(&payload("")).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::NotSent));
    assert_eq!(backend.calls(), 0);
}
