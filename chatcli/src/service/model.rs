//! A server in memory for the tests of the service: it keeps the stream promise, and breaks everything else that may break.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use schema::error::ErrorCode;
use schema::friend::{FriendInfo, FriendState, Friends};
use schema::group::{GroupCreated, GroupEvent, GroupInfo, GroupMembers, Groups, MemberInfo, Role};
use schema::reply::{
    Body, ConversationInfo, Conversations, Found, History, Kind, LoggedIn, Mark, Marks, Message, Push,
    Refusal, Sent, write_error, write_ok, write_ok_with, write_push,
};
use schema::request::{Bound, Envelope, Request, RequestId, Target, UserRef, parse};
use schema::{ConvId, Seq, SessionId, UserId};

/// Small, so that it closes in tests.
const WINDOW: usize = 16;

pub(crate) fn seq(number: usize) -> Seq {
    Seq::new(u64::try_from(number).unwrap()).unwrap()
}

/// The users by name: `amy` (1) is the client's.
const NAMES: [&str; 3] = ["amy", "bob", "carol"];

pub(crate) fn user_id(name: &str) -> UserId {
    let at = NAMES.iter().position(|known| *known == name).expect("a known name");
    UserId::new(u64::try_from(at).unwrap() + 1).unwrap()
}

fn name_of(user: UserId) -> &'static str {
    NAMES[usize::try_from(user.get()).unwrap() - 1]
}

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) from: UserId,
    pub(crate) text: String,
    /// In place of the text.
    pub(crate) event: Option<GroupEvent<'static>>,
    time_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Talk {
    pub(crate) entries: Vec<Stored>,
    delivered: u64,
    read: u64,
}

#[derive(Debug, Default)]
struct Session {
    logged_in: bool,
    started: bool,
    synced: bool,
    /// Where each stream stands: the next seq to be pushed.
    next: BTreeMap<ConvId, usize>,
    given: BTreeMap<ConvId, u64>,
    answered: BTreeSet<(ConvId, usize)>,
    /// Conversations whose last entry at the login must be pushed before `synced`.
    goal: BTreeMap<ConvId, usize>,
    unacked: VecDeque<(ConvId, usize)>,
    /// Acks that are not written: they are lost in a crash.
    unwritten: BTreeMap<ConvId, u64>,
}

/// A group; its entries are in a talk.
#[derive(Debug)]
pub(crate) struct ModelGroup {
    pub(crate) name: String,
    /// Its members in order of their ids.
    pub(crate) members: Vec<(&'static str, Role)>,
}

impl ModelGroup {
    fn has_amy(&self) -> bool {
        self.members.iter().any(|(name, _)| *name == "amy")
    }
}

/// How the next send is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Fine,
    /// `unavailable`, and not taken.
    Away,
    /// `unavailable`, and taken all the same.
    Doubtful,
}

/// The server.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) talks: BTreeMap<ConvId, Talk>,
    pub(crate) groups: BTreeMap<ConvId, ModelGroup>,
    pub(crate) friends: Vec<(&'static str, FriendState, bool)>,
    session: Option<Session>,
    pub(crate) mood: Mood,
    taken: HashMap<(ConvId, String), usize>,
    /// Lines on their way to the client.
    pub(crate) out: VecDeque<Vec<u8>>,
    pub(crate) max_acked_beyond: u64,
    /// Entries that are not amy's to see.
    pub(crate) unseen: BTreeSet<(ConvId, usize)>,
    /// How often a history was asked for.
    pub(crate) histories: usize,
    /// How often the client said that its user is typing.
    pub(crate) typings: usize,
    /// What new entries are stamped with.
    pub(crate) now_ms: u64,
}

