//! A day as it may be: most users are idle, some write to each other, some in groups, at a rate of their own.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::gate::{Gate, Pass, is_passing};
use crate::load::{At, Cx, LoadError, Shape};
use crate::mark::Mark;
use crate::message::{ACK_PUSHES, Draft, RESEND_MS, To, histogram, text_time, write_ack, write_send};
use crate::options::Options;
use crate::pace::Pace;
use crate::process::{Watch, count};
use crate::report::MixedReport;
use crate::report::{Quantiles, Report, Verdict};
use crate::scan::{Kind, Line};
use crate::state::Letters;
use crate::stream::{Seen, Stream};

/// One user in so many is in a pair, and one in so many in a group.
const PAIRS_SHARE: usize = 20;
const GROUPS_SHARE: usize = 10;
const GROUP_SIZE: usize = 20;

/// Messages a second, where the options do not say.
const RATE: f64 = 1_000.0;
/// Messages of a user that wait for their ok, at most.
const WINDOW: u64 = 64;
const ACK_DELAY: Duration = Duration::from_millis(100);

const TICK_PHASE: u64 = 1;
const TICK_ACK: u64 = 2;
const TICK_PACE: u64 = 3;

/// Ids of requests that are no messages.
const ID_CREATE: u64 = 1 << 40;
const ID_JOIN: u64 = ID_CREATE + 1;

/// The shape. The first users are in pairs, the next in groups.
pub(crate) struct Mixed {
    watch: Watch,
    times: [Duration; 3],
    text_bytes: usize,
    users: Vec<User>,
    rooms: Vec<Room>,
    in_pairs: usize,
    in_groups: usize,
    joining: usize,
    pace: Pace,
    rate: f64,
    phase: Phase,
    epoch: Instant,
    begin: Option<Mark>,
    end: Option<Mark>,
    accepted: u64,
    delivered: u64,
    delivery: Histogram<u64>,
    verdict: Verdict,
    line: Vec<u8>,
    shown: (Instant, u64),
}

/// A user who writes and is written to, in one conversation.
#[derive(Debug, Default)]
struct User {
    letters: Letters,
    stream: Option<Stream>,
    unacked: u32,
}

/// A pair's or a group's conversation.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    conv: u64,
    /// The place of the last message that was accepted.
    last_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Entering,
    Making,
    Warmup,
    Measure,
    Drain,
}

impl Mixed {
    pub(crate) fn new(options: &Options, watch: Watch) -> Option<Self> {
        let secs = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
        let users = options.users();
        let in_pairs = (users / PAIRS_SHARE / 2 * 2).max(2);
        let in_groups = users / GROUPS_SHARE / GROUP_SIZE * GROUP_SIZE;
        let rate = options.rate.unwrap_or(RATE);
        Some(Self {
            watch,
            times: [secs(options.warmup), secs(options.seconds), secs(options.drain)],
            text_bytes: options.text_bytes,
            users: (0..in_pairs + in_groups).map(|_| User::default()).collect(),
            rooms: vec![Room::default(); in_pairs / 2 + in_groups / GROUP_SIZE],
            in_pairs,
            in_groups,
            joining: in_groups / GROUP_SIZE * (GROUP_SIZE - 1),
            pace: Pace::new(rate, None),
            rate,
            phase: Phase::Entering,
            epoch: Instant::now(),
            begin: None,
            end: None,
            accepted: 0,
            delivered: 0,
            delivery: histogram()?,
            verdict: Verdict::default(),
            line: Vec::new(),
            shown: (Instant::now(), 0),
        })
    }

