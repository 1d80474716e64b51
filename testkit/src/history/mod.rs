//! What many clients saw of a server or a cluster, and whether that can be.
//!
//! Each client writes down what it sent, what was answered and what it received, with times. [`History::check`] holds that against what PROTOCOL
//! promises:
//!
//! 1. Every acknowledged message is in the history that each member of its conversation can fetch, at its `seq`, and comes on each member's stream.
//! 2. Nothing comes twice on one stream.
//! 3. Pushes of a stream increase in `seq`, leave nothing out, and all who saw a `seq` saw the same there.
//! 4. What was refused appears nowhere. What was answered `unavailable` or not at all may appear or not, but once at most.
//! 5. Who is online is said truly, from [`PRESENCE_MAX`] after a fault has ended, and so long after a coming or going.
//! 6. Nobody's token is refused.
//!
//! What is wrong is a [`Violation`]: the first one in time, with all that was written down about it.

mod check;
mod presence;
mod story;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

pub use presence::PRESENCE_MAX;

/// A user's id, as the server gave it.
pub type UserNumber = u64;
/// A conversation's id.
pub type ConvNumber = u64;
/// An entry's place in its conversation.
pub type SeqNumber = u64;

/// One entry of a conversation, as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its place.
    pub seq: SeqNumber,
    /// Who wrote it.
    pub from: UserNumber,
    /// The text; for an entry that is none, what it tells: `joined 17`.
    pub text: String,
}

/// What happened to one client. Texts are unique in a run: each names its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A connection was made, to this node.
    Connected {
        /// The node, as its `hello` says.
        node: String,
    },
    /// It is logged in, and a stream begins behind each of these places.
    Began {
        /// Where the streams start; a conversation that is not named starts at 0.
        cursors: BTreeMap<ConvNumber, SeqNumber>,
    },
    /// The token was not taken.
    TokenRefused {
        /// The server's code.
        code: String,
    },
    /// A message was sent, for the first time or again.
    Sent {
        /// The conversation.
        conv: ConvNumber,
        /// The text.
        text: String,
    },
    /// It was acknowledged.
    Acked {
        /// The conversation.
        conv: ConvNumber,
        /// The text.
        text: String,
        /// The place.
        seq: SeqNumber,
        /// Whether the server said that it had it before.
        duplicate: bool,
    },
    /// It was answered with an error.
    Failed {
        /// The conversation.
        conv: ConvNumber,
        /// The text.
        text: String,
        /// The server's code.
        code: String,
    },
    /// An entry was pushed.
    Pushed {
        /// The conversation.
        conv: ConvNumber,
        /// What came.
        entry: Entry,
    },
    /// The client looked who of its friends is online.
    Looked {
        /// The friend.
        user: UserNumber,
        /// What was said.
        online: bool,
    },
    /// The connection is over, or the client has logged out.
    Ended {
        /// Why, as far as the client knows.
        why: String,
    },
    /// The whole history of a conversation was fetched at the end.
    Fetched {
        /// The conversation.
        conv: ConvNumber,
        /// All of it that the user may see.
        entries: Vec<Entry>,
    },
    /// All was quiet, and the client had waited for what its streams still lacked. From here on they are complete.
    Settled,
}

/// Something that happened to one client, and when, counted from the run's begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What one client wrote down, in order.
#[derive(Debug, Clone, Default)]
pub struct ClientLog {
    /// Whose client it is.
    pub user: UserNumber,
    /// The user's name.
    pub name: String,
    /// What happened.
    pub events: Vec<Event>,
}

/// Something that was broken, from when to when.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What was done.
    pub what: String,
    /// When it began.
    pub from: Duration,
    /// When all was whole again.
    pub until: Duration,
}

/// A whole run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Each client's log. A user may have several clients.
    pub clients: Vec<ClientLog>,
    /// What was broken meanwhile.
    pub faults: Vec<Fault>,
    /// Who is in each conversation, and the first entry that each may see.
    pub members: BTreeMap<ConvNumber, BTreeMap<UserNumber, SeqNumber>>,
    /// From which seed the run was made.
    pub seed: u64,
    /// Who is online is not judged: for machines that may stand still for longer than [`PRESENCE_MAX`].
    pub forgives_presence: bool,
}

