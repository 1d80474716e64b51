//! Questions to the server: each is asked again after a lost connection until it is answered, and long answers are read page by page.

use schema::friend::{Blocked, Friends};
use schema::group::{GroupCreated, GroupMembers, Groups, Role};
use schema::reply::{Conversations, Found, History, Registered};
use schema::{ConvId, Seq, UserId};

use super::event::{Entry, Event, Listed, Refusal, Ticket};
use super::friends::Friend;
use super::groups::{Group, Member};
use super::request::Request;
use super::{ClientService, Conversation, Phase, Waiting};
use crate::limits::{MEMBERS_KEPT, PAGE};
use crate::secret::Secret;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Make a user.
    Register { name: String, password: Secret },
    /// End the session.
    Logout,
    /// Change the password; every other session ends.
    Password { old: Secret, new: Secret },
    /// Who is this?
    FindUser { name: String },
    /// The last `count` entries before `before`, or the last of all.
    History { conv: ConvId, before: Option<Seq>, count: usize },
    /// All conversations.
    Conversations,
    /// Everything up to here was read.
    Read { conv: ConvId, seq: Seq },
    /// Do something about friendship with a user.
    Friend { act: FriendAct, name: String },
    /// All friends, and who is to become one.
    Friends,
    /// All who are blocked.
    Blocked,
    /// Make a group.
    GroupCreate { name: String, open: bool },
    /// Do something in a group.
    Group { conv: ConvId, act: GroupAct },
    /// The first members of a group.
    Members { conv: ConvId },
    /// All groups.
    Groups,
}

/// What one can do about friendship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FriendAct {
    Request,
    Accept,
    Reject,
    Remove,
    Block,
    Unblock,
}

/// What one can do in a group; users are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupAct {
    Join,
    Leave,
    Invite(String),
    Kick(String),
    Role(String, Role),
    Rename(String),
}

impl Question {
    pub(super) fn needs_login(&self) -> bool {
        !matches!(self, Self::Register { .. })
    }

    /// Whether it may be asked again when nobody knows whether it was answered.
    fn may_be_repeated(&self) -> bool {
        !matches!(self, Self::GroupCreate { .. } | Self::Password { .. })
    }
}

/// The pages of a long answer that have come.
#[derive(Debug, Default)]
struct Pages {
    entries: Vec<Entry>,
    listed: Vec<Listed>,
    friends: Vec<Friend>,
    blocked: Vec<(UserId, String)>,
    members: Vec<Member>,
    groups: Vec<Group>,
}

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) ticket: Ticket,
    pub(super) question: Question,
    /// Nobody but the service wants to know.
    quiet: bool,
    in_flight: bool,
    /// It was asked on a connection that ended.
    again: bool,
    /// What has happened meanwhile is perhaps not in the answer.
    stale: bool,
    pages: Pages,
}

impl Ask {
    pub(super) fn new(ticket: Ticket, question: Question) -> Self {
        let pages = Pages::default();
        Self { ticket, question, quiet: false, in_flight: false, again: false, stale: false, pages }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn connection_lost(&mut self) {
        self.again |= self.in_flight;
        self.in_flight = false;
    }

    fn may_be_asked(&self, phase: Phase) -> bool {
        match phase {
            Phase::Offline | Phase::Greeting | Phase::LoggingIn | Phase::Preparing => false,
            Phase::Anonymous => !self.question.needs_login(),
            Phase::Online => true,
        }
    }
}

impl ClientService {
    /// Asks something for the service itself; no event follows. One such question is asked at a time: what happens meanwhile makes it be asked once more.
    pub(super) fn refresh(&mut self, question: Question) {
        let same = |ask: &&mut Ask| ask.quiet && ask.question == question;
        if let Some(ask) = self.asks.iter_mut().find(same) {
            ask.stale = ask.in_flight;
            return;
        }
        let ticket = self.ticket();
        self.asks.push_back(Ask { quiet: true, ..Ask::new(ticket, question) });
        self.pump_asks();
    }

    /// Asks what may be asked in this phase.
    pub(super) fn pump_asks(&mut self) {
        let phase = self.phase;
        let mut asks = std::mem::take(&mut self.asks);
        asks.retain_mut(|ask| {
            if ask.in_flight || !ask.may_be_asked(phase) {
                return true;
            }
            if ask.again && !ask.question.may_be_repeated() {
                let message = "the connection was lost before the answer came: it may be done, or not";
                let (ticket, refusal) = (ask.ticket, Refusal::new("unavailable", message));
                self.events.push_back(Event::Refused { ticket, refusal });
                return false;
            }
            ask.in_flight = true;
            self.ask_now(ask);
            true
        });
        self.asks = asks;
    }

