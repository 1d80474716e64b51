//! A release `chatd` that lives as long as a task needs it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::shell::{self, Failure};

/// How long a start, and how long a stop may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server on free loopback ports. Dropping it drains it and removes its temporary files.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    guard: Option<Child>,
    ports: Ports,
    dir: TempDir,
}

/// What the server's ports file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    chat: u16,
    admin: u16,
}

impl Server {
    /// Starts `target/release/chatd` and waits until it has written its ports file. Its temporary folder is made in `parent`, and
    /// holds the data too unless there is a `data_dir`.
    pub(crate) fn start(
        parent: &Path,
        data_dir: Option<&Path>,
        config: &str,
        args: &[&str],
    ) -> Result<Server, Failure> {
        let step = |what: &str, e: std::io::Error| Failure::Step(format!("{what}: {e}"));
        fs::create_dir_all(parent).map_err(|e| step("could not make a folder", e))?;
        let dir = tempfile::Builder::new()
            .prefix("chatd-")
            .tempdir_in(parent)
            .map_err(|e| step("could not make a temporary folder", e))?;
        let at = |name: &str| dir.path().join(name);
        fs::write(at("chatd.toml"), config).map_err(|e| step("could not write the configuration", e))?;
        let stderr = fs::File::create(at("stderr.txt")).map_err(|e| step("could not make a file", e))?;

        let mut command = Command::new(shell::release_dir().join("chatd"));
        command.arg("--config").arg(at("chatd.toml"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(data_dir.map_or_else(|| at("data"), Path::to_owned));
        command.arg("--ports-file").arg(at("ports.json")).arg("--log-file").arg(at("chatd.log")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        // In a group of its own: a Ctrl-C or a closed terminal is this process's business, and a SIGHUP would mean *reload* to it.
        let mut child = command.process_group(0).spawn().map_err(|e| shell::could_not_run(&command, &e))?;
        let guard = guard(child.id(), dir.path());
        let ports = wait_for_ports(&mut child, &at("ports.json"), &at("stderr.txt"));
        let mut server = Server { child, guard, ports: Ports { chat: 0, admin: 0 }, dir };
        // On an error the server is dropped here, and ended by that.
        server.ports = ports?;
        Ok(server)
    }

    /// Where clients connect, as `HOST:PORT`.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.ports.chat)
    }

    /// Where the admin pages are, as `HOST:PORT`.
    pub(crate) fn admin(&self) -> String {
        format!("127.0.0.1:{}", self.ports.admin)
    }

    /// A folder that is removed with the server.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("chatd.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Ok(None)) = (pid, self.child.try_wait()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if poll(PATIENCE, || ended(&mut self.child)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Last, so that it still watches while the server drains.
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

/// What is done when this process ends without having stopped the server: `$1` is the server, `$2` its temporary folder, in which
/// `play` has the socket of its tmux.
const GUARD: &str = r#"read -r _
[ ! -S "$2/tmux" ] || tmux -S "$2/tmux" kill-server 2>&-
kill -s TERM "$1"
n=0
while kill -0 "$1" 2>&- && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
rm -rf -- "$2"
"#;

/// A shell that cleans up when this process ends without having done so, for instance because its terminal was closed. It notices
/// by the end of its input.
fn guard(pid: u32, dir: &Path) -> Option<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "sh", &pid.to_string()]).arg(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().ok()
}

fn wait_for_ports(child: &mut Child, file: &Path, stderr: &Path) -> Result<Ports, Failure> {
    enum Seen {
        Ready(String),
        Ended(ExitStatus),
    }
    let seen = poll(PATIENCE, || match fs::read_to_string(file) {
        Ok(text) => Some(Seen::Ready(text)),
        Err(_) => ended(child).map(Seen::Ended),
    });
    let said = || fs::read_to_string(stderr).unwrap_or_default();
    match seen {
        Some(Seen::Ready(text)) => parse_ports(&text)
            .ok_or_else(|| Failure::Step(format!("chatd wrote a strange ports file: {text}"))),
        Some(Seen::Ended(status)) => {
            Err(Failure::Step(format!("chatd ended at once ({status}):\n{}", said())))
        }
        None => Err(Failure::Step(format!("chatd was not ready within {PATIENCE:?}:\n{}", said()))),
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let number = |key: &str| value.get(key)?.as_u64();
    let port = |key: &str| u16::try_from(number(key)?).ok();
    Some(Ports { chat: port("chat")?, admin: port("admin")? })
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

/// Looks until there is something to see, for `patience` at most.
fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let last = Instant::now() >= end;
        match look() {
            None if !last => thread::sleep(Duration::from_millis(10)),
            seen => return seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_file_is_read_and_a_strange_one_refused() {
        let text = r#"{"chat":6000,"admin":6001,"pid":77,"more":true}"#;
        assert_eq!(parse_ports(text), Some(Ports { chat: 6000, admin: 6001 }));
        for text in
            ["", "{}", r#"{"chat":60000000,"admin":1,"pid":1}"#, r#"{"chat":"6000","admin":1,"pid":1}"#]
        {
            assert_eq!(parse_ports(text), None, "{text}");
        }
    }

    #[test]
    fn a_look_that_never_sees_is_given_up() {
        assert_eq!(poll(Duration::ZERO, || None::<()>), None);
    }
}
