//! Groups: making, joining, leaving, inviting, kicking, roles, names, and who is in them.

use std::borrow::Cow;
use std::sync::Arc;

use reactor::ConnId;
use schema::group::{GroupCreated, GroupInfo, GroupMembers, Groups, MemberInfo, Role};
use schema::reply::{Push, write_ok_with};
use schema::request::{Page, Request, RequestId};
use schema::text::GroupName;
use schema::{ConvId, UserId};
use store::dao::GroupDao;
use store::{Connection, Denied, Invitation, StoreError};

use super::friends::{find, one_more, peer};
use super::history::fitting;
use super::{Changed, ChatService, Cx, now_ms};
use crate::post::{PeerKey, Refused};
use crate::sink::role;

/// Whether the request is about groups.
pub(super) const fn is_one(request: &Request<'_>) -> bool {
    use Request as R;
    matches!(
        request,
        R::GroupCreate { .. }
            | R::GroupJoin { .. }
            | R::GroupLeave { .. }
            | R::GroupInvite { .. }
            | R::GroupKick { .. }
            | R::GroupRole { .. }
            | R::GroupRename { .. }
            | R::GroupMembers { .. }
            | R::Groups { .. }
    )
}

/// An invitation as it is pushed.
pub(super) fn invite(invitation: &Invitation) -> Push<'_> {
    Push::Invite {
        conv: invitation.conv,
        name: Cow::Borrowed(&invitation.name),
        from: invitation.inviter,
        from_name: Cow::Borrowed(&invitation.inviter_name),
    }
}

impl ChatService {
    pub(super) fn groups_request(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        request: Request<'_>,
    ) {
        match request {
            Request::GroupCreate { name, open } => self.create_group(cx, conn, id, user, name, open),
            Request::GroupJoin { conv } => self.change_group(cx, conn, id, conv, move |db, now| {
                Ok(GroupDao::new(db).join(conv, user, now)?.map(drop))
            }),
            Request::GroupLeave { conv } => {
                self.change_group(cx, conn, id, conv, move |db, now| {
                    GroupDao::new(db).leave(conv, user, now)
                });
            }
            Request::GroupRename { conv, name } => {
                let name = name.into_text().into_owned();
                self.change_group(cx, conn, id, conv, move |db, now| {
                    GroupDao::new(db).rename(conv, user, &name, now)
                });
            }
            Request::GroupInvite { conv, user: guest } => {
                self.invite_to_group(cx, conn, id, user, conv, peer(&guest));
            }
            Request::GroupKick { conv, user: member } => {
                let member = peer(&member);
                self.change_group(cx, conn, id, conv, move |db, now| match find(db, &member)? {
                    Some(member) => GroupDao::new(db).kick(conv, user, member.id, now),
                    None => Ok(Err(Denied::NotFound)),
                });
            }
            Request::GroupRole { conv, user: member, role } => {
                let (member, role) = (peer(&member), stored(role));
                self.change_group(cx, conn, id, conv, move |db, now| match find(db, &member)? {
                    Some(member) => GroupDao::new(db).set_role(conv, user, member.id, role, now),
                    None => Ok(Err(Denied::NotFound)),
                });
            }
            Request::GroupMembers { conv, page } => self.list_members(cx, conn, id, user, conv, page),
            Request::Groups { page } => self.list_groups(cx, conn, id, user, page),
            _ => {}
        }
    }

    /// Runs a change of a group in its place among the group's messages.
    fn change_group(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        conv: ConvId,
        mut change: impl FnMut(&mut Connection, i64) -> Result<Result<(), Denied>, StoreError> + Send + 'static,
    ) {
        self.change(cx, conn, id, Some(conv), move |db, id| {
            Ok(change(db, now())?.map(|()| Changed::plain(id)).map_err(Refused::from))
        });
    }

    fn create_group(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        name: GroupName<'_>,
        open: bool,
    ) {
        let name = name.into_text().into_owned();
        self.change(cx, conn, id, None, move |db, id| {
            let made = GroupDao::new(db).create(user, &name, open, now())?;
            Ok(made.map(|conv| Changed::with(id, &GroupCreated { conv })).map_err(Refused::from))
        });
    }

    fn invite_to_group(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        conv: ConvId,
        guest: PeerKey,
    ) {
        self.change(cx, conn, id, Some(conv), move |db, id| {
            let Some(guest) = find(db, &guest)? else { return Ok(Err(Refused::NO_USER)) };
            let invited = GroupDao::new(db).invite(conv, user, guest.id, now())?;
            Ok(invited
                .map(|invitation| Changed::plain(id).telling(guest.id, &invite(&invitation)))
                .map_err(Refused::from))
        });
    }

    fn list_members(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        conv: ConvId,
        page: Page<UserId>,
    ) {
        let node = Arc::clone(&self.node);
        self.query(cx, conn, id, move |db, id| {
            let mut dao = GroupDao::new(db);
            if dao.get(conv)?.is_none() {
                return Err(Refused::NO_CONVERSATION);
            }
            if dao.member(conv, user)?.is_none() {
                return Err(Refused::NOT_A_MEMBER);
            }
            let listed = dao.members(conv, page.after, one_more(page.limit))?;
            let members: Vec<_> = listed
                .iter()
                .take(page.limit)
                .map(|member| MemberInfo {
                    user: member.user,
                    name: Cow::Borrowed(&member.name),
                    role: role(member.role),
                    online: node.is_online(member.user),
                })
                .collect();
            let fit = fitting(members.iter());
            let more = fit < listed.len();
            let mut line = Vec::new();
            let members = members.into_iter().take(fit).collect();
            write_ok_with(id, &GroupMembers { members, more }, &mut line);
            Ok(line)
        });
    }

    fn list_groups(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        page: Page<ConvId>,
    ) {
        self.query(cx, conn, id, move |db, id| {
            let listed = GroupDao::new(db).list(user, page.after, one_more(page.limit))?;
            let groups: Vec<_> = listed
                .iter()
                .take(page.limit)
                .map(|listed| GroupInfo {
                    conv: listed.group.conv,
                    name: Cow::Borrowed(&listed.group.name),
                    role: listed.role.map(role),
                    members: listed.group.members,
                    invited: listed.role.is_none(),
                })
                .collect();
            let fit = fitting(groups.iter());
            let more = fit < listed.len();
            let mut line = Vec::new();
            write_ok_with(id, &Groups { groups: groups.into_iter().take(fit).collect(), more }, &mut line);
            Ok(line)
        });
    }
}

fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

const fn stored(role: Role) -> store::Role {
    match role {
        Role::Owner => store::Role::Owner,
        Role::Admin => store::Role::Admin,
        Role::Member => store::Role::Member,
    }
}
