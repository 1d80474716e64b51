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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Mutex, OnceLock};

    use testkit::{Chatd, ChatdBuilder, MariaDb, Redis};

    use crate::client::WAIT;

    /// A missing MariaDB or Redis is an error here: these tests have no other subject.
    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        static SERVER: OnceLock<MariaDb> = OnceLock::new();
        static CLUSTERS: Mutex<Vec<Redis>> = Mutex::new(Vec::new());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server =
            SERVER.get_or_init(|| MariaDb::start().expect("MariaDB, which `cargo xtask setup` installs"));
        let redis = Redis::start().expect("Redis, which `cargo xtask setup` installs");
        let url = server.url(&format!("chat_{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let builder = builder.args(["--mysql", &url, "--redis", &redis.url()]);
        CLUSTERS.lock().unwrap().push(redis);
        let node = |name: &str| builder.clone().args(["--node", name]).start().expect("the server starts");
        let nodes = vec![node("one"), node("two")];
        for node in &nodes {
            testkit::wait_until("the nodes know each other", WAIT, || {
                node.admin_get("/metrics").is_ok_and(|(_, text)| text.contains("chatd_cluster_nodes 1"))
            });
        }
        nodes
    }
}
