//! `echoload`, the one load client for every echo server: what it does, and what it says in the end.
//!
//! It is a bare `mio` loop per thread, so that it costs the same whoever is measured, and little: one read and one write for each batch of messages that
//! came back. Every byte that it sends is known by its place in the stream of its connection, so a byte that is lost, doubled, changed or moved shows.

mod conn;
mod cycles;
mod error;
mod hold;
mod hub;
mod options;
mod pattern;
mod phase;
mod report;
mod run;
mod server;
mod worker;

pub use error::EchoError;
pub use options::{EchoOptions, EchoShape};
pub use report::{CyclesReport, EchoReport, HoldReport, HubReport, LoadReport, Spread};
pub use run::echo;
