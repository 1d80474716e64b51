//! The way from the store's writer to the loops: every committed batch, encoded once, posted to every loop in commit order.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reactor::{PostError, ServiceHandle};
use schema::group::GroupEvent;
use schema::reply::{Body, Kind, Message, Push, write_push};
use store::{Change, CommitSink, CommittedBatch, Entry, Sent};

use crate::cluster::Cluster;
use crate::post::{Committed, Post};
use crate::service::OTHER_POSTS_MAX;

/// How long the writer waits for a loop whose queue is full, before it gives the loop's sessions up. A loop never waits for the writer, so it does come
/// free, unless a handler hangs.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Which loops have been given up by a writer. What is committed from then on is kept from a loop until it has looked: its sessions start anew from the store.
#[derive(Clone, Debug)]
pub(crate) struct GivenUp(Arc<[AtomicBool]>);

impl GivenUp {
    /// None of so many.
    pub(crate) fn none(loops: usize) -> Self {
        Self((0..loops).map(|_| AtomicBool::new(false)).collect())
    }

    /// For the loop itself, with each post that it takes: whether it was given up since it last looked.
    pub(crate) fn take(&self, loop_index: u16) -> bool {
        let Some(flag) = self.0.get(usize::from(loop_index)) else { return false };
        flag.load(Ordering::SeqCst) && flag.swap(false, Ordering::SeqCst)
    }
}

/// Posts commits to the loops.
pub(crate) struct LoopSink {
    loops: Vec<ServiceHandle<Post>>,
    cluster: Option<Arc<Cluster>>,
    given_up: GivenUp,
    line: Vec<u8>,
}

impl LoopSink {
    pub(crate) fn new(
        loops: Vec<ServiceHandle<Post>>,
        given_up: GivenUp,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        Self { loops, cluster, given_up, line: Vec::new() }
    }

    fn hand_over(handle: &ServiceHandle<Post>, mut post: Post) -> bool {
        let give_up = Instant::now() + WAIT_MAX;
        loop {
            // Commits take their own share of the queue; the rest is reserved for answers.
            if handle.backlog() < OTHER_POSTS_MAX {
                match handle.post(post) {
                    Err((PostError::Full, back)) => post = back,
                    // A loop that has stopped has no sessions.
                    Ok(()) | Err(_) => return true,
                }
            }
            if Instant::now() >= give_up {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl CommitSink for LoopSink {
    fn committed(&mut self, batch: CommittedBatch) {
        let mut lines = BytesMut::new();
        let mut sends = Vec::with_capacity(batch.sends.len());
        for outcome in batch.sends {
            let line = match &outcome.result {
                Ok(Sent::New(entry)) => {
                    self.line.clear();
                    write_message(entry, &mut self.line);
                    lines.extend_from_slice(&self.line);
                    lines.split().freeze()
                }
                _ => Bytes::new(),
            };
            sends.push((outcome, line));
        }
        let committed = Arc::new(Committed { sends, cursors: batch.cursors });
        for (handle, given_up) in self.loops.iter().zip(&*self.given_up.0) {
            if given_up.load(Ordering::SeqCst)
                || Self::hand_over(handle, Post::Committed(Arc::clone(&committed)))
            {
                continue;
            }
            log::error!("loop {} takes no commits: its sessions will start anew", handle.loop_index());
            given_up.store(true, Ordering::SeqCst);
            // It looks with each post that it takes from now on, and so has to have one.
            if handle.backlog() == 0 {
                let _ = handle.post(Post::Lost);
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.committed(&committed);
        }
    }

    fn another(&self) -> Box<dyn CommitSink> {
        Box::new(Self::new(self.loops.clone(), self.given_up.clone(), self.cluster.clone()))
    }
}

/// Appends an entry as the line that it is pushed as.
pub(crate) fn write_message(entry: &Entry, out: &mut Vec<u8>) {
    write_push(&Push::Message(message(entry)), out);
}

/// An entry as the protocol shows it.
pub(crate) fn message(entry: &Entry) -> Message<'_> {
    Message {
        conv: entry.conv,
        kind: if entry.to.is_some() { Kind::Direct } else { Kind::Group },
        seq: entry.seq,
        from: entry.sender,
        from_name: Cow::Borrowed(&entry.sender_name),
        to: entry.to.as_ref().map(|(user, _)| *user),
        to_name: entry.to.as_ref().map(|(_, name)| Cow::Borrowed(&**name)),
        body: match &entry.body {
            store::Body::Text(text) => Body::Text { text: Cow::Borrowed(text) },
            store::Body::Event(event) => Body::Event(happened(event)),
        },
        time_ms: millis(entry.time_ms),
    }
}

fn happened(event: &store::Event) -> GroupEvent<'_> {
    let user = event.user;
    match &event.change {
        Change::Created(name) => GroupEvent::Created { user, name: Cow::Borrowed(name) },
        Change::Joined => GroupEvent::Joined { user },
        Change::Left => GroupEvent::Left { user },
        Change::Kicked(name) => GroupEvent::Kicked { user, name: Some(Cow::Borrowed(name)) },
        Change::Renamed(name) => GroupEvent::Renamed { user, name: Cow::Borrowed(name) },
        Change::Role(given, name) => {
            GroupEvent::Role { user, name: Some(Cow::Borrowed(name)), role: role(*given) }
        }
    }
}

/// A role as the protocol names it.
pub(crate) const fn role(role: store::Role) -> schema::group::Role {
    match role {
        store::Role::Member => schema::group::Role::Member,
        store::Role::Admin => schema::group::Role::Admin,
        store::Role::Owner => schema::group::Role::Owner,
    }
}

/// A time from a table as the protocol shows it.
pub(crate) fn millis(time_ms: i64) -> u64 {
    u64::try_from(time_ms).unwrap_or(0)
}
