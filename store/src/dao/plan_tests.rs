//! No query of the store reads a table from end to end, on either engine.

use std::time::Duration;

use testkit::MariaDb;

use super::{conversation, cursor, friend, group, id, message, sent, token, user};
use crate::connection::Connection;
use crate::sqlite::Role;
use crate::{MySqlConfig, batch, checker::DbChecker, writer};

const ALL: &[&str] = &[
    user::INSERT,
    user::BY_ID,
    user::BY_KEY,
    user::CREDENTIALS_BY_ID,
    user::CREDENTIALS_BY_KEY,
    user::SET_HASH,
    user::LIST,
    user::RENAME,
    token::INSERT,
    token::FIND,
    token::OF_USER,
    token::RENEW,
    token::DELETE,
    token::EXPIRED,
    conversation::BY_ID,
    conversation::LAST_SEQ,
    conversation::BY_PAIR,
    conversation::INSERT,
    conversation::INSERT_MEMBER,
    conversation::LIST,
    conversation::POSITIONS,
    conversation::SPANS_OF_USER,
    conversation::SPANS,
    conversation::IDS,
    friend::STATE,
    friend::INSERT,
    friend::SET,
    friend::DELETE,
    friend::LIST,
    friend::IS_BLOCKED,
    friend::BLOCK,
    friend::UNBLOCK,
    friend::BLOCKED,
    friend::BUMP,
    group::GET,
    group::INSERT,
    group::COUNT,
    group::SET_NAME,
    group::LOCK,
    group::ADVANCE,
    group::INSERT_SPAN,
    group::END_SPAN,
    group::SET_ROLE,
    group::INSERT_MEMBER,
    group::MEMBER,
    group::MEMBERS,
    group::GROUPS,
    group::INVITED,
    group::INVITATION,
    group::INVITATIONS,
    group::INVITE,
    group::UNINVITE,
    group::UNINVITE_ALL,
    message::AFTER,
    message::BEFORE,
    message::INSERT,
    message::TEXT,
    message::OLDEST,
    message::FORGET,
    cursor::GET,
    cursor::MARKS,
    cursor::UPTO,
    cursor::GROUP_MARKS,
    cursor::SET,
    cursor::SET_OWN,
    id::TAKE,
    id::NEXT,
    sent::DELETE,
    batch::INSERT_SENT,
    batch::FIND_SENT,
    batch::SET_LAST,
    writer::GET_MARK,
    writer::SET_MARK,
];

fn plan(db: &mut Connection, sql: &str) -> Vec<String> {
    // The plan needs no values: an unbound parameter is null.
    db.query(
        &format!("EXPLAIN QUERY PLAN {sql}"),
        &vec![crate::Param::Null; sql.matches('?').count()],
        |row| row.get(3),
    )
    .unwrap()
}

#[test]
fn no_query_scans_a_table_or_sorts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.sqlite3");
    DbChecker::new().check(&path, 1).unwrap();
    let mut db = Connection::open(&path, Role::Writer).unwrap();
    for sql in ALL.iter().chain(&[sent::NEXT]) {
        let steps = plan(&mut db, sql);
        let searches = !sql.starts_with("INSERT");
        assert_eq!(steps.iter().any(|step| step.contains("SEARCH")), searches, "{sql}\n{steps:#?}");
        for step in &steps {
            assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{sql}\n{steps:#?}");
        }
    }
    assert!(plan(&mut db, "SELECT * FROM message WHERE text = ?")[0].contains("SCAN"), "the check can fail");
}

