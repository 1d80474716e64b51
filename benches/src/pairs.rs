//! Users in pairs: each writes to its partner as fast as its window allows, acks what it receives, and checks all of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use reactor::ConnId;

use crate::gate::{Gate, Pass, is_passing};
use crate::load::{At, Cx, Shape};
use crate::options::Options;
use crate::outbox::{Arrival, Outbox};
use crate::process::{self, Sample, Watch, count};
use crate::report::{PairsReport, Quantiles, Report, Verdict};
use crate::scan::{Kind, Line};
use crate::stream::{Seen, Stream};

/// Digits of a message's number at the start of its text.
const DIGITS: usize = 12;
/// The shortest text that holds the number.
pub(crate) const TEXT_BYTES_MIN: usize = DIGITS;
/// Pushes after which a user acks without waiting for the timer: an eighth of the server's push window.
const ACK_PUSHES: u32 = 32;
/// How long an ack waits for company at the longest.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// How long a resend waits when the server does not say.
const RESEND_MS: u64 = 100;
/// The longest latency that is told from longer ones, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

const TICK_ACK: u64 = 1;
const TICK_PHASE: u64 = 2;

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
    window: Option<Window>,
    end: Option<Window>,
    verdict: Verdict,
    /// What the text is filled up with behind its number.
    filler: Vec<u8>,
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

