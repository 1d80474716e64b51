//! The registry against a real ZooKeeper, to which everything happens:
//! 1. It is killed, restarted with our session alive, restarted knowing nothing, stopped, absent at the start, one of three that dies, or no ZooKeeper at all.
//! 2. The session of a provider ends on the server while its process lives.
//! 3. Entries of ours from an earlier life, entries of others, entries that somebody takes out or spoils.
//!
//! What must hold: entries come back by themselves, callers go on with what they know, nothing hangs, and the end is an end.
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
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use load::Load;
use rpc::echo::EchoClient;
use rpc::registry::{Instance, InstanceState, Registry as _, RegistryError, Standing, ZooKeeperRegistry};
use rpc::{Channel, ChannelConfig};
use support::*;
use testkit::{FaultProxy, ZooKeeper, wait_until};
use zk::{SERVICE, Seen, config, instance, provider, registry};

#[test]
fn entries_come_drain_and_go_and_who_watches_sees_it() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let (provider, consumer) = (registry(zookeeper.addr()), registry(zookeeper.addr()));
    let (seen, _watching) = Seen::watch(&consumer);
    let one = provider.register(SERVICE, Instance { zone: "z".into(), weight: 3, ..instance("one", 1) });
    let two = provider.register(SERVICE, instance("two", 2));
    assert_eq!((one.wait_entered(LONG), two.wait_entered(LONG)), (Ok(()), Ok(())));
    seen.until(&["one", "two"]);
    let first = seen.0.lock().last().unwrap().iter().find(|one| one.id == "one").unwrap().clone();
    assert_eq!((first.zone.as_str(), first.weight, first.state), ("z", 3, InstanceState::Up));
    assert!(one.drain(LONG));
    wait_until("the draining to be seen", LONG, || {
        seen.0.lock().last().unwrap().iter().any(|one| one.state == InstanceState::Draining)
    });
    assert!(one.leave(LONG));
    seen.until(&["two"]);
    assert_eq!(consumer.services(), Ok(vec![SERVICE.to_owned()]));
    assert_eq!(consumer.instances(SERVICE).unwrap().len(), 1);
    drop(two);
    seen.until(&[]);
    let _three = provider.register(SERVICE, instance("three", 3));
    seen.until(&["three"]);
    // The end of a program that ends well is seen at once, not after the session's timeout.
    drop(provider);
    seen.until(&[]);
}

#[test]
fn a_change_costs_a_consumer_one_list_and_one_fetch() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let mut quiet = config(&[zookeeper.addr()]);
    // So that nothing but the change is counted.
    quiet.session_timeout = Duration::from_secs(60);
    let provider = ZooKeeperRegistry::start(quiet.clone()).unwrap();
    let entries: Vec<_> = (1..=50).map(|port| provider.register(SERVICE, instance("x", port))).collect();
    assert!(entries.iter().all(|entry| entry.wait_entered(LONG).is_ok()));
    let consumer = ZooKeeperRegistry::start(quiet).unwrap();
    let (seen, _watching) = Seen::watch(&consumer);
    wait_until("all", LONG, || seen.ids().len() == 50);
    assert_eq!(consumer.fetched(), (1, 50));
    let before = zookeeper.count("zk_packets_received").unwrap();
    let _new = provider.register(SERVICE, instance("new", 51));
    wait_until("the new one", LONG, || seen.ids().len() == 51);
    let after = zookeeper.count("zk_packets_received").unwrap();
    assert_eq!(consumer.fetched(), (2, 51));
    // The provider: a sign of life, is it there, who else is there (and is the folder there), make it, look at it, and as much for each of its fifty others in that
    // round. The consumer: one list, one fetch. Each question to ZooKeeper itself is one more.
    let by_provider = 1 + 50 + 5;
    assert!(after - before <= by_provider + 2 + 2, "{} packets", after - before);
}

#[test]
fn a_consumer_and_a_provider_started_without_zookeeper_catch_up() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::absent().unwrap();
    let both = registry(zookeeper.addr());
    let entry = both.register(SERVICE, instance("early", 1));
    let (seen, _watching) = Seen::watch(&both);
    // Not knowing is told as an empty list, so that calls fail instead of waiting.
    wait_until("the first word", LONG, || seen.0.lock().first() == Some(&Vec::new()));
    assert_eq!(entry.standing(), Standing::Pending);
    assert_eq!(both.instances(SERVICE), Err(RegistryError::Unreachable));
    zookeeper.restart().unwrap();
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    seen.until(&["early"]);
}

