//! The store's suite on a SQLite file.
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
#[path = "suite/one_writer.rs"]
mod one_writer;
#[path = "suite/pipeline.rs"]
mod pipeline;
#[path = "suite/retention.rs"]
mod retention;

/// Where the tables of a test are.
mod engine {
    use store::DbConfig;
    use tempfile::TempDir;

    /// Cases of each property.
    pub const CASES: u32 = 48;

    pub struct Place(TempDir);

    impl Place {
        pub fn new() -> Option<Self> {
            Some(Self(tempfile::tempdir().unwrap()))
        }

        pub fn config(&self) -> DbConfig {
            DbConfig::at(self.0.path())
        }
    }
}