/// What kind of promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// An acknowledged message is not where it was said to be.
    Lost,
    /// A stream did not bring what it should have.
    LeftOut,
    /// A stream brought an entry twice.
    ShownTwice,
    /// A stream went backwards.
    OutOfOrder,
    /// Two saw different entries at one place.
    Disagreement,
    /// One message is at two places.
    Doubled,
    /// A refused message appears.
    RefusedAppears,
    /// A text appears that nobody sent.
    Invented,
    /// It was said wrongly who is online.
    WrongPresence,
    /// A token was refused.
    LoggedOut,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Lost => "an acknowledged message is lost",
            Kind::LeftOut => "a stream left an entry out",
            Kind::ShownTwice => "a stream brought an entry twice",
            Kind::OutOfOrder => "a stream went backwards",
            Kind::Disagreement => "two saw different entries at one place",
            Kind::Doubled => "a message is there twice",
            Kind::RefusedAppears => "a refused message appears",
            Kind::Invented => "a message appears that nobody sent",
            Kind::WrongPresence => "it is said wrongly who is online",
            Kind::LoggedOut => "a token was refused",
        })
    }
}

/// A broken promise, with its story. Its `Display` is what a person needs to look into it.
#[derive(Debug, Clone)]
pub struct Violation {
    /// What was broken.
    pub kind: Kind,
    /// When it was seen.
    pub at: Duration,
    /// The one sentence.
    pub headline: String,
    /// All that was written down about it, in order of time.
    pub story: String,
    /// How many there are in all, by kind.
    pub counts: BTreeMap<Kind, usize>,
    /// The run's seed.
    pub seed: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (seed {}): {}", self.kind, self.seed, self.headline)?;
        f.write_str(&self.story)?;
        f.write_str("in all:")?;
        self.counts.iter().try_for_each(|(kind, count)| write!(f, " {kind}: {count};"))
    }
}

/// What a run that is in order amounted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were sent, each counted once.
    pub sent: usize,
    /// Of these, acknowledged.
    pub acked: usize,
    /// Acknowledged at a second or later attempt.
    pub resent: usize,
    /// Entries that were pushed.
    pub pushed: usize,
    /// Definitely refused.
    pub refused: usize,
    /// Connections that were made.
    pub connections: usize,
    /// The longest time between a message's first sending and its acknowledgement.
    pub slowest_ack: Duration,
    /// Looks at who is online that could be judged.
    pub looks: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} acked ({} resent), {} refused, {} pushed, {} connections, slowest ack {:.1} s, {} looks at presence",
            self.sent,
            self.acked,
            self.resent,
            self.refused,
            self.pushed,
            self.connections,
            self.slowest_ack.as_secs_f64(),
            self.looks
        )
    }
}

impl History {
    /// Holds the histories against what is promised.
    ///
    /// # Errors
    /// The first violation in time, with its story.
    pub fn check(&self) -> Result<Summary, Box<Violation>> {
        let mut found = check::violations(self);
        let (wrong, looks) =
            if self.forgives_presence { (Vec::new(), 0) } else { presence::violations(self) };
        found.extend(wrong);
        found.sort_by_key(|f| (f.at, f.kind));
        let Some(first) = found.first() else { return Ok(self.summary(looks)) };
        let mut counts = BTreeMap::new();
        for one in &found {
            *counts.entry(one.kind).or_insert(0) += 1;
        }
        Err(Box::new(Violation {
            kind: first.kind,
            at: first.at,
            headline: first.headline.clone(),
            story: story::tell(self, first),
            counts,
            seed: self.seed,
        }))
    }

    fn summary(&self, looks: usize) -> Summary {
        let mut summary = Summary { looks, ..Summary::default() };
        for client in &self.clients {
            let mut first_sent: BTreeMap<&str, Duration> = BTreeMap::new();
            let (mut acked, mut again) = (BTreeSet::new(), BTreeSet::new());
            for event in &client.events {
                match &event.what {
                    What::Sent { text, .. } => {
                        if first_sent.contains_key(text.as_str()) && !acked.contains(text.as_str()) {
                            again.insert(text.as_str());
                        }
                        first_sent.entry(text).or_insert(event.at);
                    }
                    What::Acked { text, .. } if acked.insert(text.as_str()) => {
                        let took = event
                            .at
                            .saturating_sub(first_sent.get(text.as_str()).copied().unwrap_or(event.at));
                        summary.slowest_ack = summary.slowest_ack.max(took);
                    }
                    What::Failed { code, .. } if check::is_refusal(code) => summary.refused += 1,
                    What::Pushed { .. } => summary.pushed += 1,
                    What::Connected { .. } => summary.connections += 1,
                    _ => {}
                }
            }
            summary.sent += first_sent.len();
            summary.acked += acked.len();
            summary.resent += again.iter().filter(|text| acked.contains(*text)).count();
        }
        summary
    }
}

/// A violation before its story is told.
#[derive(Debug, Clone)]
struct Found {
    kind: Kind,
    at: Duration,
    headline: String,
    /// What the story is about.
    about: About,
}

/// By what the events of a story are chosen.
#[derive(Debug, Clone, Default)]
struct About {
    conv: Option<ConvNumber>,
    seq: Option<SeqNumber>,
    text: Option<String>,
    /// A user whose comings and goings belong to it.
    users: BTreeSet<UserNumber>,
}
