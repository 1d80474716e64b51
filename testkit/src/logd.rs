//! A private `logd`, the login daemon, on free ports.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::TestkitError;
use crate::program::{self, ExitReport, Process, Running, scratch};

/// Password hashing at real strength would be most of a test's time, and all tests come from one address.
const DEFAULT_CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\nfailed_login_backoff = false\n";

/// How a private `logd` is started. Made by [`Logd::builder`].
#[derive(Debug, Clone)]
pub struct LogdBuilder {
    bin: PathBuf,
    args: Vec<OsString>,
    config: String,
}

/// A running `logd`. Dropping it kills and reaps it, and removes its folder.
#[derive(Debug)]
pub struct Logd {
    how: LogdBuilder,
    // Before `scratch`, so that the process is gone when its folder is removed.
    process: Process,
    rpc: SocketAddr,
    admin: SocketAddr,
    scratch: TempDir,
}

impl Logd {
    /// Prepares to run the `logd` at `bin`: `env!("CARGO_BIN_EXE_logd")` in its own tests, [`crate::bin`]`("logd")` elsewhere.
    pub fn builder(bin: impl AsRef<Path>) -> LogdBuilder {
        LogdBuilder { bin: bin.as_ref().to_owned(), args: Vec::new(), config: DEFAULT_CONFIG.to_owned() }
    }

    /// Where chat servers call. Stays the same over [`Logd::restart`].
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc
    }

    /// Where the admin pages are. Stays the same over [`Logd::restart`].
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it wrote to standard error so far, over all restarts.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// What is in its log file so far, over all restarts.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// `GET path` on the admin port: the status code and the body.
    ///
    /// # Errors
    /// When the port cannot be reached, does not answer within 10 s or not in HTTP.
    pub fn admin_get(&self, path: &str) -> Result<(u16, String), TestkitError> {
        program::http_get(self.admin, path)
    }

    /// Sends SIGTERM, which drains. See [`Logd::wait_exit`].
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Sends SIGHUP, which reloads.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Stops the process in its tracks (SIGSTOP); [`Logd::resume`] lets it go on.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it has not ended within `timeout`.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        self.process.wait_exit(timeout)
    }

    /// Starts it again with the same flags on the same ports. One that still runs is first ended by SIGTERM.
    ///
    /// # Errors
    /// As [`LogdBuilder::start`]; also when the old process does not end within 30 s.
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.process.replace(|| {
            let (running, _) = self.how.launch(self.scratch.path(), self.rpc, self.admin)?;
            Ok(running)
        })
    }
}

impl LogdBuilder {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Uses this configuration in place of the default, which makes password hashing cheap and lets who fails try again at once.
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = toml.into();
        self
    }

    /// Adds to the configuration.
    pub fn more_config(mut self, toml: &str) -> Self {
        self.config.push('\n');
        self.config.push_str(toml);
        self
    }

    /// Starts it on free loopback ports and waits until it has written its ports file.
    ///
    /// # Errors
    /// When it cannot be run, ends before it is ready (the error holds its standard error), or is not ready within 30 s.
    pub fn start(self) -> Result<Logd, TestkitError> {
        let scratch = scratch()?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (running, [rpc, admin]) = self.launch(scratch.path(), any, any)?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Process::new(running, &self.bin, scratch.path(), scratch.path().join("logd.log"));
        Ok(Logd { how: self, process, rpc: at(rpc), admin: at(admin), scratch })
    }

    /// Runs it with `args` *behind those of this builder* and nothing else, for starts that are to be refused and for `--help`, `--check`.
    ///
    /// # Errors
    /// When it cannot be run or has not ended by itself within 30 s (it is killed then).
    pub fn run_expecting_exit<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<ExitReport, TestkitError> {
        let scratch = scratch()?;
        let mut command = self.command();
        command.args(&self.args).args(args).current_dir(scratch.path());
        program::run_to_end(command, &self.bin, scratch.path())
    }

    /// The program without arguments. Variables that begin with `LOGD_` are not inherited from the test's environment.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.bin);
        program::without_variables(&mut command, "LOGD_");
        command
    }

    fn launch(
        &self,
        scratch: &Path,
        rpc: SocketAddr,
        admin: SocketAddr,
    ) -> Result<(Running, [u16; 2]), TestkitError> {
        let config = scratch.join("logd.toml");
        fs::write(&config, &self.config).map_err(|e| TestkitError::io("write the configuration", e))?;
        let ports_file = scratch.join("ports.json");
        // One left by a server that was killed would be taken for the new one's.
        let _ = fs::remove_file(&ports_file);

        let mut command = self.command();
        command.arg("--config").arg(&config);
        command.args(["--listen", &rpc.to_string(), "--admin", &admin.to_string()]);
        command.arg("--data-dir").arg(scratch.join("data"));
        command.arg("--ports-file").arg(&ports_file);
        command.arg("--log-file").arg(scratch.join("logd.log"));
        command.args(&self.args);
        program::launch(command, &self.bin, scratch, &ports_file, ["rpc", "admin"])
    }
}
