//! What the load generator `chatload` and the benchmarks are made of.
//!
//! `chatload` is one thread with one event loop of [`reactor`]. It knows the server by its protocol alone, so it can load any server that speaks it.
//! The
//! handler on that loop has a gate, which registers users and logs them in, and a shape, which has the connections then: pairs of users who write to
//! each other, groups, messages to users who are away, logins, idle users, or a bit of all. [`run()`] does all of it and ends with a [`Report`].

mod echoload;
mod gate;
mod idle;
mod limit;
mod load;
mod machine;
mod mark;
mod message;
mod mixed;
mod offline;
mod options;
mod outbox;
mod pace;
mod pairs;
#[cfg(feature = "plots")]
pub mod plots;
mod process;
mod progress;
mod report;
pub mod rig;
mod rooms;
pub mod rows;
mod run;
mod scan;
mod state;
mod storm;
mod stream;
mod table;

pub use echoload::{
    CyclesReport, EchoError, EchoOptions, EchoReport, EchoShape, HoldReport, HubReport, LoadReport, Spread,
    echo,
};
pub use load::LoadError;
pub use machine::{load_average, machine};
pub use options::{Options, ShapeName};
pub use process::own_cpu;
pub use report::{
    GroupReport, HelperUse, IdleReport, Memory, MixedReport, OfflineReport, PaceReport, PairsReport,
    PartReport, Quantiles, Report, ServerUse, StormReport, ThreadUse, Verdict,
};
pub use run::run;
pub use table::{Table, number};
