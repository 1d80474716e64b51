//! The reading half of a connection: read, cut into frames, hand over; stop when drained, paused, closed or over budget.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::codec::{Codec as _, Decoded, FrameError};
use crate::conn::{Conn, Phase};
use crate::context::Context;
use crate::handler::Handler;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;

/// A frame of which so many bytes are missing is read into the connection's own buffer; a smaller rest is copied there from the loop's, which costs less
/// than a read of its own.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// How often a frame's rate is looked at, and how long it has before the first look.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection may still use up in this turn, and what its codec said last.
struct Pass {
    bytes: usize,
    frames: u32,
    /// The frame at the start of the input is not whole before there are so many bytes.
    wanted: usize,
}

impl<H: Handler> Conn<H> {
    /// Counts what a read gave, of `offered` bytes of room. A short read means that the socket is drained, and a further read would only find `EAGAIN`. Not
    /// so when the event carried a close or error flag: that came with the same edge and would never be met.
    #[inline]
    pub(crate) fn count_in(&mut self, core: &mut LoopCore, count: usize, offered: usize) {
        if count < offered && !self.hang_up {
            self.readable = false;
        }
        self.last_in_ms = core.now_ms;
        self.bytes_in += count as u64;
        core.stats.bytes_in += count as u64;
    }
}

impl<H: Handler> ServiceCell<H> {
    /// Serves a connection's input as far as its budget goes. What is left puts it on the ready list.
    pub(crate) fn drive(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let config = &self.conns.config;
        let mut pass = Pass { bytes: config.read_bytes_per_turn, frames: config.frames_per_turn, wanted: 0 };
        loop {
            let Some(conn) = self.conns.slab.get_mut(key) else { return };
            if !conn.wants_drive() {
                if conn.phase == Phase::Open && !conn.failed && !conn.input_dead {
                    return;
                }
                return self.drive_otherwise(core, scratch, key);
            }
            if pass.frames == 0 || pass.bytes == 0 {
                return self.conns.list_ready(key);
            }
            if conn.undecoded {
                self.serve_buffered(core, key, &mut pass);
            } else if conn.input.is_some() {
                self.read_behind(core, scratch, key, &mut pass);
            } else {
                core.stats.reads += 1;
                match conn.stream.read(scratch) {
                    Ok(0) => self.on_end_of_input(core, key),
                    Ok(count) => {
                        conn.count_in(core, count, scratch.len());
                        pass.bytes = pass.bytes.saturating_sub(count);
                        let drained = !conn.readable;
                        let fresh = scratch.get(..count).unwrap_or_default();
                        let used = self.serve_fresh(core, key, fresh, &mut pass);
                        if used < count {
                            self.keep_rest(core, key, fresh.get(used..).unwrap_or_default(), pass.wanted);
                        } else if drained {
                            return;
                        }
                    }
                    Err(error) => self.read_failed(core, key, &error),
                }
            }
        }
    }

    /// Serves bytes that nothing waits before. Most often they are one whole frame.
    #[inline]
    fn serve_fresh(&mut self, core: &mut LoopCore, key: Key, fresh: &[u8], pass: &mut Pass) -> usize {
        let id = self.conns.id(core, key);
        let Some(conn) = self.conns.slab.get_mut(key) else { return fresh.len() };
        pass.wanted = 0;
        match conn.codec.decode(fresh) {
            Ok(Decoded::Frame { start, end, consumed }) => {
                pass.frames -= 1;
                conn.frames_in += 1;
                core.stats.frames += 1;
                let frame = fresh.get(start..end).unwrap_or_default();
                let Self { handler, conns, client, .. } = self;
                handler.on_frame(&mut Context { conns, core, client }, id, frame);
                match fresh.get(consumed..) {
                    Some(rest) if !rest.is_empty() => consumed + self.serve(core, key, rest, pass),
                    _ => fresh.len(),
                }
            }
            Ok(Decoded::Incomplete { wanted }) => {
                pass.wanted = wanted;
                self.begin_frame(core, key);
                0
            }
            Err(error) => {
                self.on_bad_frame(core, key, error);
                0
            }
        }
    }

