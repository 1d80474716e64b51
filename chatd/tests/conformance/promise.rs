//! *The stream promise* under random use: many devices, lost connections, resends, slow readers, and a model that checks every line.
//!
//! What is done to it: bursts of pipelined sends, resends of answered and of unanswered ones, connections ended cleanly, by a reset
//! and with unread input, resumes by a device's own cursors, in parts and only for some conversations, plain logins, readers
//! that do not read for a while, backlogs larger than the window. What must hold: each sentence of the promise, on each
//! connection; and in the end every device has every entry, once, with the same text at the same place.
//!
//! `CONFORMANCE_SEED=n` plays a run again; `CONFORMANCE_STEPS=n` makes it longer.

use crate::client::{Client, WAIT};
use crate::device::{Device, Pending, Phase};
use crate::model::{Place, Truth};
use crate::server::{House, PASSWORD, User, place, shared};
use fastrand::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

const USERS: usize = 4;
const DEVICES_PER_USER: usize = 3;
const STEPS: u32 = 1000;
const WINDOW: usize = 256;
const PASSWORDS_MAX: u32 = 30;

/// One message that somebody wants to have sent.
#[derive(Debug)]
struct Send {
    from: usize,
    to: usize,
    text: String,
    place: Option<Place>,
    /// Whether it has been answered with an `ok` that is no duplicate.
    first_ok: bool,
}

/// A user, and what is known of its delivered cursors.
#[derive(Debug)]
struct Person {
    user: User,
    token: Value,
    /// At least this is written: an ack was answered.
    floor: BTreeMap<u64, u64>,
    /// No more than this can be: an ack was sent.
    ceiling: BTreeMap<u64, u64>,
    /// Sends whose connection was lost, or that were answered with an error.
    unsure: Vec<usize>,
    passwords_used: u32,
}

#[derive(Debug)]
struct World<'a> {
    house: &'a House,
    rng: Rng,
    truth: Truth,
    members: BTreeMap<u64, [u64; 2]>,
    people: Vec<Person>,
    sends: Vec<Send>,
    devices: Vec<Device>,
}

#[test]
fn the_stream_promise_holds_whatever_happens_to_connections() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("CONFORMANCE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let steps = number("CONFORMANCE_STEPS").map_or(STEPS, |steps| u32::try_from(steps).expect("steps"));
    println!("CONFORMANCE_SEED={seed} CONFORMANCE_STEPS={steps}");
    let mut world = World::new(shared(), seed);
    for _ in 0..steps {
        world.step();
        world.pump(false);
    }
    world.settle();
    println!("{} entries in {} conversations", world.truth.len(), world.members.len());
}

impl<'a> World<'a> {
    fn new(house: &'a House, seed: u64) -> Self {
        let person = |_| {
            let user = house.user("random");
            let token = house.login(&user).1["token"].clone();
            Person {
                user,
                token,
                floor: BTreeMap::new(),
                ceiling: BTreeMap::new(),
                unsure: Vec::new(),
                passwords_used: 0,
            }
        };
        Self {
            house,
            rng: Rng::with_seed(seed),
            truth: Truth::default(),
            members: BTreeMap::new(),
            people: Vec::from_iter((0..USERS).map(person)),
            sends: Vec::new(),
            devices: Vec::from_iter((0..USERS * DEVICES_PER_USER).map(|n| Device::new(n % USERS))),
        }
    }

    /// Something happens to a random device.
    fn step(&mut self) {
        let at = self.rng.usize(..self.devices.len());
        let chance = self.rng.u32(..100);
        match self.devices[at].phase {
            Phase::Offline if chance < 60 => self.log_in(at, chance < 30),
            Phase::Offline => {}
            Phase::Held if chance < 60 => self.start_streams(at),
            Phase::Held | Phase::Live => match chance {
                60..75 => {
                    let count = self.rng.usize(1..=12);
                    self.send_some(at, count);
                }
                0..2 => self.send_some(at, 300),
                2..10 => self.resend_one(at),
                10..15 => self.resend_unsure(at),
                15..35 => self.ack_one(at),
                35..40 => self.mark_read(at),
                40..45 => self.read_back(at),
                45..50 => self.devices[at].slow = self.rng.u32(1..150),
                75..80 => self.part(at),
                80..86 => self.lose(at, chance < 83),
                _ => self.ack_all(at),
            },
        }
    }

