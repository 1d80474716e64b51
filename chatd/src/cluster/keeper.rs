//! The node's hands at Redis: publishes, and keeps the node's lease and its sessions there. Runs on the sending thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionLike as _, RedisResult, Value};
use schema::{SessionId, UserId};
use store::{Audience, CursorOutcome, Sent};

use super::Cluster;
use super::presence::{Reach, Replaced};
use super::redis_tool::Keeper;
use super::wire::{self, Channel, Origin, Word};
use crate::passing::{Moved, Passing};
use crate::post::Committed;
use crate::service::{GONE_AFTER, Node};

/// How long a node counts as alive without a word. Renewed at every tick.
const LEASE_MS: u64 = 4_000;
/// Fields of one command when all sessions are written.
const FIELDS_AT_ONCE: usize = 1_000;
/// The set of all nodes' origins.
const NODES: &str = "chat:nodes";
/// How often another node's sessions are read anew, one node at a time, should a word have been lost.
const REREAD: Duration = Duration::from_secs(30);

/// What is to be done at Redis.
#[derive(Debug)]
pub(super) enum Job {
    /// Publish what was committed.
    Committed(Arc<Committed>),
    Publish {
        channel: Vec<u8>,
        payload: Vec<u8>,
    },
    Entered {
        user: UserId,
        session: SessionId,
        is_news: bool,
    },
    Left {
        user: UserId,
        session: SessionId,
    },
    /// Read all sessions of a node.
    Read(Origin),
    /// These users' friends are told that they are gone, unless they have come back by then.
    Gone(Vec<UserId>),
}

/// The keeper.
pub(super) struct Hands {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    /// The lease was written before.
    is_known: bool,
    /// Users of nodes that took leave, and when to look after them.
    going: Vec<(Instant, Vec<UserId>)>,
    /// Nodes whose sessions are to be read.
    to_read: BTreeSet<Origin>,
    reread_at: Instant,
}

/// Commands of one round trip.
#[derive(Default)]
struct Commands {
    bytes: Vec<u8>,
    count: usize,
    published: u64,
}

impl Commands {
    fn add(&mut self, parts: &[&[u8]]) {
        use std::io::Write as _;
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, "*{}\r\n", parts.len());
        for part in parts {
            let _ = write!(self.bytes, "${}\r\n", part.len());
            self.bytes.extend_from_slice(part);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.count += 1;
    }

    fn publish(&mut self, channel: &[u8], payload: &[u8]) {
        self.add(&[b"PUBLISH", channel, payload]);
        self.published += 1;
    }

    fn run(&self, db: &mut Connection) -> RedisResult<Vec<Value>> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let answers = db.req_packed_commands(&self.bytes, 0, self.count)?;
        answers.into_iter().map(Value::extract_error).collect()
    }
}

fn lease_key(origin: Origin) -> String {
    format!("chat:lease:{origin:016x}")
}

fn sessions_key(origin: Origin) -> String {
    format!("chat:on:{origin:016x}")
}

fn field(user: UserId, session: SessionId) -> String {
    format!("{user}:{session}")
}

fn parse_field(field: &str) -> Option<(UserId, SessionId)> {
    let (user, session) = field.split_once(':')?;
    Some((UserId::new(user.parse().ok()?)?, SessionId::new(session.parse().ok()?)?))
}

impl Hands {
    pub(super) fn new(cluster: Arc<Cluster>, node: Arc<Node>) -> Self {
        let reread_at = Instant::now() + REREAD;
        Self { cluster, node, is_known: false, going: Vec::new(), to_read: BTreeSet::new(), reread_at }
    }

    fn origin(&self) -> Origin {
        self.cluster.origin
    }

    fn say(&self, commands: &mut Commands, channel: &[u8], word: &Word) {
        commands.publish(channel, &wire::encode_word(self.origin(), word));
    }

    /// Adds what was committed: each entry once for a group, and for the two users of a direct conversation.
    fn add_committed(&self, commands: &mut Commands, committed: &Committed) {
        for (outcome, line) in &committed.sends {
            let Ok(Sent::New(entry)) = &outcome.result else { continue };
            let passing = Passing::from(entry);
            let payload = wire::encode_entry(self.origin(), line);
            match passing.pair {
                Some(pair) => {
                    for user in pair {
                        commands.publish(&Channel::User(user).name(), &payload);
                    }
                }
                None => {
                    commands.publish(&Channel::Group(passing.conv).name(), &payload);
                    // The node of whoever came does not hear the group yet, and the one of who goes may have ceased to.
                    if let Some(Moved::In(user) | Moved::Out(user)) = passing.moved {
                        commands.publish(&Channel::User(user).name(), &payload);
                    }
                }
            }
        }
        for outcome in &committed.cursors {
            self.add_cursor(commands, outcome);
        }
    }

