//! A private MariaDB on a free port, with a data folder of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{TestkitError, free_port, need_program, process};

/// How long making the tables of the server itself, and a start, may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(90);

/// A running MariaDB: user `root` without a password, on loopback and on a Unix socket. Dropping it kills and reaps it, and removes its folder.
#[derive(Debug)]
pub struct MariaDb {
    // Before `dir`, so that the process is gone when its folder is removed.
    daemon: Daemon,
    options: Vec<String>,
    port: u16,
    dir: TempDir,
}

impl MariaDb {
    /// Whether its programs are there (see [`need_program`]); prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        need_program("mariadbd") && need_program("mariadb-install-db")
    }

    /// Makes a server with small buffers, and waits until it answers.
    ///
    /// # Errors
    /// When a program cannot be run, fails, or is not ready within 90 s.
    pub fn start() -> Result<MariaDb, TestkitError> {
        Self::start_with(&[])
    }

    /// The same with more options of `mariadbd`, which overrule the usual ones: `--max-connections=5`.
    ///
    /// # Errors
    /// As [`MariaDb::start`].
    pub fn start_with(options: &[&str]) -> Result<MariaDb, TestkitError> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-mariadb-")
            .tempdir()
            .map_err(|e| TestkitError::io("make a temporary folder", e))?;
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let server = MariaDb { daemon: Daemon::new(dir.path()), options, port: free_port(), dir };
        server.install()?;
        server.launch()?;
        Ok(server)
    }

    /// Where it listens on loopback. The same over restarts.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("m.sock")
    }

    /// The URL of a database on it, by way of the address `addr`: its own, or that of a proxy before it.
    pub fn url_at(addr: SocketAddr, database: &str) -> String {
        format!("mysql://root@{addr}/{database}")
    }

    /// The URL of a database on it.
    pub fn url(&self, database: &str) -> String {
        Self::url_at(self.addr(), database)
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("a running server")
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&self) {
        self.daemon.end(Signal::KILL);
    }

    /// Lets it end in good order, and waits until it has.
    pub fn shut_down(&self) {
        self.daemon.end(Signal::TERM);
    }

    /// Starts it again, on the same data, port and socket.
    ///
    /// # Errors
    /// As [`MariaDb::start`].
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.shut_down();
        self.launch()
    }

    /// Stops the process in its tracks (SIGSTOP); [`MariaDb::resume`] lets it go on.
    pub fn pause(&self) {
        process::signal(self.pid(), Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        process::signal(self.pid(), Signal::CONT);
    }

    /// Where the files of a database are, or will be: a link to another disk can be made here before the database is.
    pub fn database_dir(&self, database: &str) -> PathBuf {
        self.data().join(database)
    }

    /// What it said so far.
    pub fn stderr(&self) -> String {
        self.daemon.said()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn install(&self) -> Result<(), TestkitError> {
        let program = PathBuf::from("mariadb-install-db");
        let mut command = Command::new(&program);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", self.data().display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .arg(format!("--user={}", user()))
            // Others that are being made at the same time use the same names of temporary tables.
            .arg(format!("--tmpdir={}", self.dir.path().display()));
        let output = command
            .stdin(Stdio::null())
            .output()
            .map_err(|source| TestkitError::Spawn { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let (status, code) = (output.status.to_string(), output.status.code());
        Err(TestkitError::ExitedEarly { program, status, code, stderr: format!("{out}{err}") })
    }

    fn launch(&self) -> Result<(), TestkitError> {
        let path = |option: &str, path: &Path| format!("--{option}={}", path.display());
        let mut command = Command::new("mariadbd");
        command
            .arg("--no-defaults")
            .arg(format!("--user={}", user()))
            .arg(path("datadir", &self.data()))
            .arg(path("socket", &self.socket()))
            .arg(path("pid-file", &self.dir.path().join("m.pid")))
            .arg(path("tmpdir", self.dir.path()))
            .arg(format!("--port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"])
            .args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=OFF"])
            .args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_ci"])
            .args(&self.options);
        self.daemon.launch(&mut command, START_MAX, || self.answers())
    }

    fn answers(&self) -> bool {
        Command::new("mariadb-admin")
            .args(["--no-defaults", "--user=root", "--connect-timeout=2"])
            .arg(format!("--socket={}", self.socket().display()))
            .arg("ping")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Who this process runs as: the server refuses to run as root unless it is told so.
fn user() -> String {
    let output = Command::new("id").arg("-un").output();
    output.map_or_else(
        |_| "root".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_answers_ends_and_comes_back_where_it_was() {
        if !MariaDb::available() {
            return;
        }
        let server = MariaDb::start().unwrap();
        let (pid, addr) = (server.pid(), server.addr());
        std::net::TcpStream::connect(addr).unwrap();
        server.kill9();
        assert!(!process::is_alive(pid));
        server.restart().unwrap();
        assert_eq!(server.addr(), addr);
        std::net::TcpStream::connect(addr).unwrap();
        let pid = server.pid();
        let dir = server.dir.path().to_owned();
        drop(server);
        assert!(!process::is_alive(pid) && !dir.exists());
    }
}
