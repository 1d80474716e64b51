//! A client written from the protocol page alone: JSON lines over TCP, and every line checked for its shape.

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The bound of every wait: far beyond what a healthy server needs.
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// How long a connection is watched when the claim is that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(200);
/// The largest integer that an id may be.
pub(crate) const ID_MAX: u64 = (1 << 53) - 1;
/// A line's limit before login, on both sides.
pub(crate) const LINE_MAX_BEFORE_LOGIN: usize = 4096;
/// A line's limit after login, on both sides.
pub(crate) const LINE_MAX: usize = 65_536;

const TRANSCRIPT_LINES: usize = 40;
const ERROR_CODES: [&str; 13] = [
    "bad_json",
    "bad_request",
    "too_large",
    "unsupported_type",
    "unsupported_version",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
    "rate_limited",
    "overloaded",
    "unavailable",
    "internal",
];
const BYE_CODES: [&str; 10] = [
    "login_timeout",
    "idle",
    "too_large",
    "too_many_errors",
    "rate_limited",
    "replaced",
    "logged_out",
    "slow_consumer",
    "shutdown",
    "internal",
];
const PUSH_TYPES: [&str; 11] = [
    "hello",
    "bye",
    "message",
    "synced",
    "reset",
    "read",
    "delivered",
    "typing",
    "friend",
    "presence",
    "invite",
];

/// What a wait on the wire ended with.
#[derive(Debug)]
pub(crate) enum Got {
    /// One line, parsed and checked.
    Line(Value),
    /// Nothing in the given time.
    Silence,
    /// The server closed, or reset, the connection.
    Closed,
}

/// One connection. What comes while another thing is awaited is kept in the inbox, in order.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    closed: bool,
    next_id: u64,
    inbox: VecDeque<Value>,
    transcript: VecDeque<String>,
    line_max: usize,
}

