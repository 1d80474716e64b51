//! [`LoginPool`]: runs login calls on worker threads, so that an event loop never waits for one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Mutex, RwLock};
use schema::login::{LoginCall, LoginError, LoginReply};

use crate::config::LoginConfig;
use crate::service::LoginService;

/// Gets the answer to a call, on a worker thread: it hands over and returns.
pub type ReplyFn = Box<dyn FnOnce(LoginReply) + Send>;

/// Two bounded queues with threads of their own: one for calls that hash a password, which takes long, and one for all
/// others, so that a storm of passwords never keeps a token waiting. Clones share them.
///
/// Every call that [`submit`](Self::submit) accepted is answered exactly once.
#[derive(Clone, Debug)]
pub struct LoginPool {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken out by `close`; whoever holds the read lock holds it for a `try_send`.
    doors: RwLock<Option<Doors>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
                doors: RwLock::new(Some(Doors { hashing, others })),
                threads: Mutex::new(Vec::new()),
            }),
        };
        let hashers = (0..config.hash_threads.max(1)).map(|_| ("login-hash", &hashing_jobs));
        let workers = (0..config.token_threads.max(1)).map(|_| ("login-token", &other_jobs));
        for (name, jobs) in hashers.chain(workers) {
            let (service, jobs) = (Arc::clone(&service), jobs.clone());
            let thread = thread::Builder::new().name(name.into()).spawn(move || work(&service, &jobs))?;
            pool.inner.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Queues a call. Never blocks.
    ///
    /// # Errors
    /// [`LoginError::Overloaded`] when the queue is full, [`LoginError::Unavailable`] after [`close`](Self::close);
    /// `reply` is not called then.
    pub fn submit(&self, call: LoginCall, reply: ReplyFn) -> Result<(), LoginError> {
        let doors = self.inner.doors.read();
        let Some(doors) = doors.as_ref() else { return Err(LoginError::Unavailable) };
        let door = if call.hashes() { &doors.hashing } else { &doors.others };
        door.try_send(Job { call, reply }).map_err(|error| match error {
            TrySendError::Full(_) => LoginError::Overloaded,
            TrySendError::Disconnected(_) => LoginError::Unavailable,
        })
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

fn work(service: &LoginService, jobs: &Receiver<Job>) {
    while let Ok(Job { call, reply }) = jobs.recv() {
        let answer = catch_unwind(AssertUnwindSafe(|| service.call(call))).unwrap_or_else(|_| {
            log::error!("a login call panicked");
            Err(LoginError::Internal)
        });
        if catch_unwind(AssertUnwindSafe(|| reply(answer))).is_err() {
            log::error!("the callback of a login call panicked");
        }
    }
}
