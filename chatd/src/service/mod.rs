//! The chat service of one loop: finds a handler for each request by its type, and keeps what the loop knows of users and conversations.

mod accounts;
mod afar;
mod connections;
mod cursors;
mod following;
mod friends;
mod groups;
mod history;
mod lifecycle;
mod limits;
mod messages;
mod node;
mod streams;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reactor::codec::{FrameError, LinesCodec};
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceHandle, TimerFired};
use rustc_hash::{FxHashMap, FxHashSet};
use schema::error::ErrorCode;
use schema::limits::{BAD_LINES_MAX, LINE_BYTES_MAX_STRANGER};
use schema::reply::{Push, Refusal, write_error, write_ok, write_ok_with, write_push};
use schema::request::{BadLine, Envelope, Request, RequestId, parse};
use schema::{ConvId, Seq, UserId};
use serde::Serialize;
use smallvec::SmallVec;

use following::LocalConv;
pub(crate) use friends::GONE_AFTER;
pub(crate) use node::Node;

use crate::connz::Closed;
use crate::post::{PeerKey, Post, Refused};
use crate::session::{Client, PAUSE_REQUESTS};

/// Jobs of one loop at other threads whose answer is still to come. Each has a place in the loop's post queue reserved, so that no answer is ever lost.
pub(crate) const JOBS_MAX: usize = 8_192;
/// Places in the post queue for all that is no answer: commits, and word from other loops.
pub(crate) const OTHER_POSTS_MAX: usize = 4_096;

/// What a change came to: refused, done, or failed.
pub(crate) type Outcome = Result<Result<Changed, Refused>, store::StoreError>;

/// A change that was made, and who hears of it.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// The `ok`.
    pub(crate) line: Vec<u8>,
    /// Lines for other users.
    pub(crate) tells: Vec<(UserId, Bytes)>,
    /// A direct conversation whose users may no longer write to each other, or may again.
    pub(crate) blocked: Option<(ConvId, [UserId; 2], bool)>,
}

impl Changed {
    /// Done, with nothing more to say than that.
    pub(crate) fn plain(id: RequestId) -> Self {
        let mut line = Vec::new();
        write_ok(id, &mut line);
        Self { line, ..Self::default() }
    }

    /// The same, with fields.
    pub(crate) fn with(id: RequestId, body: &impl Serialize) -> Self {
        let mut line = Vec::new();
        write_ok_with(id, body, &mut line);
        Self { line, ..Self::default() }
    }

    /// And this push for a user.
    pub(crate) fn telling(mut self, user: UserId, push: &Push<'_>) -> Self {
        self.tells.push((user, encode(push)));
        self
    }
}

/// A push as the line that it is sent as.
pub(crate) fn encode(push: &Push<'_>) -> Bytes {
    let mut line = Vec::new();
    write_push(push, &mut line);
    Bytes::from(line)
}

/// A user with sessions on this loop.
#[derive(Default)]
pub(crate) struct LocalUser {
    pub(crate) conns: SmallVec<[ConnId; 1]>,
    /// Their conversations, as far as this loop has met them.
    pub(crate) convs: FxHashSet<ConvId>,
}

