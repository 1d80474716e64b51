//! How users come in: connect, register, log in; a bounded number at a time, for each costs the server a password hash.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use reactor::{CloseReason, ConnId};
use rustc_hash::FxHashMap;

use crate::load::{At, Cx, LoadError, Shape, codec};
use crate::progress::Progress;
use crate::report::Report;
use crate::scan::{Kind, Line};

/// Users on their way in at a time while they need hashes: half of what waits at a server with a hash queue of 64.
const LANES_HASH: usize = 32;
/// The same by token.
const LANES_TOKEN: usize = 256;
/// How long a user waits that is told to try again, without being told when.
const RETRY_MS: u64 = 100;
/// Every user's; it protects nothing.
const PASSWORD: &str = "chatload chatload";

/// What users do at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Register, log in for a token, and leave.
    Enrol,
    /// Register, log in, and stay.
    Stay,
    /// Log in by the token from before, and stay.
    Token,
}

/// A connection's state.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) user: usize,
    /// When it began to connect.
    pub(crate) since: Instant,
    step: Step,
    /// What the server said before it closed.
    pub(crate) bye: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    Register,
    Login,
    Leaving,
    In,
}

impl Guest {
    pub(crate) fn is_in(&self) -> bool {
        self.step == Step::In
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.step == Step::Leaving
    }
}

/// A user, for the whole run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// The id that the server gave.
    pub(crate) id: u64,
    /// The connection, while the user is in.
    pub(crate) conn: Option<ConnId>,
    /// As it was on the wire, so no escape has to be thought of.
    pub(crate) token: Box<[u8]>,
}

/// Lets users in, and ends the run.
#[derive(Debug)]
pub(crate) struct Gate {
    target: SocketAddr,
    pub(crate) run_id: String,
    heartbeat: usize,
    pub(crate) accounts: Vec<Account>,
    pass: Pass,
    attempts: FxHashMap<ConnId, (usize, Instant)>,
    /// Who is to come in, in this order, and how many of them have begun.
    queue: Vec<usize>,
    next: usize,
    inside: usize,
    /// The queue begins anew at its end.
    turns: bool,
    seconds: usize,
    line: Vec<u8>,
    pub(crate) progress: Progress,
    pub(crate) done: Option<Sender<Result<Report, LoadError>>>,
}

impl Gate {
    pub(crate) fn new(
        target: SocketAddr,
        run_id: String,
        users: usize,
        heartbeat: u32,
        done: Sender<Result<Report, LoadError>>,
    ) -> Self {
        Self {
            target,
            run_id,
            heartbeat: usize::try_from(heartbeat).unwrap_or(usize::MAX).max(1),
            accounts: vec![Account::default(); users],
            pass: Pass::Stay,
            attempts: FxHashMap::default(),
            queue: Vec::new(),
            next: 0,
            inside: 0,
            turns: false,
            seconds: 0,
            line: Vec::new(),
            progress: Progress::new(),
            done: Some(done),
        }
    }

