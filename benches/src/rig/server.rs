//! A server that is being measured: a process of its own, which ends with its value.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::failure::{Failure, describe};

/// How long a server may take until it says where it listens: under valgrind that is seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What a server is started under, so that it does not outlive a benchmark that is killed.
const END_WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
/// How long it may take to end when it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How many lines of what it says are kept for the day it fails.
const LINES_KEPT: usize = 10;

/// Under what a server is started.
#[derive(Clone, Copy, Debug)]
pub enum Wrapper<'a> {
    /// By itself.
    None,
    /// strace, which writes every call into this file.
    Strace(&'a Path),
    /// callgrind, which writes its count into this file.
    Callgrind(&'a Path),
}

/// The process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Of the server itself, which may be the child of a wrapper.
    pid: u32,
    addr: String,
    name: String,
    said: Receiver<String>,
}

impl Wrapper<'_> {
    fn words(self) -> Vec<OsString> {
        let (words, file): (&[&str], _) = match self {
            Self::None => return Vec::new(),
            Self::Strace(file) => (&["strace", "-f", "-yy", "-s", "0", "-o"], file.into()),
            Self::Callgrind(file) => {
                let mut option = OsString::from("--callgrind-out-file=");
                option.push(file);
                (&["valgrind", "--tool=callgrind"], option)
            }
        };
        // A server whose strace is killed would live on.
        let inner = if matches!(self, Self::Strace(_)) { &END_WITH_PARENT[..] } else { &[] };
        let inner = inner.iter().map(OsString::from);
        words.iter().map(OsString::from).chain([file]).chain(inner).collect()
    }
}

impl Server {
    /// Starts a server on these cores, and waits until it says where it listens.
    ///
    /// # Errors
    /// When it cannot be started, or does not say it in time.
    pub fn start(wrapper: Wrapper<'_>, cores: &str, command: &[OsString]) -> Result<Self, Failure> {
        let name = command.first().map(|word| word.display().to_string()).unwrap_or_default();
        let mut whole = Command::new(END_WITH_PARENT[0]);
        whole.args(&END_WITH_PARENT[1..]).args(["taskset", "-c", cores]).args(wrapper.words()).args(command);
        whole.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = whole.spawn().map_err(describe(END_WITH_PARENT[0]))?;
        let said = listen_to(child.stderr.take());
        let pid = child.id();
        let mut server = Self { child, pid, addr: String::new(), name, said };
        server.addr = server.wait_for_address()?;
        if let Wrapper::Strace(_) = wrapper {
            server.pid = only_child(pid).ok_or("strace has no child")?;
        }
        Ok(server)
    }

    fn wait_for_address(&self) -> Result<String, Failure> {
        let mut said = Vec::new();
        while let Ok(line) = self.said.recv_timeout(START_TIMEOUT) {
            if let Some((_, addr)) = line.split_once("listening on ") {
                return Ok(addr.trim().to_owned());
            }
            said.push(line);
        }
        Err(format!("{} did not say where it listens; it said: {}", self.name, said.join("\n")))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its program.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it said since it began to listen: the last lines.
    #[must_use]
    pub fn said(&self) -> String {
        let lines: Vec<String> = self.said.try_iter().collect();
        lines.get(lines.len().saturating_sub(LINES_KEPT)..).unwrap_or_default().join("\n")
    }

    /// Asks it to end, and waits for that: a wrapper's file is whole then.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn end(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while self.child.try_wait().map_err(describe("wait"))?.is_none() {
            if Instant::now() > deadline {
                return Err(format!("{} does not end when asked to", self.name));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // Not the wrapper: a server whose strace is killed lives on.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After it was waited for, the number may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Reads what a child says to its end, so that it never waits for a reader.
fn listen_to(stderr: Option<ChildStderr>) -> Receiver<String> {
    let (tell, told) = channel();
    if let Some(stderr) = stderr {
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens any more: read on all the same.
                let _ = tell.send(line);
            }
        });
    }
    told
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Server, Failure> {
        Server::start(Wrapper::None, "0", &["sh", "-c", script].map(OsString::from))
    }

    #[test]
    fn a_server_ends_with_its_value() {
        let server = shell("echo starting >&2; echo listening on 127.0.0.1:7 >&2; exec sleep 60").unwrap();
        assert_eq!(server.addr(), "127.0.0.1:7");
        let folder = format!("/proc/{}", server.pid());
        assert!(Path::new(&folder).exists());
        drop(server);
        assert!(!Path::new(&folder).exists());
    }

    #[test]
    fn one_that_ends_when_asked_to_is_waited_for() {
        shell("echo listening on 127.0.0.1:7 >&2; exec sleep 60").unwrap().end().unwrap();
    }

    #[test]
    fn one_that_does_not_listen_is_quoted() {
        let error = shell("echo no such port >&2").unwrap_err();
        assert!(error.contains("no such port"), "{error}");
    }
}