/// The service of one loop.
pub(crate) struct ChatService {
    node: Arc<Node>,
    me: ServiceHandle<Post>,
    users: FxHashMap<UserId, LocalUser>,
    convs: FxHashMap<ConvId, LocalConv>,
    /// Sessions whose streams are about to start; while there are any, the next three remember what they would not know otherwise.
    starting: usize,
    /// Conversations that began meanwhile for a user, and behind which place: another session may have acknowledged what is in them before it is read where
    /// this one's streams start.
    newborn: FxHashMap<(UserId, ConvId), Seq>,
    /// The last entries of groups that the loop does not follow.
    unfollowed: FxHashMap<ConvId, Seq>,
    /// Where users of this loop have left groups.
    gone: FxHashMap<(UserId, ConvId), Seq>,
    /// Users whose last session ended, and when their friends are to be told.
    going: VecDeque<(Instant, UserId)>,
    /// Direct conversations looked up before, by user and peer.
    directs: FxHashMap<(UserId, PeerKey), ConvId>,
    /// Jobs at other threads.
    jobs: usize,
    /// Connections with acks to be written.
    ack_dirty: Vec<ConnId>,
    ack_timer: bool,
    /// Conversations with sends of which it is not known whether they were committed.
    doubtful: FxHashSet<ConvId>,
    doubt_timer: bool,
    /// Conversations of which entries that are not this node's are missing.
    gaps: FxHashSet<ConvId>,
    /// Users whose conversations are still to be compared with the store.
    to_compare: Vec<UserId>,
    draining: bool,
    /// Connections that ended lately.
    closed: Closed,
    /// The line being written; kept for its capacity.
    line: Vec<u8>,
}

pub(crate) type Cx<'a> = Context<'a, ChatService>;

/// A promise that a job's answer will be posted: should the job be dropped or panic, the fallback is.
pub(crate) struct ReplySlot {
    handle: ServiceHandle<Post>,
    fallback: Option<Post>,
}

impl ReplySlot {
    pub(crate) fn fill(mut self, post: Post) {
        self.fallback = Some(post);
    }
}

impl Drop for ReplySlot {
    fn drop(&mut self) {
        // The place is reserved; only a loop that has stopped takes no more, and it has nobody to answer.
        if let Some(post) = self.fallback.take()
            && let Err((reactor::PostError::Full, _)) = self.handle.post(post)
        {
            log::error!("no place for an answer, which is a defect");
        }
    }
}

impl ChatService {
    pub(crate) fn new(node: Arc<Node>, me: ServiceHandle<Post>) -> Self {
        Self {
            node,
            me,
            users: FxHashMap::default(),
            convs: FxHashMap::default(),
            starting: 0,
            newborn: FxHashMap::default(),
            unfollowed: FxHashMap::default(),
            gone: FxHashMap::default(),
            going: VecDeque::new(),
            directs: FxHashMap::default(),
            jobs: 0,
            ack_dirty: Vec::new(),
            ack_timer: false,
            doubtful: FxHashSet::default(),
            doubt_timer: false,
            gaps: FxHashSet::default(),
            to_compare: Vec::new(),
            draining: false,
            closed: Closed::default(),
            line: Vec::new(),
        }
    }

    /// Sends what `write` appends to an empty line buffer.
    fn say(&mut self, cx: &mut Cx<'_>, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        self.line.clear();
        write(&mut self.line);
        // A connection that is gone or too far behind is closed by the reactor; there is nobody to tell.
        let _ = cx.send(conn, &self.line);
    }

    fn push(&mut self, cx: &mut Cx<'_>, conn: ConnId, push: &Push<'_>) {
        self.say(cx, conn, |line| write_push(push, line));
    }

    fn ok(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>) {
        if let Some(id) = id {
            self.say(cx, conn, |line| write_ok(id, line));
        }
    }

    fn ok_with(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, body: &impl Serialize) {
        if let Some(id) = id {
            self.say(cx, conn, |line| write_ok_with(id, body, line));
        }
    }

    fn refuse(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, refused: Refused) {
        let Refused { code, message, retry_after_ms } = refused;
        let refusal = Refusal { code, message: message.into(), retry_after_ms };
        self.say(cx, conn, |line| write_error(id, &refusal, line));
    }

    /// A request's answer will come later.
    fn begin(cx: &mut Cx<'_>, conn: ConnId) {
        if let Some(client) = cx.conn_mut(conn) {
            client.unanswered += 1;
            if client.is_busy() {
                cx.pause(conn, PAUSE_REQUESTS);
            }
        }
    }

