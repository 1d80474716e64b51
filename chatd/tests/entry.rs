//! The nodes' entries in a real ZooKeeper, and what nginx makes of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::time::Duration;

use testkit::{Chatd, ChatdBuilder, MariaDb, ZooKeeper, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn chatd() -> ChatdBuilder {
    Chatd::builder(env!("CARGO_BIN_EXE_chatd"))
}

fn upstreams(zookeeper: &ZooKeeper) -> (Option<i32>, String) {
    let address = zookeeper.addr().to_string();
    let report = chatd().run_expecting_exit(["upstreams", "--zookeeper", &address]).unwrap();
    (report.code, format!("{}{}", report.stdout, report.stderr))
}

#[test]
fn a_node_is_on_nginxs_list_from_its_start_to_its_end() {
    if !MariaDb::available() || !ZooKeeper::available() {
        return;
    }
    let (maria, zookeeper) = (MariaDb::start().unwrap(), ZooKeeper::start().unwrap());
    let (code, said) = upstreams(&zookeeper);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no node is entered"), "{said}");
    let args = ["--mysql", &maria.url("chat"), "--zookeeper", &zookeeper.addr().to_string()];
    let node = chatd().args(args).start().unwrap();
    let line = format!("server {} max_fails=3 fail_timeout=2s;\n", node.chat_addr());
    wait_until("the node is entered", LONG, || upstreams(&zookeeper) == (Some(0), line.clone()));
    node.terminate();
    node.wait_exit(LONG);
    wait_until("the node is taken out", LONG, || upstreams(&zookeeper).0 == Some(1));
}

#[test]
fn the_address_for_others_may_be_another_one() {
    if !MariaDb::available() || !ZooKeeper::available() {
        return;
    }
    let (maria, zookeeper) = (MariaDb::start().unwrap(), ZooKeeper::start().unwrap());
    let args = ["--mysql", &maria.url("chat"), "--zookeeper", &zookeeper.addr().to_string()];
    let _node = chatd().args(args).args(["--advertise", "10.1.2.3:6000"]).start().unwrap();
    let line = "server 10.1.2.3:6000 max_fails=3 fail_timeout=2s;\n";
    wait_until("the node is entered", LONG, || upstreams(&zookeeper) == (Some(0), line.to_owned()));
}
