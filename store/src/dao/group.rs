//! Groups: who is in them, what they may do, and the entries that tell of it.
//!
//! Every change locks the conversation first, so that it has its place between the messages, and bumps its version, so that writers look again who may write.

use std::sync::Arc;

use schema::limits::GROUP_MEMBERS_MAX;
use schema::{ConvId, Seq, UserId};

use crate::connection::Connection;
use crate::dao::{ConversationDao, CursorDao, FriendDao, IdDao, IdName, MessageDao, UserDao, conversation};
use crate::entity::{
    Body, Change, Entry, Event, Group, Invitation, Kind, ListedGroup, Member, Role, Span, User,
};
use crate::error::{Denied, StoreError};
use crate::row::Row;

/// Makes, changes and reads groups. Every change belongs in a write job of the group's conversation.
#[derive(Debug)]
pub struct GroupDao<'a> {
    db: &'a mut Connection,
}

pub(super) const GET: &str = "SELECT conv, name, open, members FROM chat_group WHERE conv = ?";
pub(super) const INSERT: &str = "INSERT INTO chat_group (conv, name, open, members) VALUES (?, ?, ?, 1)";
pub(super) const COUNT: &str = "UPDATE chat_group SET members = members + ? WHERE conv = ?";
pub(super) const SET_NAME: &str = "UPDATE chat_group SET name = ? WHERE conv = ?";
pub(super) const LOCK: &str = "SELECT last_seq FROM conversation WHERE id = ?";
pub(super) const ADVANCE: &str =
    "UPDATE conversation SET last_seq = ?, members_version = members_version + 1 WHERE id = ?";
pub(super) const INSERT_SPAN: &str =
    "INSERT INTO span (conv, user, from_seq, to_seq, role) VALUES (?, ?, ?, ?, ?)";
pub(super) const END_SPAN: &str = "UPDATE span SET to_seq = ? WHERE conv = ? AND user = ? AND from_seq = ?";
pub(super) const SET_ROLE: &str = "UPDATE span SET role = ? WHERE conv = ? AND user = ? AND from_seq = ?";
pub(super) const INSERT_MEMBER: &str =
    "INSERT INTO member (user, conv, delivered_seq, read_seq, own_seq) VALUES (?, ?, ?, ?, ?)";
pub(super) const MEMBER: &str = "SELECT s.user, u.name, s.role, s.from_seq
    FROM span s JOIN user u ON u.id = s.user WHERE s.conv = ? AND s.to_seq = ? AND s.user = ?";
pub(super) const MEMBERS: &str = "SELECT s.user, u.name, s.role, s.from_seq
    FROM span s JOIN user u ON u.id = s.user WHERE s.conv = ? AND s.to_seq = ? AND s.user > ?
    ORDER BY s.user LIMIT ?";
pub(super) const GROUPS: &str = "SELECT g.conv, g.name, g.open, g.members, s.role
    FROM span s JOIN chat_group g ON g.conv = s.conv WHERE s.user = ? AND s.to_seq = ? AND s.conv > ?
    ORDER BY s.conv LIMIT ?";
pub(super) const INVITED: &str = "SELECT g.conv, g.name, g.open, g.members
    FROM invitation i JOIN chat_group g ON g.conv = i.conv WHERE i.user = ? AND i.conv > ? AND g.members > 0
    ORDER BY i.conv LIMIT ?";
pub(super) const INVITATION: &str = "SELECT inviter FROM invitation WHERE user = ? AND conv = ?";
pub(super) const INVITATIONS: &str = "SELECT i.conv, g.name, i.inviter, u.name
    FROM invitation i JOIN chat_group g ON g.conv = i.conv JOIN user u ON u.id = i.inviter
    WHERE i.user = ? AND g.members > 0 ORDER BY i.conv LIMIT ?";
pub(super) const INVITE: &str =
    "INSERT INTO invitation (user, conv, inviter, created_ms) VALUES (?, ?, ?, ?)";
pub(super) const UNINVITE_ALL: &str = "DELETE FROM invitation WHERE user = ?";
pub(super) const UNINVITE: &str = "DELETE FROM invitation WHERE user = ? AND conv = ?";

