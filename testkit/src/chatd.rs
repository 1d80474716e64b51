//! A private `chatd` on free ports, with a data folder of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::program::{self, ExitReport, Process, Running, scratch};
use crate::{LineClient, TestkitError};

/// Password hashing at real strength would be most of a test's time.
const DEFAULT_CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";

/// How a private `chatd` is started. Made by [`Chatd::builder`].
#[derive(Debug, Clone)]
pub struct ChatdBuilder {
    bin: PathBuf,
    wrap: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    data_dir: Option<PathBuf>,
    config: Option<String>,
    rate_limits: bool,
}

/// A running `chatd`. Dropping it kills and reaps it, and removes the data folder unless that was given.
///
/// All methods take `&self`, so one server can be shared by tests in a `static OnceLock<Chatd>`.
#[derive(Debug)]
pub struct Chatd {
    how: ChatdBuilder,
    // Before `scratch`, so that the process is gone when its folder is removed.
    process: Process,
    chat: SocketAddr,
    admin: SocketAddr,
    data_dir: PathBuf,
    scratch: TempDir,
}

impl Chatd {
    /// Prepares to run the `chatd` at `bin`: `env!("CARGO_BIN_EXE_chatd")` in its own tests, [`crate::bin`]`("chatd")` elsewhere.
    pub fn builder(bin: impl AsRef<Path>) -> ChatdBuilder {
        ChatdBuilder {
            bin: bin.as_ref().to_owned(),
            wrap: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            data_dir: None,
            config: None,
            rate_limits: false,
        }
    }

    /// Where clients connect. Stays the same over [`Chatd::restart`].
    pub fn chat_addr(&self) -> SocketAddr {
        self.chat
    }

    /// Where the admin pages are. Stays the same over [`Chatd::restart`].
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The server's own process id (from the ports file), also when it runs under a wrapper.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What the server (and its wrapper) wrote to standard error so far, over all restarts.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// What is in the server's log file so far, over all restarts.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// Where the server's log file is.
    pub fn log_path(&self) -> PathBuf {
        self.process.log_path().to_owned()
    }

    /// A new connection to the chat port.
    #[track_caller]
    pub fn client(&self) -> LineClient {
        LineClient::connect(self.chat)
    }

    /// A new connection, registered and logged in as `name` with the password [`Chatd::PASSWORD`]. A name that is taken is only logged in.
    #[track_caller]
    pub fn client_as(&self, name: &str) -> LineClient {
        let mut client = self.client();
        let reply =
            client.request(serde_json::json!({"type": "register", "name": name, "password": Self::PASSWORD}));
        assert!(
            reply["type"] == "ok" || reply["code"] == "conflict",
            "could not register {name:?}: {reply}\n{}",
            client.transcript()
        );
        client.login(name, Self::PASSWORD);
        client
    }

    /// The password of the users that [`Chatd::client_as`] makes.
    pub const PASSWORD: &str = "correct horse battery";

    /// `GET path` on the admin port: the status code and the body.
    ///
    /// # Errors
    /// When the port cannot be reached, does not answer within 10 s or not in HTTP.
    pub fn admin_get(&self, path: &str) -> Result<(u16, String), TestkitError> {
        program::http_get(self.admin, path)
    }

    /// The value of one line of `/metrics`, by its name and labels as they are written; `None` when there is no such line, or no answer.
    pub fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.admin_get("/metrics").ok()?;
        // A label may hold blanks.
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        // A gauge is written with its fraction.
        line.split(['.', ' ']).next()?.parse().ok()
    }

    /// Sends SIGTERM, which drains. See [`Chatd::wait_exit`].
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

    /// Stops the process in its tracks (SIGSTOP); [`Chatd::resume`] lets it go on.
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

    /// Waits until the process has ended. Under a wrapper, the status is the wrapper's.
    ///
    /// # Panics
    /// When it has not ended within `timeout`.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        self.process.wait_exit(timeout)
    }

    /// Starts the server again with the same flags on the same data folder and the same ports. One that still runs is first
    /// ended by SIGTERM.
    ///
    /// # Errors
    /// As [`ChatdBuilder::start`]; also when the old process does not end within 30 s.
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.process.replace(|| {
            let (running, _) = self.how.launch(self.scratch.path(), &self.data_dir, self.chat, self.admin)?;
            Ok(running)
        })
    }
}

impl ChatdBuilder {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Uses this data folder (it is not removed at the end) in place of a fresh one.
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Uses this configuration in place of the default, which only makes password hashing cheap
    /// (`[login]` with `hash_memory_kib = 64`, `hash_passes = 1`).
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// Adds to the default configuration, or to the one given so far.
    pub fn more_config(mut self, toml: &str) -> Self {
        let config = self.config.get_or_insert_with(|| DEFAULT_CONFIG.to_owned());
        config.push('\n');
        config.push_str(toml);
        self
    }

    /// Sets an environment variable. Variables that begin with `CHATD_` are not inherited from the test's environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs the server under another program, which gets the server's command line behind its own arguments:
    /// `.wrap(["strace", "-f", "-o", "trace.txt"])`.
    pub fn wrap<S: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrap = wrapper.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self
    }

    /// Leaves the rate limits on. Off is the default here, since tests are faster than people.
    pub fn rate_limits_on(mut self) -> Self {
        self.rate_limits = true;
        self
    }

    /// Starts the server on free loopback ports and waits until it has written its ports file.
    ///
    /// # Errors
    /// When it cannot be run, ends before it is ready (the error holds its standard error), or is not ready within 30 s.
    pub fn start(self) -> Result<Chatd, TestkitError> {
        let scratch = scratch()?;
        let data_dir = self.data_dir.clone().unwrap_or_else(|| scratch.path().join("data"));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (running, [chat, admin]) = self.launch(scratch.path(), &data_dir, any, any)?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Process::new(running, &self.bin, scratch.path(), scratch.path().join("chatd.log"));
        Ok(Chatd { how: self, process, chat: at(chat), admin: at(admin), data_dir, scratch })
    }

    /// Runs the program with `args` *behind those of this builder* and nothing else (no ports file, no `--listen`), for starts that
    /// are to be refused and for `--help`, `--version`, `--check`.
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

    /// The program, its wrapper and environment, without arguments.
    fn command(&self) -> Command {
        let mut words = self.wrap.iter().map(OsString::as_os_str).chain([self.bin.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        program::without_variables(&mut command, "CHATD_");
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    fn launch(
        &self,
        scratch: &Path,
        data_dir: &Path,
        chat: SocketAddr,
        admin: SocketAddr,
    ) -> Result<(Running, [u16; 2]), TestkitError> {
        let config = scratch.join("chatd.toml");
        fs::write(&config, self.config.as_deref().unwrap_or(DEFAULT_CONFIG))
            .map_err(|e| TestkitError::io("write the configuration", e))?;
        let ports_file = scratch.join("ports.json");
        // One left by a server that was killed would be taken for the new one's.
        let _ = fs::remove_file(&ports_file);

        let mut command = self.command();
        command.arg("--config").arg(&config);
        command.args(["--listen", &chat.to_string(), "--admin", &admin.to_string()]);
        command.arg("--data-dir").arg(data_dir);
        command.arg("--ports-file").arg(&ports_file);
        command.args(["--rate-limits", if self.rate_limits { "on" } else { "off" }]);
        command.arg("--log-file").arg(scratch.join("chatd.log"));
        command.args(&self.args);
        program::launch(command, &self.bin, scratch, &ports_file, ["chat", "admin"])
    }
}
