//! Connections and their pool on a real MariaDB. What is broken: connections from the server's side, the server by `kill -9` and SIGSTOP, its limit on connections,
//! transactions against each other, a listener that says nothing. What must hold: an error of the right kind within its time, never another statement's answer,
//! and the next acquire is good as soon as the server is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::net::TcpListener;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use store::pool::{AcquireError, ConnectionPool, PoolConfig, PoolState, Pooled};
use store::{MySqlConfig, MySqlManager, Row, StoreError, UnavailableKind};
use testkit::{FaultProxy, MariaDb, wait_until};

const LONG: Duration = Duration::from_secs(60);

type Pool = ConnectionPool<MySqlManager>;

/// One server for the tests that do not break it.
fn shared() -> Option<&'static MariaDb> {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    MariaDb::available().then(|| SERVER.get_or_init(|| MariaDb::start().unwrap()))
}

/// A server of the test's own.
fn own(options: &[&str]) -> Option<MariaDb> {
    MariaDb::available().then(|| MariaDb::start_with(options).unwrap())
}

fn config(url: &str) -> MySqlConfig {
    MySqlConfig::from_url(url).unwrap()
}

/// The database `mysql` is there on every server; each test makes one of its own.
fn pool_on(server: &MariaDb, database: &str, pool: PoolConfig) -> Pool {
    pool_with(server, database, pool, Duration::from_secs(10))
}

fn pool_with(server: &MariaDb, database: &str, pool: PoolConfig, answer: Duration) -> Pool {
    let first = ConnectionPool::start(MySqlManager::new(config(&server.url("mysql"))), sized(1, 1)).unwrap();
    let mut db = first.acquire_by(Instant::now() + LONG).unwrap();
    db.execute(&format!("CREATE DATABASE IF NOT EXISTS {database}"), &[]).unwrap();
    let manager = MySqlManager::new(config(&server.url(database)).answer_within(answer));
    ConnectionPool::start(manager, pool).unwrap()
}

fn sized(min: usize, max: usize) -> PoolConfig {
    PoolConfig { connections_min: min, connections_max: max, ..PoolConfig::default() }
}

#[track_caller]
fn acquire(pool: &Pool) -> Pooled<MySqlManager> {
    pool.acquire_by(Instant::now() + LONG).unwrap()
}

fn number(db: &mut store::Connection, sql: &str) -> Result<i64, StoreError> {
    Ok(db.query_row(sql, &[], |row| row.get(0))?.expect("a row"))
}

