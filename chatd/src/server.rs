//! `ChatServer`: puts the parts together, runs them, and takes them apart in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::{http, page::Metrics};
use logd::{LoginPool, LoginService, RemoteLogin, TokenCache};
use reactor::{
    EventLoopThreadPool, JoinError, LoopConfig, RunningServer, ServiceConfig, ServiceHandle, ServiceSlot,
    TcpServer,
};
use rpc::registry::ZooKeeperRegistry;
use schema::limits::{BYE_TIMEOUT, PUSH_OUTPUT_BYTES_MAX};
use store::{Store, StoreError};

use crate::admin::AdminService;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::connz::Told;
use crate::control::{self, ControlService, Reply};
use crate::directory::Directory;
use crate::entry::NodeEntry;
use crate::logging;
use crate::login::LoginBackend;
use crate::metrics::Counters;
use crate::post::Post;
use crate::rates::Gatekeeper;
use crate::service::{ChatService, JOBS_MAX, Node, OTHER_POSTS_MAX};
use crate::sink::{GivenUp, LoopSink};

/// Descriptors that are no client connections: tables, logs, loops, probes.
const RESERVED_DESCRIPTORS: u64 = 128;

/// How long a start waits for a connection to a login service.
const LOGIN_READY_MAX: Duration = Duration::from_secs(1);

/// Answers of the loops that the admin listener has room for: all its connections may ask at once.
const ADMIN_POSTS_MAX: usize = 32 * 256;