    /// A request that was begun has got its answer.
    fn finish(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(client) = cx.conn_mut(conn) else { return };
        client.unanswered = client.unanswered.saturating_sub(1);
        let (unanswered, half_closed, leaving) = (client.unanswered, client.half_closed, client.leaving);
        if !client.is_busy() {
            cx.resume(conn, PAUSE_REQUESTS);
        }
        if unanswered == 0 {
            if let Some(code) = leaving {
                self.say_bye(cx, conn, code);
            } else if half_closed {
                cx.close(conn, CloseReason::PeerClosed);
            }
        }
    }

    /// Reserves a place for a job's answer, or refuses it while too many are under way.
    fn slot(&mut self, fallback: Post) -> Option<ReplySlot> {
        if self.jobs >= JOBS_MAX {
            return None;
        }
        self.jobs += 1;
        Some(ReplySlot { handle: self.me.clone(), fallback: Some(fallback) })
    }

    /// Runs a read-only query on a store thread; what it returns is the reply's line.
    fn query(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        job: impl FnOnce(&mut store::Connection, RequestId) -> Result<Vec<u8>, Refused> + Send + 'static,
    ) {
        let not_taken = Err(Refused::OVERLOADED);
        let Some(mut slot) = self.slot(Post::Answer { conn, id, body: not_taken }) else {
            return self.refuse(cx, conn, id, Refused::OVERLOADED);
        };
        if let Some(client) = cx.conn_mut(conn) {
            client.queries += 1;
        }
        Self::begin(cx, conn);
        let queued = self.node.store.read(move |db| {
            slot.fallback = Some(Post::Answer { conn, id, body: Err(Refused::DEFECT) });
            let body = job(db, id.unwrap_or_default());
            slot.fill(Post::Answer { conn, id, body });
        });
        // A job that was not taken was dropped, and its slot with it: the fallback is on its way.
        if let Err(error) = queued {
            log::debug!("a query was not taken: {error}");
        }
    }

    /// Runs a change on a store thread; its answer comes behind its commit. With a conversation it takes its place among that one's messages.
    fn change(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        conv: Option<ConvId>,
        mut job: impl FnMut(&mut store::Connection, RequestId) -> Outcome + Send + 'static,
    ) {
        let not_taken = Err(Refused::OVERLOADED);
        let Some(slot) = self.slot(Post::Answer { conn, id, body: not_taken }) else {
            return self.refuse(cx, conn, id, Refused::OVERLOADED);
        };
        Self::begin(cx, conn);
        let node = Arc::clone(&self.node);
        let op = move |db: &mut store::Connection| job(db, id.unwrap_or_default());
        let done = move |result: Outcome| {
            let body = match result {
                Ok(Ok(changed)) => {
                    for (to, line) in changed.tells {
                        node.tell(&Arc::from([to]), &line);
                    }
                    if let Some((conv, pair, now)) = changed.blocked {
                        node.post_all(|| Post::Blocked { conv, now });
                        if let Some(cluster) = &node.cluster {
                            cluster.tell_blocked(conv, pair, now);
                        }
                    }
                    Ok(changed.line)
                }
                Ok(Err(refused)) => Err(refused),
                Err(error) => Err(error.into()),
            };
            slot.fill(Post::Answer { conn, id, body });
        };
        let queued = match conv {
            Some(conv) => self.node.store.write_in(conv, op, done),
            None => self.node.store.write(op, done),
        };
        if let Err(error) = queued {
            log::debug!("a change was not taken: {error}");
        }
    }

    /// Sends a line to the running sessions of these users.
    fn tell(&mut self, cx: &mut Cx<'_>, to: &[UserId], line: &Bytes) {
        for conn in self.sessions_of(to) {
            let session = cx.conn(conn).and_then(|client| client.session.as_deref());
            if session.is_some_and(crate::session::Session::is_running)
                && cx.unsent(conn) < schema::limits::PUSH_OUTPUT_BYTES_MAX
            {
                // See `say`.
                let _ = cx.send_bytes(conn, line.clone());
            }
        }
    }

