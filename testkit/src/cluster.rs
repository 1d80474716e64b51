//! A whole cluster on one machine: MariaDB, Redis, ZooKeeper, login daemons, chat servers, nginx, each private and on a free port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    Balancer, Chatd, ChatdBuilder, FaultProxy, LineClient, Logd, LogdBuilder, MariaDb, Nginx, Redis,
    TestkitError, ZooKeeper, free_port, try_wait_until, wait_until,
};

/// How long the nodes may take to know each other on a busy machine.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// How long a program may take to end in good order before it is killed.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// The node that has proxies before its MariaDB and its Redis.
pub(crate) const LINKED: usize = 0;

/// What a cluster is made of. Made by [`Cluster::builder`].
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    chatd: PathBuf,
    logd: PathBuf,
    nodes: usize,
    logins: usize,
    zookeeper: bool,
    proxied: bool,
    real_passwords: bool,
    skewed: Option<usize>,
}

/// A running cluster. Dropping it ends everything.
#[derive(Debug)]
pub struct Cluster {
    /// In front of the chat servers; clients connect here.
    pub nginx: Nginx,
    /// How it balances.
    pub balancer: Balancer,
    /// The chat servers. Each takes connections through nginx only.
    pub nodes: Vec<Chatd>,
    /// The login daemons; none when the service is inside the chat servers.
    pub logins: Vec<Logd>,
    /// Between the first node and its Redis, and between it and its MariaDB, when asked for.
    pub links: Option<Links>,
    /// Where chat servers find login daemons, if there are any.
    pub zookeeper: Option<ZooKeeper>,
    /// What the nodes meet in.
    pub redis: Redis,
    /// The tables.
    pub maria: MariaDb,
}

/// The proxies before the first node's servers.
#[derive(Debug)]
pub struct Links {
    /// To Redis.
    pub redis: FaultProxy,
    /// To MariaDB.
    pub maria: FaultProxy,
}

impl Cluster {
    /// Three nodes and two login daemons, of these programs.
    pub fn builder(chatd: impl Into<PathBuf>, logd: impl Into<PathBuf>) -> ClusterBuilder {
        ClusterBuilder {
            chatd: chatd.into(),
            logd: logd.into(),
            nodes: 3,
            logins: 2,
            zookeeper: true,
            proxied: false,
            real_passwords: false,
            skewed: None,
        }
    }

    /// Whether all its programs are there; prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        MariaDb::available() && Redis::available() && Nginx::available() && ZooKeeper::available()
    }

    /// Whether a node's clock can be set apart from the others'.
    pub fn can_skew() -> bool {
        Path::new(FAKETIME).exists()
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.nginx.addr()
    }

    /// Ends everything in good order, those in front first.
    pub fn shut_down(&self) {
        self.nodes.iter().for_each(Chatd::terminate);
        for node in &self.nodes {
            try_wait_until(DRAIN_MAX, || !node.is_running());
        }
        self.logins.iter().for_each(Logd::terminate);
        for login in &self.logins {
            try_wait_until(DRAIN_MAX, || !login.is_running());
        }
        self.nginx.shut_down();
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper.shut_down();
        }
        self.redis.shut_down();
        self.maria.shut_down();
    }

    /// Waits until every node that runs hears all others through Redis.
    ///
    /// # Panics
    /// When they do not within a minute.
    #[track_caller]
    pub fn wait_joined(&self) {
        let running: Vec<&Chatd> = self.nodes.iter().filter(|node| node.is_running()).collect();
        wait_joined(&running);
    }
}

/// Waits until each of these nodes knows all others, and hears them through Redis.
///
/// # Panics
/// When they do not within a minute.
#[track_caller]
pub fn wait_joined(nodes: &[&Chatd]) {
    let others = u64::try_from(nodes.len()).ok().and_then(|nodes| nodes.checked_sub(1));
    for node in nodes {
        wait_until("the nodes know each other", JOIN_MAX, || {
            node.metric("chatd_cluster_nodes") == others
                && node.metric("chatd_redis_up{way=\"receiving\"}") == Some(1)
        });
    }
}

impl Cluster {
    /// What it shows its clients must be an hour ahead, or the run would be about nothing.
    fn assert_ahead(&self, node: usize) {
        let name = format!("node-{}", node + 1);
        wait_until("the node with the other clock answers", JOIN_MAX, || {
            let hello = LineClient::connect(self.addr()).next_push("hello");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let ahead = hello["time_ms"].as_u64().unwrap_or(0) / 1000 > now + 3000;
            assert_eq!(ahead, hello["node"] == name.as_str(), "{hello}");
            ahead
        });
    }
}

