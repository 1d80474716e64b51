//! Random lives of a client: whatever happens to its connection, no line is lost and none is doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use schema::{ConvId, Seq, UserId};

use super::model::{Model, Mood, user_id};
use super::{Action, ClientService, Credential, Event, Ticket, To};
use crate::secret::Secret;

/// What can happen next.
#[derive(Clone, Debug)]
enum Step {
    /// The client sends to this user.
    Send(&'static str),
    /// The client sends to the group.
    SendGroup,
    /// Bob writes to the group.
    HearGroup,
    /// The client's user is put out of the group, or comes back.
    ComeOrGo,
    /// This user writes to the client.
    Hear(&'static str),
    /// So many of the client's lines reach the server.
    ToServer(usize),
    /// So many of the server's lines reach the client.
    ToClient(usize),
    /// The server makes so many pushes, beginning with this conversation.
    Push(usize, usize),
    /// The next send is answered like this.
    Mood(Mood),
    /// The connection is lost, with or without what the server had not written.
    Lose { crash: bool },
    /// A new connection.
    Connect,
    /// Time passes.
    Wait(u64),
    /// The client looks at a conversation.
    Show(&'static str),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = prop_oneof![Just("bob"), Just("carol")];
    let step = prop_oneof![
        4 => who.clone().prop_map(Step::Send),
        6 => who.clone().prop_map(Step::Hear),
        2 => Just(Step::SendGroup),
        4 => Just(Step::HearGroup),
        1 => Just(Step::ComeOrGo),
        5 => (1_usize..6).prop_map(Step::ToServer),
        5 => (1_usize..12).prop_map(Step::ToClient),
        5 => (1_usize..8, 0_usize..3).prop_map(|(count, first)| Step::Push(count, first)),
        1 => prop_oneof![Just(Mood::Away), Just(Mood::Doubtful)].prop_map(Step::Mood),
        1 => any::<bool>().prop_map(|crash| Step::Lose { crash }),
        3 => Just(Step::Connect),
        2 => (0_u64..3_000).prop_map(Step::Wait),
        1 => who.prop_map(Step::Show),
    ];
    prop::collection::vec(step, 0..250)
}

/// A client, a server, and the wires between them.
struct World {
    now: Instant,
    client: ClientService,
    server: Model,
    connected: bool,
    to_server: Vec<Vec<u8>>,
    group: ConvId,
    sends: BTreeMap<Ticket, String>,
    answers: BTreeMap<Ticket, (ConvId, Seq)>,
    heard: Vec<(ConvId, Seq, UserId, Option<String>)>,
    written: usize,
    refused: usize,
}

impl World {
    fn new() -> Self {
        let mut client = ClientService::new("run");
        let password = Secret::new("correct horse");
        client.login(Credential::Password { name: "amy".into(), password }).unwrap();
        let mut server = Model::default();
        let group = server.makes_group("bob", 1, "lunch", &["amy", "bob"]);
        // So that a first send finds itself logged in.
        let mut world = Self {
            now: Instant::now(),
            client,
            server,
            group,
            connected: false,
            to_server: Vec::new(),
            sends: BTreeMap::new(),
            answers: BTreeMap::new(),
            heard: Vec::new(),
            written: 0,
            refused: 0,
        };
        world.connect();
        world.settle(4);
        world
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.to_server.clear();
            self.server.connect();
            self.client.handle_connected();
            self.collect();
        }
    }

    fn lose(&mut self, crash: bool) {
        if self.connected {
            self.connected = false;
            self.server.disconnect(crash);
            self.to_server.clear();
            self.server.out.clear();
            self.client.handle_lost();
            self.collect();
        }
    }

    /// Takes what the client wants done and says has happened.
    fn collect(&mut self) {
        while let Some(action) = self.client.take_action() {
            match action {
                Action::Line(line) => {
                    assert!(self.connected, "a line without a connection");
                    self.to_server.push(line);
                }
                Action::Connect => {}
                Action::Drop(why) => panic!("dropped: {why}"),
            }
        }
        while let Some(event) = self.client.take_event() {
            match event {
                Event::Message { conv, entry } => {
                    let text = entry.text().map(ToString::to_string);
                    self.heard.push((conv, entry.seq, entry.from, text));
                }
                Event::Sent { ticket, conv, seq, .. } => {
                    assert!(self.answers.insert(ticket, (conv, seq)).is_none(), "answered twice");
                }
                Event::Refused { ticket, refusal } => {
                    assert_eq!(refusal.code, "forbidden");
                    assert!(self.sends.remove(&ticket).is_some(), "refused and answered");
                    self.refused += 1;
                }
                Event::LoggedOut { why, .. } => panic!("logged out: {why}"),
                _ => {}
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send(name) => {
                self.written += 1;
                let text = format!("from amy {}", self.written);
                let ticket = self.client.send(self.now, To::User(name.into()), &text).unwrap();
                self.sends.insert(ticket, text);
            }
            Step::SendGroup => {
                self.written += 1;
                let text = format!("from amy {}", self.written);
                let ticket = self.client.send(self.now, To::Conv(self.group), &text).unwrap();
                self.sends.insert(ticket, text);
            }
            Step::HearGroup => {
                self.written += 1;
                self.server.group_hears(self.group, "bob", &format!("to all {}", self.written));
            }
            Step::ComeOrGo => self.server.comes_or_goes(self.group),
            Step::Hear(name) => {
                self.written += 1;
                self.server.peer_sends(name, &format!("from {name} {}", self.written));
            }
            Step::ToServer(count) => {
                for line in self.to_server.drain(..count.min(self.to_server.len())) {
                    self.server.hear(&line);
                }
            }
            Step::ToClient(count) => {
                for _ in 0..count {
                    let Some(line) = self.server.out.pop_front() else { break };
                    self.client.handle_line(self.now, &line);
                }
            }
            Step::Push(count, first) => {
                for turn in 0..count {
                    self.server.push_one(first + turn);
                }
            }
            Step::Mood(mood) => self.server.mood = mood,
            Step::Lose { crash } => self.lose(crash),
            Step::Connect => self.connect(),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.client.handle_time(self.now);
            }
            Step::Show(name) => {
                let conv = self.client.conversation_with(name).map(|conversation| conversation.conv);
                self.client.show(conv);
            }
        }
        self.collect();
    }

    /// Lets everything that is on its way arrive, with time passing in between.
    fn settle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.run(&Step::ToServer(usize::MAX));
            self.run(&Step::Push(4, 0));
            self.run(&Step::ToClient(usize::MAX));
            self.run(&Step::Wait(300));
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.to_server.is_empty()
            && self.server.out.is_empty()
            && self.client.unanswered_sends() == 0
            && !self.server.push_one(0)
    }

    fn finish(&mut self) {
        self.connect();
        for _ in 0..2_000 {
            self.settle(1);
            if self.is_quiet() {
                return;
            }
        }
        panic!("does not come to rest: {:?}", self.client);
    }

    fn check(&self) {
        let mut heard = BTreeSet::new();
        for (conv, seq, from, text) in &self.heard {
            assert!(heard.insert((*conv, *seq)), "{text:?} came twice");
            let stored = &self.server.talks[conv].entries[usize::try_from(seq.get()).unwrap() - 1];
            let text_there = stored.event.is_none().then(|| stored.text.clone());
            assert_eq!((stored.from, &text_there), (*from, text), "the wrong place");
        }
        let amy = user_id("amy");
        for (conv, talk) in &self.server.talks {
            let numbered = talk.entries.iter().enumerate().map(|(at, stored)| (at + 1, stored));
            let seen: Vec<_> =
                numbered.filter(|(at, _)| !self.server.unseen.contains(&(*conv, *at))).collect();
            for (at, stored) in &seen {
                let seq = Seq::new(u64::try_from(*at).unwrap()).unwrap();
                // What happens to a group is told to who caused it, too.
                if stored.from != amy || stored.event.is_some() {
                    assert!(heard.contains(&(*conv, seq)), "{at} {:?} was lost", stored.text);
                }
            }
            let Some(mine) = self.client.conversation(*conv) else {
                assert!(talk.entries.is_empty(), "an unknown conversation");
                continue;
            };
            let texts: Vec<&str> =
                mine.entries().map(|entry| entry.text().map_or("", AsRef::as_ref)).collect();
            let stored: Vec<&str> = seen.iter().map(|(_, stored)| stored.text.as_str()).collect();
            assert_eq!(texts, stored, "the client's copy is the server's");
            if let Some((last, _)) = seen.last() {
                assert_eq!(mine.stream.complete().map(Seq::get), u64::try_from(*last).ok());
            }
        }
        for (ticket, text) in &self.sends {
            let (conv, seq) = self.answers.get(ticket).expect("each send is answered");
            let stored = &self.server.talks[conv].entries[usize::try_from(seq.get()).unwrap() - 1];
            assert_eq!(&stored.text, text, "answered with the wrong place");
        }
        let all: Vec<&str> = self
            .server
            .talks
            .values()
            .flat_map(|talk| &talk.entries)
            .filter(|s| s.event.is_none())
            .map(|s| s.text.as_str())
            .collect();
        assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "the server has each text once");
        assert_eq!(all.len(), self.written - self.refused);
        assert_eq!(self.server.max_acked_beyond, 0);
    }
}

