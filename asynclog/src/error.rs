//! The crate's one error: what went wrong, and who has to do something about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the log could not be set up or asked for something. Logging itself never fails: it counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be opened for appending. At fault: the path or its permissions.
    #[error("cannot open the log file {}: {source}", path.display())]
    Open {
        /// The file as it was tried, absolute.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A filter cannot be read. At fault: whoever wrote it.
    #[error("bad log filter `{directive}`: {reason}")]
    Filter {
        /// The part of the filter that is wrong.
        directive: String,
        /// Why.
        reason: &'static str,
    },
    /// The filter's file is there and cannot be read or watched. At fault: its permissions, or whoever wrote it.
    #[error("cannot read the log filter from {}: {source}", path.display())]
    FilterFile {
        /// The file, absolute.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting makes no sense. At fault: the caller of [`Builder`](crate::Builder).
    #[error("bad log setting: {what}")]
    Config {
        /// Which one, and why.
        what: &'static str,
    },
    /// The process has a logger already. At fault: the program, which installed two.
    #[error("this process already has a logger")]
    AlreadyInstalled,
    /// A thread could not be started. At fault: the system's limits.
    #[error("cannot start a thread of the log: {0}")]
    Thread(#[source] io::Error),
    /// The writer cannot write at the moment; it keeps trying. At fault: the disk or the folder.
    #[error("the log cannot be written: {0}")]
    Write(#[source] io::Error),
    /// It was not done in time; it may still be done later. At fault: a slow disk, or too short a time.
    #[error("the log was not written within {0:?}")]
    Timeout(Duration),
    /// The log has ended. At fault: the caller, who comes too late.
    #[error("the log has ended")]
    Closed,
    /// A thread marked by [`mark_loop_thread`](crate::mark_loop_thread) asked to wait. At fault: the caller.
    #[error("a loop thread must not wait for the log")]
    LoopThread,
}
