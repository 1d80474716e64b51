//! What `/proc` says of the server, exactly enough for an idle connection's few bytes and a message's few microseconds.

use std::fs;
use std::time::Duration;

use super::error::EchoError;
use crate::process;

/// A process that is looked at, or nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pid: Option<u32>,
}

impl Server {
    pub(crate) fn new(pid: Option<u32>) -> Result<Self, EchoError> {
        match pid {
            Some(pid) if process::threads_cpu(pid).is_none() => Err(EchoError::NoProcess(pid)),
            _ => Ok(Self { pid }),
        }
    }

    /// CPU time of the threads that live, in nanoseconds where the kernel tells them.
    pub(crate) fn cpu(self) -> Option<Duration> {
        process::threads_cpu(self.pid?)
    }

    /// Resident bytes. Those of `status` are a sum that each processor adds to only now and then; `smaps_rollup` counts pages.
    pub(crate) fn resident(self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid?)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// Open sockets: how many connections it has taken shows here.
    pub(crate) fn sockets(self) -> Option<usize> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid?)).ok()?.flatten();
        let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        Some(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
    }

    /// How often its threads went to sleep by themselves. What does not grow was not woken.
    pub(crate) fn sleeps(self) -> Option<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid?)).ok()?;
        let sleeps = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("status")).ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        });
        Some(sleeps.sum())
    }
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    process::threads_cpu(std::process::id()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn this_process_can_be_looked_at() {
        let server = Server::new(Some(std::process::id())).unwrap();
        assert!(server.resident().unwrap() > 100_000);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(server.sockets().unwrap() >= 1);
        drop(listener);
        assert!(server.sleeps().is_some() && server.cpu().is_some());
        assert!(Server::new(None).unwrap().resident().is_none());
    }

    #[test]
    fn a_process_that_is_not_there_is_wrong_usage() {
        assert!(Server::new(Some(4_194_304)).unwrap_err().is_usage());
    }
}
