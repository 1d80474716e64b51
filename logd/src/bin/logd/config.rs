//! The configuration: a TOML file, overridden by `LOGD_*` variables, overridden by flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use logd::{LoginConfig, TokenCache};
use rpc::registry::ZooKeeperConfig;
use serde::Deserialize;
use store::{DbConfig, Secret};

/// The login service of a cluster: accounts, passwords and tokens for any number of chat servers.
///
/// A chat server has the same service inside when it is started without --logd and --zookeeper. This program is for several chat servers on one
/// MySQL or MariaDB. Run as many as you like: none of them keeps anything but in the tables, so each can be restarted at any time, one after the other, and no login fails.
/// It is the login daemon; it has nothing to do with logging.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "logd", version, after_help = LESSON, args_override_self = true)]
pub(crate) struct Args {
    /// Reads the configuration from this TOML file
    #[arg(long, value_name = "FILE", env = "LOGD_CONFIG")]
    config: Option<PathBuf>,
    /// Where chat servers call; port 0 takes a free one. Not for strangers [default: 127.0.0.1:6010]
    #[arg(long, value_name = "ADDR", env = "LOGD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where the operator asks for /healthz, /readyz and /metrics; keep it on loopback [default: 127.0.0.1:6011]
    #[arg(long, value_name = "ADDR", env = "LOGD_ADMIN")]
    admin: Option<SocketAddr>,
    /// This process's name in ZooKeeper; keep it over restarts [default: logd-ADDR]
    #[arg(long, value_name = "NAME", env = "LOGD_NODE")]
    node: Option<String>,
    /// The folder of the log, and of the tables where there is no server for them; made when missing [default: ./login-data]
    #[arg(long, value_name = "DIR", env = "LOGD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The tables of the chat servers: mysql://user:password@host:port/database. More in [store.mysql] of the file
    #[arg(long, value_name = "URL", env = "LOGD_MYSQL", hide_env_values = true)]
    mysql: Option<String>,
    /// Looks tokens up in this Redis first: redis://user:password@host:port/database. The tables remain the truth
    #[arg(long, value_name = "URL", env = "LOGD_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// Registers with this ZooKeeper, where chat servers find it: host:port, several separated by commas
    #[arg(long, value_name = "HOSTS", env = "LOGD_ZOOKEEPER")]
    zookeeper: Option<String>,
    /// The address to register, where it is not the one that is listened on
    #[arg(long, value_name = "ADDR", env = "LOGD_ADVERTISE")]
    advertise: Option<SocketAddr>,
    /// Writes the bound ports and the pid to this file, as JSON, once every listener is bound
    #[arg(long, value_name = "FILE", env = "LOGD_PORTS_FILE")]
    ports_file: Option<PathBuf>,
    /// Event loops, each on a thread of its own [default: 1]
    #[arg(long, value_name = "N", env = "LOGD_THREADS")]
    threads: Option<u16>,
    /// The log [default: logd.log in the data folder]
    #[arg(long, value_name = "FILE", env = "LOGD_LOG_FILE")]
    log_file: Option<PathBuf>,
    /// What is logged, as in `info` or `warn,logd=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "LOGD_LOG")]
    log: Option<String>,
    /// Checks the configuration and exits, 0 or 2
    #[arg(long)]
    pub(crate) check: bool,
}

const LESSON: &str = "\
Two login services and a chat server that knows their addresses:
  logd  --mysql mysql://logd:secret@db:3306/chat --listen 10.0.0.2:6010
  logd  --mysql mysql://logd:secret@db:3306/chat --listen 10.0.0.3:6010
  chatd --mysql mysql://chatd:secret@db:3306/chat --logd 10.0.0.2:6010 --logd 10.0.0.3:6010

The same where ZooKeeper tells the addresses, also of those that are started later:
  logd  --mysql … --zookeeper zk1:2181,zk2:2181 --listen 10.0.0.2:6010 --node logd-1
  chatd --mysql … --zookeeper zk1:2181,zk2:2181

Whoever can reach --listen can try passwords and end anybody's sessions: open it to the chat servers alone.

Every option but --check is a key of the configuration file too, with _ for -; logd.sample.toml has them all, with the reasons.
Operator: curl 127.0.0.1:6011/healthz, /readyz (503 while it drains), /metrics (begin with logd_).
Log: who registered, logged in, failed, changed a password or was revoked is logged under the target `audit`: --log warn,audit=info
Signals: SIGTERM and SIGINT drain and end; SIGHUP reopens the log and reads the log filter anew.
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

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
    zookeeper: Option<String>,
    advertise: Option<SocketAddr>,
    ports_file: Option<PathBuf>,
    threads: Option<u16>,
    log_file: Option<PathBuf>,
    log: Option<String>,
    shutdown_timeout_ms: Option<u64>,
    store: Option<DbConfig>,
    login: LoginConfig,
}

/// The configuration as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) file: Option<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) node: Option<String>,
    pub(crate) redis: Option<Secret>,
    pub(crate) zookeeper: Option<ZooKeeperConfig>,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) ports_file: Option<PathBuf>,
    pub(crate) threads: u16,
    pub(crate) log_file: PathBuf,
    pub(crate) log: String,
    /// Set on the command line or by a variable: a reload does not change it.
    pub(crate) log_is_fixed: bool,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) store: DbConfig,
    pub(crate) login: LoginConfig,
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
    #[error(transparent)]
    Redis(#[from] logd::BadAddress),
}

