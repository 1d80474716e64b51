//! `LoginServer`: puts the parts together, runs them, and takes them apart in order.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::{http, page::Metrics};
use logd::{LoginPool, LoginRpc, LoginService, TokenCache, proto};
use reactor::{EventLoopThreadPool, JoinError, LoopConfig, RunningServer, ServiceSlot, TcpServer};
use rpc::registry::{Instance, Registration, Registry as _, ZooKeeperRegistry};
use store::{CommittedBatch, Store, StoreError};

use crate::admin::AdminService;
use crate::config::Config;
use crate::metrics::Counters;

/// How long the registry may take to hear of the end: chat servers are told by their connections as well.
const REGISTRY_MAX: Duration = Duration::from_secs(1);

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

/// A running login server.
pub(crate) struct LoginServer {
    config: Config,
    pool: EventLoopThreadPool,
    rpc: Arc<rpc::RunningServer>,
    admin: RunningServer<()>,
    /// The registry and this process's entry in it.
    entry: Option<(Registration, ZooKeeperRegistry)>,
    login: LoginPool,
    store: Store,
    ready: Arc<AtomicBool>,
    log: Arc<asynclog::Guard>,
}

impl LoginServer {
    /// Opens the tables, starts the threads, binds the listeners, registers, and then takes calls.
    ///
    /// # Errors
    /// What stood in the way, for the operator.
    pub(crate) fn start(config: Config) -> Result<Self, ServerError> {
        // Chat servers are few; what needs descriptors are the connections to the database.
        let _ = daemon::raise_descriptor_limit();
        let admin = TcpServer::bind(config.admin, http::limits()).map_err(|error| ServerError::Listen {
            key: "admin",
            address: config.admin,
            error,
        })?;
        let pool = EventLoopThreadPool::start(config.threads, LoopConfig::default())
            .map_err(ServerError::Threads)?;
        // Nothing is sent through these tables from here.
        let store = Store::open(&config.store, Box::new(|_: CommittedBatch| {}))?;
        let log = Arc::new(install_log(&config)?);
        mark_loops(&pool);
        let cache =
            config.token_cache().map_err(|error| ServerError::Login(error.to_string()))?.map(Arc::new);
        let login = start_login(&store, cache.clone(), &config)?;
        let rpc = rpc::Server::new(LoginRpc::server_config())
            .add(LoginRpc::service(login.clone()))
            .and_then(|server| server.serve(&pool, config.listen))
            .map_err(|error| ServerError::Listen { key: "listen", address: config.listen, error })?;
        let rpc = Arc::new(rpc);
        let ready = Arc::new(AtomicBool::new(true));
        let counters = Counters {
            rpc: Arc::clone(&rpc),
            login: login.clone(),
            store: store.clone(),
            cache,
            log: Arc::clone(&log),
        };
        let admin = serve_admin(admin, &pool, &ready, counters)?;
        let entry = register(&config, rpc.local_addr())?;
        Ok(Self { config, pool, rpc, admin, entry, login, store, ready, log })
    }

    pub(crate) fn rpc_addr(&self) -> SocketAddr {
        self.rpc.local_addr()
    }

    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// SIGHUP: the log's file is opened anew and its filter read from the configuration file.
    pub(crate) fn reload(&self) {
        self.log.reopen();
        match self.config.reload_filter() {
            Ok(None) => {}
            Ok(Some(filter)) => match self.log.set_filter(&daemon::log_filter(&filter)) {
                Ok(()) => log::info!("the log filter is {filter:?} now"),
                Err(error) => log::warn!("the log filter stays as it was: {error}"),
            },
            Err(error) => log::warn!("the configuration stays as it was: {error}"),
        }
    }

    /// Drains and ends: the registry says so, new calls go elsewhere, those under way are answered.
    ///
    /// # Errors
    /// When a loop ended badly.
    pub(crate) fn stop(mut self) -> Result<(), ServerError> {
        log::info!("shutting down");
        self.ready.store(false, Ordering::Relaxed);
        if let Some((registration, _)) = &self.entry
            && !registration.drain(REGISTRY_MAX)
        {
            log::warn!("the registry does not know yet that this process ends");
        }
        if !self.rpc.drain(self.config.shutdown_timeout) {
            log::warn!("some callers were cut off");
        }
        if let Some((registration, registry)) = self.entry.take() {
            registration.leave(REGISTRY_MAX);
            drop(registration);
            drop(registry);
        }
        self.login.close();
        self.pool.stop();
        let joined = self.pool.join();
        self.store.close();
        log::info!("ended");
        drop(self.log);
        Ok(joined?)
    }
}

fn install_log(config: &Config) -> Result<asynclog::Guard, ServerError> {
    let path = config.log_file.clone();
    // With the tables on a server nobody else has made it yet. Where that fails opening the log says why.
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.store.data_dir);
    let _ = path.parent().map(std::fs::create_dir_all);
    asynclog::Builder::new()
        .file(&path)
        .filter(daemon::log_filter(&config.log))
        .roll(asynclog::RollConfig::default())
        .install()
        .map_err(|error| ServerError::Log { path, error })
}

fn mark_loops(pool: &EventLoopThreadPool) {
    for handle in pool.handles() {
        if handle.post(|_| asynclog::mark_loop_thread()).is_err() {
            log::warn!("loop {} is not marked for the log", handle.index());
        }
    }
}

fn start_login(
    store: &Store,
    cache: Option<Arc<TokenCache>>,
    config: &Config,
) -> Result<LoginPool, ServerError> {
    let mut service = LoginService::new(store.clone(), &config.login)
        .map_err(|error| ServerError::Login(error.to_string()))?;
    if let Some(cache) = cache {
        service = service.with_cache(cache);
    }
    LoginPool::start(service, &config.login).map_err(|error| ServerError::Login(error.to_string()))
}

fn serve_admin(
    server: TcpServer,
    pool: &EventLoopThreadPool,
    ready: &Arc<AtomicBool>,
    counters: Counters,
) -> Result<RunningServer<()>, ServerError> {
    // Probes are few: one loop serves them.
    let slots: Vec<ServiceSlot<()>> =
        pool.handles().iter().take(1).map(|handle| handle.service_slot(1)).collect();
    let ready = Arc::clone(ready);
    let make =
        move |_| AdminService { ready: Arc::clone(&ready), metrics: Metrics::new("logd", counters.clone()) };
    server.serve_on(slots, make).map_err(ServerError::Threads)
}

/// Enters this process into the registry, where there is one. It need not be there yet.
fn register(
    config: &Config,
    bound: SocketAddr,
) -> Result<Option<(Registration, ZooKeeperRegistry)>, ServerError> {
    let Some(zookeeper) = config.zookeeper.clone() else { return Ok(None) };
    let registry = ZooKeeperRegistry::start(zookeeper).map_err(ServerError::Threads)?;
    let address = config.advertise.unwrap_or(bound);
    let id = config.node.clone().unwrap_or_else(|| format!("logd-{address}"));
    let mut instance = Instance::new(id, address);
    instance.version = env!("CARGO_PKG_VERSION").to_owned();
    let registration = registry.register(proto::LOGIN.name, instance);
    Ok(Some((registration, registry)))
}
