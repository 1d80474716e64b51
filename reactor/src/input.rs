//! The reading half of a connection: read, cut into frames, hand over; stop when drained, paused, closed or over budget.

use std::io::{ErrorKind, Read};

use crate::codec::{Codec as _, Decoded};
use crate::conn::Phase;
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::service::{ServiceCell, guarded};
use crate::slab::Key;

/// What a connection may still use up in this turn.
struct Budget {
    bytes: usize,
    frames: u32,
}

impl<H: Handler> ServiceCell<H> {
    /// Serves a connection's input as far as its budget goes. What is left puts it on the ready list.
    pub(crate) fn drive(&mut self, core: &mut LoopCore, key: Key) {
        let mut budget = Budget {
            bytes: self.conns.config.read_bytes_per_turn,
            frames: self.conns.config.frames_per_turn,
        };
        loop {
            let Some(conn) = self.conns.slab.get_mut(key) else { return };
            match conn.phase {
                Phase::Open => {}
                Phase::Draining | Phase::Lingering => return self.discard_input(core, key),
                Phase::Connecting | Phase::Cancelled | Phase::Closing { .. } => return,
            }
            if !conn.wants_drive() {
                return self.notice_end(core, key);
            }
            if budget.frames == 0 || budget.bytes == 0 {
                return self.conns.list_ready(key);
            }
            if conn.undecoded {
                self.serve_buffered(core, key, &[], &mut budget);
                continue;
            }
            self.read_once(core, key, &mut budget);
        }
    }

    fn read_once(&mut self, core: &mut LoopCore, key: Key, budget: &mut Budget) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let mut scratch = std::mem::take(&mut core.scratch);
        core.stats.reads += 1;
        match conn.stream.read(&mut scratch) {
            Ok(0) => self.on_end_of_input(core, key),
            Ok(count) => {
                // A short read means the socket is drained, and a further read would only find EAGAIN. Not so when the event carried a close or
                // error flag: that came with the same edge and would never be met.
                if count < scratch.len() && !conn.hang_up {
                    conn.readable = false;
                }
                core.stats.bytes_in += count as u64;
                budget.bytes = budget.bytes.saturating_sub(count);
                let fresh = scratch.get(..count).unwrap_or_default();
                if conn.input.is_some() {
                    self.serve_buffered(core, key, fresh, budget);
                } else {
                    let used = self.serve(core, key, fresh, budget);
                    self.keep_rest(core, key, fresh.get(used..).unwrap_or_default());
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    core.stats.reads_blocked += 1;
                    conn.readable = false;
                }
                ErrorKind::Interrupted => {}
                _ => self.conns.begin_close(key, CloseReason::from_io(&error), true),
            },
        }
        core.scratch = scratch;
    }

    /// Serves the connection's own buffer, with `fresh` bytes behind it.
    fn serve_buffered(&mut self, core: &mut LoopCore, key: Key, fresh: &[u8], budget: &mut Budget) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let Some(mut buffer) = conn.input.take() else {
            conn.undecoded = false;
            return;
        };
        buffer.extend(fresh);
        let used = self.serve(core, key, buffer.as_slice(), budget);
        buffer.consume(used);
        match self.conns.slab.get_mut(key) {
            Some(conn) if conn.phase == Phase::Open && !conn.input_dead && !buffer.is_empty() => {
                conn.input = Some(buffer);
            }
            _ => core.give_input(buffer),
        }
    }

    /// Keeps what the codec could not use yet.
    fn keep_rest(&mut self, core: &mut LoopCore, key: Key, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if let Some(conn) = self.conns.open_mut(key)
            && !conn.input_dead
        {
            let mut buffer = core.take_input();
            buffer.extend(rest);
            conn.input = Some(buffer);
        }
    }

    /// Hands the frames at the start of `bytes` to the handler and says how many bytes they took.
    fn serve(&mut self, core: &mut LoopCore, key: Key, bytes: &[u8], budget: &mut Budget) -> usize {
        let id = self.conns.id(core, key);
        let frame_deadline = self.conns.config.frame_deadline;
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Frame };
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            // The handler may have closed, paused or poisoned the connection with the last frame.
            let Some(conn) = self.conns.open_mut(key) else { return used };
            if conn.input_dead {
                return used;
            }
            conn.undecoded = false;
            if rest.is_empty() {
                core.cancel(&mut conn.frame_timer);
                return used;
            }
            if conn.paused() || budget.frames == 0 {
                conn.undecoded = true;
                core.cancel(&mut conn.frame_timer);
                return used;
            }
            let codec = &mut conn.codec;
            let Some(decoded) = guarded(core, |_| codec.decode(rest)) else {
                self.conns.begin_close(key, CloseReason::HandlerPanicked, true);
                return used;
            };
            match decoded {
                Ok(Decoded::Frame { start, end, consumed }) => {
                    core.cancel(&mut conn.frame_timer);
                    budget.frames -= 1;
                    core.stats.frames += 1;
                    used += consumed;
                    let frame = rest.get(start..end).unwrap_or_default();
                    self.call_for(core, key, |handler, cx| handler.on_frame(cx, id, frame));
                }
                Ok(Decoded::Incomplete { .. }) => {
                    if conn.frame_timer.is_none()
                        && let Some(limit) = frame_deadline
                    {
                        conn.frame_timer = Some(core.timers.insert(core.deadline(limit), timer));
                    }
                    return used;
                }
                Err(error) => {
                    conn.input_dead = true;
                    core.cancel(&mut conn.frame_timer);
                    self.call_for(core, key, |handler, cx| handler.on_frame_error(cx, id, error));
                    return used;
                }
            }
        }
    }

    /// `read() == 0`: the one sure end of input. What is still to be sent is the handler's decision.
    fn on_end_of_input(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.peer_eof = true;
        conn.readable = false;
        core.cancel(&mut conn.frame_timer);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        let id = self.conns.id(core, key);
        self.call_for(core, key, |handler, cx| handler.on_eof(cx, id));
    }

    /// Notices the end of a connection whose input is not read, so that reading would not meet it.
    fn notice_end(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.open_mut(key) else { return };
        if conn.failed && (conn.paused() || conn.input_dead || conn.peer_eof) {
            let reason = match conn.stream.take_error() {
                Ok(Some(error)) => CloseReason::from_io(&error),
                _ => CloseReason::PeerReset,
            };
            self.conns.begin_close(key, reason, true);
        } else if conn.input_dead && conn.hang_up && !conn.peer_eof {
            // Nothing more would be taken from this input; that it has ended is still news.
            self.on_end_of_input(core, key);
        }
    }

    /// Reads and throws away, for a connection that was closed: unread input would make a reset of its end, and a peer that waits for us to read
    /// might not read what we still have for it.
    pub(crate) fn discard_input(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let mut budget = self.conns.config.read_bytes_per_turn;
        while conn.readable && !conn.peer_eof {
            if budget == 0 {
                return self.conns.list_ready(key);
            }
            core.stats.reads += 1;
            match conn.stream.read(&mut core.scratch) {
                Ok(0) => conn.peer_eof = true,
                Ok(count) => {
                    core.stats.bytes_in += count as u64;
                    budget = budget.saturating_sub(count);
                    if count < core.scratch.len() && !conn.hang_up {
                        conn.readable = false;
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        core.stats.reads_blocked += 1;
                        conn.readable = false;
                    }
                    ErrorKind::Interrupted => {}
                    _ => return self.conns.doomed.push(key),
                },
            }
        }
        if conn.peer_eof && conn.phase == Phase::Lingering {
            self.conns.doomed.push(key);
        }
    }
}
