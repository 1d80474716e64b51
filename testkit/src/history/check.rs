//! What must hold of messages and streams.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{About, ClientLog, ConvNumber, Entry, Found, History, Kind, SeqNumber, UserNumber, What};

/// Whether an error says that the message was definitely not taken. The others leave it open.
pub(super) fn is_refusal(code: &str) -> bool {
    !matches!(code, "unavailable" | "internal")
}

/// All that is wrong, in no order.
pub(super) fn violations(history: &History) -> Vec<Found> {
    let mut seen = Seen::default();
    let mut found = Vec::new();
    for client in &history.clients {
        seen.take_in(client, &mut found);
    }
    found.extend(seen.about_messages(history));
    for client in &history.clients {
        found.extend(streams(client, history, &seen));
    }
    found
}

/// What became of one message, by its text.
#[derive(Debug, Default)]
struct Message {
    sender: Option<UserNumber>,
    /// Attempts, and how many of them were refused for certain.
    attempts: usize,
    refusals: usize,
    acked: Vec<(Duration, ConvNumber, SeqNumber)>,
    /// Where it was seen.
    places: BTreeMap<(ConvNumber, SeqNumber), Duration>,
}

/// What all clients together saw.
#[derive(Debug, Default)]
struct Seen {
    messages: BTreeMap<String, Message>,
    /// What is at each place, by who said so first.
    places: BTreeMap<(ConvNumber, SeqNumber), (Entry, UserNumber)>,
    /// Which entries a user could fetch of a conversation.
    fetched: BTreeMap<(ConvNumber, UserNumber), BTreeSet<SeqNumber>>,
}

impl Seen {
    fn take_in(&mut self, client: &ClientLog, found: &mut Vec<Found>) {
        for event in &client.events {
            match &event.what {
                What::Sent { text, .. } => {
                    let message = self.messages.entry(text.clone()).or_default();
                    message.sender = Some(client.user);
                    message.attempts += 1;
                }
                What::Failed { text, code, .. } if is_refusal(code) => {
                    self.messages.entry(text.clone()).or_default().refusals += 1;
                }
                What::Acked { conv, text, seq, .. } => {
                    self.messages.entry(text.clone()).or_default().acked.push((event.at, *conv, *seq));
                    let entry = Entry { seq: *seq, from: client.user, text: text.clone() };
                    self.place(*conv, &entry, client, event.at, found);
                }
                What::Pushed { conv, entry } => self.place(*conv, entry, client, event.at, found),
                What::Fetched { conv, entries } => {
                    let seqs = self.fetched.entry((*conv, client.user)).or_default();
                    seqs.extend(entries.iter().map(|entry| entry.seq));
                    for entry in entries {
                        self.place(*conv, entry, client, event.at, found);
                    }
                }
                What::TokenRefused { code } => found.push(Found {
                    kind: Kind::LoggedOut,
                    at: event.at,
                    headline: format!("{}'s token was answered `{code}`", client.name),
                    about: About { users: BTreeSet::from([client.user]), ..About::default() },
                }),
                _ => {}
            }
        }
    }

    /// Somebody saw `entry`.
    fn place(
        &mut self,
        conv: ConvNumber,
        entry: &Entry,
        client: &ClientLog,
        at: Duration,
        found: &mut Vec<Found>,
    ) {
        self.messages.entry(entry.text.clone()).or_default().places.entry((conv, entry.seq)).or_insert(at);
        let (known, by) =
            self.places.entry((conv, entry.seq)).or_insert_with(|| (entry.clone(), client.user));
        if known != entry {
            found.push(Found {
                kind: Kind::Disagreement,
                at,
                headline: format!(
                    "conversation {conv} seq {}: user {by} saw {:?} of {}, {} saw {:?} of {}",
                    entry.seq, known.text, known.from, client.name, entry.text, entry.from
                ),
                about: About {
                    conv: Some(conv),
                    seq: Some(entry.seq),
                    text: Some(entry.text.clone()),
                    users: BTreeSet::from([client.user]),
                },
            });
        }
    }

