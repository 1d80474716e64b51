//! [`LoginPool`]: runs login calls on worker threads, so that an event loop never waits for one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use schema::login::{LoginCall, LoginError, LoginReply, Origin};

use crate::config::LoginConfig;
use crate::service::LoginService;

/// Gets the answer to a call, on a worker thread or on the one that submits: it hands over and returns.
pub type ReplyFn = Box<dyn FnOnce(LoginReply) + Send>;

/// Two bounded queues with threads of their own: one for calls that hash a password, which takes long, and one for all
/// others, so that a storm of passwords never keeps a token waiting. Clones share them.
///
/// Every call is answered exactly once, those that are refused too.
#[derive(Clone, Debug)]
pub struct LoginPool {
    inner: Arc<Inner>,
}

struct Inner {
    service: Arc<LoginService>,
    /// Taken out by `close`; whoever holds the read lock holds it for a `try_send`.
    doors: RwLock<Option<Doors>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How long a call may wait for its turn that does not say so itself.
    call_timeout: Duration,
    overloads: AtomicU64,
    expired: Arc<AtomicU64>,
}

/// What a pool has counted, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Calls that wait for a thread that hashes.
    pub hash_queue: usize,
    /// Other calls that wait.
    pub token_queue: usize,
    /// Calls refused because a queue was full.
    pub overloads: u64,
    /// Calls whose time was over before their turn came.
    pub expired: u64,
    /// Calls refused because too many before them had failed.
    pub held_up: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("open", &self.doors.read().is_some()).finish_non_exhaustive()
    }
}

struct Doors {
    hashing: Sender<Job>,
    others: Sender<Job>,
}

struct Job {
    call: LoginCall,
    origin: Origin,
    until: Option<Instant>,
    reply: ReplyFn,
}

impl LoginPool {
    /// Starts the threads, one of each kind at least.
    ///
    /// # Errors
    /// The operating system's, when it starts no more threads.
    pub fn start(service: LoginService, config: &LoginConfig) -> std::io::Result<Self> {
        let service = Arc::new(service);
        let (hashing, hashing_jobs) = bounded(config.hash_queue_max.max(1));
        let (others, other_jobs) = bounded(config.token_queue_max.max(1));
        let pool = Self {
            inner: Arc::new(Inner {
                service: Arc::clone(&service),
                doors: RwLock::new(Some(Doors { hashing, others })),
                threads: Mutex::new(Vec::new()),
                call_timeout: config.call_timeout(),
                overloads: AtomicU64::new(0),
                expired: Arc::default(),
            }),
        };
        let hashers = (0..config.hash_threads.max(1)).map(|_| ("login-hash", &hashing_jobs));
        let workers = (0..config.token_threads.max(1)).map(|_| ("login-token", &other_jobs));
        for (name, jobs) in hashers.chain(workers) {
            let (service, jobs) = (Arc::clone(&service), jobs.clone());
            let expired = Arc::clone(&pool.inner.expired);
            let thread =
                thread::Builder::new().name(name.into()).spawn(move || work(&service, &jobs, &expired))?;
            pool.inner.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Queues a call, to be begun within the configured time. Never blocks. A full queue answers [`LoginError::Overloaded`], a closed pool
    /// [`LoginError::Unavailable`], and who has failed too often gets [`LoginError::RateLimited`], all at once on this thread.
    pub fn submit(&self, call: LoginCall, origin: Origin, reply: ReplyFn) {
        let until = Instant::now().checked_add(self.inner.call_timeout);
        self.submit_until(call, origin, until, reply);
    }

    /// The same for a call that nobody waits for any more after `until`: when its turn comes later, it is not begun, and the answer is
    /// [`LoginError::Overloaded`].
    pub fn submit_until(&self, call: LoginCall, origin: Origin, until: Option<Instant>, reply: ReplyFn) {
        if let Err((error, reply)) = self.queue(call, origin, until, reply) {
            reply(Err(error));
        }
    }

    fn queue(
        &self,
        call: LoginCall,
        origin: Origin,
        until: Option<Instant>,
        reply: ReplyFn,
    ) -> Result<(), (LoginError, ReplyFn)> {
        // Before it takes a place in the queue, so that who guesses takes none from others.
        if let Err(error) = self.inner.service.admit(&call, &origin) {
            return Err((error, reply));
        }
        let doors = self.inner.doors.read();
        let Some(doors) = doors.as_ref() else { return Err((LoginError::Unavailable, reply)) };
        let door = if call.hashes() { &doors.hashing } else { &doors.others };
        door.try_send(Job { call, origin, until, reply }).map_err(|error| match error {
            TrySendError::Full(job) => {
                self.inner.overloads.fetch_add(1, Ordering::Relaxed);
                (LoginError::Overloaded, job.reply)
            }
            TrySendError::Disconnected(job) => (LoginError::Unavailable, job.reply),
        })
    }

    /// What was counted, and what waits now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let doors = self.inner.doors.read();
        let (hash_queue, token_queue) =
            doors.as_ref().map_or((0, 0), |doors| (doors.hashing.len(), doors.others.len()));
        PoolStats {
            hash_queue,
            token_queue,
            overloads: self.inner.overloads.load(Ordering::Relaxed),
            expired: self.inner.expired.load(Ordering::Relaxed),
            held_up: self.inner.service.held_up(),
        }
    }

    /// Takes nothing in any more, answers all that was accepted, and ends the threads. A second call does nothing. From
    /// one of the pool's own threads it only starts all this and returns.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        drop(self.doors.write().take());
        let threads = std::mem::take(&mut *self.threads.lock());
        let this = thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == this) {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a login thread had panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(service: &LoginService, jobs: &Receiver<Job>, expired: &AtomicU64) {
    while let Ok(Job { call, origin, until, reply }) = jobs.recv() {
        let answer = if until.is_some_and(|until| until <= Instant::now()) {
            expired.fetch_add(1, Ordering::Relaxed);
            Err(LoginError::Overloaded)
        } else {
            catch_unwind(AssertUnwindSafe(|| service.call(call, &origin))).unwrap_or_else(|_| {
                log::error!("a login call panicked");
                Err(LoginError::Internal)
            })
        };
        if catch_unwind(AssertUnwindSafe(|| reply(answer))).is_err() {
            log::error!("the callback of a login call panicked");
        }
    }
}