    fn room_of(&self, user: usize) -> usize {
        match user.checked_sub(self.in_pairs) {
            None => user / 2,
            Some(member) => self.in_pairs / 2 + member / GROUP_SIZE,
        }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn say(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, user: usize, number: u64) {
        let room = self.rooms.get(self.room_of(user)).copied().unwrap_or_default();
        let Some(account) = gate.accounts.get(user) else { return };
        let Some(conn) = account.conn else { return };
        let partner = gate.accounts.get(user ^ 1).map(|partner| partner.id).unwrap_or_default();
        let to = if room.conv == 0 { To::User(partner) } else { To::Conv(room.conv) };
        let (run_id, text_bytes, time) = (gate.run_id.as_str(), self.text_bytes, self.elapsed_us());
        write_send(&Draft { number, run_id, sender: account.id, to, time, text_bytes }, &mut self.line);
        let _ = cx.send(conn, &self.line);
    }

    fn keep_pace(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate) {
        for _ in 0..self.pace.due(Instant::now()) {
            let at = self.pace.next_user(self.users.len());
            let Some(user) = self.users.get_mut(at) else { continue };
            if user.letters.unanswered() >= WINDOW {
                continue;
            }
            let number = user.letters.send();
            self.verdict.sent += 1;
            self.say(cx, gate, at, number);
        }
    }

    fn on_ok(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let room = self.room_of(at.user);
        match line.id {
            Some(ID_CREATE) => {
                if let Some(room) = self.rooms.get_mut(room) {
                    room.conv = line.conv;
                }
                let join = format!("{{\"type\":\"group_join\",\"id\":{ID_JOIN},\"conv\":{}}}\n", line.conv);
                for member in gate.accounts.iter().skip(at.user + 1).take(GROUP_SIZE - 1) {
                    if let Some(conn) = member.conn {
                        let _ = cx.send(conn, join.as_bytes());
                    }
                }
            }
            Some(ID_JOIN) => {
                self.joining -= 1;
                if self.joining == 0 {
                    self.next_phase(cx, gate);
                }
            }
            Some(number) if self.users.get_mut(at.user).is_some_and(|user| user.letters.answer(number)) => {
                self.verdict.accepted += 1;
                self.accepted += u64::from(self.phase == Phase::Measure);
                if let Some(room) = self.rooms.get_mut(room) {
                    room.conv = line.conv;
                    room.last_seq = room.last_seq.max(line.seq);
                }
                self.see(at.user, line, Stream::own);
            }
            _ => {}
        }
        self.look_done(cx, gate);
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        self.see(at.user, line, Stream::push);
        if self.phase == Phase::Measure
            && let Some(time) = text_time(line.text)
        {
            self.delivered += 1;
            self.delivery.saturating_record(self.elapsed_us().saturating_sub(time).max(1));
        }
        if let Some(user) = self.users.get_mut(at.user) {
            user.unacked += 1;
            if user.unacked >= ACK_PUSHES {
                self.ack(cx, gate, at.user);
            }
        }
        self.look_done(cx, gate);
    }

    /// Puts an entry into the user's stream: a pair's begins at 0, a group's with the first entry that comes.
    fn see(&mut self, at: usize, line: &Line<'_>, mark: fn(&mut Stream, u64) -> Seen) {
        let is_pair = at < self.in_pairs;
        let Some(user) = self.users.get_mut(at) else { return };
        let start = if is_pair { 0 } else { line.seq.saturating_sub(1) };
        let seen = mark(user.stream.get_or_insert_with(|| Stream::after(start)), line.seq);
        match seen {
            Seen::Fine => return,
            Seen::Doubled => self.verdict.doubled += 1,
            Seen::Disordered => self.verdict.disordered += 1,
        }
        let words = || format!("conversation {}, seq {}: {seen:?}", line.conv, line.seq);
        self.verdict.trouble.get_or_insert_with(words);
    }

    fn ack(&mut self, cx: &mut Cx<'_, Self>, gate: &Gate, at: usize) {
        let conv = self.rooms.get(self.room_of(at)).map(|room| room.conv).unwrap_or_default();
        let (Some(user), Some(account)) = (self.users.get_mut(at), gate.accounts.get(at)) else { return };
        let seq = user.stream.as_ref().map_or(0, Stream::complete);
        if user.unacked == 0 || conv == 0 || seq == 0 {
            return;
        }
        user.unacked = 0;
        write_ack(conv, seq, &mut self.line);
        if let Some(conn) = account.conn {
            let _ = cx.send(conn, &self.line);
        }
    }

    fn next_phase(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        let [warmup, seconds, drain] = self.times;
        match self.phase {
            Phase::Entering | Phase::Making => {
                self.phase = Phase::Warmup;
                cx.set_timer(warmup, TICK_PHASE);
                cx.set_timer(Duration::from_millis(1), TICK_PACE);
            }
            Phase::Warmup => {
                self.phase = Phase::Measure;
                self.begin = Some(Mark::now(&self.watch));
                cx.set_timer(seconds, TICK_PHASE);
            }
            Phase::Measure => {
                self.end = Some(Mark::now(&self.watch));
                self.phase = Phase::Drain;
                cx.set_timer(drain, TICK_PHASE);
                self.look_done(cx, gate);
            }
            Phase::Drain => self.finish(cx, gate),
        }
    }

    /// Places that are still empty in somebody's stream.
    fn missing(&self) -> u64 {
        let of = |(at, user): (usize, &User)| {
            let last = self.rooms.get(self.room_of(at)).map(|room| room.last_seq).unwrap_or_default();
            last.saturating_sub(user.stream.as_ref().map_or(0, Stream::complete))
        };
        self.users.iter().enumerate().map(of).sum()
    }

    fn look_done(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        let Verdict { sent, accepted, refused, .. } = self.verdict;
        if self.phase == Phase::Drain && sent == accepted + refused && self.missing() == 0 {
            self.finish(cx, gate);
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if gate.is_over() {
            return;
        }
        self.verdict.lost = self.missing();
        self.verdict.unanswered = self.users.iter().map(|user| user.letters.unanswered()).sum();
        // What was accepted and is missing nowhere has come everywhere.
        self.verdict.received = self.verdict.accepted;
        let (begin, end) = match (self.begin.take(), self.end.take()) {
            (Some(begin), Some(end)) => (begin, end),
            _ => (Mark::now(&self.watch), Mark::now(&self.watch)),
        };
        let span = begin.until(&end, self.delivered);
        let report = MixedReport {
            run_id: gate.run_id.clone(),
            users: gate.accounts.len(),
            in_pairs: self.in_pairs,
            in_groups: self.in_groups,
            group_size: GROUP_SIZE,
            seconds: span.seconds,
            offered_per_second: self.rate,
            accepted_per_second: span.rate(self.accepted),
            delivered_per_second: span.rate(self.delivered),
            delivery_us: Quantiles::from(&self.delivery),
            server: span.server,
            load_cores: span.load_cores,
            verdict: self.verdict.clone(),
        };
        gate.end(cx, Ok(Report::Mixed(Box::new(report))));
    }
}

impl Shape for Mixed {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        gate.begin(cx, Pass::Stay);
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        cx.set_timer(ACK_DELAY, TICK_ACK);
        self.shown = (cx.now(), 0);
        if self.joining == 0 {
            return self.next_phase(cx, gate);
        }
        self.phase = Phase::Making;
        let create =
            format!("{{\"type\":\"group_create\",\"id\":{ID_CREATE},\"name\":\"room\",\"open\":true}}\n");
        for owner in (self.in_pairs..self.in_pairs + self.in_groups).step_by(GROUP_SIZE) {
            if let Some(conn) = gate.accounts.get(owner).and_then(|account| account.conn) {
                let _ = cx.send(conn, create.as_bytes());
            }
        }
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match line.kind {
            _ if self.phase == Phase::Entering => {}
            Kind::Ok => self.on_ok(cx, gate, at, line),
            Kind::Message => self.on_message(cx, gate, at, line),
            Kind::Error => match line.id {
                Some(number) if is_passing(line.code) && number < ID_CREATE => {
                    self.verdict.resent += 1;
                    let wait = Duration::from_millis(line.retry_after_ms.unwrap_or(RESEND_MS));
                    cx.set_conn_timer(at.conn, wait, number);
                }
                _ => gate.end(cx, Err(LoadError::Refused { user: at.user, why: line.words() })),
            },
            Kind::Hello | Kind::Bye | Kind::Synced | Kind::Other => {}
        }
    }

    fn on_user_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, token: u64) {
        self.say(cx, gate, at.user, token);
    }

