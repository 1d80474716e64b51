//! The control socket: `chatd admin` asks the running server through a Unix socket in its data folder, which only the folder's owner can open.
//!
//! One JSON object a line in, one out. Commands are rare and may wait for the store, so each has a thread of its own for its time.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reactor::codec::{FrameError, LinesCodec};
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceHandle};
use schema::error::ByeCode;
use schema::login::{LoginCall, LoginReplyOk, Origin, TokenId};
use schema::text::Name;
use schema::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use store::dao::{FriendDao, GroupDao, UserDao, is_disabled};
use store::{StoreError, User};

use crate::service::Node;

/// The socket's name in the data folder.
pub(crate) const SOCKET: &str = "control.sock";
/// The longest line.
const LINE_MAX: usize = 64 * 1024;
/// How long the login service may take for a hash.
const HASH_MAX: Duration = Duration::from_secs(30);
/// Groups that are left at once while a user is deleted.
const GROUPS_AT_ONCE: u32 = 100;

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    Users { after: Option<UserId>, limit: u32 },
    Sessions,
    ResetPassword { user: String, password: String },
    Disable { user: String },
    Enable { user: String },
    Revoke { user: String },
    Delete { user: String },
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Users(Vec<UserRow>),
    Sessions(Vec<SessionRow>),
    /// Whom it was done to, and how many sessions ended.
    Done {
        user: UserId,
        name: String,
        sessions: usize,
    },
    Error(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserRow {
    pub(crate) user: UserId,
    pub(crate) name: String,
    pub(crate) created_ms: i64,
    pub(crate) disabled: bool,
    pub(crate) online: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) name: String,
}

/// A command's answer on its way back.
#[derive(Debug)]
pub(crate) struct Reply {
    conn: ConnId,
    answer: Answer,
}

/// The service of the control socket.
pub(crate) struct ControlService {
    pub(crate) node: Arc<Node>,
    pub(crate) me: ServiceHandle<Reply>,
}

impl ControlService {
    fn say(cx: &mut Context<'_, Self>, conn: ConnId, answer: &Answer) {
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        // Who is gone needs no answer.
        let _ = cx.send(conn, &line);
    }
}

impl Handler for ControlService {
    type Conn = ();
    type Post = Reply;
    type Codec = LinesCodec;

