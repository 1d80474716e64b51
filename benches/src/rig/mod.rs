//! What the benchmarks of the reactor are run with: the subjects, how they are built and started, and who loads and counts them.

mod callgrind;
mod calls;
mod failure;
mod server;
mod subject;
mod workshop;

pub use calls::Calls;
pub use failure::{Failure, describe};
pub use server::{Server, Wrapper};
pub use subject::{Job, Subject};
pub use workshop::Workshop;