    fn on_answer(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        body: Result<Vec<u8>, Refused>,
    ) {
        self.jobs = self.jobs.saturating_sub(1);
        if let Some(client) = cx.conn_mut(conn) {
            client.queries = client.queries.saturating_sub(1);
        }
        match body {
            Ok(line) if id.is_some() => {
                // See `say`.
                let _ = cx.send(conn, &line);
            }
            Ok(_) => {}
            Err(refused) => self.refuse(cx, conn, id, refused),
        }
        self.finish(cx, conn);
    }

    fn dispatch(&mut self, cx: &mut Cx<'_>, conn: ConnId, envelope: Envelope<'_>) {
        let id = envelope.id;
        let session = cx.conn(conn).and_then(|client| client.session.as_deref());
        let who = session.map(|session| (session.id, session.user));
        if let Err(wait) = self.within_rates(cx, conn, &envelope.request) {
            return self.too_often(cx, conn, id, wait);
        }
        match (envelope.request, who) {
            (Request::Ping, _) => {
                let time_ms = now_ms();
                self.ok_with(cx, conn, id, &schema::reply::Pong { time_ms });
            }
            (Request::Register { name, password }, _) => self.register(cx, conn, id, &name, &password),
            (Request::Login { proof, device, version, hold }, _) => {
                self.login(cx, conn, id, proof, device, version, hold);
            }
            (_, None) => self.refuse(cx, conn, id, Refused::LOGIN_FIRST),
            (Request::Sync { cursors, more }, Some(_)) => self.sync(cx, conn, id, &cursors, more),
            (Request::Logout { all }, Some((_, user))) => self.logout(cx, conn, id, user, all),
            (Request::Password { old, new }, Some((_, user))) => {
                self.change_password(cx, conn, id, user, &old, &new);
            }
            (Request::FindUser { name }, Some(_)) => self.find_user(cx, conn, id, name.key()),
            (Request::Send { client_id, target, text }, Some((session, user))) => {
                let client_id = client_id.map(|client_id| Box::from(&*client_id));
                let draft = messages::Draft { conn, session, user, id, client_id, text: text.into_owned() };
                self.send(cx, draft, target);
            }
            (Request::Ack { conv, seq }, Some(_)) => self.ack(cx, conn, id, conv, seq),
            (Request::Read { conv, seq }, Some((_, user))) => self.read(cx, conn, id, user, conv, seq),
            (Request::Typing { conv }, Some((_, user))) => {
                self.typing(cx, conn, id, user, conv);
            }
            (Request::Marks { conv }, Some((_, user))) => {
                self.marks(cx, conn, id, user, conv);
            }
            (Request::History { conv, bound, limit }, Some((_, user))) => {
                self.history(cx, conn, id, history::Asked { user, conv, bound, limit });
            }
            (Request::Conversations { after, limit }, Some((_, user))) => {
                self.conversations(cx, conn, id, user, after, limit);
            }
            (request, Some((_, user))) if friends::is_one(&request) => {
                self.friends_request(cx, conn, id, user, request);
            }
            (request, Some((_, user))) if groups::is_one(&request) => {
                self.groups_request(cx, conn, id, user, request);
            }
            (_, Some(_)) => {
                let refused =
                    Refused::new(ErrorCode::UnsupportedType, "this server knows no such type of request");
                self.refuse(cx, conn, id, refused);
            }
        }
    }

    fn bad_line(&mut self, cx: &mut Cx<'_>, conn: ConnId, bad: &BadLine) {
        let refusal = Refusal { code: bad.code, message: bad.message.as_ref().into(), retry_after_ms: None };
        self.say(cx, conn, |line| write_error(bad.id, &refusal, line));
        let Some(client) = cx.conn_mut(conn) else { return };
        client.bad_lines = if bad.counts() { client.bad_lines + 1 } else { 0 };
        if client.bad_lines >= BAD_LINES_MAX {
            self.leave(cx, conn, schema::ByeCode::TooManyErrors);
        }
    }

