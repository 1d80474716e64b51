//! The reading half of a connection: read, cut into frames, hand over; stop when drained, paused, closed or over budget.

use std::io::{self, ErrorKind, Write as _};
use std::time::Duration;

use crate::codec::{Codec as _, Decoded, FrameError};
use crate::config::ServiceConfig;
use crate::conn::{Conn, Phase};
use crate::context::Context;
use crate::flags::Readiness;
use crate::handler::Handler;
use crate::id::Token;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;
use crate::watch::What;

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

impl Pass {
    const fn new(config: &ServiceConfig) -> Self {
        Self { bytes: config.read_bytes_per_turn, frames: config.frames_per_turn, wanted: 0 }
    }
}

impl<H: Handler> Conn<H> {
    /// Counts what a read gave, of `offered` bytes of room. A short read means that the socket is drained, and a further read would only find `EAGAIN`. Not
    /// so when the event carried a close or error flag: that came with the same edge and would never be met.
    #[inline]
    pub(crate) fn count_in(&mut self, core: &mut LoopCore, count: usize, offered: usize) {
        if count < offered && !self.flags.hang_up() && self.stream.short_read_drains() {
            self.flags.set_readable(false);
        }
        if self.stream.owes() {
            self.flags.set_owes(true);
        }
        self.last_in_ms = core.now_ms;
        self.bytes_in += count as u64;
        core.stats.bytes_in += count as u64;
    }
}

impl<H: Handler> ServiceCell<H> {
    /// What an event leads to. The short way, which nearly all of them take: a read, one frame, and a write of what its callback sent.
    #[inline]
    pub(crate) fn on_event(
        &mut self,
        core: &mut LoopCore,
        scratch: &mut [u8],
        token: Token,
        readiness: Readiness,
    ) {
        let key = token.key;
        let Some(conn) = self.conns.slab.get_mut(key) else {
            return self.on_other_event(core, token);
        };
        conn.flags.note(readiness);
        if !conn.is_plain() {
            return self.on_event_otherwise(core, scratch, key, readiness);
        }
        core.stats.reads += 1;
        let count = match conn.stream.read(scratch) {
            Ok(count) if count > 0 => count,
            result => return self.read_nothing(core, key, result),
        };
        conn.count_in(core, count, scratch.len());
        let fresh = scratch.get(..count).unwrap_or_default();
        match conn.codec.decode(fresh) {
            Ok(Decoded::Frame { start, end, consumed }) => {
                conn.frames_in += 1;
                core.stats.frames += 1;
                let drained = !conn.flags.readable();
                let frame = fresh.get(start..end).unwrap_or_default();
                let id = self.conns.id(key);
                self.conns.begin_replies(id);
                let Self { handler, conns, client, .. } = self;
                handler.on_frame(&mut Context { conns, core, client }, id, frame);
                if consumed != count || !drained {
                    self.serve_on(core, scratch, key, consumed, count);
                }
            }
            decoded => self.serve_odd(core, key, fresh, decoded),
        }
        self.end_replies(core, key);
        self.watch(core, What::Input);
    }

