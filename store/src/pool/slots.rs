//! The bookkeeping of a pool: who has which connection, who waits, what to do next. It makes no call that could wait and reads no clock; it is what the pool's lock
//! guards.

use std::collections::VecDeque;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::clock::Time;
use super::config::PoolConfig;
use super::error::AcquireError;
use super::stats::{Holder, PoolState, PoolStats, WAIT_BINS, wait_bin};
use crate::error::StoreError;

/// Who has waited for so long gets the next connection, whoever else comes. Before that a caller that is running anyway may take it: to put that one to sleep and
/// to wake this one for each connection that comes back would cost a third of the throughput of a crowd.
const FAIR_AFTER: Duration = Duration::from_millis(4);

/// A connect that has been under way for so long no longer holds up the next.
const CONNECT_IS_SLOW: Duration = Duration::from_millis(500);

/// A connection, and what is known of it.
pub(super) struct Entry<C> {
    /// Boxed, for it is moved with every acquire.
    pub(super) connection: Box<C>,
    /// When it was last used, or made.
    pub(super) used: Time,
    /// When it is to be replaced.
    pub(super) dies: Time,
}

/// Where somebody waits for a connection.
pub(super) struct Waiter<C> {
    since: Time,
    word: Mutex<Word<C>>,
    told: Condvar,
}

/// What a waiter is told.
enum Word<C> {
    Nothing,
    /// There is an idle one: come and take it, unless somebody is quicker.
    Come,
    Outcome(Result<Entry<C>, AcquireError>),
}

/// What a wait comes to.
pub(super) enum Woken<C> {
    Come,
    Outcome(Result<Entry<C>, AcquireError>),
    TimedOut,
}

impl<C> Waiter<C> {
    const fn new(since: Time) -> Self {
        Self { since, word: Mutex::new(Word::Nothing), told: Condvar::new() }
    }

    /// Waits until it is told something, at most until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Woken<C> {
        let mut word = self.word.lock();
        loop {
            match std::mem::replace(&mut *word, Word::Nothing) {
                Word::Outcome(outcome) => return Woken::Outcome(outcome),
                Word::Come => return Woken::Come,
                Word::Nothing => {}
            }
            if self.told.wait_until(&mut word, deadline).timed_out() && matches!(*word, Word::Nothing) {
                return Woken::TimedOut;
            }
        }
    }

    fn tell(&self, outcome: Result<Entry<C>, AcquireError>) {
        self.say(Word::Outcome(outcome));
    }

    fn say(&self, word: Word<C>) {
        *self.word.lock() = word;
        self.told.notify_one();
    }
}

/// Who holds a connection, and since when.
struct Held {
    at: &'static Location<'static>,
    since: Time,
    reported: bool,
}

/// What a call for a connection comes to.
pub(super) enum Claim<C> {
    /// This one, which is still to be validated, and the holder's number.
    Take(Entry<C>, usize),
    /// There is none. `grow`: a further connection may be made.
    Wait {
        waiter: Arc<Waiter<C>>,
        grow: bool,
    },
    Refuse(AcquireError),
    /// None that could be given out without a look, and no more was asked for.
    Pass,
}

/// Why a connection is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    /// By its holder's doing, or because it failed in its hands.
    Spoilt,
    /// It was found so before it was given out.
    Broken,
}

/// What is to be done by the pool's threads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chores {
    /// So many connects are to begin; they are counted as under way already.
    pub(super) connects: usize,
    /// When to look again; `None` when only something that happens can change anything.
    pub(super) next: Option<Time>,
}

pub(super) struct Slots<C> {
    config: PoolConfig,
    /// The longest idle first. The most recently used is given out first, so that the others grow old and can be reclaimed.
    idle: VecDeque<Entry<C>>,
    /// The longest waiting first.
    waiters: VecDeque<Arc<Waiter<C>>>,
    /// The first of them was told to come for an idle one, and has not come yet.
    called: bool,
    held: Vec<Option<Held>>,
    free: Vec<usize>,
    busy: usize,
    /// When each connect that is under way began.
    connecting: Vec<Time>,
    closing: bool,
    ever: bool,
    last_error: Option<StoreError>,
    /// No connect before this, after one that failed.
    probe_at: Option<Time>,
    probe_wait: Duration,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    acquired: u64,
    waited: u64,
    timeouts: u64,
    overloads: u64,
    down: u64,
    connects: u64,
    connect_failures: u64,
    discarded: u64,
    found_broken: u64,
    reclaimed: u64,
    retired: u64,
    leaks: u64,
    wait_bins: [u64; WAIT_BINS],
}

