//! The schema on a real MariaDB, and the DAOs on it. What is broken: the start of several processes at once, a migration that is interrupted half-way, a schema that
//! is newer or was changed, a user without rights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use schema::sql::MYSQL;
use schema::{ConvId, Seq, UserId};
use store::dao::{
    ConversationDao, CursorDao, IdDao, IdName, MessageDao, OfflineMessageDao, PageLimit, TokenDao, UserDao,
};
use store::pool::{ConnectionPool, PoolConfig, Pooled};
use store::{DbCheck, DbChecker, MySqlConfig, MySqlManager, StoreError, TokenRow, UnavailableKind};
use testkit::MariaDb;

const LONG: Duration = Duration::from_secs(60);

fn server() -> Option<&'static MariaDb> {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    MariaDb::available().then(|| SERVER.get_or_init(|| MariaDb::start().unwrap()))
}

fn config(database: &str) -> MySqlConfig {
    MySqlConfig::from_url(&server().unwrap().url(database)).unwrap()
}

/// A connection to a database that is there.
fn connect(config: MySqlConfig) -> Pooled<MySqlManager> {
    let one = PoolConfig { connections_min: 1, connections_max: 1, ..PoolConfig::default() };
    let pool = ConnectionPool::start(MySqlManager::new(config), one).unwrap();
    pool.acquire_by(Instant::now() + LONG).unwrap()
}

#[test]
fn the_database_and_its_tables_are_made_once_by_whoever_of_many_comes_first() {
    if server().is_none() {
        return;
    }
    let config = config("at_once");
    let met = Barrier::new(6);
    let checks: Vec<DbCheck> = thread::scope(|scope| {
        let starting: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    met.wait();
                    DbChecker::check_mysql(&config, 1).unwrap()
                })
            })
            .collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let all = u32::try_from(MYSQL.len()).unwrap();
    assert!(checks.iter().all(|check| check.to == all), "{checks:?}");
    assert_eq!(checks.iter().filter(|check| check.from == 0).count(), 1, "{checks:?}");
    assert_eq!(DbChecker::check_mysql(&config, 1), Ok(DbCheck { from: all, to: all }));
}

