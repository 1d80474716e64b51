//! The hands that break things.

use std::time::Duration;

use crate::cluster::LINKED;
use crate::crowd::Clock;
use crate::history::Fault;
use crate::{Chatd, Cluster};

/// Before this everybody logs in and begins to write.
const BEGIN: Duration = Duration::from_secs(3);

/// Breaks things in one cluster, on the clock of one run.
#[derive(Debug)]
pub struct Breaker<'a> {
    cluster: &'a Cluster,
    clock: Clock,
    rng: fastrand::Rng,
    /// A node that is not ended or stopped.
    spared: Option<usize>,
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl<'a> Breaker<'a> {
    /// One whose choices follow from `seed`.
    pub fn new(cluster: &'a Cluster, clock: Clock, seed: u64) -> Breaker<'a> {
        Breaker { cluster, clock, rng: fastrand::Rng::with_seed(seed), spared: None }
    }

    /// Leaves this node alone, where one is chosen.
    #[must_use]
    pub fn sparing(mut self, node: usize) -> Self {
        self.spared = Some(node);
        self
    }

    pub(super) fn nothing(&mut self) -> Vec<Fault> {
        Vec::new()
    }

    pub(super) fn node_killed(&mut self) -> Vec<Fault> {
        let (node, name) = self.any_node();
        self.broken(&format!("kill -9 of {name}"), |this| {
            node.kill9();
            this.wait(secs(4));
            node.restart().expect("the node comes back");
        })
    }

    pub(super) fn nodes_killed(&mut self) -> Vec<Fault> {
        let cluster = self.cluster;
        self.broken("kill -9 of each node", |this| {
            for node in &cluster.nodes {
                node.kill9();
                this.wait(secs(2));
                node.restart().expect("the node comes back");
                this.wait(secs(2));
            }
        })
    }

    pub(super) fn node_stopped(&mut self) -> Vec<Fault> {
        let (node, name) = self.any_node();
        self.broken(&format!("{name} is stopped"), |this| {
            node.pause();
            this.wait(secs(20));
            node.resume();
        })
    }

    pub(super) fn redis_killed(&mut self) -> Vec<Fault> {
        let redis = &self.cluster.redis;
        self.broken("kill -9 of Redis", |this| {
            redis.kill9();
            this.wait(secs(5));
            redis.restart().expect("Redis comes back");
        })
    }

    pub(super) fn redis_restarted(&mut self) -> Vec<Fault> {
        let redis = &self.cluster.redis;
        self.broken("Redis is restarted", |_| redis.restart().expect("Redis comes back"))
    }

    pub(super) fn redis_stopped(&mut self) -> Vec<Fault> {
        let redis = &self.cluster.redis;
        self.broken("Redis is stopped", |this| {
            redis.pause();
            this.wait(secs(20));
            redis.resume();
        })
    }

    pub(super) fn redis_clients_killed(&mut self) -> Vec<Fault> {
        let redis = &self.cluster.redis;
        self.broken("Redis cuts its clients", |this| {
            for _ in 0..3 {
                redis.kill_clients().expect("Redis answers");
                this.wait(secs(2));
            }
        })
    }

    pub(super) fn redis_emptied(&mut self) -> Vec<Fault> {
        let redis = &self.cluster.redis;
        self.broken("FLUSHALL", |_| redis.flush_all().expect("Redis answers"))
    }

    pub(super) fn maria_restarted(&mut self) -> Vec<Fault> {
        let maria = &self.cluster.maria;
        self.broken("MariaDB is restarted", |_| maria.restart().expect("MariaDB comes back"))
    }

    pub(super) fn maria_killed(&mut self) -> Vec<Fault> {
        let maria = &self.cluster.maria;
        self.broken("kill -9 of MariaDB", |this| {
            maria.kill9();
            this.wait(secs(2));
            maria.restart().expect("MariaDB comes back");
        })
    }

    pub(super) fn logins_killed(&mut self) -> Vec<Fault> {
        let logins = &self.cluster.logins;
        self.broken("kill -9 of every logd", |this| {
            logins.iter().for_each(crate::Logd::kill9);
            this.wait(secs(6));
            logins.iter().for_each(|login| login.restart().expect("logd comes back"));
        })
    }

    pub(super) fn zookeeper_gone(&mut self) -> Vec<Fault> {
        let Some(zookeeper) = &self.cluster.zookeeper else { return Vec::new() };
        self.broken("kill -9 of ZooKeeper", |this| {
            zookeeper.kill9();
            this.wait(secs(8));
            zookeeper.restart().expect("ZooKeeper comes back");
        })
    }

    pub(super) fn nginx_reloaded(&mut self) -> Vec<Fault> {
        let cluster = self.cluster;
        self.broken("nginx is reloaded", |this| {
            for _ in 0..3 {
                cluster.nginx.rebalance(&cluster.balancer).expect("nginx takes it");
                this.wait(secs(2));
            }
        })
    }

    pub(super) fn nginx_killed(&mut self) -> Vec<Fault> {
        let nginx = &self.cluster.nginx;
        self.broken("kill -9 of nginx", |this| {
            nginx.kill9();
            this.wait(secs(2));
            nginx.restart().expect("nginx comes back");
        })
    }

    pub(super) fn node_without_redis(&mut self) -> Vec<Fault> {
        let Some(links) = &self.cluster.links else { return Vec::new() };
        self.broken(&format!("node-{} is cut off from Redis", LINKED + 1), |this| {
            links.redis.go_silent(true);
            this.wait(secs(15));
            links.redis.go_silent(false);
        })
    }

    pub(super) fn node_without_maria(&mut self) -> Vec<Fault> {
        let Some(links) = &self.cluster.links else { return Vec::new() };
        self.broken(&format!("node-{} is cut off from MariaDB", LINKED + 1), |this| {
            links.maria.go_silent(true);
            this.wait(secs(15));
            links.maria.go_silent(false);
        })
    }

    pub(super) fn slow(&mut self) -> Vec<Fault> {
        let Some(links) = &self.cluster.links else { return Vec::new() };
        self.broken(&format!("node-{}'s links take 200 ms", LINKED + 1), |this| {
            let both = |delay| {
                links.redis.delay(delay);
                links.maria.delay(delay);
            };
            both(Duration::from_millis(200));
            this.wait(secs(12));
            both(Duration::ZERO);
        })
    }

    pub(super) fn rolling(&mut self) -> Vec<Fault> {
        let cluster = self.cluster;
        self.broken("a rolling restart", |this| {
            for node in &cluster.nodes {
                node.restart().expect("the node comes back");
                this.wait(secs(1));
            }
            for login in &cluster.logins {
                login.restart().expect("logd comes back");
                this.wait(secs(1));
            }
            if let Some(zookeeper) = &cluster.zookeeper {
                zookeeper.restart().expect("ZooKeeper comes back");
            }
            cluster.redis.restart().expect("Redis comes back");
            this.wait(secs(2));
            cluster.maria.restart().expect("MariaDB comes back");
            cluster.nginx.rebalance(&cluster.balancer).expect("nginx takes it");
        })
    }

    pub(super) fn clock(&mut self) -> Vec<Fault> {
        let node = &self.cluster.nodes[0];
        self.broken("node-2's clock is an hour ahead, and kill -9 of node-1", |this| {
            node.kill9();
            this.wait(secs(3));
            node.restart().expect("the node comes back");
        })
    }

    /// Begins at a time that is left to chance.
    fn broken(&mut self, what: &str, does: impl FnOnce(&Self)) -> Vec<Fault> {
        self.clock.wait_until(BEGIN + Duration::from_millis(self.rng.u64(0..1500)));
        let from = self.clock.now();
        does(self);
        vec![Fault { what: what.to_owned(), from, until: self.clock.now() }]
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn any_node(&mut self) -> (&'a Chatd, String) {
        let mut number = self.rng.usize(0..self.cluster.nodes.len());
        if Some(number) == self.spared {
            number = (number + 1) % self.cluster.nodes.len();
        }
        (&self.cluster.nodes[number], format!("node-{}", number + 1))
    }
}
