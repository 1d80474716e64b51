//! What all services of a loop share while it runs: time, timers, the read buffer, pooled buffers, counters.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::{Buffer, OutputQueue};
use crate::config::LoopConfig;
use crate::handle::{LoopHandle, LoopShared};
use crate::slab::Key;
use crate::stats::LoopStats;
use crate::timer::{TimerKey, TimerWheel};

/// Buffers kept for the next connection that needs one. Enough for a turn's worth of busy connections; the memory of a passing crowd is given back.
const POOLED_MAX: usize = 256;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimerKind {
    /// The handler's own, with its number.
    User(u64),
    /// A frame must be whole by now.
    Frame,
    /// The peer must have taken something by now.
    Stall,
    /// A connect or a linger must be over by now.
    Life,
    /// Accepting is tried again after an error.
    AcceptRetry,
    /// The client tries to connect again.
    Reconnect,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    pub(crate) service: u8,
    pub(crate) conn: Option<Key>,
    pub(crate) kind: TimerKind,
}

pub(crate) struct LoopCore {
    pub(crate) index: u16,
    pub(crate) config: LoopConfig,
    pub(crate) registry: mio::Registry,
    /// The time of this turn: read once after the wait.
    pub(crate) now: Instant,
    pub(crate) timers: TimerWheel<Timer>,
    /// The one buffer that all reads of this loop go into. Empty only while a read's bytes are being served.
    pub(crate) scratch: Vec<u8>,
    #[expect(clippy::vec_box, reason = "the boxes themselves move between pool and connections")]
    inputs: Vec<Box<Buffer>>,
    #[expect(clippy::vec_box, reason = "the boxes themselves move between pool and connections")]
    outputs: Vec<Box<OutputQueue>>,
    pub(crate) stats: LoopStats,
    pub(crate) rng: fastrand::Rng,
    pub(crate) shared: Arc<LoopShared>,
    pub(crate) stopping: bool,
    /// Loop-bound, and so is every `Context`: a raw pointer is neither `Send` nor `Sync`.
    not_send: PhantomData<*const ()>,
}

impl LoopCore {
    pub(crate) fn new(config: LoopConfig, registry: mio::Registry, shared: Arc<LoopShared>) -> Self {
        let now = Instant::now();
        Self {
            index: shared.index,
            registry,
            now,
            timers: TimerWheel::new(now),
            scratch: vec![0; config.scratch_bytes.max(4096)],
            config,
            inputs: Vec::new(),
            outputs: Vec::new(),
            stats: LoopStats::default(),
            rng: fastrand::Rng::new(),
            shared,
            stopping: false,
            not_send: PhantomData,
        }
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

    pub(crate) fn take_output(&mut self) -> Box<OutputQueue> {
        self.outputs.pop().unwrap_or_default()
    }

    pub(crate) fn give_output(&mut self, mut queue: Box<OutputQueue>) {
        if self.outputs.len() < POOLED_MAX && queue.reusable() {
            queue.clear();
            self.outputs.push(queue);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &mut Option<TimerKey>) {
        if let Some(key) = timer.take() {
            self.timers.cancel(key);
        }
    }
}
