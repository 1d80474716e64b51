//! The pool with connections that a test makes and breaks. What it breaks: connects that fail, hang or take their time, connections that are gone when they are
//! wanted, holders that panic, forget or never give back. What must hold: every caller gets a connection or an error within its deadline, in the order of asking;
//! nobody gets a broken one; the counts add up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::*;
use crate::error::{StoreError, UnavailableKind};

/// The bound of every wait. Only a failing test gets there.
const LONG: Duration = Duration::from_secs(20);

/// A server of the test's: how it answers can be changed at any time.
#[derive(Default)]
struct Server {
    made: AtomicUsize,
    live: AtomicUsize,
    refuses: AtomicBool,
    /// A connect takes this long.
    connect_takes: Mutex<Duration>,
    /// The next connect hangs until the other end of this is dropped.
    hangs: Mutex<Option<Receiver<()>>>,
    /// Connections up to this number are broken.
    broken_up_to: AtomicUsize,
    mute: AtomicBool,
    pings: AtomicUsize,
    peeks: AtomicUsize,
    cleanings: AtomicUsize,
}

struct Link {
    number: usize,
    server: Arc<Server>,
    in_transaction: bool,
    dirty: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.live.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Fake(Arc<Server>);

impl Manager for Fake {
    type Connection = Link;

    fn connect(&self, timeout: Duration) -> Result<Link, StoreError> {
        let hang = self.0.hangs.lock().take();
        if let Some(hang) = hang {
            let _ = hang.recv_timeout(timeout);
        }
        let takes = *self.0.connect_takes.lock();
        if !takes.is_zero() {
            thread::sleep(takes);
        }
        if self.0.refuses.load(Ordering::SeqCst) {
            let message = "connection refused".to_owned();
            return Err(StoreError::Unavailable { kind: UnavailableKind::CannotOpen, message });
        }
        self.0.live.fetch_add(1, Ordering::SeqCst);
        let number = self.0.made.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Link { number, server: Arc::clone(&self.0), in_transaction: false, dirty: false })
    }

    fn peek(&self, link: &Link) -> Trust {
        self.0.peeks.fetch_add(1, Ordering::SeqCst);
        if link.number <= self.0.broken_up_to.load(Ordering::SeqCst) { Trust::Broken } else { Trust::Good }
    }

    fn ping(&self, _: &mut Link, _: Duration) -> Result<(), StoreError> {
        self.0.pings.fetch_add(1, Ordering::SeqCst);
        if self.0.mute.load(Ordering::SeqCst) { Err(StoreError::Overloaded) } else { Ok(()) }
    }

    fn is_reusable(&self, link: &Link) -> bool {
        !link.in_transaction
    }

