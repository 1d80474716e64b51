//! What every load counts: warm-up, the measured time, latencies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::subject::{Failure, Job, Outcome, cpu_of};

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// Shared by all calls of a load. Its lock is taken by one thread alone in the loads here.
pub(crate) struct Meter {
    calls: AtomicU64,
    failed: AtomicU64,
    begin: Instant,
    end: Instant,
    latencies: Mutex<Histogram<u64>>,
}

impl Meter {
    /// To be made when all connections are there: the time begins at once.
    pub(crate) fn new(seconds: f64) -> Result<Arc<Self>, Failure> {
        let begin = Instant::now() + WARM_UP;
        Ok(Arc::new(Self {
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            begin,
            end: begin + Duration::from_secs_f64(seconds),
            latencies: Mutex::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?),
        }))
    }

    /// A call has ended that began then. Whether there is to be another.
    pub(crate) fn ended(&self, began: Instant, well: bool) -> bool {
        let now = Instant::now();
        if !well {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if now >= self.begin && now < self.end {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let nanos = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
            self.latencies.lock().saturating_record(nanos);
        }
        now < self.end && well
    }

    /// [`Meter::watch`] on a thread of its own, for loads that need the one they are on.
    #[cfg(feature = "rpc-peers")]
    pub(crate) fn watch_aside(
        self: &Arc<Self>,
        pid: u32,
    ) -> std::thread::JoinHandle<Result<Outcome, String>> {
        let watcher = Arc::clone(self);
        std::thread::spawn(move || watcher.watch(pid).map_err(|error| error.to_string()))
    }

    /// Waits while the load runs on other threads, and gives what came of it.
    pub(crate) fn watch(&self, pid: u32) -> Result<Outcome, Failure> {
        let sleep_until = |when: Instant| std::thread::sleep(when.saturating_duration_since(Instant::now()));
        sleep_until(self.begin);
        let (cpu, calls, began) = (cpu_of(pid), self.calls.load(Ordering::Relaxed), Instant::now());
        sleep_until(self.end);
        let cpu = cpu_of(pid).saturating_sub(cpu);
        let calls = self.calls.load(Ordering::Relaxed) - calls;
        let seconds = began.elapsed().as_secs_f64();
        let failed = self.failed.load(Ordering::Relaxed);
        if failed > 0 || calls == 0 {
            return Err(format!("{calls} calls ended well, {failed} did not").into());
        }
        let latencies = self.latencies.lock();
        let us = |quantile: f64| float(latencies.value_at_quantile(quantile)) / 1e3;
        Ok(Outcome {
            calls,
            seconds,
            p50_us: us(0.5),
            p99_us: us(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / float(calls),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// Loads a server and prints what came of it, for the process that started this one.
pub(crate) fn run(job: &Job, addr: &str, pid: u32) -> Result<(), Failure> {
    let outcome = match job.subject {
        crate::subject::Subject::Rpc => crate::ours::load(job, addr, pid)?,
        #[cfg(feature = "rpc-peers")]
        crate::subject::Subject::Tonic => crate::tonic_peer::load(job, addr, pid)?,
        #[cfg(feature = "rpc-peers")]
        crate::subject::Subject::Tarpc => crate::tarpc_peer::load(job, addr, pid)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