#[test]
fn a_snapshot_serves_while_zookeeper_is_absent() {
    if !ZooKeeper::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeper::start().unwrap();
    let mut with_file = config(&[zookeeper.addr()]);
    with_file.snapshot = Some(dir.path().join("services.json"));
    let provider = registry(zookeeper.addr());
    let entry = provider.register(SERVICE, instance("known", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let consumer = ZooKeeperRegistry::start(with_file.clone()).unwrap();
    let (seen, watching) = Seen::watch(&consumer);
    seen.until(&["known"]);
    drop((watching, consumer));
    zookeeper.kill9();
    let again = ZooKeeperRegistry::start(with_file).unwrap();
    let (seen, _watching) = Seen::watch(&again);
    seen.until(&["known"]);
}

#[test]
fn entries_are_back_after_a_restart_whether_the_session_lived_or_not() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let (provider, consumer) = (registry(zookeeper.addr()), registry(zookeeper.addr()));
    let entry = provider.register(SERVICE, instance("one", 1));
    let (seen, _watching) = Seen::watch(&consumer);
    seen.until(&["one"]);
    for forgets in [false, true, false] {
        let sessions = provider.sessions();
        if forgets {
            zookeeper.restart_empty().unwrap();
        } else {
            zookeeper.restart().unwrap();
        }
        wait_until("a new session", LONG, || provider.sessions() > sessions);
        assert_eq!(entry.wait_entered(LONG), Ok(()));
        let look = registry(zookeeper.addr());
        wait_until("the entry to be there", LONG, || look.instances(SERVICE).is_ok_and(|all| all.len() == 1));
    }
    // Known to the last, whatever happened in between: the list was never emptied by a restart alone.
    seen.until(&["one"]);
    let before = zookeeper.pid();
    zookeeper.kill9();
    assert_ne!(before, 0);
    wait_until("the loss to be noticed", LONG, || entry.standing() == Standing::Pending);
    assert_eq!(seen.ids(), ["one"], "what was known stays in use");
}

#[test]
fn a_zookeeper_that_is_stopped_is_noticed_and_its_return_too() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let both = registry(zookeeper.addr());
    let entry = both.register(SERVICE, instance("one", 1));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    zookeeper.pause();
    wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    assert_eq!(both.services(), Err(RegistryError::Unreachable), "nothing hangs");
    zookeeper.resume();
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    seen.until(&["one"]);
}

#[test]
fn a_session_that_ended_on_the_server_is_replaced_and_the_entry_with_it() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let proxy = FaultProxy::start(zookeeper.addr());
    let provider = registry(proxy.addr());
    let entry = provider.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let consumer = registry(zookeeper.addr());
    let (seen, _watching) = Seen::watch(&consumer);
    seen.until(&["one"]);
    // Cut off for longer than the server keeps the session.
    proxy.go_silent(true);
    seen.until(&[]);
    proxy.go_silent(false);
    seen.until(&["one"]);
    assert_eq!(entry.wait_entered(LONG), Ok(()));
}

#[test]
fn connections_that_are_cut_again_and_again_do_no_lasting_harm() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let proxy = FaultProxy::start(zookeeper.addr());
    let both = registry(proxy.addr());
    let entry = both.register(SERVICE, instance("one", 1));
    let (seen, _watching) = Seen::watch(&both);
    for round in 1..=5_u32 {
        assert_eq!(entry.wait_entered(LONG), Ok(()));
        // In the middle of an answer, at another place each time.
        proxy.cut_after_answer(10 * round);
        let sessions = both.sessions();
        wait_until("the next session", LONG, || both.sessions() > sessions);
    }
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    seen.until(&["one"]);
}

#[test]
fn what_is_no_zookeeper_is_survived() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    // Answers everything with garbage, a kind for each connection.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let garbage = listener.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let kinds: [&[u8]; 4] = [
            &[0xff; 64],
            &[0, 0, 0, 4, 1, 2, 3, 4],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0],
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ];
        for (stream, kind) in listener.incoming().map_while(Result::ok).zip(kinds.into_iter().cycle()) {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut stream = stream;
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(kind);
            // Open, so that its end is not what is noticed.
            std::mem::forget(stream);
        }
    });
    let alone = registry(garbage);
    assert_eq!(alone.services(), Err(RegistryError::Unreachable));
    wait_until("every kind of garbage", LONG, || asked.load(std::sync::atomic::Ordering::SeqCst) >= 4);
    let with_a_good_one = ZooKeeperRegistry::start(config(&[garbage, zookeeper.addr()])).unwrap();
    let entry = with_a_good_one.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
}

#[test]
fn one_of_three_that_dies_costs_a_new_session_and_nothing_else() {
    if !ZooKeeper::available() {
        return;
    }
    let mut ensemble = ZooKeeper::ensemble(3).unwrap();
    let addresses: Vec<_> = ensemble.iter().map(ZooKeeper::addr).collect();
    let both = ZooKeeperRegistry::start(config(&addresses)).unwrap();
    let entry = both.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    // The one that we are connected to: it is the one with a session of ours.
    let ours = ensemble.iter().position(|server| server.count("zk_num_alive_connections") > Some(1)).unwrap();
    let sessions = both.sessions();
    drop(ensemble.remove(ours));
    wait_until("a session with another", LONG, || both.sessions() > sessions);
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let look = ZooKeeperRegistry::start(config(&[ensemble[0].addr(), ensemble[1].addr()])).unwrap();
    wait_until("the entry", LONG, || look.instances(SERVICE).is_ok_and(|all| all.len() == 1));
}

