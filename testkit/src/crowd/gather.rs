//! How a crowd comes together before its first run: accounts, friends, groups, first words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::{CrowdPlan, Group, PASSWORD};
use crate::history::{ConvNumber, SeqNumber, UserNumber};
use crate::{LineClient, To};

/// How long one answer may take meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who does it.
const HANDS: usize = 8;

/// All that is known when it is done.
pub(super) struct Gathered {
    pub(super) clients: Vec<Client>,
    pub(super) groups: Vec<Group>,
    pub(super) directs: BTreeMap<ConvNumber, (UserNumber, UserNumber)>,
    pub(super) last: BTreeMap<ConvNumber, SeqNumber>,
}

struct Person {
    user: UserNumber,
    name: String,
    token: String,
    line: LineClient,
}

/// Does it all through `addr`.
pub(super) fn gather(addr: SocketAddr, plan: &CrowdPlan) -> Gathered {
    let mut people = arrive(addr, plan);
    befriend(&mut people);
    let directs = first_words(&mut people);
    let groups = found_groups(&mut people);
    let mut last = BTreeMap::new();
    for person in &mut people {
        let list = person.line.ok(json!({"type": "conversations", "limit": 200}));
        for conv in list["conversations"].as_array().into_iter().flatten() {
            last.insert(person.line.number(conv, "conv"), person.line.number(conv, "last_seq"));
        }
    }
    let mut clients: Vec<Client> =
        people.iter().map(|p| Client::new(p.user, p.name.clone(), PASSWORD, p.token.clone())).collect();
    // Some have a second device, under a token of its own.
    for person in people.iter().step_by(10) {
        let token = token(&mut LineClient::connect(addr), &person.name);
        clients.push(Client::new(person.user, format!("{}'", person.name), PASSWORD, token));
    }
    Gathered { clients, groups, directs, last }
}

fn token(line: &mut LineClient, name: &str) -> String {
    line.login(name, PASSWORD)["token"].as_str().expect("a token").to_owned()
}

fn arrive(addr: SocketAddr, plan: &CrowdPlan) -> Vec<Person> {
    let numbers: Vec<usize> = (0..plan.users).collect();
    let arrive_one = |number: usize| {
        let name = format!("u{number:03}-{}", plan.seed);
        let mut line = LineClient::connect(addr);
        line.set_patience(PATIENCE);
        let user = line.register(&name, PASSWORD);
        let token = token(&mut line, &name);
        Person { user, name, token, line }
    };
    std::thread::scope(|scope| {
        let hands: Vec<_> = numbers
            .chunks(plan.users.div_ceil(HANDS))
            .map(|some| scope.spawn(move || some.iter().map(|n| arrive_one(*n)).collect::<Vec<_>>()))
            .collect();
        hands.into_iter().flat_map(|hand| hand.join().expect("everybody arrives")).collect()
    })
}

/// Each with the next and with the seventh after.
fn befriend(people: &mut [Person]) {
    for one in 0..people.len() {
        for other in friends_of(one, people.len()) {
            let (one_id, other_id) = (people[one].user, people[other].user);
            people[one].line.ok(json!({"type": "friend_request", "user": other_id}));
            people[other].line.ok(json!({"type": "friend_accept", "user": one_id}));
        }
    }
}

fn friends_of(one: usize, count: usize) -> BTreeSet<usize> {
    if count <= 14 { BTreeSet::new() } else { BTreeSet::from([(one + 1) % count, (one + 7) % count]) }
}

fn first_words(people: &mut [Person]) -> BTreeMap<ConvNumber, (UserNumber, UserNumber)> {
    let count = people.len();
    let mut directs = BTreeMap::new();
    for one in 0..count {
        let (from, to) = (people[one].user, people[(one + 1) % count].user);
        let reply = people[one].line.send_text(To::User(to), "hello");
        directs.insert(people[one].line.number(&reply, "conv"), (from, to));
    }
    directs
}

/// One for each ten people, and one in which each third is.
fn found_groups(people: &mut [Person]) -> Vec<Group> {
    let count = people.len();
    let tens = (0..count).step_by(10).map(|from| (from..(from + 10).min(count)).collect::<Vec<_>>());
    let thirds = (0..count).step_by(3).collect::<Vec<_>>();
    let lists: Vec<Vec<usize>> = tens.chain([thirds]).filter(|list| list.len() > 1).collect();
    lists.into_iter().map(|list| found_group(people, &list)).collect()
}

fn found_group(people: &mut [Person], list: &[usize]) -> Group {
    let owner = &mut people[list[0]].line;
    let reply = owner.ok(json!({"type": "group_create", "name": "group", "open": true}));
    let conv = owner.number(&reply, "conv");
    for member in &list[1..] {
        people[*member].line.ok(json!({"type": "group_join", "conv": conv}));
    }
    Group { conv, members: list.iter().map(|member| people[*member].user).collect() }
}
