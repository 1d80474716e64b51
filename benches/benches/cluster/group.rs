//! What one message to a large group costs: publishes at Redis, and places in the conversation.

use benches::rows::{Bar, Rows};
use serde_json::json;
use testkit::{Chatd, try_wait_until};

use crate::nodes::Nodes;
use crate::{Failure, Options};

const NODES: usize = 3;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

pub(crate) fn run(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let members = if options.quick { 30 } else { 1_000 };
    let nodes = Nodes::start(NODES)?;
    let mut owner = nodes.client(0, "owner")?;
    let group = owner.ok(json!({"type": "group_create", "name": "all", "open": true}));
    let conv = group["conv"].as_u64().ok_or("no conv")?;
    for at in 1..members {
        nodes.client(at % NODES, &format!("member-{at}"))?.ok(json!({"type": "group_join", "conv": conv}));
    }
    let last = owner.ok(json!({"type": "history", "conv": conv, "limit": 1}));
    let last = last["messages"][0]["seq"].as_u64().ok_or("no last entry")?;
    eprintln!("  {members} members have joined, up to {last}");
    // They come back with what they have, so that nothing is to be pushed before the message that counts.
    let mut sessions = Vec::new();
    for at in 1..members {
        let mut client = nodes.node(at % NODES)?.client();
        client.set_patience(PATIENCE);
        let name = format!("member-{at}");
        client.ok(json!({"type": "login", "name": name, "password": Chatd::PASSWORD, "hold": true}));
        client.ok(json!({"type": "sync", "cursors": {conv.to_string(): last}}));
        client.next_push("synced");
        sessions.push(client);
    }
    let published =
        || -> f64 { (0..NODES).filter_map(|at| nodes.metric(at, "chatd_redis_published_total")).sum() };
    let mut before = published();
    let is_quiet = || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = published();
        now.total_cmp(&std::mem::replace(&mut before, now)).is_eq()
    };
    if !try_wait_until(PATIENCE, is_quiet) {
        return Err("the nodes go on publishing".to_owned());
    }
    let before = published();
    let sent = owner.ok(json!({"type": "send", "conv": conv, "text": "to all of you"}));
    for session in &mut sessions {
        let push = session.next_push("message");
        if push["text"] != "to all of you" {
            return Err(format!("another message came first: {push}"));
        }
    }
    let publishes = published() - before;
    let places = sent["seq"].as_u64().unwrap_or_default().saturating_sub(last);
    let case = format!("group of {members} on {NODES} nodes");
    rows.add(&case, "one message", "publishes", "", &[publishes], Some(Bar::AtMost(1.0)));
    rows.add(&case, "one message", "rows", "", &[places as f64], Some(Bar::AtMost(1.0)));
    Ok(())
}