    /// An entry that a stream lacks: its story is that of its author too.
    fn left_out(
        &self,
        conv: ConvNumber,
        seq: SeqNumber,
        at: Duration,
        client: &ClientLog,
        headline: String,
    ) -> Found {
        let mut found = wrong(Kind::LeftOut, conv, seq, at, client, headline);
        if let Some((entry, _)) = self.places.get(&(conv, seq)) {
            found.about.text = Some(entry.text.clone());
            found.about.users.insert(entry.from);
        }
        found
    }

    fn about_messages(&self, history: &History) -> Vec<Found> {
        let mut found = Vec::new();
        for (text, message) in &self.messages {
            let mut wrong = |kind, at, headline, place: Option<(ConvNumber, SeqNumber)>| {
                let about = About {
                    conv: place.map(|p| p.0),
                    seq: place.map(|p| p.1),
                    text: Some(text.clone()),
                    users: message.sender.into_iter().collect(),
                };
                found.push(Found { kind, at, headline, about });
            };
            for (at, conv, seq) in &message.acked {
                for (member, first) in history.members.get(conv).into_iter().flatten() {
                    let Some(seqs) = self.fetched.get(&(*conv, *member)) else { continue };
                    if seq >= first && !seqs.contains(seq) {
                        let headline = format!(
                            "{text:?} was acknowledged as conversation {conv} seq {seq}, and user {member} cannot fetch it"
                        );
                        wrong(Kind::Lost, *at, headline, Some((*conv, *seq)));
                    }
                }
            }
            // Entries that are no texts tell of joining and the like, which may well happen again.
            let is_event = message.sender.is_none() && is_event(text);
            if is_event {
                continue;
            }
            let mut places = message.places.iter();
            if let (Some((first, _)), Some((second, at))) = (places.next(), places.next()) {
                let headline = format!("{text:?} is at {first:?} and at {second:?} (conversation, seq)");
                wrong(Kind::Doubled, *at, headline, Some(*second));
            }
            let Some((place, at)) = message.places.iter().next() else { continue };
            if message.sender.is_none() {
                wrong(Kind::Invented, *at, format!("{text:?} is at {place:?}"), Some(*place));
            } else if message.acked.is_empty() && message.refusals >= message.attempts {
                let headline = format!("{text:?} was refused and is at {place:?} (conversation, seq)");
                wrong(Kind::RefusedAppears, *at, headline, Some(*place));
            }
        }
        found
    }
}

/// The form of [`Entry::text`] for what is no text.
fn is_event(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    ["created", "joined", "left", "kicked", "renamed", "role"].contains(&word)
}

/// One connection's stream of one conversation.
#[derive(Debug, Default)]
struct Stream {
    start: SeqNumber,
    last_push: SeqNumber,
    shown: BTreeMap<SeqNumber, Duration>,
}

/// Each of a client's connections by itself.
fn streams(client: &ClientLog, history: &History, seen: &Seen) -> Vec<Found> {
    let mut found = Vec::new();
    let mut streams: BTreeMap<ConvNumber, Stream> = BTreeMap::new();
    let mut cursors: BTreeMap<ConvNumber, SeqNumber> = BTreeMap::new();
    let end = |streams: &mut BTreeMap<ConvNumber, Stream>, at| {
        let holes: Vec<_> = streams.iter().filter_map(|(c, s)| s.hole(*c, client, seen, at)).collect();
        streams.clear();
        holes
    };
    for event in &client.events {
        let start = |conv: &ConvNumber, cursors: &BTreeMap<ConvNumber, SeqNumber>| Stream {
            start: cursors.get(conv).copied().unwrap_or(0),
            ..Stream::default()
        };
        match &event.what {
            What::Began { cursors: named } => {
                found.extend(end(&mut streams, event.at));
                cursors.clone_from(named);
            }
            What::Ended { .. } => found.extend(end(&mut streams, event.at)),
            What::Pushed { conv, entry } => {
                let stream = streams.entry(*conv).or_insert_with(|| start(conv, &cursors));
                found.extend(stream.push(*conv, entry.seq, event.at, client));
            }
            What::Acked { conv, seq, duplicate: false, .. } => {
                let stream = streams.entry(*conv).or_insert_with(|| start(conv, &cursors));
                found.extend(stream.show(*conv, *seq, event.at, client));
            }
            What::Settled => {
                let mine = history
                    .members
                    .iter()
                    .filter_map(|(conv, members)| members.get(&client.user).map(|first| (*conv, *first)));
                for (conv, first) in mine {
                    let stream = streams.entry(conv).or_insert_with(|| start(&conv, &cursors));
                    found.extend(stream.end(conv, first, event.at, client, seen));
                }
            }
            _ => {}
        }
    }
    found
}

