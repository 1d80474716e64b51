//! The handler on the load generator's loop: lines to the gate while a user comes in, to the shape when it is in.

use std::time::{Duration, Instant};

use reactor::codec::LinesCodec;
use reactor::{CloseReason, ConnId, ConnectError, Context, Handler, OpenInfo, TimerFired};
use schema::limits::LINE_BYTES_MAX;

use crate::gate::{Gate, Guest};
use crate::report::Report;
use crate::scan::{Kind, Line, scan};

pub(crate) type Cx<'a, S> = Context<'a, Load<S>>;

/// Why a run could not be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A connection could not be made.
    #[error("user {user} could not connect: {error}")]
    Connect {
        /// Which user.
        user: usize,
        /// Why.
        error: ConnectError,
    },
    /// A user could not register or log in.
    #[error("user {user} could not come in: {why}")]
    Refused {
        /// Which user.
        user: usize,
        /// Why.
        why: String,
    },
    /// Something on this machine.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: std::io::Error,
    },
    /// The process that was to be watched is not there.
    #[error("there is no process {0} to watch")]
    NoProcess(u32),
    /// More users than this process may have connections.
    #[error("{users} users are too many: this process may have {room} connections (see `ulimit -Hn`)")]
    Descriptors {
        /// The users that were asked for.
        users: usize,
        /// The connections that are allowed.
        room: u64,
    },
    /// The loop ended without a result.
    #[error("the run ended without a result, which is a defect")]
    NoResult,
}

/// What users do once they are logged in.
pub(crate) trait Shape: Sized + 'static {
    /// The service is on its loop: let the users in.
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate);

    /// The users of the gate's pass are all in.
    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate);

    /// A line came to a user who is in.
    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>);

    /// A timer of a user's connection, set by the shape. The token is never 0.
    fn on_user_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, token: u64) {
        let _ = (cx, gate, at, token);
    }

    /// A timer of the shape.
    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, token: u64);

    /// The connection of a user who was in is closed.
    fn on_closed(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, user: usize, why: String);

    /// What the line of progress shows, once a second. `None`: the gate's own.
    fn progress(&mut self, now: Instant) -> Option<String>;
}

/// A user and its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) user: usize,
    pub(crate) conn: ConnId,
}

/// The handler.
pub(crate) struct Load<S> {
    pub(crate) gate: Gate,
    pub(crate) shape: S,
}

/// Timers of the service with this token are the handler's own; the shape's tokens are others.
const TICK_SECOND: u64 = u64::MAX;

impl<S: Shape> Handler for Load<S> {
    type Conn = Guest;
    type Post = std::convert::Infallible;
    type Codec = LinesCodec;

    fn name(&self) -> &'static str {
        "load"
    }

    fn codec(&mut self) -> LinesCodec {
        codec()
    }

    fn on_start(&mut self, cx: &mut Cx<'_, S>) {
        cx.set_timer(Duration::from_secs(1), TICK_SECOND);
        self.shape.start(cx, &mut self.gate);
    }

    fn on_open(&mut self, _: &mut Cx<'_, S>, id: ConnId, _: &OpenInfo) -> Guest {
        self.gate.opened(id)
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Cx<'_, S>,
        id: ConnId,
        error: ConnectError,
        _: Option<Duration>,
    ) {
        let user = self.gate.opened(id).user;
        self.gate.end(cx, Err(LoadError::Connect { user, error }));
    }

    fn on_frame(&mut self, cx: &mut Cx<'_, S>, conn: ConnId, line: &[u8]) {
        let Self { gate, shape } = self;
        let Some(guest) = cx.conn_mut(conn) else { return };
        let user = guest.user;
        let Some(line) = scan(line) else {
            let why = format!("the server sent no JSON object: {}", String::from_utf8_lossy(line));
            return gate.end(cx, Err(LoadError::Refused { user, why }));
        };
        if line.kind == Kind::Bye {
            guest.bye = Some(line.words().into_boxed_str());
        }
        let at = At { user, conn };
        if guest.is_in() {
            shape.on_line(cx, gate, at, &line);
        } else if gate.on_line(cx, at, &line) {
            shape.all_in(cx, gate);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_, S>, _: ConnId, guest: Guest, reason: CloseReason) {
        let Self { gate, shape } = self;
        if gate.is_over() {
            return;
        }
        let why = match &guest.bye {
            Some(bye) => format!("{reason}, bye {bye}"),
            None => reason.to_string(),
        };
        if guest.is_in() {
            gate.forget(guest.user);
            shape.on_closed(cx, gate, guest.user, why);
        } else if guest.is_leaving() {
            if gate.entered(cx) {
                shape.all_in(cx, gate);
            }
        } else {
            let error = LoadError::Refused { user: guest.user, why };
            gate.end(cx, Err(error));
        }
    }

    fn on_post(&mut self, _: &mut Cx<'_, S>, post: Self::Post) {
        match post {}
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, S>, timer: TimerFired) {
        let Self { gate, shape } = self;
        match timer.conn {
            Some(conn) => {
                let Some(guest) = cx.conn(conn) else { return };
                let at = At { user: guest.user, conn };
                if timer.token == 0 {
                    gate.ask(cx, at);
                } else {
                    shape.on_user_timer(cx, gate, at, timer.token);
                }
            }
            None if timer.token == TICK_SECOND => {
                if gate.is_over() {
                    return;
                }
                cx.set_timer(Duration::from_secs(1), TICK_SECOND);
                gate.keep_alive(cx);
                let text = shape.progress(cx.now()).unwrap_or_else(|| gate.progress_text());
                gate.progress.show(text);
            }
            None => shape.on_timer(cx, gate, timer.token),
        }
    }
}

impl<S: Shape> Load<S> {
    pub(crate) fn new(gate: Gate, shape: S) -> Self {
        Self { gate, shape }
    }
}

pub(crate) fn codec() -> LinesCodec {
    LinesCodec::new(LINE_BYTES_MAX)
}

impl Gate {
    /// Ends the run: hands out its result and stops the loop.
    pub(crate) fn end<S: Shape>(&mut self, cx: &mut Cx<'_, S>, result: Result<Report, LoadError>) {
        self.progress.end();
        if let Some(done) = self.done.take() {
            // The receiver waits behind the loop; it is gone only when the whole program is.
            let _ = done.send(result);
            cx.loop_handle().stop();
        }
    }
}