    fn ask_now(&mut self, ask: &Ask) {
        let pages = &ask.pages;
        let request = match &ask.question {
            Question::Register { name, password } => Request::Register { name, password: password.reveal() },
            Question::Logout => Request::Logout,
            Question::Password { old, new } => Request::Password { old: old.reveal(), new: new.reveal() },
            Question::FindUser { name } => Request::FindUser { name },
            Question::History { conv, before, count } => {
                let before = pages.entries.first().map(|entry| entry.seq).or(*before);
                let limit = count.saturating_sub(pages.entries.len()).clamp(1, PAGE);
                Request::History { conv: *conv, before, after: None, limit }
            }
            Question::Conversations => {
                Request::Conversations { after: pages.listed.last().map(|listed| listed.conv), limit: PAGE }
            }
            Question::Read { conv, seq } => Request::Read { conv: *conv, seq: *seq },
            Question::Friend { act, name: user } => match act {
                FriendAct::Request => Request::FriendAsk { user },
                FriendAct::Accept => Request::FriendAccept { user },
                FriendAct::Reject => Request::FriendReject { user },
                FriendAct::Remove => Request::FriendRemove { user },
                FriendAct::Block => Request::Block { user },
                FriendAct::Unblock => Request::Unblock { user },
            },
            Question::Friends => {
                Request::Friends { after: pages.friends.last().map(|friend| friend.user), limit: PAGE }
            }
            Question::Blocked => {
                Request::Blocked { after: pages.blocked.last().map(|(user, _)| *user), limit: PAGE }
            }
            Question::GroupCreate { name, open } => Request::GroupCreate { name, open: *open },
            Question::Group { conv, act } => group_request(*conv, act),
            Question::Members { conv } => {
                let after = pages.members.last().map(|member| member.user);
                Request::GroupMembers { conv: *conv, after, limit: PAGE }
            }
            Question::Groups => {
                Request::Groups { after: pages.groups.last().map(|group| group.conv), limit: PAGE }
            }
        };
        self.request(Waiting::Ask(ask.ticket), &request);
    }

