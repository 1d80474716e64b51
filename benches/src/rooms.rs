//! Groups: one member of each writes as fast as its window allows, all others receive, ack, and check.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reactor::ConnId;

use crate::gate::{Gate, Pass};
use crate::load::{At, Cx, Shape};
use crate::mark::Mark;
use crate::message::{ACK_PUSHES, histogram, record};
use crate::options::Options;
use crate::process::{Watch, count};
use crate::report::{GroupReport, Quantiles, Report, Verdict};
use crate::scan::{Kind, Line};
use crate::stream::{Seen, Stream};

const ACK_DELAY: Duration = Duration::from_millis(100);

const TICK_ACK: u64 = 1;
const TICK_PHASE: u64 = 2;

/// Ids of requests that are no messages.
const ID_CREATE: u64 = 1;
const ID_JOIN: u64 = 2;
/// Messages count from here.
const ID_FIRST: u64 = 1_000;

/// The shape.
pub(crate) struct Rooms {
    size: usize,
    window: usize,
    text: String,
    times: [Duration; 3],
    watch: Watch,
    users: Vec<User>,
    rooms: Vec<Room>,
    phase: Phase,
    /// Members whose joining is still to be answered.
    joining: usize,
    delivery: Histogram<u64>,
    accepted: u64,
    delivered: u64,
    begin: Option<Mark>,
    end: Option<Mark>,
    verdict: Verdict,
    line: Vec<u8>,
    shown: (Instant, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Entering,
    Making,
    Warmup,
    Measure,
    Drain,
}

#[derive(Debug)]
struct User {
    conn: Option<ConnId>,
    stream: Option<Stream>,
    unacked: u32,
}

/// A group: its id, what its writer has under way, and when each message was sent.
#[derive(Debug, Default)]
struct Room {
    conv: u64,
    unanswered: usize,
    sent: Vec<Instant>,
    accepted: u64,
    /// The place of the last message that was accepted.
    last_seq: u64,
}

impl Rooms {
    pub(crate) fn new(options: &Options, size: usize, watch: Watch) -> Option<Self> {
        let secs = |secs| Duration::try_from_secs_f64(secs).unwrap_or_default();
        let words = "the quick brown fox jumps over the lazy dog ".chars().cycle();
        Some(Self {
            size,
            window: usize::try_from(options.window).unwrap_or(usize::MAX),
            text: words.take(options.text_bytes).collect(),
            times: [secs(options.warmup), secs(options.seconds), secs(options.drain)],
            watch,
            users: Vec::new(),
            rooms: Vec::new(),
            phase: Phase::Entering,
            joining: 0,
            delivery: histogram()?,
            accepted: 0,
            delivered: 0,
            begin: None,
            end: None,
            verdict: Verdict::default(),
            line: Vec::new(),
            shown: (Instant::now(), 0),
        })
    }

    /// Which room a user is in, and whether it is the one that writes.
    fn place(&self, user: usize) -> (usize, bool) {
        (user / self.size, user.is_multiple_of(self.size))
    }

    fn tell(&mut self, cx: &mut Cx<'_, Self>, user: usize, line: &str) {
        if let Some(conn) = self.users.get(user).and_then(|user| user.conn) {
            // A connection that is gone has its `on_close`.
            let _ = cx.send(conn, line.as_bytes());
        }
    }

