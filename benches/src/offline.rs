//! Messages to users who are away: stored, and fetched when they come. Both in one run, or each in its own, so that the server can be killed in between.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reactor::CloseReason;
use rustix::process::{Pid, Signal, kill_process};

use crate::gate::{Gate, Pass, is_passing};
use crate::load::{At, Cx, LoadError, Shape};
use crate::mark::{Mark, Span};
use crate::message::{
    ACK_PUSHES, Draft, RESEND_MS, To, histogram, record, text_number, write_ack, write_send,
};
use crate::options::{Options, ShapeName};
use crate::process::Watch;
use crate::report::{OfflineReport, PartReport};
use crate::report::{Quantiles, Report};
use crate::scan::{Kind, Line};
use crate::state::{Letters, State};
use crate::stream::{Seen, Stream};

const TICK_PHASE: u64 = 1;
const TICK_ACK: u64 = 2;
const ACK_DELAY: Duration = Duration::from_millis(100);

/// The shape. Users with even numbers send, each to the next.
pub(crate) struct Offline {
    part: ShapeName,
    messages: u64,
    window: u64,
    text_bytes: usize,
    drain: Duration,
    state_file: Option<PathBuf>,
    then_kill: Vec<u32>,
    watch: Watch,
    phase: Phase,
    pairs: Vec<Pair>,
    begin: Option<Mark>,
    ok: Histogram<u64>,
    accepted: u64,
    received: u64,
    synced: usize,
    report: OfflineReport,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Enrolling,
    /// The senders come in.
    Gathering,
    Storing,
    Fetching,
    Done,
}

/// A sender and its recipient.
#[derive(Debug, Default)]
struct Pair {
    conv: u64,
    letters: Letters,
    sent: Vec<Instant>,
    came: Vec<bool>,
    stream: Stream,
    unacked: u32,
}

impl Offline {
    pub(crate) fn new(options: &Options, watch: Watch) -> Option<Self> {
        Some(Self {
            part: options.shape,
            messages: options.messages.div_ceil(u64::try_from(options.users() / 2).ok()?.max(1)),
            window: options.window.into(),
            text_bytes: options.text_bytes,
            drain: Duration::try_from_secs_f64(options.drain).unwrap_or_default(),
            state_file: options.state.clone(),
            then_kill: options.then_kill.clone(),
            watch,
            phase: Phase::Enrolling,
            pairs: (0..options.users() / 2).map(|_| Pair::default()).collect(),
            begin: None,
            ok: histogram()?,
            accepted: 0,
            received: 0,
            synced: 0,
            report: OfflineReport {
                users: options.users(),
                window: options.window,
                ..OfflineReport::default()
            },
            line: Vec::new(),
        })
    }

    fn fill(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize) {
        while let Some(pair) = self.pairs.get_mut(user / 2)
            && pair.letters.unanswered() < self.window
            && pair.letters.sent() < self.messages
            && gate.accounts.get(user).is_some_and(|account| account.conn.is_some())
        {
            let number = pair.letters.send();
            pair.sent.push(Instant::now());
            self.say(cx, gate, user, number);
        }
    }

    fn say(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize, number: u64) {
        let (Some(pair), Some(sender), Some(recipient)) =
            (self.pairs.get(user / 2), gate.accounts.get(user), gate.accounts.get(user ^ 1))
        else {
            return;
        };
        let Some(conn) = sender.conn else { return };
        let to = if pair.conv == 0 { To::User(recipient.id) } else { To::Conv(pair.conv) };
        let (run_id, text_bytes) = (gate.run_id.as_str(), self.text_bytes);
        write_send(&Draft { number, run_id, sender: sender.id, to, time: 0, text_bytes }, &mut self.line);
        let _ = cx.send(conn, &self.line);
    }

