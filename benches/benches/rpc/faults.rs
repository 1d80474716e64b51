//! Providers that are restarted and killed under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::{EchoClient, Payload};
use rpc::{Channel, ChannelConfig};

use crate::load::float;
use crate::ours::Provider;
use crate::subject::{Failure, Subject};

/// Chains of calls, each begun by the end of the one before. The calls are such as may not be made twice, so no retry hides a failure.
const CHAINS: u64 = 32;
/// How long anything here may take.
const LONG: Duration = Duration::from_secs(60);

struct Shared {
    client: EchoClient,
    stop: AtomicBool,
    good: AtomicU64,
    failed: AtomicU64,
    running: AtomicU64,
    /// Between two calls that ended well, the most nanoseconds since this was last set to zero; and when the last one was.
    gap: AtomicU64,
    last: AtomicU64,
    began: Instant,
}

/// Calls without a pause.
pub(crate) struct Load(Arc<Shared>);

impl Load {
    pub(crate) fn start(channel: &Channel) -> Self {
        let shared = Arc::new(Shared {
            client: EchoClient::new(channel.clone()),
            stop: AtomicBool::new(false),
            good: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            running: AtomicU64::new(CHAINS),
            gap: AtomicU64::new(0),
            last: AtomicU64::new(0),
            began: Instant::now(),
        });
        for _ in 0..CHAINS {
            next(&shared);
        }
        Self(shared)
    }

    /// Waits until so many more calls have ended well.
    pub(crate) fn more(&self, calls: u64) -> Result<(), Failure> {
        let wanted = self.0.good.load(Ordering::SeqCst) + calls;
        wait_until("more calls", || self.0.good.load(Ordering::SeqCst) >= wanted)
    }

    /// Ends the chains; how many calls ended well, and how many did not.
    pub(crate) fn stop(self) -> Result<(u64, u64), Failure> {
        self.0.stop.store(true, Ordering::SeqCst);
        wait_until("the last calls", || self.0.running.load(Ordering::SeqCst) == 0)?;
        Ok((self.0.good.load(Ordering::SeqCst), self.0.failed.load(Ordering::SeqCst)))
    }
}

pub(crate) fn wait_until(what: &str, mut cond: impl FnMut() -> bool) -> Result<(), Failure> {
    let until = Instant::now() + LONG;
    while !cond() {
        if Instant::now() > until {
            return Err(format!("waited in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn next(shared: &Arc<Shared>) {
    if shared.stop.load(Ordering::SeqCst) {
        shared.running.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let theirs = Arc::clone(shared);
    let _ = shared.client.count(&Payload::default()).then(move |outcome| {
        if outcome.is_ok() {
            theirs.good.fetch_add(1, Ordering::SeqCst);
            let now = u64::try_from(theirs.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let before = theirs.last.swap(now, Ordering::SeqCst);
            theirs.gap.fetch_max(now.saturating_sub(before), Ordering::SeqCst);
        } else {
            theirs.failed.fetch_add(1, Ordering::SeqCst);
        }
        next(&theirs);
    });
}

pub(crate) fn restart(seconds: f64, rows: &mut Rows) -> Result<(), Failure> {
    let mut providers = (0..3).map(|_| Provider::start("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = providers.iter().map(|provider| provider.server.local_addr()).collect();
    let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
    let channel = Channel::to(pool.handles(), addresses, ChannelConfig::default())?;
    wait_until("three connections", || channel.stats().ready == 3)?;
    let load = Load::start(&channel);
    let (began, mut restarts) = (Instant::now(), 0);
    while restarts < 9 || began.elapsed().as_secs_f64() < seconds {
        load.more(1000)?;
        let mut old = providers.remove(0);
        if !old.server.drain(LONG) {
            return Err("a client did not leave".into());
        }
        let address = old.server.local_addr().to_string();
        old.pool.stop();
        old.pool.join()?;
        drop(old);
        providers.push(Provider::start(&address)?);
        wait_until("the new one", || channel.stats().ready == 3)?;
        restarts += 1;
    }
    let (good, failed) = load.stop()?;
    let case = format!("{restarts} restarts of 3 providers");
    rows.add(&case, "rpc", "failed calls", "", &[float(failed)], Some(Bar::AtMost(0.0)));
    rows.add(&case, "rpc", "calls", "", &[float(good)], None);
    Ok(())
}

pub(crate) fn kill(rounds: usize, rows: &mut Rows) -> Result<(), Failure> {
    let (mut failures, mut gaps) = (Vec::new(), Vec::new());
    let config = ChannelConfig::default();
    let heartbeat = config.heartbeat;
    for _ in 0..rounds {
        let mut servers = (0..3).map(|_| Subject::Rpc.start("0")).collect::<Result<Vec<_>, _>>()?;
        let addresses = servers
            .iter()
            .map(|server| server.addr().parse())
            .collect::<Result<Vec<std::net::SocketAddr>, _>>()?;
        let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
        let channel = Channel::to(pool.handles(), addresses, config.clone())?;
        wait_until("three connections", || channel.stats().ready == 3)?;
        let load = Load::start(&channel);
        load.more(3000)?;
        load.0.gap.store(0, Ordering::SeqCst);
        // Dropping it is kill -9.
        drop(servers.pop());
        load.more(3000)?;
        gaps.push(float(load.0.gap.load(Ordering::SeqCst)) / 1e6);
        failures.push(float(load.stop()?.1));
    }
    let case = format!("a provider of 3 killed, {CHAINS} calls under way");
    let most = failures.iter().copied().fold(0.0, f64::max);
    rows.add(&case, "rpc", "failed calls, the most", "", &[most], Some(Bar::AtMost(float(CHAINS))));
    rows.add(&case, "rpc", "failed calls", "", &failures, None);
    let bar = Bar::AtMost(heartbeat.as_secs_f64() * 1e3);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    rows.add(&case, "rpc", "longest pause between two answers, the most", "ms", &[most], Some(bar));
    Ok(())
}