impl Client {
    /// Connects and leaves `hello` unread.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&addr, WAIT).expect("connect"))
    }

    /// Connects with as small a receive buffer as the system allows, so that not reading is felt soon.
    pub(crate) fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("socket");
        socket.set_recv_buffer_size(4096).expect("receive buffer");
        socket.connect_timeout(&addr.into(), WAIT).expect("connect");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_write_timeout(Some(WAIT)).expect("write timeout");
        Self {
            stream,
            input: Vec::new(),
            closed: false,
            next_id: 1,
            inbox: VecDeque::new(),
            transcript: VecDeque::new(),
            line_max: LINE_MAX_BEFORE_LOGIN,
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).unwrap_or_else(|error| self.fail(&format!("a write failed: {error}")));
    }

    /// Sends bytes as they are; a server that has closed already is the caller's business.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        self.note(format!("> {}", shown.trim_end()));
        self.stream.write_all(bytes)
    }

    /// Sends one object as one line, as it is.
    pub(crate) fn tell(&mut self, line: &Value) {
        self.raw(format!("{line}\n").as_bytes());
    }

    /// Gives a request the next id of this connection and returns both.
    pub(crate) fn with_id(&mut self, mut request: Value) -> (u64, Value) {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        if request["type"] == "login" {
            self.line_max = LINE_MAX;
        }
        (id, request)
    }

    /// Sends a request with the next id, without waiting for the reply.
    pub(crate) fn ask(&mut self, request: Value) -> u64 {
        let (id, request) = self.with_id(request);
        self.tell(&request);
        id
    }

    /// The reply to a request that was sent with this id.
    pub(crate) fn reply(&mut self, id: u64) -> Value {
        self.take(&format!("the reply to {id}"), |line| line["id"] == json!(id))
    }

    /// Sends a request and waits for its reply, whichever it is.
    pub(crate) fn request(&mut self, request: Value) -> Value {
        let id = self.ask(request);
        self.reply(id)
    }

    /// Sends a request that has to be answered with `ok`.
    pub(crate) fn ok(&mut self, request: Value) -> Value {
        let asked = request.to_string();
        let reply = self.request(request);
        if reply["type"] != "ok" {
            self.fail(&format!("{asked} was answered with {reply}"));
        }
        reply
    }

    /// Sends a request that has to be answered with `error`; its code.
    pub(crate) fn err(&mut self, request: Value) -> String {
        let asked = request.to_string();
        let reply = self.request(request);
        if reply["type"] != "error" {
            self.fail(&format!("{asked} should be an error, and was answered with {reply}"));
        }
        reply["code"].as_str().expect("a code").to_owned()
    }

    /// The next push of this type, from the inbox or from the wire.
    pub(crate) fn push(&mut self, kind: &str) -> Value {
        self.take(&format!("a push of type {kind}"), |line| line["type"] == kind)
    }

    /// The first line, in the inbox or on the wire, that fits.
    pub(crate) fn take(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.inbox.iter().position(&fits) {
            return self.inbox.remove(at).expect("just found");
        }
        let deadline = Instant::now() + WAIT;
        loop {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Got::Line(line) if fits(&line) => return line,
                Got::Line(line) => self.inbox.push_back(line),
                Got::Silence => self.fail(&format!("waited in vain for {what}")),
                Got::Closed => self.fail(&format!("closed instead of {what}")),
            }
        }
    }

    /// The next line that the server sends, whatever it is; the inbox has to be empty.
    pub(crate) fn line(&mut self) -> Value {
        if !self.inbox.is_empty() {
            self.fail(&format!("unread lines before: {:?}", self.inbox));
        }
        match self.next(WAIT) {
            Got::Line(line) => line,
            Got::Silence => self.fail("waited in vain for a line"),
            Got::Closed => self.fail("closed instead of a line"),
        }
    }

    /// A round trip: what the server had sent before it is in the inbox afterwards.
    pub(crate) fn fence(&mut self) {
        self.ok(json!({"type": "ping"}));
    }

    /// Removes and returns what the inbox holds of this type.
    pub(crate) fn seen(&mut self, kind: &str) -> Vec<Value> {
        let (seen, rest) = self.inbox.drain(..).partition(|line| line["type"] == kind);
        self.inbox = rest;
        Vec::from_iter::<VecDeque<Value>>(seen)
    }

    /// Asserts that no further line comes, and that none is unread.
    pub(crate) fn assert_quiet(&mut self) {
        self.fence();
        if !self.inbox.is_empty() {
            self.fail(&format!("unexpected: {:?}", self.inbox));
        }
        match self.next(QUIET) {
            Got::Silence => {}
            other => self.fail(&format!("unexpected: {other:?}")),
        }
    }

    /// Asserts that no further push of this type comes, and that none is unread.
    pub(crate) fn assert_no_more(&mut self, kind: &str) {
        self.fence();
        let deadline = Instant::now() + QUIET;
        while let Got::Line(line) = self.next(deadline.saturating_duration_since(Instant::now())) {
            self.inbox.push_back(line);
        }
        let seen = self.seen(kind);
        if !seen.is_empty() {
            self.fail(&format!("unexpected: {seen:?}"));
        }
    }

    /// Waits for the `bye` with this code and then for the end of the connection.
    pub(crate) fn expect_bye(&mut self, code: &str) -> Value {
        let bye = self.push("bye");
        if bye["code"] != code {
            self.fail(&format!("expected bye {code}, got {bye}"));
        }
        self.expect_closed();
        bye
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub(crate) fn expect_closed(&mut self) {
        match self.next(WAIT) {
            Got::Closed => {}
            Got::Line(line) => self.fail(&format!("expected the end, got {line}")),
            Got::Silence => self.fail("waited in vain for the end of the connection"),
        }
    }

    /// Everything up to the end of the connection, the inbox first.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        let mut rest = Vec::from_iter(self.inbox.drain(..));
        loop {
            match self.next(WAIT) {
                Got::Line(line) => rest.push(line),
                Got::Closed => return rest,
                Got::Silence => self.fail("waited in vain for the end of the connection"),
            }
        }
    }

    /// The next line on the wire, past the inbox.
    pub(crate) fn next(&mut self, timeout: Duration) -> Got {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(line) = self.cut_line() {
                return Got::Line(line);
            }
            if self.closed {
                return Got::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Got::Silence;
            }
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            self.read_once();
        }
    }

    /// What has arrived by now, without waiting.
    pub(crate) fn arrived(&mut self) -> Vec<Value> {
        self.stream.set_nonblocking(true).expect("non-blocking");
        while self.read_once() {}
        self.stream.set_nonblocking(false).expect("blocking");
        let mut lines = Vec::from_iter(self.inbox.drain(..));
        while let Some(line) = self.cut_line() {
            lines.push(line);
        }
        lines
    }

    /// Whether the server has ended the connection, as far as has been read.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Ends the writing side; replies can still come.
    pub(crate) fn shutdown_write(&self) {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
    }

    /// Resets the connection: what is unsent or unread is thrown away.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }

    fn read_once(&mut self) -> bool {
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(n) => {
                self.input.extend_from_slice(&chunk[..n]);
                return true;
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                    self.closed = true;
                }
                _ => self.fail(&format!("a read failed: {error}")),
            },
        }
        false
    }

    fn cut_line(&mut self) -> Option<Value> {
        let end = self.input.iter().position(|&byte| byte == b'\n')?;
        let bytes = self.input.drain(..=end).take(end).collect::<Vec<_>>();
        let text = String::from_utf8(bytes).expect("the server's lines are UTF-8");
        self.note(format!("< {}", text.chars().take(300).collect::<String>()));
        if text.len() > self.line_max {
            self.fail(&format!("a line of {} bytes, the limit is {}", text.len(), self.line_max));
        }
        let line = serde_json::from_str::<Value>(&text)
            .unwrap_or_else(|error| self.fail(&format!("no JSON: {error}")));
        if let Err(fault) = check_shape(&line) {
            self.fail(&fault);
        }
        Some(line)
    }

    fn note(&mut self, entry: String) {
        if self.transcript.len() == TRANSCRIPT_LINES {
            self.transcript.pop_front();
        }
        self.transcript.push_back(entry);
    }

    /// Ends the test with the last lines of this connection.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let transcript = Vec::from_iter(self.transcript.iter().map(String::as_str)).join("\n");
        panic!("{what}\nthe connection's last lines:\n{transcript}");
    }
}