/// Why the server could not start, or ended badly. The text is for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServerError {
    #[error("cannot listen on {address} (`{key}`): {error}")]
    Listen { key: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot log to {}: {error}", path.display())]
    Log { path: PathBuf, error: asynclog::LogError },
    #[error("cannot start the login service: {0}")]
    Login(String),
    #[error("cannot start the threads: {0}")]
    Threads(std::io::Error),
    #[error("cannot write the ports file {}: {error}", path.display())]
    Ports { path: PathBuf, error: std::io::Error },
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// A running chat server.
pub(crate) struct ChatServer {
    config: Config,
    pool: EventLoopThreadPool,
    chat: RunningServer<Post>,
    admin: RunningServer<Told>,
    /// The control socket, where there is one.
    control: Option<RunningServer<Reply>>,
    loops: Vec<ServiceHandle<Post>>,
    node: Arc<Node>,
    login: Arc<dyn LoginBackend>,
    /// The entry in ZooKeeper, where there is one.
    entry: Option<NodeEntry>,
    ready: Arc<AtomicBool>,
    log: Arc<asynclog::Guard>,
}

impl ChatServer {
    /// Binds the listeners, opens the tables, starts the threads, and then takes clients.
    ///
    /// # Errors
    /// What stood in the way, for the operator.
    pub(crate) fn start(config: Config) -> Result<Self, ServerError> {
        let descriptors = daemon::raise_descriptor_limit();
        let chat = bind("listen", config.listen, chat_limits(&config, descriptors))?;
        let admin = bind("admin", config.admin, http::limits())?;
        let pool = EventLoopThreadPool::start(config.threads, LoopConfig::default())
            .map_err(ServerError::Threads)?;
        let slots = pool.service_slots::<Post>(JOBS_MAX + OTHER_POSTS_MAX);
        let loops: Vec<_> = slots.iter().map(ServiceSlot::handle).collect();
        let given_up = GivenUp::none(loops.len());
        let cluster = config.redis.clone().map(|server| Cluster::new(&config.node, server));
        let store = Store::open(
            &config.store,
            Box::new(LoopSink::new(loops.clone(), given_up.clone(), cluster.clone())),
        )?;
        let log = Arc::new(logging::install(&config)?);
        mark_loops(&pool);
        let login = start_login(&store, &pool, &config)?;
        let node = Arc::new(Node {
            name: config.node.as_str().into(),
            store,
            login: Arc::clone(&login),
            directory: Directory::default(),
            cluster,
            loops: loops.clone(),
            given_up,
            login_timeout: config.limits.login_timeout(),
            idle_timeout: config.limits.idle_timeout(),
            registration: config.registration,
            rates: config.rates.clone(),
            gate: config.rates.clone().map(|rates| Gatekeeper::new(rates, Instant::now())),
        });
        if let Some(cluster) = &node.cluster {
            cluster.run(&node).map_err(ServerError::Threads)?;
        }
        let ready = Arc::new(AtomicBool::new(true));
        let chat = serve_chat(chat, slots, &node)?;
        let admin = serve_admin(admin, &pool, &ready, &node, &log)?;
        let control = serve_control(&config, &pool, &node);
        // Last: from here on clients are sent here.
        let entry = NodeEntry::new(&config, chat.local_addr()).map_err(ServerError::Threads)?;
        Ok(Self { config, pool, chat, admin, control, loops, node, login, entry, ready, log })
    }

    pub(crate) fn chat_addr(&self) -> SocketAddr {
        self.chat.local_addr()
    }

    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// SIGHUP: the log's file is opened anew and its filter read again.
    pub(crate) fn reload(&self) {
        logging::reload(&self.config, &self.log);
    }

    /// Drains and ends: no new clients, `bye` to those who are there once they are answered, everything accepted made durable. `hurry` is asked now and
    /// then whether the operator has lost patience.
    ///
    /// # Errors
    /// When a loop ended badly.
    pub(crate) fn stop(mut self, hurry: impl Fn() -> bool) -> Result<(), ServerError> {
        log::info!("shutting down");
        self.ready.store(false, Ordering::Relaxed);
        if let Some(entry) = &self.entry {
            entry.drain();
        }
        self.chat.stop_accepting();
        for handle in &self.loops {
            if handle.post(Post::Drain).is_err() {
                log::warn!("loop {} takes no word of the shutdown", handle.loop_index());
            }
        }
        let deadline = Instant::now() + self.config.limits.shutdown_timeout();
        while self.chat.connections() > 0 && Instant::now() < deadline && !hurry() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = self.chat.connections();
        if left > 0 {
            log::warn!("{left} connections are cut off");
        }
        if let Some(entry) = self.entry.take() {
            entry.leave();
        }
        // The loops first: what their last sessions still write goes to the store, which drains what it has accepted.
        self.pool.stop();
        let joined = self.pool.join();
        self.login.close();
        self.node.store.close();
        if let Some(cluster) = &self.node.cluster {
            cluster.stop();
        }
        if self.control.take().is_some() {
            // One that is left behind is taken over by the next start.
            let _ = std::fs::remove_file(self.config.store.data_dir.join(control::SOCKET));
        }
        log::info!("ended");
        drop(self.log);
        Ok(joined?)
    }
}

fn bind(key: &'static str, address: SocketAddr, limits: ServiceConfig) -> Result<TcpServer, ServerError> {
    TcpServer::bind(address, limits).map_err(|error| ServerError::Listen { key, address, error })
}

/// The limits of a chat connection.
fn chat_limits(config: &Config, descriptors: u64) -> ServiceConfig {
    let mut limits = ServiceConfig::default();
    limits.output_high = PUSH_OUTPUT_BYTES_MAX;
    limits.output_low = PUSH_OUTPUT_BYTES_MAX / 4;
    limits.output_pauses_reading = 4 * PUSH_OUTPUT_BYTES_MAX;
    // What the replies to the greatest number of unanswered requests can come to, and some.
    limits.output_max = 4 * 1024 * 1024;
    limits.linger = BYE_TIMEOUT;
    // Only whole lines are signs of life, so the idle timeout bounds the time that a line may take, and it says `bye`.
    limits.frame_deadline = None;
    let connections = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(16);
    limits.connections_max = usize::try_from(connections).unwrap_or(usize::MAX);
    limits.proxies.clone_from(&config.proxies);
    if let Some(rates) = &config.rates {
        limits.connections_per_address_max = rates.connections_per_address_max;
    }
    limits
}

fn mark_loops(pool: &EventLoopThreadPool) {
    for handle in pool.handles() {
        if handle.post(|_| asynclog::mark_loop_thread()).is_err() {
            log::warn!("loop {} is not marked for the log", handle.index());
        }
    }
}

/// The login service: in other processes where the configuration names some, else inside.
fn start_login(
    store: &Store,
    pool: &EventLoopThreadPool,
    config: &Config,
) -> Result<Arc<dyn LoginBackend>, ServerError> {
    if let Some(remote) = remote_login(pool, config).map_err(ServerError::Threads)? {
        // The first clients should not come too early for its connections; where there is nobody to connect to, that is what they are told.
        let until = Instant::now() + LOGIN_READY_MAX;
        while remote.stats().ready == 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        return Ok(Arc::new(remote));
    }
    let mut service = LoginService::new(store.clone(), &config.login)
        .map_err(|error| ServerError::Login(error.to_string()))?;
    if let Some(redis) = config.redis.clone() {
        let cache = TokenCache::at(redis, config.login.token_cache_lifetime());
        service = service.with_cache(Arc::new(cache.map_err(|error| ServerError::Login(error.to_string()))?));
    }
    let pool =
        LoginPool::start(service, &config.login).map_err(|error| ServerError::Login(error.to_string()))?;
    Ok(Arc::new(pool))
}

/// The way to the login services that the configuration names, if it names any.
fn remote_login(pool: &EventLoopThreadPool, config: &Config) -> std::io::Result<Option<RemoteLogin>> {
    let how = RemoteLogin::channel_config(&config.node, &config.login);
    if !config.logd.is_empty() {
        let channel = rpc::Channel::to(pool.handles(), config.logd.iter().copied(), how)?;
        return Ok(Some(RemoteLogin::new(channel, &config.login)));
    }
    let Some(zookeeper) = config.zookeeper.clone() else { return Ok(None) };
    let registry = ZooKeeperRegistry::start(zookeeper)?;
    let channel = rpc::Channel::of_service(pool.handles(), &registry, logd::proto::LOGIN.name, how)?;
    Ok(Some(RemoteLogin::new(channel, &config.login).keeping(registry)))
}

fn serve_chat(
    server: TcpServer,
    slots: Vec<ServiceSlot<Post>>,
    node: &Arc<Node>,
) -> Result<RunningServer<Post>, ServerError> {
    let node = Arc::clone(node);
    #[expect(clippy::expect_used, reason = "the node's handles are those of these very slots")]
    let make = move |loop_index: u16| {
        let me = node.loops.get(usize::from(loop_index)).expect("a loop outside the pool").clone();
        ChatService::new(Arc::clone(&node), me)
    };
    server.serve_on(slots, make).map_err(ServerError::Threads)
}

fn serve_admin(
    server: TcpServer,
    pool: &EventLoopThreadPool,
    ready: &Arc<AtomicBool>,
    node: &Arc<Node>,
    log: &Arc<asynclog::Guard>,
) -> Result<RunningServer<Told>, ServerError> {
    // Probes are few: one loop serves them.
    let slots: Vec<_> =
        pool.handles().iter().take(1).map(|handle| handle.service_slot(ADMIN_POSTS_MAX)).collect();
    let handles: Vec<_> = slots.iter().map(ServiceSlot::handle).collect();
    let (ready, node, log) = (Arc::clone(ready), Arc::clone(node), Arc::clone(log));
    let loops = pool.handles().to_vec();
    #[expect(clippy::expect_used, reason = "the handles are those of these very slots")]
    let make = move |_| AdminService {
        ready: Arc::clone(&ready),
        metrics: Metrics::new(
            "chatd",
            Counters { node: Arc::clone(&node), loops: loops.clone(), log: Arc::clone(&log) },
        ),
        node: Arc::clone(&node),
        me: handles.first().expect("one loop at least").clone(),
    };
    server.serve_on(slots, make).map_err(ServerError::Threads)
}

/// Listens on the control socket. A folder in which there can be none is no reason not to serve.
fn serve_control(
    config: &Config,
    pool: &EventLoopThreadPool,
    node: &Arc<Node>,
) -> Option<RunningServer<Reply>> {
    let path = config.store.data_dir.join(control::SOCKET);
    let serve = || {
        let server = TcpServer::bind_unix(&path, http::limits())?;
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner_only)?;
        let slots: Vec<_> =
            pool.handles().iter().take(1).map(|handle| handle.service_slot(ADMIN_POSTS_MAX)).collect();
        let handles: Vec<_> = slots.iter().map(ServiceSlot::handle).collect();
        let node = Arc::clone(node);
        #[expect(clippy::expect_used, reason = "the handles are those of these very slots")]
        let make = move |_| ControlService {
            node: Arc::clone(&node),
            me: handles.first().expect("one loop at least").clone(),
        };
        server.serve_on(slots, make)
    };
    match serve() {
        Ok(server) => Some(server),
        Err(error) => {
            log::warn!("`chatd admin` cannot reach this server: {}: {error}", path.display());
            None
        }
    }
}
