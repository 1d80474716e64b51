//! `history` and `conversations`: what the store knows, a line at a time.

use std::borrow::Cow;

use reactor::ConnId;
use schema::limits::LINE_BYTES_MAX;
use schema::reply::{ConversationInfo, Conversations, History, Kind, write_ok_with};
use schema::request::{Bound, RequestId};
use schema::{ConvId, Seq, UserId};
use serde::Serialize;
use store::dao::{ConversationDao, MessageDao, PageLimit};
use store::{Connection, Conversation, Page, Span};

use super::{ChatService, Cx};
use crate::post::Refused;
use crate::sink::message;

/// Bytes of a list reply that are not its items.
const ENVELOPE_BYTES: usize = 256;

/// A `history` request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) user: UserId,
    pub(super) conv: ConvId,
    pub(super) bound: Bound,
    pub(super) limit: usize,
}

impl ChatService {
    pub(super) fn history(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, asked: Asked) {
        self.query(cx, conn, id, move |db, id| {
            let (_, spans) = visible(db, asked.conv, asked.user)?;
            page(db, id, asked, &spans)
        });
    }

    pub(super) fn conversations(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        id: Option<RequestId>,
        user: UserId,
        after: Option<ConvId>,
        limit: usize,
    ) {
        self.query(cx, conn, id, move |db, id| {
            // One more than asked for tells whether there are more.
            let wanted = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
            let listed = ConversationDao::new(db).list(user, after, wanted)?;
            let infos: Vec<_> = listed.iter().take(limit).map(info).collect();
            let fit = fitting(infos.iter());
            let more = fit < listed.len();
            let mut line = Vec::new();
            let conversations = infos.into_iter().take(fit).collect();
            write_ok_with(id, &Conversations { conversations, more }, &mut line);
            Ok(line)
        });
    }
}

/// The conversation, and what the user may see of it.
pub(super) fn visible(
    db: &mut Connection,
    conv: ConvId,
    user: UserId,
) -> Result<(Conversation, Vec<Span>), Refused> {
    let mut dao = ConversationDao::new(db);
    let found = dao.get(conv)?.ok_or(Refused::NO_CONVERSATION)?;
    let spans = dao.spans(&found, user)?;
    if spans.is_empty() { Err(Refused::NOT_A_MEMBER) } else { Ok((found, spans)) }
}

/// The parts of the spans from one place to another.
fn within(spans: &[Span], from: Seq, to: Seq) -> Vec<Span> {
    let cut = |span: &Span| Span { from: span.from.max(from), to: span.to.min(to) };
    spans.iter().map(cut).filter(|span| span.from <= span.to).collect()
}

fn page(db: &mut Connection, id: RequestId, asked: Asked, spans: &[Span]) -> Result<Vec<u8>, Refused> {
    let limit = PageLimit { entries: u32::try_from(asked.limit).unwrap_or(u32::MAX), bytes: LINE_BYTES_MAX };
    let mut dao = MessageDao::new(db);
    let page = match asked.bound {
        Bound::Last => dao.before_in(asked.conv, spans, limit)?,
        Bound::Before(Seq::ZERO) => Page::default(),
        Bound::Before(seq) => dao.before_in(asked.conv, &within(spans, Seq::ZERO, seq.prev()), limit)?,
        Bound::After(Seq::MAX) => Page::default(),
        Bound::After(seq) => dao.after_in(asked.conv, &within(spans, seq.next(), Seq::MAX), limit)?,
    };
    let mut messages: Vec<_> = page.entries.iter().map(message).collect();
    // What does not fit the line is left off at the end that is far from the bound.
    let fit = match asked.bound {
        Bound::After(_) => fitting(messages.iter()),
        Bound::Last | Bound::Before(_) => fitting(messages.iter().rev()),
    };
    let more = page.more || fit < messages.len();
    match asked.bound {
        Bound::After(_) => messages.truncate(fit),
        Bound::Last | Bound::Before(_) => {
            messages.drain(..messages.len() - fit);
        }
    }
    let mut line = Vec::new();
    write_ok_with(id, &History { messages, more }, &mut line);
    Ok(line)
}

/// How many items fit a line.
pub(super) fn fitting<'a, T: Serialize + 'a>(items: impl Iterator<Item = &'a T>) -> usize {
    let mut bytes = ENVELOPE_BYTES;
    let mut count = 0;
    for item in items {
        // With its comma.
        bytes += serde_json::to_vec(item).map_or(LINE_BYTES_MAX, |json| json.len() + 1);
        if bytes > LINE_BYTES_MAX {
            break;
        }
        count += 1;
    }
    count
}

fn info(listed: &store::Listed) -> ConversationInfo<'_> {
    ConversationInfo {
        conv: listed.conv,
        kind: if listed.kind == store::Kind::Group { Kind::Group } else { Kind::Direct },
        name: Cow::Borrowed(&listed.name),
        user: listed.peer,
        last_seq: listed.last_seq,
        delivered: listed.delivered,
        read: listed.read,
        unread: listed.unread,
    }
}
