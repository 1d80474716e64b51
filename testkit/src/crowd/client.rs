//! One device of one user: it connects, logs in, resumes, writes, and writes down what it sees.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use super::cursors::Cursors;
use super::outgoing::{Outgoing, Target};
use super::wire::Wire;
use crate::history::{ClientLog, ConvNumber, Entry, Event, SeqNumber, What};

/// How long a connection may take from its begin to its first line, and how long a login may take.
const OPENING_MAX: Duration = Duration::from_secs(5);
const LOGIN_MAX: Duration = Duration::from_secs(15);
/// A client that hears nothing asks, and one that hears nothing still goes elsewhere.
const PING_EVERY: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// How long the answer to a message may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const ACK_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(3);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It comes back at this time.
    Away(Duration),
    /// It has begun to connect and awaits `hello`.
    Opening(Duration),
    /// It has sent its token or password.
    LoggingIn(Duration),
    /// It is logged in, and its streams flow.
    Live,
    /// It went on purpose and does not come back.
    Left,
}

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Login,
    /// What conversations there are, before the streams begin: one that began meanwhile and is not named would start where another device has acknowledged it.
    Known,
    Sync,
    Ping,
    Send(String),
    Friends,
    Conversations,
    History(ConvNumber),
}

/// What a client does at a run's end, when nobody writes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    /// Not yet.
    No,
    /// It compares what it has with what there is, the last time at this time.
    Comparing(Duration),
    /// It reads these conversations anew, from behind these places.
    Fetching(BTreeMap<ConvNumber, SeqNumber>),
    /// It has read all.
    Done,
}

/// One device.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) log: ClientLog,
    pub(super) phase: Phase,
    pub(super) wire: Option<Wire>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) cursors: Cursors,
    /// What was answered that no promise covers; each is a failure of the run.
    pub(super) strange: Vec<String>,
    /// What was not answered when it left, in earlier runs: it may turn up yet.
    leftovers: Vec<String>,
    /// Where each conversation began for this run.
    pub(super) base: BTreeMap<ConvNumber, SeqNumber>,
    password: String,
    token: Option<String>,
    ending: Ending,
    fetched: BTreeMap<ConvNumber, Vec<Entry>>,
    next_id: u64,
    waiting: HashMap<u64, Asked>,
    heard: Duration,
    pinged: Duration,
    acked: Duration,
    looked: Duration,
    failures: u32,
}

impl Client {
    pub(super) fn new(user: u64, name: String, password: &str, token: String) -> Client {
        Client {
            log: ClientLog { user, name, events: Vec::new() },
            phase: Phase::Left,
            wire: None,
            outgoing: Vec::new(),
            cursors: Cursors::default(),
            strange: Vec::new(),
            leftovers: Vec::new(),
            base: BTreeMap::new(),
            password: password.to_owned(),
            token: Some(token),
            ending: Ending::No,
            fetched: BTreeMap::new(),
            next_id: 1,
            waiting: HashMap::new(),
            heard: Duration::ZERO,
            pinged: Duration::ZERO,
            acked: Duration::ZERO,
            looked: Duration::ZERO,
            failures: 0,
        }
    }

    /// Makes it ready for a run in which its conversations begin behind `base`; it comes at `at`.
    pub(super) fn begin(&mut self, base: BTreeMap<ConvNumber, SeqNumber>, at: Duration) {
        self.log.events.clear();
        self.strange.clear();
        self.outgoing.clear();
        for text in self.leftovers.clone() {
            self.note(Duration::ZERO, What::Sent { conv: 0, text });
        }
        self.cursors = Cursors::default();
        base.iter().for_each(|(conv, seq)| self.cursors.begin(*conv, *seq));
        self.base = base;
        self.ending = Ending::No;
        self.fetched.clear();
        self.failures = 0;
        self.looked = at;
        self.phase = Phase::Away(at);
    }

    /// Its connection has begun.
    pub(super) fn opened(&mut self, wire: Wire, now: Duration) {
        self.wire = Some(wire);
        self.waiting.clear();
        (self.heard, self.pinged, self.acked) = (now, now, now);
        self.phase = Phase::Opening(now);
    }