    fn name(&self) -> &'static str {
        "control"
    }

    fn codec(&mut self) -> LinesCodec {
        LinesCodec::new(LINE_MAX)
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, conn: ConnId, line: &[u8]) {
        let command = match serde_json::from_slice::<Command>(line) {
            Ok(command) => command,
            Err(error) => return Self::say(cx, conn, &Answer::Error(format!("no such command: {error}"))),
        };
        let (node, me) = (Arc::clone(&self.node), self.me.clone());
        let work = move || {
            let answer = run(&node, command).unwrap_or_else(Answer::Error);
            // A loop that has stopped has nobody to answer.
            let _ = me.post(Reply { conn, answer });
        };
        if let Err(error) = std::thread::Builder::new().name("control".to_owned()).spawn(work) {
            Self::say(cx, conn, &Answer::Error(format!("no thread: {error}")));
        }
    }

    fn on_frame_error(&mut self, cx: &mut Context<'_, Self>, conn: ConnId, _: FrameError) {
        cx.close(conn, CloseReason::Local("the line is too long"));
    }

    fn on_post(&mut self, cx: &mut Context<'_, Self>, reply: Reply) {
        Self::say(cx, reply.conn, &reply.answer);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err by name")]
fn said(error: StoreError) -> String {
    error.to_string()
}

/// Runs a command. Blocks.
fn run(node: &Node, command: Command) -> Result<Answer, String> {
    match command {
        Command::Users { after, limit } => users(node, after, limit),
        Command::Sessions => sessions(node),
        Command::ResetPassword { user, password } => {
            let user = find(node, &user)?;
            let tokens = revoked(node, LoginCall::SetPassword { user: user.id, password })?;
            Ok(done(node, &user, &tokens))
        }
        Command::Disable { user } => {
            let user = find(node, &user)?;
            let id = user.id;
            // First, so that no new token comes of a login under way.
            node.store.write_wait(move |db| UserDao::new(db).set_disabled(id, true)).map_err(said)?;
            let tokens = revoked(node, LoginCall::Revoke { user: id })?;
            Ok(done(node, &user, &tokens))
        }
        Command::Enable { user } => {
            let user = find(node, &user)?;
            let id = user.id;
            node.store.write_wait(move |db| UserDao::new(db).set_disabled(id, false)).map_err(said)?;
            Ok(Answer::Done { user: id, name: user.name.to_string(), sessions: 0 })
        }
        Command::Revoke { user } => {
            let user = find(node, &user)?;
            let tokens = revoked(node, LoginCall::Revoke { user: user.id })?;
            Ok(done(node, &user, &tokens))
        }
        Command::Delete { user } => delete(node, &user),
    }
}

fn users(node: &Node, after: Option<UserId>, limit: u32) -> Result<Answer, String> {
    let found =
        node.store.read_wait(move |db| UserDao::new(db).list(after, limit.min(1_000))).map_err(said)?;
    let row = |found: store::Credentials| UserRow {
        user: found.user.id,
        name: found.user.name.to_string(),
        created_ms: found.user.created_ms,
        disabled: is_disabled(&found.password_hash),
        online: node.is_online(found.user.id),
    };
    Ok(Answer::Users(found.into_iter().map(row).collect()))
}

fn sessions(node: &Node) -> Result<Answer, String> {
    let all = node.directory.all();
    let ids: Vec<UserId> = all.iter().map(|(user, _)| *user).collect();
    let names = node.store.read_wait(move |db| UserDao::new(db).names(ids)).map_err(said)?;
    let row = |(user, live): (UserId, crate::directory::Live)| SessionRow {
        session: live.session,
        user,
        name: names.get(&user).map(ToString::to_string).unwrap_or_default(),
    };
    Ok(Answer::Sessions(all.into_iter().map(row).collect()))
}

/// A user by its id, when that is a number, else by its name.
fn find(node: &Node, user: &str) -> Result<User, String> {
    let nobody = || format!("there is no user {user:?}");
    let found = match user.parse().ok().and_then(UserId::new) {
        Some(id) => node.store.read_wait(move |db| UserDao::new(db).by_id(id)),
        None => {
            let key = Name::new(user.into()).ok_or_else(nobody)?.key().to_owned();
            node.store.read_wait(move |db| UserDao::new(db).by_name_key(&key))
        }
    };
    found.map_err(said)?.ok_or_else(nobody)
}

/// Asks the login service for something that revokes tokens. Blocks.
fn revoked(node: &Node, call: LoginCall) -> Result<Vec<TokenId>, String> {
    let (reply, answer) = mpsc::channel();
    let origin = Origin { address: None, node: Arc::clone(&node.name) };
    // Who has given up waiting needs no answer.
    node.login.submit(call, origin, Box::new(move |said| drop(reply.send(said))));
    match answer.recv_timeout(HASH_MAX) {
        Ok(Ok(LoginReplyOk::Revoked { tokens })) => Ok(tokens),
        Ok(Ok(_)) => Err("the login service gave a strange answer".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the login service did not answer".to_owned()),
    }
}

/// Ends all sessions of a user whose tokens were revoked.
fn done(node: &Node, user: &User, tokens: &[TokenId]) -> Answer {
    // Logins under way with one of them end as well.
    node.directory.revoke(user.id, tokens, Instant::now());
    let lives = node.directory.others(user.id, None);
    for live in &lives {
        node.end(*live, ByeCode::LoggedOut);
    }
    if let Some(cluster) = &node.cluster {
        cluster.tell_revoked(user.id, tokens);
        cluster.tell_end_all(user.id, None);
    }
    Answer::Done { user: user.id, name: user.name.to_string(), sessions: lives.len() }
}

/// Takes a user out of all groups and friendships, and its name from its messages.
fn delete(node: &Node, user: &str) -> Result<Answer, String> {
    let user = find(node, user)?;
    let id = user.id;
    // First nobody is this user any more.
    node.store.write_wait(move |db| UserDao::new(db).set_disabled(id, true)).map_err(said)?;
    let tokens = revoked(node, LoginCall::Revoke { user: id })?;
    let answer = done(node, &user, &tokens);
    loop {
        let groups =
            node.store.read_wait(move |db| GroupDao::new(db).member_of(id, GROUPS_AT_ONCE)).map_err(said)?;
        if groups.is_empty() {
            break;
        }
        for conv in groups {
            let now = i64::try_from(crate::service::now_ms()).unwrap_or(i64::MAX);
            let left = node.store.write_in_wait(conv, move |db| GroupDao::new(db).leave(conv, id, now));
            left.map_err(said)?.map_err(|denied| denied.to_string())?;
        }
    }
    node.store
        .write_wait(move |db| {
            FriendDao::new(db).erase(id)?;
            GroupDao::new(db).uninvite_all(id)?;
            UserDao::new(db).erase(id)
        })
        .map_err(said)?;
    Ok(answer)
}
