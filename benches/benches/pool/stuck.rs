//! A connect that hangs: what do the other threads, which have connections enough, notice of it?

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use hdrhistogram::Histogram;
use mysql::{Opts, OptsBuilder, PoolConstraints, PoolOpts};
use store::pool::{ConnectionPool, PoolConfig};
use store::{MySqlConfig, MySqlManager};
use testkit::{FaultProxy, MariaDb};

/// Connections that live, of twice as many that may.
const LIVE: usize = 4;
/// Threads that ask for them all the time: one less, so that there is one for each.
const THREADS: usize = 3;
const TIME: Duration = Duration::from_secs(1);

pub(crate) fn measure(server: &MariaDb, rounds: usize, rows: &mut Rows) -> Result<(), Box<dyn Error>> {
    let (mut ours, mut ours_stuck, mut theirs, mut theirs_stuck) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds.min(5) {
        let (calm, stuck) = store(server)?;
        ours.push(calm);
        ours_stuck.push(stuck);
        let (calm, stuck) = driver(server)?;
        theirs.push(calm);
        theirs_stuck.push(stuck);
        eprint!(".");
    }
    eprintln!();
    let case = "one connect hangs, 3 threads on 4 connections";
    let metric = "wait, p99, while it hangs, against before";
    rows.add(case, "store", metric, "us", &ours_stuck, None);
    rows.compare(&ours_stuck, &ours, Bar::AtMost(1.5));
    rows.add(case, "mysql", metric, "us", &theirs_stuck, None);
    rows.compare(&theirs_stuck, &theirs, Bar::AtLeast(0.0));
    Ok(())
}

fn store(server: &MariaDb) -> Result<(f64, f64), Box<dyn Error>> {
    let proxy = FaultProxy::start(server.addr());
    let url = MariaDb::url_at(proxy.addr(), "mysql");
    let config = PoolConfig {
        connections_min: LIVE,
        connections_max: 2 * LIVE,
        connect_ms: 30_000,
        acquire_ms: 30_000,
        ..PoolConfig::default()
    };
    let pool = ConnectionPool::start(MySqlManager::new(MySqlConfig::from_url(&url)?), config)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while pool.stats().idle < LIVE && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let cycle = || pool.acquire().map(drop).map_err(|error| error.to_string());
    let calm = p99(&cycle)?;
    proxy.let_new_ones_hang(true);
    let held: Vec<_> = (0..LIVE).map(|_| pool.acquire()).collect::<Result<_, _>>()?;
    // A fifth one has to be made, and hangs.
    let asking = pool.clone();
    let stuck = thread::spawn(move || drop(asking.acquire_by(Instant::now() + Duration::from_secs(2))));
    while pool.stats().connecting == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    let while_stuck = p99(&cycle)?;
    let _ = stuck.join();
    Ok((calm, while_stuck))
}

fn driver(server: &MariaDb) -> Result<(f64, f64), Box<dyn Error>> {
    let proxy = FaultProxy::start(server.addr());
    let url = MariaDb::url_at(proxy.addr(), "mysql");
    let constraints = PoolConstraints::new(LIVE, 2 * LIVE).ok_or("no such pool")?;
    let options =
        PoolOpts::new().with_constraints(constraints).with_reset_connection(false).with_check_health(false);
    let hang = Some(Duration::from_secs(3));
    let opts = OptsBuilder::from_opts(Opts::from_url(&url)?)
        .prefer_socket(false)
        .pool_opts(options)
        .read_timeout(hang)
        .tcp_connect_timeout(hang);
    let pool = mysql::Pool::new(opts)?;
    // One that fails after its time was a wait as well.
    let cycle = || {
        drop(pool.get_conn());
        Ok(())
    };
    let calm = p99(&cycle)?;
    proxy.let_new_ones_hang(true);
    let held: Vec<_> = (0..LIVE).map(|_| pool.get_conn()).collect::<Result<_, _>>()?;
    let asking = pool.clone();
    let stuck = thread::spawn(move || drop(asking.get_conn()));
    thread::sleep(Duration::from_millis(100));
    // Giving back takes the lock as well.
    let giving = thread::spawn(move || drop(held));
    let while_stuck = p99(&cycle)?;
    let _ = (stuck.join(), giving.join());
    Ok((calm, while_stuck))
}

/// How long an acquire takes, in microseconds, for all but one in a hundred.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn p99(cycle: &(dyn Fn() -> Result<(), String> + Sync)) -> Result<f64, Box<dyn Error>> {
    let done = AtomicBool::new(false);
    let worker = || -> Result<Histogram<u64>, String> {
        let mut waits =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| error.to_string())?;
        while !done.load(Ordering::Relaxed) {
            let began = Instant::now();
            cycle()?;
            waits.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            // A thread does something with its connection.
            thread::sleep(Duration::from_micros(200));
        }
        Ok(waits)
    };
    let all: Result<Vec<_>, String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        thread::sleep(TIME);
        done.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err("a worker panicked".into())))
            .collect()
    });
    let mut waits = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    for one in all? {
        waits.add(one)?;
    }
    Ok(waits.value_at_quantile(0.99) as f64 / 1e3)
}
