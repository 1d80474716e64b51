//! The writing half of a connection: flush, write stall, watermark transitions.

use crate::conn::{PauseReason, Phase};
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;
use crate::watch::What;

impl<H: Handler> ServiceCell<H> {
    /// Writes what is queued for a connection, as far as the socket takes it.
    #[inline]
    pub(crate) fn flush(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.flags.set_in_dirty(false);
        if conn.phase == Phase::Closing && conn.flags.aborting() {
            return;
        }
        let mut failed = None;
        if let Some(output) = &mut conn.output {
            while conn.flags.writable() && !output.is_empty() {
                core.stats.writes += 1;
                match output.write_to(&mut conn.stream) {
                    Ok(step) => {
                        conn.bytes_out += step.written as u64;
                        conn.last_out_ms = core.now_ms;
                        core.stats.bytes_out += step.written as u64;
                        // A stream socket that took less than it was offered is full: the next write would only say so.
                        conn.flags.set_writable(!step.short);
                    }
                    Err(error) => {
                        failed = Some(CloseReason::from_io(&error));
                        break;
                    }
                }
            }
            if failed.is_none() && output.is_empty() {
                core.cancel(&mut conn.stall_timer);
                if let Some(queue) = conn.output.take() {
                    core.give_output(queue);
                }
                if conn.phase != Phase::Open
                    || conn.flags.above_high()
                    || conn.flags.write_shut()
                    || conn.flags.tells_drained()
                {
                    self.flushed(core, scratch, key);
                }
                return;
            }
        }
        self.flush_later(core, scratch, key, failed);
    }

    /// All is written, and somebody waited for that.
    fn flushed(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.phase == Phase::Draining {
            return self.linger(core, scratch, key);
        }
        if (conn.flags.above_high() || conn.flags.tells_drained()) && !conn.flags.in_marks() {
            conn.flags.set_in_marks(true);
            self.conns.marks.push(key);
        }
        if conn.flags.write_shut() && conn.phase == Phase::Open {
            if let Err(error) = conn.stream.shutdown_write() {
                log::debug!("cannot shut down the connection of {}: {error}", conn.peer);
            }
            if conn.flags.peer_eof() {
                // Both directions have ended: nothing can happen on this connection any more.
                self.conns.begin_close(key, CloseReason::PeerClosed, false);
            }
        }
    }

    /// Not all could be written, or there was nothing to write.
    #[cold]
    fn flush_later(
        &mut self,
        core: &mut LoopCore,
        scratch: &mut [u8],
        key: Key,
        failed: Option<CloseReason>,
    ) {
        if let Some(reason) = failed {
            return self.conns.begin_close(key, reason, true);
        }
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.output.is_none() {
            return self.flushed(core, scratch, key);
        }
        if conn.stall_timer.is_none()
            && conn.phase == Phase::Open
            && let Some(limit) = self.conns.config.write_stall
        {
            conn.stall_mark = conn.bytes_out;
            let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Stall };
            conn.stall_timer = Some(core.timers.insert(core.deadline(limit), timer));
        }
        if conn.flags.above_high() && !conn.flags.in_marks() {
            conn.flags.set_in_marks(true);
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
        let id = self.conns.id(key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.flags.set_in_marks(false);
        if conn.phase != Phase::Open {
            return;
        }
        let unsent = conn.unsent();
        if unsent >= pause_at {
            conn.flags.pause(PauseReason::OUTPUT);
        }
        if unsent >= high && !conn.flags.above_high() {
            conn.flags.set_above_high(true);
            self.conns.pause_sources(key);
            self.call_for(core, key, What::Mark, |handler, cx| handler.on_high_water(cx, id));
        } else if unsent <= low && conn.flags.above_high() {
            conn.flags.set_above_high(false);
            self.conns.resume_sources(key);
            self.call_for(core, key, What::Mark, |handler, cx| {
                cx.resume(id, PauseReason::OUTPUT);
                handler.on_low_water(cx, id);
            });
        }
        self.tell_drained(core, key);
    }

    /// Tells who asked that nothing is unsent, unless something is again.
    fn tell_drained(&mut self, core: &mut LoopCore, key: Key) {
        let id = self.conns.id(key);
        if let Some(conn) = self.conns.open_mut(key)
            && conn.flags.tells_drained()
            && conn.output.is_none()
        {
            conn.flags.set_tells_drained(false);
            self.call_for(core, key, What::Mark, |handler, cx| handler.on_drained(cx, id));
        }
    }
}
