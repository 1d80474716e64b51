//! A login storm: users come in by token one after the other, are told that they have everything, and leave.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reactor::CloseReason;

use crate::gate::{Gate, Pass};
use crate::load::{At, Cx, LoadError, Shape};
use crate::mark::Mark;
use crate::message::{histogram, record};
use crate::options::Options;
use crate::process::{Watch, count};
use crate::report::StormReport;
use crate::report::{Quantiles, Report};
use crate::scan::{Kind, Line};

const TICK_PHASE: u64 = 1;

/// The shape.
pub(crate) struct Storm {
    watch: Watch,
    warmup: Duration,
    seconds: Duration,
    phase: Phase,
    begin: Option<Mark>,
    end: Option<Mark>,
    /// Of each user, connections for which `synced` was the last that was wanted: they may close. One may come in again before it has left.
    leaving: Vec<u32>,
    logins: u64,
    all: u64,
    login: Histogram<u64>,
    closed: u64,
    shown: (Instant, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Enrolling,
    Warmup,
    Measure,
    Leaving,
}

impl Storm {
    pub(crate) fn new(options: &Options, watch: Watch) -> Option<Self> {
        let secs = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
        Some(Self {
            watch,
            warmup: secs(options.warmup),
            seconds: secs(options.seconds),
            phase: Phase::Enrolling,
            begin: None,
            end: None,
            leaving: vec![0; options.users()],
            logins: 0,
            all: 0,
            login: histogram()?,
            closed: 0,
            shown: (Instant::now(), 0),
        })
    }

    fn report(&mut self, gate: &Gate) -> Report {
        let (begin, end) = match (self.begin.take(), self.end.take()) {
            (Some(begin), Some(end)) => (begin, end),
            _ => (Mark::now(&self.watch), Mark::now(&self.watch)),
        };
        let span = begin.until(&end, self.logins);
        Report::Storm(Box::new(StormReport {
            run_id: gate.run_id.clone(),
            users: gate.accounts.len(),
            seconds: span.seconds,
            logins: self.logins,
            logins_per_second: span.rate(self.logins),
            login_us: Quantiles::from(&self.login),
            server: span.server,
            load_cores: span.load_cores,
            closed: self.closed,
        }))
    }
}

impl Shape for Storm {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        gate.begin(cx, Pass::Enrol);
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.phase = Phase::Warmup;
        self.shown = (Instant::now(), 0);
        cx.set_timer(self.warmup, TICK_PHASE);
        gate.begin_turns(cx);
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match line.kind {
            Kind::Synced => {
                self.all += 1;
                if self.phase == Phase::Measure {
                    self.logins += 1;
                    if let Some(guest) = cx.conn(at.conn) {
                        record(&mut self.login, Instant::now(), guest.since);
                    }
                }
                if let Some(leaving) = self.leaving.get_mut(at.user) {
                    *leaving += 1;
                }
                cx.close(at.conn, CloseReason::Local("has seen everything"));
            }
            Kind::Error => {
                let why = line.words();
                gate.end(cx, Err(LoadError::Refused { user: at.user, why }));
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, _: u64) {
        match self.phase {
            Phase::Warmup => {
                self.phase = Phase::Measure;
                self.begin = Some(Mark::now(&self.watch));
                cx.set_timer(self.seconds, TICK_PHASE);
            }
            Phase::Measure => {
                self.end = Some(Mark::now(&self.watch));
                self.phase = Phase::Leaving;
                gate.end_turns();
                let report = self.report(gate);
                gate.end(cx, Ok(report));
            }
            Phase::Enrolling | Phase::Leaving => {}
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_, Self>, _: &mut Gate, user: usize, _: String) {
        match self.leaving.get_mut(user) {
            Some(leaving @ 1..) => *leaving -= 1,
            _ => self.closed += 1,
        }
    }

    fn progress(&mut self, now: Instant) -> Option<String> {
        if self.phase == Phase::Enrolling {
            return None;
        }
        let (since, before) = std::mem::replace(&mut self.shown, (now, self.all));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
        Some(format!("{} logins/s", crate::table::number(count(self.all - before) / seconds)))
    }
}
