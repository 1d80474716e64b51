//! A database, a Redis, and nodes that know each other.

use std::time::Duration;

use testkit::{Chatd, LineClient, MariaDb, Redis, try_wait_until};

use crate::Failure;

/// Password hashing is not what is measured.
const CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";
/// As an operator would set it up.
const OPTIONS: [&str; 3] =
    ["--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M", "--innodb-flush-log-at-trx-commit=1"];
const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Chatd>,
    // After the nodes, so that they end first.
    _redis: Redis,
    _maria: MariaDb,
}

impl Nodes {
    pub(crate) fn start(count: usize) -> Result<Self, Failure> {
        let maria = MariaDb::start_with(&OPTIONS).map_err(|e| e.to_string())?;
        let redis = Redis::start().map_err(|e| e.to_string())?;
        let mut nodes = Vec::new();
        for at in 0..count {
            let args =
                ["--mysql", &maria.url("chat"), "--redis", &redis.url(), "--node", &format!("node-{at}")];
            let builder = Chatd::builder(testkit::bin("chatd")).config(CONFIG).args(args);
            nodes.push(builder.start().map_err(|e| e.to_string())?);
        }
        let nodes = Self { nodes, _redis: redis, _maria: maria };
        for at in 0..count {
            let others = count.saturating_sub(1) as f64;
            if !try_wait_until(LONG, || nodes.metric(at, "chatd_cluster_nodes") == Some(others)) {
                return Err("the nodes do not find each other".to_owned());
            }
        }
        Ok(nodes)
    }

    pub(crate) fn node(&self, at: usize) -> Result<&Chatd, Failure> {
        self.nodes.get(at).ok_or_else(|| format!("no node {at}"))
    }

    pub(crate) fn metric(&self, at: usize, name: &str) -> Option<f64> {
        let (_, text) = self.nodes.get(at)?.admin_get("/metrics").ok()?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
        values.fold(None, |most: Option<f64>, value| Some(most.map_or(value, |most| most.max(value))))
    }

    /// A session on a node that has caught up.
    pub(crate) fn client(&self, at: usize, name: &str) -> Result<LineClient, Failure> {
        let mut client = self.node(at)?.client_as(name);
        client.set_patience(LONG);
        client.next_push("synced");
        Ok(client)
    }
}
