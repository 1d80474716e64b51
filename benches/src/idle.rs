//! Idle users: what a logged-in connection costs the server that does nothing but stay.

use std::time::{Duration, Instant};

use reactor::CloseReason;

use crate::gate::{Gate, Pass};
use crate::load::{At, Cx, LoadError, Shape};
use crate::options::Options;
use crate::process::{Sample, Watch, count};
use crate::report::{IdleReport, Memory, Report};
use crate::scan::{Kind, Line};

/// How long the server may take to come to rest before its memory is read: longer than any of its own delays (an ack's, an allocator's).
const SETTLE: Duration = Duration::from_secs(2);

const TICK_PHASE: u64 = 1;

/// The shape.
pub(crate) struct Idle {
    watch: Watch,
    seconds: Duration,
    heartbeat: u32,
    phase: Phase,
    since: Instant,
    empty: Option<Sample>,
    registered: Option<Sample>,
    idle: Option<Sample>,
    idle_end: Option<Sample>,
    logins_per_second: f64,
    watched: Duration,
    closed: usize,
    synced: usize,
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Registering,
    Registered,
    LoggingIn,
    Settling,
    Watching,
    Leaving,
}

impl Idle {
    pub(crate) fn new(options: &Options, watch: Watch) -> Self {
        Self {
            watch,
            seconds: Duration::try_from_secs_f64(options.seconds).unwrap_or_default(),
            heartbeat: options.heartbeat,
            phase: Phase::Registering,
            since: Instant::now(),
            empty: None,
            registered: None,
            idle: None,
            idle_end: None,
            logins_per_second: 0.0,
            watched: Duration::ZERO,
            closed: 0,
            synced: 0,
            trouble: None,
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_, Self>, phase: Phase, then: Duration) {
        self.phase = phase;
        self.since = cx.now();
        cx.set_timer(then, TICK_PHASE);
    }

    fn leave(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.enter(cx, Phase::Leaving, SETTLE);
        for account in &mut gate.accounts {
            if let Some(conn) = account.conn.take() {
                cx.close(conn, CloseReason::Local("the run is over"));
            }
        }
    }

    fn report(&self, gate: &Gate) -> Report {
        let users = gate.accounts.len();
        let gone = self.watch.sample();
        let memory = |sample: &Option<Sample>| sample.as_ref().map(|sample| sample.memory);
        let per_connection = |from: Option<Memory>| {
            let (from, to) = (from?.rss_bytes, memory(&self.idle)?.rss_bytes);
            Some((count(to) - count(from)) / count(u64::try_from(users).unwrap_or(u64::MAX)))
        };
        let server = self.idle.as_ref().zip(self.idle_end.as_ref()).map(|(from, to)| from.until(to, 0));
        Report::Idle(Box::new(IdleReport {
            run_id: gate.run_id.clone(),
            users,
            heartbeat_seconds: self.heartbeat,
            logins_per_second: self.logins_per_second,
            empty: memory(&self.empty),
            registered: memory(&self.registered),
            idle: memory(&self.idle),
            gone: memory(&gone),
            bytes_per_connection: per_connection(memory(&self.empty)),
            bytes_per_connection_alone: per_connection(memory(&self.registered)),
            server,
            seconds: self.watched.as_secs_f64(),
            closed: self.closed,
            synced: self.synced,
            trouble: self.trouble.clone(),
        }))
    }
}

impl Shape for Idle {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.empty = self.watch.sample();
        gate.begin(cx, Pass::Enrol);
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if self.phase == Phase::Registering {
            return self.enter(cx, Phase::Registered, SETTLE);
        }
        let seconds = self.since.elapsed().as_secs_f64();
        self.logins_per_second = count(u64::try_from(gate.accounts.len()).unwrap_or(0)) / seconds.max(1e-9);
        self.enter(cx, Phase::Settling, SETTLE);
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match line.kind {
            Kind::Synced => self.synced += 1,
            Kind::Error => {
                let why = line.words();
                gate.end(cx, Err(LoadError::Refused { user: at.user, why }));
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, _: u64) {
        match self.phase {
            Phase::Registered => {
                self.registered = self.watch.sample();
                self.phase = Phase::LoggingIn;
                self.since = Instant::now();
                gate.begin(cx, Pass::Token);
            }
            Phase::Settling => {
                self.idle = self.watch.sample();
                self.enter(cx, Phase::Watching, self.seconds);
            }
            Phase::Watching => {
                self.idle_end = self.watch.sample();
                self.watched = self.since.elapsed();
                self.leave(cx, gate);
            }
            Phase::Leaving => {
                let report = self.report(gate);
                gate.end(cx, Ok(report));
            }
            Phase::Registering | Phase::LoggingIn => {}
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_, Self>, _: &mut Gate, user: usize, why: String) {
        if self.phase != Phase::Leaving {
            self.closed += 1;
            self.trouble.get_or_insert_with(|| format!("user {user}: {why}"));
        }
    }

    fn progress(&mut self, now: Instant) -> Option<String> {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        match self.phase {
            Phase::Registering | Phase::LoggingIn => None,
            Phase::Registered => Some("all are registered".to_owned()),
            Phase::Settling => Some("all are logged in".to_owned()),
            Phase::Watching => Some(format!("watching the idle server: {seconds} s")),
            Phase::Leaving => Some("all are leaving".to_owned()),
        }
    }
}
