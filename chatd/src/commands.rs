//! The operator's commands beside the server: `admin`, which asks the running one, `backup` and `import`, which work on the tables.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use rpc::registry::ZooKeeperConfig;
use schema::UserId;
use store::{DbConfig, MySqlSection, StoreError};

use crate::config::Config;
use crate::control::{Answer, Command as Ask, SOCKET};
use crate::entry::{self, UpstreamsError};

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Looks after users and sessions of the server that runs in this data folder
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Copies the SQLite tables to a new file while the server runs, and checks the copy
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Prints the nodes that ZooKeeper knows, as nginx's list of servers. Fails, and prints nothing, when there is none
    Upstreams {
        /// ZooKeeper: host:port, several separated by commas
        #[arg(long, value_name = "HOSTS", env = "CHATD_ZOOKEEPER")]
        zookeeper: String,
    },
    /// Copies SQLite tables into an empty MySQL or MariaDB database, and compares them row by row. No server may run on either
    Import {
        /// The data folder that holds the SQLite tables
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The database: mysql://user:password@host:port/database
        #[arg(long, value_name = "URL", env = "CHATD_IMPORT_TO", hide_env_values = true)]
        to: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Lists users: id, name, when they registered, whether they are online or disabled
    Users {
        /// Those with greater ids only
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Lists live sessions
    Sessions,
    /// Sets a user's password to the first line of standard input, and ends all its sessions
    ResetPassword {
        /// A name, or an id
        user: String,
    },
    /// Ends a user's sessions and lets it log in no more
    Disable {
        /// A name, or an id
        user: String,
    },
    /// Lets a disabled user log in again, with the password it had
    Enable {
        /// A name, or an id
        user: String,
    },
    /// Ends a user's sessions and revokes all its tokens
    Revoke {
        /// A name, or an id
        user: String,
    },
    /// Deletes a user: it leaves its groups and friends, its name is free, its messages stay under another name
    Delete {
        /// A name, or an id
        user: String,
        /// Asked for, since it cannot be undone
        #[arg(long)]
        yes: bool,
    },
}

/// Why a command failed. The text is for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CommandError {
    #[error("no server answers at {}: {error}; is it running, in this data folder?", path.display())]
    NoServer { path: PathBuf, error: std::io::Error },
    #[error("the server closed the connection")]
    Closed,
    #[error("the server's answer makes no sense: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(&'static str),
    #[error("cannot read the password: {0}")]
    Password(std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Upstreams(#[from] UpstreamsError),
}

/// How long the server may take: a hash, or leaving a thousand groups.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Does it, and says on standard output what came of it.
///
/// # Errors
/// Why it could not be done.
pub(crate) fn run(command: Command, config: &Config) -> Result<(), CommandError> {
    match command {
        Command::Admin { command } => admin(command, &config.store.data_dir),
        Command::Backup { file } => backup(&config.store, &file),
        Command::Import { from, to } => import(&from, to),
        Command::Upstreams { zookeeper } => upstreams(&zookeeper),
    }
}

/// Prints the nodes that ZooKeeper knows.
///
/// # Errors
/// Why they are not known.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub(crate) fn upstreams(zookeeper: &str) -> Result<(), CommandError> {
    let zookeeper = ZooKeeperConfig::new(zookeeper)
        .map_err(|_| CommandError::Usage("--zookeeper must be host:port, several separated by commas"))?;
    match entry::upstreams(zookeeper)? {
        Some(text) => {
            print!("{text}");
            Ok(())
        }
        None => Err(CommandError::Refused("no node is entered in this ZooKeeper".to_owned())),
    }
}

fn admin(command: AdminCommand, data_dir: &Path) -> Result<(), CommandError> {
    let ask = match command {
        AdminCommand::Users { after, limit } => Ask::Users { after: after.and_then(UserId::new), limit },
        AdminCommand::Sessions => Ask::Sessions,
        AdminCommand::ResetPassword { user } => Ask::ResetPassword { user, password: password()? },
        AdminCommand::Disable { user } => Ask::Disable { user },
        AdminCommand::Enable { user } => Ask::Enable { user },
        AdminCommand::Revoke { user } => Ask::Revoke { user },
        AdminCommand::Delete { yes: false, .. } => {
            return Err(CommandError::Usage("deleting cannot be undone; say --yes"));
        }
        AdminCommand::Delete { user, yes: true } => Ask::Delete { user },
    };
    match asked(&data_dir.join(SOCKET), &ask)? {
        Answer::Error(message) => Err(CommandError::Refused(message)),
        answer => {
            print(&answer);
            Ok(())
        }
    }
}

fn asked(path: &Path, ask: &Ask) -> Result<Answer, CommandError> {
    let no_server = |error| CommandError::NoServer { path: path.to_owned(), error };
    let mut stream = UnixStream::connect(path).map_err(no_server)?;
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(no_server)?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(no_server)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(no_server)?;
    if answer.is_empty() {
        return Err(CommandError::Closed);
    }
    Ok(serde_json::from_str(&answer)?)
}

/// The first line of standard input. Not on the command line, where every user of the machine could read it.
fn password() -> Result<String, CommandError> {
    if std::io::stdin().is_terminal() {
        let _ = write!(std::io::stderr(), "new password (it is shown as you type): ");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(CommandError::Password)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CommandError::Usage("the password comes on standard input"));
    }
    Ok(password.to_owned())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print(answer: &Answer) {
    match answer {
        Answer::Users(users) => {
            for user in users {
                let state = match (user.disabled, user.online) {
                    (true, _) => "disabled",
                    (false, true) => "online",
                    (false, false) => "",
                };
                let registered = chrono::DateTime::from_timestamp_millis(user.created_ms);
                let registered = registered.map(|time| time.format("%Y-%m-%d").to_string());
                println!("{}\t{}\t{}\t{state}", user.user, user.name, registered.unwrap_or_default());
            }
        }
        Answer::Sessions(sessions) => {
            for session in sessions {
                println!("{}\t{}\t{}", session.session, session.user, session.name);
            }
        }
        Answer::Done { user, name, sessions } => {
            println!("done: user {user} ({name}), {sessions} sessions ended");
        }
        Answer::Error(message) => println!("{message}"),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn backup(config: &DbConfig, file: &Path) -> Result<(), CommandError> {
    let bytes = store::backup(config, file)?;
    println!("{}: {bytes} bytes, checked", file.display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn import(from: &Path, to: String) -> Result<(), CommandError> {
    let progress = |table: &str, rows: u64| {
        let _ = write!(std::io::stderr(), "\r{table}: {rows} rows   ");
    };
    let tables = store::import(from, &MySqlSection::at(to), progress)?;
    let _ = writeln!(std::io::stderr());
    for (table, rows) in tables {
        println!("{table}\t{rows} rows, compared");
    }
    Ok(())
}
