//! Friends and blocks, and who sees whom come and go.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reactor::ConnId;
use schema::UserId;
use schema::friend::{Blocked, BlockedUser, FriendEvent, FriendInfo, FriendState, Friends};
use schema::reply::{Push, write_ok_with};
use schema::request::{Page, Request, RequestId, UserRef};
use store::dao::{ConversationDao, FriendDao, Requested, UserDao};
use store::{Connection, Friend, StoreError, User};

use super::history::fitting;
use super::lifecycle::TICK_GONE;
use super::{Changed, ChatService, Cx, Node, Outcome, encode, now_ms};
use crate::cluster::{Cluster, Reach};
use crate::post::{PeerKey, Post, Refused, Start};

/// How long a user may be without a session before its friends are told that it has gone: a network that changes is no going.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(5);
/// Friends read at once.
const FRIENDS_AT_ONCE: u32 = 1_000;
/// Requests that are told of at a login; all of them are in the list.
const REQUESTS_MAX: usize = 200;
/// Users of a node that is gone whose friends are told in one go.
const GONE_AT_ONCE: usize = 64;

/// Whether the request is about friends or blocks.
pub(super) const fn is_one(request: &Request<'_>) -> bool {
    use Request as R;
    matches!(
        request,
        R::FriendRequest { .. }
            | R::FriendAccept { .. }
            | R::FriendReject { .. }
            | R::FriendRemove { .. }
            | R::Friends { .. }
            | R::Block { .. }
            | R::Unblock { .. }
            | R::Blocked { .. }
    )
}

/// A user that a request names, kept until it is looked up.
pub(super) fn peer(user: &UserRef<'_>) -> PeerKey {
    match user {
        UserRef::Id(user) => PeerKey::Id(*user),
        UserRef::Name(name) => PeerKey::Name(name.key().into()),
    }
}

/// Looks up a user that a request names.
pub(super) fn find(db: &mut Connection, peer: &PeerKey) -> Result<Option<User>, StoreError> {
    match peer {
        PeerKey::Id(user) => UserDao::new(db).by_id(*user),
        PeerKey::Name(key) => UserDao::new(db).by_name_key(key),
    }
}

/// All friends of a user, and requests in both directions.
pub(super) fn all_friends(db: &mut Connection, user: UserId) -> Result<Vec<Friend>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let some = FriendDao::new(db).list(user, after, FRIENDS_AT_ONCE)?;
        let full = some.len() == usize::try_from(FRIENDS_AT_ONCE).unwrap_or(usize::MAX);
        after = some.last().map(|friend| friend.user);
        all.extend(some);
        if !full {
            return Ok(all);
        }
    }
}

impl ChatService {
    pub(super) fn friends_request(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        request: Request<'_>,
    ) {
        match request {
            Request::FriendRequest { user: other } => self.befriend(cx, conn, id, user, peer(&other), ask),
            Request::FriendAccept { user: other } => self.befriend(cx, conn, id, user, peer(&other), accept),
            Request::FriendReject { user: other } => self.befriend(cx, conn, id, user, peer(&other), reject),
            Request::FriendRemove { user: other } => self.befriend(cx, conn, id, user, peer(&other), remove),
            Request::Block { user: other } => self.befriend(cx, conn, id, user, peer(&other), block),
            Request::Unblock { user: other } => self.befriend(cx, conn, id, user, peer(&other), unblock),
            Request::Friends { page } => self.list_friends(cx, conn, id, user, page),
            Request::Blocked { page } => self.list_blocked(cx, conn, id, user, page),
            _ => {}
        }
    }

    /// Runs one of the changes below for two users.
    fn befriend(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        other: PeerKey,
        change: fn(&mut Connection, RequestId, &User, &User) -> Outcome,
    ) {
        self.change(cx, conn, id, None, move |db, id| {
            let (Some(user), Some(other)) = (UserDao::new(db).by_id(user)?, find(db, &other)?) else {
                return Ok(Err(Refused::NO_USER));
            };
            change(db, id, &user, &other)
        });
    }

