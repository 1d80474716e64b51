//! The state of one connection and the table of a service's connections.

use std::collections::VecDeque;
use std::time::Instant;

use smallvec::SmallVec;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::config::ServiceConfig;
use crate::flags::Flags;
use crate::group::GroupId;
use crate::handler::Handler;
use crate::id::ConnId;
use crate::loop_core::LoopCore;
use crate::output_queue::OutputQueue;
use crate::reason::CloseReason;
use crate::replies::Replies;
use crate::slab::{Key, Slab};
use crate::stream::Stream;
use crate::timer::TimerKey;

/// Where a connection is in its life. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connect call was made; neither success nor failure is known.
    Connecting,
    /// The attempt to connect was given up in this turn; `on_connect_failed` comes in the turn's closing phase.
    Cancelled,
    /// What comes before the first frame is under way; the handler knows nothing of the connection yet.
    Preface,
    /// `on_open` came; frames are delivered.
    Open,
    /// A close was decided in this turn; `on_close` comes in the turn's closing phase.
    Closing,
    /// `on_close` came. What was accepted for sending is still being written.
    Draining,
    /// All is written and our side is shut down. Input is discarded until the peer closes, for closing with unread input would be a reset that can
    /// overtake the last data.
    Lingering,
}

/// Why a connection's input is not read for now. Reading goes on when the last reason is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseReason(u16);

impl PauseReason {
    /// Its own unsent output is above the mark.
    pub(crate) const OUTPUT: Self = Self(1 << 7);
    /// The unsent output of the sink that it is linked to is above the high mark.
    pub(crate) const LINK: Self = Self(1 << 8);

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// One of the program's own seven reasons, 0 to 6; greater numbers are taken as 6.
    #[must_use]
    pub const fn user(number: u8) -> Self {
        Self(1 << if number < 6 { number } else { 6 })
    }
}

/// What a connection has moved so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnStats {
    /// When it opened.
    pub opened: Instant,
    /// Bytes read from it.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
    /// Frames handed to the handler.
    pub frames_in: u64,
    /// Bytes accepted for sending and not yet written.
    pub unsent: usize,
}

/// A connection. Its size is what an idle one costs, so what few connections need is in [`Extras`].
pub(crate) struct Conn<H: Handler> {
    pub(crate) stream: Stream,
    pub(crate) codec: H::Codec,
    /// The handler's state: there from the return of `on_open` to `on_close`.
    pub(crate) user: Option<H::Conn>,
    /// Part of a frame, or frames that wait for the next turn. Owned only while there are any.
    pub(crate) input: Option<Box<Buffer>>,
    /// Unsent output. Owned only while there is any.
    pub(crate) output: Option<Box<OutputQueue>>,
    extras: Option<Box<Extras>>,
    pub(crate) peer: Address,
    pub(crate) phase: Phase,
    pub(crate) flags: Flags,
    /// Milliseconds of the loop's clock: when it opened, when bytes last came, when bytes last went, when the frame that is not whole yet began.
    pub(crate) opened_ms: u32,
    pub(crate) last_in_ms: u32,
    pub(crate) last_out_ms: u32,
    pub(crate) frame_since_ms: u32,
    pub(crate) frame_timer: Option<TimerKey>,
    pub(crate) stall_timer: Option<TimerKey>,
    pub(crate) idle_timer: Option<TimerKey>,
    /// The timeout of connecting and of the preface, later that of lingering.
    pub(crate) life_timer: Option<TimerKey>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) frames_in: u64,
    /// `bytes_out` when the stall timer was set.
    pub(crate) stall_mark: u64,
}

/// What only some connections have.
#[derive(Default)]
pub(crate) struct Extras {
    /// The handler's timers of this connection that have neither fired nor been cancelled.
    pub(crate) user_timers: SmallVec<[TimerKey; 1]>,
    pub(crate) groups: SmallVec<[GroupId; 1]>,
    /// Whose reading pauses while this one's unsent output is high.
    pub(crate) sources: SmallVec<[Key; 1]>,
    /// Whose unsent output pauses this one's reading.
    pub(crate) sink: Option<Key>,
    pub(crate) local: Option<Address>,
    /// The proxy that the connection came through, until the handler is told.
    pub(crate) proxy: Option<Address>,
}

impl<H: Handler> Conn<H> {
    pub(crate) fn new(stream: Stream, peer: Address, codec: H::Codec, phase: Phase, now_ms: u32) -> Self {
        let mut flags = Flags::NONE;
        flags.set_writable(phase != Phase::Connecting);
        Self {
            stream,
            codec,
            user: None,
            input: None,
            output: None,
            extras: None,
            peer,
            phase,
            flags,
            opened_ms: now_ms,
            last_in_ms: now_ms,
            last_out_ms: now_ms,
            frame_since_ms: now_ms,
            frame_timer: None,
            stall_timer: None,
            idle_timer: None,
            life_timer: None,
            bytes_in: 0,
            bytes_out: 0,
            frames_in: 0,
            stall_mark: 0,
        }
    }

    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// For changing what is there.
    pub(crate) fn extras_mut(&mut self) -> Option<&mut Extras> {
        self.extras.as_deref_mut()
    }

    /// For adding something.
    pub(crate) fn make_extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(crate) fn unsent(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
    }

    /// Cancels all timers of this connection: none of them outlives it.
    pub(crate) fn cancel_timers(&mut self, core: &mut LoopCore) {
        core.cancel(&mut self.frame_timer);
        core.cancel(&mut self.stall_timer);
        core.cancel(&mut self.idle_timer);
        core.cancel(&mut self.life_timer);
        for timer in self.extras.iter_mut().flat_map(|extras| extras.user_timers.drain(..)) {
            core.timers.cancel(timer);
        }
    }

