//! What all loops of this process share, and how one speaks to the others and to other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reactor::ServiceHandle;
use schema::UserId;
use store::Store;

use super::OTHER_POSTS_MAX;
use crate::cluster::Cluster;
use crate::config::Registration;
use crate::directory::{Directory, Live};
use crate::login::LoginBackend;
use crate::post::Post;
use crate::rates::{Gatekeeper, RatesConfig};
use crate::sink::GivenUp;

/// What the services of all loops share.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) store: Store,
    pub(crate) login: Arc<dyn LoginBackend>,
    pub(crate) directory: Directory,
    /// The other nodes, if there may be any.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) loops: Vec<ServiceHandle<Post>>,
    pub(crate) given_up: GivenUp,
    pub(crate) login_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) registration: Registration,
    /// How often sessions may do what; `None`: as often as they like.
    pub(crate) rates: Option<RatesConfig>,
    /// The same for addresses.
    pub(crate) gate: Option<Gatekeeper>,
}

impl Node {
    /// Posts to every loop. A loop that takes no posts is so far behind that its sessions will start anew; what is posted here is a hint to them.
    pub(crate) fn post_all(&self, post: impl Fn() -> Post) {
        for handle in &self.loops {
            if handle.backlog() >= OTHER_POSTS_MAX || handle.post(post()).is_err() {
                log::debug!("loop {} was not told", handle.loop_index());
            }
        }
    }

    /// All loops compare their conversations with the store.
    pub(crate) fn compare(&self) {
        self.post_all(|| Post::Compare);
    }

    /// Tells the loop of a session to end it. Its queue keeps places for such words; should they all be taken the session lives on, which the log says.
    pub(crate) fn end(&self, live: Live, code: schema::ByeCode) {
        let loop_index = live.conn.loop_index();
        let Some(handle) = self.loops.iter().find(|handle| handle.loop_index() == loop_index) else {
            return;
        };
        if handle.post(Post::End { conn: live.conn, session: live.session, code }).is_err() {
            log::error!("session {} could not be ended: its loop takes no posts", live.session);
        }
    }

    /// Sends a line to all running sessions of these users on this node.
    pub(crate) fn tell_here(&self, to: &Arc<[UserId]>, line: &Bytes) {
        if !to.is_empty() {
            self.post_all(|| Post::Tell { to: Arc::clone(to), line: line.clone() });
        }
    }

    /// The same on all nodes.
    pub(crate) fn tell(&self, to: &Arc<[UserId]>, line: &Bytes) {
        self.tell_here(to, line);
        if let Some(cluster) = &self.cluster {
            to.iter().for_each(|user| cluster.tell(*user, line));
        }
    }

    /// The same, where the other nodes are told of those only whom they are known to have.
    pub(crate) fn tell_known(&self, to: &Arc<[UserId]>, line: &Bytes) {
        self.tell_here(to, line);
        if let Some(cluster) = &self.cluster {
            to.iter().filter(|user| cluster.is_elsewhere(**user)).for_each(|user| cluster.tell(*user, line));
        }
    }

    /// Whether a user has a session on any node.
    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.directory.is_online(user) || self.is_elsewhere(user)
    }

    /// Whether a user has a session on another node.
    pub(crate) fn is_elsewhere(&self, user: UserId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.is_elsewhere(user))
    }

    /// Of a user with too many sessions over all nodes, those of this node among the oldest end.
    pub(crate) fn end_too_many(&self, user: UserId) {
        let Some(cluster) = &self.cluster else { return };
        let over = cluster.too_many(user);
        if over.is_empty() {
            return;
        }
        for live in self.directory.others(user, None).into_iter().filter(|live| over.contains(&live.session))
        {
            self.end(live, schema::ByeCode::Replaced);
        }
    }
}
