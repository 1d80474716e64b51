//! A pool of event loops, one per thread.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::config::LoopConfig;
use crate::event_loop::EventLoop;
use crate::handle::{LoopHandle, ServiceSlot};

/// Why a pool could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The calling thread is one of the pool's: it would wait for itself.
    #[error("a loop thread cannot join its own pool")]
    OwnThread,
    /// A loop ended with an error.
    #[error("an event loop failed: {0}")]
    Loop(#[from] io::Error),
    /// A loop's thread panicked outside of any handler, which is a defect of this crate.
    #[error("the thread of an event loop panicked")]
    Panicked,
}

/// Event loops, each on a thread of its own, named `io-0`, `io-1` and so on.
///
/// ```
/// let mut pool = reactor::EventLoopThreadPool::start(2, reactor::LoopConfig::default())?;
/// pool.handles()[1].post(|event_loop| println!("hello from loop {}", event_loop.handle().index()))?;
/// pool.stop();
/// pool.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventLoopThreadPool {
    handles: Vec<LoopHandle>,
    /// How many loops [`EventLoopThreadPool::next`] has given.
    given: AtomicUsize,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl EventLoopThreadPool {
    /// Starts `loops` loops (at least one).
    ///
    /// # Errors
    /// When a thread or a loop cannot be made; those that were made are stopped again.
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is made for the call")]
    pub fn start(loops: u16, config: LoopConfig) -> io::Result<Self> {
        let mut pool = Self { handles: Vec::new(), given: AtomicUsize::new(0), threads: Vec::new() };
        for index in 0..loops.max(1) {
            let (tell, told) = crossbeam_channel::bounded(1);
            let config = config.clone();
            let thread = std::thread::Builder::new().name(format!("io-{index}")).spawn(move || {
                pin(&config.pin_to_cpus, index);
                let mut event_loop = match EventLoop::with_index(config, index) {
                    Ok(event_loop) => event_loop,
                    Err(error) => {
                        // The starter waits for it.
                        let _ = tell.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = tell.send(Ok(event_loop.handle()));
                event_loop.run()
            })?;
            pool.threads.push(thread);
            pool.handles.push(told.recv().map_err(io::Error::other)??);
        }
        Ok(pool)
    }

    /// The loops' handles, in the order of their indexes.
    #[must_use]
    pub fn handles(&self) -> &[LoopHandle] {
        &self.handles
    }

    /// The next loop in turn.
    #[must_use]
    pub fn next(&self) -> &LoopHandle {
        self.by_hash(self.given.fetch_add(1, Ordering::Relaxed) as u64)
    }

    /// The loop that a number stands for: the same number always gives the same loop.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a pool has at least one loop")]
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of loops")]
    pub fn by_hash(&self, hash: u64) -> &LoopHandle {
        &self.handles[(hash % self.handles.len() as u64) as usize]
    }

    /// The loop with the fewest connections, as they stood at the end of its last turn.
    #[must_use]
    pub fn least_loaded(&self) -> &LoopHandle {
        let least = self.handles.iter().min_by_key(|handle| handle.stats().connections());
        least.unwrap_or_else(|| self.by_hash(0))
    }

    /// A service slot on every loop (see [`LoopHandle::service_slot`]).
    #[must_use]
    pub fn service_slots<P: Send + 'static>(&self, capacity: usize) -> Vec<ServiceSlot<P>> {
        self.handles.iter().map(|handle| handle.service_slot(capacity)).collect()
    }

    /// Asks all loops to stop (see [`LoopHandle::stop`]).
    pub fn stop(&self) {
        for handle in &self.handles {
            handle.stop();
        }
    }

    /// Waits until all loops have ended. Call [`EventLoopThreadPool::stop`] before, here or on another thread.
    ///
    /// # Errors
    /// [`JoinError::OwnThread`] on a thread of this pool; else the first failure of a loop.
    pub fn join(&mut self) -> Result<(), JoinError> {
        if self.handles.iter().any(LoopHandle::is_loop_thread) {
            return Err(JoinError::OwnThread);
        }
        let mut first = Ok(());
        for thread in self.threads.drain(..) {
            let ended = match thread.join() {
                Ok(result) => result.map_err(JoinError::Loop),
                Err(_) => Err(JoinError::Panicked),
            };
            first = first.and(ended);
        }
        first
    }
}

/// Pins the calling thread to the processor for the loop of this index, if there is one. A processor that does not exist is no reason not to serve.
fn pin(cpus: &[usize], index: u16) {
    let Some(cpu) = usize::from(index).checked_rem(cpus.len()).and_then(|at| cpus.get(at)) else { return };
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        if *cpu < rustix::thread::CpuSet::MAX_CPU {
            set.set(*cpu);
        }
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            log::warn!("loop {index} cannot be pinned to processor {cpu}: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    log::warn!("loop {index} cannot be pinned to processor {cpu} on this system");
}

impl Drop for EventLoopThreadPool {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.join() {
            log::warn!("event loop pool: {error}");
        }
    }
}
