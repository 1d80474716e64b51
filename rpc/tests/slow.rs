//! A provider of which one call in a hundred hangs on a worker, beside one that is well.
//!
//! What must hold: nobody else waits for those calls, the provider keeps its place and its share, and they end well when they do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

#[path = "support/backend.rs"]
mod backend;
#[path = "support/load.rs"]
mod load;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend::{quick, ready};
use load::Load;
use parking_lot::{Condvar, Mutex};
use rpc::echo::{Counted, Delay, EchoBlocking, EchoBlockingServer, Failure, Payload};
use rpc::{Balance, CallContext, RunningServer, Server, ServerConfig, Status, Workers};
use support::*;
use testkit::wait_until;

/// Threads of each provider. More than are held.
const WORKERS: usize = 8;
/// Calls that are held at once.
const HELD: u64 = 4;

/// Where calls wait for the test's word.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    held: AtomicU64,
}

impl Gate {
    /// Holds the caller, unless enough are held.
    fn pass(&self) {
        let enter = |held: u64| (held < HELD).then_some(held + 1);
        if self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_ok() {
            let mut open = self.open.lock();
            self.opened.wait_while(&mut open, |open| !*open);
        }
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

/// Opens at the test's end, however it ends: the workers are waited for.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Answers, but for every hundredth call, which is held where there is a gate.
struct Hesitant {
    calls: Arc<AtomicU64>,
    gate: Option<Arc<Gate>>,
}

impl Hesitant {
    fn one(&self) -> u64 {
        let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(gate) = self.gate.as_ref().filter(|_| calls.is_multiple_of(100)) {
            gate.pass();
        }
        calls
    }
}

impl EchoBlocking for Hesitant {
    fn say(&self, _: &CallContext, request: Payload) -> Result<Payload, Status> {
        self.one();
        Ok(request)
    }
    fn count(&self, _: &CallContext, _: Payload) -> Result<Counted, Status> {
        Ok(Counted { calls: self.one() })
    }
    fn wait(&self, _: &CallContext, _: Delay) -> Result<Payload, Status> {
        Err(Status::unimplemented())
    }
    fn forget(&self, _: &CallContext, _: Payload) -> Result<Payload, Status> {
        Err(Status::unimplemented())
    }
    fn fail(&self, _: &CallContext, _: Failure) -> Result<Payload, Status> {
        Err(Status::unimplemented())
    }
}

fn provider(gate: Option<Arc<Gate>>) -> (RunningServer, Arc<AtomicU64>, impl Sized) {
    let calls = Arc::new(AtomicU64::new(0));
    let service = Hesitant { calls: Arc::clone(&calls), gate };
    let workers = Workers::start("slow", WORKERS, 64).unwrap();
    let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
    let server = Server::new(ServerConfig::default()).add(EchoBlockingServer::new(service, workers)).unwrap();
    (server.serve(&pool, "127.0.0.1:0".parse().unwrap()).unwrap(), calls, pool)
}

fn one_call_in_a_hundred_hangs(balance: Balance) {
    let gate = Arc::new(Gate::default());
    let (slow, its_calls, _slow_pool) = provider(Some(Arc::clone(&gate)));
    let (well, _, _pool) = provider(None);
    let mut config = quick();
    config.balance = balance;
    let caller = call_to(&[slow.local_addr(), well.local_addr()], config);
    ready(&caller.channel, 2);
    // More chains than are held: the others go on.
    let load = Load::count(&caller.client, 2 * HELD);
    let _opens = Opens(Arc::clone(&gate));
    wait_until("calls to be held", LONG, || gate.held.load(Ordering::SeqCst) == HELD);
    let before = its_calls.load(Ordering::SeqCst);
    load.more(1000);
    if balance == Balance::RoundRobin {
        assert!(its_calls.load(Ordering::SeqCst) - before >= 400, "it has kept its share");
    }
    gate.open();
    assert_eq!(load.stop(), [], "those that were held end well, too");
    let stats = caller.channel.stats();
    assert_eq!((stats.ready, stats.ejections, stats.retries), (2, 0, 0));
}

#[test]
fn one_hanging_call_in_a_hundred_holds_up_no_other_call_in_turn() {
    one_call_in_a_hundred_hangs(Balance::RoundRobin);
}

#[test]
fn one_hanging_call_in_a_hundred_holds_up_no_other_call_by_the_better_of_two() {
    one_call_in_a_hundred_hangs(Balance::PowerOfTwo);
}
