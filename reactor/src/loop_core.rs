//! What all services of a loop share while it runs: time, timers, the read buffer, pooled buffers, counters.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::{Buffer, REUSE_MAX};
use crate::config::LoopConfig;
use crate::group::Groups;
use crate::handle::{LoopHandle, LoopShared};
use crate::output_queue::OutputQueue;
use crate::poller::{Clock, Registry};
use crate::slab::Key;
use crate::stats::LoopStats;
use crate::timer::{TimerKey, TimerWheel};
use crate::watch::Watch;

/// Buffers kept for the next connection that needs one. Enough for a turn's worth of busy connections; the memory of a passing crowd is given back.
const POOLED_MAX: usize = 256;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimerKind {
    /// The handler's own, with its number.
    User(u64),
    /// The handler's own that fires again and again.
    Every { token: u64, every_ms: u32 },
    /// A frame must be whole by now.
    Frame,
    /// The peer must have taken something by now.
    Stall,
    /// Bytes must have moved by now.
    Idle,
    /// A connect, a preface or a linger must be over by now.
    Life,
    /// Accepting is tried again after an error.
    AcceptRetry,
    /// The client tries to connect again.
    Reconnect,
    /// A task of the loop's own, with its number.
    Task(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub(crate) service: u8,
    pub(crate) conn: Option<Key>,
    pub(crate) kind: TimerKind,
}

impl Timer {
    /// After what time it fires again, if it does.
    pub(crate) const fn period(&self) -> Option<Duration> {
        match self.kind {
            TimerKind::Every { every_ms, .. } => Some(Duration::from_millis(every_ms as u64)),
            _ => None,
        }
    }
}

pub(crate) struct LoopCore {
    pub(crate) index: u16,
    pub(crate) config: LoopConfig,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    /// The time of this turn: read once after the wait.
    pub(crate) now: Instant,
    /// The same in milliseconds since the loop was made; wraps after 49 days, so only differences mean something.
    pub(crate) now_ms: u32,
    /// The timers' origin too.
    origin: Instant,
    /// Whole milliseconds from there to this turn.
    ticks: u64,
    coarse: CoarseClock,
    pub(crate) timers: TimerWheel<Timer>,
    #[expect(clippy::vec_box, reason = "the boxes themselves move between pool and connections")]
    inputs: Vec<Box<Buffer>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves move between pool and connections")]
    outputs: Vec<Box<OutputQueue>>,
    /// Where frames are encoded before they are sent.
    frame: Vec<u8>,
    pub(crate) stats: LoopStats,
    pub(crate) rng: fastrand::Rng,
    pub(crate) shared: Arc<LoopShared>,
    pub(crate) stopping: bool,
    /// Steps of TLS handshakes that this turn still has.
    #[cfg(feature = "tls")]
    pub(crate) handshakes_left: u32,
    /// Who is a member of which group, as far as they live on this loop.
    pub(crate) groups: Groups,
    pub(crate) watch: Watch,
    /// Loop-bound, and so is every `Context`: a raw pointer is neither `Send` nor `Sync`.
    not_send: PhantomData<*const ()>,
}

impl LoopCore {
    pub(crate) fn new(config: LoopConfig, registry: Registry, clock: Clock, shared: Arc<LoopShared>) -> Self {
        let now = clock.now();
        Self {
            index: shared.index,
            registry,
            clock,
            now,
            now_ms: 0,
            origin: now,
            ticks: 0,
            coarse: CoarseClock::new(),
            timers: TimerWheel::new(now),
            config,
            inputs: Vec::new(),
            outputs: Vec::new(),
            frame: Vec::new(),
            stats: LoopStats::default(),
            rng: fastrand::Rng::new(),
            shared,
            stopping: false,
            #[cfg(feature = "tls")]
            handshakes_left: 0,
            groups: Groups::default(),
            watch: Watch::new(now),
            not_send: PhantomData,
        }
    }

    /// A turn begins: its time, and its budgets.
    pub(crate) fn set_now(&mut self, now: Instant) {
        #[cfg(feature = "tls")]
        {
            self.handshakes_left = self.config.handshakes_per_turn.max(1);
        }
        self.now = now;
        let since = now.saturating_duration_since(self.origin);
        self.ticks = since.as_secs() * 1_000 + u64::from(since.subsec_millis());
        #[expect(clippy::cast_possible_truncation, reason = "wraps on purpose")]
        {
            self.now_ms = self.ticks as u32;
        }
    }

    /// Makes due what has its time by now.
    pub(crate) fn advance_timers(&mut self) {
        self.timers.advance_to(self.ticks);
    }

    /// Whether this turn has lasted for some milliseconds already, by a clock that is cheap to read and four milliseconds behind at most.
    pub(crate) fn is_late(&self) -> bool {
        self.clock.is_os() && self.coarse.elapsed_ms().wrapping_sub(self.now_ms).cast_signed() > 4
    }

    /// The time that `ms`, a time of this loop in milliseconds, stands for.
    pub(crate) fn instant_of(&self, ms: u32) -> Instant {
        let age = Duration::from_millis(u64::from(self.now_ms.wrapping_sub(ms)));
        self.now.checked_sub(age).unwrap_or(self.origin)
    }

    /// The time `delay` after this turn's; a century for delays that no clock can hold.
    pub(crate) fn deadline(&self, delay: Duration) -> Instant {
        self.now.checked_add(delay).unwrap_or_else(|| self.now + Duration::from_hours(24 * 36_525))
    }

    pub(crate) fn handle(&self) -> LoopHandle {
        LoopHandle { shared: Arc::clone(&self.shared) }
    }

    pub(crate) fn take_input(&mut self) -> Box<Buffer> {
        self.inputs.pop().unwrap_or_default()
    }

    pub(crate) fn give_input(&mut self, mut buffer: Box<Buffer>) {
        if self.inputs.len() < POOLED_MAX && buffer.reusable() {
            buffer.clear();
            self.inputs.push(buffer);
        }
    }

    #[inline]
    pub(crate) fn take_output(&mut self) -> Box<OutputQueue> {
        self.outputs.pop().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn give_output(&mut self, mut queue: Box<OutputQueue>) {
        if self.outputs.len() < POOLED_MAX && queue.reusable() {
            if !queue.is_empty() {
                queue.clear();
            }
            self.outputs.push(queue);
        }
    }

    /// An empty buffer for one frame.
    pub(crate) fn take_frame(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frame)
    }

    pub(crate) fn give_frame(&mut self, mut frame: Vec<u8>) {
        if frame.capacity() <= REUSE_MAX {
            frame.clear();
            self.frame = frame;
        }
    }

    pub(crate) fn cancel(&mut self, timer: &mut Option<TimerKey>) {
        if let Some(key) = timer.take() {
            self.timers.cancel(key);
        }
    }
}

/// Milliseconds since the clock was made, by the system's coarse monotonic clock where there is one.
#[derive(Debug)]
struct CoarseClock {
    origin_ms: i64,
}

impl CoarseClock {
    #[cfg(target_os = "linux")]
    fn now_ms(clock: rustix::time::ClockId) -> i64 {
        let now = rustix::time::clock_gettime(clock);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }

    fn new() -> Self {
        #[cfg(target_os = "linux")]
        return Self { origin_ms: Self::now_ms(rustix::time::ClockId::Monotonic) };
        #[cfg(not(target_os = "linux"))]
        Self { origin_ms: 0 }
    }

    /// Wraps like the loop's own. Where there is no such clock every turn is late, and so timed exactly.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wraps on purpose")]
    fn elapsed_ms(&self) -> u32 {
        #[cfg(target_os = "linux")]
        return (Self::now_ms(rustix::time::ClockId::MonotonicCoarse) - self.origin_ms) as u32;
        #[cfg(not(target_os = "linux"))]
        (self.origin_ms as u32).wrapping_sub(u32::MAX / 2)
    }
}
