//! A crowd of users who write to each other while somebody breaks things, and who write down what they see.
//!
//! [`Crowd::gather`] makes accounts, friends, groups and conversations through one address, as a rule a balancer's. [`Crowd::run`] lets everybody log in
//! and write, and afterwards waits until all is quiet and everybody has compared what came with what there is; the [`Outcome`] holds the
//! [`History`], to be checked. A client that loses its connection comes back as the protocol wants it: after the pause that it was told, by its token,
//! with its own cursors, and sends again, under the same `client_id`, what was not answered.
//!
//! All of it runs on one thread, and who writes what to whom, who leaves and who loses the connection follows from the seed.

mod client;
mod cursors;
mod gather;
mod outgoing;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, Phase};
use mio::{Events, Poll, Token};
use outgoing::{Outgoing, Target};
use wire::Wire;

use crate::history::{ClientLog, ConvNumber, Fault, History, PRESENCE_MAX, SeqNumber, UserNumber, What};

const PASSWORD: &str = "correct horse battery";
/// Messages of one client that are not acknowledged at most; it writes no more meanwhile.
const OUTGOING_MAX: usize = 4;
/// How long everybody may take, after the last message, to have everything acknowledged and received: a lost last push is noticed within one heartbeat of 30 s.
const SETTLE_MAX: Duration = Duration::from_secs(40);
/// How long reading the histories may take after that.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// The poll's longest sleep: nothing here is finer.
const TICK: Duration = Duration::from_millis(20);

/// What kind of crowd.
#[derive(Debug, Clone)]
pub struct CrowdPlan {
    /// How many users; one in ten has a second device.
    pub users: usize,
    /// What is left to chance follows from it.
    pub seed: u64,
    /// How long a client waits on the average between two messages.
    pub think: Duration,
    /// For machines that may stand still now and then: everything may take ten times as long in the end, and who is online is not judged.
    pub patient: bool,
}

impl Default for CrowdPlan {
    fn default() -> Self {
        CrowdPlan { users: 200, seed: 1, think: Duration::from_millis(800), patient: false }
    }
}

/// The crowd. See the [module](self).
#[derive(Debug)]
pub struct Crowd {
    plan: CrowdPlan,
    addr: SocketAddr,
    clients: Vec<Client>,
    groups: Vec<Group>,
    /// The two of each direct conversation.
    directs: BTreeMap<ConvNumber, (UserNumber, UserNumber)>,
    /// Each conversation's last place before the next run.
    last: BTreeMap<ConvNumber, SeqNumber>,
    /// For texts that are unique over all runs.
    written: u64,
}

/// A group whose members stay.
#[derive(Debug)]
struct Group {
    conv: ConvNumber,
    members: BTreeSet<UserNumber>,
}

/// What came out of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What everybody saw, to be checked.
    pub history: History,
    /// What went wrong besides: who did not get back, what was not acknowledged in the end, what was answered that never should be.
    pub strange: Vec<String>,
}

/// The run's clock, for those who break things.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// The time since the run's begin.
    pub fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Waits until this time.
    pub fn wait_until(&self, at: Duration) {
        std::thread::sleep(at.saturating_sub(self.now()));
    }
}

/// What was decided before a run begins.
struct Script {
    rng: fastrand::Rng,
    next: Vec<Duration>,
    /// When somebody leaves for good, or loses the connection.
    cuts: Vec<(Duration, usize, Cut)>,
    /// Who wrote to whom without naming a conversation.
    first_contacts: HashMap<String, (UserNumber, UserNumber)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Leave,
    Lose,
}

impl Crowd {
    /// Makes accounts and all that, through `addr`, where clients will connect.
    ///
    /// # Panics
    /// When a request is not answered as it should be: nothing may be broken yet.
    pub fn gather(addr: SocketAddr, plan: CrowdPlan) -> Crowd {
        let gather::Gathered { clients, groups, directs, last } = gather::gather(addr, &plan);
        Crowd { plan, addr, clients, groups, directs, last, written: 0 }
    }

