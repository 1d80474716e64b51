//! What every server program of the house does alike: admin pages over HTTP, metrics, the ports file, the descriptor limit.
//!
//! Knows no chat and no login. Programs link it; no library does.

pub mod http;
pub mod page;
pub mod ports;
mod process;

pub use process::{raise_descriptor_limit, say};
