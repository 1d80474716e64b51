//! `chatcli` end to end against a real `chatd`: scripts, faults, and the screen in a real terminal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod faults;
mod groups;
mod latency;
mod person;
mod remembered;
mod script;
mod scroll;
mod terminal;

use std::time::Duration;

use testkit::Chatd;

/// Far longer than anything takes.
const LONG: Duration = Duration::from_secs(30);

fn chatd() -> Chatd {
    Chatd::builder(testkit::bin("chatd")).start().unwrap()
}