    fn clean(&self, link: &mut Link) -> Result<(), StoreError> {
        if std::mem::take(&mut link.dirty) {
            self.0.cleanings.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

fn pool(config: PoolConfig) -> (ConnectionPool<Fake>, Arc<Server>) {
    let server = Arc::new(Server::default());
    (ConnectionPool::start(Fake(Arc::clone(&server)), config).unwrap(), server)
}

fn sized(min: usize, max: usize) -> PoolConfig {
    PoolConfig { connections_min: min, connections_max: max, ..PoolConfig::default() }
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within the bound: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Acquires on a thread of its own, and tells what came of it. The connection is held until the first channel is dropped.
fn acquire_elsewhere(pool: &ConnectionPool<Fake>) -> (Sender<()>, Receiver<Result<usize, AcquireError>>) {
    let pool = pool.clone();
    let (hold, held) = unbounded::<()>();
    let (tell, told) = unbounded();
    thread::spawn(move || {
        let got = pool.acquire();
        let _ = tell.send(got.as_ref().map(|link| link.number).map_err(Clone::clone));
        let _ = held.recv();
    });
    (hold, told)
}

#[test]
fn the_minimum_is_made_and_the_same_connections_are_used_again() {
    let (pool, server) = pool(sized(2, 4));
    until("two are there", || pool.stats().idle == 2);
    for _ in 0..1_000 {
        let link = pool.acquire().unwrap();
        assert!(link.number <= 2);
    }
    let stats = pool.stats();
    assert_eq!((stats.state, stats.acquired, stats.waited, stats.connects), (PoolState::Up, 1_000, 0, 2));
    assert_eq!(server.peeks.load(Ordering::SeqCst), 0, "what was used just now is trusted");
}

#[test]
fn who_waits_longest_is_served_first_and_straight_from_who_gives_back() {
    let (pool, _server) = pool(sized(1, 1));
    let first = pool.acquire().unwrap();
    let (order, served) = unbounded();
    let mut waiting = Vec::new();
    for number in 0..8 {
        let (theirs, order) = (pool.clone(), order.clone());
        waiting.push(thread::spawn(move || {
            let link = theirs.acquire().unwrap();
            order.send(number).unwrap();
            drop(link);
        }));
        until("it is in the queue", || pool.stats().waiting == number + 1);
    }
    drop(first);
    waiting.into_iter().for_each(|one| one.join().unwrap());
    assert_eq!(served.try_iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(pool.stats().acquired, 9);
}

#[test]
fn a_deadline_is_kept_and_who_gave_up_is_not_served() {
    let (pool, _server) = pool(PoolConfig { acquire_ms: 50, ..sized(1, 1) });
    let held = pool.acquire_by(Instant::now() + LONG).unwrap();
    let error = pool.acquire().unwrap_err();
    assert!(
        matches!(error, AcquireError::Timeout { after } if after >= Duration::from_millis(50)),
        "{error}"
    );
    drop(held);
    let stats = pool.stats();
    assert_eq!((stats.timeouts, stats.waiting, stats.idle), (1, 0, 1));
    drop(pool.acquire_by(Instant::now() + LONG).unwrap());
}

#[test]
fn too_many_waiters_are_turned_away_at_once() {
    let (pool, _server) = pool(PoolConfig { waiters_max: 2, ..sized(1, 1) });
    let held = pool.acquire().unwrap();
    let first = acquire_elsewhere(&pool);
    until("one waits", || pool.stats().waiting == 1);
    let second = acquire_elsewhere(&pool);
    until("both wait", || pool.stats().waiting == 2);
    assert_eq!(pool.acquire().unwrap_err(), AcquireError::Overloaded { waiting: 2 });
    drop(held);
    for (hold, told) in [first, second] {
        told.recv_timeout(LONG).unwrap().unwrap();
        drop(hold);
    }
}

#[test]
fn what_a_holder_spoils_is_closed_and_replaced() {
    // With room for one, each has to be gone before the next is made.
    let (pool, server) = pool(sized(1, 1));
    pool.acquire().unwrap().in_transaction = true;
    pool.acquire().unwrap().spoil();
    let panicking = pool.clone();
    let panicked = thread::spawn(move || {
        let _link = panicking.acquire().unwrap();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    until("the fourth is there", || pool.stats().idle == 1);
    assert_eq!(pool.acquire().unwrap().number, 4);
    assert_eq!(pool.stats().discarded, 3);
    until("the others are closed", || server.live.load(Ordering::SeqCst) == 1);
}

#[test]
fn only_what_is_dirty_is_cleaned() {
    let (pool, server) = pool(sized(1, 1));
    drop(pool.acquire().unwrap());
    pool.acquire().unwrap().dirty = true;
    drop(pool.acquire().unwrap());
    assert_eq!(server.cleanings.load(Ordering::SeqCst), 1);
}

#[test]
fn broken_connections_are_found_before_they_are_given_out() {
    let (pool, server) = pool(PoolConfig { fresh_ms: 0, ..sized(3, 3) });
    until("three are there", || pool.stats().idle == 3);
    server.broken_up_to.store(3, Ordering::SeqCst);
    // Those that take their places may come first.
    let mut links = Vec::new();
    for _ in 0..3 {
        links.push(pool.acquire().unwrap());
    }
    assert!(links.iter().all(|link| link.number >= 4));
    assert_eq!(pool.stats().found_broken, 3);
    drop(links);
    assert_eq!(server.pings.load(Ordering::SeqCst), 0, "a look was enough");
    until("the minimum is made again", || pool.stats().idle == 3);
}

#[test]
fn long_unused_connections_are_pinged_and_a_server_that_does_not_answer_costs_no_more_than_the_deadline() {
    let (pool, server) = pool(PoolConfig { fresh_ms: 0, ping_after_ms: 0, ..sized(1, 1) });
    until("one is there", || pool.stats().idle == 1);
    drop(pool.acquire().unwrap());
    assert_eq!(server.pings.load(Ordering::SeqCst), 1);
    server.mute.store(true, Ordering::SeqCst);
    server.refuses.store(true, Ordering::SeqCst);
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, AcquireError::Down { .. } | AcquireError::Timeout { .. }), "{error}");
}

#[test]
fn one_broken_connection_casts_doubt_on_the_others() {
    let (pool, server) = pool(PoolConfig { fresh_ms: 60_000, ping_after_ms: 120_000, ..sized(3, 3) });
    until("three are there", || pool.stats().idle == 3);
    let mut held = pool.acquire().unwrap();
    assert_eq!(server.peeks.load(Ordering::SeqCst), 0);
    // Its holder learns that the server is gone; that is a spoilt one, and says nothing of the others yet.
    held.spoil();
    drop(held);
    server.broken_up_to.store(100, Ordering::SeqCst);
    // Trusted: it is fresh. The pool cannot know better.
    drop(pool.acquire().unwrap());
    assert_eq!(pool.stats().found_broken, 0);
}

#[test]
fn a_server_that_is_down_is_told_of_at_once_and_used_again_when_it_is_back() {
    let (pool, server) = pool(PoolConfig { fresh_ms: 0, ..sized(2, 4) });
    until("two are there", || pool.stats().idle == 2);
    server.refuses.store(true, Ordering::SeqCst);
    server.broken_up_to.store(2, Ordering::SeqCst);
    let error = pool.acquire().unwrap_err();
    assert!(
        matches!(&error, AcquireError::Down { cause, .. } if cause.to_string().contains("refused")),
        "{error}"
    );
    assert!(StoreError::from(error).is_unavailable());
    until("it is known to be down", || pool.stats().state == PoolState::Down);
    let stats = pool.stats();
    assert!(stats.last_error.is_some() && stats.next_probe.is_some_and(|at| at <= Duration::from_secs(1)));
    // Nobody waits for a server that is down.
    for _ in 0..100 {
        assert!(matches!(pool.acquire().unwrap_err(), AcquireError::Down { .. }));
    }
    assert_eq!(pool.stats().timeouts, 0);
    server.refuses.store(false, Ordering::SeqCst);
    until("it is up again by itself", || pool.stats().state == PoolState::Up && pool.stats().idle == 2);
    drop(pool.acquire().unwrap());
}

#[test]
fn it_starts_while_the_server_is_down() {
    let server = Arc::new(Server::default());
    server.refuses.store(true, Ordering::SeqCst);
    let pool = ConnectionPool::start(Fake(Arc::clone(&server)), sized(1, 2)).unwrap();
    until("it is down", || pool.stats().state == PoolState::Down);
    server.refuses.store(false, Ordering::SeqCst);
    until("it is up", || pool.stats().state == PoolState::Up);
    drop(pool.acquire().unwrap());
}

#[test]
fn a_failing_connect_beside_living_connections_is_degraded_and_hurts_nobody() {
    let (pool, server) = pool(sized(1, 4));
    until("one is there", || pool.stats().idle == 1);
    server.refuses.store(true, Ordering::SeqCst);
    let held = pool.acquire().unwrap();
    let (hold, told) = acquire_elsewhere(&pool);
    until("a connect has failed", || pool.stats().connect_failures > 0);
    assert_eq!(pool.stats().state, PoolState::Degraded);
    assert!(told.try_recv().is_err(), "who waits goes on waiting for the one that lives");
    drop(held);
    assert_eq!(told.recv_timeout(LONG).unwrap().unwrap(), 1);
    drop(hold);
}

#[test]
fn waiters_are_told_when_the_last_connection_is_lost() {
    let (pool, server) = pool(sized(1, 1));
    let mut held = pool.acquire().unwrap();
    server.refuses.store(true, Ordering::SeqCst);
    let (_hold, told) = acquire_elsewhere(&pool);
    until("it waits", || pool.stats().waiting == 1);
    held.spoil();
    drop(held);
    let error = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert!(matches!(error, AcquireError::Down { .. }), "{error}");
}

#[test]
fn one_connect_that_hangs_stops_neither_those_who_have_connections_nor_the_growth() {
    let (pool, server) = pool(sized(1, 3));
    until("one is there", || pool.stats().idle == 1);
    let (hang, hangs) = unbounded();
    *server.hangs.lock() = Some(hangs);
    let one = pool.acquire().unwrap();
    let (hold, told) = acquire_elsewhere(&pool);
    // The first connect hangs; the second is begun when that shows.
    assert_eq!(told.recv_timeout(LONG).unwrap().unwrap(), 2);
    assert_eq!(pool.stats().connecting, 1);
    drop((hold, one));
    drop(hang);
    until("it has come after all", || pool.stats().connecting == 0);
}

#[test]
fn a_burst_of_short_acquires_makes_one_connection_more_and_not_fifty() {
    let (pool, server) = pool(sized(5, 50));
    until("five are there", || pool.stats().idle == 5);
    *server.connect_takes.lock() = Duration::from_millis(150);
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let link = pool.acquire().unwrap();
                thread::sleep(Duration::from_millis(2));
                drop(link);
            });
        }
    });
    until("nothing is being made", || pool.stats().connecting == 0);
    assert!(pool.stats().idle <= 6, "{:?}", pool.stats());
    assert_eq!(pool.stats().acquired, 50);
}

