//! Why a run of `echoload` failed.

use std::io;

/// Why a run failed: the caller's fault, the machine's, or the server's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EchoError {
    /// The options do not go together, or this process may not have so many descriptors.
    #[error("{0}")]
    Options(String),
    /// The watched process is not there, or may not be looked at.
    #[error("there is no process {0} to watch")]
    NoProcess(u32),
    /// The system refused something that the client needs for itself.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The server could not be reached.
    #[error("could not connect (connection {connection}): {error}")]
    Connect {
        /// Which of the client's connections it was, from 0.
        connection: usize,
        /// What the system said.
        error: io::Error,
    },
    /// A connection broke.
    #[error("connection {connection} broke: {error}")]
    Broken {
        /// Which of the client's connections it was, from 0.
        connection: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The server closed a connection that was to stay.
    #[error("connection {0} was closed by the server")]
    Closed(usize),
    /// A byte came back that was not sent at that place.
    #[error("connection {connection}: byte {position} came back changed")]
    Changed {
        /// Which of the client's connections it was, from 0.
        connection: usize,
        /// The byte's place in the stream.
        position: u64,
    },
    /// More came back than was sent.
    #[error("connection {connection}: {excess} bytes came back that were never sent")]
    TooMuch {
        /// Which of the client's connections it was, from 0.
        connection: usize,
        /// How many.
        excess: u64,
    },
    /// What was sent did not all come back in time.
    #[error("{bytes} bytes on {connections} connections never came back")]
    Missing {
        /// Bytes, all connections together.
        bytes: u64,
        /// Connections that lack some.
        connections: usize,
    },
    /// The server did not do within its time what the run waits for.
    #[error("waited in vain for {0}")]
    Late(&'static str),
}

impl EchoError {
    /// Whether the run could not have worked with any server.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Options(_) | Self::NoProcess(_))
    }
}

/// Names what was tried, for an error of the system.
pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> EchoError {
    move |error| EchoError::System { what, error }
}
