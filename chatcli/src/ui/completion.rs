//! Completion of what is being written: commands, names and groups.

use std::collections::BTreeSet;

use schema::group::Role;
use schema::text::name_key;

use super::command::WORDS;
use crate::order::{FRIEND_WORDS, GROUP_WORDS};
use crate::service::{ClientService, Conversation};

/// A completion that goes on with each press of the key.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Where in the line the word begins.
    pub(crate) start: usize,
    /// What may stand there; the last is what was written.
    texts: Vec<String>,
    at: usize,
}

impl Completion {
    /// What could complete the end of `before`, which is what stands before the cursor. `None` when nothing could.
    pub(crate) fn begin(before: &str, service: &ClientService, open: Option<&Conversation>) -> Option<Self> {
        let (start, mut texts) = candidates(before, service, open);
        if texts.is_empty() {
            return None;
        }
        // Once around, what was written comes back.
        if texts.len() > 1 {
            texts.push(before.get(start..)?.to_owned());
        }
        let at = texts.len();
        Some(Self { start, texts, at })
    }

    /// The next candidate, or the one before.
    pub(crate) fn step(&mut self, back: bool) -> &str {
        let last = self.texts.len().saturating_sub(1);
        self.at = match (self.at, back) {
            (at, false) if at >= last => 0,
            (at, false) => at + 1,
            (0, true) => last,
            // The first step back leads to the last candidate, not to what was written.
            (at, true) => at.min(last) - usize::from(last > 0),
        };
        self.texts.get(self.at).map_or("", String::as_str)
    }
}

/// Where the word begins, and what may stand there.
fn candidates(before: &str, service: &ClientService, open: Option<&Conversation>) -> (usize, Vec<String>) {
    let start = before
        .rfind(char::is_whitespace)
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = before.get(start..).unwrap_or_default();
    let earlier: Vec<&str> = before.get(..start).unwrap_or_default().split_whitespace().collect();
    let words = |all: &[&str]| starting(word, all.iter().copied(), "", " ");
    let texts = match (earlier.as_slice(), word.chars().next()) {
        ([], Some('/')) => starting(word, WORDS.iter().copied(), "/", " "),
        (["/friend"], _) => words(FRIEND_WORDS),
        (["/group"], _) => words(GROUP_WORDS),
        (["/group", "role", _], _) => words(&Role::ALL.map(Role::as_str)),
        (["/group", "join" | "leave" | "members"], _) => groups(word, service),
        (_, Some('#')) => groups(word, service),
        (_, Some('@')) => names(word, "@", service, open),
        (["/to" | "/who" | "/msg" | "/block" | "/unblock"], _) | (["/friend" | "/group", _], _) => {
            names(word, "", service, open)
        }
        (_, Some(_)) if !before.starts_with('/') => names(word, "", service, open),
        _ => Vec::new(),
    };
    (start, texts)
}

/// Those of `all` that begin as `word` does, in order, with `sign` before and `end` behind them.
fn starting<'a>(word: &str, all: impl Iterator<Item = &'a str>, sign: &str, end: &str) -> Vec<String> {
    let key = name_key(word.strip_prefix(sign).unwrap_or(word));
    let fitting: BTreeSet<&str> = all.filter(|text| name_key(text).starts_with(&key)).collect();
    fitting.into_iter().map(|text| format!("{sign}{text}{end}")).collect()
}

/// Members of the open group first of all; where there is none, everybody who was seen.
fn names(word: &str, sign: &str, service: &ClientService, open: Option<&Conversation>) -> Vec<String> {
    let members = open.into_iter().flat_map(Conversation::members).map(|member| member.name.as_str());
    let mut found = starting(word, members.filter(|name| !name.is_empty()), sign, " ");
    for other in starting(word, service.names(), sign, " ") {
        if !found.contains(&other) {
            found.push(other);
        }
    }
    found
}

fn groups(word: &str, service: &ClientService) -> Vec<String> {
    starting(word, service.groups().map(|group| group.name.as_str()), "#", " ")
}