    fn list_friends(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        page: Page<UserId>,
    ) {
        let node = Arc::clone(&self.node);
        self.query(cx, conn, id, move |db, id| {
            let listed = FriendDao::new(db).list(user, page.after, one_more(page.limit))?;
            let infos: Vec<_> = listed
                .iter()
                .take(page.limit)
                .map(|friend| FriendInfo {
                    user: friend.user,
                    name: Cow::Borrowed(&friend.name),
                    state: state(friend.state),
                    online: friend.state == store::FriendState::Friend && node.is_online(friend.user),
                })
                .collect();
            let fit = fitting(infos.iter());
            let more = fit < listed.len();
            let mut line = Vec::new();
            write_ok_with(id, &Friends { friends: infos.into_iter().take(fit).collect(), more }, &mut line);
            Ok(line)
        });
    }

    fn list_blocked(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        page: Page<UserId>,
    ) {
        self.query(cx, conn, id, move |db, id| {
            let listed = FriendDao::new(db).blocked(user, page.after, one_more(page.limit))?;
            let users: Vec<_> = listed
                .iter()
                .take(page.limit)
                .map(|user| BlockedUser { user: user.id, name: Cow::Borrowed(&user.name) })
                .collect();
            let fit = fitting(users.iter());
            let more = fit < listed.len();
            let mut line = Vec::new();
            write_ok_with(id, &Blocked { users: users.into_iter().take(fit).collect(), more }, &mut line);
            Ok(line)
        });
    }

    /// What a session is told when its streams begin: who asks to be a friend, and to which groups the user is invited. Its friends hear that it is here.
    pub(super) fn greet_session(&mut self, cx: &mut Cx<'_>, conn: ConnId, user: UserId, start: Start) {
        let Start { name, friends, invitations, .. } = start;
        let asking = friends.iter().filter(|friend| friend.state == store::FriendState::Incoming);
        for friend in asking.take(REQUESTS_MAX) {
            let push = Push::Friend {
                event: FriendEvent::Requested,
                user: friend.user,
                name: Cow::Borrowed(&friend.name),
            };
            self.push(cx, conn, &push);
        }
        for invitation in &invitations {
            self.push(cx, conn, &super::groups::invite(invitation));
        }
        if let Some(name) = name
            && self.node.directory.announce(user)
            && self.node.cluster.as_ref().is_none_or(|cluster| cluster.take_news(user))
        {
            let to: Arc<[UserId]> = friends_of(&friends);
            self.node.tell_known(&to, &presence(user, &name, true));
        }
    }

    /// A user's last session has ended: unless it comes back, its friends are told.
    pub(super) fn announce_later(&mut self, cx: &mut Cx<'_>, user: UserId) {
        if self.going.is_empty() {
            cx.set_timer(GONE_AFTER, TICK_GONE);
        }
        self.going.push_back((cx.now() + GONE_AFTER, user));
    }

    pub(super) fn tell_gone(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        while let Some((due, user)) = self.going.front().copied() {
            if due > now {
                cx.set_timer(due - now, TICK_GONE);
                return;
            }
            self.going.pop_front();
            let is_ours = |cluster: &Arc<Cluster>| cluster.was_last_here(user);
            if self.node.directory.withdraw(user, now, GONE_AFTER)
                && self.node.cluster.as_ref().is_none_or(is_ours)
            {
                self.ask_friends(user);
            }
        }
    }

    fn ask_friends(&mut self, user: UserId) {
        // Without a place for the answer nobody is told: presence is a hint, `friends` says how it is.
        let Some(slot) = self.slot(Post::Gone { user, friends: None }) else { return };
        let queued = self.node.store.read(move |db| {
            let found = name_and_friends(db, user);
            slot.fill(Post::Gone { user, friends: found.ok().flatten() });
        });
        if let Err(error) = queued {
            log::debug!("a look at friends was not taken: {error}");
        }
    }

    pub(super) fn on_gone(&mut self, user: UserId, friends: Option<(Arc<str>, Arc<[UserId]>)>) {
        self.jobs = self.jobs.saturating_sub(1);
        if let Some((name, to)) = friends
            && !self.node.is_online(user)
            && self.node.cluster.as_ref().is_none_or(|cluster| cluster.note_told(user))
        {
            self.node.tell_known(&to, &presence(user, &name, false));
        }
    }
}

