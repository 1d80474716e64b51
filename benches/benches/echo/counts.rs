//! What can be counted rather than timed: system calls and user instructions per message.

use benches::rig::{Calls, Failure, Job, Subject};
use benches::rows::{Bar, Rows};

use crate::Bench;

/// System calls per message with one in flight: a read and a write, and one wait in fifty messages.
const CALLS_MAX: f64 = 2.02;
/// The same with 16 in flight: a read and a write for all of them, and as much again where they come in two parts.
const CALLS_MAX_16: f64 = 0.25;
const EMPTY_READS_MAX: f64 = 0.01;
/// System calls per accepted and closed connection.
const ACCEPT_CALLS_MAX: f64 = 6.0;
const INSTRUCTIONS_MAX: f64 = 150.0;

/// Connections that are counted at.
const CONNECTIONS: u32 = 100;

impl Bench {
    pub(crate) fn calls(&self, rows: &mut Rows) -> Result<(), Failure> {
        if !Calls::can_be_counted() {
            eprintln!("skipped: system calls, which need strace");
            return Ok(());
        }
        for subject in &self.subjects {
            self.message_calls(rows, *subject, 1, CALLS_MAX)?;
            self.message_calls(rows, *subject, 16, CALLS_MAX_16)?;
            self.accept_calls(rows, *subject)?;
        }
        Ok(())
    }

    fn message_calls(
        &self,
        rows: &mut Rows,
        subject: Subject,
        window: u32,
        most: f64,
    ) -> Result<(), Failure> {
        let each = if self.quick { 40 } else { 200 } * window;
        let calls = Calls::of(&self.workshop, (subject, Job::Echo), u64::from(each), |each| {
            let (connections, window) = (CONNECTIONS.to_string(), window.to_string());
            ["--connections", &connections, "--window", &window, "--messages", &each.to_string()]
                .map(str::to_owned)
                .to_vec()
        })?;
        let messages = f64::from(each * CONNECTIONS);
        eprintln!("calls, {window} in flight, {}: {}", subject.name(), calls.words(messages));
        let case = format!("calls: 64 B x {CONNECTIONS}, {window} in flight");
        let ours = subject == Subject::Reactor;
        let mut add = |metric: &str, count: f64, most: f64| {
            let bar = ours.then_some(Bar::AtMost(most));
            rows.add(&case, subject.name(), metric, "1", &[count / messages], bar);
        };
        add("system calls per message", calls.all(), most);
        add("reads that found nothing, per message", calls.count(Calls::EMPTY_READS), EMPTY_READS_MAX);
        if window == 1 {
            add("epoll_ctl per message", calls.count("epoll_ctl"), 0.0);
            add("eventfd writes per message", calls.count(Calls::WAKES), 0.0);
        }
        Ok(())
    }

    fn accept_calls(&self, rows: &mut Rows, subject: Subject) -> Result<(), Failure> {
        let cycles = if self.quick { 500 } else { 3_000_u32 };
        for (flag, metric, bar) in [
            (None, "system calls per connection", Some(Bar::AtMost(ACCEPT_CALLS_MAX))),
            (Some("--lockstep"), "system calls per connection, each alone", None),
        ] {
            let calls = Calls::of(&self.workshop, (subject, Job::Echo), u64::from(cycles), |cycles| {
                let words = ["--shape", "cycles", "--messages", &cycles.to_string()].map(str::to_owned);
                words.into_iter().chain(flag.map(str::to_owned)).collect()
            })?;
            eprintln!("{metric}, {}: {}", subject.name(), calls.words(f64::from(cycles)));
            let bar = bar.filter(|_| subject == Subject::Reactor);
            let case = "connections opened and closed";
            rows.add(case, subject.name(), metric, "1", &[calls.all() / f64::from(cycles)], bar);
        }
        Ok(())
    }

    pub(crate) fn instructions(&self, rows: &mut Rows) -> Result<(), Failure> {
        if !self.workshop.has_callgrind() {
            eprintln!("skipped: instructions, which need valgrind");
            return Ok(());
        }
        let each = if self.quick { 50 } else { 200 };
        for subject in &self.subjects {
            let count = self.workshop.instructions(*subject, u64::from(CONNECTIONS), each, &[])?;
            eprintln!("instructions, {}: {count:.1}", subject.name());
            let bar = (*subject == Subject::Reactor).then_some(Bar::AtMost(INSTRUCTIONS_MAX));
            let case = format!("instructions: 64 B x {CONNECTIONS}");
            rows.add(&case, subject.name(), "user instructions per message", "1", &[count], bar);
        }
        Ok(())
    }
}
