//! Whether a request comes too often.

use std::time::Duration;

use reactor::ConnId;
use schema::error::{ByeCode, ErrorCode};
use schema::request::{Request, RequestId};

use super::{ChatService, Cx};
use crate::post::Refused;

/// Requests refused in a row for coming too often after which the connection ends: it does not listen.
const REFUSED_MAX: u32 = 500;

impl ChatService {
    /// Counts a request, or says how long to wait. What costs nothing is not counted.
    pub(super) fn within_rates(
        &self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        request: &Request<'_>,
    ) -> Result<(), Duration> {
        let (Some(rates), Some(gate)) = (&self.node.rates, &self.node.gate) else { return Ok(()) };
        let now = cx.now();
        let address = || cx.peer(conn).and_then(reactor::Address::ip);
        match request {
            Request::Register { .. } => address().map_or(Ok(()), |address| gate.registers(address, now)),
            Request::Login { .. } => address().map_or(Ok(()), |address| gate.logs_in(address, now)),
            Request::Ping
            | Request::Ack { .. }
            | Request::Read { .. }
            | Request::Sync { .. }
            | Request::Logout { .. } => Ok(()),
            request => {
                let Some(client) = cx.conn_mut(conn) else { return Ok(()) };
                // A hash like that of a login.
                let is_password = matches!(request, Request::Password { .. });
                let micros = gate.micros(now);
                let Some(session) = client.session.as_deref_mut() else { return Ok(()) };
                match request {
                    Request::Send { .. } | Request::Typing { .. } => session.sends.take(rates.sends, micros),
                    _ if is_password => session.rare().passwords.take(rates.registrations, micros),
                    _ => session.lookups.take(rates.lookups, micros),
                }
            }
        }
    }

    pub(super) fn too_often(&mut self, cx: &mut Cx<'_>, conn: ConnId, id: Option<RequestId>, wait: Duration) {
        let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let refused = Refused::new(ErrorCode::RateLimited, "too often; wait and try again");
        self.refuse(cx, conn, id, Refused { retry_after_ms: Some(retry_after_ms), ..refused });
        let Some(client) = cx.conn_mut(conn) else { return };
        let now = client.heard;
        let rare = client.rare();
        // Who waits as told begins anew.
        let too_soon = rare.refused_at.is_some_and(|at| now.saturating_duration_since(at) < wait);
        rare.refused = if too_soon { rare.refused + 1 } else { 1 };
        rare.refused_at = Some(now);
        if rare.refused >= REFUSED_MAX {
            self.leave(cx, conn, ByeCode::RateLimited);
        }
    }
}
