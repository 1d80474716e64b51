//! The MySQL engine of a [`Connection`](crate::Connection): one connection of the `mysql` crate, what is set on it, and what its errors mean.
//!
//! The crate has traps, and each has its place here: after a read that timed out the next answer would be the last one's, so any error of the connection makes it
//! suspect; a loopback connection would move to a Unix socket by itself; several statements at once hide the errors of all but the first; and a row is read by
//! value, since its typed getters panic.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable as _;
use mysql::{DriverError, OptsBuilder, Params};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, recv};

use crate::error::{StoreError, UnavailableKind};
use crate::mysql_config::MySqlConfig;
use crate::row::{Param, Row};

/// Statements kept prepared per connection: more than the store has, those of many rows in all their sizes. A server keeps 16,382 for all its connections together.
const STATEMENTS: usize = 256;

/// What is set on each connection. A lock is waited for less long than an answer, so that it is the server that says so. A session that was cut off while it held
/// some ends after a while.
fn init(answer_max: Duration) -> Vec<String> {
    let lock_wait_s = answer_max.as_secs().saturating_sub(1).clamp(1, 5);
    vec![
        "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'".to_owned(),
        format!("SET SESSION innodb_lock_wait_timeout = {lock_wait_s}, wait_timeout = 600"),
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
        // Understood by MariaDB only; to others it is a comment.
        "/*M! SET SESSION idle_transaction_timeout = 10 */".to_owned(),
    ]
}

pub(crate) fn connect(config: &MySqlConfig, timeout: Duration) -> Result<mysql::Conn, StoreError> {
    let conn = mysql::Conn::new(options(config, timeout).init(init(config.answer_max)))?;
    wait_at_most(&conn, config.answer_max)?;
    Ok(conn)
}

