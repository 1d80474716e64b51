//! Messages through the pipeline: as many as go with so many in flight, or at a given rate.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use schema::{ConvId, SessionId, UserId};
use store::dao::{ConversationDao, UserDao};
use store::{CommitSink, CommittedBatch, SendRequest, Sent, Store, Ticket};

use crate::engine::{Engine, Place};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) conversations: u64,
    pub(crate) window: usize,
    pub(crate) seconds: Duration,
    /// Messages a second; as many as go without.
    pub(crate) rate: Option<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) per_second: f64,
    pub(crate) per_batch: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) own_cpu_us: f64,
}

/// What the sink and the sender share.
struct Shared {
    began: Instant,
    /// When each place in the window was last used, in microseconds since `began`.
    sent_us: Vec<AtomicU64>,
    acked: AtomicU64,
    failed: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    free: Sender<usize>,
}

#[derive(Clone)]
struct Sink(Arc<Shared>);

impl CommitSink for Sink {
    fn committed(&mut self, batch: CommittedBatch) {
        let now = micros(self.0.began.elapsed());
        let mut latencies = self.0.latencies.lock();
        for outcome in batch.sends {
            let Some(ticket) = outcome.ticket else { continue };
            let place = usize::try_from(ticket.token).unwrap_or(0);
            let counter =
                if matches!(outcome.result, Ok(Sent::New(_))) { &self.0.acked } else { &self.0.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            if let Some(sent) = self.0.sent_us.get(place) {
                latencies.saturating_record(now.saturating_sub(sent.load(Ordering::Relaxed)));
            }
            // The sender is gone at the end of a run.
            let _ = self.0.free.send(place);
        }
    }

    fn another(&self) -> Box<dyn CommitSink> {
        Box::new(self.clone())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Load {
    pub(crate) fn run(&self, place: &Place) -> Result<Got, Box<dyn Error>> {
        let all = sched_getaffinity(None)?;
        if place.engine == Engine::Sqlite {
            // The store's threads have the core of the one that opens it.
            let mut one = CpuSet::new();
            one.set(0);
            sched_setaffinity(None, &one)?;
        }
        let result = self.run_here(place);
        sched_setaffinity(None, &all)?;
        result
    }

    fn run_here(&self, place: &Place) -> Result<Got, Box<dyn Error>> {
        let (free, places) = unbounded();
        let shared = Arc::new(Shared {
            began: Instant::now(),
            sent_us: (0..self.window).map(|_| AtomicU64::new(0)).collect(),
            acked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latencies: Mutex::new(Histogram::new_with_bounds(1, 600_000_000, 3)?),
            free,
        });
        let store = place.open(Box::new(Sink(Arc::clone(&shared))))?;
        let pairs = pairs(&store, self.conversations)?;
        (0..self.window).try_for_each(|place| shared.free.send(place))?;
        // Warm: statements prepared, heads known.
        self.send(&store, &shared, &places, &pairs, Duration::from_millis(1_500))?;
        let (acked, batches) = (shared.acked.load(Ordering::Relaxed), store.stats().batches);
        shared.latencies.lock().reset();
        let (began, cpu) = (Instant::now(), benches::own_cpu());
        self.send(&store, &shared, &places, &pairs, self.seconds)?;
        let took = began.elapsed().as_secs_f64();
        let used = benches::own_cpu().saturating_sub(cpu);
        let acked = shared.acked.load(Ordering::Relaxed) - acked;
        let batches = store.stats().batches - batches;
        store.close();
        let failed = shared.failed.load(Ordering::Relaxed);
        if failed > 0 {
            return Err(format!("{failed} messages were not accepted").into());
        }
        let latencies = shared.latencies.lock();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        Ok(Got {
            per_second: acked as f64 / took,
            per_batch: acked as f64 / batches.max(1) as f64,
            p50_ms: latencies.value_at_quantile(0.5) as f64 / 1e3,
            p99_ms: latencies.value_at_quantile(0.99) as f64 / 1e3,
            own_cpu_us: used.as_secs_f64() * 1e6 / acked.max(1) as f64,
        })
    }

    /// Sends for so long; what is in flight at the end stays so.
    fn send(
        &self,
        store: &Store,
        shared: &Shared,
        places: &Receiver<usize>,
        pairs: &[(ConvId, UserId)],
        time: Duration,
    ) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        let mut sent = 0_u64;
        let run = micros(shared.began.elapsed());
        while began.elapsed() < time {
            if let Some(rate) = self.rate {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let due = Duration::from_secs_f64(sent as f64 / rate);
                if let Some(wait) = due.checked_sub(began.elapsed()).filter(|wait| wait.as_micros() > 200) {
                    std::thread::sleep(wait);
                }
            }
            let place = places.recv_timeout(Duration::from_secs(120))?;
            let at = usize::try_from(sent % self.conversations)?;
            let Some((conv, sender)) = pairs.get(at).copied() else { continue };
            if let Some(time) = shared.sent_us.get(place) {
                time.store(micros(shared.began.elapsed()), Ordering::Relaxed);
            }
            store.send(SendRequest {
                ticket: Ticket { owner: 0, token: u64::try_from(place)?, call: Some(sent) },
                conv,
                sender,
                session: SessionId::new(1).ok_or("1 is an id")?,
                client_id: Some(format!("{run}-{sent}").into()),
                text: "sixty-four bytes of text, which is what people write on average.".to_owned(),
            })?;
            sent += 1;
        }
        Ok(())
    }
}

/// Conversations of two users each, and one of the two.
pub(crate) fn pairs(store: &Store, count: u64) -> Result<Vec<(ConvId, UserId)>, Box<dyn Error>> {
    let mut all = Vec::new();
    for first in (0..count).step_by(100) {
        let some = store.write_wait(move |db| {
            (first..count.min(first + 100))
                .map(|pair| {
                    let a = UserDao::new(db).create("a", &format!("a{pair}"), "", 0)?;
                    let b = UserDao::new(db).create("b", &format!("b{pair}"), "", 0)?;
                    let conv = ConversationDao::new(db).direct(a, b, 0)?;
                    let conv = conv.ok_or_else(|| store::StoreError::corrupt("no conversation"))?;
                    Ok((conv.id, a))
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        all.extend(some);
    }
    Ok(all)
}
