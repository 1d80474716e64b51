//! One call in a hundred sleeps on a worker of the server: what the others notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::{Delay, EchoClient, Payload};
use rpc::{Channel, ChannelConfig};

use crate::load::float;
use crate::subject::{Failure, Subject};

/// The load has a rhythm of its own, so that it is the same with and without the sleepers.
const EVERY: Duration = Duration::from_millis(1);
const CALLS_EACH: u64 = 10;
const SLEEP_MS: u64 = 100;

pub(crate) fn measure(rounds: usize, seconds: f64, rows: &mut Rows) -> Result<(), Failure> {
    let server = Subject::Rpc.start("0")?;
    let address: std::net::SocketAddr = server.addr().parse()?;
    let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
    let channel = Channel::to(pool.handles(), [address], ChannelConfig::default())?;
    let client = EchoClient::new(channel);
    client.say(&Payload::default()).wait()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Each with the other in a pair, and neither always first.
        for sleeps in [round % 2 == 0, round % 2 != 0] {
            let p99 = once(&client, seconds, sleeps)?;
            if sleeps { with.push(p99) } else { without.push(p99) }
        }
    }
    let case = "10,000 calls/s, 1 % sleep 100 ms";
    rows.add(case, "rpc", "p99 of the others", "us", &with, None);
    rows.compare(&with, &without, Bar::AtMost(1.25));
    rows.add(case, "rpc", "p99 where none sleeps", "us", &without, None);
    Ok(())
}

/// The 99th percentile of the quick calls of one round, in microseconds.
fn once(client: &EchoClient, seconds: f64, sleeps: bool) -> Result<f64, Failure> {
    let latencies = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?));
    let (open, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (begin, mut calls) = (Instant::now(), 0_u64);
    let mut next = begin;
    while begin.elapsed().as_secs_f64() < seconds {
        for _ in 0..CALLS_EACH {
            calls += 1;
            let (open, failed) = (Arc::clone(&open), Arc::clone(&failed));
            open.fetch_add(1, Ordering::SeqCst);
            let ended = move |well: bool| {
                if !well {
                    failed.fetch_add(1, Ordering::SeqCst);
                }
                open.fetch_sub(1, Ordering::SeqCst);
            };
            if sleeps && calls % 100 == 0 {
                let delay = Delay { millis: SLEEP_MS, data: vec![7; 64] };
                let _ = client.wait(&delay).then(move |outcome| ended(outcome.is_ok()));
                continue;
            }
            let (began, latencies) = (Instant::now(), Arc::clone(&latencies));
            let _ = client.say(&Payload { data: vec![7; 64] }).then(move |outcome| {
                let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                latencies.lock().saturating_record(nanos);
                ended(outcome.is_ok());
            });
        }
        // A pause that this thread did not choose is not made up for: that would be a burst.
        next = (next + EVERY).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let until = Instant::now() + Duration::from_secs(10);
    while open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        std::thread::sleep(EVERY);
    }
    match (open.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)) {
        (0, 0) => Ok(float(latencies.lock().value_at_quantile(0.99)) / 1e3),
        (open, failed) => Err(format!("{failed} calls failed, {open} did not end").into()),
    }
}