    /// Sends until the room's window is full.
    fn fill(&mut self, cx: &mut Cx<'_, Self>, room_index: usize) {
        let writer = room_index * self.size;
        let Some(conn) = self.users.get(writer).and_then(|user| user.conn) else { return };
        let Some(room) = self.rooms.get_mut(room_index) else { return };
        while matches!(self.phase, Phase::Warmup | Phase::Measure) && room.unanswered < self.window {
            let id = ID_FIRST + count_of(room.sent.len());
            room.sent.push(Instant::now());
            room.unanswered += 1;
            self.verdict.sent += 1;
            self.line.clear();
            let Self { line, text, .. } = self;
            let written = format!(r#"{{"type":"send","id":{id},"conv":{},"text":"{text}"}}"#, room.conv);
            line.extend_from_slice(written.as_bytes());
            line.push(b'\n');
            let _ = cx.send(conn, line);
        }
    }

    fn on_ok(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        let (room_index, _) = self.place(at.user);
        match line.id.unwrap_or_default() {
            ID_CREATE => {
                if let Some(room) = self.rooms.get_mut(room_index) {
                    room.conv = line.conv;
                }
                let conv = line.conv;
                for member in at.user + 1..at.user + self.size {
                    self.tell(
                        cx,
                        member,
                        &format!("{{\"type\":\"group_join\",\"id\":{ID_JOIN},\"conv\":{conv}}}\n"),
                    );
                }
            }
            ID_JOIN => {
                self.joining -= 1;
                if self.joining == 0 {
                    self.next_phase(cx, gate);
                }
            }
            _ => {
                let is_measured = self.phase == Phase::Measure;
                self.verdict.accepted += 1;
                self.accepted += u64::from(is_measured);
                if let Some(room) = self.rooms.get_mut(room_index) {
                    room.unanswered = room.unanswered.saturating_sub(1);
                    room.accepted += 1;
                    room.last_seq = room.last_seq.max(line.seq);
                }
                self.see(at.user, line, Stream::own);
                self.fill(cx, room_index);
            }
        }
        self.look_done(cx, gate);
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        self.see(at.user, line, Stream::push);
        // What tells of joinings is no message.
        if !line.text.is_empty() {
            self.verdict.received += 1;
            if self.phase == Phase::Measure {
                self.delivered += 1;
            }
        }
        if let Some(user) = self.users.get_mut(at.user) {
            user.unacked += 1;
            if user.unacked >= ACK_PUSHES {
                self.ack(cx, at.user);
            }
        }
        self.look_done(cx, gate);
    }

    /// Puts an entry into the member's stream, which begins with its first.
    fn see(&mut self, user: usize, line: &Line<'_>, mark: fn(&mut Stream, u64) -> Seen) {
        let (room_index, _) = self.place(user);
        let Some(member) = self.users.get_mut(user) else { return };
        let stream = member.stream.get_or_insert_with(|| Stream::after(line.seq.saturating_sub(1)));
        let seen = mark(stream, line.seq);
        // The last member hears a message last, or nearly so: it stands for all.
        if user % self.size == self.size - 1
            && self.phase == Phase::Measure
            && let Some(room) = self.rooms.get(room_index)
            && !line.text.is_empty()
        {
            // Messages follow the room's joinings one by one.
            let number =
                line.seq.checked_sub(count_of(self.size) + 1).and_then(|at| usize::try_from(at).ok());
            if let Some(sent) = number.and_then(|number| room.sent.get(number)) {
                record(&mut self.delivery, Instant::now(), *sent);
            }
        }
        match seen {
            Seen::Fine => return,
            Seen::Doubled => self.verdict.doubled += 1,
            Seen::Disordered => self.verdict.disordered += 1,
        }
        self.verdict
            .trouble
            .get_or_insert_with(|| format!("group {}, seq {}: {seen:?}", line.conv, line.seq));
    }

    fn ack(&mut self, cx: &mut Cx<'_, Self>, user: usize) {
        let (room_index, _) = self.place(user);
        let Some(conv) = self.rooms.get(room_index).map(|room| room.conv) else { return };
        let Some(member) = self.users.get_mut(user) else { return };
        member.unacked = 0;
        let seq = member.stream.as_ref().map_or(0, Stream::complete);
        if seq > 0 {
            self.tell(cx, user, &format!("{{\"type\":\"ack\",\"conv\":{conv},\"seq\":{seq}}}\n"));
        }
    }

    fn mark(&self) -> Mark {
        Mark::now(&self.watch)
    }

    fn next_phase(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        let [warmup, seconds, drain] = self.times;
        match self.phase {
            Phase::Entering => {}
            Phase::Making => {
                self.phase = Phase::Warmup;
                cx.set_timer(warmup, TICK_PHASE);
                for room in 0..self.rooms.len() {
                    self.fill(cx, room);
                }
            }
            Phase::Warmup => {
                self.phase = Phase::Measure;
                self.begin = Some(self.mark());
                cx.set_timer(seconds, TICK_PHASE);
            }
            Phase::Measure => {
                self.end = Some(self.mark());
                self.phase = Phase::Drain;
                cx.set_timer(drain, TICK_PHASE);
                self.look_done(cx, gate);
            }
            Phase::Drain => self.finish(cx, gate),
        }
    }

    /// Ends the run when every member has everything.
    fn look_done(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if self.phase != Phase::Drain || self.verdict.accepted + self.verdict.refused < self.verdict.sent {
            return;
        }
        if self.verdict.received >= self.verdict.accepted * count_of(self.size - 1) {
            self.finish(cx, gate);
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        if gate.is_over() {
            return;
        }
        for (user, member) in self.users.iter().enumerate() {
            let Some(room) = self.rooms.get(user / self.size) else { continue };
            let complete = member.stream.as_ref().map_or(0, Stream::complete);
            self.verdict.lost += room.last_seq.saturating_sub(complete);
        }
        let (begin, end) = match (self.begin.take(), self.end.take()) {
            (Some(begin), Some(end)) => (begin, end),
            _ => (self.mark(), self.mark()),
        };
        let span = begin.until(&end, self.delivered);
        let report = GroupReport {
            run_id: gate.run_id.clone(),
            groups: self.rooms.len(),
            size: self.size,
            window: u32::try_from(self.window).unwrap_or(u32::MAX),
            seconds: span.seconds,
            accepted_per_second: span.rate(self.accepted),
            delivered_per_second: span.rate(self.delivered),
            delivery_us: Quantiles::from(&self.delivery),
            server: span.server,
            load_cores: span.load_cores,
            verdict: self.verdict.clone(),
        };
        gate.end(cx, Ok(Report::Group(Box::new(report))));
    }
}

fn count_of(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Shape for Rooms {
    fn start(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        gate.begin(cx, Pass::Stay);
    }

    fn all_in(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate) {
        let user = |conn| User { conn, stream: None, unacked: 0 };
        self.users = gate.accounts.iter().map(|account| user(account.conn)).collect();
        self.rooms = (0..self.users.len() / self.size).map(|_| Room::default()).collect();
        self.joining = self.rooms.len() * (self.size - 1);
        self.shown = (cx.now(), 0);
        self.phase = Phase::Making;
        cx.set_timer(ACK_DELAY, TICK_ACK);
        for room in 0..self.rooms.len() {
            let line =
                format!("{{\"type\":\"group_create\",\"id\":{ID_CREATE},\"name\":\"room\",\"open\":true}}\n");
            self.tell(cx, room * self.size, &line);
        }
    }

    fn on_line(&mut self, cx: &mut Cx<'_, Self>, gate: &mut Gate, at: At, line: &Line<'_>) {
        match line.kind {
            _ if self.phase == Phase::Entering => {}
            Kind::Ok => self.on_ok(cx, gate, at, line),
            Kind::Message => self.on_message(cx, gate, at, line),
            Kind::Error => {
                let words = line.words();
                self.verdict.refused += 1;
                self.verdict.trouble.get_or_insert_with(|| format!("user {}: {words}", at.user));
                let (room_index, _) = self.place(at.user);
                if let Some(room) = self.rooms.get_mut(room_index) {
                    room.unanswered = room.unanswered.saturating_sub(1);
                }
                self.look_done(cx, gate);
            }
            Kind::Hello | Kind::Bye | Kind::Synced | Kind::Other => {}
        }
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
        self.verdict
            .trouble
            .get_or_insert_with(|| format!("the connection of user {user} was closed: {why}"));
        if let Some(user) = self.users.get_mut(user) {
            user.conn = None;
        }
        if self.phase == Phase::Measure {
            self.end = Some(self.mark());
        }
        self.phase = Phase::Drain;
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
        let (since, before) = std::mem::replace(&mut self.shown, (now, self.verdict.received));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1e-9);
        let rate = count(self.verdict.received - before) / seconds;
        Some(format!("{phase}: {} deliveries/s", crate::table::number(rate)))
    }
}
