//! The pool: acquiring and giving back on the callers' threads, connecting and tidying on its own.

use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};

use super::clock::{Clock, Time};
use super::config::PoolConfig;
use super::error::AcquireError;
use super::guard::Pooled;
use super::manager::{Manager, Trust};
use super::slots::{Chores, Claim, Discard, Entry, Slots, Waiter, Woken};
use super::stats::{Holder, PoolStats};
use crate::error::{StoreError, UnavailableKind};

/// What the callers and the pool's threads share.
pub(super) struct Inner<M: Manager> {
    manager: M,
    config: PoolConfig,
    clock: Clock,
    slots: Mutex<Slots<M::Connection>>,
    /// Told when a closing pool may be drained.
    drained: Condvar,
    /// Wakes the tidying thread; one wake-up in hand is enough.
    kicks: Sender<()>,
    /// Connections to be closed, which may take a system call or a while.
    trash: Sender<Box<M::Connection>>,
}

/// Connections to a server, shared by threads. Clones are the same pool; it closes when [`close`](Self::close) is called or the last of them is dropped.
///
/// Loop threads never acquire: an acquire may wait.
pub struct ConnectionPool<M: Manager> {
    owner: Arc<Owner<M>>,
}

struct Owner<M: Manager> {
    inner: Arc<Inner<M>>,
    tidier: Mutex<Option<JoinHandle<()>>>,
}

impl<M: Manager> ConnectionPool<M> {
    /// Starts a pool, which begins to connect in the background. It starts while the server is down too.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a configuration that makes no sense, [`StoreError::Unavailable`] when the system gives no thread.
    pub fn start(manager: M, config: PoolConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let (kicks, kicked) = bounded(1);
        let (trash, to_close) = unbounded();
        let connects = config.connects_max;
        let slots = Mutex::new(Slots::new(config.clone()));
        let inner = Arc::new(Inner {
            manager,
            config,
            clock: Clock::new(),
            slots,
            drained: Condvar::new(),
            kicks,
            trash,
        });
        let (jobs, to_do) = bounded(connects);
        for number in 0..connects {
            let (inner, to_do) = (Arc::clone(&inner), to_do.clone());
            // Never joined: one may hang in a connect for as long as that may take.
            spawn(&format!("db-connect-{number}"), move || inner.connect_all(&to_do))?;
        }
        let tidying = Arc::clone(&inner);
        let tidier = spawn("db-pool", move || tidying.tidy(&kicked, &to_close, &jobs))?;
        Ok(Self { owner: Arc::new(Owner { inner, tidier: Mutex::new(Some(tidier)) }) })
    }

    /// A connection, waited for as long as the configuration says.
    ///
    /// # Errors
    /// [`AcquireError`]; nothing was sent to the server.
    #[track_caller]
    pub fn acquire(&self) -> Result<Pooled<M>, AcquireError> {
        self.owner.inner.acquire(None, Location::caller())
    }

    /// A connection, waited for until `deadline` at most, its validation included.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_by(&self, deadline: Instant) -> Result<Pooled<M>, AcquireError> {
        self.owner.inner.acquire(Some(deadline), Location::caller())
    }

    /// What it has done, and how it stands.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.owner.inner.slots.lock().stats(self.owner.inner.clock.exact())
    }

    /// Who holds a connection now, the longest first.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.owner.inner.slots.lock().holders(self.owner.inner.clock.exact())
    }

    /// Gives nothing out any more, tells who waits, and waits until what was given out has come back, at most for `timeout`. Answers whether it has.
    pub fn close(&self, timeout: Duration) -> bool {
        self.owner.inner.close(Instant::now() + timeout)
    }
}

impl<M: Manager> Clone for ConnectionPool<M> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }
}

impl<M: Manager> fmt::Debug for ConnectionPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool").field("stats", &self.stats()).finish()
    }
}

impl<M: Manager> Drop for Owner<M> {
    fn drop(&mut self) {
        self.inner.close(Instant::now());
        if let Some(tidier) = self.tidier.lock().take()
            && tidier.join().is_err()
        {
            log::error!("the pool's thread had panicked");
        }
    }
}

impl<M: Manager> Inner<M> {
    fn acquire(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        at: &'static Location<'static>,
    ) -> Result<Pooled<M>, AcquireError> {
        let now = self.clock.now();
        // Nearly always there is one that was used just now; then no exact time is needed.
        if let Claim::Take(entry, holder) = self.slots.lock().claim(now, at, true) {
            return Ok(self.pooled(entry, holder));
        }
        let began = Instant::now();
        let deadline = deadline.unwrap_or_else(|| began + self.config.acquire());
        loop {
            let claim = self.slots.lock().claim(self.clock.now(), at, false);
            match claim {
                Claim::Refuse(error) => return Err(error),
                Claim::Take(entry, holder) => match self.validate(entry, holder, deadline) {
                    Some(entry) => return Ok(self.pooled(entry, holder)),
                    None if Instant::now() < deadline => {}
                    None => return Err(AcquireError::Timeout { after: began.elapsed() }),
                },
                Claim::Wait { waiter, grow } => {
                    if grow {
                        self.kick();
                    }
                    let entry = self.wait(&waiter, began, deadline)?;
                    let waited = Some(began.elapsed());
                    let holder = self.slots.lock().hold(at, self.clock.now(), waited);
                    return Ok(self.pooled(entry, holder));
                }
                Claim::Pass => {}
            }
        }
    }

    fn pooled(self: &Arc<Self>, entry: Entry<M::Connection>, holder: usize) -> Pooled<M> {
        Pooled { entry: Some(entry), inner: Arc::clone(self), holder, spoilt: false }
    }

