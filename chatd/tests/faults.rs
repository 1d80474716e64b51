//! The shortened set of `cargo xtask test faults`: users of a whole cluster write to each other while
//!
//! 1. one of its chat servers is killed and comes back,
//! 2. Redis is restarted and has forgotten everything,
//! 3. MariaDB is restarted.
//!
//! What was acknowledged is there for everybody, in one order, once; nobody is logged out; everybody gets back. How long that takes is not judged here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::time::Duration;

use testkit::Cluster;
use testkit::fault::{Break, RunOptions, Runner};

#[test]
fn nothing_is_lost_doubled_or_out_of_order_when_parts_of_a_cluster_fail() {
    if !Cluster::available() {
        return;
    }
    let mut runner = Runner::new(RunOptions {
        chatd: env!("CARGO_BIN_EXE_chatd").into(),
        logd: testkit::bin("logd"),
        users: 40,
        nodes: 3,
        logins: 2,
        think: Duration::from_millis(500),
        writing: Duration::from_secs(6),
        patient: true,
    });
    let seed = std::env::var("FAULTS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut told = String::new();
    for name in ["node-killed", "redis-restarted", "maria-restarted"] {
        let one = Break::named(name).expect("a thing to break");
        runner
            .run(one, seed, &mut |text| {
                eprintln!("{text}");
                told.push_str(text);
            })
            .unwrap();
    }
    assert!(runner.failed().is_empty(), "FAULTS_SEED={seed}\n{told}");
}
