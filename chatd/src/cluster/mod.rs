//! The cluster: what this node tells the others through Redis, and hears of them.
//!
//! Everything that goes this way is a hint; the store is the truth. An entry is published once its commit is durable, on the channel of its group or of its two
//! users; a node hears the channels of the users and groups that have sessions here. What may not have been heard is compared with the store: when a channel is
//! new, after this node's or another's connection to Redis was lost, and when a node is gone.

mod keeper;
mod listener;
mod presence;
mod redis_tool;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use reactor::{ConnId, ServiceHandle};
use redis::ConnectionInfo;
use rustc_hash::FxHashMap;
use schema::login::TokenId;
use schema::{ConvId, Seq, SessionId, UserId};
use smallvec::SmallVec;

use crate::post::{Committed, Post};
use crate::service::Node;
use keeper::Job;
use presence::Presence;
pub(crate) use presence::Reach;
use redis_tool::{RedisTool, ToolStats};
use wire::{Channel, Origin, Word};

/// Jobs in the queue beyond which what may be dropped is.
const BUSY: usize = 8_192;

/// This node's place in the cluster.
pub(crate) struct Cluster {
    origin: Origin,
    name: String,
    tool: RedisTool<Job>,
    presence: Presence,
    interests: Mutex<Interests>,
    /// Something that this node has published may not have arrived.
    behind: AtomicBool,
    published: AtomicU64,
}

/// The channels that are heard, and for how many.
#[derive(Default)]
struct Interests {
    channels: FxHashMap<Channel, Interest>,
}

#[derive(Default)]
struct Interest {
    count: usize,
    /// What is published is heard.
    is_heard: bool,
    waiting: SmallVec<[Waiter; 1]>,
}

/// A session that starts its streams when its user's channel is heard.
#[derive(Clone)]
struct Waiter {
    handle: ServiceHandle<Post>,
    conn: ConnId,
    session: SessionId,
}

impl Waiter {
    fn go_on(self) {
        let Self { handle, conn, session } = self;
        // The queue keeps places for such words. Should it be full all the same, the loop is about to begin anew.
        if handle.post(Post::Heard { conn, session }).is_err() {
            log::error!("session {session} was not told that its channel is heard");
        }
    }
}

/// The cluster in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterStats {
    pub(crate) tool: ToolStats,
    /// Other nodes that are alive.
    pub(crate) others: usize,
    /// Users with a session on any node.
    pub(crate) users: usize,
    /// Jobs that wait to be sent.
    pub(crate) waiting: usize,
    pub(crate) published: u64,
}

impl Cluster {
    /// A node of this name in the cluster of this Redis. Nothing is connected before [`Cluster::run`].
    pub(crate) fn new(name: &str, server: ConnectionInfo) -> Arc<Self> {
        // Never 0, and another one at every start.
        let origin = fastrand::u64(1..);
        Arc::new(Self {
            origin,
            name: name.to_owned(),
            tool: RedisTool::new(server),
            presence: Presence::new(origin),
            interests: Mutex::default(),
            behind: AtomicBool::new(false),
            published: AtomicU64::new(0),
        })
    }