    fn log_in(&mut self, at: usize, hold: bool) {
        let user = self.devices[at].user;
        let lasts = self.lasts_of(user);
        let mut client = if self.rng.bool() {
            Client::connect(self.house.addr())
        } else {
            Client::connect_narrow(self.house.addr())
        };
        client.push("hello");
        let person = &self.people[user];
        let floor = person.floor.clone();
        // Each login by password makes a token, and the 33rd token would revoke the first.
        let by_password = person.passwords_used < PASSWORDS_MAX && self.rng.bool();
        let mut login = match by_password {
            true => json!({"type": "login", "name": person.user.name, "password": PASSWORD}),
            false => json!({"type": "login", "token": person.token}),
        };
        if hold {
            login["hold"] = json!(true);
        }
        client.ok(login);
        self.people[user].passwords_used += u32::from(by_password);
        let device = &mut self.devices[at];
        device.begin(client, if hold { Phase::Held } else { Phase::Live });
        device.lasts_at_login = lasts;
        device.floor_at_login.clone_from(&floor);
        self.set_starts(at, &floor, &BTreeMap::new());
    }

    /// Streams start at the device's cursors, or somewhere between what must be and what can be delivered.
    fn set_starts(&mut self, at: usize, floor: &BTreeMap<u64, u64>, cursors: &BTreeMap<u64, u64>) {
        let device = &mut self.devices[at];
        let ceiling = &self.people[device.user].ceiling;
        for &conv in ceiling.keys().chain(cursors.keys()) {
            let known = |of: &BTreeMap<u64, u64>| of.get(&conv).copied().unwrap_or(0);
            let (low, high) =
                cursors.get(&conv).map_or((known(floor), known(ceiling)), |&cursor| (cursor, cursor));
            let stream = device.streams.entry(conv).or_default();
            (stream.low, stream.high) = (low, high);
            stream.named = cursors.contains_key(&conv);
        }
    }

    fn start_streams(&mut self, at: usize) {
        let parts = self.rng.usize(..3);
        let mut cursors = self.devices[at].cursors();
        if self.rng.u32(..4) == 0 {
            let rng = &mut self.rng;
            cursors.retain(|_, _| rng.bool());
        }
        self.sync(at, &cursors, parts);
    }

    fn sync(&mut self, at: usize, cursors: &BTreeMap<u64, u64>, parts: usize) {
        // The page does not say whether the delivered cursor is taken at the login or at the sync: either will do.
        let floor = self.devices[at].floor_at_login.clone();
        let object = |part: &[(&u64, &u64)]| {
            Value::from_iter(part.iter().map(|(conv, seq)| (conv.to_string(), json!(seq))))
        };
        let all = Vec::from_iter(cursors);
        let mut rest = &all[..];
        for _ in 0..parts {
            let (part, others) = rest.split_at(rest.len() / 2);
            rest = others;
            self.devices[at].client().ok(json!({"type": "sync", "cursors": object(part), "more": true}));
        }
        // Until the ok is here, other devices' acks could move the delivered cursor that a stream starts from.
        self.devices[at].client().ok(json!({"type": "sync", "cursors": object(rest)}));
        self.set_starts(at, &floor, cursors);
        self.devices[at].phase = Phase::Live;
    }

    fn ask(&mut self, at: usize, request: Value, pending: Pending) {
        let device = &mut self.devices[at];
        let id = device.client().ask(request);
        device.pending.insert(id, pending);
    }

    /// Sends fresh messages in one write.
    fn send_some(&mut self, at: usize, count: usize) {
        let from = self.devices[at].user;
        let to = (from + self.rng.usize(1..USERS)) % USERS;
        let mut fresh = Vec::new();
        for _ in 0..count {
            let n = self.sends.len();
            let long = if count < 20 && self.rng.u32(..20) == 0 {
                self.rng.usize(..8000)
            } else {
                self.rng.usize(..40)
            };
            let text = format!(
                "{n} from {from} to {to} {}",
                "é\"\n😀x".chars().cycle().take(long).collect::<String>()
            );
            self.sends.push(Send { from, to, text, place: None, first_ok: false });
            fresh.push(n);
        }
        self.send_batch(at, &fresh);
    }

