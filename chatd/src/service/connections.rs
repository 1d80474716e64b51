//! What a loop tells the operator of its connections.

use std::time::Duration;

use reactor::{CloseReason, ConnId};

use super::{ChatService, Cx, now_ms};
use crate::connz::{Asker, ClosedConn, LISTED_MAX, OpenConn, Part, Told};
use crate::session::Client;

impl ChatService {
    pub(super) fn tell_connections(&mut self, cx: &mut Cx<'_>, asker: &Asker) {
        let all = cx.open_conns();
        let open = all.iter().take(LISTED_MAX).filter_map(|conn| open(cx, *conn)).collect();
        let part = Part { connections: all.len(), open, closed: self.closed.all() };
        // An admin listener that takes no answer has ended.
        let _ = asker.handle.post(Told { conn: asker.conn, part });
    }

    pub(super) fn note_closed(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        client: &Client,
        reason: &CloseReason,
    ) {
        let now = now_ms();
        self.closed.note(ClosedConn {
            address: cx.peer(conn).map(ToString::to_string).unwrap_or_default(),
            user: client.session.as_ref().map(|session| session.user),
            opened_ms: client.opened_ms,
            closed_ms: now,
            reason: reason.to_string(),
        });
    }
}

fn open(cx: &Cx<'_>, conn: ConnId) -> Option<OpenConn> {
    let (client, stats) = (cx.conn(conn)?, cx.conn_stats(conn)?);
    let session = client.session.as_deref();
    let now = cx.now();
    Some(OpenConn {
        loop_index: conn.loop_index(),
        address: cx.peer(conn).map(ToString::to_string).unwrap_or_default(),
        opened_ms: now_ms() - millis(now.saturating_duration_since(stats.opened)),
        silent_ms: millis(now.saturating_duration_since(client.heard)),
        user: session.map(|session| session.user),
        session: session.map(|session| session.id),
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        lines_in: stats.frames_in,
        unsent: stats.unsent,
        unacked: session.map_or(0, |session| session.unacked()),
        lagging: session.map_or(0, |session| session.lags.len()),
        unanswered: client.unanswered,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
