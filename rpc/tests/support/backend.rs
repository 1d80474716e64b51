//! Servers of closures, for tests of what callers do when there are several, and a channel that is quick in all that a test would wait for.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "test code; each test uses a part of it"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rpc::echo::{Counted, EchoServer, MockEcho};
use rpc::{Channel, ChannelConfig, RunningServer, Server, ServerConfig, Status};
use testkit::wait_until;

use crate::support::LONG;

/// Quick in all that a test would otherwise wait for.
pub fn quick() -> ChannelConfig {
    let mut config = ChannelConfig::default();
    // Not quicker than threads may be held up by others.
    config.heartbeat = Duration::from_secs(2);
    config.backoff.base = Duration::from_millis(2);
    config.backoff.cap = Duration::from_millis(20);
    config.ejection.time = Duration::from_millis(50);
    config.timeout = LONG;
    config
}

/// A server of closures on a loop of its own, and how many calls it had.
pub struct Backend {
    pub server: RunningServer,
    pub pool: reactor::EventLoopThreadPool,
    calls: Arc<AtomicU64>,
}

impl Backend {
    pub fn start(answer: impl Fn(u64) -> Result<u64, Status> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(u64) -> Result<u64, Status> + Send + Sync + 'static,
    ) -> Self {
        let calls = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        let answer = Arc::new(move || answer(counter.fetch_add(1, Ordering::SeqCst)));
        let other = Arc::clone(&answer);
        let mock = MockEcho::new()
            .on_count(move |_| answer().map(|calls| Counted { calls }))
            .on_say(move |request| other().map(|_| request));
        let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
        let server = Server::new(ServerConfig::default()).add(EchoServer(mock)).unwrap();
        Self { server: server.serve(&pool, address).unwrap(), pool, calls }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

pub fn ready(channel: &Channel, count: usize) {
    wait_until("the connections", LONG, || channel.stats().ready == count);
}
