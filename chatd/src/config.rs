//! The configuration: a TOML file, overridden by `CHATD_*` variables, overridden by flags.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;
use logd::LoginConfig;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use rpc::registry::ZooKeeperConfig;
use schema::limits::{IDLE_TIMEOUT, LOGIN_TIMEOUT};
use serde::Deserialize;
use store::{DbConfig, Secret};

use crate::commands::Command;
use crate::logging::{LogFormat, LoggingConfig};
use crate::rates::RatesConfig;

/// The chat server.
///
/// Without any option it listens on 127.0.0.1:6000 and keeps its tables in a SQLite file under ./chat-data; nothing else needs to be installed or
/// configured. Clients speak JSON lines over TCP (see docs/protocol.md); `chatcli` is one.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "chatd", version, after_help = EXIT_CODES, args_override_self = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    /// Reads the configuration from this TOML file.
    #[arg(long, value_name = "FILE", env = "CHATD_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Where clients connect; port 0 takes a free one [default: 127.0.0.1:6000]
    #[arg(long, value_name = "ADDR", env = "CHATD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where the operator asks for /healthz and /readyz; keep it on loopback [default: 127.0.0.1:6001]
    #[arg(long, value_name = "ADDR", env = "CHATD_ADMIN")]
    admin: Option<SocketAddr>,
    /// This node's name, shown in `hello` [default: chatd]
    #[arg(long, value_name = "NAME", env = "CHATD_NODE")]
    node: Option<String>,
    /// The folder of the tables and the log; made when missing [default: ./chat-data]
    #[arg(long, value_name = "DIR", env = "CHATD_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Keeps the tables in MySQL or MariaDB: mysql://user:password@host:port/database. More in [store.mysql] of the file
    #[arg(long, value_name = "URL", env = "CHATD_MYSQL", hide_env_values = true)]
    mysql: Option<String>,
    /// Joins the cluster of this Redis: redis://:password@host:port (or redis://user:password@host:port). All its nodes share one --mysql
    #[arg(long, value_name = "URL", env = "CHATD_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// Calls the login service at this address instead of running it inside; once for each `logd`. Needs --mysql
    #[arg(long, value_name = "HOST:PORT", env = "CHATD_LOGD", value_delimiter = ',')]
    logd: Vec<String>,
    /// Finds the login service through this ZooKeeper (host:port, several separated by commas) instead of running it inside. Needs --mysql
    #[arg(long, value_name = "HOSTS", env = "CHATD_ZOOKEEPER")]
    zookeeper: Option<String>,
    /// The address at which clients (or nginx) reach this node, for ZooKeeper, where it is not the one that is listened on
    #[arg(long, value_name = "ADDR", env = "CHATD_ADVERTISE")]
    advertise: Option<SocketAddr>,
    /// Whether requests are rate-limited; `off` is for load tests [default: on]
    #[arg(long, value_name = "on|off", env = "CHATD_RATE_LIMITS")]
    rate_limits: Option<Switch>,
    /// Whether everybody may register [default: open]
    #[arg(long, value_name = "open|closed", env = "CHATD_REGISTRATION")]
    registration: Option<Registration>,
    /// Writes the bound ports and the pid to this file, as JSON, once every listener is bound
    #[arg(long, value_name = "FILE", env = "CHATD_PORTS_FILE")]
    ports_file: Option<PathBuf>,
    /// Event loops, each on a thread of its own [default: one per core, at most 4]
    #[arg(long, value_name = "N", env = "CHATD_THREADS")]
    threads: Option<u16>,
    /// The log [default: chatd.log in the data folder]
    #[arg(long, value_name = "FILE", env = "CHATD_LOG_FILE")]
    log_file: Option<PathBuf>,
    /// What is logged, as in `info` or `warn,chatd=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "CHATD_LOG")]
    log: Option<String>,
    /// Whether the log's lines are for people or objects of JSON [default: text]
    #[arg(long, value_name = "text|json", env = "CHATD_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Reads what is logged from this file while there is something in it; a change is noticed
    #[arg(long, value_name = "FILE", env = "CHATD_LOG_FILTER_FILE")]
    log_filter_file: Option<PathBuf>,
    /// Messages of one transaction at most, 1 to 512; 1 shows what batching is worth [default: 512]
    #[arg(long, value_name = "N", env = "CHATD_BATCH_MAX")]
    batch_max: Option<usize>,
    /// Deletes messages that are older than so many days; 0 keeps them [default: 0]
    #[arg(long, value_name = "DAYS", env = "CHATD_RETENTION_DAYS")]
    retention_days: Option<u32>,
    /// Checks the configuration and exits, 0 or 2
    #[arg(long)]
    pub(crate) check: bool,
    /// What to do instead of serving
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Looks at the tables, says what a start would do to them, does nothing, and exits, 0 or 1
    #[arg(long)]
    pub(crate) check_db: bool,
}

