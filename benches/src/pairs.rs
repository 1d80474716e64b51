//! Users in pairs: each writes to its partner as fast as its window allows, acks what it receives, and checks all of it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reactor::ConnId;

use crate::gate::{Gate, Pass, is_passing};
use crate::load::{At, Cx, Shape};
use crate::mark::Mark;
use crate::message::{
    ACK_PUSHES, Draft, RESEND_MS, To, histogram, record, text_number, write_ack, write_send,
};
use crate::options::Options;
use crate::outbox::{Arrival, Outbox};
use crate::pace::Pace;
use crate::process::{Watch, count};
use crate::report::{PairsReport, Quantiles, Report, Verdict};
use crate::scan::{Kind, Line};
use crate::stream::{Seen, Stream};

/// How long an ack waits for company at the longest.
const ACK_DELAY: Duration = Duration::from_millis(100);

const TICK_ACK: u64 = 1;
const TICK_PHASE: u64 = 2;
const TICK_PACE: u64 = 3;

/// The shape.
pub(crate) struct Pairs {
    plan: Plan,
    watch: Watch,
    users: Vec<User>,
    phase: Phase,
    /// Microseconds from the send to the partner's receipt, and to the ok.
    receipt: Histogram<u64>,
    ok: Histogram<u64>,
    /// In the measured time.
    accepted: u64,
    received: u64,
    begin: Option<Mark>,
    end: Option<Mark>,
    verdict: Verdict,
    /// Sends at a rate of its own, whatever the answers do.
    pace: Option<Pace>,
    line: Vec<u8>,
    shown: (Instant, u64),
}

struct Plan {
    users: usize,
    window: u32,
    text_bytes: usize,
    warmup: Duration,
    seconds: Duration,
    drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Entering,
    Warmup,
    Measure,
    /// At the lower rate that follows.
    After,
    Drain,
}

#[derive(Debug)]
struct User {
    conn: Option<ConnId>,
    id: u64,
    conv: u64,
    outbox: Outbox,
    stream: Stream,
    /// Pushes since the last ack.
    unacked: u32,
}

impl Pairs {
    pub(crate) fn new(options: &Options, watch: Watch) -> Option<Self> {
        let secs = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
        let plan = Plan {
            users: options.users(),
            window: options.window,
            text_bytes: options.text_bytes,
            warmup: secs(options.warmup),
            seconds: secs(options.seconds),
            drain: secs(options.drain),
        };
        Some(Self {
            plan,
            watch,
            users: Vec::new(),
            phase: Phase::Entering,
            receipt: histogram()?,
            ok: histogram()?,
            accepted: 0,
            received: 0,
            begin: None,
            end: None,
            verdict: Verdict::default(),
            pace: options.rate.map(|rate| Pace::new(rate, options.then_rate)),
            line: Vec::new(),
            shown: (Instant::now(), 0),
        })
    }

    /// Sends until the user's window is full.
    fn fill(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize) {
        while self.pace.is_none() && self.send(cx, gate, user) {}
    }

    /// Sends a message, if the user's window has room.
    fn send(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize) -> bool {
        let window = usize::try_from(self.plan.window).unwrap_or(usize::MAX);
        let Some(sender) = self.users.get_mut(user) else { return false };
        if sender.outbox.unanswered() >= window || self.phase == Phase::Drain || sender.conn.is_none() {
            return false;
        }
        let number = sender.outbox.send(Instant::now());
        self.verdict.sent += 1;
        self.say(cx, &gate.run_id, user, number);
        true
    }

    /// Sends what the pace has made due, users taking turns. Who has a full window is passed over.
    fn keep_pace(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate) {
        let users = self.users.len();
        let due = self.pace.as_mut().map_or(0, |pace| pace.due(Instant::now()));
        for _ in 0..due {
            let Some(user) = self.pace.as_mut().map(|pace| pace.next_user(users)) else { return };
            if !self.send(cx, gate, user)
                && let Some(pace) = &mut self.pace
            {
                pace.held_back += u64::from(self.phase == Phase::Measure);
            }
        }
    }

