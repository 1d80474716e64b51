//! From the sender's write to the receiver's read, on one node and across two, while chatload keeps both busy.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use serde_json::{Value, json};
use testkit::LineClient;

use crate::nodes::Nodes;
use crate::{Failure, Options};

/// The bar of the median: so much more across nodes, in milliseconds.
const MORE_MAX_MS: f64 = 1.0;
const ROUNDS: usize = 5;

/// chatload at one node. Ended with the value.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(options: &Options, rows: &mut Rows) -> Result<(), Failure> {
    let nodes = Nodes::start(2)?;
    let rate = match options.rate {
        Some(rate) => rate,
        None => most(&nodes, if options.quick { "2" } else { "5" })? / 2.0,
    };
    eprintln!("  {rate:.0} messages/s meanwhile, over both nodes");
    let each = format!("{:.0}", rate / 2.0);
    let _loads = [load(&nodes, 0, &each)?, load(&nodes, 1, &each)?];
    let mut sender = nodes.client(0, "sender")?;
    let mut near = nodes.client(0, "near")?;
    let mut far = nodes.client(1, "far")?;
    let count = if options.quick { 50 } else { 400 };
    // The conversations exist, and both ways are warm.
    for _ in 0..count / 10 {
        time(&mut sender, "near", &mut near);
        time(&mut sender, "far", &mut far);
    }
    let (mut medians, mut tails) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..count {
            times[0].push(time(&mut sender, "near", &mut near));
            times[1].push(time(&mut sender, "far", &mut far));
        }
        for (at, times) in times.iter_mut().enumerate() {
            times.sort_by(f64::total_cmp);
            medians[at].push(quantile(times, 0.5));
            tails[at].push(quantile(times, 0.99));
        }
        eprintln!(
            "  round {round}: p50 {:.2} and {:.2} ms, p99 {:.2} and {:.2} ms",
            medians[0][round], medians[1][round], tails[0][round], tails[1][round]
        );
    }
    let case = format!("delivery at {rate:.0}/s");
    rows.add(&case, "one node", "p50", "ms", &medians[0], None);
    rows.add(&case, "across nodes", "p50", "ms", &medians[1], None);
    rows.add(&case, "one node", "p99", "ms", &tails[0], None);
    rows.add(&case, "across nodes", "p99", "ms", &tails[1], None);
    let more: Vec<f64> = medians[1].iter().zip(&medians[0]).map(|(far, near)| far - near).collect();
    rows.add(&case, "across nodes", "more at p50", "ms", &more, Some(Bar::AtMost(MORE_MAX_MS)));
    Ok(())
}

/// Milliseconds until the message is read by its receiver, which then acknowledges it.
fn time(sender: &mut LineClient, name: &str, receiver: &mut LineClient) -> f64 {
    let begin = Instant::now();
    let id = sender.post(json!({"type": "send", "user": name, "text": "how long?"}));
    let push = receiver.next_push("message");
    let taken = begin.elapsed();
    let _: Value = sender.reply(id);
    receiver.send(&json!({"type": "ack", "conv": push["conv"], "seq": push["seq"]}));
    taken.as_secs_f64() * 1e3
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a short list")]
    let at = (sorted.len().saturating_sub(1) as f64 * q).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn chatload(nodes: &Nodes, at: usize) -> Result<Command, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatload"));
    command.args(["--addr", &nodes.node(at)?.chat_addr().to_string(), "--shape", "pairs", "--users", "100"]);
    command.args(["--run-id", &format!("load{}", run_id(at))]);
    Ok(command)
}

/// Users of each run have names of their own.
fn run_id(at: usize) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{at}{}", now.subsec_nanos())
}

/// What both nodes together take, with chatload at each.
fn most(nodes: &Nodes, seconds: &str) -> Result<f64, Failure> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut runs = Vec::new();
    for at in 0..2 {
        let file = folder.path().join(format!("{at}.json"));
        let mut command = chatload(nodes, at)?;
        command.args(["--window", "16", "--seconds", seconds]).arg("--json").arg(&file);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        runs.push((child, file));
    }
    let mut all = 0.0;
    for (mut child, file) in runs {
        let status = child.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("chatload ended with {status}"));
        }
        let text = std::fs::read(file).map_err(|e| e.to_string())?;
        let report: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        all += report["accepted_per_second"].as_f64().ok_or("no rate in chatload's report")?;
    }
    Ok(all)
}

fn load(nodes: &Nodes, at: usize, rate: &str) -> Result<Load, Failure> {
    let mut command = chatload(nodes, at)?;
    command.args(["--window", "256", "--rate", rate, "--seconds", "3600"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
    let load = Load(child);
    // Until its users are there.
    let is_there = || nodes.metric(at, "chatd_users_online").is_some_and(|users| users >= 100.0);
    if !testkit::try_wait_until(Duration::from_secs(60), is_there) {
        return Err("chatload's users do not come".to_owned());
    }
    Ok(load)
}
