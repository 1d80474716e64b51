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
#[path = "../conformance/database.rs"]
mod database;
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
    use testkit::{Chatd, ChatdBuilder};

    use crate::database;

    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        vec![builder.arg("--mysql").arg(database::fresh()).start().expect("the server starts")]
    }
}