#[test]
fn who_comes_and_goes_hears_all_that_is_theirs() {
    let mut world = World::new();
    for round in 0..30 {
        world.run(&Step::HearGroup);
        world.run(&Step::SendGroup);
        world.run(&Step::ToServer(round % 4));
        world.run(&Step::ComeOrGo);
        world.run(&Step::HearGroup);
        world.run(&Step::Push(round % 7, 0));
        world.run(&Step::ToClient(round % 5));
        if round % 6 == 5 {
            world.run(&Step::Lose { crash: round % 4 == 1 });
            world.run(&Step::Connect);
        }
    }
    world.finish();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_lost_or_doubled(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.run(&step);
        }
        world.finish();
        world.check();
    }
}

#[test]
fn many_reconnects_in_a_row_lose_and_double_nothing() {
    let mut world = World::new();
    for round in 0..60 {
        world.run(&Step::Send("bob"));
        world.run(&Step::Hear("bob"));
        world.run(&Step::Hear("carol"));
        world.run(&Step::ToServer(1 + round % 5));
        world.run(&Step::Push(round % 7, round));
        world.run(&Step::ToClient(round % 4));
        world.run(&Step::Lose { crash: round % 2 == 0 });
        world.run(&Step::Connect);
        world.run(&Step::ToClient(1));
        world.run(&Step::ToServer(round % 3));
    }
    world.finish();
    world.check();
}

#[test]
fn own_sends_do_not_come_back_as_messages_when_the_answer_was_lost() {
    let mut world = World::new();
    world.run(&Step::Send("bob"));
    world.run(&Step::ToServer(9));
    let sent = |world: &World| world.server.talks.values().map(|talk| talk.entries.len()).sum::<usize>();
    assert_eq!(sent(&world), 2 + 1, "the group's beginning and this");
    world.run(&Step::Lose { crash: true });
    world.run(&Step::Hear("bob"));
    world.finish();
    world.check();
    let texts: Vec<_> = world.heard.iter().filter_map(|(.., text)| text.as_ref()).collect();
    assert_eq!(texts.len(), 1, "bob's alone: {:?}", world.heard);
}

#[test]
fn pushes_of_what_was_here_already_do_not_close_the_window() {
    let mut world = World::new();
    // Sends that were taken, and whose answers were lost: asked about again they are answered as duplicates, and pushed all the same.
    for _ in 0..40 {
        world.run(&Step::Send("bob"));
    }
    world.run(&Step::ToServer(usize::MAX));
    world.run(&Step::Lose { crash: true });
    world.run(&Step::Hear("bob"));
    world.finish();
    world.check();
}
