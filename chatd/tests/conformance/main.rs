//! Black-box conformance tests of the chat protocol, written from the protocol page alone.
//!
//! Each test's name is a claim of that page. The tests know the page, and of the server its flags, exit codes and
//! ports file; nothing of the code. Most share one running server and keep apart by the names of their users;
//! those that must disturb a server own one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

mod accounts;
mod client;
mod connection;
mod cursors;
mod device;
mod friends;
mod groups;
mod line_limits;
mod lines;
mod lists;
mod model;
mod operation;
mod promise;
mod resume;
mod sending;
mod server;
mod sessions;
mod stream;

/// A server that has its tables in its own folder.
mod engine {
    use testkit::{Chatd, ChatdBuilder};

    pub(crate) fn start(builder: ChatdBuilder) -> Vec<Chatd> {
        vec![builder.start().expect("the server starts")]
    }
}
