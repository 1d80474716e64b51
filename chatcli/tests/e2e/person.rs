//! Somebody at a `chatcli` in script mode.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use testkit::{Chatd, try_wait_until};

use crate::LONG;

/// The password of everybody.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// `chatcli` with a script, not yet started.
pub(crate) fn chatcli(addr: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcli"));
    command.args(["--connect", &addr.to_string(), "--timeout", "25"]);
    command
}

/// Runs a whole script: its exit code and what it said.
pub(crate) fn run(mut command: Command, script: &str) -> (Option<i32>, Vec<String>) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run chatcli");
    // One that ends early, for a bad address say, closes its end.
    let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
    let output = child.wait_with_output().expect("wait for chatcli");
    let said = String::from_utf8(output.stdout).expect("it says UTF-8");
    (output.status.code(), said.lines().map(str::to_owned).collect())
}

/// A running script that is written as it goes.
pub(crate) struct Person {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    name: String,
}

impl Person {
    /// Starts a `chatcli` and says nothing to it.
    pub(crate) fn new(addr: SocketAddr, name: &str) -> Self {
        let mut child =
            chatcli(addr).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run chatcli");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (output, into) = (child.stdout.take().unwrap(), Arc::clone(&said));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                into.lock().unwrap().push(line.unwrap());
            }
        });
        let input = child.stdin.take();
        Self { child, input, said, reader: Some(reader), name: name.into() }
    }

    /// Registers and logs in.
    pub(crate) fn join(chatd: &Chatd, name: &str) -> Self {
        let mut person = Self::new(chatd.chat_addr(), name);
        person.say(&format!("register {name} {PASSWORD}"));
        person.say(&format!("login {name} {PASSWORD}"));
        person.wait_for("synced");
        person
    }

    /// One more line of the script.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").expect("write to chatcli");
    }

    /// All that was said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// The lines that begin with this event.
    pub(crate) fn events(&self, kind: &str) -> Vec<String> {
        self.said().into_iter().filter(|line| line.split(' ').next() == Some(kind)).collect()
    }

    /// Waits until a line with this in it was said.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(text, |said| said.iter().any(|line| line.contains(text)));
    }

    /// Waits until what was said is like this.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut cond: impl FnMut(&[String]) -> bool) {
        let seen = try_wait_until(LONG, || cond(&self.said()));
        assert!(seen, "{} waited in vain for {what}; said:\n{}", self.name, self.said().join("\n"));
    }

    /// Ends the script, and waits for the end of the program.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        drop(self.input.take());
        assert!(
            try_wait_until(LONG, || self.child.try_wait().unwrap().is_some()),
            "{} does not end; said:\n{}",
            self.name,
            self.said().join("\n")
        );
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.said())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
