//! The time of day is set while everything runs:
//! 1. That of a provider and its caller.
//! 2. That of ZooKeeper.
//! 3. That of all three.
//!
//! What must hold: no call fails, none ends early or late, no session ends, no entry goes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code, which looks at the time of day to see that it is set"
)]

#[path = "support/load.rs"]
mod load;
mod support;
#[path = "support/zk.rs"]
mod zk;

use std::process::Command;
use std::time::{Duration, SystemTime};

use load::Load;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::EchoClient;
use rpc::registry::{Instance, Registry as _, Standing, ZooKeeperRegistry};
use rpc::{Channel, ChannelConfig, Code, ServerConfig};
use support::*;
use testkit::{WallClock, ZooKeeper, wait_until};
use zk::{SERVICE, Seen, config};

/// Set in the environment of a child process, which is a provider and a caller with a clock: ZooKeeper's address, and whether the clock is its own, too.
const CHILD: &str = "RPC_TEST_CLOCK";
const HOUR: i64 = 3600;

/// A child with, or without, the clock that it sets; ZooKeeper likewise.
fn live_through(ours: bool, zookeepers: bool) {
    if !ZooKeeper::available() || !WallClock::available() {
        return;
    }
    let clock = WallClock::start().unwrap();
    let zookeeper =
        if zookeepers { ZooKeeper::start_with_clock(&clock).unwrap() } else { ZooKeeper::start().unwrap() };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "process_with_a_clock", "--nocapture"])
        .envs(clock.env())
        .env(CHILD, format!("{} {ours}", zookeeper.addr()));
    if !ours {
        child.env_remove("LD_PRELOAD");
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{said}");
    assert!(told.contains("lived through it"), "{told}");
}

#[test]
fn a_clock_that_is_set_where_calls_are_made_and_served_changes_nothing() {
    live_through(true, false);
}

#[test]
fn a_clock_that_is_set_where_zookeeper_runs_changes_nothing() {
    live_through(false, true);
}

#[test]
fn a_clock_that_is_set_everywhere_changes_nothing() {
    live_through(true, true);
}

#[test]
fn process_with_a_clock() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (zookeeper, ours) = what.split_once(' ').unwrap();
    let clock = WallClock::of_this_process().unwrap();
    let mut patient = config(&[zookeeper.parse().unwrap()]);
    // So that no other reason ends a session.
    patient.session_timeout = LONG;
    let (provider, consumer) =
        (ZooKeeperRegistry::start(patient.clone()).unwrap(), ZooKeeperRegistry::start(patient).unwrap());
    let fixture = serve(ServerConfig::default());
    let entry = provider.register(SERVICE, Instance::new("one", fixture.server.local_addr()));
    assert_eq!(entry.wait_entered(LONG), Ok(()));
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let mut calm = ChannelConfig::default();
    calm.heartbeat = LONG;
    let channel = Channel::of_service(pool.handles(), &consumer, SERVICE, calm).unwrap();
    wait_until("the connection", LONG, || channel.stats().ready == 1);
    let (seen, _watching) = Seen::watch(&consumer);
    seen.until(&["one"]);
    let client = EchoClient::new(channel);
    let load = Load::count(&client, 4);
    let held = client.wait(&delay("held")).timeout(4 * LONG).start();
    let parked = fixture.parked();
    let mut at = 0;
    for seconds in [2, -2, HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR, 0] {
        let before = SystemTime::now();
        clock.set(seconds);
        let forward = seconds - at;
        let passed = match SystemTime::now().duration_since(before) {
            Ok(passed) => i64::try_from(passed.as_secs()).unwrap(),
            Err(error) => -i64::try_from(error.duration().as_secs()).unwrap(),
        };
        if ours == "true" && forward.abs() > 100 {
            assert!(
                passed * forward.signum() > forward.abs() / 2,
                "{passed} of {forward}: the clock is not set"
            );
        }
        at = seconds;
        load.more(200);
        let status = client.wait(&delay("")).timeout(Duration::from_millis(20)).wait().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(consumer.instances(SERVICE).unwrap().len(), 1);
    }
    parked.reply.send(payload("in time"));
    assert_eq!(block_on(held), Ok(payload("in time")));
    assert_eq!(load.stop(), []);
    assert!(matches!(entry.standing(), Standing::Entered(_)));
    assert_eq!((provider.sessions(), consumer.sessions()), (1, 1));
    assert!(seen.0.lock().iter().skip_while(|all| all.is_empty()).all(|all| all.len() == 1));
    println!("lived through it");
}
