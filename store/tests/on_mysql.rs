//! The store's suite on a MariaDB server, one writer for all conversations so that batches are what the tests make them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "test code"
)]

#[path = "suite/common.rs"]
mod common;
#[path = "suite/dao.rs"]
mod dao;
#[path = "suite/groups.rs"]
mod groups;
#[path = "suite/model.rs"]
mod model;
#[path = "suite/pipeline.rs"]
mod pipeline;
#[path = "suite/retention.rs"]
mod retention;

/// Where the tables of a test are: in a database of its own on a server that all tests share.
mod engine {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use store::{DbConfig, MySqlSection};
    use testkit::MariaDb;

    /// Cases of each property: each makes a database.
    pub const CASES: u32 = 12;

    pub struct Place(String);

    impl Place {
        /// `None` where no server is installed, which is told.
        pub fn new() -> Option<Self> {
            static SERVER: OnceLock<MariaDb> = OnceLock::new();
            static COUNT: AtomicU32 = AtomicU32::new(0);
            MariaDb::available().then(|| {
                let server = SERVER.get_or_init(|| MariaDb::start().unwrap());
                Self(server.url(&format!("place_{}", COUNT.fetch_add(1, Ordering::Relaxed))))
            })
        }

        pub fn config(&self) -> DbConfig {
            let section = MySqlSection { workers: 1, writers: 2, ..MySqlSection::at(self.0.as_str()) };
            DbConfig { mysql: Some(section), ..DbConfig::default() }
        }
    }
}
