//! The fields of the requests about groups.

use std::borrow::Cow;

use serde::Deserialize;

use super::{BadLine, Page, Request, UserField, UserRef, after, limit};
use crate::group::Role;
use crate::ids::{ConvId, UserId};
use crate::text::GroupName;

fn group_name(text: Cow<'_, str>) -> Result<GroupName<'_>, BadLine> {
    GroupName::new(text)
        .ok_or_else(|| BadLine::bad_request("a group's name is 1 to 64 characters, none a control character"))
}

#[derive(Deserialize)]
pub(super) struct CreateBody<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    open: Option<bool>,
}

impl<'a> CreateBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::GroupCreate { name: group_name(self.name)?, open: self.open.unwrap_or(false) })
    }
}

/// A group and one of its users, or somebody who is to become one.
#[derive(Deserialize)]
pub(super) struct MemberBody<'a> {
    conv: ConvId,
    #[serde(borrow)]
    user: UserField<'a>,
}

impl<'a> MemberBody<'a> {
    pub(super) fn check(self) -> Result<(ConvId, UserRef<'a>), BadLine> {
        Ok((self.conv, self.user.check()?))
    }
}

#[derive(Deserialize)]
pub(super) struct RoleBody<'a> {
    conv: ConvId,
    #[serde(borrow)]
    user: UserField<'a>,
    // Not an enum: serde_json takes one that is a number for a fault of the JSON.
    #[serde(borrow)]
    role: Cow<'a, str>,
}

impl<'a> RoleBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        let role = Role::from_word(&self.role)
            .ok_or_else(|| BadLine::bad_request("`role` must be `owner`, `admin` or `member`"))?;
        Ok(Request::GroupRole { conv: self.conv, user: self.user.check()?, role })
    }
}

#[derive(Deserialize)]
pub(super) struct RenameBody<'a> {
    conv: ConvId,
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl<'a> RenameBody<'a> {
    pub(super) fn check(self) -> Result<Request<'a>, BadLine> {
        Ok(Request::GroupRename { conv: self.conv, name: group_name(self.name)? })
    }
}

#[derive(Deserialize)]
pub(super) struct MembersBody {
    conv: ConvId,
    after: Option<u64>,
    limit: Option<u64>,
}

impl MembersBody {
    pub(super) fn check(self) -> Result<Request<'static>, BadLine> {
        let page = Page { after: after(self.after, UserId::new)?, limit: limit(self.limit)? };
        Ok(Request::GroupMembers { conv: self.conv, page })
    }
}

/// A list in increasing order of groups.
#[derive(Deserialize)]
pub(super) struct GroupPageBody {
    after: Option<u64>,
    limit: Option<u64>,
}

impl GroupPageBody {
    pub(super) fn check(self) -> Result<Page<ConvId>, BadLine> {
        Ok(Page { after: after(self.after, ConvId::new)?, limit: limit(self.limit)? })
    }
}
