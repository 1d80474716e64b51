//! What the fuzz targets do with their bytes, and what must hold whatever the bytes are. The tests run the same bodies on the corpus and on bytes from seeds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schema::error::ErrorCode;
use schema::limits::{CLIENT_ID_CHARS_MAX, ID_MAX, LINE_BYTES_MAX_STRANGER, LIST_LIMIT_MAX, TEXT_BYTES_MAX};
use schema::reply::{Refusal, write_error};
use schema::request::{Request, parse};
use serde_json::{Value, json};
use testkit::LineClient;

/// Takes the bytes as a line. What it means depends on nothing but its known fields, what is accepted is within the limits, and what is refused gets a reply that fits a line.
pub fn request(line: &[u8]) {
    let outcome = parse(line);
    assert_eq!(parse(&[b" \t", line, b"\r"].concat()), outcome, "space around a line means nothing");
    if let Some(more) = with_unknown_field(line) {
        assert_eq!(parse(&more), outcome, "an unknown field means nothing");
    }
    match &outcome {
        Ok(envelope) => {
            assert!(envelope.id.is_none_or(|id| id <= ID_MAX));
            within_limits(&envelope.request);
        }
        Err(bad) => {
            let is_object = serde_json::from_slice::<Value>(line).is_ok_and(|value| value.is_object());
            assert!(bad.code != ErrorCode::BadJson || !is_object, "this is an object");
            let refusal = Refusal { code: bad.code, message: bad.message.clone(), retry_after_ms: None };
            let mut reply = Vec::new();
            write_error(bad.id, &refusal, &mut reply);
            assert!(reply.len() <= LINE_BYTES_MAX_STRANGER && reply.ends_with(b"\n"));
            let reply: Value = serde_json::from_slice(&reply).expect("a reply is JSON");
            assert_eq!((reply["type"].as_str(), reply["id"].as_u64()), (Some("error"), bad.id));
        }
    }
}

/// The same line with one field more, if it begins like an object with fields.
fn with_unknown_field(line: &[u8]) -> Option<Vec<u8>> {
    let rest = line.trim_ascii_start().strip_prefix(b"{")?;
    rest.trim_ascii_start().starts_with(b"\"").then(|| [b"{\"zz\":[0,{}],", rest].concat())
}

fn within_limits(request: &Request<'_>) {
    match request {
        Request::Send { text, client_id, .. } => {
            assert!(!text.is_empty() && text.len() <= TEXT_BYTES_MAX);
            assert!(!text.chars().any(|char| char.is_control() && char != '\n' && char != '\t'));
            assert!(client_id.as_ref().is_none_or(|id| (1..=CLIENT_ID_CHARS_MAX).contains(&id.len())));
        }
        Request::History { limit, .. } | Request::Conversations { limit, .. } => limit_is_sound(*limit),
        Request::Friends { page } | Request::Blocked { page } => limit_is_sound(page.limit),
        Request::GroupMembers { page, .. } => limit_is_sound(page.limit),
        Request::Groups { page } => limit_is_sound(page.limit),
        _ => {}
    }
}

fn limit_is_sound(limit: usize) {
    assert!((1..=LIST_LIMIT_MAX).contains(&limit));
}

/// Of whom each connection is. One user has two.
const USER_OF: [usize; 4] = [0, 0, 1, 2];
const PASSWORD: &str = "correct horse";
/// Longer than a push takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Takes the bytes as requests, four for each, of three new users on four connections to a server without rate limits. Every request is answered once and never with `internal`;
/// and at the end every connection has had, once and in order, just what its user sees in the histories, which hold what was said.
pub fn sessions(server: SocketAddr, data: &[u8]) {
    let mut house = House::new(server);
    for op in data.chunks_exact(4).take(64) {
        house.act(op.try_into().expect("four bytes"));
    }
    house.check();
}

struct House {
    server: SocketAddr,
    names: Vec<String>,
    ids: Vec<u64>,
    lines: Vec<Line>,
    convs: Vec<u64>,
    /// What was answered with a place.
    said: BTreeMap<(u64, u64), String>,
}

struct Line {
    client: LineClient,
    user: usize,
    /// Places that came as an `ok`, and as a push.
    own: BTreeSet<(u64, u64)>,
    pushed: BTreeMap<u64, Vec<u64>>,
}

