//! A committed entry as the loops see it pass: what decides where its line goes.

use schema::{ConvId, Seq, SessionId, UserId};
use store::{Body, Change, Entry, Event};

/// An entry, without what only its line has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) conv: ConvId,
    pub(crate) seq: Seq,
    /// The session on this node that wrote it.
    pub(crate) session: Option<SessionId>,
    /// The two of a direct conversation, the smaller id first.
    pub(crate) pair: Option<[UserId; 2]>,
    /// Whose coming to a group, or going from it, the entry tells.
    pub(crate) moved: Option<Moved>,
}

/// A change of who is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    In(UserId),
    Out(UserId),
}

impl From<&Entry> for Passing {
    fn from(entry: &Entry) -> Self {
        let pair = entry.to.as_ref().map(|(to, _)| [entry.sender.min(*to), entry.sender.max(*to)]);
        let moved = match &entry.body {
            Body::Event(Event { user, change: Change::Created(_) | Change::Joined }) => {
                Some(Moved::In(*user))
            }
            Body::Event(Event { user, change: Change::Left | Change::Kicked(_) }) => Some(Moved::Out(*user)),
            _ => None,
        };
        Self { conv: entry.conv, seq: entry.seq, session: entry.session, pair, moved }
    }
}
