//! How to reach a MySQL or MariaDB server, as an operator writes it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mysql::{Opts, OptsBuilder, SslOpts};
use serde::Deserialize;

use crate::error::StoreError;
use crate::pool::PoolConfig;

/// The section `[store.mysql]`: which server, as whom, how many connections and threads, and how long everything may take. Every key has a default.
///
/// The server is named by `url`, or by `address` or `socket` with `user`, `password` or `password_file`, and `database`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MySqlSection {
    /// `mysql://user:password@host:port/database`. Excludes the keys that it says the same as.
    pub url: Option<Secret>,
    /// `host:port`.
    pub address: Option<String>,
    /// The server's Unix socket.
    pub socket: Option<PathBuf>,
    /// The user. Default `chatd`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A file that holds the password; one newline at its end is not part of it.
    pub password_file: Option<PathBuf>,
    /// The database. Made when it is missing, if the user may. Default `chat`.
    pub database: Option<String>,
    /// Whether the connection is encrypted. Default `off`, for servers on the same machine or network.
    pub tls: Tls,
    /// A PEM file of the authorities that the server's certificate is checked against, in place of the well-known ones.
    pub tls_ca: Option<PathBuf>,
    /// Threads that write messages, 1 to 64. Each conversation has its own of them. Default 2: their batches are large, and more of them only make more transactions
    /// wait for one log.
    pub workers: usize,
    /// Threads that write all else: registrations, tokens, friends. 1 to 64. Default 4.
    pub writers: usize,
    /// Milliseconds after which a statement that was not answered counts as lost, 100 to 600,000. Default 3,000.
    pub answer_ms: u64,
    /// Whether a server is taken that can lose what it has acknowledged. Default `full`.
    pub durability: Durability,
    /// The pool of connections.
    pub pool: PoolConfig,
}

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// With the server's certificate checked.
    On,
}

/// What is asked of the server's own settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A commit is on disk when it is acknowledged, whatever happens to the machine; a server that does less is refused.
    #[default]
    Full,
    /// The server's settings are the operator's business: a crash of its machine may lose the last second.
    Relaxed,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

impl Default for MySqlSection {
    fn default() -> Self {
        Self {
            url: None,
            address: None,
            socket: None,
            user: None,
            password: None,
            password_file: None,
            database: None,
            tls: Tls::Off,
            tls_ca: None,
            workers: 2,
            writers: 4,
            answer_ms: 3_000,
            durability: Durability::Full,
            pool: PoolConfig::default(),
        }
    }
}

impl MySqlSection {
    /// The defaults for the server of this URL.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Some(Secret(url.into())), ..Self::default() }
    }

    /// Checks every key's range, and that there is a server and one only.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the first key at fault.
    pub fn validate(&self, readers: usize) -> Result<(), StoreError> {
        let within = |key, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            wrong(key, format!("must be from {min} to {max}, is {value}"))
        };
        within("mysql.workers", self.workers as u64, 1, 64)?;
        within("mysql.writers", self.writers as u64, 1, 64)?;
        within("mysql.answer_ms", self.answer_ms, 100, 600_000)?;
        self.pool.validate()?;
        let threads = self.workers + self.writers + readers;
        if self.pool.connections_max < threads {
            return wrong(
                "mysql.pool.connections_max",
                format!("must be at least {threads}, one for each of workers, writers and readers"),
            );
        }
        MySqlConfig::from_section(self).map(drop)
    }
}

const fn wrong<T>(key: &'static str, message: String) -> Result<T, StoreError> {
    Err(StoreError::Config { key, message })
}

/// Which server, as whom, and how long it may take to answer.
#[derive(Clone)]
pub struct MySqlConfig {
    pub(crate) opts: Opts,
    /// How long one statement may take to answer.
    pub(crate) answer_max: Duration,
}

impl fmt::Debug for MySqlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlConfig").field("database", &self.database()).finish_non_exhaustive()
    }
}

impl MySqlConfig {
    /// From a URL: `mysql://user:password@host:port/database`. A statement may take 10 s to be answered.
    ///
    /// # Errors
    /// [`StoreError::Config`] when it is no such URL or names no database. The password is not in its text.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let opts = Opts::from_url(url).or_else(|error| {
            wrong("mysql", format!("must be mysql://user:password@host:port/database ({error})"))
        })?;
        if opts.get_db_name().is_none_or(str::is_empty) {
            return wrong("mysql", "names no database: mysql://user:password@host:port/database".to_owned());
        }
        Ok(Self { opts, answer_max: Duration::from_secs(10) })
    }

    /// From a section of the configuration. Reads the password's file.
    ///
    /// # Errors
    /// [`StoreError::Config`] names the key at fault. No password is in its text.
    pub fn from_section(section: &MySqlSection) -> Result<Self, StoreError> {
        let mut builder = match &section.url {
            Some(url) => {
                let same = [
                    ("mysql.address", section.address.is_some()),
                    ("mysql.socket", section.socket.is_some()),
                    ("mysql.user", section.user.is_some()),
                    ("mysql.password", section.password.is_some()),
                    ("mysql.database", section.database.is_some()),
                ];
                if let Some((key, _)) = same.into_iter().find(|(_, given)| *given) {
                    return wrong(key, "is in the URL already".to_owned());
                }
                OptsBuilder::from_opts(Self::from_url(&url.0)?.opts)
            }
            None => by_parts(section)?,
        };
        if let Some(path) = &section.password_file {
            if section.password.is_some() {
                return wrong("mysql.password_file", "excludes `password`".to_owned());
            }
            let text = std::fs::read_to_string(path)
                .or_else(|error| wrong("mysql.password_file", format!("{}: {error}", path.display())))?;
            builder = builder.pass(Some(text.strip_suffix('\n').unwrap_or(&text)));
        }
        match (section.tls, &section.tls_ca) {
            (Tls::Off, None) => {}
            (Tls::Off, Some(_)) => {
                return wrong("mysql.tls_ca", "is of no use with tls = \"off\"".to_owned());
            }
            (Tls::On, ca) => {
                if let Some(path) = ca
                    && let Err(error) = std::fs::metadata(path)
                {
                    return wrong("mysql.tls_ca", format!("{}: {error}", path.display()));
                }
                builder = builder.ssl_opts(SslOpts::default().with_root_cert_path(ca.clone()));
            }
        }
        Ok(Self { opts: builder.into(), answer_max: Duration::from_millis(section.answer_ms) })
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.opts.get_db_name().unwrap_or_default()
    }

    /// Where the server is, without a user or password.
    #[must_use]
    pub fn host(&self) -> String {
        match self.opts.get_socket() {
            Some(socket) => socket.to_owned(),
            None => format!("{}:{}", self.opts.get_ip_or_hostname(), self.opts.get_tcp_port()),
        }
    }

    /// With another limit on how long a statement may take to be answered.
    #[must_use]
    pub const fn answer_within(mut self, answer_max: Duration) -> Self {
        self.answer_max = answer_max;
        self
    }
}

