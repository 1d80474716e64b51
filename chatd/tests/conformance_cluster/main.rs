//! The conformance tests once more, on two nodes of a cluster: each connection goes to the other node than the one before it, so that whoever talks to somebody
//! does it, every other time, across Redis.

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

/// Two nodes on MariaDB and Redis, each with a database and a Redis of its own where a test wants a server of its own.
mod engine {
    use std::sync::Mutex;

    use testkit::{Chatd, ChatdBuilder, Redis, wait_joined};

    use crate::database;

    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        static BUSES: Mutex<Vec<Redis>> = Mutex::new(Vec::new());
        let redis = Redis::start().expect("Redis, which `cargo xtask setup` installs");
        let builder = builder.args(["--mysql", &database::fresh(), "--redis", &redis.url()]);
        BUSES.lock().unwrap().push(redis);
        let nodes = ["one", "two"]
            .map(|name| builder.clone().args(["--node", name]).start().expect("the server starts"));
        wait_joined(&nodes.each_ref());
        nodes.into()
    }
}
