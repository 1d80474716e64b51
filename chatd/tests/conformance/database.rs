//! Databases on one MariaDB for all tests of a program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use testkit::MariaDb;

/// The URL of a database that nobody has used. A missing MariaDB is an error here: these tests have no other subject.
pub(crate) fn fresh() -> String {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server =
        SERVER.get_or_init(|| MariaDb::start().expect("MariaDB, which `cargo xtask setup` installs"));
    server.url(&format!("chat_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}
