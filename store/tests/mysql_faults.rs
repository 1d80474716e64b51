//! The commit pipeline while its database fails, with load running. What is broken:
//!
//! 1. the server is killed with -9 and started again;
//! 2. it is stopped for a while (SIGSTOP) and goes on;
//! 3. every connection is killed from its side, again and again;
//! 4. connects hang while the connections are cut;
//! 5. the network delays, falls silent, and cuts an answer in the middle;
//! 6. it has no room for another connection;
//! 7. its disk is full;
//! 8. it is read-only;
//! 9. others lock the rows that are written;
//! 10. two nodes write to the same conversations.
//!
//! What must hold: what was acknowledged is there once, in its place and in order; what was not is refused within seconds, never left hanging; and soon after the
//! fault is over messages are accepted again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code"
)]

#[path = "suite/common.rs"]
mod common;
#[path = "suite/under_load.rs"]
mod under_load;

use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use store::pool::{ConnectionPool, PoolConfig, Pooled};
use store::{DbConfig, MySqlConfig, MySqlManager, MySqlSection, Store, StoreError};
use testkit::{FaultProxy, MariaDb, SmallDisk, wait_until};

use under_load::{Load, check};

/// So soon after the fault is over the first message has to be accepted: ten times what is aimed at.
const BACK_MAX: Duration = Duration::from_secs(10);
/// Refused *within seconds* is the claim.
const REFUSED_MAX: Duration = Duration::from_secs(10);
const TALKS: u64 = 24;

mod engine {
    use store::DbConfig;

    pub struct Place(pub DbConfig);

    impl Place {
        pub fn config(&self) -> DbConfig {
            self.0.clone()
        }
    }
}

fn server(options: &[&str]) -> Option<MariaDb> {
    MariaDb::available().then(|| MariaDb::start_with(options).unwrap())
}

/// Impatient, so that the tests need not wait long.
fn config(url: &str) -> DbConfig {
    let pool = PoolConfig {
        acquire_ms: 1_000,
        connect_ms: 1_000,
        ping_ms: 300,
        probe_base_ms: 50,
        probe_max_ms: 500,
        ..PoolConfig::default()
    };
    let section = MySqlSection { answer_ms: 2_000, pool, ..MySqlSection::at(url) };
    DbConfig { mysql: Some(section), ..DbConfig::default() }
}

/// The operator's own connection.
fn root(server: &MariaDb) -> Pooled<MySqlManager> {
    let one = PoolConfig { connections_min: 1, connections_max: 1, ..PoolConfig::default() };
    let manager = MySqlManager::new(MySqlConfig::from_url(&server.url("mysql")).unwrap());
    let pool = ConnectionPool::start(manager, one).unwrap();
    pool.acquire_by(Instant::now() + common::LONG).unwrap()
}

#[track_caller]
fn comes_back(load: &Load) {
    let took = load.goes_on(1);
    assert!(took < BACK_MAX, "the first message after {took:?}");
    load.goes_on(10 * TALKS);
}

#[test]
fn a_server_that_is_killed_loses_nothing_acknowledged() {
    let Some(server) = server(&[]) else { return };
    let load = Load::start(&config(&server.url("chat")), "kill", TALKS);
    for _ in 0..3 {
        load.goes_on(10 * TALKS);
        server.kill9();
        let refused = load.refused();
        // Those whose commit is in doubt are looked up first, and all of them may be.
        wait_until("what comes while it is gone is refused", REFUSED_MAX, || load.refused() > refused);
        server.restart().unwrap();
        comes_back(&load);
    }
    load.verify();
}

#[test]
fn a_server_that_is_stopped_for_a_while_goes_on() {
    let Some(server) = server(&[]) else { return };
    let load = Load::start(&config(&server.url("chat")), "stop", TALKS);
    load.goes_on(10 * TALKS);
    server.pause();
    sleep(Duration::from_secs(8));
    assert!(load.refused() > 0);
    server.resume();
    comes_back(&load);
    load.verify();
}

#[test]
fn connections_killed_by_the_server_are_replaced() {
    let Some(server) = server(&[]) else { return };
    let load = Load::start(&config(&server.url("chat")), "killed", TALKS);
    let mut root = root(&server);
    for _ in 0..20 {
        load.goes_on(TALKS);
        let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = 'chat'";
        let ids: Vec<i64> = root.query(sql, &[], |row| row.get(0)).unwrap();
        for id in ids {
            // It may have ended by itself.
            let _ = root.execute(&format!("KILL {id}"), &[]);
        }
    }
    comes_back(&load);
    load.verify();
}

#[test]
fn connects_that_hang_are_given_up() {
    let Some(server) = server(&[]) else { return };
    let proxy = FaultProxy::start(server.addr());
    let load = Load::start(&config(&MariaDb::url_at(proxy.addr(), "chat")), "hang", TALKS);
    load.goes_on(10 * TALKS);
    proxy.let_new_ones_hang(true);
    proxy.cut_all();
    sleep(Duration::from_secs(3));
    assert!(load.refused() > 0);
    proxy.let_new_ones_hang(false);
    comes_back(&load);
    load.verify();
}

#[test]
fn a_network_that_delays_falls_silent_and_cuts() {
    let Some(server) = server(&[]) else { return };
    let proxy = FaultProxy::start(server.addr());
    let load = Load::start(&config(&MariaDb::url_at(proxy.addr(), "chat")), "net", TALKS);
    load.goes_on(10 * TALKS);
    proxy.delay(Duration::from_millis(200));
    load.goes_on(2 * TALKS);
    proxy.delay(Duration::ZERO);
    // In the middle of an answer, also of that to a COMMIT.
    for bytes in [1, 2, 3, 5, 7, 11, 4, 6, 8, 9] {
        load.goes_on(TALKS);
        proxy.cut_after_answer(bytes);
        sleep(Duration::from_millis(50));
    }
    comes_back(&load);
    proxy.go_silent(true);
    sleep(Duration::from_secs(5));
    assert!(load.refused() > 0);
    proxy.go_silent(false);
    comes_back(&load);
    load.verify();
}

