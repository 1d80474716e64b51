//! Examples as programs: found, started, listened to, stopped.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};

use super::{BOUND, connect};

/// An example that was built with this test.
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is built by `cargo test -p reactor` or `cargo build -p reactor --examples`",
        path.display()
    );
    Command::new(path)
}

/// Runs an example to its end. What it said on both outputs, as text.
pub fn run(name: &str, arguments: &[&str]) -> (Output, String, String) {
    let output = example(name).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// A server that runs until this is dropped.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    /// What it says on its standard error, line by line; read all the time, so that it can go on saying it.
    lines: Receiver<String>,
}

impl Running {
    pub fn start(name: &str, threads: &str, more: &[&str]) -> Self {
        let mut command = example(name);
        command.args(["--listen", "127.0.0.1:0", "--threads", threads]).args(more).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = unbounded();
        std::thread::spawn(move || {
            // Ends with the program, or with the test.
            errors.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok())
        });
        let mut running = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), lines };
        let line = running.line();
        let address = line.strip_prefix("listening on ").and_then(|address| address.parse().ok());
        running.address = address.unwrap_or_else(|| panic!("{name} said {line:?}"));
        running
    }

    /// The next line of its standard error.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(BOUND).expect("a line within the bound")
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Asks it to end, and waits until it does.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let deadline = Instant::now() + BOUND;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that still comes, as text.
pub fn rest(client: &mut TcpStream) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    all
}