    /// The connection is over; it comes back after a pause, or when it was told to.
    pub(super) fn ended(
        &mut self,
        why: &str,
        now: Duration,
        pause: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) {
        self.wire = None;
        self.waiting.clear();
        self.cursors.reconnect();
        self.outgoing.iter_mut().for_each(|message| message.unanswered(now));
        if !matches!(self.ending, Ending::No | Ending::Done) {
            self.ending = Ending::Comparing(Duration::ZERO);
            self.fetched.clear();
        }
        self.note(now, What::Ended { why: why.to_owned() });
        self.failures = if self.phase == Phase::Live { 0 } else { self.failures + 1 };
        let most = (Duration::from_millis(100) * 2_u32.pow(self.failures.min(5))).min(PAUSE_MAX);
        let pause = pause.unwrap_or_else(|| most.mul_f64(0.5 + rng.f64() / 2.0));
        self.phase = Phase::Away(now + pause);
    }

    /// It goes on purpose, and stays away.
    pub(super) fn leave(&mut self, now: Duration) {
        self.note(now, What::Ended { why: "it left".to_owned() });
        self.wire = None;
        self.leftovers.extend(self.outgoing.drain(..).map(|message| message.text));
        self.phase = Phase::Left;
    }

    /// From now on it only completes what it has.
    pub(super) fn end(&mut self) {
        if self.ending == Ending::No && self.phase != Phase::Left {
            self.ending = Ending::Comparing(Duration::ZERO);
        }
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Left || self.ending == Ending::Done
    }

    /// What is due at this time. `Err` says why the connection must end.
    pub(super) fn tick(&mut self, now: Duration) -> Result<(), String> {
        match self.phase {
            Phase::Opening(since) if now > since + OPENING_MAX => return Err("no hello came".to_owned()),
            Phase::LoggingIn(since) if now > since + LOGIN_MAX => {
                return Err("no answer to the login".to_owned());
            }
            Phase::Live => {}
            _ => return Ok(()),
        }
        if now > self.heard + SILENCE_MAX {
            return Err("nothing was heard".to_owned());
        }
        if now > self.pinged.max(self.heard) + PING_EVERY {
            self.pinged = now;
            self.ask(json!({"type": "ping"}), Asked::Ping);
        }
        if now > self.acked + ACK_EVERY {
            self.acked = now;
            for (conv, seq) in self.cursors.take_acks() {
                self.say(&json!({"type": "ack", "conv": conv, "seq": seq}));
            }
        }
        if now > self.looked + LOOK_EVERY {
            self.looked = now;
            self.ask(json!({"type": "friends"}), Asked::Friends);
        }
        if let Ending::Comparing(last) = self.ending
            && now > last + Duration::from_secs(1)
        {
            self.ending = Ending::Comparing(now);
            self.ask(json!({"type": "conversations"}), Asked::Conversations);
        }
        self.send_outgoing(now)
    }

    fn send_outgoing(&mut self, now: Duration) -> Result<(), String> {
        if self.outgoing.iter().any(|message| message.flying_since().is_some_and(|t| now > t + ANSWER_MAX)) {
            return Err("no answer to a message".to_owned());
        }
        let mut requests = Vec::new();
        for message in &mut self.outgoing {
            if message.is_due(now) {
                requests.push((message.fly(now), message.text.clone(), message.target));
            }
        }
        for (request, text, target) in requests {
            let conv = if let Target::Conv(conv) = target { conv } else { 0 };
            self.note(now, What::Sent { conv, text: text.clone() });
            self.ask(request, Asked::Send(text));
        }
        Ok(())
    }