    /// Sends these, fresh or not, in one write.
    fn send_batch(&mut self, at: usize, numbers: &[usize]) {
        let mut batch = String::new();
        for &n in numbers {
            let send = &self.sends[n];
            let mut request = json!({"type": "send", "client_id": format!("c-{n}"), "text": send.text});
            match send.place {
                Some((conv, _)) if self.rng.bool() => request["conv"] = json!(conv),
                _ => request["user"] = json!(self.people[send.to].user.id),
            }
            let device = &mut self.devices[at];
            let (id, request) = device.client().with_id(request);
            device.pending.insert(id, Pending::Send(n));
            batch.push_str(&format!("{request}\n"));
        }
        self.devices[at].client().raw(batch.as_bytes());
    }

    fn resend_one(&mut self, at: usize) {
        let user = self.devices[at].user;
        let mine = Vec::from_iter((0..self.sends.len()).filter(|&n| self.sends[n].from == user));
        if let Some(&n) = self.rng.choice(&mine) {
            let times = self.rng.usize(1..=2);
            self.send_batch(at, &[n, n][..times]);
        }
    }

    fn resend_unsure(&mut self, at: usize) {
        let user = self.devices[at].user;
        let unsure = std::mem::take(&mut self.people[user].unsure);
        self.send_batch(at, &unsure);
    }

    fn ack_one(&mut self, at: usize) {
        let convs = Vec::from_iter(self.devices[at].streams.keys().copied());
        let with_id = self.rng.bool();
        if let Some(&conv) = self.rng.choice(&convs) {
            let complete = self.devices[at].streams[&conv].complete_to();
            let seq = complete.saturating_sub(self.rng.u64(..5));
            self.ack(at, (conv, seq), with_id);
        }
    }

    fn ack_all(&mut self, at: usize) {
        let complete = Vec::from_iter(
            self.devices[at].streams.iter().map(|(&conv, stream)| (conv, stream.complete_to())),
        );
        for place in complete {
            self.ack(at, place, false);
        }
    }

    fn ack(&mut self, at: usize, (conv, seq): Place, with_id: bool) {
        let device = &mut self.devices[at];
        let Some(stream) = device.streams.get_mut(&conv) else { return };
        if device.phase != Phase::Live || seq <= stream.acked {
            return;
        }
        stream.acked = seq;
        let ceiling = self.people[device.user].ceiling.entry(conv).or_default();
        *ceiling = seq.max(*ceiling);
        let user = device.user;
        for (_, other) in
            self.devices.iter_mut().enumerate().filter(|(n, other)| *n != at && other.user == user)
        {
            if other.phase == Phase::Live && !other.synced {
                other.streams.entry(conv).or_default().on_others_ack(seq);
            }
        }
        let request = json!({"type": "ack", "conv": conv, "seq": seq});
        if with_id {
            self.ask(at, request, Pending::Ack((conv, seq)));
        } else {
            self.devices[at].client().tell(&request);
        }
    }

    fn mark_read(&mut self, at: usize) {
        let cursors = Vec::from_iter(self.devices[at].cursors());
        if let Some(&(conv, seq)) = self.rng.choice(&cursors)
            && seq > 0
        {
            self.ask(at, json!({"type": "read", "conv": conv, "seq": seq}), Pending::Other);
            self.ask(at, json!({"type": "typing", "conv": conv}), Pending::Other);
        }
    }

    fn read_back(&mut self, at: usize) {
        let lasts = Vec::from_iter(self.lasts_of(self.devices[at].user));
        if let Some(&(conv, last)) = self.rng.choice(&lasts) {
            let after = self.rng.u64(..last);
            let request =
                json!({"type": "history", "conv": conv, "after": after, "limit": self.rng.u32(1..=200)});
            self.ask(at, request, Pending::History((conv, after)));
        }
    }

    /// Ends a connection cleanly: everything it asked is answered.
    fn part(&mut self, at: usize) {
        for line in self.devices[at].part() {
            self.on_line(at, &line);
        }
        let device = &self.devices[at];
        if !device.pending.is_empty() {
            device.fail(&format!("unanswered at a clean end: {:?}", device.pending));
        }
        self.devices[at].phase = Phase::Offline;
        self.devices[at].client = None;
    }

