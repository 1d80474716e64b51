//! No query of the store reads a table from end to end.

use super::{conversation, cursor, id, message, token, user};
use crate::connection::Connection;
use crate::sqlite::Role;
use crate::{batch, checker::DbChecker, writer};

const ALL: &[&str] = &[
    user::INSERT,
    user::BY_ID,
    user::BY_KEY,
    user::CREDENTIALS_BY_ID,
    user::CREDENTIALS_BY_KEY,
    user::SET_HASH,
    token::INSERT,
    token::FIND,
    token::OF_USER,
    token::RENEW,
    token::DELETE,
    token::EXPIRED,
    conversation::BY_ID,
    conversation::BY_PAIR,
    conversation::INSERT,
    conversation::INSERT_MEMBER,
    conversation::LIST,
    conversation::POSITIONS,
    message::AFTER,
    message::BEFORE,
    message::INSERT,
    message::TEXT,
    cursor::GET,
    cursor::MARKS,
    cursor::SET,
    cursor::SET_OWN,
    id::TAKE,
    id::NEXT,
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
    for sql in ALL {
        let steps = plan(&mut db, sql);
        let searches = !sql.starts_with("INSERT");
        assert_eq!(steps.iter().any(|step| step.contains("SEARCH")), searches, "{sql}\n{steps:#?}");
        for step in &steps {
            assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{sql}\n{steps:#?}");
        }
    }
    assert!(plan(&mut db, "SELECT * FROM message WHERE text = ?")[0].contains("SCAN"), "the check can fail");
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
        include_str!("offline.rs"),
        include_str!("../batch.rs"),
    ];
    let count: usize = sources.iter().map(|source| source.matches(": &str =").count()).sum();
    // All but the two of the writer's mark.
    assert_eq!(count, ALL.len() - 2);
}