impl<C> Slots<C> {
    pub(super) fn new(config: PoolConfig) -> Self {
        let probe_wait = Duration::from_millis(config.probe_base_ms);
        Self {
            config,
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            called: false,
            held: Vec::new(),
            free: Vec::new(),
            busy: 0,
            connecting: Vec::new(),
            closing: false,
            ever: false,
            last_error: None,
            probe_at: None,
            probe_wait,
            counts: Counts::default(),
        }
    }

    /// Every connection is idle, busy or being made, and nobody waits while one is idle.
    fn check(&self) {
        debug_assert!(
            self.idle.is_empty() || self.waiters.is_empty() || self.called,
            "somebody waits beside an idle connection and does not know"
        );
        debug_assert!(self.total() <= self.config.connections_max, "{} connections", self.total());
        debug_assert!(self.held.len() - self.free.len() <= self.busy, "more holders than connections");
    }

    fn live(&self) -> usize {
        self.idle.len() + self.busy
    }

    fn total(&self) -> usize {
        self.live() + self.connecting.len()
    }

    pub(super) fn state(&self) -> PoolState {
        match (self.closing, &self.last_error) {
            (true, _) if self.busy == 0 => PoolState::Closed,
            (true, _) => PoolState::Draining,
            (_, Some(_)) if self.live() == 0 => PoolState::Down,
            (_, Some(_)) => PoolState::Degraded,
            (_, None) if self.ever => PoolState::Up,
            (_, None) => PoolState::Starting,
        }
    }

    /// Somebody wants a connection. `at_once`: one that was used just now, or to be asked again; nothing is counted and nobody waits.
    pub(super) fn claim(&mut self, now: Time, at: &'static Location<'static>, at_once: bool) -> Claim<C> {
        let fresh = Duration::from_millis(self.config.fresh_ms);
        let is_fresh = |entry: &Entry<C>| now.saturating_sub(entry.used) < fresh;
        if at_once && !self.idle.back().is_some_and(is_fresh) {
            return Claim::Pass;
        }
        if self.closing {
            return Claim::Refuse(AcquireError::Closed);
        }
        if let Some(entry) = self.idle.pop_back() {
            self.busy += 1;
            let holder = self.hold(at, now, None);
            self.check();
            return Claim::Take(entry, holder);
        }
        if self.state() == PoolState::Down {
            self.counts.down += 1;
            return Claim::Refuse(self.why_down(now));
        }
        let waiting = self.waiters.len();
        if waiting >= self.config.waiters_max {
            self.counts.overloads += 1;
            return Claim::Refuse(AcquireError::Overloaded { waiting });
        }
        let waiter = Arc::new(Waiter::new(now));
        self.waiters.push_back(Arc::clone(&waiter));
        self.check();
        let grow =
            self.total() < self.config.connections_max && self.connecting.len() < self.config.connects_max;
        Claim::Wait { waiter, grow }
    }

    fn why_down(&self, now: Time) -> AcquireError {
        let cause = self.last_error.clone().unwrap_or(StoreError::Closed);
        let retry_in = self.probe_at.map_or(Duration::ZERO, |at| at.saturating_sub(now));
        AcquireError::Down { cause, retry_in }
    }

