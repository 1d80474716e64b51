//! Where the server under load keeps its tables, and the server itself.

use std::ffi::OsString;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use testkit::{Chatd, MariaDb};

use crate::bench::{Bench, Failure};

/// What keeps the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// SQLite inside chatd, with `synchronous=FULL`
    Embedded,
    /// MariaDB on the core of chatd, with `innodb_flush_log_at_trx_commit=1`
    Mariadb,
}

/// As an operator would set it up. The doublewrite buffer and the flushes at each commit are as they are by default: on.
const OPTIONS: [&str; 4] = [
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=512M",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-connections=200",
];

/// The core of the server and of its database; the load has the other.
pub(crate) const SERVER_CORE: &str = "0";

/// Password hashing is not what is measured, and 10,000 registrations at full strength would take minutes.
const CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";

/// A server that is being loaded, and where its data are.
pub(crate) struct Subject {
    pub(crate) chatd: Chatd,
    pub(crate) engine: Engine,
    _data: TempDir,
}

impl Engine {
    pub(crate) const ALL: [Self; 2] = [Self::Embedded, Self::Mariadb];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mariadb => "MariaDB",
        }
    }

    /// Of two values the one for this engine.
    pub(crate) const fn pick(self, embedded: f64, mariadb: f64) -> f64 {
        match self {
            Self::Embedded => embedded,
            Self::Mariadb => mariadb,
        }
    }
}

/// One database server for the whole run, which is stopped in its tracks while it is not the subject.
pub(crate) struct Database {
    server: MariaDb,
    databases: AtomicU32,
}

impl Database {
    pub(crate) fn start() -> Result<Self, Failure> {
        let server = MariaDb::start_with(&OPTIONS).map_err(|e| e.to_string())?;
        let this = Self { server, databases: AtomicU32::new(0) };
        this.pin()?;
        this.server.pause();
        Ok(this)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) fn pause(&self) {
        self.server.pause();
    }

    /// After it was killed from outside: starts it again on what it had.
    pub(crate) fn come_back(&self) -> Result<(), Failure> {
        self.server.kill9();
        self.server.restart().map_err(|e| e.to_string())?;
        self.pin()
    }

    /// All its threads, and with them those that they will start.
    fn pin(&self) -> Result<(), Failure> {
        let mut command = Command::new("taskset");
        command.args(["--all-tasks", "--cpu-list", "--pid", SERVER_CORE, &self.pid().to_string()]);
        let output = command.output().map_err(|e| format!("could not run taskset: {e}"))?;
        if output.status.success() { Ok(()) } else { Err("taskset could not pin the database".to_owned()) }
    }

    /// The URL of a database that no run before had. Chatd makes it. The one before is dropped, so that its pages leave the buffers.
    fn fresh(&self) -> String {
        self.server.resume();
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = number.checked_sub(1) {
            let mut command = Command::new("mariadb");
            command.args([
                "--no-defaults",
                "--user=root",
                "-e",
                &format!("DROP DATABASE IF EXISTS chat_{before}"),
            ]);
            command.arg(format!("--socket={}", self.server.socket().display()));
            // One that stays costs some memory, no more.
            let _ = command.output();
        }
        self.server.url(&format!("chat_{number}"))
    }
}

impl Bench {
    /// A fresh server on its core, under a wrapper.
    pub(crate) fn start(
        &self,
        engine: Engine,
        wrapper: &[OsString],
        flags: &[&str],
    ) -> Result<Subject, Failure> {
        let data = self.temporary()?;
        let pin = ["taskset", "-c", SERVER_CORE].map(OsString::from);
        let mut builder = Chatd::builder(testkit::bin("chatd"))
            .config(CONFIG)
            .data_dir(data.path().join("data"))
            .wrap(wrapper.iter().chain(&pin))
            .args(flags);
        match engine {
            Engine::Embedded => {
                if let Some(database) = self.database_if_started() {
                    database.pause();
                }
            }
            Engine::Mariadb => builder = builder.args(["--mysql", &self.database()?.fresh()]),
        }
        let chatd = builder.start().map_err(|e| e.to_string())?;
        Ok(Subject { chatd, engine, _data: data })
    }
}
