//! A private nginx with a configuration of the test's own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::{Balancer, TestkitError, need_program, process, wait_until};

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// How long new workers may take to serve after a reload.
const RELOAD_MAX: Duration = Duration::from_secs(30);
/// Where Debian has the module for plain TCP.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx. Dropping it kills and reaps it, master and workers, and removes its folder.
#[derive(Debug)]
pub struct Nginx {
    // Before `dir`, so that the processes are gone when their folder is removed.
    daemon: Daemon,
    listens: SocketAddr,
    dir: TempDir,
}

impl Nginx {
    /// Whether its program and its module for TCP are there (see [`need_program`]); prints `skipped: …` when not.
    #[track_caller]
    pub fn available() -> bool {
        let found = need_program("nginx") && Path::new(STREAM_MODULE).exists();
        assert!(
            found || !crate::wait::in_ci(),
            "this test needs {STREAM_MODULE}, and in CI it must be there"
        );
        if !found {
            eprintln!("skipped: needs nginx with its stream module");
        }
        found
    }

    /// Starts one with this configuration and waits until it takes connections at `listens`. Files that the configuration names without a `/` in front are
    /// found in [`Nginx::dir`]; those in `files` are put there first. It should say `daemon off` (added when it says nothing about it).
    ///
    /// # Errors
    /// When the configuration is wrong, or it does not run within 30 s.
    pub fn start(config: &str, files: &[(&str, &str)], listens: SocketAddr) -> Result<Nginx, TestkitError> {
        let dir = tempfile::Builder::new()
            .prefix("testkit-nginx-")
            .tempdir()
            .map_err(|e| TestkitError::io("make a temporary folder", e))?;
        std::fs::create_dir(dir.path().join("logs")).map_err(|e| TestkitError::io("make a folder", e))?;
        let nginx = Nginx { daemon: Daemon::new(dir.path()), listens, dir };
        for (name, text) in files {
            nginx.write(name, text)?;
        }
        nginx.write("nginx.conf", config)?;
        nginx.launch()?;
        Ok(nginx)
    }

    /// Starts one with this configuration, whose first listener is waited for. `files` as in [`Nginx::start`], for certificates.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    ///
    /// # Panics
    /// When the configuration has no listener.
    pub fn balance(balancer: &Balancer, files: &[(&str, &str)]) -> Result<Nginx, TestkitError> {
        let listens = balancer.plain.or(balancer.tls).expect("a listener");
        let upstreams = balancer.upstreams_conf();
        let files = [files, &[("upstreams.conf", upstreams.as_str())]].concat();
        Self::start(&balancer.nginx_conf(), &files, listens)
    }

    /// Takes this configuration, as [`Nginx::reload`] does.
    ///
    /// # Errors
    /// As [`Nginx::reload`].
    pub fn rebalance(&self, balancer: &Balancer) -> Result<(), TestkitError> {
        self.write("upstreams.conf", &balancer.upstreams_conf())?;
        self.reload(&balancer.nginx_conf())
    }

    /// Where it takes connections.
    pub fn addr(&self) -> SocketAddr {
        self.listens
    }

    /// Its folder: the configuration is `nginx.conf` there.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The master's process id.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.daemon.pid().expect("a running nginx")
    }

    /// What its error log and its outputs say so far.
    pub fn said(&self) -> String {
        let log = std::fs::read(self.dir.path().join("logs/error.log")).unwrap_or_default();
        format!("{}{}", String::from_utf8_lossy(&log), self.daemon.said())
    }

    /// Takes a new configuration, without an interruption: old connections stay with the old workers. Comes back when new workers serve.
    ///
    /// # Errors
    /// When the configuration is wrong; the old one stays in force then.
    ///
    /// # Panics
    /// When no new worker serves within 30 s.
    pub fn reload(&self, config: &str) -> Result<(), TestkitError> {
        self.write("next.conf", config)?;
        self.check("next.conf")?;
        self.write("nginx.conf", config)?;
        let before = self.workers();
        self.daemon.signal(Signal::HUP);
        wait_until("new workers of nginx", RELOAD_MAX, || {
            self.workers().iter().any(|worker| !before.contains(worker))
        });
        Ok(())
    }

    /// `kill -9` of the master and all workers, and waits until the master is gone.
    pub fn kill9(&self) {
        self.daemon.end(Signal::KILL);
    }

    /// Lets it end at once and in good order (which cuts connections), and waits until it has.
    pub fn shut_down(&self) {
        self.daemon.end(Signal::TERM);
    }

    /// Starts it again with the configuration that it had last.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn restart(&self) -> Result<(), TestkitError> {
        self.shut_down();
        self.launch()
    }

    /// The process ids of its workers, those that are about to end too.
    ///
    /// # Panics
    /// When it does not run.
    pub fn workers(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), TestkitError> {
        std::fs::write(self.dir.path().join(name), text)
            .map_err(|e| TestkitError::io(format!("write {name}"), e))
    }

    fn check(&self, config: &str) -> Result<(), TestkitError> {
        let output = self
            .command(config)
            .arg("-t")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| TestkitError::io("run nginx -t", e))?;
        if output.status.success() {
            return Ok(());
        }
        Err(TestkitError::ExitedEarly {
            program: "nginx".into(),
            status: output.status.to_string(),
            code: output.status.code(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn command(&self, config: &str) -> Command {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(self.dir.path()).args(["-c", config, "-e", "logs/error.log"]);
        command
    }

    fn launch(&self) -> Result<(), TestkitError> {
        let mut command = self.command("nginx.conf");
        let config = std::fs::read_to_string(self.dir.path().join("nginx.conf")).unwrap_or_default();
        if !config.contains("daemon ") {
            command.args(["-g", "daemon off;"]);
        }
        self.daemon.launch(&mut command, START_MAX, || TcpStream::connect(self.listens).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::free_port;
    use std::io::Read as _;
    use std::net::Ipv4Addr;

    fn config(listens: SocketAddr, word: &str) -> String {
        let user = if crate::is_root() { "user root;" } else { "" };
        format!(
            "load_module {STREAM_MODULE};\n{user}\nworker_processes 1;\npid nginx.pid;\nevents {{ }}\n\
             stream {{ server {{ listen {listens}; return {word}; }} }}\n"
        )
    }

    fn word(nginx: &Nginx) -> String {
        let mut text = String::new();
        let _ = TcpStream::connect(nginx.addr()).and_then(|mut stream| stream.read_to_string(&mut text));
        text
    }

    #[test]
    fn it_serves_reloads_refuses_a_wrong_configuration_dies_and_comes_back() {
        if !Nginx::available() {
            return;
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let nginx = Nginx::start(&config(addr, "one"), &[], addr).unwrap();
        assert_eq!(word(&nginx), "one");
        nginx.reload(&config(addr, "two")).unwrap();
        // While an old worker is there it may take a connection.
        wait_until("the new workers are alone", START_MAX, || nginx.workers().len() == 1);
        assert_eq!(word(&nginx), "two");
        let wrong = nginx.reload(&config(addr, "two; no_such_thing")).unwrap_err();
        assert!(wrong.stderr().contains("no_such_thing"), "{wrong}");
        assert_eq!(word(&nginx), "two");
        let (master, workers) = (nginx.pid(), nginx.workers());
        nginx.kill9();
        wait_until("master and workers are gone", START_MAX, || {
            !process::is_alive(master) && workers.iter().all(|worker| !process::is_alive(*worker))
        });
        nginx.restart().unwrap();
        assert_eq!(word(&nginx), "two");
    }
}