    fn wait(
        &self,
        waiter: &Arc<Waiter<M::Connection>>,
        began: Instant,
        deadline: Instant,
    ) -> Result<Entry<M::Connection>, AcquireError> {
        loop {
            match waiter.wait(deadline) {
                Woken::Outcome(outcome) => return outcome,
                Woken::Come => {
                    if let Some(entry) = self.slots.lock().come(waiter) {
                        return Ok(entry);
                    }
                }
                Woken::TimedOut if self.slots.lock().give_up(waiter) => {
                    return Err(AcquireError::Timeout { after: began.elapsed() });
                }
                // It was told just now: whoever tells has the lock, which was free again.
                Woken::TimedOut => {}
            }
        }
    }

    /// Looks whether an idle connection can be given out: not at all when it was used just now, at its socket when that is a while ago, by a ping when it is long
    /// ago.
    fn validate(
        &self,
        mut entry: Entry<M::Connection>,
        holder: usize,
        deadline: Instant,
    ) -> Option<Entry<M::Connection>> {
        let now = self.clock.now();
        let unused = now.saturating_sub(entry.used).as_millis();
        let good = if unused < u128::from(self.config.fresh_ms) {
            true
        } else if unused < u128::from(self.config.ping_after_ms) {
            self.manager.peek(&entry.connection) == Trust::Good
        } else {
            let timeout = self.config.ping().min(deadline.saturating_duration_since(Instant::now()));
            self.manager.peek(&entry.connection) == Trust::Good
                && self.manager.ping(&mut entry.connection, timeout).is_ok()
        };
        if good {
            return Some(entry);
        }
        let mut slots = self.slots.lock();
        slots.let_go(holder);
        slots.lose(Discard::Broken, now);
        drop(slots);
        self.throw_away(entry.connection);
        self.kick();
        None
    }

    /// A connection comes back from its holder.
    pub(super) fn take_back(&self, mut entry: Entry<M::Connection>, holder: usize, keep: bool) {
        let good = keep
            && self.manager.is_reusable(&entry.connection)
            && self.manager.clean(&mut entry.connection).is_ok();
        let now = self.clock.now();
        let mut slots = self.slots.lock();
        slots.let_go(holder);
        let (gone, closing) = if good {
            (slots.give_back(entry, now), slots.is_closing())
        } else {
            slots.lose(Discard::Spoilt, now);
            (Some(entry.connection), slots.is_closing())
        };
        let drained = slots.is_drained();
        drop(slots);
        if let Some(gone) = gone {
            self.throw_away(gone);
            if !closing {
                self.kick();
            }
        }
        if drained {
            self.drained.notify_all();
        }
    }

    fn throw_away(&self, connection: Box<M::Connection>) {
        // When the tidying thread has ended it is dropped here.
        let _ = self.trash.send(connection);
    }

    fn kick(&self) {
        // A full channel means that it has been told already.
        let _ = self.kicks.try_send(());
    }

    fn close(&self, deadline: Instant) -> bool {
        let mut slots = self.slots.lock();
        for connection in slots.close() {
            self.throw_away(connection);
        }
        self.kick();
        while !slots.is_drained() {
            if self.drained.wait_until(&mut slots, deadline).timed_out() {
                return slots.is_drained();
            }
        }
        true
    }

    /// The tidying thread: decides what is to be connected, closes what is to be closed, reports leaks.
    fn tidy(&self, kicked: &Receiver<()>, to_close: &Receiver<Box<M::Connection>>, jobs: &Sender<Time>) {
        let mut trash = Vec::new();
        loop {
            let now = self.clock.exact();
            let mut slots = self.slots.lock();
            let closing = slots.is_closing();
            let leaks = slots.new_leaks(now);
            let Chores { connects, next } = slots.chores(now, &mut trash);
            drop(slots);
            for _ in 0..connects {
                // As many may wait as there are threads for them; more are never begun.
                let _ = jobs.send(now);
            }
            for leak in leaks {
                log::warn!("a connection is held for {:?} by {}", leak.held, leak.at);
            }
            trash.extend(to_close.try_iter());
            // Closing says good-bye to the server, which may panic in nobody's interest.
            trash.drain(..).for_each(|connection| drop(catch_unwind(AssertUnwindSafe(|| drop(connection)))));
            if closing {
                return;
            }
            let wake = match next {
                Some(at) => kicked.recv_timeout(at.saturating_sub(self.clock.exact())),
                None => kicked.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if wake == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// A connecting thread.
    fn connect_all(&self, jobs: &Receiver<Time>) {
        while let Ok(began) = jobs.recv() {
            let timeout = self.config.connect();
            let result = catch_unwind(AssertUnwindSafe(|| self.manager.connect(timeout)))
                .unwrap_or_else(|_| Err(StoreError::internal("connecting panicked")));
            let now = self.clock.exact();
            match result {
                Ok(connection) => {
                    // Not all at once: a tenth more or less.
                    let lifetime =
                        Duration::from_millis(self.config.lifetime_ms).mul_f64(0.9 + 0.2 * fastrand::f64());
                    let entry = Entry { connection: Box::new(connection), used: now, dies: now + lifetime };
                    if let Some(gone) = self.slots.lock().connected(began, entry, now) {
                        self.throw_away(gone);
                    }
                }
                Err(error) => self.connect_failed(began, &error, now),
            }
            self.kick();
        }
    }

    fn connect_failed(&self, began: Time, error: &StoreError, now: Time) {
        let mut slots = self.slots.lock();
        let first = slots.stats(now).last_error.is_none();
        slots.connect_failed(began, error.clone(), now, fastrand::f64());
        drop(slots);
        if first {
            log::warn!("cannot connect to the database, trying again: {error}");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| StoreError::Unavailable {
        kind: UnavailableKind::Memory,
        message: format!("the thread {name} cannot be started: {error}"),
    })
}