impl Model {
    /// A server at this time.
    pub(crate) fn at(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    pub(crate) fn connect(&mut self) {
        self.session = Some(Session::default());
        self.out.clear();
        self.push(&Push::Hello {
            version: 1,
            server: "model/1".into(),
            node: "n".into(),
            heartbeat_secs: 30,
            max_line_bytes: 65_536,
            max_text_bytes: 16_384,
            push_window: WINDOW,
            time_ms: 0,
        });
    }

    /// The connection ends; after a crash what was not written is lost.
    pub(crate) fn disconnect(&mut self, crash: bool) {
        if let Some(session) = self.session.take()
            && !crash
        {
            self.write(session.unwritten);
        }
    }

    fn write(&mut self, acks: BTreeMap<ConvId, u64>) {
        for (conv, seq) in acks {
            let talk = self.talks.get_mut(&conv).unwrap();
            talk.delivered = talk.delivered.max(seq);
        }
    }

    /// Somebody else writes to amy.
    pub(crate) fn peer_sends(&mut self, from: &str, text: &str) {
        let conv = self.conv_with(from);
        let stored = Stored { from: user_id(from), text: text.into(), event: None, time_ms: self.now_ms };
        self.talks.get_mut(&conv).unwrap().entries.push(stored);
    }

    /// Somebody makes a group of these; it is their number `n`.
    pub(crate) fn makes_group(&mut self, by: &str, n: u64, name: &str, members: &[&'static str]) -> ConvId {
        let conv = ConvId::new(100 + n).unwrap();
        let role = |member: &str| if member == by { Role::Owner } else { Role::Member };
        let members: Vec<(&'static str, Role)> = members.iter().map(|m| (*m, role(m))).collect();
        self.happens(conv, by, GroupEvent::Created { user: user_id(by), name: name.to_owned().into() });
        for (member, _) in members.iter().filter(|(member, _)| *member != by) {
            self.happens(conv, member, GroupEvent::Joined { user: user_id(member) });
        }
        self.groups.insert(conv, ModelGroup { name: name.to_owned(), members });
        conv
    }

    /// Something happens to a group.
    pub(crate) fn happens(&mut self, conv: ConvId, by: &str, event: GroupEvent<'static>) {
        let from = user_id(by);
        let stored = Stored { from, text: String::new(), event: Some(event), time_ms: self.now_ms };
        self.talks.entry(conv).or_default().entries.push(stored);
    }

    /// Somebody writes to a group.
    pub(crate) fn group_hears(&mut self, conv: ConvId, from: &str, text: &str) {
        let stored = Stored { from: user_id(from), text: text.into(), event: None, time_ms: self.now_ms };
        let entries = &mut self.talks.get_mut(&conv).unwrap().entries;
        entries.push(stored);
        if !self.groups[&conv].has_amy() {
            self.unseen.insert((conv, entries.len()));
        }
    }

    /// Amy is put out of a group, or comes back, on another device.
    pub(crate) fn comes_or_goes(&mut self, conv: ConvId) {
        let amy = user_id("amy");
        if self.groups[&conv].has_amy() {
            self.happens(conv, "bob", GroupEvent::Kicked { user: amy, name: None });
            self.groups.get_mut(&conv).unwrap().members.retain(|(name, _)| *name != "amy");
        } else {
            self.happens(conv, "amy", GroupEvent::Joined { user: amy });
            self.groups.get_mut(&conv).unwrap().members.insert(0, ("amy", Role::Member));
        }
    }

    /// Amy's other devices have so much of what somebody wrote.
    pub(crate) fn delivered(&mut self, from: &str, seq: u64) {
        let conv = self.conv_with(from);
        self.talks.get_mut(&conv).unwrap().delivered = seq;
    }

    fn conv_with(&mut self, name: &str) -> ConvId {
        let conv = ConvId::new(user_id(name).get() + 10).unwrap();
        self.talks.entry(conv).or_default();
        conv
    }

    pub(crate) fn push(&mut self, push: &Push<'_>) {
        let mut line = Vec::new();
        write_push(push, &mut line);
        self.say(line);
    }

    fn say(&mut self, mut line: Vec<u8>) {
        line.pop();
        self.out.push_back(line);
    }

    fn ok(&mut self, id: Option<RequestId>, body: &impl serde::Serialize) {
        let mut line = Vec::new();
        write_ok_with(id.unwrap(), body, &mut line);
        self.say(line);
    }

    fn error(&mut self, id: Option<RequestId>, code: ErrorCode) {
        let mut line = Vec::new();
        write_error(id, &Refusal { code, message: "as told".into(), retry_after_ms: None }, &mut line);
        self.say(line);
    }

    /// A line of the client.
    pub(crate) fn hear(&mut self, line: &[u8]) {
        let Envelope { id, request } = parse(line).expect("the client says only valid lines");
        let Some(session) = &mut self.session else { return };
        if !session.logged_in && !matches!(request, Request::Login { .. } | Request::Ping) {
            panic!("said before the login: {}", String::from_utf8_lossy(line));
        }
        match request {
            Request::Login { hold, .. } => {
                assert!(hold, "a resuming client holds");
                session.logged_in = true;
                for (conv, talk) in &self.talks {
                    session.goal.insert(*conv, talk.entries.len());
                }
                let body = LoggedIn {
                    user: user_id("amy"),
                    name: "amy".into(),
                    token: "t".into(),
                    expires_ms: 1,
                    session: SessionId::new(1).unwrap(),
                };
                self.ok(id, &body);
            }
            Request::Conversations { after, .. } => self.list(id, after),
            Request::Sync { cursors, more } => self.sync(id, &cursors, more),
            Request::Send { client_id, target, text } => self.send(id, &client_id.unwrap(), &target, &text),
            Request::Ack { conv, seq } => self.ack(conv, seq),
            Request::Read { conv, seq } => {
                let talk = self.talks.get_mut(&conv).unwrap();
                talk.read = talk.read.max(seq.get());
            }
            Request::Marks { conv } => {
                let mark = Mark { user: user_id("bob"), delivered: Seq::ZERO, read: Seq::ZERO };
                assert!(self.talks.contains_key(&conv));
                self.ok(id, &Marks { marks: vec![mark] });
            }
            Request::History { conv, bound, limit } => self.history(id, conv, bound, limit),
            Request::FindUser { name } if NAMES.contains(&name.key()) => {
                let body = Found { user: user_id(name.key()), name: name.key().into(), online: true };
                self.ok(id, &body);
            }
            Request::FindUser { .. } => self.error(id, ErrorCode::NotFound),
            Request::Typing { .. } => self.typings += 1,
            other => self.hear_social(id, other),
        }
    }

    fn hear_social(&mut self, id: Option<RequestId>, request: Request<'_>) {
        match request {
            Request::Friends { .. } => {
                let friends = self.friends.iter().map(|(name, state, online)| FriendInfo {
                    user: user_id(name),
                    name: (*name).into(),
                    state: *state,
                    online: *online,
                });
                let friends = friends.collect();
                self.ok(id, &Friends { friends, more: false });
            }
            Request::Groups { .. } => {
                let groups = self.groups.iter().map(|(conv, group)| {
                    let role = group.members.iter().find(|(name, _)| *name == "amy").map(|(_, role)| *role);
                    let members = u64::try_from(group.members.len()).unwrap();
                    let name = group.name.clone().into();
                    GroupInfo { conv: *conv, name, role, members, invited: role.is_none() }
                });
                let groups = groups.collect();
                self.ok(id, &Groups { groups, more: false });
            }
            Request::GroupMembers { conv, .. } => {
                let members = self.groups[&conv].members.iter().map(|(name, role)| MemberInfo {
                    user: user_id(name),
                    name: (*name).into(),
                    role: *role,
                    online: *name != "carol",
                });
                let members = members.collect();
                self.ok(id, &GroupMembers { members, more: false });
            }
            Request::GroupCreate { name, .. } => {
                let n = u64::try_from(self.groups.len()).unwrap();
                let conv = self.makes_group("amy", n, name.as_str(), &["amy"]);
                self.ok(id, &GroupCreated { conv });
            }
            Request::GroupJoin { conv } => {
                self.groups.get_mut(&conv).unwrap().members.insert(0, ("amy", Role::Member));
                self.happens(conv, "amy", GroupEvent::Joined { user: user_id("amy") });
                self.plain_ok(id);
            }
            Request::GroupKick { conv, user: UserRef::Name(name) } => {
                let user = user_id(name.key());
                self.happens(
                    conv,
                    "amy",
                    GroupEvent::Kicked { user, name: Some(name.shown().to_owned().into()) },
                );
                self.plain_ok(id);
            }
            Request::GroupInvite { user: UserRef::Name(name), .. } if !NAMES.contains(&name.key()) => {
                self.error(id, ErrorCode::NotFound);
            }
            Request::Password { .. }
            | Request::GroupInvite { .. }
            | Request::FriendRequest { .. }
            | Request::Block { .. } => {
                self.plain_ok(id);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn plain_ok(&mut self, id: Option<RequestId>) {
        let mut line = Vec::new();
        write_ok(id.unwrap(), &mut line);
        self.say(line);
    }

    /// Two to a page, so that pages matter.
    fn list(&mut self, id: Option<RequestId>, after: Option<ConvId>) {
        let mut conversations = Vec::new();
        for (conv, talk) in self.talks.iter().filter(|(_, talk)| !talk.entries.is_empty()) {
            if after.is_none_or(|after| *conv > after) {
                let before = (1..).take_while(|at| self.unseen.contains(&(*conv, *at))).count();
                let group = self.groups.get(conv);
                let peer = if group.is_none() { UserId::new(conv.get() - 10) } else { None };
                conversations.push(ConversationInfo {
                    conv: *conv,
                    kind: if group.is_some() { Kind::Group } else { Kind::Direct },
                    name: group.map_or_else(|| name_of(peer.unwrap()).to_owned(), |g| g.name.clone()).into(),
                    user: peer,
                    last_seq: seq(talk.entries.len()),
                    delivered: Seq::new(talk.delivered).unwrap().max(seq(before)),
                    read: Seq::new(talk.read).unwrap(),
                    unread: 0,
                });
            }
        }
        let more = conversations.len() > 1;
        conversations.truncate(1);
        self.ok(id, &Conversations { conversations, more });
    }

    fn sync(&mut self, id: Option<RequestId>, cursors: &[(ConvId, Seq)], more: bool) {
        let session = self.session.as_mut().unwrap();
        assert!(!session.started, "synced twice");
        session.given.extend(cursors.iter().map(|(conv, seq)| (*conv, seq.get())));
        session.started = !more;
        self.plain_ok(id);
    }

    fn send(&mut self, id: Option<RequestId>, client_id: &str, target: &Target<'_>, text: &str) {
        let conv = match target {
            Target::Conv(conv) => *conv,
            Target::User(UserRef::Name(name)) => self.conv_with(name.key()),
            Target::User(UserRef::Id(user)) => self.conv_with(name_of(*user)),
        };
        let mood = std::mem::take(&mut self.mood);
        if mood == Mood::Away {
            return self.error(id, ErrorCode::Unavailable);
        }
        let talk = self.talks.get_mut(&conv).unwrap();
        let earlier = self.taken.get(&(conv, client_id.to_owned())).copied();
        if earlier.is_none() && self.groups.get(&conv).is_some_and(|group| !group.has_amy()) {
            return self.error(id, ErrorCode::Forbidden);
        }
        let at = earlier.unwrap_or_else(|| {
            let text = text.to_owned();
            talk.entries.push(Stored { from: user_id("amy"), text, event: None, time_ms: self.now_ms });
            self.taken.insert((conv, client_id.to_owned()), talk.entries.len());
            talk.entries.len()
        });
        if mood == Mood::Doubtful {
            return self.error(id, ErrorCode::Unavailable);
        }
        if earlier.is_none() {
            self.session.as_mut().unwrap().answered.insert((conv, at));
        }
        self.ok(id, &Sent { conv, seq: seq(at), time_ms: self.now_ms, duplicate: earlier.is_some() });
    }

    fn ack(&mut self, conv: ConvId, acked: Seq) {
        let last = self.talks[&conv].entries.len();
        self.max_acked_beyond =
            self.max_acked_beyond.max(acked.get().saturating_sub(u64::try_from(last).unwrap()));
        let session = self.session.as_mut().unwrap();
        let complete = session.next.get(&conv).map_or(0, |next| u64::try_from(*next).unwrap() - 1);
        session.unacked.retain(|(c, s)| *c != conv || u64::try_from(*s).unwrap() > acked.get());
        let known = session.unwritten.entry(conv).or_default();
        *known = (*known).max(acked.get().min(complete));
    }

    fn history(&mut self, id: Option<RequestId>, conv: ConvId, bound: Bound, limit: usize) {
        self.histories += 1;
        // Three to a page, so that pages matter.
        let page = limit.min(3);
        let seen: Vec<usize> =
            (1..=self.talks[&conv].entries.len()).filter(|at| !self.unseen.contains(&(conv, *at))).collect();
        let below = |bound: Seq| seen.partition_point(|at| u64::try_from(*at).unwrap() < bound.get());
        let (range, more) = match bound {
            Bound::After(after) => {
                let skip = below(after.next());
                let to = seen.len().min(skip + page);
                (skip..to, to < seen.len())
            }
            Bound::Before(_) | Bound::Last => {
                let end = if let Bound::Before(before) = bound { below(before) } else { seen.len() };
                let from = end.saturating_sub(page);
                (from..end, from > 0)
            }
        };
        let messages: Vec<Message<'static>> = seen[range].iter().map(|at| self.message(conv, *at)).collect();
        self.ok(id, &History { messages, more });
    }

    fn message(&self, conv: ConvId, at: usize) -> Message<'static> {
        let stored = &self.talks[&conv].entries[at - 1];
        let group = self.groups.contains_key(&conv);
        let peer = if group { None } else { UserId::new(conv.get() - 10) };
        let to = peer.map(|peer| if stored.from == peer { user_id("amy") } else { peer });
        Message {
            conv,
            kind: if group { Kind::Group } else { Kind::Direct },
            seq: seq(at),
            from: stored.from,
            from_name: Cow::Borrowed(name_of(stored.from)),
            to,
            to_name: to.map(|to| Cow::Borrowed(name_of(to))),
            body: stored.event.clone().map_or_else(|| Body::text(stored.text.clone()), Body::Event),
            time_ms: stored.time_ms,
        }
    }

    /// Pushes one entry of one conversation, if there is one to push. `turn` chooses the conversation.
    pub(crate) fn push_one(&mut self, turn: usize) -> bool {
        let Some(session) = self.session.as_mut().filter(|session| session.started) else { return false };
        let mut ready = Vec::new();
        for (conv, talk) in &self.talks {
            let start = session.given.get(conv).copied().unwrap_or(talk.delivered);
            let next = session.next.entry(*conv).or_insert(usize::try_from(start).unwrap() + 1);
            while session.answered.contains(&(*conv, *next)) || self.unseen.contains(&(*conv, *next)) {
                *next += 1;
            }
            if *next <= talk.entries.len() {
                ready.push(*conv);
            }
        }
        if ready.is_empty() || session.unacked.len() >= WINDOW {
            return self.push_synced();
        }
        let conv = ready[turn % ready.len()];
        let at = session.next[&conv];
        session.next.insert(conv, at + 1);
        session.unacked.push_back((conv, at));
        let message = self.message(conv, at);
        self.push(&Push::Message(message));
        true
    }

    fn push_synced(&mut self) -> bool {
        let session = self.session.as_mut().unwrap();
        let there =
            session.goal.iter().all(|(conv, last)| session.next.get(conv).is_none_or(|next| next > last));
        if session.synced || !there {
            return false;
        }
        session.synced = true;
        self.push(&Push::Synced);
        true
    }
}
