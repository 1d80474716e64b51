//! The fields of the requests about conversations and messages.

use std::borrow::Cow;

use serde::Deserialize;

use super::{BadLine, Bound, Request, RequestId, Target, UserField, after, limit};
use crate::error::ErrorCode;
use crate::ids::{ConvId, Seq};
use crate::text::{TextFault, check_text, is_client_id};

#[derive(Deserialize)]
pub(super) struct SendBody<'a> {
    #[serde(borrow)]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<UserField<'a>>,
    conv: Option<ConvId>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl<'a> SendBody<'a> {
    pub(super) fn check(self, id: Option<RequestId>) -> Result<Request<'a>, BadLine> {
        if id.is_none() {
            return Err(BadLine::bad_request("a `send` needs an `id`"));
        }
        let target = match (self.user, self.conv) {
            (Some(user), None) => Target::User(user.check()?),
            (None, Some(conv)) => Target::Conv(conv),
            _ => return Err(BadLine::bad_request("a `send` needs either `user` or `conv`")),
        };
        if self.client_id.as_deref().is_some_and(|id| !is_client_id(id)) {
            return Err(BadLine::bad_request("`client_id` is 1 to 64 printable ASCII characters"));
        }
        check_text(&self.text).map_err(|fault| match fault {
            TextFault::Empty => BadLine::bad_request("`text` is empty"),
            TextFault::Control => {
                BadLine::bad_request("`text` has a control character other than newline and tab")
            }
            TextFault::TooLarge => BadLine::new(ErrorCode::TooLarge, "`text` has more than 16384 bytes"),
        })?;
        Ok(Request::Send { client_id: self.client_id, target, text: self.text })
    }
}

#[derive(Deserialize)]
pub(super) struct CursorBody {
    pub(super) conv: ConvId,
    pub(super) seq: Seq,
}

#[derive(Deserialize)]
pub(super) struct HistoryBody {
    conv: ConvId,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<u64>,
}

impl HistoryBody {
    pub(super) fn check(self) -> Result<Request<'static>, BadLine> {
        let bound = match (self.before, self.after) {
            (None, None) => Bound::Last,
            (Some(before), None) => Bound::Before(before),
            (None, Some(after)) => Bound::After(after),
            (Some(_), Some(_)) => {
                return Err(BadLine::bad_request("a history has either `before` or `after`"));
            }
        };
        Ok(Request::History { conv: self.conv, bound, limit: limit(self.limit)? })
    }
}

#[derive(Deserialize)]
pub(super) struct ConversationsBody {
    after: Option<u64>,
    limit: Option<u64>,
}

impl ConversationsBody {
    pub(super) fn check(self) -> Result<Request<'static>, BadLine> {
        Ok(Request::Conversations { after: after(self.after, ConvId::new)?, limit: limit(self.limit)? })
    }
}
