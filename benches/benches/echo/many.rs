//! Many connections: one line to a thousand, and whether one of nine thousand starves.

use benches::rig::{Calls, Failure, Job, Server, Subject, Wrapper};
use benches::rows::{Bar, Rows};

use crate::{Bench, figure};

/// How much more than the slow ones the quick connections may get done: p90 over p10 of their messages.
const SPREAD_MAX: f64 = 1.5;
/// Calls that send, per delivered line: one, and one in a hundred where a wait comes between.
const SENDS_MAX: f64 = 1.01;

impl Bench {
    pub(crate) fn hub(&self, rows: &mut Rows) -> Result<(), Failure> {
        let (connections, lines) = if self.quick { (101, 20) } else { (1_001, 100_u32) };
        let (all, others) = (connections.to_string(), f64::from(connections - 1));
        let case = format!("one line to {} connections", connections - 1);
        let load = |lines: u64| {
            let words = ["--shape", "hub", "--connections", &all, "--messages", &lines.to_string()];
            words.map(str::to_owned).to_vec()
        };
        if Calls::can_be_counted() {
            let subject = (Subject::Reactor, Job::Hub);
            let calls = Calls::of(&self.workshop, subject, u64::from(lines), load)?;
            let deliveries = f64::from(lines) * others;
            eprintln!("calls, hub: {}", calls.words(deliveries));
            let mut add = |metric, count: f64, bar| {
                rows.add(&case, "reactor", metric, "1", &[count / deliveries], Some(Bar::AtMost(bar)));
            };
            add("writes per delivery", calls.sends(), SENDS_MAX);
            add("eventfd writes per delivery", calls.count(Calls::WAKES), 0.0);
        }
        let mut used = Vec::new();
        for _ in 0..self.rounds.min(5) {
            let command = self.workshop.command(Subject::Reactor, Job::Hub, 1);
            let server = Server::start(Wrapper::None, "0", &command)?;
            let args = load(u64::from(lines) * 3);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let report = self.workshop.load("1", &server, &args)?;
            used.push(figure(&report, "/server_cpu_ns_per_delivery")?);
        }
        rows.add(&case, "reactor", "server CPU per delivery", "ns", &used, None);
        Ok(())
    }

    pub(crate) fn fair(&self, rows: &mut Rows) -> Result<(), Failure> {
        let (connections, seconds) = if self.quick { ("1000", "1") } else { ("9000", "10") };
        let case = format!("fairness: {connections} connections, {seconds} s");
        for subject in &self.subjects {
            let command = self.workshop.command(*subject, Job::Echo, 1);
            let server = Server::start(Wrapper::None, "0", &command)?;
            let load = ["--connections", connections, "--seconds", seconds, "--warmup", "1"];
            let report = self.workshop.load("1", &server, &load)?;
            let number = |pointer| figure(&report, pointer);
            let spread = number("/per_connection/p90")? / number("/per_connection/p10")?.max(1e-9);
            let mut add = |metric: &str, unit: &str, value: f64, bar: Option<Bar>| {
                let bar = bar.filter(|_| *subject == Subject::Reactor);
                rows.add(&case, subject.name(), metric, unit, &[value], bar);
            };
            add("starved connections", "1", number("/starved")?, Some(Bar::AtMost(0.0)));
            add("messages per connection, p90 / p10", "1", spread, Some(Bar::AtMost(SPREAD_MAX)));
            add("messages per connection, least", "1", number("/per_connection/least")?, None);
            add("messages", "1/s", number("/messages_per_second")?, None);
            add("latency, p99", "us", number("/latency_us/p99")?, None);
            add("load generator CPU", "cores", number("/load_cores")?, None);
        }
        Ok(())
    }
}
