//! What running any of the house's servers takes: a process group of its own, a reaper, the ports file, an orderly and a disorderly end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Reaper, TestkitError, process, try_wait_until};

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a restart waits for the old process after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long a program that is expected to end by itself may take.
const REFUSAL_MAX: Duration = Duration::from_secs(30);

/// How a program ended that was expected to end by itself.
#[derive(Debug, Clone)]
pub struct ExitReport {
    /// Its exit code, `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

/// A server of the house as long as a test has it: one process after another.
#[derive(Debug)]
pub(crate) struct Process {
    running: Mutex<Running>,
    program: PathBuf,
    scratch: PathBuf,
    log: PathBuf,
}

impl Process {
    /// A server that was just started by [`launch`], and where its log is.
    pub(crate) fn new(running: Running, program: &Path, scratch: &Path, log: PathBuf) -> Self {
        let (program, scratch) = (program.to_owned(), scratch.to_owned());
        Self { running: Mutex::new(running), program, scratch, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running().pid
    }

    pub(crate) fn stderr(&self) -> String {
        read_lossy(&self.scratch.join("stderr.txt"))
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    pub(crate) fn log_text(&self) -> String {
        read_lossy(&self.log)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running().poll().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let mut running = self.running();
        // A process that was reaped may have given its id to another.
        if running.poll().is_none() {
            process::signal(running.pid, signal);
        }
    }

    #[track_caller]
    pub(crate) fn kill9(&self) {
        self.signal(Signal::KILL);
        self.wait_exit(Duration::from_secs(10));
    }

    #[track_caller]
    pub(crate) fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        match self.try_wait_exit(timeout) {
            Some(status) => status,
            None => panic!(
                "{} (pid {}) still runs after {timeout:?}\n--- stderr ---\n{}--- log (end) ---\n{}",
                self.program.display(),
                self.pid(),
                self.stderr(),
                tail(&self.log_text(), 20)
            ),
        }
    }

    fn try_wait_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        try_wait_until(timeout, || self.running().poll().is_some());
        self.running().poll()
    }

    /// Ends what still runs by SIGTERM and puts what is launched in its place.
    pub(crate) fn replace(
        &self,
        launch: impl FnOnce() -> Result<Running, TestkitError>,
    ) -> Result<(), TestkitError> {
        if self.is_running() {
            self.signal(Signal::TERM);
            if self.try_wait_exit(DRAIN_MAX).is_none() {
                let (program, stderr) = (self.program.clone(), self.stderr());
                return Err(TestkitError::NotReady { program, after: DRAIN_MAX, stderr });
            }
        }
        let running = launch()?;
        *self.running() = running;
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // A test that panicked in `wait_exit` has not left anything half done.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// The server's own process id, also when `child` is a wrapper around it.
    pid: u32,
    exited: Option<ExitStatus>,
    reaper: Option<Reaper>,
}

impl Running {
    fn poll(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("ask for a child's state");
            if self.exited.is_some() {
                self.reaper = None;
            }
        }
        self.exited
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.poll().is_none() {
            process::signal_group(self.child.id(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` and waits until it has written its ports file: these of its ports.
pub(crate) fn launch<const N: usize>(
    command: Command,
    program: &Path,
    scratch: &Path,
    ports_file: &Path,
    names: [&str; N],
) -> Result<(Running, [u16; N]), TestkitError> {
    let (child, reaper) = spawn(command, program, scratch)?;
    // From here on an early return kills and reaps it.
    let mut running = Running { pid: child.id(), child, exited: None, reaper: Some(reaper) };
    let mut ports = None;
    try_wait_until(START_MAX, || {
        ports = read_ports(ports_file, names);
        ports.is_some() || running.poll().is_some()
    });
    let stderr = || read_lossy(&scratch.join("stderr.txt"));
    match (ports, running.poll()) {
        (Some((pid, ports)), None) => {
            running.pid = pid;
            Ok((running, ports))
        }
        (_, Some(status)) => Err(TestkitError::ExitedEarly {
            program: program.to_owned(),
            status: status.to_string(),
            code: status.code(),
            stderr: stderr(),
        }),
        (None, None) => {
            Err(TestkitError::NotReady { program: program.to_owned(), after: START_MAX, stderr: stderr() })
        }
    }
}

/// Runs `command` to its own end.
pub(crate) fn run_to_end(
    command: Command,
    program: &Path,
    scratch: &Path,
) -> Result<ExitReport, TestkitError> {
    let (child, reaper) = spawn(command, program, scratch)?;
    let mut running = Running { pid: child.id(), child, exited: None, reaper: Some(reaper) };
    let ended = try_wait_until(REFUSAL_MAX, || running.poll().is_some());
    let stderr = read_lossy(&scratch.join("stderr.txt"));
    match running.poll() {
        Some(status) if ended => {
            let stdout = read_lossy(&scratch.join("stdout.txt"));
            Ok(ExitReport { code: status.code(), stdout, stderr })
        }
        _ => Err(TestkitError::NotReady { program: program.to_owned(), after: REFUSAL_MAX, stderr }),
    }
}

/// Does not let a command inherit the variables of the test's environment that begin with `prefix`.
pub(crate) fn without_variables(command: &mut Command, prefix: &str) {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with(prefix) {
            command.env_remove(key);
        }
    }
}

/// The pid and the ports of these names. `None` while the file is not there: it is put there by a rename, so what can be read is whole.
fn read_ports<const N: usize>(path: &Path, names: [&str; N]) -> Option<(u32, [u16; N])> {
    let text = fs::read_to_string(path).ok()?;
    let value: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("the ports file is not JSON ({e}): {text:?}"));
    let number = |key: &str| {
        value[key].as_u64().unwrap_or_else(|| panic!("the ports file has no number {key:?}: {text:?}"))
    };
    let ports = names.map(|name| u16::try_from(number(name)).expect("a port in the ports file"));
    Some((u32::try_from(number("pid")).expect("a process id in the ports file"), ports))
}

/// `GET path`: the status code and the body.
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> Result<(u16, String), TestkitError> {
    let io = |e| TestkitError::io(format!("GET {path} on the admin port"), e);
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&addr, limit).map_err(io)?;
    stream.set_read_timeout(Some(limit)).map_err(io)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", addr).map_err(io)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(io)?;
    let text = String::from_utf8_lossy(&bytes);
    let bad = || io(io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {text:?}")));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}

/// Runs `command` in a process group of its own, its output in files in `scratch`, watched by a reaper that ends the group and removes `scratch`.
fn spawn(mut command: Command, program: &Path, scratch: &Path) -> Result<(Child, Reaper), TestkitError> {
    let file = |name: &str| {
        File::options()
            .create(true)
            .append(true)
            .open(scratch.join(name))
            .map_err(|e| TestkitError::io(format!("open {name}"), e))
    };
    command.stdin(Stdio::null()).stdout(file("stdout.txt")?).stderr(file("stderr.txt")?);
    let child = command
        .process_group(0)
        .spawn()
        .map_err(|source| TestkitError::Spawn { program: program.to_owned(), source })?;
    let group = OsString::from(child.id().to_string());
    let reaper =
        Reaper::new("kill -s KILL -- \"-$1\"; rm -rf -- \"$2\"", &[group.as_os_str(), scratch.as_os_str()]);
    Ok((child, reaper))
}

pub(crate) fn scratch() -> Result<TempDir, TestkitError> {
    tempfile::Builder::new()
        .prefix("testkit-")
        .tempdir()
        .map_err(|e| TestkitError::io("make a temporary folder", e))
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
