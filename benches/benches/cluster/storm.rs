//! All clients of a node that is killed log in by token at the other one, as clients do: after a pause of their own within the first second.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use testkit::Chatd;

use crate::nodes::Nodes;
use crate::{Failure, Options};

/// Bars: seconds until all are back, and the longest turn of a loop in milliseconds.
const BACK_MAX_S: f64 = 30.0;
const LAG_MAX_MS: f64 = 100.0;
/// Clients that are let in at once while they register.
const TOGETHER: usize = 200;
const GIVE_UP: Duration = Duration::from_secs(120);

/// A client on its way to a session.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// What it sends, one line after each answer.
    lines: Vec<String>,
    sent: usize,
    token: Option<String>,
}

pub(crate) fn run(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let count = if options.quick { 200 } else { options.clients };
    let nodes = Nodes::start(2)?;
    let (mut tokens, mut here) = (Vec::with_capacity(count), BTreeMap::new());
    let first = nodes.node(0)?.chat_addr();
    while tokens.len() < count {
        let some: Vec<Vec<String>> = (tokens.len()..count.min(tokens.len() + TOGETHER))
            .map(|at| {
                let who = format!("\"name\":\"storm-{at}\",\"password\":\"{}\"", Chatd::PASSWORD);
                ["register", "login"].map(|kind| format!("{{\"type\":\"{kind}\",\"id\":1,{who}}}\n")).to_vec()
            })
            .collect();
        let mut gone = Crowd::new()?;
        gone.let_in(first, some, Duration::ZERO)?;
        for client in gone.done {
            tokens.push(client.token.clone().ok_or("a login without a token")?);
            here.insert(tokens.len(), client.stream);
        }
    }
    eprintln!("  {count} clients are on the first node");
    nodes.node(0)?.kill9();
    drop(here);
    let begin = Instant::now();
    let lines = tokens
        .iter()
        .map(|token| vec![format!("{{\"type\":\"login\",\"id\":1,\"token\":\"{token}\"}}\n")])
        .collect();
    let mut crowd = Crowd::new()?;
    crowd.let_in(nodes.node(1)?.chat_addr(), lines, Duration::from_secs(1))?;
    let back = begin.elapsed().as_secs_f64();
    let lag = nodes.metric(1, "chatd_loop_lag_max_micros").ok_or("no lag in the metrics")? / 1e3;
    let case = format!("{count} clients of a killed node");
    rows.add(&case, "the other node", "all are back", "s", &[back], Some(Bar::AtMost(BACK_MAX_S)));
    rows.add(&case, "the other node", "longest turn of a loop", "ms", &[lag], Some(Bar::AtMost(LAG_MAX_MS)));
    Ok(())
}

/// Clients that log in side by side.
struct Crowd {
    poll: Poll,
    clients: BTreeMap<usize, Client>,
    done: Vec<Client>,
}

impl Crowd {
    fn new() -> Result<Self, Failure> {
        let poll = Poll::new().map_err(|e| e.to_string())?;
        Ok(Self { poll, clients: BTreeMap::new(), done: Vec::new() })
    }

    /// Connects all, evenly over a time, and has them say their lines.
    fn let_in(&mut self, addr: SocketAddr, all: Vec<Vec<String>>, over: Duration) -> Result<(), Failure> {
        let (count, begin) = (all.len(), Instant::now());
        let mut all = all.into_iter().enumerate();
        let mut next = all.next();
        let mut events = Events::with_capacity(1_024);
        while self.done.len() < count {
            while let Some((at, lines)) = next.take_if(|(at, _)| {
                begin.elapsed().as_secs_f64() >= over.as_secs_f64() * *at as f64 / count as f64
            }) {
                self.connect(at, addr, lines)?;
                next = all.next();
            }
            let wait = Duration::from_millis(if next.is_some() { 1 } else { 100 });
            self.poll.poll(&mut events, Some(wait)).map_err(|e| e.to_string())?;
            for event in &events {
                self.hear(event.token().0)?;
            }
            if begin.elapsed() > GIVE_UP {
                return Err(format!("only {} of {count} clients came in", self.done.len()));
            }
        }
        Ok(())
    }

    fn connect(&mut self, at: usize, addr: SocketAddr, lines: Vec<String>) -> Result<(), Failure> {
        let mut stream = TcpStream::connect(addr).map_err(|e| format!("connect: {e}"))?;
        self.poll
            .registry()
            .register(&mut stream, Token(at), Interest::READABLE)
            .map_err(|e| format!("register: {e}"))?;
        self.clients.insert(at, Client { stream, input: Vec::new(), lines, sent: 0, token: None });
        Ok(())
    }

    /// Reads what has come: the greeting, and an answer to each line.
    fn hear(&mut self, at: usize) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(&at) else { return Ok(()) };
        let mut buffer = [0; 4_096];
        loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => return Err("the server hung up".to_owned()),
                Ok(read) => client.input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(format!("a read failed: {e}")),
            }
        }
        while let Some(end) = client.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = client.input.drain(..=end).collect();
            let line: serde_json::Value = serde_json::from_slice(&line).map_err(|e| e.to_string())?;
            match line["type"].as_str() {
                Some("hello" | "ok") => {}
                Some("error") => return Err(format!("an error: {line}")),
                _ => continue,
            }
            if let Some(token) = line["token"].as_str() {
                client.token = Some(token.to_owned());
            }
            if let Some(line) = client.lines.get(client.sent) {
                client.sent += 1;
                // So few bytes always fit into an empty buffer.
                client.stream.write_all(line.as_bytes()).map_err(|e| format!("a write failed: {e}"))?;
            } else {
                self.done.extend(self.clients.remove(&at));
                break;
            }
        }
        Ok(())
    }
}
