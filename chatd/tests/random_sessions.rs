//! Whole sessions by chance: valid requests of every type, in any order, from several users with several sessions. The server answers each once, never with `internal`,
//! and never breaks what must hold in its tables.
//!
//! `CHATD_RANDOM_SEED=N` plays one seed again; `CHATD_RANDOM_SEEDS=N` so many of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use serde_json::{Value, json};
use store::{CommittedBatch, Connection, DbConfig, Store};
use testkit::{Chatd, LineClient};

const USERS: u64 = 5;
const REQUESTS: usize = 1_200;
const SEEDS: u64 = 3;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("CHATD_RANDOM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("CHATD_RANDOM_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

fn one_of(rng: &mut fastrand::Rng, all: &[&'static str]) -> &'static str {
    all[rng.usize(..all.len())]
}

/// A request by chance. Users and conversations are mostly such that exist.
fn request(rng: &mut fastrand::Rng) -> Value {
    let user = rng.u64(1..=USERS + 1);
    let named = if rng.bool() { json!(user) } else { json!(format!("u{user}")) };
    let conv = rng.u64(1..=14);
    let seq = rng.u64(0..60);
    let page = |rng: &mut fastrand::Rng, kind: &str| json!({"type": kind, "limit": rng.u64(1..=5), "after": rng.u64(1..4)});
    match rng.u32(..30) {
        0..=4 => json!({"type": "send", "conv": conv, "text": "hi", "client_id": rng.u64(..40).to_string()}),
        5..=6 => json!({"type": "send", "user": named, "text": "\u{1f600}\n\t'\"\\"}),
        7 => json!({"type": "ack", "conv": conv, "seq": seq}),
        8 => json!({"type": "read", "conv": conv, "seq": seq}),
        9 => json!({"type": "typing", "conv": conv}),
        10 => json!({"type": "marks", "conv": conv}),
        11 => json!({"type": "history", "conv": conv, "limit": rng.u64(1..=10)}),
        12 => json!({"type": "history", "conv": conv, "before": seq}),
        13 => json!({"type": "history", "conv": conv, "after": seq}),
        14 => {
            let kind = one_of(rng, &["conversations", "friends", "blocked", "groups"]);
            page(rng, kind)
        }
        15 => json!({"type": "find_user", "name": format!("u{user}")}),
        16..=17 => json!({"type": "friend_request", "user": named}),
        18 => json!({"type": "friend_accept", "user": named}),
        19 => json!({"type": one_of(rng, &["friend_reject", "friend_remove"]), "user": named}),
        20 => json!({"type": one_of(rng, &["block", "unblock", "unblock"]), "user": named}),
        21 => json!({"type": "group_create", "name": "tea", "open": rng.bool()}),
        22..=23 => json!({"type": "group_join", "conv": conv}),
        24 => json!({"type": "group_leave", "conv": conv}),
        25 => json!({"type": "group_invite", "conv": conv, "user": named}),
        26 => json!({"type": "group_kick", "conv": conv, "user": named}),
        27 => {
            json!({"type": "group_role", "conv": conv, "user": named, "role": one_of(rng, &["owner", "admin", "member"])})
        }
        28 => json!({"type": "group_rename", "conv": conv, "name": "coffee"}),
        _ => json!({"type": "group_members", "conv": conv, "limit": 3}),
    }
}

fn log_in(server: &Chatd, user: u64) -> LineClient {
    server.client_as(&format!("u{user}"))
}

#[test]
fn random_requests_are_answered_once_and_the_tables_stay_sound() {
    for seed in seeds() {
        eprintln!("CHATD_RANDOM_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).data_dir(folder.path()).start().unwrap();
        let mut sessions: Vec<_> = (1..=USERS).map(|user| (user, log_in(&server, user))).collect();
        for _ in 0..3 {
            let user = rng.u64(1..=USERS);
            sessions.push((user, log_in(&server, user)));
        }
        for _ in 0..REQUESTS {
            let at = rng.usize(..sessions.len());
            if rng.u32(..40) == 0 {
                let user = sessions[at].0;
                sessions[at].1 = log_in(&server, user);
                continue;
            }
            let request = request(&mut rng);
            let reply = sessions[at].1.request(request.clone());
            assert_ne!(reply["code"], json!("internal"), "seed {seed}: {request}");
        }
        for (_, client) in &mut sessions {
            client.ok(json!({"type": "ping"}));
        }
        let log = server.log_text();
        drop((sessions, server));
        assert!(!log.contains("panic") && !log.contains("defect"), "seed {seed}: {log}");
        check(folder.path(), seed);
    }
}

/// What must hold: each query finds what breaks it.
const BROKEN: &[(&str, &str)] = &[
    (
        "entries are numbered without a gap up to the conversation's last",
        "SELECT c.id FROM conversation c LEFT JOIN message m ON m.conv = c.id GROUP BY c.id
         HAVING COUNT(m.seq) <> c.last_seq OR COALESCE(MAX(m.seq), 0) <> c.last_seq",
    ),
    (
        "a group counts its members",
        "SELECT g.conv FROM chat_group g LEFT JOIN span s ON s.conv = g.conv AND s.to_seq = 9007199254740991
         GROUP BY g.conv HAVING COUNT(s.user) <> g.members",
    ),
    (
        "a group with members has one owner",
        "SELECT g.conv FROM chat_group g LEFT JOIN span s
            ON s.conv = g.conv AND s.to_seq = 9007199254740991 AND s.role = 2
         WHERE g.members > 0 GROUP BY g.conv HAVING COUNT(s.user) <> 1",
    ),
    (
        "spans of one member do not overlap",
        "SELECT a.conv FROM span a JOIN span b ON b.conv = a.conv AND b.user = a.user AND b.from_seq > a.from_seq
         WHERE b.from_seq <= a.to_seq",
    ),
    (
        "a span begins with created or joined, and ends with left or kicked",
        "SELECT s.conv FROM span s JOIN message m ON m.conv = s.conv AND m.seq = s.from_seq WHERE m.event NOT IN (1, 2)
         UNION SELECT s.conv FROM span s JOIN message m ON m.conv = s.conv AND m.seq = s.to_seq WHERE m.event NOT IN (3, 4)",
    ),
    (
        "friends see each other alike",
        "SELECT f.user FROM friend f LEFT JOIN friend o ON o.user = f.other AND o.other = f.user
         WHERE o.state IS NULL OR (f.state, o.state) NOT IN (VALUES (0, 0), (1, 2), (2, 1))",
    ),
    (
        "who is blocked is no friend",
        "SELECT f.user FROM friend f JOIN blocked b ON b.user = f.user AND b.other = f.other",
    ),
    (
        "cursors are within their conversation",
        "SELECT m.conv FROM member m JOIN conversation c ON c.id = m.conv
         WHERE m.delivered_seq > c.last_seq OR m.read_seq > c.last_seq OR m.own_seq > c.last_seq",
    ),
    (
        "a client_id names an entry of its sender",
        "SELECT s.conv FROM sent s LEFT JOIN message m ON m.conv = s.conv AND m.seq = s.seq AND m.sender = s.sender
         WHERE m.seq IS NULL",
    ),
    (
        "an own_seq is the last entry by its user",
        "SELECT b.conv FROM member b WHERE b.own_seq <>
            COALESCE((SELECT MAX(m.seq) FROM message m WHERE m.conv = b.conv AND m.sender = b.user), 0)",
    ),
];

fn check(folder: &std::path::Path, seed: u64) {
    let store = Store::open(&DbConfig::at(folder), Box::new(|_: CommittedBatch| {})).unwrap();
    for (claim, sql) in BROKEN {
        let look = move |db: &mut Connection| db.query(sql, &[], |row| row.get::<i64>(0));
        assert_eq!(store.read_wait(look).unwrap(), Vec::<i64>::new(), "seed {seed}: {claim}");
    }
    let groups =
        |db: &mut Connection| db.query_row("SELECT COUNT(*) FROM span", &[], |row| row.get::<i64>(0));
    assert!(store.read_wait(groups).unwrap() > Some(5), "seed {seed}: too little happened to show anything");
}