    /// Cursors are told where somebody is known to listen.
    fn add_cursor(&self, commands: &mut Commands, outcome: &CursorOutcome) {
        let CursorOutcome { conv, user, delivered, read, audience, .. } = *outcome;
        if delivered.is_none() && read.is_none() {
            return;
        }
        let presence = &self.cluster.presence;
        let (pair, group) = match audience {
            Audience::Pair(pair) => (Some(pair), false),
            Audience::Group => (None, true),
            Audience::Own => (None, false),
        };
        let word = Word::Cursor { conv, user, delivered, read, pair, group };
        match pair {
            _ if group && presence.has_others() => self.say(commands, &Channel::Group(conv).name(), &word),
            _ if group => {}
            Some(pair) => {
                for member in pair.into_iter().filter(|member| presence.is_elsewhere(*member)) {
                    self.say(commands, &Channel::User(member).name(), &word);
                }
            }
            None if presence.is_elsewhere(user) => {
                self.say(commands, &Channel::User(user).name(), &word);
            }
            None => {}
        }
    }

    /// Adds one job's commands, those of a session's beginning with its stamp.
    fn add(&mut self, commands: &mut Commands, job: &Job, stamp: u64) {
        let key = sessions_key(self.origin());
        match job {
            Job::Committed(committed) => self.add_committed(commands, committed),
            Job::Publish { channel, payload } => commands.publish(channel, payload),
            Job::Entered { user, session, is_news } => {
                let (field, text) = (field(*user, *session), stamp.to_string());
                commands.add(&[b"HSET", key.as_bytes(), field.as_bytes(), text.as_bytes()]);
                let word = Word::Entered { user: *user, session: *session, stamp, is_news: *is_news };
                self.say(commands, wire::ALL, &word);
            }
            Job::Left { user, session } => {
                commands.add(&[b"HDEL", key.as_bytes(), field(*user, *session).as_bytes()]);
                self.say(commands, wire::ALL, &Word::Left { user: *user, session: *session });
            }
            Job::Gone(_) | Job::Read(_) => self.remember(job),
        }
    }

    /// Tells the friends here that users are gone with their node, unless they are back.
    fn tell_gone(&self, users: &[UserId]) {
        self.cluster.presence.note_told_here(users, Instant::now());
        self.node.tell_friends(users, false, Reach::Here);
    }

    /// Reads all sessions of another node.
    fn read(&self, origin: Origin, db: &mut Connection) -> RedisResult<()> {
        self.cluster.presence.begin_reading(origin);
        let all: Vec<(String, u64)> = redis::cmd("HGETALL").arg(sessions_key(origin)).query(db)?;
        let all: Vec<_> = all
            .iter()
            .filter_map(|(field, stamp)| parse_field(field).map(|(user, session)| (user, session, *stamp)))
            .collect();
        let Replaced { gone, back } = self.cluster.presence.replace(origin, &all);
        self.tell_gone(&gone);
        self.node.tell_friends(&back, true, Reach::Here);
        Ok(())
    }

    /// Reads those that are to be read. One whose reading fails stays.
    fn read_all(&mut self, db: &mut Connection) -> RedisResult<()> {
        while let Some(origin) = self.to_read.first().copied() {
            self.read(origin, db)?;
            self.to_read.remove(&origin);
        }
        Ok(())
    }

    /// Keeps what is done later.
    fn remember(&mut self, job: &Job) {
        match job {
            Job::Gone(users) => self.going.push((Instant::now() + GONE_AFTER, users.clone())),
            Job::Read(origin) => {
                self.to_read.insert(*origin);
            }
            _ => {}
        }
    }

    /// Writes the lease; says whether it was there.
    fn renew(&self, db: &mut Connection) -> RedisResult<(bool, Vec<Origin>)> {
        let (lease, sessions) = (lease_key(self.origin()), sessions_key(self.origin()));
        let (ms, origin) = (LEASE_MS.to_string(), format!("{:016x}", self.origin()));
        let name = self.cluster.name.as_bytes();
        let mut commands = Commands::default();
        commands.add(&[b"SET", lease.as_bytes(), name, b"PX", ms.as_bytes(), b"GET"]);
        commands.add(&[b"PEXPIRE", sessions.as_bytes(), ms.as_bytes()]);
        commands.add(&[b"SADD", NODES.as_bytes(), origin.as_bytes()]);
        commands.add(&[b"SMEMBERS", NODES.as_bytes()]);
        let mut answers = commands.run(db)?.into_iter();
        let had_lease = answers.next().is_some_and(|answer| answer != Value::Nil);
        let all: Vec<String> =
            answers.next_back().map(redis::from_redis_value).transpose()?.unwrap_or_default();
        let others = all.iter().filter_map(|text| Origin::from_str_radix(text, 16).ok());
        Ok((had_lease, others.filter(|other| *other != self.origin()).collect()))
    }