    /// Whether the run has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.done.is_none()
    }

    /// Lets all users in.
    pub(crate) fn begin<S: Shape>(&mut self, cx: &mut Cx<'_, S>, pass: Pass) {
        self.begin_with(cx, pass, (0..self.accounts.len()).collect());
    }

    /// Lets all users in by token, one after the other and again from the first, until [`Gate::end_turns`].
    pub(crate) fn begin_turns<S: Shape>(&mut self, cx: &mut Cx<'_, S>) {
        self.turns = true;
        self.begin(cx, Pass::Token);
    }

    /// Nobody else begins to come in.
    pub(crate) fn end_turns(&mut self) {
        self.turns = false;
        self.next = self.queue.len();
    }

    /// Lets these users in.
    pub(crate) fn begin_with<S: Shape>(&mut self, cx: &mut Cx<'_, S>, pass: Pass, users: Vec<usize>) {
        self.pass = pass;
        self.queue = users;
        self.next = 0;
        self.inside = 0;
        // In turns, nobody comes in twice at a time.
        let lanes = if pass == Pass::Token { LANES_TOKEN.min(self.queue.len()) } else { LANES_HASH };
        for _ in 0..lanes {
            self.admit(cx);
        }
    }

    /// Begins with the next user, if one is left.
    fn admit<S: Shape>(&mut self, cx: &mut Cx<'_, S>) {
        if self.turns && self.next >= self.queue.len() {
            self.next = 0;
        }
        let Some(&user) = self.queue.get(self.next) else { return };
        if self.is_over() {
            return;
        }
        self.next += 1;
        match cx.connect(self.target, codec()) {
            Ok(conn) => drop(self.attempts.insert(conn, (user, Instant::now()))),
            Err(error) => self.end(cx, Err(LoadError::Connect { user, error })),
        }
    }

    /// An attempt to connect has come to its end.
    pub(crate) fn opened(&mut self, conn: ConnId) -> Guest {
        let (user, since) = self.attempts.remove(&conn).unwrap_or((0, Instant::now()));
        Guest { user, since, step: Step::Hello, bye: None }
    }

    /// A user is in, or has left with its token. Whether it was the last.
    pub(crate) fn entered<S: Shape>(&mut self, cx: &mut Cx<'_, S>) -> bool {
        self.inside += 1;
        self.admit(cx);
        !self.turns && self.inside == self.queue.len()
    }

    /// A user's connection is gone.
    pub(crate) fn forget(&mut self, user: usize) {
        if let Some(account) = self.accounts.get_mut(user) {
            account.conn = None;
        }
    }

    /// A line for a user who is not in yet. Whether it was the one that let the last user in.
    pub(crate) fn on_line<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At, line: &Line<'_>) -> bool {
        let Some(step) = cx.conn(at.conn).map(|guest| guest.step) else { return false };
        match (step, line.kind) {
            (Step::Hello, Kind::Hello) => {
                let next = if self.pass == Pass::Token { Step::Login } else { Step::Register };
                self.go(cx, at, next);
            }
            (Step::Register, Kind::Ok) => self.go(cx, at, Step::Login),
            (Step::Login, Kind::Ok) => return self.logged_in(cx, at, line),
            (Step::Register | Step::Login, Kind::Error) => self.on_refusal(cx, at, line),
            _ => {}
        }
        false
    }

    fn logged_in<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At, line: &Line<'_>) -> bool {
        let stays = self.pass != Pass::Enrol;
        if let Some(account) = self.accounts.get_mut(at.user) {
            account.id = line.user;
            account.token = line.token.into();
            account.conn = stays.then_some(at.conn);
        }
        self.step(cx, at, if stays { Step::In } else { Step::Leaving });
        if stays {
            return self.entered(cx);
        }
        cx.close(at.conn, CloseReason::Local("enrolled"));
        false
    }

    fn on_refusal<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At, line: &Line<'_>) {
        if is_passing(line.code) {
            let wait = Duration::from_millis(line.retry_after_ms.unwrap_or(RETRY_MS));
            cx.set_conn_timer(at.conn, wait, 0);
            return;
        }
        let mut why = line.words();
        if line.code == b"conflict" {
            why += "; a run id can be used only once on a server";
        }
        self.end(cx, Err(LoadError::Refused { user: at.user, why }));
    }

    fn go<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At, step: Step) {
        self.step(cx, at, step);
        self.ask(cx, at);
    }

    fn step<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At, step: Step) {
        if let Some(guest) = cx.conn_mut(at.conn) {
            guest.step = step;
        }
    }

    /// Sends the request of the user's step, for the first time or again.
    pub(crate) fn ask<S: Shape>(&mut self, cx: &mut Cx<'_, S>, at: At) {
        let Some(step) = cx.conn(at.conn).map(|guest| guest.step) else { return };
        let name = format!("load-{}-{}", self.run_id, at.user);
        self.line.clear();
        match step {
            Step::Register => {
                let text = format!(r#"{{"type":"register","id":1,"name":"{name}","password":"{PASSWORD}"}}"#);
                self.line.extend_from_slice(text.as_bytes());
            }
            Step::Login if self.pass == Pass::Token => {
                let token = self.accounts.get(at.user).map(|account| &*account.token).unwrap_or_default();
                self.line.extend_from_slice(br#"{"type":"login","id":2,"token":""#);
                self.line.extend_from_slice(token);
                self.line.extend_from_slice(br#""}"#);
            }
            Step::Login => {
                let text = format!(r#"{{"type":"login","id":2,"name":"{name}","password":"{PASSWORD}"}}"#);
                self.line.extend_from_slice(text.as_bytes());
            }
            Step::Hello | Step::Leaving | Step::In => return,
        }
        self.line.push(b'\n');
        // A connection that is gone has its `on_close`.
        let _ = cx.send(at.conn, &self.line);
    }

    /// Once a second: a sign of life of a part of the users, so that each gives one in time and they do not all speak at once.
    pub(crate) fn keep_alive<S: Shape>(&mut self, cx: &mut Cx<'_, S>) {
        self.seconds += 1;
        let turn = self.seconds % self.heartbeat;
        for account in self.accounts.iter().skip(turn).step_by(self.heartbeat) {
            if let Some(conn) = account.conn {
                let _ = cx.send(conn, b"{\"type\":\"ping\"}\n");
            }
        }
    }

    pub(crate) fn progress_text(&self) -> String {
        let what = match self.pass {
            Pass::Enrol => "registered",
            Pass::Stay | Pass::Token => "logged in",
        };
        format!("{what}: {} of {}", self.inside, self.queue.len())
    }
}

/// Whether an error asks to try the same again.
pub(crate) fn is_passing(code: &[u8]) -> bool {
    matches!(code, b"overloaded" | b"rate_limited" | b"unavailable")
}
