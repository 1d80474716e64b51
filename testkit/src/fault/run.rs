//! Runs: a cluster, a crowd, something that breaks, and the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{ALL, Break, Breaker, Flatness};
use crate::crowd::{Crowd, CrowdPlan, Outcome};
use crate::{Cluster, TestkitError};

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The chat server's program.
    pub chatd: PathBuf,
    /// The login daemon's.
    pub logd: PathBuf,
    /// How many users.
    pub users: usize,
    /// How many chat servers.
    pub nodes: usize,
    /// How many login daemons; with none, the service is inside the chat servers.
    pub logins: usize,
    /// How long a client waits on the average between two messages.
    pub think: Duration,
    /// How long they write at least.
    pub writing: Duration,
    /// For machines that may stand still now and then: see [`CrowdPlan::patient`].
    pub patient: bool,
}

/// Runs one thing after another. A cluster and its crowd serve until something goes wrong.
#[derive(Debug)]
pub struct Runner {
    options: RunOptions,
    cluster: Option<(Cluster, Crowd, bool)>,
    /// What failed, by seed and name.
    failed: Vec<String>,
}

impl Runner {
    /// Nothing runs yet.
    pub fn new(options: RunOptions) -> Runner {
        Runner { options, cluster: None, failed: Vec::new() }
    }

    /// What has failed so far.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Breaks `one` thing under the crowd's load. `says` gets the outcome, and all that is known when it is a bad one. Whether it was good.
    ///
    /// # Errors
    /// When a cluster cannot be started.
    pub fn run(&mut self, one: Break, seed: u64, says: &mut dyn FnMut(&str)) -> Result<bool, TestkitError> {
        self.run_sparing(one, seed, None, says)
    }

    fn run_sparing(
        &mut self,
        one: Break,
        seed: u64,
        spared: Option<usize>,
        says: &mut dyn FnMut(&str),
    ) -> Result<bool, TestkitError> {
        if one.skewed && !Cluster::can_skew() {
            says(&format!("skipped: {} needs libfaketime", one.name));
            return Ok(true);
        }
        if self.cluster.as_ref().is_some_and(|(.., skewed)| *skewed != one.skewed) {
            self.cluster = None;
        }
        if self.cluster.is_none() {
            self.cluster = Some(self.start(seed, one.skewed)?);
        }
        let Some((cluster, crowd, _)) = self.cluster.as_mut() else { return Ok(false) };
        let began = Instant::now();
        let writing = self.options.writing;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            crowd.run(seed, writing, |clock| {
                let mut breaker = Breaker::new(cluster, *clock, seed);
                if let Some(node) = spared {
                    breaker = breaker.sparing(node);
                }
                one.run(&mut breaker)
            })
        }));
        let name = format!("seed {seed} {}", one.name);
        let verdict = verdict(outcome, cluster);
        match verdict {
            Ok(summary) => {
                says(&format!(
                    "ok    {name} ({}): {summary}; {:.0} s",
                    one.what,
                    began.elapsed().as_secs_f64()
                ));
                cluster.wait_joined();
                Ok(true)
            }
            Err(story) => {
                says(&format!("WRONG {name} ({}): {story}", one.what));
                self.failed.push(name);
                // What is left of it may be wrong from the begin.
                self.cluster = None;
                Ok(false)
            }
        }
    }

    /// Things left to chance, for so long. Then memory and descriptors must be what they were.
    ///
    /// # Errors
    /// When a cluster cannot be started.
    pub fn soak(
        &mut self,
        time: Duration,
        seed: u64,
        says: &mut dyn FnMut(&str),
    ) -> Result<(), TestkitError> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let spared = self.options.nodes.saturating_sub(1);
        let mut flatness = Flatness::default();
        let end = Instant::now() + time;
        let mut number = seed * 1000;
        while Instant::now() < end {
            let choice: Vec<&Break> = ALL.iter().filter(|one| !one.skewed && !one.ends_all_nodes).collect();
            let Some(one) = rng.choice(choice) else { break };
            number += 1;
            if !self.run_sparing(*one, number, Some(spared), says)? {
                flatness = Flatness::default();
            }
            if let Some((cluster, ..)) = &self.cluster {
                flatness.look(cluster);
            }
        }
        says(&flatness.to_string());
        for line in flatness.grown() {
            says(&format!("WRONG {line}"));
            self.failed.push(line);
        }
        Ok(())
    }

    fn start(&self, seed: u64, skewed: bool) -> Result<(Cluster, Crowd, bool), TestkitError> {
        let options = &self.options;
        let mut builder = Cluster::builder(&options.chatd, &options.logd)
            .nodes(options.nodes)
            .logins(options.logins)
            .proxied();
        if skewed {
            builder = builder.skewed(1);
        }
        let cluster = builder.start(|_| ())?;
        let plan = CrowdPlan { users: options.users, seed, think: options.think, patient: options.patient };
        let crowd = Crowd::gather(cluster.addr(), plan);
        Ok((cluster, crowd, skewed))
    }
}

/// What a run amounted to, or all that speaks against it.
fn verdict(outcome: std::thread::Result<Outcome>, cluster: &Cluster) -> Result<String, String> {
    let told = match outcome {
        Ok(outcome) => match outcome.history.check() {
            Ok(summary) if outcome.strange.is_empty() => return Ok(summary.to_string()),
            Ok(_) => first_lines(&outcome.strange),
            Err(violation) => format!("{violation}\n{}", first_lines(&outcome.strange)),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "it panicked".to_owned())
        }
    };
    Err(format!("{told}\n{}", logs(cluster)))
}

fn first_lines(strange: &[String]) -> String {
    let more = strange.len().saturating_sub(20);
    let mut text = strange.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    if more > 0 {
        text.push_str(&format!("\nand {more} more"));
    }
    text
}

/// What the nodes warned of.
fn logs(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let log = node.log_text();
        let all: Vec<&str> =
            log.lines().filter(|line| matches!(line.split(' ').nth(1), Some("W" | "E"))).collect();
        text.push_str(&format!("---- node-{}, its last warnings\n", number + 1));
        for line in &all[all.len().saturating_sub(30)..] {
            text.push_str(line);
            text.push('\n');
        }
        // At each start it says where it listens.
        for line in node.stderr().lines().filter(|line| !line.starts_with("chatd: chat on")) {
            text.push_str(&format!("its standard error: {line}\n"));
        }
    }
    text
}