fn by_parts(section: &MySqlSection) -> Result<OptsBuilder, StoreError> {
    let user = section.user.as_deref().unwrap_or("chatd");
    let database = section.database.as_deref().unwrap_or("chat");
    if database.is_empty() {
        return wrong("mysql.database", "must not be empty".to_owned());
    }
    let password = section.password.as_ref().map(|password| password.0.as_str());
    let builder = OptsBuilder::new().user(Some(user)).pass(password).db_name(Some(database));
    match (&section.address, &section.socket) {
        (Some(_), Some(_)) => wrong("mysql.socket", "excludes `address`".to_owned()),
        (None, None) => wrong("mysql.url", "names no server: give `url`, `address` or `socket`".to_owned()),
        (None, Some(socket)) => match socket.to_str() {
            Some(path) => Ok(builder.socket(Some(path))),
            None => wrong("mysql.socket", "is not UTF-8".to_owned()),
        },
        (Some(address), None) => match address.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) if !host.is_empty() => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok(builder.ip_or_hostname(Some(host)).tcp_port(port))
            }
            _ => wrong("mysql.address", format!("must be host:port, is {address:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_database_is_refused_and_no_error_tells_the_password() {
        for url in
            ["mysql://root:secret@localhost:3306", "mysql://root:secret@localhost:3306/", "http://x/y", ""]
        {
            let error = MySqlConfig::from_url(url).unwrap_err().to_string();
            assert!(error.contains("`mysql`") && !error.contains("secret"), "{error}");
        }
        assert!(MySqlConfig::from_url("mysql://root:secret@127.0.0.1:3306/chat").is_ok());
    }

    #[test]
    fn the_first_wrong_key_is_named() {
        type Spoil = fn(&mut MySqlSection);
        let cases: [(&str, Spoil); 12] = [
            ("mysql.url", |s| s.url = None),
            ("mysql.address", |s| s.address = Some("localhost:1".into())),
            ("mysql.address", |s| (s.url, s.address) = (None, Some("localhost".into()))),
            ("mysql.socket", |s| {
                (s.url, s.address, s.socket) = (None, Some("h:1".into()), Some("/s".into()));
            }),
            ("mysql.database", |s| {
                (s.url, s.address, s.database) = (None, Some("h:1".into()), Some(String::new()));
            }),
            ("mysql.password_file", |s| s.password_file = Some("/nowhere/at/all".into())),
            ("mysql.tls_ca", |s| s.tls_ca = Some("/etc/hostname".into())),
            ("mysql.tls_ca", |s| (s.tls, s.tls_ca) = (Tls::On, Some("/nowhere/at/all".into()))),
            ("mysql.workers", |s| s.workers = 0),
            ("mysql.writers", |s| s.writers = 65),
            ("mysql.answer_ms", |s| s.answer_ms = 99),
            ("mysql.pool.connections_max", |s| s.pool.connections_max = 5),
        ];
        for (wanted, spoil) in cases {
            let mut section = MySqlSection::at("mysql://root:secret@127.0.0.1:3306/chat");
            section.validate(2).unwrap();
            spoil(&mut section);
            let error = section.validate(2).unwrap_err();
            assert!(matches!(error, StoreError::Config { key, .. } if key == wanted), "{wanted}: {error}");
            assert!(!format!("{error} {section:?}").contains("secret"), "{error} {section:?}");
        }
    }

    #[test]
    fn a_server_is_named_by_its_parts_and_the_password_by_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass word\n").unwrap();
        let section = MySqlSection {
            address: Some("[::1]:3307".into()),
            user: Some("amy".into()),
            password_file: Some(file.path().into()),
            database: Some("talk".into()),
            ..MySqlSection::default()
        };
        let config = MySqlConfig::from_section(&section).unwrap();
        assert_eq!(config.opts.get_pass(), Some("pass word"));
        assert_eq!(config.opts.get_tcp_port(), 3_307);
        assert_eq!((config.opts.get_user(), config.database()), (Some("amy"), "talk"));
    }
}
