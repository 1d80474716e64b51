//! A private ZooKeeper on a free port, alone or one of several, with a data folder of its own.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{TestkitError, WallClock, free_port, need_program, process, zk_session};

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
const PROGRAM: &str = "java";
/// Where Debian has it.
const JAR: &str = "/usr/share/java/zookeeper.jar";
const LOGGER: &str = "/usr/share/java/slf4j-simple.jar";

/// A running ZooKeeper, on loopback, with ticks of half a second and sessions of one second at least. Dropping it kills and reaps it, and removes its folder.
#[derive(Debug)]
pub struct ZooKeeper {
    // Before `dir`, so that the process is gone when its folder is removed.
    daemon: Daemon,
    port: u16,
    heap: String,
    env: Vec<(&'static str, OsString)>,
    dir: TempDir,
}

impl ZooKeeper {
    /// Whether its programs are there (see [`need_program`]); prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        if !need_program(PROGRAM) {
            return false;
        }
        let found = Path::new(JAR).exists();
        assert!(found || !crate::wait::in_ci(), "this test needs {JAR}, and in CI it must be there");
        if !found {
            eprintln!("skipped: needs zookeeper");
        }
        found
    }

    /// Makes one and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be run, fails, or does not serve within a minute.
    pub fn start() -> Result<ZooKeeper, TestkitError> {
        Self::start_with_heap("256m")
    }

    /// The same with so much memory for Java: `2g`.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn start_with_heap(heap: &str) -> Result<ZooKeeper, TestkitError> {
        let mut server = Self::prepare(free_port(), "")?;
        heap.clone_into(&mut server.heap);
        server.launch()?;
        server.until_it_serves()?;
        Ok(server)
    }

    /// The same with a time of day of its own.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn start_with_clock(clock: &WallClock) -> Result<ZooKeeper, TestkitError> {
        let mut server = Self::prepare(free_port(), "")?;
        server.env = clock.env();
        server.launch()?;
        server.until_it_serves()?;
        Ok(server)
    }

    /// Makes one that does not run yet; [`ZooKeeper::restart`] starts it.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn absent() -> Result<ZooKeeper, TestkitError> {
        Self::prepare(free_port(), "")
    }

    /// Makes `count` of them that are one service together, and waits until all serve.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn ensemble(count: usize) -> Result<Vec<ZooKeeper>, TestkitError> {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let members: String = (1..)
            .zip(&ports)
            .map(|(number, (peers, votes))| format!("server.{number}=127.0.0.1:{peers}:{votes}\n"))
            .collect();
        let mut servers = Vec::new();
        for number in 1..=count {
            let server = Self::prepare(free_port(), &members)?;
            std::fs::write(server.data().join("myid"), number.to_string())
                .map_err(|e| TestkitError::io("write myid", e))?;
            server.launch()?;
            servers.push(server);
        }
        for server in &servers {
            server.until_it_serves()?;
        }
        Ok(servers)
    }

    /// Where it listens on loopback. The same over restarts.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("a running server")
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill9(&self) {
        self.daemon.end(Signal::KILL);
    }

    /// Lets it end in good order, and waits until it has.
    pub fn shut_down(&self) {
        self.daemon.end(Signal::TERM);
    }

    /// Starts it again on the same port and data: sessions that are young enough are still alive.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.shut_down();
        self.launch()?;
        self.until_it_serves()
    }

    /// Starts it again on the same port without its data: no session is known any more, and no node.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub fn restart_empty(&self) -> Result<(), TestkitError> {
        self.kill9();
        let versions = self.data().join("version-2");
        match std::fs::remove_dir_all(&versions) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TestkitError::io("remove the data", error));
            }
            _ => {}
        }
        self.launch()?;
        self.until_it_serves()
    }

    /// Stops the process in its tracks (SIGSTOP); [`ZooKeeper::resume`] lets it go on.
    pub fn pause(&self) {
        process::signal(self.pid(), Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        process::signal(self.pid(), Signal::CONT);
    }

    /// What it answers to a command of four letters: `srvr`, `mntr`, `dump`. Empty when it does not.
    pub fn ask(&self, command: &str) -> String {
        let mut answer = String::new();
        let timeout = Duration::from_secs(2);
        if let Ok(mut stream) = TcpStream::connect_timeout(&self.addr(), timeout) {
            let _ = stream.set_read_timeout(Some(timeout));
            if stream.write_all(command.as_bytes()).is_ok() {
                let _ = stream.read_to_string(&mut answer);
            }
        }
        answer
    }

    /// One of the numbers of `mntr`; `None` when there is no answer or no such number.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.ask("mntr").lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The sessions of all who are connected.
    pub fn sessions(&self) -> Vec<u64> {
        let connections = self.ask("cons");
        let ids = connections.split("sid=0x").skip(1);
        let ids = ids.filter_map(|rest| rest.split(|c: char| !c.is_ascii_hexdigit()).next());
        ids.filter_map(|id| u64::from_str_radix(id, 16).ok()).filter(|id| *id != 0).collect()
    }

    /// Ends all sessions by force, without a word to their owners, whose connections stay as they are. Their ephemeral nodes are gone when this returns. How many
    /// sessions it ended.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn expire_sessions(&self) -> Result<usize, TestkitError> {
        let mut ended = 0;
        for session in self.sessions() {
            let there = zk_session::end(self.addr(), session)
                .map_err(|e| TestkitError::io("end a session of ZooKeeper", e))?;
            ended += usize::from(there);
        }
        Ok(ended)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn prepare(port: u16, members: &str) -> Result<ZooKeeper, TestkitError> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-zookeeper-")
            .tempdir()
            .map_err(|e| TestkitError::io("make a temporary folder", e))?;
        let daemon = Daemon::new(dir.path());
        let server = ZooKeeper { daemon, port, heap: "256m".to_owned(), env: Vec::new(), dir };
        std::fs::create_dir(server.data()).map_err(|e| TestkitError::io("make the data folder", e))?;
        let config = format!(
            "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nminSessionTimeout=1000\nmaxSessionTimeout=60000\n{members}",
            server.data().display()
        );
        std::fs::write(server.config(), config).map_err(|e| TestkitError::io("write zoo.cfg", e))?;
        Ok(server)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("zoo.cfg")
    }

    fn launch(&self) -> Result<(), TestkitError> {
        let mut command = Command::new(PROGRAM);
        command
            .arg(format!("-Xmx{}", self.heap))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-cp")
            .arg(format!("{JAR}:{LOGGER}"))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.config())
            .envs(self.env.iter().cloned());
        self.daemon.spawn(&mut command)
    }

    /// `srvr` names a mode only when clients are served; `ruok` says yes too early.
    fn until_it_serves(&self) -> Result<(), TestkitError> {
        self.daemon.until_ready(Path::new(PROGRAM), START_MAX, || self.ask("srvr").contains("Mode:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_ends_and_comes_back_where_it_was() {
        if !ZooKeeper::available() {
            return;
        }
        let server = ZooKeeper::start().unwrap();
        let (pid, addr) = (server.pid(), server.addr());
        assert!(server.count("zk_znode_count").unwrap() > 0);
        server.kill9();
        assert!(!process::is_alive(pid));
        assert_eq!(server.ask("srvr"), "");
        server.restart().unwrap();
        assert_eq!(server.addr(), addr);
        let dir = server.dir.path().to_owned();
        drop(server);
        assert!(!dir.exists());
    }
}
