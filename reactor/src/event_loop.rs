//! The event loop: one thread, one poll, and a turn that has one order.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustc_hash::FxHashMap;

use crate::client::ClientState;
use crate::config::{ClientConfig, LoopConfig, ServiceConfig};
use crate::conn::Conns;
use crate::gate::{Gate, Pushes};
use crate::group::Group;
use crate::handle::{Adoption, ConnCommand, Control, LoopHandle, LoopShared, ServiceSlot, StopRequest};
use crate::handler::Handler;
use crate::id::SERVICES_MAX;
use crate::listener::Listener;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::poller::Poller;
use crate::reason::PostError;
use crate::service::{ServerShare, Service, ServiceCell, note_panic};
use crate::stats::{LoopStats, SharedStats};
use crate::timer::TimerKey;

/// Of the turns with a single callback, one in so many is timed exactly, for a reading of the clock costs about a hundredth of such a turn. That one of them takes
/// long is noticed all the same, by a clock that is coarser and cheaper.
const LAG_SAMPLE: u64 = 8;

/// A task of the loop's own thread.
type LocalTask = Box<dyn FnOnce(&mut EventLoop)>;

/// What a task is told that tries to run the loop that runs it.
const INSIDE: &str = "an event loop cannot be run from inside one of its own turns";

/// An event loop. It belongs to the thread that made it; other threads reach it by its [`LoopHandle`].
///
/// ```
/// let event_loop = reactor::EventLoop::new(reactor::LoopConfig::default()).unwrap();
/// let handle = event_loop.handle();
/// std::thread::spawn(move || drop(handle));
/// ```
///
/// ```compile_fail
/// let event_loop = reactor::EventLoop::new(reactor::LoopConfig::default()).unwrap();
/// std::thread::spawn(move || drop(event_loop)); // a loop is !Send
/// ```
pub struct EventLoop {
    poller: Poller,
    services: Vec<Box<dyn Service>>,
    pub(crate) core: LoopCore,
    control: Receiver<Control>,
    /// A stop that was asked for and begins when this turn's posts are done, with its deadline.
    stop_asked: Option<Option<Duration>>,
    /// When, after a stop was asked for, connections are closed.
    close_at: Option<Instant>,
    /// When, after a stop was asked for, what still lives is aborted.
    stop_at: Option<Instant>,
    /// The one buffer that all reads of this loop go into.
    scratch: Vec<u8>,
    /// Tasks that wait for their time, by the number that is in their timer.
    tasks: FxHashMap<u64, LocalTask>,
    tasks_made: u64,
    /// The pushes to the loop's queues that were dealt with.
    pushes_seen: Pushes,
    /// Queues that could not be emptied within the last turn's budget.
    posts_left: bool,
    /// Services have connections with something to be done for.
    work_left: bool,
    /// Whether a turn is under way, so that a task cannot begin another inside it.
    turning: bool,
    /// Loop-bound: a raw pointer is neither `Send` nor `Sync`.
    _not_send: PhantomData<*const ()>,
}

impl EventLoop {
    /// Makes a loop for the calling thread.
    ///
    /// # Errors
    /// When the operating system gives no poll or wake-up descriptor.
    pub fn new(config: LoopConfig) -> io::Result<Self> {
        Self::with_index(config, 0)
    }

    pub(crate) fn with_index(config: LoopConfig, index: u16) -> io::Result<Self> {
        Self::with_poller(Poller::os(config.events_per_wait.max(16))?, config, index)
    }

    pub(crate) fn with_poller(poller: Poller, config: LoopConfig, index: u16) -> io::Result<Self> {
        let (control, receiver) = bounded(config.tasks_max.max(1));
        let shared = Arc::new(LoopShared {
            index,
            waker: poller.waker()?,
            control,
            gate: Gate::new(),
            thread: OnceLock::new(),
            stop: StopRequest::default(),
            stats: SharedStats::default(),
        });
        // Fails only when set already, and this loop is new.
        let _ = shared.thread.set(std::thread::current().id());
        let scratch_bytes = config.scratch_bytes.max(4096);
        let core = LoopCore::new(config, poller.registry()?, poller.clock(), shared);
        Ok(Self {
            poller,
            services: Vec::new(),
            core,
            control: receiver,
            stop_asked: None,
            close_at: None,
            stop_at: None,
            scratch: vec![0; scratch_bytes],
            tasks: FxHashMap::default(),
            tasks_made: 0,
            pushes_seen: Pushes::NONE,
            posts_left: false,
            work_left: true,
            turning: false,
            _not_send: PhantomData,
        })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        self.core.handle()
    }