/// Makes the database that `config` names. That takes a right that is needed for nothing else.
pub(crate) fn create_database(config: &MySqlConfig, timeout: Duration) -> Result<(), StoreError> {
    let nowhere: Option<String> = None;
    let mut conn = mysql::Conn::new(options(config, timeout).db_name(nowhere))?;
    let name = config.database().replace('`', "``");
    Ok(conn.query_drop(format!(
        "CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    ))?)
}

fn options(config: &MySqlConfig, timeout: Duration) -> OptsBuilder {
    OptsBuilder::from_opts(config.opts.clone())
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_connect_timeout(Some(timeout))
        // For the handshake, which comes with the connecting.
        .read_timeout(Some(timeout))
        .write_timeout(Some(timeout))
        .stmt_cache_size(STATEMENTS)
        // A changed row is one that was found, as with the other engine, also when it was so already.
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
}

pub(crate) fn execute(db: &mut mysql::Conn, sql: &str, params: &[Param<'_>]) -> Result<usize, StoreError> {
    db.exec_drop(sql, positional(params))?;
    Ok(usize::try_from(db.affected_rows()).unwrap_or(usize::MAX))
}

pub(crate) fn query_each(
    db: &mut mysql::Conn,
    sql: &str,
    params: &[Param<'_>],
    mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    // What is left of the result when this returns early is read away by the drop.
    for row in db.exec_iter(sql, positional(params))? {
        if !each(&Row::from(&row?))? {
            break;
        }
    }
    Ok(())
}

/// Statements without parameters, separated by `;` at the ends of lines, one after the other.
pub(crate) fn script(db: &mut mysql::Conn, sql: &str) -> Result<(), StoreError> {
    for statement in statements(sql) {
        db.query_drop(statement)?;
    }
    Ok(())
}

/// The statements of a script. Comments begin with `--` and go to the end of the line; a `;` in a text of a statement must not end a line.
pub(crate) fn statements(sql: &str) -> Vec<String> {
    let code = sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code).trim_end());
    let mut all = vec![String::new()];
    for line in code.filter(|line| !line.trim().is_empty()) {
        let (line, ends) = line.strip_suffix(';').map_or((line, false), |line| (line, true));
        if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
        if ends {
            all.push(String::new());
        }
    }
    all.retain(|statement| !statement.trim().is_empty());
    all
}

fn positional(params: &[Param<'_>]) -> Params {
    if params.is_empty() {
        Params::Empty
    } else {
        Params::Positional(params.iter().map(|&param| param.into()).collect())
    }
}

/// The socket of a connection, for as long as that is borrowed.
#[expect(
    unsafe_code,
    reason = "the crate gives its socket as a number only, and there is no other way to look at it"
)]
fn socket(db: &mysql::Conn) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is the connection's own and open for as long as the connection lives; the result borrows the connection, so it cannot be closed, nor
    // its number be given to another, while the result is used. It is only looked at and its time-outs are set: nothing is read from it or written to it.
    unsafe { BorrowedFd::borrow_raw(db.as_raw_fd()) }
}

/// Whether the socket says that the connection is of no more use. The server says nothing unasked, so whatever can be read is its end, or an answer to somebody
/// who did not wait for it.
pub(crate) fn is_broken(db: &mysql::Conn) -> bool {
    let peek = recv(socket(db), &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(peek, Err(rustix::io::Errno::WOULDBLOCK))
}

pub(crate) fn ping(db: &mut mysql::Conn, timeout: Duration) -> Result<(), StoreError> {
    let before = rustix::net::sockopt::socket_timeout(socket(db), Timeout::Recv).ok().flatten();
    wait_at_most(db, timeout.max(Duration::from_millis(1)))?;
    db.ping()?;
    wait_at_most(db, before.unwrap_or(Duration::from_secs(10)))
}

/// From now on an answer is waited for so long.
fn wait_at_most(db: &mysql::Conn, timeout: Duration) -> Result<(), StoreError> {
    for which in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(socket(db), which, Some(timeout))
            .map_err(|error| lost(&io::Error::from(error)))?;
    }
    Ok(())
}

fn lost(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable { kind: UnavailableKind::Lost, message: error.to_string() }
}

impl From<mysql::Error> for StoreError {
    fn from(error: mysql::Error) -> Self {
        use UnavailableKind as Kind;
        let kind = match &error {
            mysql::Error::IoError(_) | mysql::Error::CodecError(_) => Kind::Lost,
            mysql::Error::DriverError(DriverError::ConnectTimeout | DriverError::CouldNotConnect(_)) => {
                Kind::CannotOpen
            }
            mysql::Error::DriverError(
                DriverError::PacketOutOfSync | DriverError::UnexpectedPacket | DriverError::SetupError,
            ) => Kind::Lost,
            mysql::Error::MySqlError(said) => return of_server(said.code, error.to_string()),
            _ => return Self::Internal { message: error.to_string() },
        };
        Self::Unavailable { kind, message: error.to_string() }
    }
}

/// What an error of the server means, by its number: of MySQL's and MariaDB's lists of server errors.
fn of_server(code: u16, message: String) -> StoreError {
    use UnavailableKind as Kind;
    let kind = match code {
        // Duplicate key, by either number.
        1062 | 1586 => return StoreError::Duplicate { message },
        // Lock wait timeout, deadlock, and a row that changed since the snapshot.
        1205 | 1213 | 1020 => return StoreError::Collision { message },
        // Disk full, table full.
        1021 | 1114 => Kind::DiskFull,
        // --read-only and its kin.
        1290 | 1792 | 1836 => Kind::ReadOnly,
        // Too many connections, in all or of this user; access denied.
        1040 | 1203 | 1226 | 1044 | 1045 => Kind::Refused,
        1049 => Kind::NoDatabase,
        // Out of memory.
        1037 | 1038 | 1041 => Kind::Memory,
        // Errors of reading and writing files.
        1026 | 1030 | 1105 | 3 | 29 => Kind::Io,
        // Server shutdown, query interrupted, connection killed.
        1053 | 1152 | 1317 | 1927 => Kind::Lost,
        _ => return StoreError::Internal { message },
    };
    StoreError::Unavailable { kind, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_into_its_statements() {
        let script = "-- a comment; with a semicolon\nCREATE TABLE a (\n  x INT -- the x\n);\n\nINSERT INTO a VALUES (1);\n";
        assert_eq!(statements(script), ["CREATE TABLE a (\n  x INT\n)\n", "INSERT INTO a VALUES (1)\n"]);
        assert!(statements("-- nothing\n\n").is_empty());
    }

    #[test]
    fn what_the_server_says_is_sorted_by_whose_fault_it_is() {
        let sort = |code| of_server(code, "m".to_owned());
        assert!(matches!(sort(1062), StoreError::Duplicate { .. }));
        assert!(matches!(sort(1213), StoreError::Collision { .. }));
        assert!(sort(1040).is_unavailable() && sort(1290).is_unavailable() && sort(1927).is_unavailable());
        assert!(matches!(sort(1064), StoreError::Internal { .. }), "a wrong statement is our fault");
    }
}
