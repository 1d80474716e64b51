//! How a connection ends: `on_close`, the delivery of what is unsent, the linger, and the slot's release.

use std::sync::atomic::Ordering;

use crate::conn::Phase;
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{CloseReason, ConnectError};
use crate::service::ServiceCell;
use crate::slab::Key;
use crate::watch::What;

impl<H: Handler> ServiceCell<H> {
    /// Gives the handler its `on_close` and begins the delivery of what is still unsent.
    pub(crate) fn finish_close(
        &mut self,
        core: &mut LoopCore,
        scratch: &mut [u8],
        key: Key,
        reason: CloseReason,
    ) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.phase == Phase::Cancelled {
            let why = if core.stopping { ConnectError::Stopping } else { ConnectError::Cancelled };
            return self.connect_failed(core, key, why);
        }
        if conn.phase != Phase::Closing {
            return;
        }
        if conn.flags.outbound() && !conn.flags.opened() {
            return self.connect_failed(core, key, ConnectError::from_close(reason));
        }
        conn.phase = Phase::Draining;
        conn.cancel_timers(core);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        self.conns.unlink(key);
        self.leave_groups(core, key);
        self.tell_close(core, key, reason);
        self.client_closed(core, key);
        self.begin_delivery(core, scratch, key);
    }

    fn leave_groups(&mut self, core: &mut LoopCore, key: Key) {
        let Some(extras) = self.conns.slab.get_mut(key).and_then(|conn| conn.extras_mut()) else { return };
        for group in std::mem::take(&mut extras.groups) {
            core.groups.leave(group, &core.shared, self.conns.service, key);
        }
    }

    /// Counts the close, and tells the handler unless it never heard of the connection.
    fn tell_close(&mut self, core: &mut LoopCore, key: Key, reason: CloseReason) {
        let id = self.conns.id(key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        log::debug!("{}: connection {id} of {} ended: {reason}", self.handler.name(), conn.peer);
        if !conn.flags.opened() {
            core.stats.bad_prefaces += 1;
            return;
        }
        core.stats.closed += 1;
        if let Some(count) = core.stats.closes.get_mut(reason.index()) {
            *count += 1;
        }
        if let Some(state) = conn.user.take() {
            self.call(core, What::Close, |handler, cx| handler.on_close(cx, id, state, reason));
        }
    }

    /// Resets the connection, or writes on and shuts our side down when all is written.
    fn begin_delivery(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.flags.aborting() {
            if let Err(error) = conn.stream.reset_on_close() {
                log::debug!("cannot reset the connection of {}: {error}", conn.peer);
            }
            self.conns.doomed.push(key);
            return;
        }
        if conn.output.is_none() && conn.flags.peer_eof() {
            // The common end: the peer has closed, and nothing is owed to it, but for the notice that ends a session.
            if conn.stream.is_tls()
                && let Err(error) = conn.stream.shutdown_write()
            {
                log::debug!("cannot end the session of {}: {error}", conn.peer);
            }
            self.conns.doomed.push(key);
            return;
        }
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        conn.life_timer = Some(core.timers.insert(core.deadline(self.conns.config.linger), timer));
        if conn.output.is_none() {
            self.linger(core, scratch, key);
        } else {
            self.conns.list_dirty(key);
            self.discard_input(core, scratch, key);
        }
    }

    /// All is written: shut our side down, and wait for the peer's end of input unless it came already.
    pub(crate) fn linger(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.flags.peer_eof() || conn.stream.shutdown_write().is_err() {
            self.conns.doomed.push(key);
            return;
        }
        conn.phase = Phase::Lingering;
        // What came before may lie unread, and its edge is gone.
        self.discard_input(core, scratch, key);
    }

    /// Frees the slot: from here on the name is stale and the descriptor closed.
    pub(crate) fn free(&mut self, core: &mut LoopCore, key: Key) {
        let Some(mut conn) = self.conns.slab.remove(key) else { return };
        conn.cancel_timers(core);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        if let Some(queue) = conn.output.take() {
            core.give_output(queue);
        }
        self.share.load.fetch_sub(1, Ordering::Relaxed);
        if conn.flags.counted() {
            self.dismiss(&conn.peer);
        }
        drop(conn);
        // A descriptor is free again: those who wait in the backlog need not wait for the timer.
        if let Some(listener) = &mut self.listener
            && listener.blocked
        {
            listener.blocked = false;
            listener.ready = true;
        }
    }
}