#[test]
fn a_migration_that_was_interrupted_anywhere_is_completed() {
    if server().is_none() {
        return;
    }
    let statements: Vec<String> = MYSQL[0].sql.split(";\n").map(str::to_owned).collect();
    for done in [1, 3, statements.len() - 1] {
        let name = format!("interrupted_{done}");
        let mut root = connect(config("mysql"));
        root.execute(&format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"), &[]).unwrap();
        let mut db = connect(config(&name));
        for statement in statements.iter().take(done) {
            db.execute(statement, &[]).unwrap();
        }
        let check = DbChecker::check_mysql(&config(&name), 1).unwrap();
        assert_eq!((check.from, check.to), (0, u32::try_from(MYSQL.len()).unwrap()));
        db.transaction(|db| UserDao::new(db).create("Amy", "amy", "", 1)).unwrap();
    }
}

#[test]
fn tables_of_a_newer_or_a_changed_schema_are_refused_untouched() {
    if server().is_none() {
        return;
    }
    let config = config("other_builds");
    DbChecker::check_mysql(&config, 1).unwrap();
    let mut db = connect(config.clone());
    db.execute("UPDATE schema_migration SET checksum = REPEAT('x', 32) WHERE version = 1", &[]).unwrap();
    let error = DbChecker::check_mysql(&config, 1).unwrap_err();
    assert_eq!(error, StoreError::SchemaChanged { version: 1, name: "direct".into() });
    db.execute("INSERT INTO schema_migration VALUES (99, 'future', REPEAT('x', 32), 1)", &[]).unwrap();
    let error = DbChecker::check_mysql(&config, 1).unwrap_err();
    assert!(matches!(error, StoreError::SchemaNewer { found: 99, .. }), "{error}");
}

#[test]
fn a_user_without_the_right_to_create_suffices_once_all_is_there() {
    let Some(server) = server() else { return };
    DbChecker::check_mysql(&config("rights"), 1).unwrap();
    let mut root = connect(config("mysql"));
    root.execute("CREATE USER chat@'127.0.0.1' IDENTIFIED BY 'pw'", &[]).unwrap();
    root.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON rights.* TO chat@'127.0.0.1'", &[]).unwrap();
    let url = |database: &str| server.url(database).replace("root@", "chat:pw@");
    let check = DbChecker::check_mysql(&MySqlConfig::from_url(&url("rights")).unwrap(), 1).unwrap();
    assert_eq!(check.from, check.to);
    let error = DbChecker::check_mysql(&MySqlConfig::from_url(&url("elsewhere")).unwrap(), 1).unwrap_err();
    assert!(
        matches!(error, StoreError::Unavailable { kind: UnavailableKind::Refused, .. }),
        "a database that it may not make: {error}"
    );
}

#[test]
fn the_daos_do_on_mysql_what_they_do_on_sqlite() {
    if server().is_none() {
        return;
    }
    let config = config("daos");
    DbChecker::check_mysql(&config, 1).unwrap();
    let mut db = connect(config);
    let db = &mut *db;

    // Users: names that differ only in case or accent are two, for the program decides what is the same.
    let amy = db.transaction(|db| UserDao::new(db).create("Amy", "amy", "hash", 5)).unwrap();
    let bob = db.transaction(|db| UserDao::new(db).create("B\u{f6}b", "b\u{f6}b", "hash", 5)).unwrap();
    let also = db.transaction(|db| UserDao::new(db).create("Bob", "bob", "hash", 5)).unwrap();
    assert_eq!([amy, bob, also].map(UserId::get), [1, 2, 3]);
    let taken = db.transaction(|db| UserDao::new(db).create("AMY", "amy", "", 5));
    assert!(matches!(taken, Err(StoreError::Duplicate { .. })));
    assert_eq!(&*UserDao::new(db).by_name_key("b\u{f6}b").unwrap().unwrap().name, "B\u{f6}b");
    assert_eq!(UserDao::new(db).set_password_hash(amy, "hash"), Ok(true), "found, though it was so already");
    assert_eq!(UserDao::new(db).set_password_hash(UserId::new(99).unwrap(), "x"), Ok(false));

    // Ids.
    let first = db.transaction(|db| IdDao::new(db).take(IdName::Session, 1_000)).unwrap();
    assert_eq!((first, db.transaction(|db| IdDao::new(db).take(IdName::Session, 1)).unwrap()), (1, 1_001));

    // A conversation, its members and their cursors.
    let conv: ConvId = db.transaction(|db| ConversationDao::new(db).direct(bob, amy, 7)).unwrap().unwrap().id;
    assert_eq!(db.transaction(|db| ConversationDao::new(db).direct(amy, bob, 8)).unwrap().unwrap().id, conv);
    assert_eq!(CursorDao::new(db).marks(conv).unwrap().len(), 2);
    db.transaction(|db| {
        for seq in 1..=5_i64 {
            db.execute(
                "INSERT INTO message (conv, seq, sender, session, time_ms, text) VALUES (?, ?, ?, 1, ?, ?)",
                &[conv.into(), seq.into(), amy.into(), (seq * 10).into(), "hi \u{1f600}".into()],
            )?;
        }
        db.execute("UPDATE conversation SET last_seq = 5 WHERE id = ?", &[conv.into()])
    })
    .unwrap();
    let seqs = |page: store::Page| page.entries.iter().map(|entry| entry.seq.get()).collect::<Vec<_>>();
    let three = PageLimit { entries: 3, bytes: usize::MAX };
    let last = MessageDao::new(db).last(conv, three).unwrap();
    assert_eq!(last.entries[0].text(), "hi \u{1f600}");
    assert!(last.more);
    assert_eq!(seqs(last), [3, 4, 5]);
    let after = MessageDao::new(db).after(conv, Seq::new(1).unwrap(), Seq::new(5).unwrap(), three).unwrap();
    assert_eq!(seqs(after), [2, 3, 4]);
    let listed = ConversationDao::new(db).list(bob, None, 10).unwrap();
    assert_eq!((listed.len(), listed[0].unread), (1, 5));
    let positions = OfflineMessageDao::new(db).conversations(bob).unwrap();
    assert_eq!(positions.len(), 1);

    // Tokens.
    let token = |byte: u8, expires_ms| TokenRow {
        hash: [byte; 32],
        user: amy,
        device: Some("phone".into()),
        created_ms: 1,
        expires_ms,
    };
    for byte in [0, 13, 255] {
        TokenDao::new(db).insert(&token(byte, i64::from(byte) + 100)).unwrap();
    }
    assert!(matches!(TokenDao::new(db).insert(&token(13, 1)), Err(StoreError::Duplicate { .. })));
    assert_eq!(TokenDao::new(db).find(&[13; 32]).unwrap(), Some(token(13, 113)));
    assert_eq!(TokenDao::new(db).renew(&[13; 32], 500), Ok(true));
    assert_eq!(TokenDao::new(db).delete_expired(150, 10), Ok(1));
    assert_eq!(TokenDao::new(db).of_user(amy).unwrap().len(), 2);
}
