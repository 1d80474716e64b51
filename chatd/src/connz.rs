//! `/connz`: who is connected, since when and from where, and why the last connections ended. Each loop tells of its own; the admin listener puts them together.

use std::collections::VecDeque;

use reactor::{ConnId, ServiceHandle};
use schema::{SessionId, UserId};
use serde::Serialize;

/// Connections that a page lists; the numbers count all of them.
pub(crate) const LISTED_MAX: usize = 1_024;
/// Ended connections that are remembered.
pub(crate) const CLOSED_MAX: usize = 1_000;

/// A connection that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OpenConn {
    pub(crate) loop_index: u16,
    pub(crate) address: String,
    pub(crate) opened_ms: u64,
    /// Since its last line.
    pub(crate) silent_ms: u64,
    pub(crate) user: Option<UserId>,
    pub(crate) session: Option<SessionId>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) lines_in: u64,
    /// Bytes that wait for the client to read.
    pub(crate) unsent: usize,
    /// Pushes that it has not acked.
    pub(crate) unacked: usize,
    /// Conversations in which it lags.
    pub(crate) lagging: usize,
    pub(crate) unanswered: usize,
}

/// A connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClosedConn {
    pub(crate) address: String,
    pub(crate) user: Option<UserId>,
    pub(crate) opened_ms: u64,
    pub(crate) closed_ms: u64,
    pub(crate) reason: String,
}

/// What one loop tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) connections: usize,
    pub(crate) open: Vec<OpenConn>,
    pub(crate) closed: Vec<ClosedConn>,
}

/// Who asked, and where to answer.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) conn: ConnId,
    pub(crate) handle: ServiceHandle<Told>,
}

/// What a loop tells of its connections.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) conn: ConnId,
    pub(crate) part: Part,
}

/// The connections of a loop that ended last.
#[derive(Debug, Default)]
pub(crate) struct Closed(VecDeque<ClosedConn>);

impl Closed {
    pub(crate) fn note(&mut self, closed: ClosedConn) {
        if self.0.len() >= CLOSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(closed);
    }

    pub(crate) fn all(&self) -> Vec<ClosedConn> {
        self.0.iter().cloned().collect()
    }
}

/// The whole page.
#[derive(Debug, Serialize)]
struct Page {
    connections: usize,
    listed: usize,
    open: Vec<OpenConn>,
    closed: Vec<ClosedConn>,
}

/// The page as JSON: who has been connected longest first, who has ended last first.
pub(crate) fn page(parts: Vec<Part>) -> String {
    let connections = parts.iter().map(|part| part.connections).sum();
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for part in parts {
        open.extend(part.open);
        closed.extend(part.closed);
    }
    open.sort_by_key(|conn| conn.opened_ms);
    open.truncate(LISTED_MAX);
    closed.sort_by_key(|conn| std::cmp::Reverse(conn.closed_ms));
    closed.truncate(CLOSED_MAX);
    let page = Page { connections, listed: open.len(), open, closed };
    serde_json::to_string(&page).unwrap_or_default() + "\n"
}
