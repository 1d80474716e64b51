//! The writing half of a connection, its marks, and its end: flush, watermark transitions, close, free.

use std::sync::atomic::Ordering;

use crate::conn::{PauseReason, Phase};
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{CloseReason, ConnectError};
use crate::service::ServiceCell;
use crate::slab::Key;

impl<H: Handler> ServiceCell<H> {
    /// Writes what is queued for a connection, as far as the socket takes it.
    pub(crate) fn flush(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if matches!(conn.phase, Phase::Closing { abort: true, .. }) {
            return;
        }
        let Some(output) = conn.output.as_mut() else { return };
        let mut failed = None;
        while conn.writable && !output.is_empty() {
            core.stats.writes += 1;
            match output.write_to(&mut conn.stream) {
                Ok(step) => {
                    conn.bytes_out += step.written as u64;
                    core.stats.bytes_out += step.written as u64;
                    // A stream socket that took less than it was offered is full: the next write would only say so.
                    if step.blocked || step.short {
                        conn.writable = false;
                    }
                }
                Err(error) => {
                    failed = Some(CloseReason::from_io(&error));
                    break;
                }
            }
        }
        if let Some(reason) = failed {
            return self.conns.begin_close(key, reason, true);
        }
        if output.is_empty() {
            core.cancel(&mut conn.stall_timer);
            if let Some(queue) = conn.output.take() {
                core.give_output(queue);
            }
            if conn.phase == Phase::Draining {
                return self.linger(core, key);
            }
        } else if conn.stall_timer.is_none()
            && conn.phase == Phase::Open
            && let Some(limit) = self.conns.config.write_stall
        {
            conn.stall_mark = conn.bytes_out;
            let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Stall };
            conn.stall_timer = Some(core.timers.insert(core.deadline(limit), timer));
        }
        if conn.above_high && !conn.in_marks {
            conn.in_marks = true;
            self.conns.marks.push(key);
        }
    }

    pub(crate) fn on_stall_timer(&mut self, core: &mut LoopCore, key: Key) {
        let Some(limit) = self.conns.config.write_stall else { return };
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Stall };
        let Some(conn) = self.conns.open_mut(key) else { return };
        conn.stall_timer = None;
        if conn.output.is_none() {
            return;
        }
        if conn.bytes_out == conn.stall_mark {
            return self.conns.begin_close(key, CloseReason::WriteStalled, true);
        }
        conn.stall_mark = conn.bytes_out;
        conn.stall_timer = Some(core.timers.insert(core.deadline(limit), timer));
    }

    /// Compares a connection's unsent output with the marks, after the turn's writes: only what stayed counts.
    pub(crate) fn settle_marks(&mut self, core: &mut LoopCore, key: Key) {
        let (high, low) = (self.conns.config.output_high, self.conns.config.output_low);
        let pause_at = self.conns.config.output_pauses_reading;
        let id = self.conns.id(core, key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.in_marks = false;
        if conn.phase != Phase::Open {
            return;
        }
        let unsent = conn.unsent();
        if unsent >= pause_at {
            conn.pause(PauseReason::OUTPUT);
        }
        if unsent >= high && !conn.above_high {
            conn.above_high = true;
            self.call_for(core, key, |handler, cx| handler.on_high_water(cx, id));
        } else if unsent <= low && conn.above_high {
            conn.above_high = false;
            self.call_for(core, key, |handler, cx| {
                cx.resume(id, PauseReason::OUTPUT);
                handler.on_low_water(cx, id);
            });
        }
    }

    /// Gives the handler its `on_close` and begins the delivery of what is still unsent.
    pub(crate) fn finish_close(&mut self, core: &mut LoopCore, key: Key) {
        let id = self.conns.id(core, key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.phase == Phase::Cancelled {
            let why = if core.stopping { ConnectError::Stopping } else { ConnectError::Cancelled };
            return self.connect_failed(core, key, why);
        }
        let Phase::Closing { reason, abort } = conn.phase else { return };
        conn.phase = Phase::Draining;
        conn.cancel_timers(core);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        core.stats.closed += 1;
        if let Some(count) = core.stats.closes.get_mut(reason.index()) {
            *count += 1;
        }
        log::debug!("{}: connection {id} of {} ended: {reason}", self.handler.name(), conn.peer);
        if let Some(state) = conn.user.take() {
            self.call(core, |handler, cx| handler.on_close(cx, id, state, reason));
        }
        self.client_closed(core, key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if abort {
            if let Err(error) = conn.stream.reset_on_close() {
                log::debug!("cannot reset the connection of {}: {error}", conn.peer);
            }
            self.conns.doomed.push(key);
            return;
        }
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        conn.life_timer = Some(core.timers.insert(core.deadline(self.conns.config.linger), timer));
        if conn.output.is_none() {
            self.linger(core, key);
        } else {
            self.conns.list_dirty(key);
            self.discard_input(core, key);
        }
    }

    /// All is written: shut our side down, and wait for the peer's end of input unless it came already.
    fn linger(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.peer_eof || conn.stream.shutdown_write().is_err() {
            self.conns.doomed.push(key);
            return;
        }
        conn.phase = Phase::Lingering;
        // What came before may lie unread, and its edge is gone.
        self.discard_input(core, key);
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
        self.load.fetch_sub(1, Ordering::Relaxed);
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
