//! What can be broken in a [`Cluster`](crate::Cluster) while a [`Crowd`](crate::crowd::Crowd) uses it, and the runs that do it.
//!
//! Each [`Break`] breaks one thing and makes it whole again. What must hold meanwhile and afterwards is the same for all: see [`history`](crate::history).
//! Besides, everybody must get back, and everything that was written must be acknowledged in the end.

mod breaker;
mod flat;
mod run;

pub use breaker::Breaker;
pub use flat::Flatness;
pub use run::{RunOptions, Runner};

use crate::history::Fault;

/// One thing to break.
#[derive(Debug, Clone, Copy)]
pub struct Break {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    /// It needs a cluster of its own, in which the second node's clock is an hour ahead.
    pub skewed: bool,
    /// It ends every node at some time.
    pub ends_all_nodes: bool,
    run: fn(&mut Breaker<'_>) -> Vec<Fault>,
}

const fn one(name: &'static str, what: &'static str, run: fn(&mut Breaker<'_>) -> Vec<Fault>) -> Break {
    Break { name, what, skewed: false, ends_all_nodes: false, run }
}

/// All there are.
pub const ALL: &[Break] = &[
    one("nothing", "nothing is broken", |b| b.nothing()),
    one("node-killed", "kill -9 of one chatd, which comes back after 4 s", |b| b.node_killed()),
    Break {
        ends_all_nodes: true,
        ..one("nodes-killed", "kill -9 of each chatd, one after another", |b| b.nodes_killed())
    },
    one("node-stopped", "one chatd is stopped for 20 s and goes on", |b| b.node_stopped()),
    one("redis-killed", "kill -9 of Redis, which is away for 5 s", |b| b.redis_killed()),
    one("redis-restarted", "Redis is restarted, and empty", |b| b.redis_restarted()),
    one("redis-stopped", "Redis is stopped for 20 s and goes on", |b| b.redis_stopped()),
    one("redis-clients", "Redis cuts all its clients, three times", |b| b.redis_clients_killed()),
    one("redis-emptied", "FLUSHALL", |b| b.redis_emptied()),
    one("maria-restarted", "MariaDB is restarted in good order", |b| b.maria_restarted()),
    one("maria-killed", "kill -9 of MariaDB, which comes back after 2 s", |b| b.maria_killed()),
    one("logins-killed", "kill -9 of every logd; they come back after 6 s", |b| b.logins_killed()),
    one("zookeeper-gone", "kill -9 of ZooKeeper, which is away for 8 s", |b| b.zookeeper_gone()),
    one("nginx-reloaded", "nginx takes its configuration anew, three times", |b| b.nginx_reloaded()),
    one("nginx-killed", "kill -9 of nginx, which comes back after 2 s", |b| b.nginx_killed()),
    one("no-redis", "one node is cut off from Redis for 15 s", |b| b.node_without_redis()),
    one("no-maria", "one node is cut off from MariaDB for 15 s", |b| b.node_without_maria()),
    one("slow", "one node's links to Redis and MariaDB take 200 ms more each way, for 12 s", |b| b.slow()),
    Break {
        ends_all_nodes: true,
        ..one("rolling", "everything is restarted in good order, one after another", |b| b.rolling())
    },
    Break {
        skewed: true,
        ..one("clock", "one node's clock is an hour ahead, and another node is killed", |b| b.clock())
    },
];

impl Break {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Break> {
        ALL.iter().find(|one| one.name == name).copied()
    }

    /// Does it, and comes back when all is whole again.
    ///
    /// # Panics
    /// When something that was ended cannot be started again.
    pub fn run(&self, breaker: &mut Breaker<'_>) -> Vec<Fault> {
        (self.run)(breaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for one in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == one.name).count(), 1, "{}", one.name);
            assert_eq!(Break::named(one.name).map(|found| found.what), Some(one.what));
        }
        assert!(Break::named("no such thing").is_none());
    }
}