fn kind(error: &StoreError) -> Option<UnavailableKind> {
    match error {
        StoreError::Unavailable { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[test]
fn values_come_back_as_they_went_in_and_a_wrong_type_is_an_error() {
    let Some(server) = shared() else { return };
    let pool = pool_on(server, "round_trip", sized(1, 2));
    let mut db = acquire(&pool);
    db.execute("CREATE TABLE v (id BIGINT PRIMARY KEY, t TEXT, b BLOB, n BIGINT)", &[]).unwrap();
    let text = "plain, \u{e9}, \u{1f600}, ' \" \\ \0 and a\nnewline";
    let bytes: Vec<u8> = (0..=255).collect();
    for (id, n) in [(1, i64::MIN), (2, i64::MAX), (3, 0)] {
        let changed = db
            .execute(
                "INSERT INTO v VALUES (?, ?, ?, ?)",
                &[id.into(), text.into(), bytes.as_slice().into(), n.into()],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }
    let none: Option<&str> = None;
    db.execute("INSERT INTO v VALUES (4, ?, ?, ?)", &[none.into(), none.into(), none.into()]).unwrap();
    let read = |row: &Row<'_>| {
        Ok((row.get::<Option<String>>(0)?, row.get::<Option<Vec<u8>>>(1)?, row.get::<Option<i64>>(2)?))
    };
    let rows = db.query("SELECT t, b, n FROM v ORDER BY id", &[], read).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0], (Some(text.to_owned()), Some(bytes), Some(i64::MIN)));
    assert_eq!(rows[1].2, Some(i64::MAX));
    assert_eq!(rows[3], (None, None, None));
    for sql in ["SELECT t FROM v WHERE id = 4", "SELECT t FROM v WHERE id = 1", "SELECT 1.5", "SELECT NOW()"]
    {
        let error = db.query_row(sql, &[], |row| row.get::<i64>(0)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{sql}: {error}");
    }
    // Stopping in the middle of a result leaves nothing for the next query to find.
    db.query_each("SELECT n FROM v", &[], |_| Ok(false)).unwrap();
    assert_eq!(number(&mut db, "SELECT 42").unwrap(), 42);
}

#[test]
fn it_is_connected_by_tcp_and_speaks_the_session_that_was_agreed_on() {
    let Some(server) = shared() else { return };
    let pool = pool_on(server, "session", sized(1, 1));
    let mut db = acquire(&pool);
    let host: Option<String> = db
        .query_row("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()", &[], |row| {
            row.get(0)
        })
        .unwrap();
    assert!(host.as_deref().is_some_and(|host| host.starts_with("127.0.0.1:")), "{host:?}");
    for (variable, wanted) in [
        ("@@tx_isolation", "READ-COMMITTED"),
        ("@@time_zone", "+00:00"),
        ("@@character_set_client", "utf8mb4"),
        ("CAST(@@innodb_lock_wait_timeout AS CHAR)", "5"),
    ] {
        let found: Option<String> =
            db.query_row(&format!("SELECT {variable}"), &[], |row| row.get(0)).unwrap();
        assert_eq!(found.as_deref(), Some(wanted), "{variable}");
    }
    db.execute("CREATE TABLE short (t VARCHAR(3))", &[]).unwrap();
    assert!(db.execute("INSERT INTO short VALUES ('too long')", &[]).is_err(), "nothing is cut in silence");
}

#[test]
fn a_transaction_takes_effect_as_a_whole_or_not_at_all() {
    let Some(server) = shared() else { return };
    let pool = pool_on(server, "whole", sized(1, 2));
    let mut db = acquire(&pool);
    db.execute("CREATE TABLE t (x BIGINT PRIMARY KEY)", &[]).unwrap();
    let insert = |db: &mut store::Connection, x: i64| db.execute("INSERT INTO t VALUES (?)", &[x.into()]);
    db.transaction(|db| insert(db, 1)).unwrap();
    let failed = db.transaction(|db| {
        insert(db, 2)?;
        insert(db, 1)
    });
    assert!(matches!(failed, Err(StoreError::Duplicate { .. })), "{failed:?}");
    // An inner one that fails leaves the outer one as it was.
    db.transaction(|db| {
        insert(db, 3)?;
        let inner = db.transaction(|db| {
            insert(db, 4)?;
            insert(db, 3)
        });
        assert!(matches!(inner, Err(StoreError::Duplicate { .. })));
        insert(db, 5)
    })
    .unwrap();
    let rows = db.query("SELECT x FROM t ORDER BY x", &[], |row| row.get::<i64>(0)).unwrap();
    assert_eq!(rows, [1, 3, 5]);
    // Given back in the middle of one, a connection is closed, and its transaction undone.
    let panicking = pool.clone();
    let panicked = thread::spawn(move || {
        let mut db = acquire(&panicking);
        let _ = db.transaction(|db| {
            insert(db, 6)?;
            panic!("on purpose");
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        });
    });
    assert!(panicked.join().is_err());
    wait_until("it is closed", LONG, || pool.stats().discarded == 1);
    assert_eq!(number(&mut db, "SELECT COUNT(*) FROM t").unwrap(), 3);
}

#[test]
fn a_deadlock_is_a_collision_and_the_retried_transaction_gets_through() {
    let Some(server) = shared() else { return };
    let pool = pool_on(server, "deadlock", sized(2, 3));
    let mut db = acquire(&pool);
    db.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)", &[]).unwrap();
    db.execute("INSERT INTO t VALUES (1, 0), (2, 0)", &[]).unwrap();
    let add = |db: &mut store::Connection, id: i64| {
        db.execute("UPDATE t SET n = n + 1 WHERE id = ?", &[id.into()]).map(drop)
    };
    // Both hold one row and want the other's.
    let met = Barrier::new(2);
    let outcomes = thread::scope(|scope| {
        let one = |first: i64, second: i64| {
            let (pool, met) = (&pool, &met);
            move || {
                let mut db = acquire(pool);
                db.transaction(|db| {
                    add(db, first)?;
                    met.wait();
                    add(db, second)
                })
            }
        };
        let (a, b) = (scope.spawn(one(1, 2)), scope.spawn(one(2, 1)));
        [a.join().unwrap(), b.join().unwrap()]
    });
    let collided = |result: &Result<(), StoreError>| matches!(result, Err(StoreError::Collision { .. }));
    assert_eq!(outcomes.iter().filter(|one| one.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|one| collided(one)).count(), 1, "{outcomes:?}");
    assert_eq!(number(&mut db, "SELECT SUM(n) + 0 = 2 FROM t").unwrap(), 1, "one of them as a whole");
    // Retried, all get through, whatever their order.
    thread::scope(|scope| {
        for worker in 0..2_i64 {
            let pool = &pool;
            scope.spawn(move || {
                let mut db = acquire(pool);
                for _ in 0..50 {
                    db.transaction_retried(|db| {
                        add(db, 1 + worker)?;
                        add(db, 2 - worker)
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(number(&mut db, "SELECT MIN(n) FROM t").unwrap(), 101);
}

#[test]
fn a_connection_that_the_server_kills_is_lost_once_and_replaced() {
    let Some(server) = shared() else { return };
    // With room for two, who is not the killer is always the one that an acquire gives out.
    let pool = pool_on(server, "killed", PoolConfig { fresh_ms: 0, ..sized(2, 2) });
    let mut killer = acquire(&pool);
    let mut victim = acquire(&pool);
    let id = number(&mut victim, "SELECT CONNECTION_ID()").unwrap();
    killer.execute(&format!("KILL {id}"), &[]).unwrap();
    let error = victim.execute("SELECT 1", &[]).unwrap_err();
    assert_eq!(kind(&error), Some(UnavailableKind::Lost), "{error}");
    drop(victim);
    wait_until("it is discarded", LONG, || pool.stats().discarded == 1);
    // One that is killed while nobody has it is found before it is given out.
    let mut idle = acquire(&pool);
    let id = number(&mut idle, "SELECT CONNECTION_ID()").unwrap();
    drop(idle);
    killer.execute(&format!("KILL {id}"), &[]).unwrap();
    wait_until("the server has let go of it", LONG, || {
        let listed = format!("SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id}");
        number(&mut killer, &listed).unwrap() == 0
    });
    assert_eq!(pool.stats().found_broken, 0);
    assert_ne!(number(&mut acquire(&pool), "SELECT CONNECTION_ID()").unwrap(), id);
    assert_eq!(pool.stats().found_broken, 1);
    for _ in 0..20 {
        assert_eq!(number(&mut acquire(&pool), "SELECT 7").unwrap(), 7);
    }
}

#[test]
fn a_server_that_dies_is_told_of_at_once_and_used_again_when_it_is_back() {
    let Some(server) = own(&[]) else { return };
    let pool = pool_on(&server, "dies", PoolConfig { fresh_ms: 0, ..sized(2, 4) });
    let mut held = acquire(&pool);
    held.execute("CREATE TABLE t (x BIGINT)", &[]).unwrap();
    wait_until("two are there", LONG, || pool.stats().idle >= 1);
    server.kill9();
    let error = held.execute("INSERT INTO t VALUES (1)", &[]).unwrap_err();
    assert_eq!(kind(&error), Some(UnavailableKind::Lost), "{error}");
    drop(held);
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, AcquireError::Down { .. }), "{error}");
    assert!(StoreError::from(error).is_unavailable());
    wait_until("it is down", LONG, || pool.stats().state == PoolState::Down);
    server.restart().unwrap();
    wait_until("it is up", LONG, || pool.stats().state == PoolState::Up);
    assert_eq!(number(&mut acquire(&pool), "SELECT COUNT(*) FROM t").unwrap(), 0);
    assert_eq!(pool.stats().timeouts, 0, "nobody waited for it");
}

#[test]
fn a_server_that_stops_answering_never_answers_another_statement() {
    let Some(server) = own(&[]) else { return };
    let answer = Duration::from_millis(300);
    let config = PoolConfig { fresh_ms: 0, ping_after_ms: 0, ping_ms: 200, connect_ms: 300, ..sized(1, 2) };
    let pool = pool_with(&server, "silent", config, answer);
    let mut db = acquire(&pool);
    assert_eq!(number(&mut db, "SELECT 1").unwrap(), 1);
    server.pause();
    let error = number(&mut db, "SELECT 111").unwrap_err();
    assert_eq!(kind(&error), Some(UnavailableKind::Lost), "{error}");
    drop(db);
    // Those who come now are told within their time, by whatever error.
    let began = Instant::now();
    let error = pool.acquire_by(began + Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. } | AcquireError::Down { .. }), "{error}");
    server.resume();
    // The driver would give the answer to the statement before; the pool never gives such a connection out.
    wait_until("it answers", LONG, || {
        let Ok(mut db) = pool.acquire() else { return false };
        number(&mut db, "SELECT 222").is_ok_and(|found| {
            assert_eq!(found, 222, "the answer to another question");
            true
        })
    });
    for n in 0..50 {
        assert_eq!(number(&mut acquire(&pool), &format!("SELECT {n}")).unwrap(), n);
    }
}

#[test]
fn a_server_without_room_is_a_refusal_and_the_connections_that_live_go_on() {
    let Some(server) = own(&["--max-connections=10"]) else { return };
    let pool = pool_on(&server, "full", sized(1, 20));
    // Ten is the least that the server lets itself be limited to; it keeps one more for an administrator, who is root, and so are we.
    let mut held = Vec::new();
    while held.len() < 20 {
        match pool.acquire_by(Instant::now() + Duration::from_secs(2)) {
            Ok(db) => held.push(db),
            Err(_) => break,
        }
    }
    assert!((9..=11).contains(&held.len()), "{}", held.len());
    let stats = pool.stats();
    assert_eq!(stats.state, PoolState::Degraded);
    let error = stats.last_error.unwrap();
    assert_eq!(kind(&error), Some(UnavailableKind::Refused), "{error}");
    for db in &mut held {
        assert_eq!(number(db, "SELECT 5").unwrap(), 5);
    }
    drop(held);
    assert_eq!(number(&mut acquire(&pool), "SELECT 6").unwrap(), 6);
}

#[test]
fn a_listener_that_says_nothing_fails_the_connect_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = MariaDb::url_at(listener.local_addr().unwrap(), "chat");
    let pool_config = PoolConfig { connect_ms: 200, ..sized(1, 1) };
    let pool = ConnectionPool::start(MySqlManager::new(config(&url)), pool_config).unwrap();
    let error = pool.acquire_by(Instant::now() + LONG).unwrap_err();
    assert!(matches!(&error, AcquireError::Down { .. }), "{error}");
    assert!(StoreError::from(error).is_unavailable());
}

#[test]
fn a_wrong_password_is_a_refusal_and_is_not_in_the_error() {
    let Some(server) = shared() else { return };
    let url = server.url("mysql").replace("root@", "root:letmein@");
    let pool = ConnectionPool::start(MySqlManager::new(config(&url)), sized(1, 1)).unwrap();
    let error = StoreError::from(pool.acquire_by(Instant::now() + LONG).unwrap_err());
    assert_eq!(kind(&error), Some(UnavailableKind::Refused), "{error}");
    assert!(!error.to_string().contains("letmein"), "{error}");
}

/// A pool whose way to the server goes through a proxy.
fn behind(proxy: &FaultProxy, database: &str, pool: PoolConfig, answer: Duration) -> Pool {
    let url = MariaDb::url_at(proxy.addr(), database);
    ConnectionPool::start(MySqlManager::new(config(&url).answer_within(answer)), pool).unwrap()
}

#[test]
fn a_network_that_goes_silent_is_an_error_in_time_and_no_answer_comes_to_another_statement() {
    let Some(server) = shared() else { return };
    let proxy = FaultProxy::start(server.addr());
    let limits = PoolConfig { fresh_ms: 0, ping_after_ms: 0, ping_ms: 200, connect_ms: 500, ..sized(1, 2) };
    let pool = behind(&proxy, "mysql", limits, Duration::from_millis(300));
    let mut db = acquire(&pool);
    assert_eq!(number(&mut db, "SELECT 1").unwrap(), 1);
    proxy.go_silent(true);
    let error = number(&mut db, "SELECT 111").unwrap_err();
    assert_eq!(kind(&error), Some(UnavailableKind::Lost), "{error}");
    // Its answer comes now, to a connection that nobody is given any more.
    proxy.go_silent(false);
    drop(db);
    for n in 200..220 {
        assert_eq!(number(&mut acquire(&pool), &format!("SELECT {n}")).unwrap(), n);
    }
    assert_eq!(pool.stats().discarded, 1);
}

#[test]
fn an_answer_that_is_cut_in_the_middle_is_an_error_and_not_a_shorter_answer() {
    let Some(server) = shared() else { return };
    let proxy = FaultProxy::start(server.addr());
    let pool = behind(&proxy, "mysql", sized(1, 2), Duration::from_secs(10));
    let mut db = acquire(&pool);
    let many = "SELECT seq FROM seq_1_to_20000";
    assert_eq!(db.query(many, &[], |row| row.get::<i64>(0)).unwrap().len(), 20_000);
    proxy.cut_after_answer(50_000);
    let error = db.query(many, &[], |row| row.get::<i64>(0)).unwrap_err();
    assert_eq!(kind(&error), Some(UnavailableKind::Lost), "{error}");
    drop(db);
    assert_eq!(number(&mut acquire(&pool), "SELECT 3").unwrap(), 3);
}

#[test]
fn a_slow_network_is_slow_and_nothing_else() {
    let Some(server) = shared() else { return };
    let proxy = FaultProxy::start(server.addr());
    let pool = behind(&proxy, "mysql", sized(1, 4), Duration::from_secs(10));
    let mut db = acquire(&pool);
    proxy.delay(Duration::from_millis(100));
    assert_eq!(number(&mut db, "SELECT 4").unwrap(), 4);
    drop(db);
    assert_eq!(pool.stats().discarded, 0);
    assert_eq!(pool.stats().state, PoolState::Up);
}

#[test]
fn connects_that_hang_leave_those_alone_who_have_a_connection() {
    let Some(server) = shared() else { return };
    let proxy = FaultProxy::start(server.addr());
    let pool =
        behind(&proxy, "mysql", PoolConfig { connect_ms: 60_000, ..sized(1, 4) }, Duration::from_secs(10));
    let mut db = acquire(&pool);
    proxy.let_new_ones_hang(true);
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = pool.clone();
    let waiter = thread::spawn(move || {
        // Makes the pool grow, which hangs; and gets the one that comes back.
        let mut db = acquire(&waiting);
        tell.send(number(&mut db, "SELECT 5")).unwrap();
    });
    wait_until("a connect hangs", LONG, || pool.stats().connecting > 0);
    assert_eq!(number(&mut db, "SELECT 6").unwrap(), 6);
    drop(db);
    assert_eq!(told.recv_timeout(LONG).unwrap().unwrap(), 5);
    waiter.join().unwrap();
    for _ in 0..100 {
        assert_eq!(number(&mut acquire(&pool), "SELECT 7").unwrap(), 7);
    }
    assert!(pool.stats().connecting > 0, "it still hangs");
}