    /// The time of the current turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// The loop's counters.
    #[must_use]
    pub fn stats(&self) -> &LoopStats {
        &self.core.stats
    }

    /// Connections of all services.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.services.iter().map(|service| service.connections()).sum()
    }

    /// Puts a service without a listener on the loop: it gets posts and timers and can connect. Returns its index.
    ///
    /// # Errors
    /// [`PostError::Full`] when the loop holds as many services as it can.
    pub fn add_service<H: Handler>(
        &mut self,
        slot: ServiceSlot<H::Post>,
        config: ServiceConfig,
        handler: H,
    ) -> Result<u8, PostError> {
        self.add_shared_service(slot, config, handler, ServerShare::default())
    }

    pub(crate) fn add_shared_service<H: Handler>(
        &mut self,
        slot: ServiceSlot<H::Post>,
        config: ServiceConfig,
        handler: H,
        share: ServerShare,
    ) -> Result<u8, PostError> {
        let index = u8::try_from(self.services.len()).ok().filter(|index| usize::from(*index) < SERVICES_MAX);
        let index = index.ok_or(PostError::Full)?;
        let conns = Conns::new(self.core.index, index, config);
        let mut cell =
            ServiceCell { handler, conns, posts: slot.receiver, listener: None, client: None, share };
        cell.start(&mut self.core);
        self.services.push(Box::new(cell));
        self.work_left = true;
        Ok(index)
    }

    pub(crate) fn listen(&mut self, service: u8, listener: Listener) -> io::Result<()> {
        self.work_left = true;
        let Self { services, core, .. } = self;
        match services.get_mut(usize::from(service)) {
            Some(service) => service.listen(core, listener),
            None => Err(io::Error::other("no such service")),
        }
    }

    pub(crate) fn add_client<H: Handler>(
        &mut self,
        slot: ServiceSlot<H::Post>,
        config: ClientConfig,
        handler: H,
    ) -> Result<u8, PostError> {
        let index = self.add_service(slot, config.service.clone(), handler)?;
        self.with_service(index, |service, core| service.begin_client(core, ClientState::new(config)));
        Ok(index)
    }

    fn with_service(&mut self, index: u8, work: impl FnOnce(&mut dyn Service, &mut LoopCore)) {
        self.work_left = true;
        let Self { services, core, .. } = self;
        if let Some(service) = services.get_mut(usize::from(index)) {
            work(service.as_mut(), core);
        }
    }

    /// Runs until it is stopped through a handle. What was posted before the end is run before the end.
    ///
    /// # Errors
    /// When waiting for events fails, which is a defect of the system or of this crate; and inside a turn of this loop.
    pub fn run(&mut self) -> io::Result<()> {
        if self.turning {
            return Err(io::Error::other(INSIDE));
        }
        let result = loop {
            if self.finished() {
                break Ok(());
            }
            if let Err(error) = self.turn(None) {
                break Err(error);
            }
        };
        self.end();
        result
    }

    /// Runs one turn, waiting for events at most for `at_most`. For programs that have a loop of their own.
    ///
    /// # Errors
    /// Like [`EventLoop::run`].
    pub fn turn(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        if self.turning {
            return Err(io::Error::other(INSIDE));
        }
        self.wait(at_most)?;
        self.turning = true;
        self.core.stats.turns += 1;
        let began = self.core.clock.now();
        self.core.set_now(began);
        self.core.watch.begin(began);
        let mut busy = std::mem::take(&mut self.work_left);
        if busy {
            self.each(|service, _, _| service.begin_turn());
        }
        self.run_events();
        busy |= self.services_have_work();
        if busy {
            self.each(|service, core, scratch| service.run_ready(core, scratch));
        }
        busy |= self.run_posts();
        busy |= self.run_timers();
        if busy || self.stop_at.is_some() {
            self.run_ends();
        }
        self.end_turn(began);
        self.turning = false;
        Ok(())
    }

    /// The phases of a turn that deal with what its callbacks left: writes, marks, closes, frees.
    fn run_ends(&mut self) {
        self.each(|service, core, scratch| service.run_flush(core, scratch));
        self.each(|service, core, _| service.run_marks(core));
        if self.close_at.is_some_and(|at| self.core.now >= at) {
            self.close_at = None;
            self.each(|service, _, _| service.close_all());
        }
        self.each(|service, core, scratch| service.run_closes(core, scratch));
        self.each(|service, core, _| service.run_frees(core));
        if self.stop_at.is_some_and(|at| self.core.now >= at) {
            self.each(|service, core, scratch| service.abort_all(core, scratch));
        }
        self.work_left = self.services_have_work();
    }

    /// Looks how long the turn took, and who took it; publishes the counters.
    fn end_turn(&mut self, began: Instant) {
        if self.core.watch.calls() > 1
            || self.core.watch.calls() == 1
                && (self.core.stats.turns.is_multiple_of(LAG_SAMPLE) || self.core.is_late())
        {
            let now = self.core.clock.now();
            let slow = self.core.watch.look(now, self.core.config.slow_callback);
            if let Some(slow) = slow {
                self.core.stats.slow_callbacks += 1;
                slow.report(
                    self.services.get(usize::from(slow.service)).map_or("loop", |service| service.name()),
                );
            }
            self.core.stats.count_lag(now.saturating_duration_since(began));
        }
        self.core.shared.stats.publish(&self.core.stats);
    }

    fn each(&mut self, mut work: impl FnMut(&mut dyn Service, &mut LoopCore, &mut [u8])) {
        for service in &mut self.services {
            work(service.as_mut(), &mut self.core, &mut self.scratch);
        }
    }

    /// Sleeps until there is something to do; not at all while something is in hand.
    fn wait(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        let mut timeout = if self.has_work() { Some(Duration::ZERO) } else { self.time_to_sleep(at_most) };
        if timeout != Some(Duration::ZERO) && !self.core.config.spin.is_zero() && self.spin(timeout)? {
            return Ok(());
        }
        if timeout != Some(Duration::ZERO) {
            // Announce the sleep first, look at the queues after: a producer does it the other way round, so one of the two sees the other.
            if self.core.shared.gate.prepare_sleep() != self.pushes_seen {
                timeout = Some(Duration::ZERO);
            }
        }
        debug_assert!(
            timeout == Some(Duration::ZERO) || !self.services_have_work(),
            "sleeps with work in hand"
        );
        let result = self.poller.wait(timeout);
        self.core.shared.gate.awake();
        result
    }

    /// Looks for work again and again for as long as is configured, not beyond `timeout`. Answers whether there is some: then the events are fetched.
    fn spin(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let began = self.core.clock.now();
        let spin = timeout.map_or(self.core.config.spin, |timeout| timeout.min(self.core.config.spin));
        while self.core.clock.now().saturating_duration_since(began) < spin {
            self.poller.wait(Some(Duration::ZERO))?;
            if !self.poller.is_empty() || self.has_posts() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    fn time_to_sleep(&self, at_most: Option<Duration>) -> Option<Duration> {
        let next = [self.core.timers.next_wake(), self.close_at, self.stop_at].into_iter().flatten().min();
        // The poll rounds up to its own granularity, so it neither spins nor wakes before the time.
        let until = next.map(|at| at.saturating_duration_since(self.core.clock.now()));
        [until, at_most].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        self.work_left || self.core.timers.has_due() || self.has_posts()
    }

    fn services_have_work(&self) -> bool {
        self.services.iter().any(|service| service.has_work())
    }

    pub(crate) fn has_posts(&self) -> bool {
        self.posts_left || self.core.shared.gate.pushes() != self.pushes_seen
    }

    fn run_events(&mut self) {
        let Self { poller, services, core, scratch, .. } = self;
        let mut batch = poller.batch();
        while let Some(service) = batch.service() {
            match services.get_mut(usize::from(service)) {
                Some(service) => service.on_events(core, scratch, &mut batch),
                None => core.stats.wakeups += u64::from(batch.skip()),
            }
        }
        core.stats.events += batch.taken;
        self.poller.clear();
    }

    /// Runs what was posted, within the turn's budget. `false` when there was nothing.
    fn run_posts(&mut self) -> bool {
        if !self.has_posts() {
            return false;
        }
        // Noted before the queues are emptied: what comes meanwhile is counted as new, and at worst looked for in vain.
        self.pushes_seen = self.core.shared.gate.pushes();
        self.run_control();
        let posts = self.core.config.posts_per_turn.max(1);
        self.each(|service, core, _| service.run_posts(core, posts));
        if let Some(deadline) = self.stop_asked.take().or_else(|| self.core.shared.stop.take()) {
            self.begin_stop(deadline);
        }
        self.posts_left = !self.control.is_empty() || self.services.iter().any(|service| service.has_posts());
        true
    }

    fn run_control(&mut self) {
        for _ in 0..self.core.config.posts_per_turn.max(1) {
            let Ok(command) = self.control.try_recv() else { break };
            self.core.stats.posts += 1;
            self.run_command(command);
        }
    }

    fn run_command(&mut self, command: Control) {
        match command {
            Control::Task(task) => self.run_task(task),
            Control::Conn(id, command) => {
                let Self { services, core, .. } = self;
                match services.get_mut(usize::from(id.service())) {
                    Some(service) => service.command(core, id, command),
                    None => core.stats.stale_sends += u64::from(matches!(command, ConnCommand::Send(_))),
                }
            }
            Control::Adopt(adoption) => {
                let Adoption { service, stream, peer } = *adoption;
                self.with_service(service, |service, core| service.adopt(core, stream, peer));
            }
            Control::Group(group, bytes) => self.send_group(&group, &bytes),
            Control::Later(delay, task) => {
                self.run_after(delay, task);
            }
            Control::LookedUp(service, attempt, found) => {
                self.with_service(service, |service, core| service.looked_up(core, attempt, found));
            }
            Control::StopAccepting(service) => {
                self.with_service(service, |service, _| service.stop_accepting());
            }
            Control::StopClient(service) => {
                self.with_service(service, |service, core| service.stop_client(core));
            }
            // What was posted before the stop comes before it.
            Control::Stop(deadline) => self.stop_asked = Some(deadline),
        }
    }

    fn send_group(&mut self, group: &Group, bytes: &bytes::Bytes) {
        let Some(members) = self.core.groups.take(group.id()) else { return };
        for (service, keys) in &members.by_service {
            self.with_service(*service, |service, core| service.send_all(core, keys, bytes));
        }
        self.core.groups.give_back(group.id(), members);
    }

    /// Runs `task` after `delay`, rounded up to a millisecond, in a later turn even for a delay of zero. A loop that stops before drops it.
    pub fn run_after(&mut self, delay: Duration, task: impl FnOnce(&mut Self) + 'static) -> TimerKey {
        self.tasks_made += 1;
        self.tasks.insert(self.tasks_made, Box::new(task));
        let timer = Timer { service: 0, conn: None, kind: TimerKind::Task(self.tasks_made) };
        self.core.timers.insert(self.core.deadline(delay), timer)
    }

    /// Takes back a task of [`EventLoop::run_after`]. `false` when it has run or was cancelled.
    pub fn cancel_task(&mut self, key: TimerKey) -> bool {
        match self.core.timers.cancel(key).map(|timer| timer.kind) {
            Some(TimerKind::Task(number)) => self.tasks.remove(&number).is_some(),
            _ => false,
        }
    }

    fn run_task(&mut self, task: impl FnOnce(&mut Self)) {
        let run = std::panic::AssertUnwindSafe(|| task(self));
        if let Err(payload) = std::panic::catch_unwind(run) {
            note_panic(&mut self.core, payload.as_ref());
        }
    }

    /// Fires what is due. `false` when nothing was.
    fn run_timers(&mut self) -> bool {
        self.core.advance_timers();
        if !self.core.timers.has_due() {
            return false;
        }
        while let Some((key, timer)) = self.core.timers.pop_due(Timer::period) {
            match timer.kind {
                TimerKind::Task(number) => {
                    if let Some(task) = self.tasks.remove(&number) {
                        self.run_task(task);
                    }
                }
                _ => self.with_service(timer.service, |service, core| service.on_timer(core, key, timer)),
            }
        }
        true
    }

    /// The three phases of a stop: from now on nothing is accepted, and handlers are told; after the time for draining connections are closed; at the
    /// deadline what still lives is aborted.
    fn begin_stop(&mut self, deadline: Option<Duration>) {
        let in_all = deadline.unwrap_or(self.core.config.stop_deadline);
        if self.core.stopping {
            // Whoever asks again may be less patient, not more.
            let at = self.core.deadline(in_all);
            self.stop_at = self.stop_at.map(|known| known.min(at));
            self.close_at = self.close_at.map(|known| known.min(at));
            return;
        }
        self.core.stopping = true;
        self.close_at = Some(self.core.deadline(self.core.config.stop_drain.min(in_all)));
        self.stop_at = Some(self.core.deadline(in_all));
        self.each(|service, core, _| service.begin_stop(core));
    }

    pub(crate) fn finished(&self) -> bool {
        // Not waiting for the queues to be empty: others may post for ever. What they have posted is run at the end, what they post after it
        // comes back to them.
        self.core.stopping && self.connections() == 0
    }

    /// Lets nobody post any more, and runs what was posted before that.
    fn end(&mut self) {
        self.core.shared.gate.close();
        while let Ok(command) = self.control.try_recv() {
            self.run_command(command);
        }
        self.each(|service, core, scratch| {
            while service.has_posts() {
                service.run_posts(core, usize::MAX);
            }
            service.abort_all(core, scratch);
        });
        self.core.shared.stats.publish(&self.core.stats);
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop")
            .field("index", &self.core.index)
            .field("services", &self.services.len())
            .finish_non_exhaustive()
    }
}