    /// Loses a connection, by a reset or by going away with input unread.
    fn lose(&mut self, at: usize, by_reset: bool) {
        let device = &mut self.devices[at];
        let client = device.client.take().expect("it is online");
        device.phase = Phase::Offline;
        for pending in std::mem::take(&mut device.pending).into_values() {
            if let Pending::Send(n) = pending {
                self.people[device.user].unsure.push(n);
            }
        }
        if by_reset {
            client.reset();
        }
    }

    /// Handles what has arrived, at the devices that read.
    fn pump(&mut self, patient: bool) {
        for at in 0..self.devices.len() {
            if self.devices[at].phase == Phase::Offline {
                continue;
            }
            if self.devices[at].slow > 0 {
                self.devices[at].slow -= 1;
                continue;
            }
            for line in self.devices[at].arrived(patient) {
                self.on_line(at, &line);
            }
            if self.devices[at].client().is_closed() {
                self.devices[at].fail("the server ended the connection");
            }
        }
    }

    fn on_line(&mut self, at: usize, line: &Value) {
        let result = match line["type"].as_str().expect("a type") {
            "ok" => self.on_ok(at, line),
            "error" => self.on_error(at, line),
            "message" => self.on_message(at, line),
            "synced" => self.devices[at].on_synced(),
            "read" | "typing" => Ok(()),
            "delivered" => self.on_delivered(at, line),
            _ => Err("not expected".to_owned()),
        };
        if let Err(fault) = result {
            let line = line.to_string().chars().take(300).collect::<String>();
            self.devices[at].fail(&format!("{fault}: {line}"));
        }
    }

    fn on_message(&mut self, at: usize, push: &Value) -> Result<(), String> {
        let place = place(push);
        let from = push["from"].as_u64().ok_or("no sender")?;
        let members = [from, push["to"].as_u64().ok_or("no receiver")?];
        self.learn(place, members, push["text"].as_str().ok_or("no text")?)?;
        let me = self.people[self.devices[at].user].user.id;
        if !members.contains(&me) {
            return Err(format!("not for user {me}"));
        }
        self.devices[at].on_push(place, WINDOW)
    }

    fn learn(&mut self, place: Place, members: [u64; 2], text: &str) -> Result<(), String> {
        let mut sorted = members;
        sorted.sort_unstable();
        if *self.members.entry(place.0).or_insert(sorted) != sorted {
            return Err(format!("conversation {} is of others too", place.0));
        }
        self.truth.learn(place, members[0], text)
    }

    fn on_ok(&mut self, at: usize, ok: &Value) -> Result<(), String> {
        let id = ok["id"].as_u64().expect("an id");
        match self.devices[at].pending.remove(&id).ok_or("answered twice, or never asked")? {
            Pending::Send(n) => self.on_sent(at, n, ok),
            Pending::Ack((conv, seq)) => {
                // Where the start is not known exactly, the ack may have been beyond what had come.
                if self.devices[at].streams[&conv].is_exact() {
                    let floor = self.people[self.devices[at].user].floor.entry(conv).or_default();
                    *floor = seq.max(*floor);
                }
                Ok(())
            }
            Pending::History((conv, after)) => {
                let entries = ok["messages"].as_array().ok_or("no messages")?;
                for (entry, seq) in entries.iter().zip(after + 1..) {
                    if entry["seq"] != json!(seq) {
                        return Err(format!("history has no {conv}/{seq}"));
                    }
                    let from = entry["from"].as_u64().ok_or("no sender")?;
                    self.truth.learn((conv, seq), from, entry["text"].as_str().ok_or("no text")?)?;
                }
                if entries.is_empty() { Err("an empty page before the end".to_owned()) } else { Ok(()) }
            }
            Pending::Other => Ok(()),
        }
    }

