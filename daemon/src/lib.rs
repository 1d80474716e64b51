//! What every server program of the house does alike: admin pages over HTTP, metrics, the ports file, the descriptor limit.
//!
//! Knows no chat and no login. Programs link it; no library does.

pub mod http;
mod log_filter;
pub mod page;
pub mod ports;
mod process;

pub use log_filter::log_filter;
pub use process::{raise_descriptor_limit, say};