impl ClusterBuilder {
    /// So many chat servers.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// So many login daemons, found through ZooKeeper; with none, the service is inside the chat servers, and there is no ZooKeeper.
    pub fn logins(mut self, logins: usize) -> Self {
        self.logins = logins;
        self.zookeeper = logins > 0;
        self
    }

    /// Puts proxies between the first node and its servers.
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Passwords are hashed as in earnest, not as cheaply as tests want it.
    pub fn real_passwords(mut self) -> Self {
        self.real_passwords = true;
        self
    }

    /// This node's clock is an hour ahead. See [`Cluster::can_skew`].
    pub fn skewed(mut self, node: usize) -> Self {
        self.skewed = Some(node);
        self
    }

    /// Starts everything in order, saying what is being started.
    ///
    /// # Errors
    /// When something cannot be started.
    pub fn start(self, mut says: impl FnMut(&str)) -> Result<Cluster, TestkitError> {
        says("MariaDB");
        let maria = MariaDb::start()?;
        says("Redis");
        let redis = Redis::start()?;
        let links = self.proxied.then(|| Links {
            redis: FaultProxy::start(redis.addr()),
            maria: FaultProxy::start(maria.addr()),
        });
        let zookeeper = if self.zookeeper {
            says("ZooKeeper");
            Some(ZooKeeper::start()?)
        } else {
            None
        };
        let mut logins = Vec::new();
        for number in 0..self.logins {
            says(&format!("logd {}", number + 1));
            logins.push(self.login(&maria, &redis, zookeeper.as_ref(), number).start()?);
        }
        let mut nodes = Vec::new();
        for number in 0..self.nodes {
            says(&format!("chatd {}", number + 1));
            let links = links.as_ref().filter(|_| number == LINKED);
            nodes.push(self.node(&maria, &redis, zookeeper.as_ref(), links, number).start()?);
        }
        says("nginx");
        let balancer = Balancer {
            plain: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))),
            upstreams: nodes.iter().map(Chatd::chat_addr).collect(),
            connections_per_address: 10_000,
            workers: 1,
            ..Balancer::default()
        };
        let nginx = Nginx::balance(&balancer, &[])?;
        let cluster = Cluster { nginx, balancer, nodes, logins, links, zookeeper, redis, maria };
        cluster.wait_joined();
        if let Some(node) = self.skewed {
            cluster.assert_ahead(node);
        }
        Ok(cluster)
    }

    fn login(
        &self,
        maria: &MariaDb,
        redis: &Redis,
        zookeeper: Option<&ZooKeeper>,
        number: usize,
    ) -> LogdBuilder {
        let mut builder =
            Logd::builder(&self.logd).args(["--mysql", &maria.url("chat"), "--redis", &redis.url()]);
        builder = builder.args(["--node", &format!("logd-{}", number + 1)]);
        if let Some(zookeeper) = zookeeper {
            builder = builder.args(["--zookeeper", &zookeeper.addr().to_string()]);
        }
        if self.real_passwords { builder.config("") } else { builder }
    }

    fn node(
        &self,
        maria: &MariaDb,
        redis: &Redis,
        zookeeper: Option<&ZooKeeper>,
        links: Option<&Links>,
        number: usize,
    ) -> ChatdBuilder {
        let (maria, redis) = match links {
            Some(links) => (links.maria.addr(), links.redis.addr()),
            None => (maria.addr(), redis.addr()),
        };
        let mut builder = Chatd::builder(&self.chatd)
            .args(["--mysql", &MariaDb::url_at(maria, "chat"), "--redis", &Redis::url_at(redis)])
            .args(["--node", &format!("node-{}", number + 1)]);
        if let Some(zookeeper) = zookeeper {
            builder = builder.args(["--zookeeper", &zookeeper.addr().to_string()]);
        }
        if self.skewed == Some(number) {
            for (key, value) in clock_ahead() {
                builder = builder.env(key, value);
            }
        }
        let login = if self.real_passwords { "" } else { "[login]\nhash_memory_kib = 64\nhash_passes = 1\n" };
        // nginx is the only one who connects, and it says for whom.
        builder.config(format!("proxies = [\"127.0.0.1/32\"]\n{login}"))
    }
}

/// The variables under which a program sees the wall clock an hour ahead, and the clock for durations as it is.
fn clock_ahead() -> [(&'static str, &'static str); 3] {
    [("LD_PRELOAD", FAKETIME), ("FAKETIME", "+1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
}

/// Where Debian has the library that shows programs another time.
const FAKETIME: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"
} else {
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
};
