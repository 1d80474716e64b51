//! What a pool has to know of the connections that it keeps.

use std::time::Duration;

use crate::error::StoreError;

/// What can be said of a connection without a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is as it was left.
    Good,
    /// The other end has closed it, or sent what nobody asked for.
    Broken,
}

/// Makes connections and looks after them. All methods but the two `const`-like ones may block, and none is called under the pool's lock.
pub trait Manager: Send + Sync + 'static {
    /// A connection.
    type Connection: Send + 'static;

    /// Connects, within `timeout`.
    ///
    /// # Errors
    /// Why it could not be made.
    fn connect(&self, timeout: Duration) -> Result<Self::Connection, StoreError>;

    /// Looks at the connection's socket, without a round trip and without waiting.
    fn peek(&self, connection: &Self::Connection) -> Trust;

    /// Asks the server whether it answers, within `timeout`.
    ///
    /// # Errors
    /// When it does not: the connection is closed then.
    fn ping(&self, connection: &mut Self::Connection, timeout: Duration) -> Result<(), StoreError>;

    /// Whether who had it left it so that the next can have it: no open transaction, no error that a connection does not survive.
    fn is_reusable(&self, connection: &Self::Connection) -> bool;

    /// Undoes what the last holder changed in the session, if it changed anything. Most do not, and then this does nothing.
    ///
    /// # Errors
    /// When that failed: the connection is closed then.
    fn clean(&self, connection: &mut Self::Connection) -> Result<(), StoreError> {
        let _ = connection;
        Ok(())
    }
}