    /// Writes one message, for the first time or again.
    fn say(&mut self, cx: &mut Cx<'_, Self>, run_id: &str, user: usize, number: u64) {
        let partner = self.users.get(user ^ 1).map(|partner| partner.id).unwrap_or_default();
        let Some(sender) = self.users.get(user) else { return };
        let Some(conn) = sender.conn else { return };
        let to = if sender.conv == 0 { To::User(partner) } else { To::Conv(sender.conv) };
        let text_bytes = self.plan.text_bytes;
        let draft = Draft { number, run_id, sender: sender.id, to, time: 0, text_bytes };
        write_send(&draft, &mut self.line);
        // A connection that is gone has its `on_close`.
        let _ = cx.send(conn, &self.line);
    }

    fn on_ok(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let now = Instant::now();
        let Some(user) = self.users.get_mut(at.user) else { return };
        match user.outbox.answer(line.id.unwrap_or_default()) {
            Arrival::First(sent) => {
                self.verdict.accepted += 1;
                if self.phase == Phase::Measure {
                    self.accepted += 1;
                    record(&mut self.ok, now, sent);
                }
                if let Some(pace) = &mut self.pace {
                    pace.answered(now, sent);
                }
            }
            Arrival::Again => self.verdict.doubled += 1,
            Arrival::Unknown => self.stray("an ok that nothing was sent for", line),
        }
        // A duplicate's entry came, or comes, as a push.
        if !line.duplicate {
            self.place(at.user, line, Stream::own);
        }
        self.fill(cx, gate, at.user);
        self.look_done(cx, gate);
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let now = Instant::now();
        self.place(at.user, line, Stream::push);
        // An own message comes as a push when its send was answered with an error and committed all the same: then it counts for the stream only.
        let is_own = self.users.get(at.user).is_some_and(|user| user.id == line.from);
        let arrival = match (self.users.get_mut(at.user ^ 1), text_number(line.text)) {
            _ if is_own => Arrival::Again,
            (Some(sender), Some(number)) if sender.id == line.from => sender.outbox.receive(number),
            _ => Arrival::Unknown,
        };
        match arrival {
            Arrival::First(sent) => {
                self.verdict.received += 1;
                if self.phase == Phase::Measure {
                    self.received += 1;
                    record(&mut self.receipt, now, sent);
                }
            }
            // Counted by the stream, which knows entries by their place.
            Arrival::Again => {}
            Arrival::Unknown => self.stray("a message that nobody sent", line),
        }
        if let Some(user) = self.users.get_mut(at.user) {
            user.unacked += 1;
            if user.unacked >= ACK_PUSHES {
                self.ack(cx, at.user);
            }
        }
        self.look_done(cx, gate);
    }

    /// Puts an entry into the user's stream.
    fn place(&mut self, user: usize, line: &Line<'_>, mark: fn(&mut Stream, u64) -> Seen) {
        let Some(user) = self.users.get_mut(user) else { return };
        if user.conv == 0 {
            user.conv = line.conv;
        }
        if user.conv != line.conv {
            return self.stray("an entry of a conversation with somebody else", line);
        }
        let seen = mark(&mut user.stream, line.seq);
        match seen {
            Seen::Fine => return,
            Seen::Doubled => self.verdict.doubled += 1,
            Seen::Disordered => self.verdict.disordered += 1,
        }
        self.trouble(|| format!("conversation {}, seq {}: {seen:?}", line.conv, line.seq));
    }

