//! Login services that are found in ZooKeeper, and what happens to that.

use testkit::{ZooKeeper, wait_until};

use crate::house::{
    House, LONG, by_password, connected, log_in_during, register, wait_connected, wait_for_logins,
};

/// A database and a ZooKeeper, where both are to be had.
fn open() -> Option<(House, ZooKeeper)> {
    if !ZooKeeper::available() {
        return None;
    }
    Some((House::open()?, ZooKeeper::start().unwrap()))
}

#[test]
fn chatd_finds_those_that_come_and_leaves_those_that_go() {
    let Some((house, zookeeper)) = open() else { return };
    let hosts = zookeeper.addr().to_string();
    let logd = |name: &str| house.logd().args(["--zookeeper", &hosts, "--node", name]).start().unwrap();
    let first = logd("logd-1");
    let chatd = house.chatd().args(["--zookeeper", &hosts]).start().unwrap();
    wait_connected(&chatd, 1);
    assert_eq!(register(&chatd, "amy")["type"], "ok");
    let second = logd("logd-2");
    wait_connected(&chatd, 2);
    first.terminate();
    assert!(first.wait_exit(LONG).success());
    wait_connected(&chatd, 1);
    for _ in 0..10 {
        assert_eq!(by_password(&chatd, "amy")["type"], "ok");
    }
    second.kill9();
    wait_until("it is gone", LONG, || connected(&chatd) == 0);
    assert_eq!(by_password(&chatd, "amy")["code"], "unavailable");
    // Under its old name, which the killed one has left behind in ZooKeeper.
    second.restart().unwrap();
    wait_for_logins(&chatd, "amy");
}

#[test]
fn a_rolling_restart_in_zookeeper_fails_no_login() {
    let Some((house, zookeeper)) = open() else { return };
    let hosts = zookeeper.addr().to_string();
    let logds = ["logd-1", "logd-2"]
        .map(|name| house.logd().args(["--zookeeper", &hosts, "--node", name]).start().unwrap());
    let chatd = house.chatd().args(["--zookeeper", &hosts]).start().unwrap();
    wait_connected(&chatd, 2);
    let ((), failures) = log_in_during(&chatd, |rush| {
        for logd in &logds {
            rush.wait_for(20);
            logd.restart().unwrap();
            wait_connected(&chatd, 2);
        }
        rush.wait_for(20);
    });
    assert!(failures.by_token.is_empty() && failures.by_password.is_empty(), "{failures:?}");
}

#[test]
fn without_zookeeper_at_the_start_all_begin_and_find_each_other_when_it_comes() {
    if !ZooKeeper::available() {
        return;
    }
    let Some(house) = House::open() else { return };
    let zookeeper = ZooKeeper::absent().unwrap();
    let hosts = zookeeper.addr().to_string();
    let logd = house.logd().args(["--zookeeper", &hosts]).start().unwrap();
    let chatd = house.chatd().args(["--zookeeper", &hosts]).start().unwrap();
    assert_eq!(register(&chatd, "amy")["code"], "unavailable");
    zookeeper.restart().unwrap();
    wait_until("the two find each other", LONG, || register(&chatd, "amy")["type"] == "ok");
    assert!(logd.is_running());
}

#[test]
fn what_happens_to_zookeeper_fails_no_login() {
    let Some((house, zookeeper)) = open() else { return };
    let hosts = zookeeper.addr().to_string();
    let logd = house.logd().args(["--zookeeper", &hosts, "--node", "logd-1"]).start().unwrap();
    let chatd = house.chatd().args(["--zookeeper", &hosts]).start().unwrap();
    wait_connected(&chatd, 1);
    let ((), failures) = log_in_during(&chatd, |rush| {
        zookeeper.kill9();
        rush.wait_for(50);
        zookeeper.restart().unwrap();
        rush.wait_for(50);
        zookeeper.pause();
        rush.wait_for(50);
        zookeeper.resume();
        rush.wait_for(50);
        zookeeper.expire_sessions().unwrap();
        rush.wait_for(50);
    });
    assert!(failures.by_token.is_empty() && failures.by_password.is_empty(), "{failures:?}");
    // Registered again: one who has never seen it finds it.
    let late = house.chatd().args(["--zookeeper", &hosts]).start().unwrap();
    wait_for_logins(&late, "rush");
    assert!(logd.is_running());
}