    /// One line of the server's. `Err` says why the connection must end, and when to come back.
    pub(super) fn line(&mut self, line: &Value, now: Duration) -> Result<(), (String, Option<Duration>)> {
        self.heard = now;
        if let Some(id) = line["id"].as_u64() {
            let Some(asked) = self.waiting.remove(&id) else {
                self.strange.push(format!("an answer to nothing: {line}"));
                return Ok(());
            };
            return self.answer(asked, line, now).map_err(|why| (why, None));
        }
        match line["type"].as_str() {
            Some("hello") => {
                self.note(
                    now,
                    What::Connected { node: line["node"].as_str().unwrap_or_default().to_owned() },
                );
                self.phase = Phase::LoggingIn(now);
                let request = match &self.token {
                    Some(token) => json!({"type": "login", "token": token, "hold": true}),
                    None => {
                        json!({"type": "login", "name": self.log.name, "password": self.password, "hold": true})
                    }
                };
                self.ask(request, Asked::Login);
            }
            Some("message") => self.message(line, now),
            Some("bye") => {
                let pause = line["reconnect_after_ms"].as_u64().map(Duration::from_millis);
                return Err((format!("bye {}", line["code"].as_str().unwrap_or_default()), pause));
            }
            // An `ack`, the only request here without an `id`; the next one covers it.
            Some("error") if line["code"] == "unavailable" || line["code"] == "overloaded" => {}
            Some("reset" | "error") => self.strange.push(format!("{}: {line}", self.log.name)),
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, line: &Value, now: Duration) {
        let (Some(conv), Some(entry)) = (line["conv"].as_u64(), entry(line)) else {
            self.strange.push(format!("not a message: {line}"));
            return;
        };
        self.cursors.place(conv, entry.seq);
        self.note(now, What::Pushed { conv, entry });
    }

    fn answer(&mut self, asked: Asked, line: &Value, now: Duration) -> Result<(), String> {
        let is_ok = line["type"] == "ok";
        let code = line["code"].as_str().unwrap_or_default();
        match asked {
            Asked::Login if is_ok => {
                if let Some(token) = line["token"].as_str() {
                    self.token = Some(token.to_owned());
                }
                self.ask(json!({"type": "conversations", "limit": 200}), Asked::Known);
            }
            Asked::Known if is_ok => self.sync(line, now),
            Asked::Login => {
                if code == "unauthorized" && self.token.take().is_some() {
                    self.note(now, What::TokenRefused { code: code.to_owned() });
                }
                return Err(format!("the login was answered `{code}`"));
            }
            Asked::Sync | Asked::Ping if is_ok => {}
            Asked::Send(text) => self.sent(&text, line, now),
            Asked::Friends if is_ok => {
                for friend in line["friends"].as_array().into_iter().flatten() {
                    if let (Some(user), Some(online)) = (friend["user"].as_u64(), friend["online"].as_bool())
                    {
                        self.note(now, What::Looked { user, online });
                    }
                }
            }
            Asked::Conversations if is_ok => self.compare(line, now),
            Asked::History(conv) if is_ok => self.history(conv, line, now),
            // Asked again when it is due.
            Asked::Friends | Asked::Conversations | Asked::Ping => {}
            Asked::History(_) => self.ending = Ending::Comparing(now),
            Asked::Known | Asked::Sync => {
                return Err(format!("what begins the streams was answered `{code}`"));
            }
        }
        Ok(())
    }

    /// Begins the streams: each where this device has it, and those that it does not know at their begin.
    fn sync(&mut self, line: &Value, now: Duration) {
        let mut cursors: BTreeMap<ConvNumber, SeqNumber> =
            conversations(line).into_keys().map(|conv| (conv, 0)).collect();
        cursors.extend(self.cursors.all());
        let named: BTreeMap<String, SeqNumber> =
            cursors.iter().map(|(conv, seq)| (conv.to_string(), *seq)).collect();
        self.note(now, What::Began { cursors });
        self.phase = Phase::Live;
        self.ask(json!({"type": "sync", "cursors": named}), Asked::Sync);
    }

    fn sent(&mut self, text: &str, line: &Value, now: Duration) {
        let Some(at) = self.outgoing.iter().position(|message| message.text == text) else { return };
        let text = text.to_owned();
        if line["type"] == "ok" {
            let (Some(conv), Some(seq)) = (line["conv"].as_u64(), line["seq"].as_u64()) else {
                self.strange.push(format!("an ok without a place: {line}"));
                return;
            };
            let duplicate = line["duplicate"] == true;
            if !duplicate {
                self.cursors.place(conv, seq);
            }
            self.outgoing.swap_remove(at);
            self.note(now, What::Acked { conv, text, seq, duplicate });
            return;
        }
        let code = line["code"].as_str().unwrap_or_default().to_owned();
        let message = &mut self.outgoing[at];
        let conv = if let Target::Conv(conv) = message.target { conv } else { 0 };
        match code.as_str() {
            "unavailable" | "internal" | "overloaded" | "rate_limited" => {
                let after = line["retry_after_ms"].as_u64().unwrap_or(500);
                message.again(now + Duration::from_millis(after));
            }
            _ => {
                if !message.may_be_refused {
                    self.strange.push(format!("{}: {text:?} was answered {line}", self.log.name));
                }
                self.outgoing.swap_remove(at);
            }
        }
        self.note(now, What::Failed { conv, text, code });
    }

    /// What there is, against what has come.
    fn compare(&mut self, line: &Value, now: Duration) {
        if !matches!(self.ending, Ending::Comparing(_)) || !self.outgoing.is_empty() {
            return;
        }
        let last = conversations(line);
        if last.iter().all(|(conv, seq)| self.cursors.complete(*conv) >= *seq) {
            self.fetch(last.keys().copied(), now);
        }
    }

    /// Reads everything of this run anew. What its streams still lack never came.
    fn fetch(&mut self, convs: impl Iterator<Item = ConvNumber>, now: Duration) {
        self.note(now, What::Settled);
        let from: BTreeMap<ConvNumber, SeqNumber> =
            convs.map(|conv| (conv, self.base.get(&conv).copied().unwrap_or(0))).collect();
        for (conv, after) in &from {
            self.ask(
                json!({"type": "history", "conv": conv, "after": after, "limit": 200}),
                Asked::History(*conv),
            );
        }
        self.ending = if from.is_empty() { Ending::Done } else { Ending::Fetching(from) };
    }

    /// It has waited long enough: what has not come counts as left out.
    pub(super) fn give_up(&mut self, now: Duration) {
        if self.phase == Phase::Live && matches!(self.ending, Ending::Comparing(_)) {
            let convs: Vec<_> = self.cursors.all().into_keys().collect();
            self.fetch(convs.into_iter(), now);
        }
    }

    fn history(&mut self, conv: ConvNumber, line: &Value, now: Duration) {
        let Ending::Fetching(from) = &mut self.ending else { return };
        let entries: Vec<Entry> =
            line["messages"].as_array().into_iter().flatten().filter_map(entry).collect();
        let last = entries.last().map(|entry| entry.seq);
        self.fetched.entry(conv).or_default().extend(entries);
        match last {
            Some(after) if line["more"] == true => {
                from.insert(conv, after);
                let request = json!({"type": "history", "conv": conv, "after": after, "limit": 200});
                self.ask(request, Asked::History(conv));
            }
            _ => {
                from.remove(&conv);
                let is_last = from.is_empty();
                let entries = self.fetched.remove(&conv).unwrap_or_default();
                self.note(now, What::Fetched { conv, entries });
                if is_last {
                    self.ending = Ending::Done;
                }
            }
        }
    }

    fn ask(&mut self, mut request: Value, asked: Asked) {
        request["id"] = json!(self.next_id);
        self.waiting.insert(self.next_id, asked);
        self.next_id += 1;
        self.say(&request);
    }

    fn say(&mut self, request: &Value) {
        if let Some(wire) = &mut self.wire {
            wire.send(request);
        }
    }

    fn note(&mut self, at: Duration, what: What) {
        self.log.events.push(Event { at, what });
    }
}

/// The last place of each conversation in an answer to `conversations`.
fn conversations(line: &Value) -> BTreeMap<ConvNumber, SeqNumber> {
    let all = line["conversations"].as_array().into_iter().flatten();
    all.filter_map(|c| Some((c["conv"].as_u64()?, c["last_seq"].as_u64()?))).collect()
}

/// An entry as a push or a history has it.
fn entry(line: &Value) -> Option<Entry> {
    let text = match line["text"].as_str() {
        Some(text) => text.to_owned(),
        None => format!("{} {}", line["event"].as_str()?, line["user"]),
    };
    Some(Entry { seq: line["seq"].as_u64()?, from: line["from"].as_u64().unwrap_or(0), text })
}
