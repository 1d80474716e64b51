//! What the pool has to know of connections to MySQL.

use std::time::Duration;

use crate::connection::Connection;
use crate::error::StoreError;
use crate::mysql_config::MySqlConfig;
use crate::pool::{Manager, Trust};

/// Makes [`Connection`]s to a MySQL or MariaDB server, for a [`ConnectionPool`](crate::pool::ConnectionPool).
#[derive(Clone, Debug)]
pub struct MySqlManager {
    config: MySqlConfig,
}

impl MySqlManager {
    /// For this server.
    #[must_use]
    pub const fn new(config: MySqlConfig) -> Self {
        Self { config }
    }
}

impl Manager for MySqlManager {
    type Connection = Connection;

    fn connect(&self, timeout: Duration) -> Result<Connection, StoreError> {
        Connection::connect(&self.config, timeout)
    }

    fn peek(&self, connection: &Connection) -> Trust {
        if connection.is_broken() { Trust::Broken } else { Trust::Good }
    }

    fn ping(&self, connection: &mut Connection, timeout: Duration) -> Result<(), StoreError> {
        connection.ping(timeout)
    }

    fn is_reusable(&self, connection: &Connection) -> bool {
        !connection.is_suspect() && connection.depth() == 0
    }
}