/// Tables with so many rows that a server would not read all of them for want of better.
const FILL: &[&str] = &[
    "INSERT INTO user SELECT seq, CONCAT('n', seq), CONCAT('n', seq), 'h', 1 FROM seq_1_to_3000",
    "INSERT INTO token SELECT UNHEX(SHA2(seq, 256)), 1 + seq MOD 1000, NULL, 1, seq FROM seq_1_to_3000",
    "INSERT INTO conversation SELECT seq, 0, seq, seq + 1, 50, 0, 1 FROM seq_1_to_2000",
    "INSERT INTO member SELECT seq, seq, 0, 0, 0 FROM seq_1_to_2000",
    "INSERT INTO member SELECT seq + 1, seq, 0, 0, 0 FROM seq_1_to_2000",
    "INSERT INTO message SELECT c.seq, s.seq, 0, c.seq, 1, 1, 'hello' FROM seq_1_to_400 c, seq_1_to_50 s",
    "INSERT INTO sent SELECT c.seq, c.seq, CONCAT('c', s.seq), s.seq, 1 FROM seq_1_to_400 c, seq_1_to_20 s",
    "INSERT INTO chat_group SELECT seq, CONCAT('g', seq), 0, 3 FROM seq_1_to_1000",
    "INSERT INTO span SELECT c.seq, u.seq, 1, 9007199254740991, 0 FROM seq_1_to_1000 c, seq_1_to_20 u",
    "INSERT INTO invitation SELECT u.seq, c.seq, 1, 1 FROM seq_1_to_1000 c, seq_21_to_30 u",
    "INSERT INTO friend SELECT u.seq, o.seq, 0 FROM seq_1_to_300 u, seq_301_to_320 o",
    "INSERT INTO blocked SELECT u.seq, o.seq FROM seq_1_to_300 u, seq_401_to_410 o",
    "INSERT INTO id_block SELECT CONCAT('b', seq), 1 FROM seq_1_to_200",
    "INSERT INTO commit_mark SELECT seq, 1 FROM seq_1_to_200",
];

/// The statement with a value of the column's type in place of each `?`: of a wrong one no index could be used.
fn with_values(sql: &str) -> String {
    let mut all = String::new();
    for (at, part) in sql.split('?').enumerate() {
        if at > 0 {
            // In `column = ?`, and nothing in `LIMIT ?`.
            let is_limit = all.trim_end().ends_with("LIMIT");
            let column = if is_limit { None } else { all.split_whitespace().rev().nth(1) };
            let column = column.unwrap_or_default().trim_start_matches('(').to_owned();
            all.push_str(match column.rsplit('.').next() {
                Some("to_seq") => "9007199254740991",
                Some("name_key") => "'n5'",
                Some("client_id") => "'c5'",
                Some("name") => "'user'",
                Some("hash" | "password_hash") => "UNHEX(SHA2('5', 256))",
                _ => "5",
            });
        }
        all.push_str(part);
    }
    all
}

/// Which table is read how, and what comes on top.
fn mysql_plan(db: &mut Connection, sql: &str) -> Vec<String> {
    db.query(&format!("EXPLAIN {}", with_values(sql)), &[], |row| {
        let text = |at| row.get::<Option<String>>(at).map(Option::unwrap_or_default);
        Ok(format!("{}: {} by {} {}", text(2)?, text(3)?, text(5)?, text(9)?))
    })
    .unwrap()
}

fn is_scan(step: &str) -> bool {
    [": ALL by", ": index by", "filesort", "temporary"].iter().any(|bad| step.contains(bad))
}

#[test]
fn no_query_scans_a_table_or_sorts_on_mysql_either() {
    if !MariaDb::available() {
        return;
    }
    let server = MariaDb::start().unwrap();
    let config = MySqlConfig::from_url(&server.url("plans")).unwrap();
    DbChecker::check_mysql(&config, 1).unwrap();
    let mut db = Connection::connect(&config, Duration::from_secs(30)).unwrap();
    for sql in FILL {
        db.execute(sql, &[]).unwrap();
    }
    db.query(
        "ANALYZE TABLE user, token, conversation, member, message, sent, id_block, commit_mark, chat_group, span, invitation, friend,
            blocked",
        &[],
        |_| Ok(()),
    )
    .unwrap();
    for sql in ALL.iter().chain(&[sent::NEXT_MYSQL]).filter(|sql| !sql.starts_with("INSERT")) {
        let steps = mysql_plan(&mut db, sql);
        assert!(!steps.is_empty() && !steps.iter().any(|step| is_scan(step)), "{sql}\n{steps:#?}");
    }
    assert!(is_scan(&mysql_plan(&mut db, "SELECT * FROM message WHERE text = ?")[0]), "the check can fail");
}

#[test]
fn every_statement_of_the_daos_is_in_the_list() {
    let sources = [
        include_str!("user.rs"),
        include_str!("token.rs"),
        include_str!("conversation.rs"),
        include_str!("message.rs"),
        include_str!("cursor.rs"),
        include_str!("id.rs"),
        include_str!("friend.rs"),
        include_str!("group.rs"),
        include_str!("offline.rs"),
        include_str!("sent.rs"),
        include_str!("../batch.rs"),
    ];
    let count: usize = sources.iter().map(|source| source.matches(": &str =").count()).sum();
    // The list has the two of the writer's mark besides, and lacks the three of the walk over `sent`: a walk begins at the beginning.
    assert_eq!(count, ALL.len() - 2 + 3);
}
