//! A client that knows nothing but JSON lines.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use crate::TestkitError;
use crate::transcript::Transcript;

/// How long the calls without a timeout of their own wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// To whom a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'a> {
    /// A user by id.
    User(u64),
    /// A user by name.
    Name(&'a str),
    /// A conversation.
    Conv(u64),
}

/// One connection that speaks JSON lines, blocking. It shares no code with the product, so a test through it sees what a
/// stranger's client would see.
///
/// What arrives is sorted by what waits for it: [`LineClient::request`] and [`LineClient::reply`] keep what is not theirs
/// (pushes in order, other replies by id) for [`LineClient::next_push`], [`LineClient::pushes`] and later replies. [`LineClient::recv`]
/// and [`LineClient::recv_line`] are lower: they take the next line from the wire and keep nothing.
///
/// Every method that has no `Result` panics when it does not get what it is for, and shows the last lines of the connection.
#[derive(Debug)]
pub struct LineClient {
    stream: TcpStream,
    /// What has been read and not yet been taken; lines begin at `start`.
    input: Vec<u8>,
    start: usize,
    /// No line end before this index.
    scanned: usize,
    eof: bool,
    next_id: u64,
    pushes: VecDeque<Value>,
    replies: HashMap<u64, Value>,
    patience: Duration,
    transcript: Transcript,
}

impl LineClient {
    /// Connects. The server's `hello` is left to be read: by [`LineClient::next_push`]`("hello")` or [`LineClient::recv`].
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> LineClient {
        LineClient::try_connect(addr).unwrap_or_else(|e| panic!("connect to {addr}: {e}"))
    }