#[test]
fn an_own_entry_of_an_earlier_life_is_taken_over_and_anothers_is_an_error_until_it_goes() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    // An earlier life, whose session the server keeps for a while: its process was killed, and cut off to show it.
    let proxy = FaultProxy::start(zookeeper.addr());
    let mut long = config(&[proxy.addr()]);
    long.session_timeout = Duration::from_secs(3);
    let earlier = ZooKeeperRegistry::start(long).unwrap();
    let old = earlier.register(SERVICE, instance("one", 1));
    assert_eq!(old.wait_entered(LONG), Ok(()));
    proxy.go_silent(true);
    let now = registry(zookeeper.addr());
    let entry = now.register(SERVICE, instance("one", 1));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let stranger = now.register(SERVICE, instance("two", 1));
    let foreign = RegistryError::Foreign { address: instance("", 1).address, id: "one".into() };
    assert_eq!(stranger.wait_entered(LONG), Err(foreign));
    // The earlier life was only cut off. It sees that it was replaced, and steps back.
    proxy.go_silent(false);
    wait_until("it steps back", LONG, || {
        old.standing() == Standing::Refused(RegistryError::Replaced { id: "one".into() })
    });
    assert!(matches!(entry.standing(), Standing::Entered(_)));
    assert!(entry.leave(LONG));
    drop(old);
    wait_until("the stranger's turn", LONG, || matches!(stranger.standing(), Standing::Entered(_)));
}

#[test]
fn an_entry_that_somebody_takes_out_is_put_back_and_one_that_is_no_json_is_passed_over() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let both = registry(zookeeper.addr());
    let _entry = both.register(SERVICE, instance("one", 1));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    let by_hand = zookeeper::ZooKeeper::connect(&zookeeper.addr().to_string(), LONG, |_| {}).unwrap();
    let path = format!("/chat/services/{SERVICE}");
    let node = format!("{path}/127.0.0.1:1-one");
    let made = || by_hand.exists(&node, false).ok().flatten().map(|stat| stat.czxid);
    let before = made();
    assert!(before.is_some());
    by_hand.delete(&node, None).unwrap();
    wait_until("it to be put back", LONG, || made().is_some_and(|made| Some(made) != before));
    seen.until(&["one"]);
    let acl = zookeeper::Acl::open_unsafe().clone();
    by_hand.create(&format!("{path}/spoilt"), b"{".to_vec(), acl, zookeeper::CreateMode::Ephemeral).unwrap();
    let _other = both.register(SERVICE, instance("two", 2));
    seen.until(&["one", "two"]);
}

#[test]
fn calls_go_on_while_zookeeper_is_away_and_forgets_everything() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let providers: Vec<_> = ["one", "two", "three"].iter().map(|id| provider(&zookeeper, id)).collect();
    let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
    let consumer = registry(zookeeper.addr());
    let channel = Channel::of_service(pool.handles(), &consumer, SERVICE, ChannelConfig::default()).unwrap();
    wait_until("the connections", LONG, || channel.stats().ready == 3);
    let load = Load::count(&EchoClient::new(channel.clone()), 8);
    load.more(100);
    zookeeper.kill9();
    load.more(1000);
    // A list that is empty for a moment, or half as long, throws nobody away who answers.
    zookeeper.restart_empty().unwrap();
    wait_until("all entries to be back", LONG, || {
        consumer.instances(SERVICE).is_ok_and(|all| all.len() == 3)
    });
    load.more(1000);
    assert_eq!(channel.stats().ready, 3);
    assert_eq!(load.stop(), []);
    drop(providers);
}

#[test]
fn a_rolling_restart_by_way_of_the_registry_fails_no_call() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let mut providers: Vec<_> = ["one", "two", "three"].iter().map(|id| provider(&zookeeper, id)).collect();
    let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
    let consumer = registry(zookeeper.addr());
    let channel = Channel::of_service(pool.handles(), &consumer, SERVICE, ChannelConfig::default()).unwrap();
    wait_until("the connections", LONG, || channel.stats().ready == 3);
    let load = Load::count(&EchoClient::new(channel.clone()), 8);
    for (at, id) in ["one", "two", "three"].into_iter().enumerate() {
        load.more(100);
        let (fixture, registry, entry) = providers.remove(at);
        assert!(entry.drain(LONG));
        assert!(fixture.server.drain(LONG));
        assert!(entry.leave(LONG));
        drop((fixture, registry));
        load.more(100);
        providers.insert(at, provider(&zookeeper, id));
        wait_until("the new one is called", LONG, || channel.stats().ready == 3);
    }
    assert_eq!(load.stop(), []);
}

#[test]
fn what_is_thrown_away_of_a_session_ends_by_itself() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let proxy = FaultProxy::start(zookeeper.addr());
    let both = registry(proxy.addr());
    for _ in 0..10 {
        let sessions = both.sessions();
        wait_until("a session", LONG, || both.sessions() > 0);
        proxy.cut_all();
        wait_until("the next session", LONG, || both.sessions() > sessions);
    }
    // Those of the tests beside this one end as well, when they do.
    let clients = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name).filter(|name| name.trim() == "zk-client").count()
    };
    wait_until("one client alone to be left", 4 * LONG, || clients() == 1);
}
