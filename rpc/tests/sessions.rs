//! The end of sessions with a real ZooKeeper, and what is only seen by who looks closely:
//! 1. Sessions are ended by force, all at once, without a word to their owners.
//! 2. ZooKeeper hangs, or has no majority, while calls are made and while we end.
//! 3. A change of which no watch tells.
//! 4. An observer that panics.
//!
//! What must hold: every entry is back by itself, no call fails, no end waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

#[path = "support/load.rs"]
mod load;
mod support;
#[path = "support/zk.rs"]
mod zk;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use load::Load;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::EchoClient;
use rpc::registry::{Registry as _, RegistryError, Standing, ZooKeeperRegistry};
use rpc::{Channel, ChannelConfig};
use support::*;
use testkit::{ZooKeeper, wait_until};
use zk::{SERVICE, Seen, config, instance, provider, registry};

#[test]
fn sessions_that_are_ended_by_force_come_back_with_all_their_entries() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let providers: Vec<_> = (1..=5_u16)
        .map(|number| {
            let registry = registry(zookeeper.addr());
            let entry = registry.register(SERVICE, instance(&number.to_string(), number));
            (registry, entry)
        })
        .collect();
    let consumer = registry(zookeeper.addr());
    let (seen, _watching) = Seen::watch(&consumer);
    seen.until(&["1", "2", "3", "4", "5"]);
    for _ in 0..3 {
        let before: Vec<u64> = providers.iter().map(|(registry, _)| registry.sessions()).collect();
        assert!(zookeeper.expire_sessions().unwrap() > 0, "the consumer's too");
        for ((registry, entry), before) in providers.iter().zip(before) {
            wait_until("a new session", LONG, || registry.sessions() > before);
            assert_eq!(entry.wait_entered(LONG), Ok(()));
        }
        wait_until("all entries to be there", LONG, || {
            consumer.instances(SERVICE).is_ok_and(|all| all.len() == 5)
        });
        seen.until(&["1", "2", "3", "4", "5"]);
    }
}

#[test]
fn an_entry_whose_session_outlives_a_restart_is_taken_over_by_the_next_session() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let mut patient = config(&[zookeeper.addr()]);
    // The server keeps it over its restart, whatever else is slow here.
    patient.session_timeout = LONG;
    let both = ZooKeeperRegistry::start(patient).unwrap();
    let entry = both.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    let before = zookeeper.sessions();
    assert_eq!(before.len(), 1);
    zookeeper.kill9();
    wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    zookeeper.restart().unwrap();
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    seen.until(&["one"]);
    let known = zookeeper.ask("dump");
    let (alive, owners) = known.split_once("Sessions with Ephemerals").unwrap();
    let before = format!("0x{:x}", before[0]);
    assert!(alive.contains(&before), "the old session is alive: {known}");
    assert_eq!(owners.matches(SERVICE).count(), 1, "{known}");
    let (owner, _) = owners.split_once(SERVICE).unwrap();
    let owner = owner.lines().rev().find(|line| line.starts_with("0x")).unwrap();
    assert_ne!(owner.trim_end_matches(':'), before, "and not the owner: {known}");
}

#[test]
fn calls_go_on_while_zookeeper_is_stopped_and_when_all_sessions_end() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let providers: Vec<_> = ["one", "two", "three"].iter().map(|id| provider(&zookeeper, id)).collect();
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let consumer = registry(zookeeper.addr());
    let channel = Channel::of_service(pool.handles(), &consumer, SERVICE, ChannelConfig::default()).unwrap();
    wait_until("the connections", LONG, || channel.stats().ready == 3);
    // Calls that may not be repeated: nothing is hidden by retries.
    let load = Load::count(&EchoClient::new(channel.clone()), 8);
    load.more(100);
    zookeeper.pause();
    for (_, _, entry) in &providers {
        wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    }
    load.more(1000);
    zookeeper.resume();
    for (_, _, entry) in &providers {
        assert_eq!(entry.wait_entered(LONG), Ok(()));
    }
    let sessions = consumer.sessions();
    zookeeper.expire_sessions().unwrap();
    wait_until("a new session", LONG, || consumer.sessions() > sessions);
    load.more(1000);
    assert_eq!((channel.stats().ready, load.stop()), (3, vec![]));
}