    fn on_ok(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let now = Instant::now();
        let (Some(pair), Some(number)) = (self.pairs.get_mut(at.user / 2), line.id) else { return };
        if !pair.letters.answer(number) {
            return;
        }
        pair.conv = line.conv;
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some(sent) = pair.sent.get(index) {
            record(&mut self.ok, now, *sent);
        }
        self.accepted += 1;
        self.fill(cx, gate, at.user);
        if self.accepted == self.messages * count_of(self.pairs.len()) {
            self.end_storing(cx, gate);
        }
    }

    fn on_error(&mut self, cx: &mut Cx<'_, Self>, at: At, line: &Line<'_>) {
        let Some(number) = line.id else { return };
        if is_passing(line.code) {
            let wait = Duration::from_millis(line.retry_after_ms.unwrap_or(RESEND_MS));
            cx.set_conn_timer(at.conn, wait, number);
            return;
        }
        self.report.refused += 1;
        self.report.trouble.get_or_insert_with(|| line.words());
    }

    fn end_storing(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if self.phase != Phase::Storing {
            return;
        }
        // Before anything else: nothing between the last ok and this gives the server time to tidy up.
        for pid in &self.then_kill {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        self.phase = Phase::Done;
        if self.then_kill.is_empty() {
            self.report.stored = self.part_ended(self.accepted);
        }
        if self.part == ShapeName::Store {
            return self.finish(cx, gate);
        }
        self.fetch(cx, gate);
    }

    fn fetch(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.phase = Phase::Fetching;
        for account in &mut gate.accounts {
            if let Some(conn) = account.conn.take() {
                cx.close(conn, CloseReason::Local("has sent everything"));
            }
        }
        self.begin = Some(Mark::now(&self.watch));
        cx.set_timer(self.drain, TICK_PHASE);
        cx.set_timer(ACK_DELAY, TICK_ACK);
        gate.begin_with(cx, Pass::Token, (0..gate.accounts.len()).skip(1).step_by(2).collect());
    }

    fn part_ended(&mut self, messages: u64) -> Option<PartReport> {
        let span: Span = self.begin.take()?.until(&Mark::now(&self.watch), messages);
        let per_second = span.rate(messages);
        Some(PartReport { messages, seconds: span.seconds, per_second, server: span.server })
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let Some(pair) = self.pairs.get_mut(at.user / 2) else { return };
        pair.conv = line.conv;
        self.received += 1;
        let number = text_number(line.text).and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        if pair.came.len() <= number {
            pair.came.resize(number + 1, false);
        }
        // A message that was stored twice has two places: only its number tells.
        let again = pair.came.get_mut(number).is_none_or(|came| std::mem::replace(came, true));
        let seen = pair.stream.push(line.seq);
        self.report.doubled += u64::from(again || seen == Seen::Doubled);
        self.report.disordered += u64::from(seen == Seen::Disordered);
        if again || seen != Seen::Fine {
            let words =
                || format!("conversation {}, seq {}, message {number}: {seen:?}", line.conv, line.seq);
            self.report.trouble.get_or_insert_with(words);
        }
        pair.unacked += 1;
        if pair.unacked >= ACK_PUSHES {
            self.ack(cx, gate, at.user / 2);
        }
    }

    fn ack(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, pair: usize) {
        let Some(account) = gate.accounts.get(2 * pair + 1) else { return };
        let (Some(pair), Some(conn)) = (self.pairs.get_mut(pair), account.conn) else { return };
        if pair.unacked > 0 {
            pair.unacked = 0;
            write_ack(pair.conv, pair.stream.complete(), &mut self.line);
            let _ = cx.send(conn, &self.line);
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if gate.is_over() {
            return;
        }
        if self.phase == Phase::Fetching {
            self.phase = Phase::Done;
            self.report.fetched = self.part_ended(self.received);
            self.compare();
        } else {
            self.report.unanswered = self.pairs.iter().map(|pair| pair.letters.unanswered()).sum();
        }
        self.report.run_id.clone_from(&gate.run_id);
        self.report.accepted = self.accepted;
        self.report.ok_us = Quantiles::from(&self.ok);
        if let (ShapeName::Store, Some(file)) = (self.part, &self.state_file) {
            let letters = self.pairs.iter().map(|pair| pair.letters.clone());
            if let Err(error) = State::of(gate, letters).write(file) {
                let what = "could not write the state";
                return gate.end(cx, Err(LoadError::System { what, error }));
            }
        }
        gate.end(cx, Ok(Report::Offline(Box::new(self.report.clone()))));
    }

    /// Compares what was promised with what came.
    fn compare(&mut self) {
        for pair in &self.pairs {
            for number in 1..=pair.letters.sent() {
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                let came = pair.came.get(index).copied().unwrap_or(false);
                match (pair.letters.is_answered(number), came) {
                    (true, false) => {
                        self.report.lost += 1;
                        self.report.trouble.get_or_insert_with(|| {
                            format!("message {number} of conversation {} is gone", pair.conv)
                        });
                    }
                    (false, true) => self.report.unpromised += 1,
                    _ => {}
                }
            }
        }
    }
}

fn count_of(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Shape for Offline {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if self.part != ShapeName::Fetch {
            return gate.begin(cx, Pass::Enrol);
        }
        let read = self.state_file.as_deref().map(State::read);
        match read {
            Some(Ok(state)) => {
                for (pair, letters) in self.pairs.iter_mut().zip(state.restore(gate)) {
                    self.accepted += letters.sent() - letters.unanswered();
                    pair.letters = letters;
                }
                self.fetch(cx, gate);
            }
            Some(Err(error)) => {
                gate.end(cx, Err(LoadError::System { what: "could not read the state", error }));
            }
            None => gate.end(cx, Err(LoadError::NoResult)),
        }
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        match self.phase {
            Phase::Enrolling => {
                self.phase = Phase::Gathering;
                let senders = (0..gate.accounts.len()).step_by(2).collect();
                gate.begin_with(cx, Pass::Token, senders);
            }
            Phase::Gathering => {
                self.phase = Phase::Storing;
                self.begin = Some(Mark::now(&self.watch));
                for pair in 0..self.pairs.len() {
                    self.fill(cx, gate, 2 * pair);
                }
            }
            _ => {}
        }
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match (self.phase, line.kind) {
            (Phase::Storing, Kind::Ok) => self.on_ok(cx, gate, at, line),
            (Phase::Storing, Kind::Error) => self.on_error(cx, at, line),
            (Phase::Fetching, Kind::Message) => self.on_message(cx, gate, at, line),
            (Phase::Fetching, Kind::Synced) => {
                self.synced += 1;
                // Everything up to the login was pushed, and nobody sends any more.
                if self.synced == self.pairs.len() {
                    self.finish(cx, gate);
                }
            }
            _ => {}
        }
    }

    fn on_user_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, token: u64) {
        self.say(cx, gate, at.user, token);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, token: u64) {
        if token == TICK_PHASE {
            return self.finish(cx, gate);
        }
        cx.set_timer(ACK_DELAY, TICK_ACK);
        for pair in 0..self.pairs.len() {
            self.ack(cx, gate, pair);
        }
    }

    fn on_closed(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, user: usize, why: String) {
        let is_sender = user.is_multiple_of(2);
        if self.phase == Phase::Done || (is_sender && self.phase == Phase::Fetching) {
            return;
        }
        self.report.closed += 1;
        self.report.trouble.get_or_insert_with(|| format!("the connection of user {user} was closed: {why}"));
        if gate.accounts.iter().all(|account| account.conn.is_none()) {
            self.finish(cx, gate);
        }
    }

    fn progress(&mut self, _: Instant) -> Option<String> {
        match self.phase {
            Phase::Enrolling | Phase::Gathering => None,
            Phase::Storing => Some(format!("stored: {}", self.accepted)),
            Phase::Fetching | Phase::Done => Some(format!("fetched: {} of {}", self.received, self.accepted)),
        }
    }
}