/// Event loops at most. They only take calls in and hand answers out.
const THREADS_MAX: u16 = 64;
/// How long calls under way may take at the end: longer than any call may.
const SHUTDOWN_TIMEOUT_MS: u64 = 10_000;

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
        let mut store = file.store.unwrap_or_default();
        let data_dir = args.data_dir.clone().or(file.data_dir);
        store.data_dir = data_dir.unwrap_or_else(|| PathBuf::from("./login-data"));
        if let Some(url) = args.mysql.clone().or(file.mysql) {
            store.mysql.get_or_insert_default().url = Some(Secret(url));
        }
        let zookeeper = args.zookeeper.clone().or(file.zookeeper).as_deref().map(ZooKeeperConfig::new);
        let zookeeper = zookeeper
            .transpose()
            .map_err(|error| ConfigError::Value { key: "zookeeper", message: error.to_string() })?;
        let shutdown_timeout_ms = file.shutdown_timeout_ms.unwrap_or(SHUTDOWN_TIMEOUT_MS);
        let log_file = args.log_file.clone().or(file.log_file);
        let config = Self {
            file: args.config.clone(),
            listen: args.listen.or(file.listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 6010))),
            admin: args.admin.or(file.admin).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 6011))),
            node: args.node.clone().or(file.node),
            redis: args.redis.clone().or(file.redis).map(Secret),
            zookeeper,
            advertise: args.advertise.or(file.advertise),
            ports_file: args.ports_file.clone().or(file.ports_file),
            threads: args.threads.or(file.threads).unwrap_or(1),
            log_file: log_file.unwrap_or_else(|| store.data_dir.join("logd.log")),
            log_is_fixed: args.log.is_some(),
            log: args.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            shutdown_timeout: Duration::from_millis(shutdown_timeout_ms),
            store,
            login: file.login,
        };
        config.check()?;
        Ok(config)
    }

    /// The cache for tokens, if the configuration names a Redis. Nothing is connected yet.
    ///
    /// # Errors
    /// When its address makes no sense.
    pub(crate) fn token_cache(&self) -> Result<Option<TokenCache>, ConfigError> {
        let lifetime = self.login.token_cache_lifetime();
        let cache = self.redis.as_ref().map(|Secret(url)| TokenCache::new(url, lifetime));
        Ok(cache.transpose()?)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, message: &str| Err(ConfigError::Value { key, message: message.to_owned() });
        self.store.validate()?;
        self.login.validate()?;
        self.token_cache()?;
        if self.threads == 0 || self.threads > THREADS_MAX {
            return wrong("threads", "must be from 1 to 64");
        }
        let is_name = |name: &String| {
            (1..=64).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == '/')
        };
        if self.node.as_ref().is_some_and(|name| !is_name(name)) {
            return wrong("node", "must be 1 to 64 bytes without control characters and `/`");
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            return wrong("admin", "must differ from `listen`");
        }
        if self.zookeeper.is_some() && self.advertise.unwrap_or(self.listen).ip().is_unspecified() {
            return wrong("advertise", "is needed where `listen` names no address that others can call");
        }
        if !(100..=86_400_000).contains(&self.shutdown_timeout.as_millis()) {
            return wrong("shutdown_timeout_ms", "must be from 100 to 86400000");
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

fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| ConfigError::File { path: path.to_owned(), error: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn load(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        path.write_all(file.as_bytes()).unwrap();
        let mut all = vec!["logd", "--config", path.path().to_str().unwrap()];
        all.extend(flags);
        Config::load(&Args::parse_from(all))
    }

    #[test]
    fn the_sample_is_the_defaults() {
        let sample = load(include_str!("../../../logd.sample.toml"), &[]).unwrap();
        let default = load("", &[]).unwrap();
        let plain = |config: &Config| format!("{:?}", Config { file: None, ..config.clone() });
        assert_eq!(plain(&sample), plain(&default));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "listen = \"127.0.0.1:7000\"\nnode = \"a\"";
        let config = load(file, &["--listen", "127.0.0.1:7001"]).unwrap();
        assert_eq!((config.listen.port(), config.node.as_deref()), (7001, Some("a")));
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        for (file, words) in [
            ("nodee = \"x\"", "nodee"),
            ("\n\nlisten = 5", "line 3"),
            ("[login]\nhash_passes = 0", "hash_passes"),
            ("[login]\ncall_timeout_ms = 1", "call_timeout_ms"),
            ("threads = 0", "threads"),
            ("node = \"a/b\"", "node"),
            ("mysql = \"mysql://x\"", "mysql"),
            ("redis = \"127.0.0.1\"", "redis"),
            ("[login]\ntoken_cache_ms = 1", "token_cache_ms"),
            ("zookeeper = \"\"", "zookeeper"),
            ("zookeeper = \"127.0.0.1:1\"\nlisten = \"0.0.0.0:7000\"", "advertise"),
            ("shutdown_timeout_ms = 1", "shutdown_timeout_ms"),
            ("listen = \"127.0.0.1:7\"\nadmin = \"127.0.0.1:7\"", "admin"),
        ] {
            let text = load(file, &[]).unwrap_err().to_string();
            assert!(text.contains(words), "{file:?} gives {text:?}");
        }
    }
}