impl House {
    fn new(server: SocketAddr) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mut house = Self {
            server,
            names: (0..3).map(|user| format!("r{run}.{user}")).collect(),
            ids: Vec::new(),
            lines: Vec::new(),
            convs: Vec::new(),
            said: BTreeMap::new(),
        };
        for name in &house.names {
            house.ids.push(LineClient::connect(server).register(name, PASSWORD));
        }
        for user in USER_OF {
            let line = house.connect(user);
            house.lines.push(line);
        }
        house
    }

    /// A connection whose streams begin at the beginning.
    fn connect(&self, user: usize) -> Line {
        let mut client = LineClient::connect(self.server);
        client.ok(json!({"type": "login", "name": self.names[user], "password": PASSWORD, "hold": true}));
        let cursors: BTreeMap<_, _> = self.convs.iter().map(|conv| (conv.to_string(), 0)).collect();
        client.ok(json!({"type": "sync", "cursors": cursors}));
        client.next_push("synced");
        Line { client, user, own: BTreeSet::new(), pushed: BTreeMap::new() }
    }

    fn act(&mut self, [who, kind, a, b]: [u8; 4]) {
        let at = usize::from(who) % self.lines.len();
        if kind % 24 == 23 {
            self.lines[at] = self.connect(USER_OF[at]);
            return;
        }
        let request = self.request(kind, a, b);
        let reply = self.lines[at].client.request(request.clone());
        assert_ne!(reply["code"], json!("internal"), "{request} gets {reply}");
        let Some(conv) = reply["conv"].as_u64() else { return };
        if !self.convs.contains(&conv) {
            self.convs.push(conv);
        }
        let Some(seq) = reply["seq"].as_u64() else { return };
        let text = request["text"].as_str().expect("only a send is answered with a place").to_owned();
        assert_eq!(self.said.entry((conv, seq)).or_insert_with(|| text.clone()), &text);
        if reply.get("duplicate").is_none() {
            assert!(self.lines[at].own.insert((conv, seq)), "two sends got the place {seq} of {conv}");
        }
    }

    fn request(&self, kind: u8, a: u8, b: u8) -> Value {
        let user = usize::from(a) % self.names.len();
        let user = if b & 1 == 0 { json!(self.ids[user]) } else { json!(self.names[user]) };
        // Sometimes one that is another run's, or nobody's.
        let conv =
            self.convs.get(usize::from(a) % (self.convs.len() + 1)).copied().unwrap_or(u64::from(b) + 1);
        let one_of = |all: &[&'static str]| all[usize::from(b / 2) % all.len()];
        let text =
            ["hi", "\u{1f600}\n\t'\"\\", "שלום", "x"][usize::from(b) % 4].repeat(1 + usize::from(b / 16));
        match kind % 24 {
            0..=3 => json!({"type": "send", "conv": conv, "text": text}),
            4..=5 => json!({"type": "send", "user": user, "text": text}),
            6 => json!({"type": "send", "conv": conv, "text": text, "client_id": (b % 8).to_string()}),
            7 => json!({"type": one_of(&["ack", "read"]), "conv": conv, "seq": b / 8}),
            8 => json!({"type": one_of(&["typing", "marks"]), "conv": conv}),
            9 => json!({"type": "history", "conv": conv, one_of(&["before", "after"]): b / 8, "limit": 3}),
            10 => json!({"type": one_of(&["conversations", "groups", "friends", "blocked"]), "limit": 2}),
            11 => json!({"type": "find_user", "name": self.names[usize::from(a) % self.names.len()]}),
            12..=13 => {
                let kinds = ["friend_request", "friend_accept", "friend_reject", "friend_remove"];
                json!({"type": one_of(&kinds), "user": user})
            }
            14 => json!({"type": one_of(&["block", "unblock", "unblock"]), "user": user}),
            15 => {
                json!({"type": "group_create", "name": text.replace(['\n', '\t'], " ").chars().take(9).collect::<String>(), "open": b & 2 == 0})
            }
            16..=17 => json!({"type": "group_join", "conv": conv}),
            18 => json!({"type": "group_leave", "conv": conv}),
            19 => json!({"type": "group_invite", "conv": conv, "user": user}),
            20 => json!({"type": "group_kick", "conv": conv, "user": user}),
            21 => {
                json!({"type": "group_role", "conv": conv, "user": user, "role": one_of(&["owner", "admin", "member"])})
            }
            _ => json!({"type": one_of(&["group_rename", "group_members"]), "conv": conv, "name": "tea"}),
        }
    }

    fn check(&mut self) {
        let convs = self.convs.clone();
        for line in &mut self.lines {
            let seen: BTreeMap<(u64, u64), Option<String>> =
                convs.iter().flat_map(|conv| line.history(*conv)).collect();
            for (place, text) in &self.said {
                if let Some(found) = seen.get(place) {
                    assert_eq!(found.as_ref(), Some(text), "another text at {place:?}");
                }
            }
            let until = Instant::now() + LONG;
            while line.arrived(&convs) != seen.keys().copied().collect() {
                assert!(
                    Instant::now() < until,
                    "the stream is {:?}, the histories are {seen:?}",
                    line.arrived(&convs)
                );
            }
        }
    }
}

impl Line {
    /// All that the user sees of a conversation.
    fn history(&mut self, conv: u64) -> Vec<((u64, u64), Option<String>)> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let page =
                self.client.request(json!({"type": "history", "conv": conv, "after": after, "limit": 7}));
            let Some(messages) = page["messages"].as_array() else { return all };
            for entry in messages {
                let seq = entry["seq"].as_u64().expect("a place");
                assert!(seq > after, "history goes up");
                after = seq;
                all.push(((conv, seq), entry["text"].as_str().map(str::to_owned)));
            }
            if page["more"] != json!(true) {
                return all;
            }
        }
    }

    /// The places of these conversations that have come so far.
    fn arrived(&mut self, convs: &[u64]) -> BTreeSet<(u64, u64)> {
        self.client.ping();
        for push in self.client.take_pushes() {
            if push["type"] != "message" {
                continue;
            }
            let (conv, seq) = (push["conv"].as_u64().expect("a conv"), push["seq"].as_u64().expect("a seq"));
            let before = self.pushed.entry(conv).or_default();
            assert!(
                before.last().is_none_or(|last| *last < seq),
                "pushes of {conv} go up: {before:?}, {seq}"
            );
            assert!(!self.own.contains(&(conv, seq)), "user {} is pushed its own {seq} of {conv}", self.user);
            before.push(seq);
        }
        let pushed = self.pushed.iter().flat_map(|(conv, all)| all.iter().map(|seq| (*conv, *seq)));
        pushed.chain(self.own.iter().copied()).filter(|(conv, _)| convs.contains(conv)).collect()
    }
}
