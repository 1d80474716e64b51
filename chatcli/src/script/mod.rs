//! Script mode: one command per line in, one event per line out.

mod command;
mod output;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use schema::ConvId;

use crate::client::{Client, Link, News};
use crate::error::CliError;
use crate::service::{Credential, Event, Phase, Question, Refusal, Ticket, To};
use command::Command;

/// The longest line of a script: a text of the greatest length, escaped at its worst, fits.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// Lines of the script that may wait for those before them.
const LINES_AHEAD: usize = 64;

/// How long to look at nothing when nothing is due.
const QUIET: Duration = Duration::from_secs(60);

/// How a script is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptConfig {
    /// How long a command, and the end, may take.
    pub(crate) timeout: Duration,
    /// Whether the commands behind one that failed are executed.
    pub(crate) keep_going: bool,
}

/// A script being run.
pub(crate) struct Script<W> {
    client: Client,
    config: ScriptConfig,
    out: W,
    /// What was asked and is not answered.
    open: HashSet<Ticket>,
    /// Events that no `wait` has used up.
    counts: HashMap<String, u64>,
    failures: usize,
}

impl<W: Write> Script<W> {
    /// A script that writes its events to `out`.
    pub(crate) fn new(client: Client, config: ScriptConfig, out: W) -> Self {
        Self { client, config, out, open: HashSet::new(), counts: HashMap::new(), failures: 0 }
    }

    /// Runs the commands of `input` to its end, or to `quit`.
    ///
    /// # Errors
    /// When the output fails, or commands did.
    pub(crate) fn run(mut self, input: impl Read + Send + 'static) -> Result<(), CliError> {
        let lines = read_lines(input);
        while let Some(line) = self.next_line(&lines)? {
            let failures = self.failures;
            match line.and_then(|line| Command::parse(&line)) {
                Ok(Some(Command::Quit)) => break,
                Ok(Some(command)) => self.execute(command)?,
                Ok(None) => {}
                Err(refusal) => self.fail(&refusal)?,
            }
            if self.failures > failures && !self.config.keep_going {
                break;
            }
        }
        self.finish()?;
        if self.failures == 0 { Ok(()) } else { Err(CliError::Failed(self.failures)) }
    }

    /// The next line of the input; what happens meanwhile is said.
    fn next_line(&mut self, lines: &Receiver<Line>) -> Result<Option<Line>, CliError> {
        loop {
            self.say_news()?;
            let wait = self.client.patience(Instant::now(), QUIET);
            let wire = self.client.wire().clone();
            select! {
                recv(lines) -> line => return Ok(line.ok()),
                recv(wire) -> event => {
                    self.client.handle(Instant::now(), event.map_err(|_| CliError::NetEnded)?);
                }
                default(wait) => {}
            }
            self.client.service.handle_time(Instant::now());
        }
    }