    /// Forgets a timer of the handler's that is over.
    pub(crate) fn forget_timer(&mut self, timer: TimerKey) {
        if let Some(extras) = &mut self.extras {
            extras.user_timers.retain(|own| *own != timer);
        }
    }

    /// Whether an event means nothing but input, and what is sent meanwhile can be written at once: what most events of an open connection find.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.flags.is_plain() && self.phase == Phase::Open && self.input.is_none() && self.output.is_none()
    }

    /// Whether what is sent to it can be written at once.
    pub(crate) fn takes_replies(&self) -> bool {
        self.phase == Phase::Open
            && self.flags.writable()
            && self.output.is_none()
            && !self.flags.in_dirty()
            && !self.flags.write_shut()
    }

    /// Whether there may be something to do for the reading side now.
    #[inline]
    pub(crate) fn wants_drive(&self) -> bool {
        self.phase == Phase::Open
            && !self.flags.paused()
            && !self.flags.input_dead()
            && (self.flags.undecoded() || (self.flags.readable() && !self.flags.peer_eof()))
    }
}

/// A service's connections and the lists of those with work in hand. A list entry whose connection is gone is passed over.
pub(crate) struct Conns<H: Handler> {
    pub(crate) service: u8,
    /// What its connections' names begin with.
    pub(crate) owner: u32,
    pub(crate) config: ServiceConfig,
    pub(crate) slab: Slab<Conn<H>>,
    /// Connections that still have input.
    pub(crate) ready: VecDeque<Key>,
    /// How many of them were there when the turn began: these are served in it, those that come meanwhile in the next.
    pub(crate) ready_due: usize,
    /// Connections with output to be written at the turn's end.
    pub(crate) dirty: Vec<Key>,
    /// Connections whose output may have crossed a mark.
    pub(crate) marks: Vec<Key>,
    /// Connections in `Phase::Closing` or `Phase::Cancelled`, with the first reason that was given.
    pub(crate) closing: Vec<(Key, CloseReason)>,
    /// Connections to be freed at the turn's very end.
    pub(crate) doomed: Vec<Key>,
    /// What is sent to the connection that is being served.
    pub(crate) replies: Replies,
}

impl<H: Handler> Conns<H> {
    pub(crate) fn new(loop_index: u16, service: u8, mut config: ServiceConfig) -> Self {
        // Whatever was configured, the marks are in their order, and a turn's budget lets something through.
        config.output_high = config.output_high.min(config.output_max).max(1);
        config.output_low = config.output_low.min(config.output_high - 1);
        config.output_pauses_reading = config.output_pauses_reading.max(config.output_high);
        config.read_bytes_per_turn = config.read_bytes_per_turn.max(1);
        config.frames_per_turn = config.frames_per_turn.max(1);
        config.accepts_per_turn = config.accepts_per_turn.max(1);
        let replies = Replies::new(config.output_high);
        Self {
            service,
            owner: ConnId::owner_of(loop_index, service),
            config,
            slab: Slab::new(),
            ready: VecDeque::new(),
            ready_due: 0,
            dirty: Vec::new(),
            marks: Vec::new(),
            closing: Vec::new(),
            doomed: Vec::new(),
            replies,
        }
    }

    #[inline]
    pub(crate) const fn id(&self, key: Key) -> ConnId {
        ConnId::new(self.owner, key)
    }

    /// The connection, while it is open.
    #[inline]
    pub(crate) fn open(&self, key: Key) -> Option<&Conn<H>> {
        self.slab.get(key).filter(|conn| conn.phase == Phase::Open)
    }

    /// The connection, while it is open.
    #[inline]
    pub(crate) fn open_mut(&mut self, key: Key) -> Option<&mut Conn<H>> {
        self.slab.get_mut(key).filter(|conn| conn.phase == Phase::Open)
    }

    pub(crate) fn list_ready(&mut self, key: Key) {
        if let Some(conn) = self.slab.get_mut(key)
            && !conn.flags.in_ready()
        {
            conn.flags.set_in_ready(true);
            self.ready.push_back(key);
        }
    }

    pub(crate) fn list_dirty(&mut self, key: Key) {
        if let Some(conn) = self.slab.get_mut(key)
            && !conn.flags.in_dirty()
        {
            conn.flags.set_in_dirty(true);
            self.dirty.push(key);
        }
    }

    /// Decides that the connection ends. The first reason stands; an abort overrules a graceful close of the same turn.
    pub(crate) fn begin_close(&mut self, key: Key, reason: CloseReason, abort: bool) {
        self.spill_replies_of(key);
        let Some(conn) = self.slab.get_mut(key) else { return };
        match conn.phase {
            Phase::Open | Phase::Preface | Phase::Connecting => {
                conn.phase = if conn.phase == Phase::Connecting { Phase::Cancelled } else { Phase::Closing };
                conn.flags.set_aborting(abort);
                self.closing.push((key, reason));
            }
            Phase::Closing => conn.flags.set_aborting(conn.flags.aborting() || abort),
            // A graceful close is what goes on already.
            Phase::Draining | Phase::Lingering if abort => self.doomed.push(key),
            Phase::Cancelled | Phase::Draining | Phase::Lingering => {}
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.marks.is_empty()
            || !self.closing.is_empty()
            || !self.doomed.is_empty()
    }
}
