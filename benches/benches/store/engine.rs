//! Where the tables of one run are: a database or a folder of its own, gone afterwards.

use std::error::Error;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use store::{CommitSink, DbConfig, MySqlSection, Store};
use tempfile::TempDir;
use testkit::MariaDb;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    MariaDb,
    Sqlite,
}

impl Engine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "MariaDB",
            Self::Sqlite => "SQLite",
        }
    }
}

pub(crate) struct Place {
    pub(crate) engine: Engine,
    config: DbConfig,
    _folder: Option<TempDir>,
}

/// As an operator would set it up.
const OPTIONS: [&str; 4] = [
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=512M",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-connections=200",
];

fn server() -> Result<&'static MariaDb, Box<dyn Error>> {
    static SERVER: OnceLock<MariaDb> = OnceLock::new();
    if let Some(server) = SERVER.get() {
        return Ok(server);
    }
    let started = MariaDb::start_with(&OPTIONS)?;
    Ok(SERVER.get_or_init(|| started))
}

impl Place {
    pub(crate) fn new(engine: Engine, batch_max: usize, workers: usize) -> Result<Self, Box<dyn Error>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let big = DbConfig { batch_max, write_queue_max: 65_536, ..DbConfig::default() };
        Ok(match engine {
            Engine::MariaDb => {
                let name = format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed));
                let mut section = MySqlSection { workers, ..MySqlSection::at(server()?.url(&name)) };
                section.answer_ms = 60_000;
                section.pool.connections_max = section.pool.connections_max.max(workers + 8);
                section.pool.connections_min = workers + 2;
                Self { engine, config: DbConfig { mysql: Some(section), ..big }, _folder: None }
            }
            Engine::Sqlite => {
                let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
                let config = DbConfig { data_dir: folder.path().to_owned(), ..big };
                Self { engine, config, _folder: Some(folder) }
            }
        })
    }

    pub(crate) fn open(&self, sink: Box<dyn CommitSink>) -> Result<Store, Box<dyn Error>> {
        Ok(Store::open(&self.config, sink)?)
    }
}