    fn on_error(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let Some(number) = line.id else { return self.stray("an error for nothing", line) };
        if line.code == b"overloaded"
            && let Some(pace) = &mut self.pace
        {
            pace.refused(Instant::now(), self.phase == Phase::Measure);
            self.verdict.overloaded += 1;
            if let Some(user) = self.users.get_mut(at.user) {
                user.outbox.refuse(number);
            }
            return self.look_done(cx, gate);
        }
        self.trouble(|| format!("message {number} of user {}: {}", at.user, line.words()));
        if is_passing(line.code) {
            self.verdict.resent += 1;
            let wait = Duration::from_millis(line.retry_after_ms.unwrap_or(RESEND_MS));
            cx.set_conn_timer(at.conn, wait, number);
            return;
        }
        self.verdict.refused += 1;
        if let Some(user) = self.users.get_mut(at.user) {
            user.outbox.refuse(number);
        }
        self.fill(cx, gate, at.user);
        self.look_done(cx, gate);
    }

    fn ack(&mut self, cx: &mut Cx<'_, Self>, user: usize) {
        let Some(user) = self.users.get_mut(user) else { return };
        let (Some(conn), seq) = (user.conn, user.stream.complete()) else { return };
        if seq == 0 {
            return;
        }
        user.unacked = 0;
        write_ack(user.conv, seq, &mut self.line);
        let _ = cx.send(conn, &self.line);
    }

    fn stray(&mut self, what: &str, line: &Line<'_>) {
        self.verdict.strays += 1;
        self.trouble(|| {
            format!("{what}: id {:?}, conv {}, seq {}, from {}", line.id, line.conv, line.seq, line.from)
        });
    }

    /// Keeps the first thing that went wrong.
    fn trouble(&mut self, words: impl FnOnce() -> String) {
        self.verdict.trouble.get_or_insert_with(words);
    }

    fn next_phase(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        match self.phase {
            Phase::Entering => {
                self.phase = Phase::Warmup;
                cx.set_timer(self.plan.warmup, TICK_PHASE);
            }
            Phase::Warmup => {
                self.phase = Phase::Measure;
                self.begin = Some(Mark::now(&self.watch));
                cx.set_timer(self.plan.seconds, TICK_PHASE);
            }
            Phase::Measure => {
                self.end = Some(Mark::now(&self.watch));
                let Some(wait) = self.pace.as_mut().and_then(|pace| pace.slow_down(Instant::now())) else {
                    return self.drain(cx, gate);
                };
                self.phase = Phase::After;
                cx.set_timer(wait, TICK_PHASE);
            }
            Phase::After => self.drain(cx, gate),
            // Whatever is still missing now is missing.
            Phase::Drain => self.finish(cx, gate),
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.phase = Phase::Drain;
        cx.set_timer(self.plan.drain, TICK_PHASE);
        self.look_done(cx, gate);
    }

    /// Ends the run when nothing is under way any more.
    fn look_done(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        let Verdict { sent, accepted, received, refused, overloaded, .. } = self.verdict;
        if self.phase != Phase::Drain || sent > accepted + refused + overloaded || accepted > received {
            return;
        }
        if self.users.iter().all(|user| user.outbox.is_empty()) {
            self.finish(cx, gate);
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if gate.is_over() {
            return;
        }
        self.judge();
        let (begin, end) = match (self.begin.take(), self.end.take()) {
            (Some(begin), Some(end)) => (begin, end),
            // It ended before there was anything to measure.
            _ => (Mark::now(&self.watch), Mark::now(&self.watch)),
        };
        let span = begin.until(&end, self.accepted);
        let report = PairsReport {
            run_id: gate.run_id.clone(),
            users: self.plan.users,
            window: self.plan.window,
            text_bytes: self.plan.text_bytes,
            seconds: span.seconds,
            begin_ms: span.begin_ms,
            end_ms: span.end_ms,
            accepted: self.accepted,
            accepted_per_second: span.rate(self.accepted),
            received_per_second: span.rate(self.received),
            receipt_us: Quantiles::from(&self.receipt),
            ok_us: Quantiles::from(&self.ok),
            server: span.server,
            load_cores: span.load_cores,
            others_cores: span.others_cores,
            pace: self.pace.as_ref().map(|pace| pace.report(span.seconds)),
            verdict: self.verdict.clone(),
        };
        gate.end(cx, Ok(Report::Pairs(Box::new(report))));
    }

    /// Compares what was accepted with what came.
    fn judge(&mut self) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let verdict = &mut self.verdict;
        for pair in self.users.chunks(2) {
            for user in pair {
                verdict.lost += number(user.outbox.lost());
                verdict.unanswered += number(user.outbox.unanswered());
                verdict.holes += number(user.stream.holes());
            }
            if let [one, other] = pair
                && one.stream.complete() != other.stream.complete()
            {
                verdict.holes += 1;
                verdict.trouble.get_or_insert_with(|| {
                    let ends = (one.stream.complete(), other.stream.complete());
                    format!("conversation {} is complete up to {ends:?} at its two ends", one.conv)
                });
            }
        }
    }
}

impl Shape for Pairs {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        gate.begin(cx, Pass::Stay);
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        self.users = gate
            .accounts
            .iter()
            .map(|account| User {
                conn: account.conn,
                id: account.id,
                conv: 0,
                outbox: Outbox::default(),
                stream: Stream::default(),
                unacked: 0,
            })
            .collect();
        self.shown = (cx.now(), 0);
        cx.set_timer(ACK_DELAY, TICK_ACK);
        self.next_phase(cx, gate);
        if self.pace.is_some() {
            cx.set_timer(Duration::from_millis(1), TICK_PACE);
        }
        for user in 0..self.users.len() {
            self.fill(cx, gate, user);
        }
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match line.kind {
            // Before all are in there is nothing to answer.
            _ if self.phase == Phase::Entering => {}
            Kind::Ok => self.on_ok(cx, gate, at, line),
            Kind::Message => self.on_message(cx, gate, at, line),
            Kind::Error => self.on_error(cx, gate, at, line),
            Kind::Hello | Kind::Bye | Kind::Synced | Kind::Other => {}
        }
    }

