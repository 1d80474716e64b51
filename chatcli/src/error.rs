//! Why the program ends without having done what it was asked.

use std::io;

use crate::net::NetError;

/// Why `chatcli` fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// The address cannot be used. At fault: whoever gave it.
    #[error("cannot use the address {address}: {why}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be set up. At fault: the file of authorities, this machine's, or the name of the server.
    #[error("cannot use TLS: {0}")]
    Tls(String),
    /// The log file cannot be written. At fault: its path or the disk.
    #[error("cannot log: {0}")]
    Log(#[from] asynclog::LogError),
    /// The network's thread cannot be started. At fault: this machine.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The terminal, standard input or standard output failed. At fault: this machine.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The network's thread has ended before the program. A defect.
    #[error("the network's thread has ended")]
    NetEnded,
    /// Commands of a script failed; each has been printed.
    #[error("{0} of the script's commands failed")]
    Failed(usize),
}

impl CliError {
    /// Wraps what the system said.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