    /// Writes all sessions of this node anew.
    fn write_all(&self, db: &mut Connection) -> RedisResult<()> {
        let here = self.cluster.presence.here();
        let key = sessions_key(self.origin());
        let stamp = now(db)?;
        let mut commands = Commands::default();
        commands.add(&[b"DEL", key.as_bytes()]);
        for some in here.chunks(FIELDS_AT_ONCE) {
            let fields: Vec<(String, String)> = some
                .iter()
                .map(|(user, held)| (field(*user, held.session), held.stamp.min(stamp).to_string()))
                .collect();
            let mut parts: Vec<&[u8]> = vec![b"HSET", key.as_bytes()];
            parts.extend(fields.iter().flat_map(|(field, stamp)| [field.as_bytes(), stamp.as_bytes()]));
            commands.add(&parts);
        }
        commands.add(&[b"PEXPIRE", key.as_bytes(), LEASE_MS.to_string().as_bytes()]);
        self.say(&mut commands, wire::ALL, &Word::Back);
        commands.run(db)?;
        for (user, held) in here {
            self.cluster.presence.stamp_here(user, held.session, held.stamp.min(stamp));
        }
        Ok(())
    }

    /// Looks which nodes there are, reads the sessions of new ones, and tells of those that are gone.
    fn look_around(&mut self, others: &[Origin], emptied: bool, db: &mut Connection) -> RedisResult<()> {
        let mut commands = Commands::default();
        for origin in others {
            commands.add(&[b"GET", lease_key(*origin).as_bytes()]);
        }
        let mut leases = Vec::with_capacity(others.len());
        for (origin, answer) in others.iter().zip(commands.run(db)?) {
            leases.push((*origin, redis::from_redis_value(answer)?));
        }
        let now = Instant::now();
        let found = self.cluster.presence.leases(&leases, emptied, now);
        self.to_read.extend(found.new);
        if now >= self.reread_at {
            self.reread_at = now + REREAD;
            self.to_read.extend(fastrand::choice(self.cluster.presence.others()));
        }
        let mut commands = Commands::default();
        for (origin, users) in found.gone {
            // Only its name on the list: what is a node's own goes with its lease.
            commands.add(&[b"SREM", NODES.as_bytes(), format!("{origin:016x}").as_bytes()]);
            self.tell_gone(&users);
            // It may have committed what it did not come to publish.
            self.node.compare();
        }
        commands.run(db)?;
        Ok(())
    }

    fn look_after_going(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self.going.extract_if(.., |(due, _)| *due <= now).collect();
        due.iter().for_each(|(_, users)| self.tell_gone(users));
    }
}

/// The time by Redis's clock, in microseconds.
fn now(db: &mut Connection) -> RedisResult<u64> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(db)?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

impl Keeper for Hands {
    type Job = Job;

    fn work(&mut self, jobs: &mut Vec<Job>, db: &mut Connection) -> RedisResult<()> {
        let entered = jobs.iter().any(|job| matches!(job, Job::Entered { .. }));
        let stamp = if entered { now(db)? } else { 0 };
        let mut commands = Commands::default();
        for job in jobs.iter() {
            self.add(&mut commands, job, stamp);
        }
        commands.run(db)?;
        self.cluster.published.fetch_add(commands.published, Ordering::Relaxed);
        for job in jobs.drain(..) {
            if let Job::Entered { user, session, .. } = job {
                self.cluster.presence.stamp_here(user, session, stamp);
                self.node.end_too_many(user);
            }
        }
        self.read_all(db)
    }

    fn let_go(&mut self, jobs: &mut Vec<Job>) {
        jobs.iter().for_each(|job| self.remember(job));
        self.cluster.behind.store(true, Ordering::Release);
    }

    fn tick(&mut self, db: &mut Connection) -> RedisResult<()> {
        let (had_lease, others) = self.renew(db)?;
        if !had_lease {
            if self.is_known {
                log::warn!("this node's lease was gone: its sessions are written anew");
            }
            self.write_all(db)?;
        }
        let emptied = self.is_known && !had_lease;
        self.is_known = true;
        if self.cluster.behind.swap(false, Ordering::AcqRel) {
            let mut commands = Commands::default();
            self.say(&mut commands, wire::ALL, &Word::Behind);
            if let Err(error) = commands.run(db) {
                self.cluster.behind.store(true, Ordering::Release);
                return Err(error);
            }
            // Sessions that began or ended meanwhile are not in the hash as they are.
            self.write_all(db)?;
        }
        self.look_around(&others, emptied, db)?;
        self.read_all(db)?;
        self.look_after_going();
        Ok(())
    }

    fn farewell(&mut self, db: Option<&mut Connection>) {
        let Some(db) = db else { return };
        let mut commands = Commands::default();
        let (lease, sessions) = (lease_key(self.origin()), sessions_key(self.origin()));
        commands.add(&[b"DEL", lease.as_bytes(), sessions.as_bytes()]);
        commands.add(&[b"SREM", NODES.as_bytes(), format!("{:016x}", self.origin()).as_bytes()]);
        self.say(&mut commands, wire::ALL, &Word::Leaving);
        if let Err(error) = commands.run(db) {
            log::warn!("the other nodes were not told of the end: {error}");
        }
    }
}