#[test]
fn connections_above_the_minimum_are_closed_when_nobody_needs_them() {
    let (pool, server) = pool(PoolConfig { idle_ms: 50, ..sized(1, 3) });
    let links = [pool.acquire().unwrap(), pool.acquire().unwrap(), pool.acquire().unwrap()];
    drop(links);
    until("one is left", || pool.stats().idle == 1 && server.live.load(Ordering::SeqCst) == 1);
    assert_eq!(pool.stats().reclaimed, 2);
}

#[test]
fn old_connections_are_replaced_whether_they_are_used_or_not() {
    let (pool, _server) = pool(PoolConfig { lifetime_ms: 50, ..sized(1, 1) });
    until("idle ones are replaced", || pool.stats().retired >= 2);
    let link = pool.acquire().unwrap();
    let number = link.number;
    thread::sleep(Duration::from_millis(60));
    drop(link);
    until("and one that comes back too late", || pool.acquire().is_ok_and(|link| link.number > number));
}

#[test]
fn who_does_not_give_back_is_named() {
    let (pool, _server) = pool(PoolConfig { leak_ms: 20, ..sized(1, 1) });
    let forgotten = pool.acquire().unwrap();
    let line = line!() - 1;
    until("it is reported", || pool.stats().leaks == 1);
    let holders = pool.holders();
    assert_eq!(holders.len(), 1);
    assert!(holders[0].at.file().ends_with("tests.rs") && holders[0].at.line() == line, "{:?}", holders[0]);
    drop(forgotten);
    assert!(pool.holders().is_empty());
}