    fn on_user_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, token: u64) {
        self.say(cx, &gate.run_id, at.user, token);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, token: u64) {
        if token == TICK_PHASE {
            return self.next_phase(cx, gate);
        }
        if token == TICK_PACE {
            self.keep_pace(cx, gate);
            if self.phase != Phase::Drain {
                cx.set_timer(Duration::from_millis(1), TICK_PACE);
            }
            return;
        }
        cx.set_timer(ACK_DELAY, TICK_ACK);
        for user in 0..self.users.len() {
            if self.users.get(user).is_some_and(|user| user.unacked > 0) {
                self.ack(cx, user);
            }
        }
    }

    fn on_closed(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, user: usize, why: String) {
        self.verdict.closed += 1;
        self.trouble(|| format!("the connection of user {user} was closed: {why}"));
        if let Some(user) = self.users.get_mut(user) {
            user.conn = None;
        }
        // What was measured before it stands; the run itself has failed.
        if self.phase == Phase::Measure {
            self.end = Some(Mark::now(&self.watch));
        }
        if self.phase != Phase::Drain {
            self.drain(cx, gate);
        }
    }

    fn progress(&mut self, now: Instant) -> Option<String> {
        let phase = match self.phase {
            Phase::Entering => return None,
            Phase::Warmup => "warming up",
            Phase::Measure => "measuring",
            Phase::After => "recovering",
            Phase::Drain => "waiting for what is under way",
        };
        let (since, before) = std::mem::replace(&mut self.shown, (now, self.verdict.accepted));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
        let rate = count(self.verdict.accepted - before) / seconds;
        let done = self.verdict.accepted + self.verdict.refused + self.verdict.overloaded;
        let waiting = self.verdict.sent - done;
        Some(format!("{phase}: {} messages/s, {waiting} unanswered", crate::table::number(rate)))
    }
}
