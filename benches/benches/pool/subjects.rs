//! The pools that are compared, each with the same number of connections to the same server, none of which is validated or reset by a round trip.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable as _;
use mysql::{Opts, OptsBuilder, PoolConstraints, PoolOpts};
use store::pool::{ConnectionPool, PoolConfig};
use store::{MySqlConfig, MySqlManager};

/// In the order of their numbers.
pub(crate) const NAMES: [&str; 3] = ["store", "r2d2", "mysql"];

pub(crate) struct Subjects {
    store: ConnectionPool<MySqlManager>,
    r2d2: r2d2::Pool<Connects>,
    mysql: mysql::Pool,
}

/// A connection of one of them.
pub(crate) enum Connection<'a> {
    Store(&'a mut store::Connection),
    Driver(&'a mut mysql::Conn),
}

impl Connection<'_> {
    /// One short statement.
    pub(crate) fn ask(&mut self) -> Result<(), String> {
        match self {
            Self::Store(db) => db.execute("DO 1", &[]).map(drop).map_err(|error| error.to_string()),
            Self::Driver(db) => db.exec_drop("DO 1", ()).map_err(|error| error.to_string()),
        }
    }
}

/// `r2d2`'s manager for the same driver.
struct Connects(Opts);

impl r2d2::ManageConnection for Connects {
    type Connection = mysql::Conn;
    type Error = mysql::Error;

    fn connect(&self) -> Result<mysql::Conn, mysql::Error> {
        mysql::Conn::new(self.0.clone())
    }

    fn is_valid(&self, connection: &mut mysql::Conn) -> Result<(), mysql::Error> {
        connection.ping()
    }

    fn has_broken(&self, _: &mut mysql::Conn) -> bool {
        false
    }
}

impl Subjects {
    /// Starts all of them, and waits until each has all its connections.
    pub(crate) fn start(url: &str, connections: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let config = PoolConfig {
            connections_min: connections,
            connections_max: connections,
            connects_max: 16,
            acquire_ms: 60_000,
            ..PoolConfig::default()
        };
        let store = ConnectionPool::start(MySqlManager::new(MySqlConfig::from_url(url)?), config)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.stats().idle < connections {
            if Instant::now() > deadline {
                return Err(format!("the pool does not fill: {:?}", store.stats()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let opts: Opts = OptsBuilder::from_opts(Opts::from_url(url)?).prefer_socket(false).into();
        let size = u32::try_from(connections)?;
        let r2d2 = r2d2::Pool::builder()
            .max_size(size)
            .test_on_check_out(false)
            .connection_timeout(Duration::from_secs(60))
            .build(Connects(opts.clone()))?;
        let constraints =
            PoolConstraints::new(connections, connections).ok_or("no pool of no connections")?;
        let pool = PoolOpts::new()
            .with_constraints(constraints)
            .with_reset_connection(false)
            .with_check_health(false);
        let mysql = mysql::Pool::new(OptsBuilder::from_opts(opts).pool_opts(pool))?;
        Ok(Self { store, r2d2, mysql })
    }

    /// Acquires of one of them, does something, and gives back.
    pub(crate) fn with<T>(&self, at: usize, work: impl FnOnce(Connection<'_>) -> T) -> Result<T, String> {
        match at {
            0 => {
                let mut db = self.store.acquire().map_err(|error| error.to_string())?;
                Ok(work(Connection::Store(&mut db)))
            }
            1 => {
                let mut db = self.r2d2.get().map_err(|error| error.to_string())?;
                Ok(work(Connection::Driver(&mut db)))
            }
            _ => {
                let mut db = self.mysql.get_conn().map_err(|error| error.to_string())?;
                Ok(work(Connection::Driver(db.as_mut())))
            }
        }
    }
}
