//! What is compared, each with a server and a load of its own kind: who speaks a protocol is loaded in that protocol.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use benches::rig::{Server, Wrapper};

pub(crate) type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    Rpc,
    #[cfg(feature = "rpc-peers")]
    Tonic,
    #[cfg(feature = "rpc-peers")]
    Tarpc,
}

impl Subject {
    /// All that were built in, ours first.
    pub(crate) const ALL: &[Self] = &[
        Self::Rpc,
        #[cfg(feature = "rpc-peers")]
        Self::Tonic,
        #[cfg(feature = "rpc-peers")]
        Self::Tarpc,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            #[cfg(feature = "rpc-peers")]
            Self::Tonic => "tonic",
            #[cfg(feature = "rpc-peers")]
            Self::Tarpc => "tarpc",
        }
    }

    /// Starts its server, in a process of its own, on these cores.
    pub(crate) fn start(self, cores: &str) -> Result<Server, Failure> {
        let this = std::env::current_exe()?.into_os_string();
        let words = ["serve", self.name()].map(OsString::from);
        let command: Vec<OsString> = [this].into_iter().chain(words).collect();
        Ok(Server::start(Wrapper::None, cores, &command)?)
    }
}

/// A load, as it is given to its process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) subject: Subject,
    pub(crate) connections: usize,
    /// Calls under way on each connection.
    pub(crate) depth: usize,
    /// Of the message.
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of the server's process, for each call.
    pub(crate) cpu_us: f64,
}

impl Job {
    /// Loads a server from a process of its own on these cores.
    pub(crate) fn run(&self, server: &Server, cores: &str) -> Result<Outcome, Failure> {
        let this = std::env::current_exe()?;
        let number = |number: usize| number.to_string();
        let output = Command::new("taskset")
            .args(["-c", cores])
            .arg(this)
            .args(["load", self.subject.name(), server.addr(), &server.pid().to_string()])
            .args([number(self.connections), number(self.depth), number(self.bytes)])
            .arg(self.seconds.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("the load of {} failed", self.subject.name()).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// The time on processors of all threads of a process, as exactly as the kernel tells it.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of = |task: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(of).sum())
}