const EXIT_CODES: &str = "\
Every option but --check and --check-db is a key of the configuration file too, with _ for -;
--log-format and --log-filter-file are format and filter_file in its section [logging].
Signals: SIGTERM and SIGINT drain and end; SIGHUP reopens the log and reads the log filter anew.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    On,
    Off,
}

/// The file's keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileConfig {
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    node: Option<String>,
    data_dir: Option<PathBuf>,
    mysql: Option<String>,
    redis: Option<String>,
    logd: Vec<String>,
    zookeeper: Option<String>,
    advertise: Option<SocketAddr>,
    rate_limits: Option<Switch>,
    ports_file: Option<PathBuf>,
    threads: Option<u16>,
    log_file: Option<PathBuf>,
    log: Option<String>,
    logging: LoggingConfig,
    store: Option<DbConfig>,
    login: LoginConfig,
    limits: LimitsConfig,
    rates: RatesConfig,
    proxies: Vec<IpNet>,
    registration: Option<Registration>,
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registration {
    /// Everybody.
    #[default]
    Open,
    /// Nobody, over the network.
    Closed,
}

/// Times that an operator may want to change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    login_timeout_ms: u64,
    idle_timeout_ms: u64,
    shutdown_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            login_timeout_ms: ms(LOGIN_TIMEOUT),
            idle_timeout_ms: ms(IDLE_TIMEOUT),
            shutdown_timeout_ms: 10_000,
        }
    }
}

impl LimitsConfig {
    pub(crate) const fn login_timeout(&self) -> Duration {
        Duration::from_millis(self.login_timeout_ms)
    }

    pub(crate) const fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(crate) const fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}

/// The configuration as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) node: String,
    pub(crate) ports_file: Option<PathBuf>,
    pub(crate) threads: u16,
    pub(crate) log_file: PathBuf,
    pub(crate) log: String,
    /// Set on the command line or by a variable: a reload does not change it.
    pub(crate) log_is_fixed: bool,
    pub(crate) logging: LoggingConfig,
    pub(crate) store: DbConfig,
    /// The Redis of the cluster; `None`: this node is alone.
    pub(crate) redis: Option<ConnectionInfo>,
    pub(crate) login: LoginConfig,
    /// Login services at fixed addresses.
    pub(crate) logd: Vec<SocketAddr>,
    /// Where login services are found.
    pub(crate) zookeeper: Option<ZooKeeperConfig>,
    /// Where others reach this node, if not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) limits: LimitsConfig,
    /// `None`: nothing is limited.
    pub(crate) rates: Option<RatesConfig>,
    /// Proxies that name the real client in a PROXY header.
    pub(crate) proxies: Vec<IpNet>,
    pub(crate) registration: Registration,
}

