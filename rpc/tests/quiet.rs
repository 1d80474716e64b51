//! The ZooKeeper client, which connects without a pause when it is left to itself, while its server is away.
//!
//! What must hold: it is kept waiting until it has ended. Each of its attempts is a line in the log, so its lines are counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;
#[path = "support/zk.rs"]
mod zk;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rpc::registry::{Registry as _, Standing, ZooKeeperRegistry};
use support::LONG;
use testkit::{ZooKeeper, wait_until};
use zk::{SERVICE, Seen, config, instance};

/// Counts the client's attempts to connect.
struct Attempts;

static ATTEMPTS: AtomicU64 = AtomicU64::new(0);

impl log::Log for Attempts {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("zookeeper")
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) && record.args().to_string().contains("onnecting to new server") {
            ATTEMPTS.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn flush(&self) {}
}

/// Threads of clients, of whatever kind.
fn clients() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| matches!(name.trim(), "zk-client" | "io" | "event")).count()
}

#[test]
fn a_client_whose_server_is_away_is_kept_waiting_and_ends() {
    if !ZooKeeper::available() {
        return;
    }
    log::set_logger(&Attempts).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let zookeeper = ZooKeeper::start().unwrap();
    let mut patient = config(&[zookeeper.addr()]);
    // Long beside the two seconds after which the client connects anew: that is what it could do without a pause for the rest of the session.
    patient.session_timeout = Duration::from_secs(8);
    let both = ZooKeeperRegistry::start(patient).unwrap();
    let entry = both.register(SERVICE, instance("one", 1));
    let (seen, _watching) = Seen::watch(&both);
    seen.until(&["one"]);
    let before = ATTEMPTS.load(Ordering::SeqCst);
    zookeeper.kill9();
    wait_until("it is noticed", LONG, || entry.standing() == Standing::Pending);
    // No new one is made before somebody listens at the server's port.
    wait_until("the old client's end", 4 * LONG, || clients() == 0);
    let made = ATTEMPTS.load(Ordering::SeqCst) - before;
    assert!((1..100).contains(&made), "{made} attempts to connect");
    zookeeper.restart().unwrap();
    assert_eq!(entry.wait_entered(LONG), Ok(()));
}
