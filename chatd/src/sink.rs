//! The way from the store's writer to the loops: every committed batch, encoded once, posted to every loop in commit order.

use std::borrow::Cow;
use std::sync::Arc;
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

/// Posts commits to the loops.
pub(crate) struct LoopSink {
    loops: Vec<ServiceHandle<Post>>,
    cluster: Option<Arc<Cluster>>,
    /// Loops that were given up and still have to be told.
    lost: Vec<bool>,
    line: Vec<u8>,
}

impl LoopSink {
    pub(crate) fn new(loops: Vec<ServiceHandle<Post>>, cluster: Option<Arc<Cluster>>) -> Self {
        let lost = vec![false; loops.len()];
        Self { loops, cluster, lost, line: Vec::new() }
    }

    fn hand_over(handle: &ServiceHandle<Post>, mut post: Post, patience: Duration) -> bool {
        let give_up = Instant::now() + patience;
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
        for (handle, lost) in self.loops.iter().zip(&mut self.lost) {
            // A loop that was given up is told first: what follows starts from the store.
            if *lost {
                *lost = !Self::hand_over(handle, Post::Lost, Duration::ZERO);
            }
            if *lost {
                continue;
            }
            if !Self::hand_over(handle, Post::Committed(Arc::clone(&committed)), WAIT_MAX) {
                log::error!("loop {} takes no commits: its sessions will start anew", handle.loop_index());
                *lost = true;
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.committed(&committed);
        }
    }

    fn another(&self) -> Box<dyn CommitSink> {
        Box::new(Self::new(self.loops.clone(), self.cluster.clone()))
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