    /// One run: everybody writes for `at_least` so long, and until two seconds after `break_things` has come back, which runs on a thread of its own.
    ///
    /// # Panics
    /// When `break_things` does, or there is no poll to be had.
    pub fn run(
        &mut self,
        seed: u64,
        at_least: Duration,
        break_things: impl FnOnce(&Clock) -> Vec<Fault> + Send,
    ) -> Outcome {
        let mut poll = Poll::new().expect("a poll");
        let clock = Clock(Instant::now());
        let mut script = self.script(seed);
        let faults = std::thread::scope(|scope| {
            let breaker = scope.spawn(move || break_things(&clock));
            let mut broken_until = None;
            let ends = |now: Duration, broken_until: Option<Duration>| {
                now >= at_least && broken_until.is_some_and(|until| now >= until + Duration::from_secs(2))
            };
            while !ends(clock.now(), broken_until) {
                self.turn(&mut poll, &clock, &mut script, true);
                if breaker.is_finished() {
                    broken_until.get_or_insert_with(|| clock.now());
                }
            }
            breaker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        self.settle(&mut poll, &clock, &mut script);
        self.finish(seed, faults, &script, clock.now())
    }

    /// Who is one of them, by id and name.
    pub fn people(&self) -> Vec<(UserNumber, String)> {
        self.clients.iter().map(|client| (client.log.user, client.log.name.clone())).collect()
    }

    fn script(&mut self, seed: u64) -> Script {
        let mut rng = fastrand::Rng::with_seed(seed);
        let part = |rng: &mut fastrand::Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let mut cuts = Vec::new();
        for number in 0..self.clients.len() {
            let user = self.clients[number].log.user;
            let base = self.last.iter().filter(|(conv, _)| self.is_in(user, **conv));
            let base = base.map(|(conv, seq)| (*conv, *seq)).collect();
            self.clients[number].begin(base, part(&mut rng, 0, 1500));
            match rng.u8(0..100) {
                0..5 => cuts.push((part(&mut rng, 2000, 4000), number, Cut::Leave)),
                5..15 => cuts.push((part(&mut rng, 2000, 15_000), number, Cut::Lose)),
                _ => {}
            }
        }
        let next = self.clients.iter().map(|_| part(&mut rng, 1000, 3000)).collect();
        Script { rng, next, cuts, first_contacts: HashMap::new() }
    }

    fn is_in(&self, user: UserNumber, conv: ConvNumber) -> bool {
        let direct = self.directs.get(&conv).is_some_and(|(one, other)| user == *one || user == *other);
        direct || self.groups.iter().any(|group| group.conv == conv && group.members.contains(&user))
    }

    /// What has come, what is due, and who writes.
    fn turn(&mut self, poll: &mut Poll, clock: &Clock, script: &mut Script, writing: bool) {
        let mut events = Events::with_capacity(1024);
        // A signal may interrupt it, which is as good as the time's end.
        let _ = poll.poll(&mut events, Some(TICK));
        let now = clock.now();
        for event in &events {
            let Token(number) = event.token();
            let client = &mut self.clients[number];
            receive(client, now, &mut script.rng);
        }
        while let Some(at) = script.cuts.iter().position(|(at, ..)| *at <= now) {
            let (_, number, cut) = script.cuts.swap_remove(at);
            let client = &mut self.clients[number];
            match cut {
                Cut::Leave => client.leave(now),
                Cut::Lose if client.phase == Phase::Live => {
                    client.ended("it lost the connection", now, None, &mut script.rng);
                }
                Cut::Lose => {}
            }
        }
        for number in 0..self.clients.len() {
            if writing {
                self.maybe_write(number, now, script);
            }
            let client = &mut self.clients[number];
            if matches!(client.phase, Phase::Away(until) if until <= now) {
                match Wire::connect(self.addr, poll.registry(), Token(number)) {
                    Ok(wire) => client.opened(wire, now),
                    Err(e) => client.ended(&e.to_string(), now, None, &mut script.rng),
                }
            }
            if let Err(why) = client.tick(now) {
                client.ended(&why, now, None, &mut script.rng);
            }
            if let Some(Err(e)) = client.wire.as_mut().map(Wire::flush) {
                client.ended(&e.to_string(), now, None, &mut script.rng);
            }
        }
    }

    fn maybe_write(&mut self, number: usize, now: Duration, script: &mut Script) {
        let client = &self.clients[number];
        if client.phase == Phase::Left || now < script.next[number] || client.outgoing.len() >= OUTGOING_MAX {
            return;
        }
        // Times between independent events: the logarithm of an even chance.
        let pause = self.plan.think.mul_f64(-(1.0 - script.rng.f64()).ln());
        script.next[number] = now + pause;
        let user = client.log.user;
        self.written += 1;
        let text = format!("m{}-{number}", self.written);
        let message = match script.rng.u8(0..100) {
            0..2 => {
                let strangers: Vec<&Group> =
                    self.groups.iter().filter(|group| !group.members.contains(&user)).collect();
                let Some(group) = script.rng.choice(strangers) else { return };
                let mut message = Outgoing::new(text, Target::Conv(group.conv), now);
                message.may_be_refused = true;
                message
            }
            2..5 => {
                let other = self.clients[script.rng.usize(0..self.clients.len())].log.user;
                if other == user {
                    return;
                }
                script.first_contacts.insert(text.clone(), (user, other));
                Outgoing::new(text, Target::User(other), now)
            }
            choice => {
                let wants_group = choice < 35;
                let mine: Vec<&ConvNumber> = client
                    .base
                    .keys()
                    .filter(|conv| self.directs.contains_key(conv) != wants_group)
                    .collect();
                let Some(conv) = script.rng.choice(mine) else { return };
                Outgoing::new(text, Target::Conv(*conv), now)
            }
        };
        self.clients[number].outgoing.push(message);
    }

    /// Nobody writes any more: until everybody has everything, and presence has had time to come true and to be looked at.
    fn settle(&mut self, poll: &mut Poll, clock: &Clock, script: &mut Script) {
        let began = clock.now();
        let (quiet, settle_max) = match self.plan.patient {
            false => (PRESENCE_MAX + Duration::from_secs(4), SETTLE_MAX),
            true => (Duration::ZERO, SETTLE_MAX * 10),
        };
        let quiet_until = began + quiet;
        let mut gave_up = false;
        loop {
            let now = clock.now();
            let nothing_flies = self.clients.iter().all(|client| client.outgoing.is_empty());
            if nothing_flies || now > began + settle_max / 2 {
                self.clients.iter_mut().for_each(Client::end);
            }
            if self.clients.iter().all(Client::is_done) && now >= quiet_until {
                return;
            }
            if now > began + settle_max && !gave_up {
                gave_up = true;
                self.clients.iter_mut().for_each(|client| client.give_up(now));
            }
            if now > began + settle_max + FETCH_MAX {
                return;
            }
            self.turn(poll, clock, script, false);
        }
    }

    fn finish(&mut self, seed: u64, faults: Vec<Fault>, script: &Script, now: Duration) -> Outcome {
        let mut strange = Vec::new();
        for client in &mut self.clients {
            strange.append(&mut client.strange);
            let name = client.log.name.clone();
            if !client.is_done() {
                strange
                    .push(format!("{name} did not get back and read everything; it is {:?}", client.phase));
            }
            let lost = client.outgoing.iter().filter(|message| !message.may_be_refused);
            strange.extend(lost.map(|m| format!("{name}'s {:?} was not acknowledged in the end", m.text)));
            if client.phase != Phase::Left {
                client.leave(now);
            }
        }
        let logs: Vec<ClientLog> = self.clients.iter().map(|client| client.log.clone()).collect();
        for event in logs.iter().flat_map(|log| &log.events) {
            // Whoever wrote it may have left before it was answered.
            let (conv, text) = match &event.what {
                What::Acked { conv, text, .. } => (conv, text),
                What::Pushed { conv, entry } => (conv, &entry.text),
                _ => continue,
            };
            if let Some(two) = script.first_contacts.get(text) {
                self.directs.entry(*conv).or_insert(*two);
            }
        }
        let mut members: BTreeMap<ConvNumber, BTreeMap<UserNumber, SeqNumber>> = BTreeMap::new();
        let first = |conv| self.last.get(conv).map_or(1, |seq| seq + 1);
        for (conv, (one, other)) in &self.directs {
            members.insert(*conv, BTreeMap::from([(*one, first(conv)), (*other, first(conv))]));
        }
        for group in &self.groups {
            let all = group.members.iter().map(|user| (*user, first(&group.conv)));
            members.insert(group.conv, all.collect());
        }
        for client in &self.clients {
            for (conv, seq) in client.cursors.all() {
                let last = self.last.entry(conv).or_insert(0);
                *last = seq.max(*last);
            }
        }
        let forgives_presence = self.plan.patient;
        let history = History { clients: logs, faults, members, seed, forgives_presence };
        Outcome { history, strange }
    }
}

/// Reads and writes what can be.
fn receive(client: &mut Client, now: Duration, rng: &mut fastrand::Rng) {
    let Some(wire) = &mut client.wire else { return };
    if let Err(e) = wire.flush() {
        client.ended(&e.to_string(), now, None, rng);
        return;
    }
    let (lines, end) = wire.read();
    for line in &lines {
        if let Err((why, pause)) = client.line(line, now) {
            client.ended(&why, now, pause, rng);
            return;
        }
    }
    if let Some(why) = end {
        client.ended(&why, now, None, rng);
    }
}
