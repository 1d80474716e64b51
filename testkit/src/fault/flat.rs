//! Whether memory and descriptors stay where they are over many runs.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Cluster, process};

/// Descriptors that a process may have more than when it was first looked at: connections to servers come and go.
const DESCRIPTORS_MORE: usize = 40;
/// By how much its memory may have grown since: buffers reach their size in the first runs.
const MEMORY_MORE_BYTES: u64 = 48 * 1024 * 1024;
/// A process is looked at from its second look on: the first is too early.
const WARM: usize = 2;

/// What was seen of each process of a cluster between runs, when nobody is connected.
#[derive(Debug, Default)]
pub struct Flatness {
    seen: BTreeMap<(String, u32), Vec<Look>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    memory: u64,
    descriptors: usize,
}

impl Flatness {
    /// Looks at every chat server and login daemon.
    pub fn look(&mut self, cluster: &Cluster) {
        let nodes = cluster.nodes.iter().enumerate().map(|(n, node)| (format!("node-{}", n + 1), node.pid()));
        let logins =
            cluster.logins.iter().enumerate().map(|(n, login)| (format!("logd-{}", n + 1), login.pid()));
        for (name, pid) in nodes.chain(logins).filter(|(_, pid)| process::is_alive(*pid)) {
            let look = Look { memory: process::rss_bytes(pid), descriptors: process::fd_count(pid) };
            self.seen.entry((name, pid)).or_default().push(look);
        }
    }

    /// What has grown.
    pub fn grown(&self) -> Vec<String> {
        let mut grown = Vec::new();
        for ((name, pid), looks) in &self.seen {
            let (Some(first), Some(last)) = (looks.get(WARM), looks.last()) else { continue };
            if last.descriptors > first.descriptors + DESCRIPTORS_MORE {
                grown.push(format!(
                    "{name} ({pid}): descriptors {} -> {}",
                    first.descriptors, last.descriptors
                ));
            }
            if last.memory > first.memory + MEMORY_MORE_BYTES {
                let mib = |bytes: u64| bytes / 1024 / 1024;
                grown.push(format!(
                    "{name} ({pid}): memory {} -> {} MiB",
                    mib(first.memory),
                    mib(last.memory)
                ));
            }
        }
        grown
    }
}

impl fmt::Display for Flatness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, pid), looks) in &self.seen {
            write!(f, "{name} ({pid}), MiB and descriptors:")?;
            for look in looks {
                write!(f, " {}/{}", look.memory / 1024 / 1024, look.descriptors)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn seen(looks: &[(u64, usize)]) -> Flatness {
        let looks =
            looks.iter().map(|(mib, descriptors)| Look { memory: mib * MIB, descriptors: *descriptors });
        Flatness { seen: BTreeMap::from([(("node-1".to_owned(), 7), looks.collect())]) }
    }

    #[test]
    fn what_grows_after_it_is_warm_is_named_and_what_stays_is_not() {
        assert!(seen(&[(20, 30), (50, 60)]).grown().is_empty(), "too early to say");
        assert!(seen(&[(20, 30), (50, 60), (60, 70), (62, 75), (61, 68)]).grown().is_empty());
        let leaky = seen(&[(20, 30), (50, 60), (60, 70), (90, 150), (120, 200)]).grown();
        assert_eq!(leaky, ["node-1 (7): descriptors 70 -> 200", "node-1 (7): memory 60 -> 120 MiB"]);
    }
}