    /// Lets things happen until `done`; `false` when that takes too long.
    fn run_until(
        &mut self,
        timeout: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, CliError> {
        let start = Instant::now();
        loop {
            self.say_news()?;
            if done(self) {
                return Ok(true);
            }
            let now = Instant::now();
            let left = timeout.saturating_sub(now.saturating_duration_since(start));
            if left.is_zero() {
                return Ok(false);
            }
            let wait = self.client.patience(now, left);
            match self.client.wire().recv_timeout(wait) {
                Ok(event) => self.client.handle(Instant::now(), event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(CliError::NetEnded),
            }
            self.client.service.handle_time(Instant::now());
        }
    }

    /// Says what has happened, and does what the service wants done.
    fn say_news(&mut self) -> Result<(), CliError> {
        self.client.flush();
        while let Some(news) = self.client.news() {
            match news {
                News::Link => {
                    if let Link::Down { why, retry_at } = self.client.link().clone() {
                        let wait =
                            retry_at.map(|at| at.saturating_duration_since(Instant::now()).as_millis());
                        let wait = wait.map_or_else(|| "-".into(), |ms| ms.to_string());
                        self.say(&format!("disconnected {wait} {}", output::quote(&why)))?;
                    }
                }
                News::Event(event) => self.handle_event(&event)?,
            }
            self.client.flush();
        }
        Ok(())
    }

    fn handle_event(&mut self, event: &Event) -> Result<(), CliError> {
        let answered = match event {
            Event::Registered { ticket, .. }
            | Event::Sent { ticket, .. }
            | Event::History { ticket, .. }
            | Event::Conversations { ticket, .. }
            | Event::Found { ticket, .. }
            | Event::Done { ticket }
            | Event::Friends { ticket, .. }
            | Event::Blocked { ticket, .. }
            | Event::GroupCreated { ticket, .. }
            | Event::Members { ticket, .. }
            | Event::Groups { ticket, .. }
            | Event::Marked { ticket, .. } => Some(*ticket),
            Event::Refused { ticket, .. } => {
                // What was given up has been counted already.
                if !self.open.contains(ticket) {
                    return Ok(());
                }
                self.failures += 1;
                Some(*ticket)
            }
            Event::LoggedIn { ticket, .. } | Event::LoggedOut { ticket, .. } => *ticket,
            _ => None,
        };
        for line in output::lines(&self.client.service, event) {
            self.say(&line)?;
        }
        if let Some(ticket) = answered {
            self.open.remove(&ticket);
        }
        Ok(())
    }

    fn say(&mut self, line: &str) -> Result<(), CliError> {
        let kind = line.split(' ').next().unwrap_or_default();
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        writeln!(self.out, "{line}")
            .and_then(|()| self.out.flush())
            .map_err(CliError::io("cannot write to standard output"))
    }

    fn fail(&mut self, refusal: &Refusal) -> Result<(), CliError> {
        self.failures += 1;
        self.say(&output::error(refusal))
    }

    fn execute(&mut self, command: Command) -> Result<(), CliError> {
        let now = Instant::now();
        let asked = match command {
            Command::Register { name, password } => {
                self.client.service.ask(now, Question::Register { name, password })
            }
            Command::Login { name, password } => {
                self.client.service.login(Credential::Password { name, password })
            }
            Command::Token(Some(token)) => self.client.service.login(Credential::Token(token)),
            Command::Token(None) => return self.say_token(),
            Command::Send { name, text } => return self.send(name, &text),
            Command::Wait { event, count, timeout } => return self.wait(&event, count, timeout),
            Command::Logout => self.client.service.ask(now, Question::Logout),
            Command::Password { old, new } => self.client.service.ask(now, Question::Password { old, new }),
            Command::Conversations => self.client.service.ask(now, Question::Conversations),
            Command::Who { name } => self.client.service.ask(now, Question::FindUser { name }),
            Command::Order(order) => {
                self.settle(|_| false)?;
                let asked = order.question(&self.client.service, None);
                asked.and_then(|question| self.client.service.ask(now, question))
            }
            Command::History { name, count } => match self.conversation_with(&name)? {
                Some(conv) => self.client.service.ask(now, Question::History { conv, before: None, count }),
                None => Err(no_conversation(&name)),
            },
            Command::Read { name } => match self.conversation_with(&name)? {
                Some(conv) => {
                    let conversation = self.client.service.conversation(conv);
                    let seq = conversation.and_then(|conversation| conversation.stream.complete());
                    self.client.service.ask(now, Question::Read { conv, seq: seq.unwrap_or_default() })
                }
                None => Err(no_conversation(&name)),
            },
            Command::Quit => return Ok(()),
        };
        match asked {
            Ok(ticket) => self.await_answer(ticket),
            Err(refusal) => self.fail(&refusal),
        }
    }

    fn await_answer(&mut self, ticket: Ticket) -> Result<(), CliError> {
        self.open.insert(ticket);
        if self.run_until(self.config.timeout, |script| !script.open.contains(&ticket))? {
            return Ok(());
        }
        self.open.remove(&ticket);
        self.client.service.give_up(ticket);
        self.fail(&timed_out("the server has not answered"))
    }

    /// Does not wait for the answer: many sends can be on their way.
    fn send(&mut self, name: String, text: &str) -> Result<(), CliError> {
        let room = |script: &mut Self| script.client.service.has_room();
        if !self.run_until(self.config.timeout, room)? {
            return self.fail(&timed_out("too many messages are not answered"));
        }
        if name.starts_with('#') {
            self.settle(|_| false)?;
        }
        let to = match name.starts_with('#') {
            true => self.client.service.find_group(&name).map(To::Conv),
            false => Ok(To::User(name)),
        };
        match to.and_then(|to| self.client.service.send(Instant::now(), to, text)) {
            Ok(ticket) => {
                self.open.insert(ticket);
                self.say_news()
            }
            Err(refusal) => self.fail(&refusal),
        }
    }

    fn say_token(&mut self) -> Result<(), CliError> {
        match self.client.service.token().map(|token| token.reveal().to_owned()) {
            Some(token) => self.say(&format!("token {}", output::word(&token))),
            None => self.fail(&Refusal::new("not_logged_in", "log in first")),
        }
    }

    fn wait(&mut self, event: &str, count: u64, timeout: Option<Duration>) -> Result<(), CliError> {
        if !output::KINDS.contains(&event) {
            let kinds = output::KINDS.join(" ");
            let message = format!("no such event: {event:?}; there are: {kinds}");
            return self.fail(&Refusal::new("usage", message));
        }
        let seen = |script: &Self| script.counts.get(event).copied().unwrap_or(0);
        let timeout = timeout.unwrap_or(self.config.timeout);
        if self.run_until(timeout, |script| seen(script) >= count)? {
            if let Some(seen) = self.counts.get_mut(event) {
                *seen -= count;
            }
            return Ok(());
        }
        let came = self.counts.remove(event).unwrap_or(0);
        self.fail(&timed_out(format!("{came} of {count} `{event}` came")))
    }

    /// Waits until the list of conversations is here, or what is looked for.
    fn settle(&mut self, known: impl Fn(&Self) -> bool) -> Result<(), CliError> {
        if self.client.service.me().is_some() {
            self.run_until(self.config.timeout, |script| {
                script.client.service.phase() == Phase::Online || known(script)
            })?;
        }
        Ok(())
    }

    /// The conversation with a user or of a group, once the list of them is here.
    fn conversation_with(&mut self, name: &str) -> Result<Option<ConvId>, CliError> {
        let known = |script: &Self| {
            let service = &script.client.service;
            match name.strip_prefix('#') {
                Some(_) => service.find_group(name).ok().filter(|conv| service.conversation(*conv).is_some()),
                None => service.conversation_with(name).map(|found| found.conv),
            }
        };
        if self.client.service.me().is_some() {
            self.settle(|script| known(script).is_some())?;
            // A first message may be on its way still.
            let settled =
                |script: &mut Self| known(script).is_some() || script.client.service.unanswered_sends() == 0;
            self.run_until(self.config.timeout, settled)?;
        }
        Ok(known(self))
    }

    /// Waits until what was sent is answered, and says what has arrived.
    fn finish(&mut self) -> Result<(), CliError> {
        if !self.run_until(self.config.timeout, |script| script.open.is_empty())? {
            let open = self.open.len();
            self.fail(&timed_out(format!("{open} messages are not answered")))?;
        }
        self.client.service.say_goodbye();
        self.client.flush();
        Ok(())
    }
}

impl<W> std::fmt::Debug for Script<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").field("failures", &self.failures).finish_non_exhaustive()
    }
}

fn no_conversation(name: &str) -> Refusal {
    Refusal::new("not_found", format!("there is no conversation with {name}"))
}

fn timed_out(what: impl Into<String>) -> Refusal {
    Refusal::new("timeout", what)
}

type Line = Result<String, Refusal>;

/// Reads lines on a thread of its own, which ends with the program.
fn read_lines(input: impl Read + Send + 'static) -> Receiver<Line> {
    let (give, take) = bounded(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = BufReader::new(input);
        loop {
            let mut bytes = Vec::new();
            let line = match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) => return,
                Ok(_) => String::from_utf8(bytes).map_err(|_| Refusal::new("usage", "the line is not UTF-8")),
                Err(error) => Err(Refusal::new("usage", format!("cannot read the script: {error}"))),
            };
            let ends = matches!(&line, Err(refusal) if refusal.message.starts_with("cannot read"));
            // A line that was cut is no command, and what follows it even less.
            let long =
                matches!(&line, Ok(text) if !text.ends_with('\n') && text.len() as u64 >= LINE_BYTES_MAX);
            let line = if long { Err(Refusal::new("usage", "the line is too long")) } else { line };
            if give.send(line).is_err() || ends || long {
                return;
            }
        }
    });
    take
}
