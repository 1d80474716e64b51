//! Calls without a pause from several places at once, until told to stop.
#![allow(missing_debug_implementations, unreachable_pub, dead_code, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rpc::Status;
use rpc::echo::EchoClient;

use crate::support::{LONG, payload};

struct Shared {
    client: EchoClient,
    stop: AtomicBool,
    good: AtomicU64,
    failed: parking_lot::Mutex<Vec<Status>>,
    running: AtomicU64,
    count: bool,
}

/// Chains of calls, each begun by the end of the one before it.
pub struct Load(Arc<Shared>);

impl Load {
    /// Starts so many chains of `Say`, which may be repeated.
    pub fn say(client: &EchoClient, chains: u64) -> Self {
        Self::start(client, chains, false)
    }

    /// Starts so many chains of `Count`, which may not.
    pub fn count(client: &EchoClient, chains: u64) -> Self {
        Self::start(client, chains, true)
    }

    fn start(client: &EchoClient, chains: u64, count: bool) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            stop: AtomicBool::new(false),
            good: AtomicU64::new(0),
            failed: parking_lot::Mutex::default(),
            running: AtomicU64::new(chains),
            count,
        });
        for _ in 0..chains {
            next(&shared);
        }
        Self(shared)
    }

    pub fn good(&self) -> u64 {
        self.0.good.load(Ordering::SeqCst)
    }

    pub fn failed(&self) -> usize {
        self.0.failed.lock().len()
    }

    /// Waits until so many more calls have ended well.
    pub fn more(&self, count: u64) {
        let until = self.good() + count;
        testkit::wait_until("more calls", LONG, || self.good() >= until);
    }

    /// Ends the chains, and gives the failures.
    pub fn stop(self) -> Vec<Status> {
        self.0.stop.store(true, Ordering::SeqCst);
        testkit::wait_until("the last calls", LONG, || self.0.running.load(Ordering::SeqCst) == 0);
        std::mem::take(&mut *self.0.failed.lock())
    }
}

fn next(shared: &Arc<Shared>) {
    if shared.stop.load(Ordering::SeqCst) {
        shared.running.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    let theirs = Arc::clone(shared);
    if shared.count {
        let _ = shared.client.count(&payload("")).then(move |outcome| ended(&theirs, outcome.err()));
    } else {
        let _ = shared.client.say(&payload("x")).then(move |outcome| ended(&theirs, outcome.err()));
    }
}

fn ended(shared: &Arc<Shared>, failure: Option<Status>) {
    match failure {
        None => {
            shared.good.fetch_add(1, Ordering::SeqCst);
        }
        Some(status) => {
            // A test that has failed ends its loops: then there is nothing to go on with.
            let over = status.message().contains("stopped") || status.message().contains("ended");
            shared.failed.lock().push(status);
            if over {
                shared.running.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }
    next(shared);
}