    /// A connection has a holder now. `waited` is how long that took.
    pub(super) fn hold(
        &mut self,
        at: &'static Location<'static>,
        now: Time,
        waited: Option<Duration>,
    ) -> usize {
        self.counts.acquired += 1;
        self.counts.waited += u64::from(waited.is_some());
        if let Some(count) = self.counts.wait_bins.get_mut(waited.map_or(0, wait_bin)) {
            *count += 1;
        }
        let held = Some(Held { at, since: now, reported: false });
        match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self.held.get_mut(number) {
                    *slot = held;
                }
                number
            }
            None => {
                self.held.push(held);
                self.held.len() - 1
            }
        }
    }

    /// Somebody waits no longer. `false` when it was told something in the meantime, which it must take.
    pub(super) fn give_up(&mut self, waiter: &Arc<Waiter<C>>) -> bool {
        let Some(at) = self.waiters.iter().position(|one| Arc::ptr_eq(one, waiter)) else { return false };
        self.waiters.remove(at);
        self.counts.timeouts += 1;
        // It may have been the one that was called.
        self.called = false;
        self.call_next();
        self.check();
        true
    }

    /// A waiter that was called has come. There may be nothing left for it: then it waits on, in its place.
    pub(super) fn come(&mut self, waiter: &Arc<Waiter<C>>) -> Option<Entry<C>> {
        self.called = false;
        let at = self.waiters.iter().position(|one| Arc::ptr_eq(one, waiter));
        // Not there any more: it was told something else in the meantime.
        let entry = at.and_then(|at| {
            let entry = self.idle.pop_back()?;
            self.waiters.remove(at);
            self.busy += 1;
            Some(entry)
        });
        self.call_next();
        self.check();
        entry
    }

    /// Calls the first waiter if there is something for it and none was called.
    fn call_next(&mut self) {
        if let Some(waiter) = self.waiters.front()
            && !self.called
            && !self.idle.is_empty()
        {
            self.called = true;
            waiter.say(Word::Come);
        }
    }

    /// No longer held, by whatever end.
    pub(super) fn let_go(&mut self, holder: usize) {
        if let Some(slot) = self.held.get_mut(holder)
            && slot.take().is_some()
        {
            self.free.push(holder);
        }
    }

    /// A connection comes back, or a new one comes. It goes to who has waited longest, at once when that is long. What comes back from here is to be closed.
    #[must_use]
    pub(super) fn give_back(&mut self, mut entry: Entry<C>, now: Time) -> Option<Box<C>> {
        if self.closing {
            self.busy -= 1;
            return Some(entry.connection);
        }
        if now >= entry.dies {
            self.busy -= 1;
            self.counts.retired += 1;
            return Some(entry.connection);
        }
        entry.used = now;
        let overdue = self.waiters.front().is_some_and(|first| now.saturating_sub(first.since) >= FAIR_AFTER);
        match if overdue { self.waiters.pop_front() } else { None } {
            Some(waiter) => {
                // If it was called before, it finds this in place of that call.
                self.called = false;
                waiter.tell(Ok(entry));
            }
            None => {
                self.busy -= 1;
                self.idle.push_back(entry);
            }
        }
        self.call_next();
        self.check();
        None
    }

    /// A busy connection is no more.
    pub(super) fn lose(&mut self, why: Discard, now: Time) {
        self.busy -= 1;
        match why {
            Discard::Spoilt => self.counts.discarded += 1,
            Discard::Broken => {
                self.counts.found_broken += 1;
                // It was counted when it was taken, and nobody got it.
                self.counts.acquired -= 1;
                if let Some(count) = self.counts.wait_bins.first_mut() {
                    *count -= 1;
                }
            }
        }
        if why == Discard::Broken {
            // The others have most likely gone the same way: each is looked at before it is given out.
            for entry in &mut self.idle {
                entry.used =
                    entry.used.checked_sub(Duration::from_millis(self.config.fresh_ms)).unwrap_or(entry.used);
            }
        }
        self.tell_if_down(now);
        self.check();
    }

    /// A connect has succeeded.
    #[must_use]
    pub(super) fn connected(&mut self, began: Time, entry: Entry<C>, now: Time) -> Option<Box<C>> {
        self.end_connect(began);
        self.counts.connects += 1;
        self.ever = true;
        self.last_error = None;
        self.probe_at = None;
        self.probe_wait = Duration::from_millis(self.config.probe_base_ms);
        self.busy += 1;
        self.give_back(entry, now)
    }

    /// A connect has failed. `jitter`, from 0 to 1, is chance's part in the wait for the next.
    pub(super) fn connect_failed(&mut self, began: Time, error: StoreError, now: Time, jitter: f64) {
        self.end_connect(began);
        self.counts.connect_failures += 1;
        self.last_error = Some(error);
        self.probe_at = now.checked_add(self.probe_wait.mul_f64(jitter.clamp(0.0, 1.0)));
        let max = Duration::from_millis(self.config.probe_max_ms);
        self.probe_wait = (self.probe_wait * 2).min(max);
        self.tell_if_down(now);
        self.check();
    }

    /// With no connection left and none to be had, nobody is to wait.
    fn tell_if_down(&mut self, now: Time) {
        if self.state() == PoolState::Down && !self.waiters.is_empty() {
            let why = self.why_down(now);
            for waiter in self.waiters.drain(..) {
                self.counts.down += 1;
                waiter.tell(Err(why.clone()));
            }
            self.called = false;
        }
    }

    fn end_connect(&mut self, began: Time) {
        if let Some(at) = self.connecting.iter().position(|one| *one == began) {
            self.connecting.swap_remove(at);
        }
    }

    /// What is to be done now. Connections that are to be closed are put into `trash`.
    pub(super) fn chores(&mut self, now: Time, trash: &mut Vec<Box<C>>) -> Chores {
        if self.closing {
            return Chores::default();
        }
        self.reclaim(now, trash);
        let connects = self.connects_due(now);
        self.connecting.extend(std::iter::repeat_n(now, connects));
        self.check();
        Chores { connects, next: self.next_look(now) }
    }

    /// Takes out idle connections that are too old, or that nobody has needed for long.
    fn reclaim(&mut self, now: Time, trash: &mut Vec<Box<C>>) {
        let mut kept = VecDeque::with_capacity(self.idle.len());
        let idle_max = Duration::from_millis(self.config.idle_ms);
        while let Some(entry) = self.idle.pop_front() {
            let live = self.idle.len() + kept.len() + self.busy + 1;
            if now >= entry.dies {
                self.counts.retired += 1;
                trash.push(entry.connection);
            } else if live > self.config.connections_min && now.saturating_sub(entry.used) >= idle_max {
                self.counts.reclaimed += 1;
                trash.push(entry.connection);
            } else {
                kept.push_back(entry);
            }
        }
        self.idle = kept;
    }

    /// How many connects are to begin. Up to the minimum several at once; above it one after the other, for whoever waits is most often served by who gives
    /// back before a connect is done. While the server fails, one at a time and not before its time.
    fn connects_due(&self, now: Time) -> usize {
        let under_way = self.connecting.len();
        let room = self.config.connections_max - self.total();
        if self.probe_at.is_some_and(|at| now < at) || room == 0 {
            return 0;
        }
        let may_begin = self.config.connects_max.saturating_sub(under_way).min(room);
        let missing = self.config.connections_min.saturating_sub(self.total());
        if self.last_error.is_some() {
            let wanted = self.state() == PoolState::Down || missing > 0 || !self.waiters.is_empty();
            return usize::from(wanted && under_way == 0).min(may_begin);
        }
        if missing > 0 {
            return missing.min(may_begin);
        }
        let slow = self.connecting.iter().all(|began| now.saturating_sub(*began) >= CONNECT_IS_SLOW);
        usize::from(!self.waiters.is_empty() && slow).min(may_begin)
    }

    /// Giving out and giving back wake nobody, so what grows old is looked for at intervals: whatever has had its time is found within twice that.
    fn next_look(&self, now: Time) -> Option<Time> {
        let interval = Duration::from_millis(self.config.idle_ms).min(self.leak());
        let interval = (self.live() > 0).then(|| now.checked_add(interval)).flatten();
        let retire = self.idle.iter().map(|entry| entry.dies).min();
        let slow = self.connecting.iter().min().filter(|_| !self.waiters.is_empty());
        let slow = slow.and_then(|began| began.checked_add(CONNECT_IS_SLOW)).filter(|at| *at > now);
        [self.probe_at.filter(|at| *at > now), interval, retire, slow].into_iter().flatten().min()
    }

    fn leak(&self) -> Duration {
        Duration::from_millis(self.config.leak_ms)
    }

    /// Those who have held a connection for too long and were not reported yet.
    pub(super) fn new_leaks(&mut self, now: Time) -> Vec<Holder> {
        let limit = self.leak();
        let mut leaks = Vec::new();
        for held in self.held.iter_mut().flatten() {
            let age = now.saturating_sub(held.since);
            if !held.reported && age >= limit {
                held.reported = true;
                self.counts.leaks += 1;
                leaks.push(Holder { at: held.at, held: age });
            }
        }
        leaks
    }

    /// All who hold a connection, the longest first.
    pub(super) fn holders(&self, now: Time) -> Vec<Holder> {
        let holder = |held: &Held| Holder { at: held.at, held: now.saturating_sub(held.since) };
        let mut holders: Vec<Holder> = self.held.iter().flatten().map(holder).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }

    /// Gives nothing out any more. The idle ones are to be closed.
    pub(super) fn close(&mut self) -> Vec<Box<C>> {
        self.closing = true;
        for waiter in self.waiters.drain(..) {
            waiter.tell(Err(AcquireError::Closed));
        }
        self.idle.drain(..).map(|entry| entry.connection).collect()
    }

    /// Closing, and all that was given out has come back.
    pub(super) const fn is_drained(&self) -> bool {
        self.closing && self.busy == 0
    }

    pub(super) const fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn stats(&self, now: Time) -> PoolStats {
        let counts = &self.counts;
        let down = self.state() == PoolState::Down;
        PoolStats {
            state: self.state(),
            last_error: self.last_error.clone(),
            next_probe: self.probe_at.filter(|_| down).map(|at| at.saturating_sub(now)),
            idle: self.idle.len(),
            busy: self.busy,
            connecting: self.connecting.len(),
            waiting: self.waiters.len(),
            acquired: counts.acquired,
            waited: counts.waited,
            timeouts: counts.timeouts,
            overloads: counts.overloads,
            down: counts.down,
            connects: counts.connects,
            connect_failures: counts.connect_failures,
            discarded: counts.discarded,
            found_broken: counts.found_broken,
            reclaimed: counts.reclaimed,
            retired: counts.retired,
            leaks: counts.leaks,
            wait_bins: counts.wait_bins,
        }
    }
}
