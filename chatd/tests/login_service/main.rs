//! Chat servers whose login service runs in processes of its own, with a real MariaDB and a real ZooKeeper.
//!
//! Broken here, under logins where that matters:
//! 1. every `logd` killed, stopped, cut off in silence; one of two killed; each restarted in turn;
//! 2. ZooKeeper absent at the start, killed, stopped, its sessions expired by force;
//! 3. nonsense in place of a `logd`.
//!
//! What has to hold: who is logged in goes on; who logs in meanwhile is told `unavailable`, long before the call's own time is over; an orderly restart fails no
//! login; whoever is back is used again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

mod faults;
mod house;
mod registry;