    /// For a connection whose frames are not read: not open yet, not any more, or at its end.
    #[cold]
    fn drive_otherwise(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        match conn.phase {
            Phase::Open => self.notice_end(core, key),
            Phase::Preface => {
                if self.read_preface(core, scratch, key) {
                    self.drive(core, scratch, key);
                }
            }
            Phase::Draining | Phase::Lingering => self.discard_input(core, scratch, key),
            Phase::Connecting | Phase::Cancelled | Phase::Closing => {}
        }
    }

    pub(crate) fn read_failed(&mut self, core: &mut LoopCore, key: Key, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => {
                core.stats.reads_blocked += 1;
                if let Some(conn) = self.conns.slab.get_mut(key) {
                    conn.readable = false;
                }
            }
            ErrorKind::Interrupted => {}
            _ => self.conns.begin_close(key, CloseReason::from_io(error), true),
        }
    }

    /// Reads more of a frame that has begun.
    fn read_behind(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key, pass: &mut Pass) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let Some(buffer) = conn.input.as_mut() else { return };
        core.stats.reads += 1;
        let missing = buffer.missing();
        let (result, offered) = if missing >= DIRECT_BYTES_MIN {
            let room = buffer.room_for(missing);
            let offered = room.capacity() - room.len();
            (conn.stream.read_behind(room), offered)
        } else {
            let result = conn.stream.read(scratch);
            if let Ok(count) = result {
                buffer.extend(scratch.get(..count).unwrap_or_default());
            }
            (result, scratch.len())
        };
        match result {
            Ok(0) => self.on_end_of_input(core, key),
            Ok(count) => {
                conn.count_in(core, count, offered);
                pass.bytes = pass.bytes.saturating_sub(count);
                self.serve_buffered(core, key, pass);
            }
            Err(error) => self.read_failed(core, key, &error),
        }
    }

    /// Serves the connection's own buffer.
    fn serve_buffered(&mut self, core: &mut LoopCore, key: Key, pass: &mut Pass) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let Some(mut buffer) = conn.input.take() else {
            conn.undecoded = false;
            return;
        };
        let used = self.serve(core, key, buffer.as_slice(), pass);
        buffer.consume(used);
        buffer.want(pass.wanted);
        match self.conns.slab.get_mut(key) {
            Some(conn) if conn.phase == Phase::Open && !conn.input_dead && !buffer.is_empty() => {
                conn.input = Some(buffer);
            }
            _ => core.give_input(buffer),
        }
    }

    /// Keeps what the codec could not use yet.
    fn keep_rest(&mut self, core: &mut LoopCore, key: Key, rest: &[u8], wanted: usize) {
        if let Some(conn) = self.conns.open_mut(key)
            && !conn.input_dead
        {
            let mut buffer = core.take_input();
            buffer.extend(rest);
            buffer.want(wanted);
            conn.input = Some(buffer);
        }
    }

    /// Hands the frames at the start of `bytes` to the handler and says how many bytes they took.
    fn serve(&mut self, core: &mut LoopCore, key: Key, bytes: &[u8], pass: &mut Pass) -> usize {
        let id = self.conns.id(core, key);
        let mut used = 0;
        pass.wanted = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            // The handler may have closed, paused or poisoned the connection with the last frame.
            let Some(conn) = self.conns.open_mut(key) else { return used };
            conn.undecoded = false;
            if rest.is_empty() || conn.input_dead {
                core.cancel(&mut conn.frame_timer);
                return used;
            }
            if conn.paused() || pass.frames == 0 {
                conn.undecoded = true;
                core.cancel(&mut conn.frame_timer);
                return used;
            }
            match conn.codec.decode(rest) {
                Ok(Decoded::Frame { start, end, consumed }) => {
                    core.cancel(&mut conn.frame_timer);
                    pass.frames -= 1;
                    conn.frames_in += 1;
                    core.stats.frames += 1;
                    used += consumed;
                    let frame = rest.get(start..end).unwrap_or_default();
                    let Self { handler, conns, client, .. } = self;
                    handler.on_frame(&mut Context { conns, core, client }, id, frame);
                    if used == bytes.len() {
                        return used;
                    }
                }
                Ok(Decoded::Incomplete { wanted }) => {
                    pass.wanted = wanted;
                    self.begin_frame(core, key);
                    return used;
                }
                Err(error) => {
                    self.on_bad_frame(core, key, error);
                    return used;
                }
            }
        }
    }

    #[cold]
    fn on_bad_frame(&mut self, core: &mut LoopCore, key: Key, error: FrameError) {
        let id = self.conns.id(core, key);
        let Some(conn) = self.conns.open_mut(key) else { return };
        conn.input_dead = true;
        core.cancel(&mut conn.frame_timer);
        let Self { handler, conns, client, .. } = self;
        handler.on_frame_error(&mut Context { conns, core, client }, id, error);
    }

    /// A frame is not whole: from now on its time is counted, unless it is already.
    fn begin_frame(&mut self, core: &mut LoopCore, key: Key) {
        let (deadline, rate) = (self.conns.config.frame_deadline, self.conns.config.frame_rate_min);
        let first_look = [deadline, rate.map(|_| RATE_INTERVAL)].into_iter().flatten().min();
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Frame };
        if let Some(conn) = self.conns.open_mut(key)
            && conn.frame_timer.is_none()
            && let Some(delay) = first_look
        {
            conn.frame_since_ms = core.now_ms;
            conn.frame_timer = Some(core.timers.insert(core.deadline(delay), timer));
        }
    }

    /// Looks whether a frame has had its time, or comes too slowly.
    pub(crate) fn on_frame_timer(&mut self, core: &mut LoopCore, key: Key) {
        let (deadline, rate) = (self.conns.config.frame_deadline, self.conns.config.frame_rate_min);
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Frame };
        let Some(conn) = self.conns.open_mut(key) else { return };
        conn.frame_timer = None;
        if conn.paused() {
            // It is us who do not read the rest. The codec is asked again when reading goes on, and the time begins anew.
            conn.undecoded = true;
            return;
        }
        let age_ms = core.now_ms.wrapping_sub(conn.frame_since_ms);
        let age = Duration::from_millis(u64::from(age_ms));
        if deadline.is_some_and(|deadline| age >= deadline) {
            return self.conns.begin_close(key, CloseReason::FrameDeadline, false);
        }
        let received = conn.input.as_ref().map_or(0, |input| input.len()) as u64;
        if rate.is_some_and(|rate| received * 1_000 < u64::from(rate) * u64::from(age_ms)) {
            return self.conns.begin_close(key, CloseReason::FrameTooSlow, false);
        }
        let rest = deadline.map(|deadline| deadline.saturating_sub(age));
        let next = [rest, rate.map(|_| RATE_INTERVAL)].into_iter().flatten().min();
        conn.frame_timer = next.map(|delay| core.timers.insert(core.deadline(delay), timer));
    }

    /// `read() == 0`: the one sure end of input. What is still to be sent is the handler's decision.
    fn on_end_of_input(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.peer_eof = true;
        conn.readable = false;
        let finished = conn.write_shut && conn.output.is_none();
        core.cancel(&mut conn.frame_timer);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        let id = self.conns.id(core, key);
        let Self { handler, conns, client, .. } = self;
        handler.on_eof(&mut Context { conns, core, client }, id);
        if finished {
            // Both directions have ended: nothing can happen on this connection any more.
            self.conns.begin_close(key, CloseReason::PeerClosed, false);
        }
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
    pub(crate) fn discard_input(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let mut budget = self.conns.config.read_bytes_per_turn;
        while conn.readable && !conn.peer_eof {
            if budget == 0 {
                return self.conns.list_ready(key);
            }
            core.stats.reads += 1;
            match conn.stream.read(scratch) {
                Ok(0) => conn.peer_eof = true,
                Ok(count) => {
                    conn.count_in(core, count, scratch.len());
                    budget = budget.saturating_sub(count);
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
