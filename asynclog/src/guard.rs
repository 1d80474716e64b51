//! The guard: what a program holds for as long as it logs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::shared::Shared;
use crate::{LogError, LogStats, ThreadStats, caller};

/// Keeps a log running. Hold it in `main`; dropping it writes everything and joins both threads.
///
/// Whoever logs afterwards does no harm: the record is counted as dropped. Dropping waits for a writer that hangs no longer than
/// [`Builder::shutdown_timeout`](crate::Builder::shutdown_timeout); then its thread is left behind. In a fork of the process it does nothing, for the
/// threads are not there.
#[derive(Debug)]
#[must_use = "the log ends when its guard is dropped"]
pub struct Guard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// Disconnected when the file-writer has ended, which is the last to end.
    pub(crate) ended: Receiver<()>,
    pub(crate) shutdown_timeout: Duration,
    /// The filter file's watch ends when this is dropped.
    #[cfg(target_os = "linux")]
    pub(crate) watch_end: Option<std::os::unix::net::UnixStream>,
}

impl Guard {
    /// Waits until everything that was logged before this call, by this thread or by one it has heard from, is
    /// given to the operating system, or counted as dropped. Any thread but a loop's.
    ///
    /// # Errors
    ///
    /// [`LogError::Timeout`] when it takes longer, [`LogError::Write`] when writing fails at the moment (the records are kept for
    /// the next attempt, as far as there is room), [`LogError::LoopThread`] on a thread that must not wait.
    pub fn barrier(&self, timeout: Duration) -> Result<(), LogError> {
        if caller::never_waits() {
            return Err(LogError::LoopThread);
        }
        self.shared.barrier(timeout)
    }

    /// What the log has done so far. Any thread.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }

    /// What each thread has logged that logs now, in the order of their first records. Any thread; it allocates.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadStats> {
        self.shared.threads()
    }

    /// Asks the file-writer to open its file anew and to write to it what there is, even if that is nothing. Does not wait. Any thread.
    ///
    /// A removed or renamed file is noticed without it, but only when there is something to write: after moving a file away, this is how to
    /// know that nothing comes into it any more.
    pub fn reopen(&self) {
        self.shared.reopen_wanted.store(true, Ordering::SeqCst);
        self.shared.kick();
    }

    /// Replaces the filter, see [`Builder::filter`](crate::Builder::filter). Targets that it does not cover have
    /// [`Builder::level`](crate::Builder::level). Holds for the next record. Any thread.
    ///
    /// # Errors
    ///
    /// [`LogError::Filter`] when it cannot be read; then the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        self.shared.set_filter(filter)
    }

    /// Reads the filter again: from its file if [`Builder::filter_file`](crate::Builder::filter_file) names one, else it is the builder's. For a
    /// signal or an operator's command; changes of the file are noticed without it on Linux. Any thread; it reads a small file.
    ///
    /// # Errors
    ///
    /// [`LogError::Filter`] or [`LogError::FilterFile`] when it cannot be read; then the old one stays.
    pub fn reload(&self) -> Result<(), LogError> {
        self.shared.reload()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.kick();
        // From one of the log's own threads (a caller's own `Write` that owns the guard) it would wait for itself.
        if caller::is_inside() || self.shared.is_forked() {
            return;
        }
        #[cfg(target_os = "linux")]
        drop(self.watch_end.take());
        if self.ended.recv_timeout(self.shutdown_timeout) == Err(RecvTimeoutError::Disconnected) {
            for thread in self.threads.drain(..) {
                // A panic of the thread has been reported and its records counted as lost.
                let _ = thread.join();
            }
        }
    }
}