#[test]
fn a_commit_whose_answer_was_cut_off_is_looked_up_and_answered_as_done() {
    let Some(server) = server(&[]) else { return };
    let proxy = FaultProxy::start(server.addr());
    let house = common::Harness::with(&config(&MariaDb::url_at(proxy.addr(), "chat")));
    let (amy, _, conv) = house.pair();
    house.say(common::message(conv, amy, "first")).unwrap();
    let (mut found, mut accepted) = (0, 1);
    // Enough connections that a cut one is replaced by one that lives.
    let full = || house.store.pool_stats().unwrap().idle >= 2;
    // One of these cuts falls into the answer to the COMMIT, wherever that is: it has 11 bytes.
    for bytes in (0..8_000).step_by(5) {
        wait_until("spare connections", common::LONG, full);
        let text = bytes.to_string();
        let cut = house.store.pool_stats().unwrap().discarded;
        proxy.cut_after_answer(bytes);
        let said = house.say(common::with_id(conv, amy, &text, &text));
        let cut = house.store.pool_stats().unwrap().discarded - cut;
        // What was cut before the COMMIT is refused, not begun anew: so this one was done, and found to be.
        found += u32::from(cut > 0 && said.is_ok());
        accepted += usize::from(said.is_ok());
        if found > 0 {
            break;
        }
    }
    assert!(found > 0, "no such cut");
    let texts = common::assert_gapless(&house, conv);
    assert_eq!(texts.len(), accepted, "what was refused is not there");
}

#[test]
fn a_server_without_room_for_another_connection_serves_with_those_there_are() {
    let Some(server) = server(&["--max-connections=5"]) else { return };
    let mut root = root(&server);
    let load = Load::start(&config(&server.url("chat")), "room", TALKS);
    load.goes_on(20 * TALKS);
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = 'chat'";
    let ids: Vec<i64> = root.query(sql, &[], |row| row.get(0)).unwrap();
    for id in ids {
        let _ = root.execute(&format!("KILL {id}"), &[]);
    }
    comes_back(&load);
    load.verify();
}

#[test]
fn a_full_disk_of_the_server_refuses_and_recovers() {
    let Some(server) = server(&[]) else { return };
    let Some(disk) = SmallDisk::new(48 << 20) else { return };
    symlink(disk.path(), server.database_dir("small")).unwrap();
    let load = Load::start(&config(&server.url("small")), "full", TALKS);
    load.goes_on(10 * TALKS);
    disk.fill();
    let began = Instant::now();
    while load.refused() == 0 {
        assert!(began.elapsed() < common::LONG, "the disk never fills up");
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(500));
    disk.make_room();
    comes_back(&load);
    load.verify();
}

#[test]
fn a_server_that_is_read_only_refuses_and_comes_back() {
    let Some(server) = server(&[]) else { return };
    let mut root = root(&server);
    root.execute("CREATE USER chat@'%' IDENTIFIED BY 'pw'", &[]).unwrap();
    root.execute("GRANT ALL ON chat.* TO chat@'%'", &[]).unwrap();
    let load = Load::start(&config(&server.url("chat").replace("root@", "chat:pw@")), "ro", TALKS);
    load.goes_on(10 * TALKS);
    root.execute("SET GLOBAL read_only = 1", &[]).unwrap();
    let began = Instant::now();
    while load.refused() == 0 {
        assert!(began.elapsed() < common::LONG, "still written to");
        sleep(Duration::from_millis(10));
    }
    root.execute("SET GLOBAL read_only = 0", &[]).unwrap();
    comes_back(&load);
    load.verify();
}

#[test]
fn rows_that_others_lock_and_deadlocks_only_delay() {
    let Some(server) = server(&["--innodb-print-all-deadlocks=ON"]) else { return };
    let load = Load::start(&config(&server.url("chat")), "lock", TALKS);
    load.goes_on(10 * TALKS);
    let mut root = root(&server);
    let before = load.refused();
    // Backwards, which is the other way round than the pipeline locks them.
    for round in 0..30 {
        let result: Result<(), StoreError> = root.transaction(|db| {
            for conv in (1..=i64::try_from(TALKS).unwrap()).rev() {
                db.execute(
                    "UPDATE chat.conversation SET created_ms = ? WHERE id = ?",
                    &[round.into(), conv.into()],
                )?;
            }
            Ok(())
        });
        assert!(matches!(result, Ok(()) | Err(StoreError::Collision { .. })), "{result:?}");
    }
    load.goes_on(10 * TALKS);
    assert_eq!(load.refused(), before, "begun anew, not refused");
    load.verify();
}

#[test]
fn two_nodes_write_to_the_same_conversations_at_once() {
    let Some(server) = server(&[]) else { return };
    let config = config(&server.url("chat"));
    let first = Load::start(&config, "one", TALKS);
    first.goes_on(TALKS);
    let (sender, batches) = unbounded();
    let store = Store::open(&config, Box::new(move |batch| drop(sender.send(batch)))).unwrap();
    let talks: Vec<_> = first.talks().to_vec();
    let second = Load::on(store, batches, "two", talks.clone());
    first.goes_on(50 * TALKS);
    second.goes_on(50 * TALKS);
    let (one, two) = (first.store.clone(), second.store.clone());
    let reports = [first.finish(), second.finish()];
    check(&one, &talks, &[&reports[0], &reports[1]]);
    one.close();
    two.close();
}