    /// Connects, for servers that may be away.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_connect(addr: SocketAddr) -> io::Result<LineClient> {
        LineClient::new(TcpStream::connect_timeout(&addr, PATIENCE)?)
    }

    /// Connects with a small receive buffer, so that a client which does not read soon fills the server's send buffer. The
    /// buffer is set before the connection is made, since the window it offers hangs on it.
    #[track_caller]
    pub fn connect_with_rcvbuf(addr: SocketAddr, bytes: usize) -> LineClient {
        let go = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.set_recv_buffer_size(bytes)?;
            socket.connect_timeout(&addr.into(), PATIENCE)?;
            LineClient::new(socket.into())
        };
        go().unwrap_or_else(|e| panic!("connect to {addr} with a receive buffer of {bytes}: {e}"))
    }

    fn new(stream: TcpStream) -> io::Result<LineClient> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(LineClient {
            stream,
            input: Vec::new(),
            start: 0,
            scanned: 0,
            eof: false,
            next_id: 1,
            pushes: VecDeque::new(),
            replies: HashMap::new(),
            patience: PATIENCE,
            transcript: Transcript::new(),
        })
    }

    /// How long the calls without a timeout of their own wait; 15 s when not set.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The connection itself, for what this type does not do.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The last lines of the connection, both directions, for a test's own messages.
    pub fn transcript(&self) -> String {
        self.transcript.to_string()
    }

    // ---- bytes and lines ----

    /// Writes bytes as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Err(e) = self.try_send_raw(bytes) {
            self.fail(&format!("could not write {} bytes: {e}", bytes.len()));
        }
    }

    /// Writes bytes as they are, for servers that may have closed.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` or `TimedOut` when the other side takes nothing for 15 s.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transcript.sent(bytes);
        self.stream.write_all(bytes)
    }

    /// Writes one value as a line, as it is: no `id` is added.
    #[track_caller]
    pub fn send(&mut self, value: &Value) {
        self.send_raw(format!("{value}\n").as_bytes());
    }

    /// The next line from the wire without its line end, `None` at the end of the stream. A last line without its `\n` counts as a line.
    ///
    /// # Errors
    /// `Timeout` when no whole line arrives within `timeout`, `Io` when the connection breaks.
    pub fn recv_line(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, TestkitError> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(line) = self.take_line() {
                self.transcript.received(&line);
                return Ok(Some(line));
            }
            if self.eof {
                return Ok(None);
            }
            self.fill(end, timeout)?;
        }
    }

    /// The next line from the wire as a value, `None` at the end of the stream.
    ///
    /// # Errors
    /// As [`LineClient::recv_line`], and `NotJson`.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Value>, TestkitError> {
        let Some(line) = self.recv_line(timeout)? else { return Ok(None) };
        match serde_json::from_slice(&line) {
            Ok(value) => Ok(Some(value)),
            Err(source) => {
                Err(TestkitError::NotJson { line: String::from_utf8_lossy(&line).into_owned(), source })
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let found = self.input[self.scanned..].iter().position(|b| *b == b'\n').map(|at| self.scanned + at);
        let (end, next) = match found {
            Some(at) => (at, at + 1),
            None if self.eof && self.start < self.input.len() => (self.input.len(), self.input.len()),
            None => {
                self.scanned = self.input.len();
                return None;
            }
        };
        let line = self.input[self.start..end].to_vec();
        self.start = next;
        self.scanned = next;
        if self.start == self.input.len() {
            self.input.clear();
            (self.start, self.scanned) = (0, 0);
        }
        Some(line)
    }

    /// One read that blocks until `end` at most.
    fn fill(&mut self, end: Instant, timeout: Duration) -> Result<(), TestkitError> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        let io = |e| TestkitError::io("read from the server", e);
        self.stream.set_read_timeout(Some(left)).map_err(io)?;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                self.eof = true;
                self.transcript.note("end of stream");
            }
            Ok(n) => {
                self.input.drain(..self.start);
                self.scanned -= self.start;
                self.start = 0;
                self.input.extend_from_slice(&chunk[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if Instant::now() >= end {
                    return Err(TestkitError::Timeout { after: timeout });
                }
            }
            Err(e) => {
                self.transcript.note(&e.to_string());
                return Err(io(e));
            }
        }
        Ok(())
    }

    // ---- requests and replies ----

    /// Sends a request and waits for its reply, `ok` or `error`. An `id` is added when it has none that is a number.
    #[track_caller]
    pub fn request(&mut self, request: Value) -> Value {
        let id = self.post(request);
        self.reply(id)
    }

    /// Sends a request without waiting; its `id` for [`LineClient::reply`]. An `id` is added when it has none that is a number.
    #[track_caller]
    pub fn post(&mut self, mut request: Value) -> u64 {
        let id = match request["id"].as_u64() {
            Some(id) => id,
            None => {
                let id = self.next_id;
                self.next_id += 1;
                request["id"] = json!(id);
                id
            }
        };
        self.send(&request);
        id
    }

    /// Waits for the reply to the request `id`. Pushes and other replies that come before are kept.
    #[track_caller]
    pub fn reply(&mut self, id: u64) -> Value {
        if let Some(reply) = self.replies.remove(&id) {
            return reply;
        }
        let end = Instant::now() + self.patience;
        loop {
            let value = self.next_before(end, &format!("the reply to request {id}"));
            match reply_id(&value) {
                Some(got) if got == id => return value,
                Some(got) => {
                    if self.replies.insert(got, value).is_some() {
                        self.fail(&format!("a second reply to request {got}"));
                    }
                }
                None => self.pushes.push_back(value),
            }
        }
    }

    /// Sends a request whose reply must be `ok`; that reply.
    #[track_caller]
    pub fn ok(&mut self, request: Value) -> Value {
        let what = request.to_string();
        let reply = self.request(request);
        if reply["type"] != "ok" {
            self.fail(&format!("{what} was answered with {reply}"));
        }
        reply
    }

    /// Sends a request whose reply must be `error` with this `code`; that reply.
    #[track_caller]
    pub fn err(&mut self, request: Value, code: &str) -> Value {
        let what = request.to_string();
        let reply = self.request(request);
        if reply["type"] != "error" || reply["code"] != code {
            self.fail(&format!("{what} wanted error {code:?} and was answered with {reply}"));
        }
        reply
    }

    // ---- pushes ----

    /// The pushes (and errors without `id`) that were kept and not yet taken, oldest first.
    pub fn pushes(&self) -> &VecDeque<Value> {
        &self.pushes
    }

    /// Takes all kept pushes.
    pub fn take_pushes(&mut self) -> Vec<Value> {
        self.pushes.drain(..).collect()
    }

    /// The next push with this `type`: a kept one, else from the wire. Others that come before are kept.
    #[track_caller]
    pub fn next_push(&mut self, kind: &str) -> Value {
        match self.try_next_push(kind, self.patience) {
            Some(push) => push,
            None => self.fail(&format!("no {kind:?} came within {:?}", self.patience)),
        }
    }

    /// The next push with this `type`, `None` when none comes within `timeout` or the stream ends.
    #[track_caller]
    pub fn try_next_push(&mut self, kind: &str, timeout: Duration) -> Option<Value> {
        if let Some(at) = self.pushes.iter().position(|p| p["type"] == kind) {
            return self.pushes.remove(at);
        }
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let value = match self.recv(left) {
                Ok(value) => value?,
                Err(TestkitError::Timeout { .. }) => return None,
                Err(e) => self.fail(&format!("while waiting for a {kind:?}: {e}")),
            };
            match reply_id(&value) {
                Some(id) => drop(self.replies.insert(id, value)),
                None if value["type"] == kind => return Some(value),
                None => self.pushes.push_back(value),
            }
        }
    }

    /// Listens for `during` and gives all kept and arriving pushes. For claims that something does *not* come; prefer
    /// waiting for something that must come behind it.
    #[track_caller]
    pub fn listen(&mut self, during: Duration) -> Vec<Value> {
        let none = self.try_next_push("no push has this type", during);
        debug_assert!(none.is_none());
        self.take_pushes()
    }

    // ---- the common requests ----

    /// Registers; the new user's id. Must be `ok`.
    #[track_caller]
    pub fn register(&mut self, name: &str, password: &str) -> u64 {
        let reply = self.ok(json!({"type": "register", "name": name, "password": password}));
        self.number(&reply, "user")
    }

    /// Logs in by password; the whole reply. Must be `ok`.
    #[track_caller]
    pub fn login(&mut self, name: &str, password: &str) -> Value {
        self.ok(json!({"type": "login", "name": name, "password": password}))
    }

    /// Logs in by token; the whole reply. Must be `ok`.
    #[track_caller]
    pub fn login_token(&mut self, token: &str) -> Value {
        self.ok(json!({"type": "login", "token": token}))
    }

    /// Sends a text; the whole reply. Must be `ok`.
    #[track_caller]
    pub fn send_text(&mut self, to: To<'_>, text: &str) -> Value {
        self.ok(to.request(None, text))
    }

    /// Sends a text with a `client_id`; the whole reply. Must be `ok`.
    #[track_caller]
    pub fn send_text_as(&mut self, to: To<'_>, client_id: &str, text: &str) -> Value {
        self.ok(to.request(Some(client_id), text))
    }

    /// Acknowledges a conversation up to `seq` and waits for the `ok`.
    #[track_caller]
    pub fn ack(&mut self, conv: u64, seq: u64) -> Value {
        self.ok(json!({"type": "ack", "conv": conv, "seq": seq}))
    }

    /// A `ping` and its reply.
    #[track_caller]
    pub fn ping(&mut self) -> Value {
        self.ok(json!({"type": "ping"}))
    }

    /// The whole number at `key`.
    #[track_caller]
    pub fn number(&self, value: &Value, key: &str) -> u64 {
        match value[key].as_u64() {
            Some(n) => n,
            None => self.fail(&format!("no whole number {key:?} in {value}")),
        }
    }

    // ---- ends ----

    /// Waits for a `bye`, which must have this code; the whole push.
    #[track_caller]
    pub fn expect_bye(&mut self, code: &str) -> Value {
        let bye = self.next_push("bye");
        if bye["code"] != code {
            self.fail(&format!("wanted bye {code:?}, got {bye}"));
        }
        bye
    }

    /// Waits for the end of the stream, by FIN or by reset; the lines that came before it.
    #[track_caller]
    pub fn expect_closed(&mut self) -> Vec<Vec<u8>> {
        let end = Instant::now() + self.patience;
        let mut lines = Vec::new();
        loop {
            match self.recv_line(end.saturating_duration_since(Instant::now())) {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => return lines,
                Err(TestkitError::Io { source, .. }) if is_reset(&source) => return lines,
                Err(e) => self.fail(&format!("wanted the end of the stream: {e}")),
            }
        }
    }

    /// Shuts down the writing side (sends FIN).
    #[track_caller]
    pub fn shutdown_write(&mut self) {
        self.transcript.note("writing side shut down");
        if let Err(e) = self.stream.shutdown(Shutdown::Write) {
            self.fail(&format!("shut down the writing side: {e}"));
        }
    }

    /// Sets the receive buffer's size. See [`LineClient::connect_with_rcvbuf`] for one that holds from the start.
    pub fn set_rcvbuf(&self, bytes: usize) {
        SockRef::from(&self.stream).set_recv_buffer_size(bytes).expect("set the receive buffer");
    }

    /// Ends the connection by a reset (RST) in place of FIN.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("set the linger time");
    }

    // ---- inside ----

    #[track_caller]
    fn next_before(&mut self, end: Instant, what: &str) -> Value {
        match self.recv(end.saturating_duration_since(Instant::now())) {
            Ok(Some(value)) => value,
            Ok(None) => self.fail(&format!("the stream ended while waiting for {what}")),
            Err(e) => self.fail(&format!("while waiting for {what}: {e}")),
        }
    }

    #[track_caller]
    fn fail(&self, message: &str) -> ! {
        panic!("{message}\n--- the connection's last lines ---\n{}", self.transcript);
    }
}

impl To<'_> {
    /// The `send` request, without an `id`.
    pub fn request(self, client_id: Option<&str>, text: &str) -> Value {
        let mut request = json!({"type": "send", "text": text});
        match self {
            To::User(id) => request["user"] = json!(id),
            To::Name(name) => request["user"] = json!(name),
            To::Conv(conv) => request["conv"] = json!(conv),
        }
        if let Some(client_id) = client_id {
            request["client_id"] = json!(client_id);
        }
        request
    }
}

/// The `id` of a reply; `None` for pushes and for errors that answer a request without `id`.
fn reply_id(value: &Value) -> Option<u64> {
    value["id"].as_u64()
}

fn is_reset(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}