    fn other_loops(&self) -> impl Iterator<Item = &ServiceHandle<Post>> {
        let mine = self.me.loop_index();
        self.node.loops.iter().filter(move |handle| handle.loop_index() != mine)
    }
}

impl Handler for ChatService {
    type Conn = Client;
    type Post = Post;
    type Codec = LinesCodec;

    fn name(&self) -> &'static str {
        "chat"
    }

    fn codec(&mut self) -> LinesCodec {
        LinesCodec::new(LINE_BYTES_MAX_STRANGER)
    }

    fn on_open(&mut self, cx: &mut Cx<'_>, conn: ConnId, _: &OpenInfo) -> Client {
        self.greet(cx, conn)
    }

    fn on_frame(&mut self, cx: &mut Cx<'_>, conn: ConnId, line: &[u8]) {
        let now = cx.now();
        let Some(client) = cx.conn_mut(conn) else { return };
        client.heard = now;
        if line.is_empty() {
            return;
        }
        match parse(line) {
            Ok(envelope) => {
                client.bad_lines = 0;
                self.dispatch(cx, conn, envelope);
            }
            Err(bad) => self.bad_line(cx, conn, &bad),
        }
    }

    fn on_frame_error(&mut self, cx: &mut Cx<'_>, conn: ConnId, _: FrameError) {
        let refused = Refused::new(ErrorCode::TooLarge, "the line is too long");
        self.refuse(cx, conn, None, refused);
        self.leave(cx, conn, schema::ByeCode::TooLarge);
    }

    fn on_eof(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(client) = cx.conn_mut(conn) else { return };
        client.half_closed = true;
        if client.unanswered == 0 {
            cx.close(conn, CloseReason::PeerClosed);
        }
    }

    fn on_low_water(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        self.pump(cx, conn);
    }

    fn on_close(&mut self, cx: &mut Cx<'_>, conn: ConnId, client: Client, reason: CloseReason) {
        self.note_closed(cx, conn, &client, &reason);
        if let Some(session) = client.session {
            log::info!("session {} of user {} ended: {reason}", session.id, session.user);
            self.end_session(cx, conn, *session);
        }
    }

    fn on_post(&mut self, cx: &mut Cx<'_>, post: Post) {
        if self.node.given_up.take(self.me.loop_index()) {
            self.on_lost(cx);
        }
        match post {
            Post::Committed(committed) => self.on_committed(cx, &committed),
            Post::Login { conn, id, purpose, reply } => self.on_login_reply(cx, conn, id, purpose, reply),
            Post::Resolved(resolved) => self.on_resolved(cx, *resolved),
            Post::Answer { conn, id, body } => self.on_answer(cx, conn, id, body),
            Post::Start { conn, session, start } => self.on_start(cx, conn, session, start),
            Post::Page { conn, session, conv, page } => self.on_page(cx, conn, session, conv, page),
            Post::Members { conv, members } => self.on_members(cx, conv, members),
            Post::LastSeq { conv, answer, tell } => self.on_last_seq(cx, conv, answer, tell),
            Post::FromAfar(heard) => self.on_from_afar(cx, &heard),
            Post::Heard { conn, session } => self.on_heard(cx, conn, session),
            Post::Compare => self.compare(cx),
            Post::CompareGroups(groups) => self.compare_groups(cx, &groups),
            Post::Standing { asked, found } => self.on_standing(cx, &asked, found),
            Post::Heads { heads } => self.on_heads(cx, &heads),
            Post::Typing { conv, user } => self.push_typing(cx, conv, user),
            Post::Tell { to, line } => self.tell(cx, &to, &line),
            Post::Blocked { conv, now } => self.on_blocked(conv, now),
            Post::Gone { user, friends } => self.on_gone(user, friends),
            Post::Connz(asker) => self.tell_connections(cx, &asker),
            Post::End { conn, session, code } => self.on_end(cx, conn, session, code),
            Post::Drain => self.drain(cx),
            Post::Lost => {}
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, timer: TimerFired) {
        self.on_tick(cx, timer);
    }
}

/// The time that clients see.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