#[test]
fn closing_tells_who_waits_waits_for_who_holds_and_gives_nothing_out() {
    let (pool, server) = pool(sized(1, 1));
    let held = pool.acquire().unwrap();
    let (_hold, told) = acquire_elsewhere(&pool);
    until("it waits", || pool.stats().waiting == 1);
    assert!(!pool.close(Duration::from_millis(20)), "one is held");
    assert_eq!(told.recv_timeout(LONG).unwrap().unwrap_err(), AcquireError::Closed);
    assert_eq!(pool.stats().state, PoolState::Draining);
    assert_eq!(pool.acquire().unwrap_err(), AcquireError::Closed);
    drop(held);
    assert!(pool.close(LONG));
    assert_eq!(pool.stats().state, PoolState::Closed);
    until("all are closed", || server.live.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_connection_outlives_its_pool_and_is_closed_when_it_comes_back() {
    let (pool, server) = pool(sized(1, 1));
    let held = pool.acquire().unwrap();
    drop(pool);
    assert_eq!(server.live.load(Ordering::SeqCst), 1);
    drop(held);
    until("it is closed", || server.live.load(Ordering::SeqCst) == 0);
}

#[test]
fn many_threads_and_a_server_that_comes_and_goes_leave_the_counts_right() {
    let (pool, server) = pool(PoolConfig { fresh_ms: 0, acquire_ms: 200, probe_max_ms: 100, ..sized(2, 8) });
    let done = AtomicBool::new(false);
    let (mut got, mut failed) = (0, 0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..16)
            .map(|seed| {
                let (pool, done) = (&pool, &done);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let (mut got, mut failed) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        match pool.acquire() {
                            Ok(mut link) => {
                                got += 1;
                                match rng.u8(..40) {
                                    0 => link.spoil(),
                                    1 => link.in_transaction = true,
                                    2..=6 => thread::yield_now(),
                                    _ => {}
                                }
                            }
                            Err(_) => failed += 1,
                        }
                    }
                    (got, failed)
                })
            })
            .collect();
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(30));
            server.refuses.store(true, Ordering::SeqCst);
            server.broken_up_to.store(server.made.load(Ordering::SeqCst), Ordering::SeqCst);
            thread::sleep(Duration::from_millis(30));
            server.refuses.store(false, Ordering::SeqCst);
        }
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            let (one_got, one_failed) = worker.join().unwrap();
            got += one_got;
            failed += one_failed;
        }
    });
    until("all have come back", || pool.stats().busy == 0 && pool.stats().connecting == 0);
    let stats = pool.stats();
    assert_eq!(stats.acquired, got);
    assert_eq!(stats.down + stats.timeouts + stats.overloads, failed, "{stats:?}");
    assert!(pool.holders().is_empty());
    until("only the idle ones live", || server.live.load(Ordering::SeqCst) == pool.stats().idle);
    assert_eq!(stats.waiting, 0);
}
