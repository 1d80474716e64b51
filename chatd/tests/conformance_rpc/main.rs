//! The conformance tests once more, with the login service in a process of its own: a `logd` and a database for each server under test.

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
#[path = "../conformance/connection.rs"]
mod connection;
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
#[path = "../conformance/line_limits.rs"]
mod line_limits;
#[path = "../conformance/lines.rs"]
mod lines;
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

/// Where the server has its tables and its logins.
mod engine {
    use std::sync::Mutex;

    use testkit::{Chatd, ChatdBuilder, Logd};

    use crate::database;

    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        static LOGINS: Mutex<Vec<Logd>> = Mutex::new(Vec::new());
        let url = database::fresh();
        let logd = Logd::builder(testkit::bin("logd")).args(["--mysql", &url]).start().expect("logd starts");
        let builder = builder.args(["--mysql", &url, "--logd", &logd.rpc_addr().to_string()]);
        LOGINS.lock().unwrap().push(logd);
        vec![builder.start().expect("the server starts")]
    }
}
