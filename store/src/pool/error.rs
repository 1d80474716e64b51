//! Why no connection could be had.

use std::time::Duration;

use crate::error::StoreError;

/// Why an acquire gave no connection. Nothing was sent to the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The server's fault: none of its connections lives, and connecting fails. Said at once, without a wait.
    #[error("the database is down, tried again in {retry_in:?}: {cause}")]
    Down {
        /// Why the last connect failed.
        cause: StoreError,
        /// Until the next probe.
        retry_in: Duration,
    },
    /// The load's fault, or a server's that answers nothing: no connection became free in time.
    #[error("no connection became free within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// The load's fault: too many wait already. Said at once.
    #[error("{waiting} callers wait for a connection already")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// The pool is closed, or about to be.
    #[error("the pool is closed")]
    Closed,
}

impl From<AcquireError> for StoreError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Down { cause, .. } => cause,
            AcquireError::Timeout { .. } | AcquireError::Overloaded { .. } => Self::Overloaded,
            AcquireError::Closed => Self::Closed,
        }
    }
}
