//! The fields of the requests about friends and blocks.

use serde::Deserialize;

use super::{BadLine, Page, UserField, UserRef, after, limit};
use crate::ids::UserId;

/// A request that names a user and nothing else.
#[derive(Deserialize)]
pub(super) struct UserBody<'a> {
    #[serde(borrow)]
    user: UserField<'a>,
}

impl<'a> UserBody<'a> {
    pub(super) fn check(self) -> Result<UserRef<'a>, BadLine> {
        self.user.check()
    }
}

/// A list in increasing order of users.
#[derive(Deserialize)]
pub(super) struct UserPageBody {
    after: Option<u64>,
    limit: Option<u64>,
}

impl UserPageBody {
    pub(super) fn check(self) -> Result<Page<UserId>, BadLine> {
        Ok(Page { after: after(self.after, UserId::new)?, limit: limit(self.limit)? })
    }
}
