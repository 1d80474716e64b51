//! The node's ears at Redis: what the others publish, handed to the loops. Runs on the receiving thread, which never waits for anybody.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reactor::ServiceHandle;
use schema::ConvId;
use schema::error::ByeCode;
use schema::login::TokenId;
use store::{Audience, CursorOutcome};

use super::Cluster;
use super::keeper::Job;
use super::redis_tool::Listener;
use super::wire::{self, Channel, Origin, Payload, Word};
use crate::post::{FromAfar, Post};
use crate::service::{Node, OTHER_POSTS_MAX};

/// What is handed to the loops at once.
const TOGETHER_MAX: usize = 256;

/// The listener.
pub(super) struct Ears {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    /// What was heard since the last pause.
    heard: Vec<FromAfar>,
    /// Groups that are heard since then.
    groups: Vec<ConvId>,
    /// Loops that could not be told something: they compare with the store as soon as they can be told that.
    missed: Vec<bool>,
}

impl Ears {
    pub(super) fn new(cluster: Arc<Cluster>, node: Arc<Node>) -> Self {
        let missed = vec![false; node.loops.len()];
        Self { cluster, node, heard: Vec::new(), groups: Vec::new(), missed }
    }

    fn word(&mut self, origin: Origin, word: Word) {
        let presence = &self.cluster.presence;
        match word {
            Word::Head { conv, last, pair } => self.heard.push(FromAfar::Head { conv, last, pair }),
            Word::Cursor { conv, user, delivered, read, pair, group } => {
                let audience = match pair {
                    Some(pair) => Audience::Pair(pair),
                    None if group => Audience::Group,
                    None => Audience::Own,
                };
                let outcome =
                    CursorOutcome { ticket: None, conv, user, audience, delivered, read, result: Ok(()) };
                self.heard.push(FromAfar::Cursor(outcome));
            }
            Word::Typing { conv, user } => self.heard.push(FromAfar::Typing { conv, user }),
            Word::Line { to, line } => self.heard.push(FromAfar::Line { to, line: Bytes::from(line) }),
            Word::Blocked { conv, now } => self.heard.push(FromAfar::Blocked { conv, now }),
            Word::Revoked { user, tokens } => {
                let tokens: Vec<_> = tokens.into_iter().map(TokenId).collect();
                for live in self.node.directory.revoke(user, &tokens, Instant::now()) {
                    self.node.end(live, ByeCode::LoggedOut);
                }
            }
            Word::EndAll { user, but } => {
                for live in self.node.directory.others(user, but) {
                    self.node.end(live, ByeCode::LoggedOut);
                }
            }
            Word::Entered { user, session, stamp, is_news } => {
                if let Some(reach) = presence.entered(origin, user, session, stamp).filter(|_| !is_news) {
                    self.node.tell_friends(&[user], true, reach);
                }
                self.node.end_too_many(user);
            }
            Word::Left { user, session } => presence.left(origin, user, session, Instant::now()),
            Word::Behind => self.node.compare(),
            Word::Back => self.cluster.queue(Job::Read(origin)),
            Word::Leaving => {
                let gone = presence.end(origin);
                self.cluster.queue(Job::Gone(gone));
                self.node.compare();
            }
        }
    }

    /// Hands a post to every loop. A loop that has no room for it compares with the store later.
    fn post(&mut self, post: impl Fn() -> Post) {
        for (handle, missed) in self.node.loops.iter().zip(&mut self.missed) {
            if *missed {
                *missed = !give(handle, Post::Compare);
            }
            if !*missed && !give(handle, post()) {
                log::warn!("loop {} cannot keep up with the other nodes", handle.loop_index());
                *missed = true;
            }
        }
    }
}

fn give(handle: &ServiceHandle<Post>, post: Post) -> bool {
    handle.backlog() < OTHER_POSTS_MAX && handle.post(post).is_ok()
}

impl Listener for Ears {
    fn message(&mut self, _: &[u8], payload: &[u8]) {
        let Some((origin, rest)) = wire::split(payload) else { return };
        let is_own = origin == self.cluster.origin;
        match wire::decode(rest) {
            Some(Payload::Word(Word::Left { user, .. })) if is_own => {
                self.cluster.presence.left_here(user, Instant::now());
            }
            _ if is_own => {}
            Some(Payload::Entry(passing, line)) => {
                self.heard.push(FromAfar::Entry(passing, Bytes::copy_from_slice(line)));
            }
            Some(Payload::Word(word)) => self.word(origin, word),
            None => log::debug!("a node published what this version does not know"),
        }
        if self.heard.len() >= TOGETHER_MAX {
            self.pause();
        }
    }

    fn pause(&mut self) {
        if !self.heard.is_empty() {
            let heard: Arc<[FromAfar]> = std::mem::take(&mut self.heard).into();
            self.post(|| Post::FromAfar(Arc::clone(&heard)));
        }
        if !self.groups.is_empty() {
            let groups: Arc<[ConvId]> = std::mem::take(&mut self.groups).into();
            self.post(|| Post::CompareGroups(Arc::clone(&groups)));
        }
        if self.missed.contains(&true) {
            for (handle, missed) in self.node.loops.iter().zip(&mut self.missed) {
                *missed = *missed && !give(handle, Post::Compare);
            }
        }
    }

    fn subscribed(&mut self, channel: &[u8]) {
        let Some(channel) = Channel::parse(channel) else { return };
        let is_new = self.cluster.now_heard(channel);
        if let Channel::Group(conv) = channel
            && is_new
            && self.cluster.tool.is_receiving()
        {
            self.groups.push(conv);
        }
    }

    fn up(&mut self) {
        self.node.compare();
        // Who wrote its sessions while nothing was heard said so to nobody.
        for origin in self.cluster.presence.others() {
            self.cluster.queue(Job::Read(origin));
        }
    }

    fn down(&mut self) {
        self.heard.clear();
        self.groups.clear();
        self.cluster.now_deaf();
    }
}