impl Node {
    /// Users of another node are gone with it, or back elsewhere: their friends are told, if it is so by then.
    pub(crate) fn tell_friends(self: &Arc<Self>, users: &[UserId], online: bool, reach: Reach) {
        for some in users.chunks(GONE_AT_ONCE) {
            let (node, some) = (Arc::clone(self), some.to_vec());
            let queued = self.store.read(move |db| {
                for user in some.into_iter().filter(|user| node.is_online(*user) == online) {
                    match name_and_friends(db, user) {
                        Ok(Some((name, all))) => {
                            let line = presence(user, &name, online);
                            match reach {
                                Reach::Here => node.tell_here(&all, &line),
                                Reach::Everywhere => node.tell_known(&all, &line),
                            }
                        }
                        Ok(None) => {}
                        Err(error) => {
                            log::warn!("the friends of user {user} are not told of it: {error}");
                        }
                    }
                }
            });
            if let Err(error) = queued {
                log::warn!("the friends of some users are not told of them: {error}");
            }
        }
    }
}

/// A user's name, and who is to know of its comings and goings.
type NameAndFriends = (Arc<str>, Arc<[UserId]>);

fn name_and_friends(db: &mut Connection, user: UserId) -> Result<Option<NameAndFriends>, StoreError> {
    let Some(found) = UserDao::new(db).by_id(user)? else { return Ok(None) };
    Ok(Some((found.name, friends_of(&all_friends(db, user)?))))
}

fn friends_of(friends: &[Friend]) -> Arc<[UserId]> {
    friends
        .iter()
        .filter(|friend| friend.state == store::FriendState::Friend)
        .map(|friend| friend.user)
        .collect()
}

fn presence(user: UserId, name: &str, online: bool) -> Bytes {
    encode(&Push::Presence { user, name: Cow::Borrowed(name), online, time_ms: now_ms() })
}

/// One more than asked for tells whether there are more.
pub(super) fn one_more(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1)
}

const fn state(state: store::FriendState) -> FriendState {
    match state {
        store::FriendState::Friend => FriendState::Friend,
        store::FriendState::Requested => FriendState::Requested,
        store::FriendState::Incoming => FriendState::Incoming,
    }
}

fn heard(user: &User, event: FriendEvent) -> Push<'_> {
    Push::Friend { event, user: user.id, name: Cow::Borrowed(&user.name) }
}

fn ask(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    Ok(match FriendDao::new(db).request(user.id, other.id)? {
        Ok((Requested::Asked, _)) => {
            Ok(Changed::plain(id).telling(other.id, &heard(user, FriendEvent::Requested)))
        }
        Ok((Requested::Accepted, _)) => {
            Ok(Changed::plain(id).telling(other.id, &heard(user, FriendEvent::Accepted)))
        }
        Ok((Requested::AlreadyFriends, _)) => Ok(Changed::plain(id)),
        Err(denied) => Err(denied.into()),
    })
}

fn accept(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    let done = FriendDao::new(db).accept(user.id, other.id)?;
    Ok(done
        .map(|()| Changed::plain(id).telling(other.id, &heard(user, FriendEvent::Accepted)))
        .map_err(Refused::from))
}

fn reject(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    let done = FriendDao::new(db).reject(user.id, other.id)?;
    Ok(done
        .map(|()| Changed::plain(id).telling(other.id, &heard(user, FriendEvent::Rejected)))
        .map_err(Refused::from))
}

fn remove(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    let done = FriendDao::new(db).remove(user.id, other.id)?;
    Ok(done
        .map(|()| Changed::plain(id).telling(other.id, &heard(user, FriendEvent::Removed)))
        .map_err(Refused::from))
}

fn block(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    let knew = match FriendDao::new(db).block(user.id, other.id)? {
        Ok(knew) => knew,
        Err(denied) => return Ok(Err(denied.into())),
    };
    let mut changed = Changed::plain(id);
    if knew {
        changed = changed.telling(other.id, &heard(user, FriendEvent::Removed));
    }
    let talk = ConversationDao::new(db).find_direct(user.id, other.id)?;
    changed.blocked = talk.map(|talk| (talk.id, [user.id.min(other.id), user.id.max(other.id)], true));
    Ok(Ok(changed))
}

fn unblock(db: &mut Connection, id: RequestId, user: &User, other: &User) -> Outcome {
    if !FriendDao::new(db).unblock(user.id, other.id)? {
        return Ok(Err(Refused::from(store::Denied::NotFound)));
    }
    let mut changed = Changed::plain(id);
    // The other one may block too.
    if !FriendDao::new(db).is_blocked(user.id, other.id)? {
        let talk = ConversationDao::new(db).find_direct(user.id, other.id)?;
        changed.blocked = talk.map(|talk| (talk.id, [user.id.min(other.id), user.id.max(other.id)], false));
    }
    Ok(Ok(changed))
}