/// A configuration that cannot be used. The text names the place at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("the configuration {} is wrong:\n{error}", path.display())]
    File { path: PathBuf, error: Box<toml::de::Error> },
    #[error("configuration key `{key}`: {message}")]
    Value { key: &'static str, message: String },
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Login(#[from] logd::ConfigError),
}

/// Event loops by default at most: a chat server is rarely bound by its loops.
const THREADS_DEFAULT_MAX: u16 = 4;
/// Event loops at most, so that a mistyped number does not start a thousand threads.
const THREADS_MAX: u16 = 256;

impl Config {
    /// Puts flags, variables and file together and checks every value.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub(crate) fn load(args: &Args) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => FileConfig::default(),
        };
        let limited = args.rate_limits.or(file.rate_limits).unwrap_or(Switch::On) == Switch::On;
        let mut store = file.store.unwrap_or_default();
        if let Some(data_dir) = args.data_dir.clone().or(file.data_dir) {
            store.data_dir = data_dir;
        }
        if let Some(url) = args.mysql.clone().or(file.mysql) {
            store.mysql.get_or_insert_default().url = Some(Secret(url));
        }
        if let Some(batch_max) = args.batch_max {
            store.batch_max = batch_max;
        }
        if let Some(days) = args.retention_days {
            store.retention_days = days;
        }
        let logd = addresses(if args.logd.is_empty() { &file.logd } else { &args.logd })?;
        let zookeeper = args.zookeeper.clone().or(file.zookeeper).as_deref().map(ZooKeeperConfig::new);
        let zookeeper = zookeeper
            .transpose()
            .map_err(|error| ConfigError::Value { key: "zookeeper", message: error.to_string() })?;
        let redis = args.redis.clone().or(file.redis).map(|url| redis_server(&url)).transpose()?;
        let log_file = args.log_file.clone().or(file.log_file);
        let logging = file.logging.with(args.log_format, args.log_filter_file.clone());
        let config = Self {
            file: args.config.clone(),
            listen: args.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 6000))),
            admin: args.admin.or(file.admin).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 6001))),
            node: args.node.clone().or(file.node).unwrap_or_else(|| "chatd".to_owned()),
            ports_file: args.ports_file.clone().or(file.ports_file),
            threads: args.threads.or(file.threads).unwrap_or_else(default_threads),
            log_file: log_file.unwrap_or_else(|| store.data_dir.join("chatd.log")),
            log_is_fixed: args.log.is_some(),
            log: args.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            logging,
            store,
            redis,
            login: LoginConfig {
                failed_login_backoff: limited && file.login.failed_login_backoff,
                ..file.login
            },
            logd,
            zookeeper,
            advertise: args.advertise.or(file.advertise),
            limits: file.limits,
            rates: limited.then_some(file.rates),
            proxies: file.proxies,
            registration: args.registration.or(file.registration).unwrap_or_default(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, message: &str| Err(ConfigError::Value { key, message: message.to_owned() });
        self.store.validate()?;
        self.login.validate()?;
        if (!self.logd.is_empty() || self.zookeeper.is_some()) && self.store.mysql.is_none() {
            let key = if self.logd.is_empty() { "zookeeper" } else { "logd" };
            return wrong(
                key,
                "needs `mysql`: a login service in another process shares its tables with this one",
            );
        }
        if self.redis.is_some() && self.store.mysql.is_none() {
            return wrong("redis", "needs `mysql`: the nodes of a cluster share their tables");
        }
        if let Some((key, rule)) = self.logging.fault() {
            return wrong(key, rule);
        }
        if self.threads == 0 || self.threads > THREADS_MAX {
            return wrong("threads", "must be from 1 to 256");
        }
        if self.node.is_empty() || self.node.len() > 64 || self.node.chars().any(char::is_control) {
            return wrong("node", "must be 1 to 64 bytes without control characters");
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            return wrong("admin", "must differ from `listen`");
        }
        if let Some(key) = self.rates.as_ref().and_then(RatesConfig::fault) {
            return wrong(key, "must be at least 1");
        }
        let times = [
            ("limits.login_timeout_ms", self.limits.login_timeout_ms),
            ("limits.idle_timeout_ms", self.limits.idle_timeout_ms),
            ("limits.shutdown_timeout_ms", self.limits.shutdown_timeout_ms),
        ];
        for (key, ms) in times {
            if !(100..=86_400_000).contains(&ms) {
                return wrong(key, "must be from 100 to 86400000");
            }
        }
        Ok(())
    }

    /// The log filter as the file has it now, for SIGHUP.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub(crate) fn reload_filter(&self) -> Result<Option<String>, ConfigError> {
        match &self.file {
            Some(path) if !self.log_is_fixed => {
                Ok(Some(read(path)?.log.unwrap_or_else(|| "info".to_owned())))
            }
            _ => Ok(None),
        }
    }
}

