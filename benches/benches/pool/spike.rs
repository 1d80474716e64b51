//! A burst of short acquires on a pool whose connects are slow: how many connections does it end with?

use std::error::Error;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use benches::rows::{Bar, Rows};
use store::StoreError;
use store::pool::{ConnectionPool, Manager, PoolConfig, Trust};

const ACQUIRES: usize = 50;
const MIN: usize = 5;
const HELD: Duration = Duration::from_millis(2);
const CONNECT: Duration = Duration::from_millis(150);

/// Connections to nothing, each of which takes its time to be made.
struct Slow;

impl Manager for Slow {
    type Connection = ();

    fn connect(&self, _: Duration) -> Result<(), StoreError> {
        thread::sleep(CONNECT);
        Ok(())
    }

    fn peek(&self, (): &()) -> Trust {
        Trust::Good
    }

    fn ping(&self, (): &mut (), _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_reusable(&self, (): &()) -> bool {
        true
    }
}

pub(crate) fn measure(rounds: usize, rows: &mut Rows) -> Result<(), Box<dyn Error>> {
    let mut ends = Vec::new();
    for _ in 0..rounds {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        ends.push(one()? as f64);
        eprint!(".");
    }
    eprintln!();
    let case = "50 acquires of 2 ms at once, connects of 150 ms, min 5, max 50";
    rows.add(case, "store", "connections afterwards", "", &ends, Some(Bar::AtMost(6.0)));
    Ok(())
}

fn one() -> Result<usize, Box<dyn Error>> {
    let config = PoolConfig { connections_min: MIN, connections_max: ACQUIRES, ..PoolConfig::default() };
    let pool = ConnectionPool::start(Slow, config)?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while pool.stats().idle < MIN {
        if Instant::now() > deadline {
            return Err("the pool does not fill".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    let met = Barrier::new(ACQUIRES);
    let all: Result<Vec<()>, String> = thread::scope(|scope| {
        let users: Vec<_> = (0..ACQUIRES)
            .map(|_| {
                scope.spawn(|| {
                    met.wait();
                    let held = pool.acquire().map_err(|error| error.to_string())?;
                    thread::sleep(HELD);
                    drop(held);
                    Ok(())
                })
            })
            .collect();
        users.into_iter().map(|user| user.join().unwrap_or_else(|_| Err("a user panicked".into()))).collect()
    });
    all?;
    // Connects that are under way come to their end.
    thread::sleep(3 * CONNECT);
    let stats = pool.stats();
    Ok(stats.idle + stats.busy + stats.connecting)
}