    /// An `ok` to a question.
    ///
    /// # Errors
    /// When its fields are not what they should be.
    pub(super) fn handle_answer(&mut self, ticket: Ticket, line: &str) -> Result<(), serde_json::Error> {
        let Some(at) = self.asks.iter().position(|ask| ask.ticket == ticket) else { return Ok(()) };
        let Some(mut ask) = self.asks.remove(at) else { return Ok(()) };
        let answered = self.read_answer(&mut ask, line);
        match answered {
            Ok(Some(event)) if !ask.quiet => self.events.push_back(event),
            Ok(Some(_)) if ask.stale => self.refresh(ask.question),
            Ok(Some(_)) => {}
            // A further page of it, unless the session has ended with it.
            Ok(None) if self.me.is_some() => {
                self.ask_now(&ask);
                self.asks.push_back(ask);
            }
            Ok(None) => {}
            Err(error) => {
                // The caller will refuse it.
                self.asks.push_back(ask);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads one page of an answer. The event, when it is the last.
    fn read_answer(&mut self, ask: &mut Ask, line: &str) -> Result<Option<Event>, serde_json::Error> {
        let ticket = ask.ticket;
        Ok(match ask.question.clone() {
            Question::Register { .. } => {
                let body: Registered = serde_json::from_str(line)?;
                Some(Event::Registered { ticket, user: body.user })
            }
            Question::Logout => {
                self.end_session(Some(ticket), "logged out".into(), false);
                None
            }
            Question::Password { .. } => Some(Event::Done { ticket }),
            Question::FindUser { .. } => {
                let body: Found<'_> = serde_json::from_str(line)?;
                let (user, name, online) = (body.user, body.name.into_owned(), body.online);
                self.people.saw(user, &name);
                Some(Event::Found { ticket, user, name, online })
            }
            Question::History { conv, count, .. } => {
                let body: History<'_> = serde_json::from_str(line)?;
                self.handle_history(ask, conv, count, body)
            }
            Question::Conversations => {
                let body: Conversations<'_> = serde_json::from_str(line)?;
                self.handle_list(ask, &body)
            }
            Question::Read { conv, seq } => Some(Event::Marked { ticket, conv, seq }),
            Question::Friend { .. } => {
                self.refresh(Question::Friends);
                Some(Event::Done { ticket })
            }
            Question::Friends => self.read_friends(ask, &serde_json::from_str(line)?),
            Question::Blocked => read_blocked(ask, &serde_json::from_str(line)?),
            Question::GroupCreate { .. } => {
                let body: GroupCreated = serde_json::from_str(line)?;
                self.refresh(Question::Groups);
                Some(Event::GroupCreated { ticket, conv: body.conv })
            }
            Question::Group { .. } => {
                self.refresh(Question::Groups);
                Some(Event::Done { ticket })
            }
            Question::Members { conv } => self.read_members(ask, conv, &serde_json::from_str(line)?),
            Question::Groups => self.read_groups(ask, &serde_json::from_str(line)?),
        })
    }

    fn read_friends(&mut self, ask: &mut Ask, body: &Friends<'_>) -> Option<Event> {
        ask.pages.friends.extend(body.friends.iter().map(Friend::from));
        if body.more && !body.friends.is_empty() {
            return None;
        }
        let list = std::mem::take(&mut ask.pages.friends);
        self.handle_friends(&list);
        Some(Event::Friends { ticket: ask.ticket, list })
    }

    fn read_members(&mut self, ask: &mut Ask, conv: ConvId, body: &GroupMembers<'_>) -> Option<Event> {
        ask.pages.members.extend(body.members.iter().map(Member::from));
        let more = body.more && !body.members.is_empty();
        if more && ask.pages.members.len() < MEMBERS_KEPT {
            return None;
        }
        let list = std::mem::take(&mut ask.pages.members);
        self.handle_members(conv, &list, !more);
        Some(Event::Members { ticket: ask.ticket, conv, list, more })
    }

    fn read_groups(&mut self, ask: &mut Ask, body: &Groups<'_>) -> Option<Event> {
        ask.pages.groups.extend(body.groups.iter().map(Group::from));
        if body.more && !body.groups.is_empty() {
            return None;
        }
        let list = std::mem::take(&mut ask.pages.groups);
        self.handle_groups(&list);
        Some(Event::Groups { ticket: ask.ticket, list })
    }

    fn handle_history(
        &mut self,
        ask: &mut Ask,
        conv: ConvId,
        count: usize,
        body: History<'_>,
    ) -> Option<Event> {
        let page: Vec<Entry> = body.messages.into_iter().map(Entry::from).collect();
        let ends = page.is_empty() || !body.more;
        page.iter().for_each(|entry| self.people.saw(entry.from, &entry.from_name));
        if let Some(conversation) = self.conversations.get_mut(&conv) {
            page.iter().for_each(|entry| conversation.place(entry.clone()));
            if !body.more {
                conversation.begins = conversation.first_seq();
            }
        }
        ask.pages.entries.splice(0..0, page);
        if !ends && ask.pages.entries.len() < count {
            return None;
        }
        let entries = std::mem::take(&mut ask.pages.entries);
        Some(Event::History { ticket: ask.ticket, conv, entries, more: !ends })
    }

    fn handle_list(&mut self, ask: &mut Ask, body: &Conversations<'_>) -> Option<Event> {
        ask.pages.listed.extend(body.conversations.iter().map(Listed::from));
        if body.more && !body.conversations.is_empty() {
            return None;
        }
        let list = std::mem::take(&mut ask.pages.listed);
        for info in &list {
            // A stream that is running knows better where it starts; the names and numbers are news.
            let new = Conversation::new(info.conv, info.kind, info.name.clone(), info.user);
            let conversation = self.conversation_or_new(new);
            conversation.name.clone_from(&info.name);
            conversation.peer = info.user;
        }
        Some(Event::Conversations { ticket: ask.ticket, list })
    }

    /// An `error` to a question.
    pub(super) fn handle_ask_refused(&mut self, ticket: Ticket, mut refusal: Refusal) {
        let Some(at) = self.asks.iter().position(|ask| ask.ticket == ticket) else { return };
        let Some(ask) = self.asks.remove(at) else { return };
        if ask.quiet {
            // A server without friends and groups, or one that is busy: it is asked again at the next login.
            return log::info!("the server does not tell what it was asked: {refusal}");
        }
        if ask.again && matches!(ask.question, Question::Register { .. }) && refusal.code == "conflict" {
            refusal.message =
                format!("{} (perhaps by this very registration: try to log in)", refusal.message);
        }
        self.events.push_back(Event::Refused { ticket, refusal });
    }

    /// Forgets a question or a login whose answer is no longer of interest.
    pub(crate) fn give_up(&mut self, ticket: Ticket) {
        self.asks.retain(|ask| ask.ticket != ticket);
        self.give_up_login(ticket);
    }
}

fn group_request(conv: ConvId, act: &GroupAct) -> Request<'_> {
    match act {
        GroupAct::Join => Request::GroupJoin { conv },
        GroupAct::Leave => Request::GroupLeave { conv },
        GroupAct::Invite(user) => Request::GroupInvite { conv, user },
        GroupAct::Kick(user) => Request::GroupKick { conv, user },
        GroupAct::Role(user, role) => Request::GroupRole { conv, user, role: role.as_str() },
        GroupAct::Rename(name) => Request::GroupRename { conv, name },
    }
}

fn read_blocked(ask: &mut Ask, body: &Blocked<'_>) -> Option<Event> {
    ask.pages.blocked.extend(body.users.iter().map(|user| (user.user, user.name.to_string())));
    if body.more && !body.users.is_empty() {
        return None;
    }
    let list = std::mem::take(&mut ask.pages.blocked);
    Some(Event::Blocked { ticket: ask.ticket, list })
}