/// Invitations that are told of at a login: beyond them they are in the list of groups.
const INVITATIONS_MAX: i64 = 200;
/// Members that are looked at at once for a new owner.
const MEMBERS_AT_ONCE: u32 = 1_000;

impl<'a> GroupDao<'a> {
    /// On this connection.
    pub fn new(db: &'a mut Connection) -> Self {
        Self { db }
    }

    /// The group with this id; `None` when there is none, or all have left it.
    ///
    /// # Errors
    /// The engine's.
    pub fn get(&mut self, conv: ConvId) -> Result<Option<Group>, StoreError> {
        Ok(self.db.query_row(GET, &[conv.into()], group)?.filter(|group| group.members > 0))
    }

    /// Who the user is in the group; `None` for who is not in it now.
    ///
    /// # Errors
    /// The engine's.
    pub fn member(&mut self, conv: ConvId, user: UserId) -> Result<Option<Member>, StoreError> {
        self.db.query_row(MEMBER, &[conv.into(), Seq::MAX.into(), user.into()], member)
    }

    /// Who is in it, in order of their ids, after the id `after`.
    ///
    /// # Errors
    /// The engine's.
    pub fn members(
        &mut self,
        conv: ConvId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Member>, StoreError> {
        let after = after.map_or(0, UserId::as_i64);
        let params = [conv.into(), Seq::MAX.into(), after.into(), i64::from(limit).into()];
        self.db.query(MEMBERS, &params, member)
    }

    /// The groups that the user is in or invited to, in order of their ids, after the id `after`.
    ///
    /// # Errors
    /// The engine's.
    pub fn list(
        &mut self,
        user: UserId,
        after: Option<ConvId>,
        limit: u32,
    ) -> Result<Vec<ListedGroup>, StoreError> {
        let (after, limit_row) = (after.map_or(0, ConvId::as_i64), i64::from(limit).into());
        let params = [user.into(), Seq::MAX.into(), after.into(), limit_row];
        let mut all = self.db.query(GROUPS, &params, |row| {
            Ok(ListedGroup { group: group(row)?, role: Some(role(row, 4)?) })
        })?;
        all.extend(self.db.query(INVITED, &[user.into(), after.into(), limit_row], |row| {
            Ok(ListedGroup { group: group(row)?, role: None })
        })?);
        all.sort_unstable_by_key(|listed| listed.group.conv);
        all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(all)
    }

    /// The user's open invitations, the first 200 of them.
    ///
    /// # Errors
    /// The engine's.
    pub fn invitations(&mut self, user: UserId) -> Result<Vec<Invitation>, StoreError> {
        self.db.query(INVITATIONS, &[user.into(), INVITATIONS_MAX.into()], |row| {
            Ok(Invitation {
                conv: row.get(0)?,
                name: row.get(1)?,
                inviter: row.get(2)?,
                inviter_name: row.get(3)?,
            })
        })
    }

    /// Some of the groups that the user is in.
    ///
    /// # Errors
    /// The engine's.
    pub fn member_of(&mut self, user: UserId, limit: u32) -> Result<Vec<ConvId>, StoreError> {
        let params = [user.into(), Seq::MAX.into(), 0.into(), i64::from(limit).into()];
        self.db.query(GROUPS, &params, |row| row.get(0))
    }

    /// Takes back all invitations of the user.
    ///
    /// # Errors
    /// The engine's.
    pub fn uninvite_all(&mut self, user: UserId) -> Result<(), StoreError> {
        self.db.execute(UNINVITE_ALL, &[user.into()]).map(drop)
    }

    /// Makes a group with `owner` as its only member.
    ///
    /// # Errors
    /// The engine's.
    pub fn create(
        &mut self,
        owner: UserId,
        name: &str,
        open: bool,
        now_ms: i64,
    ) -> Result<Result<ConvId, Denied>, StoreError> {
        let Some(owner) = UserDao::new(self.db).by_id(owner)? else { return Ok(Err(Denied::NotFound)) };
        let id = IdDao::new(self.db).take(IdName::Conv, 1)?;
        let conv = ConvId::new(id).ok_or_else(|| StoreError::internal("conversation ids are used up"))?;
        let nobody: Option<UserId> = None;
        let row = [conv.into(), Kind::Group.as_i64().into(), nobody.into(), nobody.into(), now_ms.into()];
        self.db.execute(conversation::INSERT, &row)?;
        self.db.execute(INSERT, &[conv.into(), name.into(), i64::from(open).into()])?;
        let event = Event { user: owner.id, change: Change::Created(name.into()) };
        let seq = self.append(conv, Seq::ZERO, &owner, event, now_ms)?;
        self.begin_span(conv, owner.id, seq, Role::Owner)?;
        Ok(Ok(conv))
    }

    /// The user joins, by an invitation or because the group is open.
    ///
    /// # Errors
    /// The engine's.
    pub fn join(
        &mut self,
        conv: ConvId,
        user: UserId,
        now_ms: i64,
    ) -> Result<Result<Seq, Denied>, StoreError> {
        let Some((group, last)) = self.lock(conv)? else { return Ok(Err(Denied::NotFound)) };
        let Some(user) = UserDao::new(self.db).by_id(user)? else { return Ok(Err(Denied::NotFound)) };
        if self.member(conv, user.id)?.is_some() {
            return Ok(Err(Denied::Conflict("you are in this group already")));
        }
        let invited = self.db.query_row(INVITATION, &[user.id.into(), conv.into()], |_| Ok(()))?.is_some();
        if !invited && !group.open {
            return Ok(Err(Denied::Forbidden("this group is joined by invitation only")));
        }
        if group.members >= GROUP_MEMBERS_MAX {
            return Ok(Err(Denied::Forbidden("this group is full")));
        }
        if invited {
            self.db.execute(UNINVITE, &[user.id.into(), conv.into()])?;
        }
        self.db.execute(COUNT, &[1.into(), conv.into()])?;
        let event = Event { user: user.id, change: Change::Joined };
        let seq = self.append(conv, last, &user, event, now_ms)?;
        self.begin_span(conv, user.id, seq, Role::Member)?;
        Ok(Ok(seq))
    }

    /// The user leaves. When it was the owner, the oldest admin, else the oldest member, becomes owner.
    ///
    /// # Errors
    /// The engine's.
    pub fn leave(
        &mut self,
        conv: ConvId,
        user: UserId,
        now_ms: i64,
    ) -> Result<Result<(), Denied>, StoreError> {
        let Some((_, last)) = self.lock(conv)? else { return Ok(Err(Denied::NotFound)) };
        let Some(leaving) = self.member(conv, user)? else { return Ok(Err(Denied::NOT_A_MEMBER)) };
        let seq = self.end_membership(conv, last, &leaving, &leaving, Change::Left, now_ms)?;
        if leaving.role == Role::Owner
            && let Some(heir) = self.heir(conv)?
        {
            self.give_role(conv, seq, &leaving, &heir, Role::Owner, now_ms)?;
        }
        Ok(Ok(()))
    }

    /// `by` makes `user` leave.
    ///
    /// # Errors
    /// The engine's.
    pub fn kick(
        &mut self,
        conv: ConvId,
        by: UserId,
        user: UserId,
        now_ms: i64,
    ) -> Result<Result<(), Denied>, StoreError> {
        let (last, by) = match self.lock_as(conv, by, Role::Admin)? {
            Ok(found) => found,
            Err(denied) => return Ok(Err(denied)),
        };
        if by.user == user {
            return Ok(Err(Denied::BadRequest("leave the group to be out of it")));
        }
        let Some(kicked) = self.member(conv, user)? else { return Ok(Err(Denied::NotFound)) };
        if kicked.role == Role::Owner {
            return Ok(Err(Denied::Forbidden("the owner cannot be kicked")));
        }
        self.end_membership(conv, last, &by, &kicked, Change::Kicked(Arc::clone(&kicked.name)), now_ms)?;
        Ok(Ok(()))
    }

    /// `by` gives `user` a role. Who makes another the owner becomes an admin.
    ///
    /// # Errors
    /// The engine's.
    pub fn set_role(
        &mut self,
        conv: ConvId,
        by: UserId,
        user: UserId,
        role: Role,
        now_ms: i64,
    ) -> Result<Result<(), Denied>, StoreError> {
        let (last, by) = match self.lock_as(conv, by, Role::Owner)? {
            Ok(found) => found,
            Err(denied) => return Ok(Err(denied)),
        };
        if by.user == user {
            return Ok(Err(Denied::BadRequest("make another the owner to be none")));
        }
        let Some(target) = self.member(conv, user)? else { return Ok(Err(Denied::NotFound)) };
        if target.role == role {
            return Ok(Ok(()));
        }
        let mut last = last;
        if role == Role::Owner {
            last = self.give_role(conv, last, &by, &by, Role::Admin, now_ms)?;
        }
        self.give_role(conv, last, &by, &target, role, now_ms)?;
        Ok(Ok(()))
    }

    /// `by` gives the group another name.
    ///
    /// # Errors
    /// The engine's.
    pub fn rename(
        &mut self,
        conv: ConvId,
        by: UserId,
        name: &str,
        now_ms: i64,
    ) -> Result<Result<(), Denied>, StoreError> {
        let (last, by) = match self.lock_as(conv, by, Role::Admin)? {
            Ok(found) => found,
            Err(denied) => return Ok(Err(denied)),
        };
        self.db.execute(SET_NAME, &[name.into(), conv.into()])?;
        let event = Event { user: by.user, change: Change::Renamed(name.into()) };
        self.append(conv, last, &by.into(), event, now_ms)?;
        Ok(Ok(()))
    }

    /// `by` invites `user`. A second invitation is the same as the first.
    ///
    /// # Errors
    /// The engine's.
    pub fn invite(
        &mut self,
        conv: ConvId,
        by: UserId,
        user: UserId,
        now_ms: i64,
    ) -> Result<Result<Invitation, Denied>, StoreError> {
        let by = match self.lock_as(conv, by, Role::Admin)? {
            Ok((_, by)) => by,
            Err(denied) => return Ok(Err(denied)),
        };
        let Some(guest) = UserDao::new(self.db).by_id(user)? else { return Ok(Err(Denied::NotFound)) };
        if FriendDao::new(self.db).is_blocked(by.user, guest.id)? {
            return Ok(Err(Denied::Forbidden("one of you has blocked the other")));
        }
        if self.member(conv, guest.id)?.is_some() {
            return Ok(Err(Denied::Conflict("this user is in the group already")));
        }
        let Some(group) = self.get(conv)? else { return Ok(Err(Denied::NotFound)) };
        let keys = [guest.id.into(), conv.into()];
        if self.db.query_row(INVITATION, &keys, |_| Ok(()))?.is_none() {
            self.db.execute(INVITE, &[guest.id.into(), conv.into(), by.user.into(), now_ms.into()])?;
        }
        Ok(Ok(Invitation { conv, name: group.name, inviter: by.user, inviter_name: by.name }))
    }

    /// The group and the place of its last entry, locked against every other writer until the transaction ends.
    fn lock(&mut self, conv: ConvId) -> Result<Option<(Group, Seq)>, StoreError> {
        let sql = self.db.for_update(LOCK);
        let last = self.db.query_row(&sql, &[conv.into()], |row| row.get(0))?;
        let (Some(last), Some(group)) = (last, self.get(conv)?) else { return Ok(None) };
        Ok(Some((group, last)))
    }

    /// Locks the group for one of its members, who has at least this role.
    fn lock_as(
        &mut self,
        conv: ConvId,
        by: UserId,
        least: Role,
    ) -> Result<Result<(Seq, Member), Denied>, StoreError> {
        let Some((_, last)) = self.lock(conv)? else { return Ok(Err(Denied::NotFound)) };
        Ok(match self.member(conv, by)? {
            None => Err(Denied::NOT_A_MEMBER),
            Some(by) if by.role < least => {
                Err(Denied::Forbidden("your role in this group does not allow it"))
            }
            Some(by) => Ok((last, by)),
        })
    }

    fn heir(&mut self, conv: ConvId) -> Result<Option<Member>, StoreError> {
        let mut best: Option<Member> = None;
        let mut after = None;
        loop {
            let some = self.members(conv, after, MEMBERS_AT_ONCE)?;
            after = some.last().map(|member| member.user);
            let older = |one: &Member| (std::cmp::Reverse(one.role), one.since);
            best = some.into_iter().chain(best).min_by_key(older);
            if after.is_none() {
                return Ok(best);
            }
        }
    }

    fn give_role(
        &mut self,
        conv: ConvId,
        last: Seq,
        by: &Member,
        to: &Member,
        role: Role,
        now_ms: i64,
    ) -> Result<Seq, StoreError> {
        let keys = [role.as_i64().into(), conv.into(), to.user.into(), to.since.into()];
        self.db.execute(SET_ROLE, &keys)?;
        let event = Event { user: to.user, change: Change::Role(role, Arc::clone(&to.name)) };
        self.append(conv, last, &by.clone().into(), event, now_ms)
    }

    fn end_membership(
        &mut self,
        conv: ConvId,
        last: Seq,
        by: &Member,
        gone: &Member,
        change: Change,
        now_ms: i64,
    ) -> Result<Seq, StoreError> {
        let seq = self.append(conv, last, &by.clone().into(), Event { user: gone.user, change }, now_ms)?;
        self.db.execute(END_SPAN, &[seq.into(), conv.into(), gone.user.into(), gone.since.into()])?;
        self.db.execute(COUNT, &[(-1).into(), conv.into()])?;
        Ok(seq)
    }

    /// A user sees the group from here on, and its stream begins here, unless there is still something of an older span to come.
    fn begin_span(&mut self, conv: ConvId, user: UserId, from: Seq, role: Role) -> Result<(), StoreError> {
        let row = [conv.into(), user.into(), from.into(), Seq::MAX.into(), role.as_i64().into()];
        self.db.execute(INSERT_SPAN, &row)?;
        if CursorDao::new(self.db).get(user, conv)?.is_none() {
            let before = from.prev();
            let row = [user.into(), conv.into(), before.into(), before.into(), from.into()];
            self.db.execute(INSERT_MEMBER, &row)?;
        }
        CursorDao::new(self.db).set_own(user, conv, from)
    }

    /// Writes an entry after `last`, and tells the pipeline of it.
    fn append(
        &mut self,
        conv: ConvId,
        last: Seq,
        by: &User,
        event: Event,
        now_ms: i64,
    ) -> Result<Seq, StoreError> {
        let seq = last.next();
        let entry = Entry {
            conv,
            seq,
            sender: by.id,
            sender_name: Arc::clone(&by.name),
            to: None,
            session: None,
            body: Body::Event(event),
            time_ms: now_ms,
        };
        MessageDao::new(self.db).insert(&entry)?;
        self.db.execute(ADVANCE, &[seq.into(), conv.into()])?;
        CursorDao::new(self.db).set_own(by.id, conv, seq)?;
        self.db.wrote_entry(entry);
        Ok(seq)
    }

    /// What the user may see of the group, in order.
    ///
    /// # Errors
    /// The engine's.
    pub fn spans(&mut self, conv: ConvId, user: UserId) -> Result<Vec<Span>, StoreError> {
        match ConversationDao::new(self.db).get(conv)? {
            Some(found) => ConversationDao::new(self.db).spans(&found, user),
            None => Ok(Vec::new()),
        }
    }
}

impl From<Member> for User {
    fn from(member: Member) -> Self {
        Self { id: member.user, name: member.name, created_ms: 0 }
    }
}

fn group(row: &Row<'_>) -> Result<Group, StoreError> {
    Ok(Group { conv: row.get(0)?, name: row.get(1)?, open: row.get::<i64>(2)? != 0, members: row.get(3)? })
}

fn member(row: &Row<'_>) -> Result<Member, StoreError> {
    Ok(Member { user: row.get(0)?, name: row.get(1)?, role: role(row, 2)?, since: row.get(3)? })
}

fn role(row: &Row<'_>, at: usize) -> Result<Role, StoreError> {
    let number = row.get(at)?;
    Role::from_i64(number).ok_or_else(|| StoreError::corrupt(format!("group role {number}")))
}