    fn on_timer(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, token: u64) {
        match token {
            TICK_PACE => {
                if self.phase != Phase::Drain {
                    self.keep_pace(cx, gate);
                    cx.set_timer(Duration::from_millis(1), TICK_PACE);
                }
            }
            TICK_ACK => {
                cx.set_timer(ACK_DELAY, TICK_ACK);
                for user in 0..self.users.len() {
                    self.ack(cx, gate, user);
                }
            }
            _ => self.next_phase(cx, gate),
        }
    }

    fn on_closed(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, user: usize, why: String) {
        self.verdict.closed += 1;
        let words = || format!("the connection of user {user} was closed: {why}");
        self.verdict.trouble.get_or_insert_with(words);
        if self.phase == Phase::Measure {
            self.end = Some(Mark::now(&self.watch));
        }
        self.finish(cx, gate);
    }

    fn progress(&mut self, now: Instant) -> Option<String> {
        let phase = match self.phase {
            Phase::Entering => return None,
            Phase::Making => return Some(format!("making groups: {} are still to join", self.joining)),
            Phase::Warmup => "warming up",
            Phase::Measure => "measuring",
            Phase::Drain => "waiting for what is under way",
        };
        let (since, before) = std::mem::replace(&mut self.shown, (now, self.delivered));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
        Some(format!(
            "{phase}: {} deliveries/s",
            crate::table::number(count(self.delivered - before) / seconds)
        ))
    }
}
