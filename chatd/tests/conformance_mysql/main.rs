//! The conformance tests that touch the tables, once more, with the tables on a MariaDB server: a database for each server under test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code,
    missing_docs,
    reason = "test code"
)]

#[path = "../conformance/accounts.rs"]
mod accounts;
#[path = "../conformance/client.rs"]
mod client;
#[path = "../conformance/cursors.rs"]
mod cursors;
#[path = "../conformance/device.rs"]
mod device;
#[path = "../conformance/friends.rs"]
mod friends;
#[path = "../conformance/groups.rs"]
mod groups;
#[path = "../conformance/lists.rs"]
mod lists;
#[path = "../conformance/model.rs"]
mod model;
#[path = "../conformance/promise.rs"]
mod promise;
#[path = "../conformance/resume.rs"]
mod resume;
#[path = "../conformance/sending.rs"]
mod sending;
#[path = "../conformance/server.rs"]
mod server;
#[path = "../conformance/sessions.rs"]
mod sessions;
#[path = "../conformance/stream.rs"]
mod stream;

/// A server that has its tables on MariaDB.
mod engine {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use testkit::{Chatd, ChatdBuilder, MariaDb};

    /// A missing MariaDB is an error here: these tests have no other subject.
    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        static SERVER: OnceLock<MariaDb> = OnceLock::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server =
            SERVER.get_or_init(|| MariaDb::start().expect("MariaDB, which `cargo xtask setup` installs"));
        let database = format!("chat_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        vec![builder.arg("--mysql").arg(server.url(&database)).start().expect("the server starts")]
    }
}