impl Stream {
    fn push(&mut self, conv: ConvNumber, seq: SeqNumber, at: Duration, client: &ClientLog) -> Vec<Found> {
        let mut found = self.show(conv, seq, at, client);
        if found.is_empty() && (seq < self.last_push || seq <= self.start) {
            let headline = format!(
                "{}: conversation {conv} seq {seq} was pushed behind seq {}, on a stream that starts at {}",
                client.name, self.last_push, self.start
            );
            found.push(wrong(Kind::OutOfOrder, conv, seq, at, client, headline));
        }
        self.last_push = self.last_push.max(seq);
        found
    }

    fn show(&mut self, conv: ConvNumber, seq: SeqNumber, at: Duration, client: &ClientLog) -> Vec<Found> {
        match self.shown.insert(seq, at) {
            None => Vec::new(),
            Some(before) => {
                let headline = format!(
                    "{}: conversation {conv} seq {seq} came at {:.3} s and again, on one connection",
                    client.name,
                    before.as_secs_f64()
                );
                vec![wrong(Kind::ShownTwice, conv, seq, at, client, headline)]
            }
        }
    }

    /// What the connection's end shows: below the highest push nothing of others may be missing. Of one's own, an answer may have been lost with the connection.
    fn hole(&self, conv: ConvNumber, client: &ClientLog, seen: &Seen, at: Duration) -> Option<Found> {
        if self.last_push <= self.start + 1 {
            return None;
        }
        let from = seen.places.range((conv, self.start + 1)..(conv, self.last_push));
        let missing = from
            .filter(|((_, seq), (entry, _))| entry.from != client.user && !self.shown.contains_key(seq))
            .map(|((_, seq), _)| *seq)
            .find(|seq| seen.fetched.get(&(conv, client.user)).is_some_and(|seqs| seqs.contains(seq)))?;
        let headline = format!(
            "{}: conversation {conv} seq {missing} did not come, and {} did (the stream starts at {})",
            client.name, self.last_push, self.start
        );
        Some(seen.left_out(conv, missing, at, client, headline))
    }

    /// At the run's end nothing at all may be missing.
    fn end(
        &self,
        conv: ConvNumber,
        first: SeqNumber,
        at: Duration,
        client: &ClientLog,
        seen: &Seen,
    ) -> Option<Found> {
        let from = (self.start + 1).max(first);
        let missing = seen
            .places
            .range((conv, from)..=(conv, SeqNumber::MAX))
            .map(|((_, seq), _)| *seq)
            .find(|seq| !self.shown.contains_key(seq))?;
        let headline = format!(
            "{}: conversation {conv} seq {missing} never came on a stream that starts at {} and ran to the end",
            client.name, self.start
        );
        Some(seen.left_out(conv, missing, at, client, headline))
    }
}

fn wrong(
    kind: Kind,
    conv: ConvNumber,
    seq: SeqNumber,
    at: Duration,
    client: &ClientLog,
    headline: String,
) -> Found {
    let users = BTreeSet::from([client.user]);
    Found { kind, at, headline, about: About { conv: Some(conv), seq: Some(seq), text: None, users } }
}