    /// An event of a connection for which there is more to do than to read.
    #[cold]
    fn on_event_otherwise(
        &mut self,
        core: &mut LoopCore,
        scratch: &mut [u8],
        key: Key,
        readiness: Readiness,
    ) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.phase == Phase::Connecting {
            return self.finish_connect(core, key, readiness);
        }
        if conn.flags.owes() && conn.flags.writable() && conn.phase != Phase::Preface {
            return self.pay(core, scratch, key);
        }
        if conn.flags.writable() && conn.output.is_some() && !conn.flags.in_dirty() {
            conn.flags.set_in_dirty(true);
            self.conns.dirty.push(key);
        }
        // Who is on the ready list is served from there, so that each connection is served once per turn, whatever it has.
        let moves = conn.flags.readable() || (conn.phase == Phase::Preface && conn.flags.writable());
        if moves && !conn.flags.in_ready() {
            self.serve_input(core, scratch, key);
        }
    }

    /// Writes what the stream's session owes, and goes on with the event.
    #[cold]
    fn pay(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        match conn.stream.flush() {
            Ok(()) => {
                let owes = conn.stream.owes();
                conn.flags.set_owes(owes);
                if owes {
                    conn.flags.set_writable(false);
                }
                let readiness = Readiness::new(false, conn.flags.writable(), false, false);
                self.on_event_otherwise(core, scratch, key, readiness);
            }
            Err(error) => self.conns.begin_close(key, CloseReason::from_io(&error), true),
        }
    }

    /// Serves a connection's input, whatever it is, and writes what that made it send.
    pub(crate) fn serve_input(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let id = self.conns.id(key);
        if self.conns.slab.get(key).is_some_and(Conn::takes_replies) {
            self.conns.begin_replies(id);
        }
        self.drive(core, scratch, key);
        self.end_replies(core, key);
        self.watch(core, What::Input);
    }

    /// A callback of this connection's input panicked: that is its end.
    #[cold]
    pub(crate) fn on_input_panicked(&mut self, core: &mut LoopCore, key: Key) {
        self.conns.replies.discard();
        self.conns.begin_close(key, CloseReason::HandlerPanicked, true);
        self.watch(core, What::Input);
    }

    /// The read gave no bytes.
    #[cold]
    fn read_nothing(&mut self, core: &mut LoopCore, key: Key, result: io::Result<usize>) {
        match result {
            Ok(_) => self.on_end_of_input(core, key),
            Err(error) => self.read_failed(core, key, &error),
        }
        if self.conns.slab.get(key).is_some_and(Conn::wants_drive) {
            self.conns.list_ready(key);
        }
    }

    /// What a read gave does not begin with a whole frame.
    #[cold]
    fn serve_odd(
        &mut self,
        core: &mut LoopCore,
        key: Key,
        fresh: &[u8],
        decoded: Result<Decoded, FrameError>,
    ) {
        match decoded {
            Ok(Decoded::Incomplete { wanted }) => {
                self.begin_frame(core, key);
                self.keep_rest(core, key, fresh, wanted);
            }
            Ok(Decoded::Frame { .. }) => {}
            Err(error) => self.on_bad_frame(core, key, error),
        }
        if self.conns.slab.get(key).is_some_and(Conn::wants_drive) {
            self.conns.list_ready(key);
        }
    }

    /// The first frame of `count` bytes that were read is served, and there is more: in `scratch` behind `used`, or in the socket.
    #[inline(never)]
    fn serve_on(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key, mut used: usize, count: usize) {
        let mut pass = Pass::new(&self.conns.config);
        pass.bytes = pass.bytes.saturating_sub(count);
        pass.frames -= 1;
        let fresh = scratch.get(..count).unwrap_or_default();
        if used < count {
            used += self.serve(core, key, fresh.get(used..).unwrap_or_default(), &mut pass);
        }
        if used < count {
            self.keep_rest(core, key, fresh.get(used..).unwrap_or_default(), pass.wanted);
        }
        self.drive_on(core, scratch, key, pass);
    }

    /// Serves a connection's input as far as its budget goes. What is left puts it on the ready list.
    pub(crate) fn drive(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let pass = Pass::new(&self.conns.config);
        self.drive_on(core, scratch, key, pass);
    }

    fn drive_on(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key, mut pass: Pass) {
        loop {
            let Some(conn) = self.conns.slab.get_mut(key) else { return };
            if !conn.wants_drive() {
                if conn.phase == Phase::Open && !conn.flags.failed() && !conn.flags.input_dead() {
                    return;
                }
                return self.drive_otherwise(core, scratch, key);
            }
            if pass.frames == 0 || pass.bytes == 0 {
                return self.conns.list_ready(key);
            }
            if conn.flags.undecoded() {
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
                        let drained = !conn.flags.readable();
                        let fresh = scratch.get(..count).unwrap_or_default();
                        let used = self.serve(core, key, fresh, &mut pass);
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
                    conn.flags.set_readable(false);
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
            conn.flags.set_undecoded(false);
            return;
        };
        let used = self.serve(core, key, buffer.as_slice(), pass);
        buffer.consume(used);
        buffer.want(pass.wanted);
        match self.conns.slab.get_mut(key) {
            Some(conn) if conn.phase == Phase::Open && !conn.flags.input_dead() && !buffer.is_empty() => {
                conn.input = Some(buffer);
            }
            _ => core.give_input(buffer),
        }
    }

    /// Keeps what the codec could not use yet.
    fn keep_rest(&mut self, core: &mut LoopCore, key: Key, rest: &[u8], wanted: usize) {
        if let Some(conn) = self.conns.open_mut(key)
            && !conn.flags.input_dead()
        {
            let mut buffer = core.take_input();
            buffer.extend(rest);
            buffer.want(wanted);
            conn.input = Some(buffer);
        }
    }

    /// Hands the frames at the start of `bytes` to the handler and says how many bytes they took.
    fn serve(&mut self, core: &mut LoopCore, key: Key, bytes: &[u8], pass: &mut Pass) -> usize {
        let id = self.conns.id(key);
        let mut used = 0;
        pass.wanted = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            // The handler may have closed, paused or poisoned the connection with the last frame.
            let Some(conn) = self.conns.open_mut(key) else { return used };
            conn.flags.set_undecoded(false);
            if rest.is_empty() || conn.flags.input_dead() {
                core.cancel(&mut conn.frame_timer);
                return used;
            }
            if conn.flags.paused() || pass.frames == 0 {
                conn.flags.set_undecoded(true);
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
        let id = self.conns.id(key);
        let Some(conn) = self.conns.open_mut(key) else { return };
        conn.flags.set_input_dead(true);
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
        if conn.flags.paused() {
            // It is us who do not read the rest. The codec is asked again when reading goes on, and the time begins anew.
            conn.flags.set_undecoded(true);
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
        conn.flags.set_peer_eof(true);
        conn.flags.set_readable(false);
        let finished = conn.flags.write_shut() && conn.output.is_none();
        core.cancel(&mut conn.frame_timer);
        if let Some(buffer) = conn.input.take() {
            core.give_input(buffer);
        }
        let id = self.conns.id(key);
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
        if conn.flags.failed() && (conn.flags.paused() || conn.flags.input_dead() || conn.flags.peer_eof()) {
            let reason = match conn.stream.take_error() {
                Ok(Some(error)) => CloseReason::from_io(&error),
                _ => CloseReason::PeerReset,
            };
            self.conns.begin_close(key, reason, true);
        } else if conn.flags.input_dead() && conn.flags.hang_up() && !conn.flags.peer_eof() {
            // Nothing more would be taken from this input; that it has ended is still news.
            self.on_end_of_input(core, key);
        }
    }

    /// Reads and throws away, for a connection that was closed: unread input would make a reset of its end, and a peer that waits for us to read
    /// might not read what we still have for it.
    pub(crate) fn discard_input(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let mut budget = self.conns.config.read_bytes_per_turn;
        while conn.flags.readable() && !conn.flags.peer_eof() {
            if budget == 0 {
                return self.conns.list_ready(key);
            }
            core.stats.reads += 1;
            match conn.stream.read(scratch) {
                Ok(0) => conn.flags.set_peer_eof(true),
                Ok(count) => {
                    conn.count_in(core, count, scratch.len());
                    budget = budget.saturating_sub(count);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        core.stats.reads_blocked += 1;
                        conn.flags.set_readable(false);
                    }
                    ErrorKind::Interrupted => {}
                    _ => return self.conns.doomed.push(key),
                },
            }
        }
        if conn.flags.peer_eof() && conn.phase == Phase::Lingering {
            self.conns.doomed.push(key);
        }
    }
}