/// Checks what holds for every line of the server.
fn check_shape(line: &Value) -> Result<(), String> {
    let fault = |what: &str| Err(format!("{what}: {line}"));
    let Some(object) = line.as_object() else { return fault("not an object") };
    let Some(kind) = object.get("type").and_then(Value::as_str) else { return fault("no type") };
    let id_fits = |id: &Value| id.as_u64().is_some_and(|id| id <= ID_MAX);
    match kind {
        "ok" if !object.get("id").is_some_and(id_fits) => fault("an ok without its id"),
        "ok" => Ok(()),
        "error" if !object.get("id").is_none_or(id_fits) => fault("an error with a strange id"),
        "error" => coded(line, &ERROR_CODES),
        _ if object.contains_key("id") => fault("a push with an id"),
        "bye" if !line["reconnect_after_ms"].is_null() && !line["reconnect_after_ms"].is_u64() => {
            fault("reconnect")
        }
        "bye" => coded(line, &BYE_CODES),
        _ if !PUSH_TYPES.contains(&kind) => fault("a push that the page does not know"),
        _ => Ok(()),
    }
}

fn coded(line: &Value, codes: &[&str]) -> Result<(), String> {
    let known = line["code"].as_str().is_some_and(|code| codes.contains(&code));
    match known && line["message"].is_string() {
        true => Ok(()),
        false => Err(format!("no code of the page, or no message: {line}")),
    }
}
