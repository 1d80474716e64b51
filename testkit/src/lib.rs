//! Test support: private servers on free ports, a line-speaking client, a terminal, and looks into `/proc`.
//!
//! Everything here is plain blocking `std`, made for tests and benches: what goes wrong panics with a message that
//! says what was waited for and what was seen instead. Nothing sleeps to wait for something; every wait has a bound.
//! Whatever is started is ended again when its value is dropped, and by a watching [`Reaper`] when the test process
//! dies before it can drop anything (a `static` server, a time-out, `kill -9`).
//!
//! ```no_run
//! use testkit::{Chatd, LineClient, To};
//!
//! let chatd = Chatd::builder(testkit::bin("chatd")).start().unwrap();
//! let mut amy = LineClient::connect(chatd.chat_addr());
//! amy.register("amy", "correct horse");
//! amy.login("amy", "correct horse");
//! let mut bob = chatd.client_as("bob"); // connected, registered, logged in
//! amy.send_text(To::Name("bob"), "hi");
//! assert_eq!(bob.next_push("message")["text"], "hi");
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    reason = "test support: a failed expectation is a failed test, and says so by panicking"
)]

mod balancer;
mod bin;
mod chatd;
mod cluster;
pub mod crowd;
mod daemon;
mod error;
pub mod fault;
pub mod history;
mod line_client;
mod logd;
mod mariadb;
mod nginx;
pub mod process;
mod program;
mod proxy;
mod reaper;
mod redis;
mod small_disk;
mod strace;
mod tmux;
mod transcript;
mod wait;
mod wall_clock;
mod zk_session;
mod zookeeper;

pub use balancer::{Balancer, Choice};
pub use bin::bin;
pub use chatd::{Chatd, ChatdBuilder};
pub use cluster::{Cluster, ClusterBuilder, wait_joined};
pub use error::TestkitError;
pub use line_client::{LineClient, To};
pub use logd::{Logd, LogdBuilder};
pub use mariadb::MariaDb;
pub use nginx::Nginx;
pub use program::ExitReport;
pub use proxy::FaultProxy;
pub use reaper::Reaper;
pub use redis::Redis;
pub use small_disk::SmallDisk;
pub use strace::Strace;
pub use tmux::Tmux;
pub use wait::{free_port, is_root, need_program, try_wait_until, wait_until};
pub use wall_clock::WallClock;
pub use zookeeper::ZooKeeper;
