//! x
mod limits;
mod secret;
mod service;
fn main() {}