/// One end of the measured time.
struct Window {
    at: Instant,
    wall_ms: f64,
    server: Option<Sample>,
    own: Duration,
    machine: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Entering,
    Warmup,
    Measure,
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
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).ok();
        let secs = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
        let plan = Plan {
            users: options.users(),
            window: options.window,
            text_bytes: options.text_bytes,
            warmup: secs(options.warmup),
            seconds: secs(options.seconds),
            drain: secs(options.drain),
        };
        let letters = " the quick brown fox jumps over the lazy dog".bytes().cycle();
        Some(Self {
            filler: letters.take(plan.text_bytes.saturating_sub(DIGITS)).collect(),
            plan,
            watch,
            users: Vec::new(),
            phase: Phase::Entering,
            receipt: histogram()?,
            ok: histogram()?,
            accepted: 0,
            received: 0,
            window: None,
            end: None,
            verdict: Verdict::default(),
            line: Vec::new(),
            shown: (Instant::now(), 0),
        })
    }

    /// Sends until the user's window is full.
    fn fill(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize) {
        let window = usize::try_from(self.plan.window).unwrap_or(usize::MAX);
        while let Some(sender) = self.users.get_mut(user)
            && sender.outbox.unanswered() < window
            && self.phase != Phase::Drain
            && sender.conn.is_some()
        {
            let number = sender.outbox.send(Instant::now());
            self.verdict.sent += 1;
            self.say(cx, &gate.run_id, user, number);
        }
    }

    /// Writes one message, for the first time or again.
    fn say(&mut self, cx: &mut Cx<'_, Self>, run_id: &str, user: usize, number: u64) {
        let partner = self.users.get(user ^ 1).map(|partner| partner.id).unwrap_or_default();
        let Some(sender) = self.users.get(user) else { return };
        let Some(conn) = sender.conn else { return };
        let mut digits = itoa::Buffer::new();
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(br#"{"type":"send","id":"#);
        line.extend_from_slice(digits.format(number).as_bytes());
        line.extend_from_slice(br#","client_id":""#);
        line.extend_from_slice(run_id.as_bytes());
        line.push(b'-');
        line.extend_from_slice(digits.format(sender.id).as_bytes());
        line.push(b'-');
        line.extend_from_slice(digits.format(number).as_bytes());
        let (key, to) = if sender.conv == 0 { ("user", partner) } else { ("conv", sender.conv) };
        line.extend_from_slice(br#"",""#);
        line.extend_from_slice(key.as_bytes());
        line.extend_from_slice(br#"":"#);
        line.extend_from_slice(digits.format(to).as_bytes());
        line.extend_from_slice(br#","text":""#);
        let number = digits.format(number).as_bytes();
        line.resize(line.len() + DIGITS.saturating_sub(number.len()), b'0');
        line.extend_from_slice(number);
        line.extend_from_slice(&self.filler);
        line.extend_from_slice(b"\"}\n");
        // A connection that is gone has its `on_close`.
        let _ = cx.send(conn, line);
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
        let mut digits = itoa::Buffer::new();
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(br#"{"type":"ack","conv":"#);
        line.extend_from_slice(digits.format(user.conv).as_bytes());
        line.extend_from_slice(br#","seq":"#);
        line.extend_from_slice(digits.format(seq).as_bytes());
        line.extend_from_slice(b"}\n");
        let _ = cx.send(conn, line);
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

    fn window(&self) -> Window {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Window {
            at: Instant::now(),
            wall_ms: wall.as_secs_f64() * 1e3,
            server: self.watch.sample(),
            own: process::cpu(std::process::id()).unwrap_or_default(),
            machine: process::machine_cpu(),
        }
    }

    fn next_phase(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        match self.phase {
            Phase::Entering => {
                self.phase = Phase::Warmup;
                cx.set_timer(self.plan.warmup, TICK_PHASE);
            }
            Phase::Warmup => {
                self.phase = Phase::Measure;
                self.window = Some(self.window());
                cx.set_timer(self.plan.seconds, TICK_PHASE);
            }
            Phase::Measure => {
                self.end = Some(self.window());
                self.drain(cx, gate);
            }
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
        let Verdict { sent, accepted, received, refused, .. } = self.verdict;
        if self.phase != Phase::Drain || sent > accepted + refused || accepted > received {
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
        let (begin, end) = match (self.window.take(), self.end.take()) {
            (Some(begin), Some(end)) => (begin, end),
            // It ended before there was anything to measure.
            _ => (self.window(), self.window()),
        };
        let seconds = end.at.saturating_duration_since(begin.at).as_secs_f64();
        let rate = |messages| if seconds > 0.0 { count(messages) / seconds } else { 0.0 };
        let own = end.own.saturating_sub(begin.own).as_secs_f64();
        let server = begin.server.zip(end.server).map(|(from, to)| from.until(&to, self.accepted));
        let machine = begin.machine.zip(end.machine).map(|(from, to)| to.saturating_sub(from).as_secs_f64());
        let others_cores = server.as_ref().zip(machine).filter(|_| seconds > 0.0).map(|(server, machine)| {
            // What little the coarser clock gives too little is nothing.
            ((machine - own) / seconds - server.cores).max(0.0)
        });
        let report = PairsReport {
            run_id: gate.run_id.clone(),
            users: self.plan.users,
            window: self.plan.window,
            text_bytes: self.plan.text_bytes,
            seconds,
            begin_ms: begin.wall_ms,
            end_ms: end.wall_ms,
            accepted: self.accepted,
            accepted_per_second: rate(self.accepted),
            received_per_second: rate(self.received),
            receipt_us: Quantiles::from(&self.receipt),
            ok_us: Quantiles::from(&self.ok),
            server,
            load_cores: if seconds > 0.0 { own / seconds } else { 0.0 },
            others_cores,
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
            self.end = Some(self.window());
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
            Phase::Drain => "waiting for what is under way",
        };
        let (since, before) = std::mem::replace(&mut self.shown, (now, self.verdict.accepted));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
        let rate = count(self.verdict.accepted - before) / seconds;
        let waiting = self.verdict.sent - self.verdict.accepted - self.verdict.refused;
        Some(format!("{phase}: {} messages/s, {waiting} unanswered", crate::table::number(rate)))
    }
}

/// The number at the start of a message's text.
fn text_number(text: &[u8]) -> Option<u64> {
    let digits = text.get(..DIGITS)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

fn record(histogram: &mut Histogram<u64>, now: Instant, sent: Instant) {
    let us = now.saturating_duration_since(sent).as_micros();
    histogram.saturating_record(u64::try_from(us).unwrap_or(u64::MAX).max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_carries_its_number() {
        assert_eq!(text_number(b"000000000042 the quick"), Some(42));
        assert_eq!(text_number(b"00000000004"), None);
        assert_eq!(text_number(b"00000000004x"), None);
    }
}