    /// Starts the threads. Redis may be away: the node serves alone until it is there.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn run(self: &Arc<Self>, node: &Arc<Node>) -> io::Result<()> {
        self.tool.want(wire::ALL, true);
        let listener = listener::Ears::new(Arc::clone(self), Arc::clone(node));
        let keeper = keeper::Hands::new(Arc::clone(self), Arc::clone(node));
        self.tool.run(listener, keeper)
    }

    /// Takes leave of the others and ends the threads.
    pub(crate) fn stop(&self) {
        self.tool.stop();
    }

    pub(crate) fn stats(&self) -> ClusterStats {
        let (others, users) = self.presence.counts();
        let published = self.published.load(Ordering::Relaxed);
        ClusterStats { tool: self.tool.stats(), others, users, waiting: self.tool.waiting(), published }
    }

    /// Whether the user has a session on another node.
    pub(crate) fn is_elsewhere(&self, user: UserId) -> bool {
        self.presence.is_elsewhere(user)
    }

    /// Whether the user's last session anywhere was one of this node.
    pub(crate) fn was_last_here(&self, user: UserId) -> bool {
        self.presence.was_last_here(user)
    }

    /// All friends of a user are about to be told that it is gone. Says whether it is.
    pub(crate) fn note_told(&self, user: UserId) -> bool {
        self.presence.note_told(user, Instant::now())
    }

    /// Whether this node has to tell that the user has come; once.
    pub(crate) fn take_news(&self, user: UserId) -> bool {
        self.presence.take_news(user)
    }

    /// While the user has too many sessions over all nodes: those of this node among the oldest.
    pub(crate) fn too_many(&self, user: UserId) -> Vec<SessionId> {
        self.presence.too_many(user)
    }

    /// A session began here: the others are told, and its user's channel is heard.
    pub(crate) fn enter(&self, user: UserId, session: SessionId) {
        let is_news = self.presence.enter_here(user, session, Instant::now());
        self.want(Channel::User(user));
        self.queue(Job::Entered { user, session, is_news });
    }

    /// A session ended here.
    pub(crate) fn leave(&self, user: UserId, session: SessionId) {
        let alone = !self.tool.is_receiving();
        self.presence.leave_here(user, session, alone, Instant::now());
        self.unwant(Channel::User(user));
        self.queue(Job::Left { user, session });
    }

    /// Whether all that is published for the user from now on is heard. If not yet, the session gets a [`Post::Heard`] once it is, or once there is nothing to
    /// wait for.
    pub(crate) fn is_heard(
        &self,
        user: UserId,
        handle: &ServiceHandle<Post>,
        conn: ConnId,
        session: SessionId,
    ) -> bool {
        let mut interests = self.interests.lock();
        // Under the lock, so that a connection that breaks now finds the waiter or is found broken.
        if !self.tool.is_receiving() {
            return true;
        }
        let Some(interest) = interests.channels.get_mut(&Channel::User(user)) else { return true };
        if !interest.is_heard {
            interest.waiting.push(Waiter { handle: handle.clone(), conn, session });
        }
        interest.is_heard
    }

    /// A loop follows a group from now on.
    pub(crate) fn follow(&self, conv: ConvId) {
        self.want(Channel::Group(conv));
    }

    /// A loop follows a group no longer.
    pub(crate) fn unfollow(&self, conv: ConvId) {
        self.unwant(Channel::Group(conv));
    }

    fn want(&self, channel: Channel) {
        let mut interests = self.interests.lock();
        let interest = interests.channels.entry(channel).or_default();
        interest.count += 1;
        if interest.count == 1 {
            self.tool.want(&channel.name(), true);
        }
    }

    fn unwant(&self, channel: Channel) {
        let mut interests = self.interests.lock();
        let Some(interest) = interests.channels.get_mut(&channel) else { return };
        interest.count = interest.count.saturating_sub(1);
        if interest.count == 0 {
            let gone = interests.channels.remove(&channel);
            self.tool.want(&channel.name(), false);
            drop(interests);
            gone.into_iter().flat_map(|gone| gone.waiting).for_each(Waiter::go_on);
        }
    }

    /// A channel is heard from here on. Says whether it was not before.
    fn now_heard(&self, channel: Channel) -> bool {
        let mut interests = self.interests.lock();
        let Some(interest) = interests.channels.get_mut(&channel) else { return false };
        let is_new = !std::mem::replace(&mut interest.is_heard, true);
        let waiting = std::mem::take(&mut interest.waiting);
        drop(interests);
        waiting.into_iter().for_each(Waiter::go_on);
        is_new
    }

    /// Nothing is heard any more: nobody waits for it, since what is missed is compared with the store when it comes back.
    fn now_deaf(&self) {
        let mut waiting = Vec::new();
        for interest in self.interests.lock().channels.values_mut() {
            interest.is_heard = false;
            waiting.extend(std::mem::take(&mut interest.waiting));
        }
        waiting.into_iter().for_each(Waiter::go_on);
    }

    /// Publishes what was committed. Called on the threads that write.
    pub(crate) fn committed(&self, committed: &Arc<Committed>) {
        self.queue(Job::Committed(Arc::clone(committed)));
    }

    /// Tells a user's sessions elsewhere a line, those included that have only just begun.
    pub(crate) fn tell(&self, to: UserId, line: &Bytes) {
        if let Ok(line) = std::str::from_utf8(line) {
            self.say_to(Channel::User(to), &Word::Line { to, line: line.to_owned() });
        }
    }

    /// A conversation reaches up to here, and not all of it was published.
    pub(crate) fn tell_head(&self, conv: ConvId, pair: Option<[UserId; 2]>, last: Seq) {
        self.say_in(conv, pair, &Word::Head { conv, last, pair });
    }

    /// A user is typing. Dropped when there is much else to do.
    pub(crate) fn tell_typing(&self, conv: ConvId, user: UserId, pair: Option<[UserId; 2]>) {
        if self.tool.waiting() >= BUSY || !self.presence.has_others() {
            return;
        }
        let word = Word::Typing { conv, user };
        match pair {
            None => self.say_to(Channel::Group(conv), &word),
            Some(pair) => {
                for other in
                    pair.into_iter().filter(|other| *other != user && self.presence.is_elsewhere(*other))
                {
                    self.say_to(Channel::User(other), &word);
                }
            }
        }
    }

    /// The two of a direct conversation may no longer write to each other, or may again.
    pub(crate) fn tell_blocked(&self, conv: ConvId, pair: [UserId; 2], now: bool) {
        self.say_in(conv, Some(pair), &Word::Blocked { conv, now });
    }

    /// Tokens are revoked: the sessions that rest on them end on all nodes.
    pub(crate) fn tell_revoked(&self, user: UserId, tokens: &[TokenId]) {
        if !tokens.is_empty() {
            let tokens = tokens.iter().map(|token| token.0).collect();
            self.say_to_all(&Word::Revoked { user, tokens });
        }
    }

    /// All sessions of a user end, but one.
    pub(crate) fn tell_end_all(&self, user: UserId, but: Option<SessionId>) {
        self.say_to_all(&Word::EndAll { user, but });
    }

    fn say_in(&self, conv: ConvId, pair: Option<[UserId; 2]>, word: &Word) {
        match pair {
            None => self.say_to(Channel::Group(conv), word),
            Some(pair) => pair.into_iter().for_each(|user| self.say_to(Channel::User(user), word)),
        }
    }

    fn say_to(&self, channel: Channel, word: &Word) {
        self.queue(Job::Publish { channel: channel.name(), payload: wire::encode_word(self.origin, word) });
    }

    fn say_to_all(&self, word: &Word) {
        let payload = wire::encode_word(self.origin, word);
        self.queue(Job::Publish { channel: wire::ALL.to_vec(), payload });
    }

    fn queue(&self, job: Job) {
        if self.tool.queue(job).is_err() {
            self.behind.store(true, Ordering::Release);
        }
    }
}