/// The server that a URL names. The text of an error does not repeat the URL, which may hold a password.
fn redis_server(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let wrong = |message: &str| ConfigError::Value { key: "redis", message: message.to_owned() };
    let server =
        url.into_connection_info().map_err(|_| wrong("must be redis://[[user]:password@]host:port"))?;
    match server.addr() {
        ConnectionAddr::Tcp(..) => Ok(server),
        _ => Err(wrong("only redis:// is supported: TCP without TLS")),
    }
}

fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| ConfigError::File { path: path.to_owned(), error: Box::new(error) })
}

/// The addresses of login services. Names are looked up here, once.
fn addresses(all: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let mut found = Vec::new();
    for text in all {
        let wrong = |why: String| ConfigError::Value { key: "logd", message: format!("{text}: {why}") };
        let resolved = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        let before = found.len();
        found.extend(resolved);
        if found.len() == before {
            return Err(wrong("has no address".to_owned()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn default_threads() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(THREADS_DEFAULT_MAX).min(THREADS_DEFAULT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        path.write_all(file.as_bytes()).unwrap();
        let mut all = vec!["chatd", "--config", path.path().to_str().unwrap()];
        all.extend(flags);
        Config::load(&Args::parse_from(all))
    }

    #[test]
    fn the_sample_is_the_defaults() {
        let sample = load(include_str!("../chatd.sample.toml"), &[]).unwrap();
        let default = load("", &[]).unwrap();
        let plain = |config: &Config| format!("{:?}", Config { file: None, ..config.clone() });
        assert_eq!(plain(&sample), plain(&default));
    }

    #[test]
    fn flags_win_over_the_file() {
        let config =
            load("listen = \"127.0.0.1:7000\"\nnode = \"a\"", &["--listen", "127.0.0.1:7001"]).unwrap();
        assert_eq!(config.listen.port(), 7001);
        assert_eq!(config.node, "a");
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        for (file, words) in [
            ("nodee = \"x\"", "nodee"),
            ("\n\nlisten = 5", "line 3"),
            ("[store]\nbatch_max = 0", "batch_max"),
            ("[store]\nretention_days = 40000", "retention_days"),
            ("[login]\nhash_passes = 0", "hash_passes"),
            ("[logging]\nflush_interval_ms = 0", "logging.flush_interval_ms"),
            ("[logging]\nthread_buffer_bytes = 5", "logging.thread_buffer_bytes"),
            ("[logging]\nformat = \"xml\"", "format"),
            ("[limits]\nidle_timeout_ms = 1", "limits.idle_timeout_ms"),
            ("[rates]\nsends = { burst = 0, per_minute = 1 }", "rates.sends"),
            ("[rates]\nsends = { burst = 1 }", "per_minute"),
            ("proxies = [\"10.0.0.0/99\"]", "line 1"),
            ("threads = 0", "threads"),
            ("node = \"\"", "node"),
            ("mysql = \"mysql://x\"", "mysql"),
            ("logd = [\"127.0.0.1:7\"]", "needs `mysql`"),
            ("zookeeper = \"127.0.0.1:7\"", "needs `mysql`"),
            ("logd = [\"127.0.0.1\"]", "`logd`: 127.0.0.1: "),
            ("redis = \"redis://x\"", "needs `mysql`"),
            ("redis = \"http://x\"", "redis"),
            ("redis = \"rediss://x\"", "redis"),
            ("[store.mysql]\nurl = \"mysql://a:secret@h:1/d\"\nworkers = 0", "mysql.workers"),
            ("[store.mysql.pool]\nconnections_max = 0", "connections_max"),
        ] {
            let text = load(file, &[]).unwrap_err().to_string();
            assert!(text.contains(words), "{file:?} gives {text:?}");
        }
    }
}