    fn on_sent(&mut self, at: usize, n: usize, ok: &Value) -> Result<(), String> {
        let place = place(ok);
        let send = &mut self.sends[n];
        let duplicate = ok["duplicate"].as_bool().unwrap_or(false);
        if send.place.is_some_and(|known| known != place) {
            return Err(format!("it was kept at {:?} before", send.place));
        }
        send.place = Some(place);
        if !duplicate && send.first_ok {
            return Err("accepted twice".to_owned());
        }
        send.first_ok |= !duplicate;
        let members = [self.people[send.from].user.id, self.people[send.to].user.id];
        let text = send.text.clone();
        self.learn(place, members, &text)?;
        if duplicate { Ok(()) } else { self.devices[at].on_own(place) }
    }

    fn on_error(&mut self, at: usize, error: &Value) -> Result<(), String> {
        let id = error["id"].as_u64().ok_or("an error without an id")?;
        let pending = self.devices[at].pending.remove(&id).ok_or("answered twice, or never asked")?;
        match (pending, error["code"].as_str()) {
            (Pending::Send(n), Some("unavailable" | "overloaded")) => {
                self.people[self.devices[at].user].unsure.push(n);
                Ok(())
            }
            (pending, _) => Err(format!("{pending:?} failed")),
        }
    }

    fn on_delivered(&mut self, at: usize, push: &Value) -> Result<(), String> {
        self.devices[at].on_delivered(push)?;
        let person = self
            .people
            .iter()
            .find(|person| push["user"] == json!(person.user.id))
            .ok_or("of nobody here")?;
        let conv = push["conv"].as_u64().ok_or("no conv")?;
        let ceiling = person.ceiling.get(&conv).copied().unwrap_or(0);
        if push["seq"].as_u64().ok_or("no seq")? > ceiling {
            return Err(format!("delivered, and only {ceiling} was acked"));
        }
        Ok(())
    }

    fn lasts_of(&self, user: usize) -> BTreeMap<u64, u64> {
        let id = self.people[user].user.id;
        let mut lasts = self.truth.lasts();
        lasts.retain(|conv, _| self.members.get(conv).is_some_and(|members| members.contains(&id)));
        lasts
    }

    /// Waits, handling what comes and acking it, until this holds of the world.
    fn settle_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + 2 * WAIT;
        while !holds(self) {
            self.pump(true);
            for at in 0..self.devices.len() {
                if self.devices[at].phase == Phase::Live && self.devices[at].unacked() > 100 {
                    self.ack_all(at);
                }
            }
            if Instant::now() > deadline {
                let open =
                    self.devices.iter().find(|device| !device.pending.is_empty() || self.is_behind(device));
                open.unwrap_or(&self.devices[0]).fail(&format!("never {what}"));
            }
        }
    }

    fn is_behind(&self, device: &Device) -> bool {
        device.phase != Phase::Live || !device.synced || device.missing(&self.lasts_of(device.user)).is_some()
    }

    /// Lets everything come to rest, and checks that nothing is missing anywhere.
    fn settle(&mut self) {
        for at in 0..self.devices.len() {
            self.devices[at].slow = 0;
            match self.devices[at].phase {
                Phase::Offline => self.log_in(at, false),
                Phase::Held => self.start_streams(at),
                Phase::Live => {}
            }
        }
        let answered = |world: &Self| world.devices.iter().all(|device| device.pending.is_empty());
        self.settle_until("answered", answered);
        for at in 0..USERS {
            self.resend_unsure(at);
        }
        self.settle_until("answered again", answered);
        assert!(self.sends.iter().all(|send| send.place.is_some()), "something was never sent");
        assert_eq!(self.truth.gap(), None, "a gap");
        self.settle_until("complete", |world| world.devices.iter().all(|device| !world.is_behind(device)));
        assert_eq!(self.truth.len(), self.sends.len(), "nothing was doubled");

        // Each device comes back with its own cursors, and has it all then.
        for at in 0..self.devices.len() {
            self.part(at);
            self.log_in(at, true);
            let cursors = self.devices[at].cursors();
            self.sync(at, &cursors, 0);
        }
        self.settle_until("complete once more", |world| {
            world.devices.iter().all(|device| !world.is_behind(device))
        });
        for device in &self.devices {
            if device.cursors() != self.lasts_of(device.user) {
                device.fail("it has not got everything");
            }
        }
        for send in &self.sends {
            let place = send.place.expect("sent");
            let from = self.people[send.from].user.id;
            assert_eq!(self.truth.at(place), Some(&(from, send.text.clone())), "{place:?}");
        }
    }
}
