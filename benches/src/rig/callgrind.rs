//! Instructions of a server in user mode, counted by callgrind: the same from run to run and machine to machine.

use std::fs;

use super::failure::{Failure, describe};
use super::server::{Server, Wrapper};
use super::subject::{Job, Subject};
use super::workshop::{Workshop, has};
use crate::process::count;

impl Workshop {
    /// Whether instructions can be counted here.
    #[must_use]
    pub fn has_callgrind(&self) -> bool {
        has("valgrind", "--version")
    }

    /// User instructions of a subject's echo server per message: what twice the messages cost more, so that starting, accepting and closing are not in it.
    ///
    /// # Errors
    /// When something cannot be run, or callgrind's file is not as expected.
    pub fn instructions(
        &self,
        subject: Subject,
        connections: u64,
        each: u64,
        args: &[&str],
    ) -> Result<f64, Failure> {
        let file = self.folder().join("callgrind.out");
        let run = |each: u64| {
            let command = self.command(subject, Job::Echo, 1);
            let server = Server::start(Wrapper::Callgrind(&file), "0", &command)?;
            let (connections, each) = (connections.to_string(), each.to_string());
            let load = [&["--connections", &connections, "--messages", &each][..], args].concat();
            self.load("1", &server, &load)?;
            server.end()?;
            let text = fs::read_to_string(&file).map_err(describe(file.display()))?;
            total(&text).ok_or_else(|| format!("no total in {}", file.display()))
        };
        let (once, twice) = (run(each)?, run(2 * each)?);
        let _ = fs::remove_file(&file);
        Ok((count(twice) - count(once)) / count(connections * each))
    }
}

/// The instructions of the whole run in a file of callgrind's.
fn total(text: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_by_either_of_its_names() {
        assert_eq!(total("events: Ir\nsummary: 12\n\ntotals: 12\n"), Some(12));
        assert_eq!(total("events: Ir\ntotals: 7\n"), Some(7));
        assert_eq!(total("events: Ir\n"), None);
    }
}