#[test]
fn without_a_majority_what_is_known_stays_in_use_and_with_one_all_is_well_again() {
    if !ZooKeeper::available() {
        return;
    }
    let ensemble = ZooKeeper::ensemble(3).unwrap();
    let addresses: Vec<_> = ensemble.iter().map(ZooKeeper::addr).collect();
    let both = ZooKeeperRegistry::start(config(&addresses)).unwrap();
    let entry = both.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    ensemble[0].kill9();
    ensemble[1].kill9();
    wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    assert_eq!(both.services(), Err(RegistryError::Unreachable));
    assert_eq!(seen.ids(), ["one"]);
    ensemble[0].restart().unwrap();
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    wait_until("the entry", LONG, || both.instances(SERVICE).is_ok_and(|all| all.len() == 1));
    assert_eq!(seen.ids(), ["one"]);
}

#[test]
fn a_registry_ends_although_zookeeper_hangs() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let (idle, busy) = (registry(zookeeper.addr()), registry(zookeeper.addr()));
    let entry = busy.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    wait_until("both to have a session", LONG, || idle.sessions() >= 1);
    zookeeper.pause();
    // Its session is all well, for all it knows; the other's is known to be lost.
    drop(idle);
    wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    drop(busy);
    assert_eq!(entry.standing(), Standing::Gone);
    zookeeper.resume();
}

#[test]
fn an_observer_that_panics_harms_neither_the_others_nor_the_entries() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let both = registry(zookeeper.addr());
    let panics = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&panics);
    let _bad = both.watch(
        SERVICE,
        Box::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("a test's panic");
        }),
    );
    let (seen, _watching) = Seen::watch(&both);
    let entry = both.register(SERVICE, instance("one", 1));
    seen.until(&["one"]);
    assert!(panics.load(Ordering::SeqCst) >= 1 && matches!(entry.standing(), Standing::Entered(_)));
}

/// Passes everything on between clients and a ZooKeeper but the news of watches, once it is told to lose them.
struct Forgetful {
    address: SocketAddr,
    loses: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Forgetful {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (loses, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let theirs = (Arc::clone(&loses), Arc::clone(&lost));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let (loses, lost) = theirs.clone();
                std::thread::spawn(move || {
                    let _ = answers(&server, &client, &loses, &lost);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, loses, lost }
    }
}

/// Passes the server's packets on. The first answers the hello; all others begin with a number, which is -1 for the news of a watch.
fn answers(
    mut server: &TcpStream,
    mut client: &TcpStream,
    loses: &AtomicBool,
    lost: &AtomicU64,
) -> std::io::Result<()> {
    let mut greeted = false;
    loop {
        let mut len = [0; 4];
        server.read_exact(&mut len)?;
        let mut packet = vec![0; u32::from_be_bytes(len) as usize];
        server.read_exact(&mut packet)?;
        if greeted && packet.starts_with(&[255; 4]) && loses.load(Ordering::SeqCst) {
            lost.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        greeted = true;
        client.write_all(&len)?;
        client.write_all(&packet)?;
    }
}

#[test]
fn a_change_that_no_watch_told_of_is_found_by_comparing_and_costs_a_session() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let between = Forgetful::start(zookeeper.addr());
    let mut compares = config(&[between.address]);
    // So that no other reason ends it.
    compares.session_timeout = LONG;
    compares.resync = Duration::from_millis(200);
    let consumer = ZooKeeperRegistry::start(compares).unwrap();
    let (seen, _watching) = Seen::watch(&consumer);
    let provider = registry(zookeeper.addr());
    let _one = provider.register(SERVICE, instance("one", 1));
    seen.until(&["one"]);
    // As long as all is told, comparing finds nothing. That it compares is seen by what ZooKeeper is asked.
    let asked = zookeeper.count("zk_packets_received").unwrap();
    wait_until("many comparisons", LONG, || zookeeper.count("zk_packets_received").unwrap() > asked + 60);
    assert_eq!(consumer.sessions(), 1);
    between.loses.store(true, Ordering::SeqCst);
    let _two = provider.register(SERVICE, instance("two", 2));
    seen.until(&["one", "two"]);
    assert!(consumer.sessions() > 1 && between.lost.load(Ordering::SeqCst) > 0);
}
