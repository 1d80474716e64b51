//! Many endpoints behind one channel:
//! 1. Load spreads; a slow endpoint gets less.
//! 2. An endpoint that fails, is killed, stopped or cut off gets no calls, and returns only after a real answer.
//! 3. A call is tried again only where it was not carried out or may be twice, elsewhere first, and within a budget.
//! 4. Leaving in good order fails no call.
//! 5. Everything that waits or is under way is bounded.
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

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backend::{Backend, quick, ready};
use load::Load;
use rpc::echo::EchoClient;
use rpc::wire::{Header, Kind};
use rpc::{Balance, Code, Executed, ServerConfig, Status};
use support::*;
use testkit::{FaultProxy, wait_until};

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let backends: Vec<_> = (0..3).map(|_| Backend::start(Ok)).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let mut config = quick();
    config.balance = Balance::RoundRobin;
    let caller = call_to(&addresses, config);
    ready(&caller.channel, 3);
    for _ in 0..30 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    assert_eq!(backends.iter().map(Backend::calls).collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn the_better_of_two_keeps_calls_from_an_endpoint_that_hangs() {
    let hanging = serve(ServerConfig::default());
    let good = Backend::start(Ok);
    let caller = call_to(&[hanging.server.local_addr(), good.address()], quick());
    ready(&caller.channel, 2);
    // These are held by who gets them.
    let held: Vec<_> = (0..20).map(|_| caller.client.wait(&delay("")).start()).collect();
    wait_until("all held calls to be sent", LONG, || {
        hanging.parked.len() as u64 + good.server.metrics()[2].calls() >= 20
    });
    let before = hanging.counted.load(Ordering::SeqCst);
    for _ in 0..50 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    // Of two, the one with fewer calls under way is always the other one.
    assert_eq!(hanging.counted.load(Ordering::SeqCst) - before, 0);
    drop(held);
}

#[test]
fn an_endpoint_that_refuses_costs_its_callers_nothing_but_a_detour() {
    let refusing = Backend::start(|_| Err(Status::rejected(Code::Unavailable, "not now")));
    let good = Backend::start(Ok);
    let caller = call_to(&[refusing.address(), good.address()], quick());
    ready(&caller.channel, 2);
    for _ in 0..100 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    assert_eq!(good.calls(), 100, "each call ended there, whether it began there or not");
    assert!(refusing.calls() >= 1);
    assert!(caller.channel.stats().ejections >= 1, "{:?}", caller.channel.stats());
}

#[test]
fn an_ejected_endpoint_returns_after_a_real_answer_and_not_before() {
    let bad = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&bad);
    let answer = move |calls| match flag.load(Ordering::SeqCst) {
        true => Err(Status::rejected(Code::Unavailable, "not now")),
        false => Ok(calls),
    };
    let (flaky, good) = (Backend::start(answer), Backend::start(Ok));
    let mut config = quick();
    config.balance = Balance::RoundRobin;
    let caller = call_to(&[flaky.address(), good.address()], config);
    ready(&caller.channel, 2);
    let call = || caller.client.count(&payload("")).wait().unwrap();
    wait_until("the ejection", LONG, || {
        call();
        caller.channel.stats().ejections >= 1
    });
    // While it is bad it is only probed: seldom, and less and less.
    let before = flaky.calls();
    for _ in 0..200 {
        call();
    }
    assert!(flaky.calls() - before < 50, "{}", flaky.calls() - before);
    bad.store(false, Ordering::SeqCst);
    wait_until("its return", LONG, || {
        let before = flaky.calls();
        for _ in 0..10 {
            call();
        }
        flaky.calls() - before >= 5
    });
}

#[test]
fn with_everybody_ejected_calls_are_still_tried() {
    let bad = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&bad);
    let answer = move |calls| match flag.load(Ordering::SeqCst) {
        true => Err(Status::new(Code::Unavailable, "broken")),
        false => Ok(calls),
    };
    let only = Backend::start(answer);
    let mut config = quick();
    config.ejection.time = LONG;
    let caller = call_to(&[only.address()], config);
    for _ in 0..10 {
        caller.client.count(&payload("")).wait().unwrap_err();
    }
    assert_eq!(caller.channel.stats().ejections, 1);
    bad.store(false, Ordering::SeqCst);
    caller.client.count(&payload("")).wait().unwrap();
}

#[test]
fn what_may_have_been_carried_out_is_tried_again_only_where_twice_is_once() {
    // Whoever gets the first call of a kind loses its connection with it.
    let listeners: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let seen = Arc::new(AtomicU64::new(0));
    for listener in listeners {
        let seen = Arc::clone(&seen);
        std::thread::spawn(move || {
            loop {
                let mut raw = Raw::server(&listener);
                while let Some((header, body)) = raw.next() {
                    let kind = if header.kind() == Kind::Request {
                        if seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                            break;
                        }
                        Kind::Response
                    } else {
                        Kind::Pong
                    };
                    raw.send(&Header::of(kind, header.call_id), &body);
                }
            }
        });
    }
    let caller = call_to(&addresses, quick());
    ready(&caller.channel, 2);
    assert_eq!(caller.client.say(&payload("again")).wait(), Ok(payload("again")));
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    assert_eq!(caller.channel.stats().retries, 1);
    ready(&caller.channel, 2);
    seen.store(0, Ordering::SeqCst);
    let status = caller.client.count(&payload("once")).wait_for_ready().wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::Unknown));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn an_outage_is_not_multiplied_by_retries() {
    let refusing = Backend::start(|_| Err(Status::rejected(Code::ResourceExhausted, "overloaded")));
    let caller = call_to(&[refusing.address()], quick());
    let calls = 500;
    for _ in 0..calls {
        caller.client.count(&payload("")).wait().unwrap_err();
    }
    let stats = caller.channel.stats();
    assert_eq!(refusing.calls(), calls + stats.retries);
    assert!(stats.retries_denied > 0);
    // A fifth of the calls, ten a second of however long this took, and what there was to begin with.
    let most = calls / 5 + 10 * LONG.as_secs() + 10;
    assert!(stats.retries <= most, "{stats:?}");
}

#[test]
fn a_call_under_way_is_finished_by_a_server_that_drains_and_the_next_go_elsewhere() {
    let (one, two) = (serve(ServerConfig::default()), serve(ServerConfig::default()));
    let caller = call_to(&[one.server.local_addr(), two.server.local_addr()], quick());
    ready(&caller.channel, 2);
    let held: Vec<_> = (0..8).map(|_| caller.client.wait(&delay("")).start()).collect();
    wait_until("both to have some", LONG, || {
        one.parked.len() + two.parked.len() == 8 && !one.parked.is_empty()
    });
    let server = &one.server;
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| server.drain(LONG));
        wait_until("the news", LONG, || caller.channel.stats().ready == 1);
        let before = one.counted.load(Ordering::SeqCst);
        for _ in 0..20 {
            caller.client.count(&payload("")).wait().unwrap();
        }
        assert_eq!(one.counted.load(Ordering::SeqCst), before);
        assert!(!drained.is_finished(), "there are calls under way");
        for parked in one.parked.try_iter().chain(two.parked.try_iter()) {
            parked.reply.send(payload("done"));
        }
        assert!(drained.join().unwrap(), "everybody left by themselves");
    });
    assert!(held.into_iter().all(|call| block_on(call) == Ok(payload("done"))));
}

#[test]
fn a_rolling_restart_of_three_providers_fails_no_call() {
    let mut backends: Vec<_> = (0..3).map(|_| Backend::start(Ok)).collect();
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let caller = call_from(2, &addresses, quick());
    ready(&caller.channel, 6);
    // Calls that may not be repeated: nothing is hidden by retries.
    let load = Load::count(&caller.client, 16);
    load.more(100);
    for backend in &mut backends {
        let address = backend.address();
        assert!(backend.server.drain(LONG));
        let mut pool = std::mem::replace(backend, Backend::start(Ok)).pool;
        pool.stop();
        pool.join().unwrap();
        load.more(100);
        *backend = Backend::start_at(address, Ok);
        wait_until("calls reach it again", LONG, || backend.calls() > 10);
    }
    assert_eq!(load.stop(), []);
}

#[test]
fn old_connections_are_replaced_without_a_failure() {
    let fixture = serve(ServerConfig::default());
    let mut config = quick();
    config.age_max = Some(Duration::from_millis(100));
    let caller = call_to(&[fixture.server.local_addr()], config);
    let load = Load::count(&caller.client, 8);
    wait_until("several generations", LONG, || caller.channel.stats().connects >= 5);
    load.more(100);
    assert_eq!(load.stop(), []);
    wait_until("the old ones are closed", LONG, || fixture.server.connections() <= 2);
}

#[test]
fn calls_that_wait_and_calls_under_way_are_bounded() {
    let fixture = serve(ServerConfig::default());
    let mut config = quick();
    config.in_flight_max = 10;
    let caller = call_to(&[fixture.server.local_addr()], config);
    let held: Vec<_> = (0..10).map(|_| caller.client.wait(&delay("")).start()).collect();
    let status = caller.client.count(&payload("")).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::ResourceExhausted, Executed::NotSent));
    drop(held);
    wait_until("room", LONG, || caller.client.count(&payload("")).wait().is_ok());

    let mut config = quick();
    config.waiting_max = 3;
    let nowhere = call_to(&[SocketAddr::from(([127, 0, 0, 1], testkit::free_port()))], config);
    let _held: Vec<_> = (0..3).map(|_| nowhere.client.wait(&delay("")).wait_for_ready().start()).collect();
    let status = nowhere.client.count(&payload("")).wait_for_ready().wait().unwrap_err();
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::Unavailable));
    assert_eq!(status.executed(), Executed::NotSent);
}

#[test]
fn a_server_that_takes_few_calls_at_once_is_given_few() {
    let mut config = ServerConfig::default();
    config.in_flight_per_connection_max = 2;
    let fixture = serve(config);
    let caller = call_to(&[fixture.server.local_addr()], quick());
    let calls: Vec<_> = (0..6).map(|_| caller.client.wait(&delay("")).start()).collect();
    for _ in 0..6 {
        fixture.parked().reply.send(payload(""));
    }
    assert!(
        calls.into_iter().all(|call| block_on(call).is_ok()),
        "they waited here instead of being refused there"
    );
    assert_eq!(caller.channel.stats().retries, 0);
}

#[test]
fn an_endpoint_that_is_cut_off_in_silence_gets_no_calls_until_it_answers() {
    let (cut, good) = (Backend::start(Ok), Backend::start(Ok));
    let proxy = FaultProxy::start(cut.address());
    let caller = call_to(&[proxy.addr(), good.address()], quick());
    ready(&caller.channel, 2);
    proxy.go_silent(true);
    wait_until("the silence is noticed", LONG, || caller.channel.stats().ready == 1);
    let before = cut.calls();
    for _ in 0..50 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    assert_eq!(cut.calls(), before);
    proxy.go_silent(false);
    ready(&caller.channel, 2);
    wait_until("it is called again", LONG, || {
        caller.client.count(&payload("")).wait().unwrap();
        cut.calls() > before
    });
}

#[test]
fn slow_calls_do_not_hold_up_the_others() {
    // One in a hundred is held for as long as the others take in all.
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], quick());
    let held: Vec<_> = (0..10).map(|_| caller.client.wait(&delay("")).start()).collect();
    for _ in 0..1000 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    assert_eq!(fixture.parked.len(), 10);
    drop(held);
}

// Providers in processes of their own.

/// Set in the environment of a child process: it is a provider.
const CHILD: &str = "RPC_TEST_PROVIDER";

#[test]
fn provider_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let backend = Backend::start(Ok);
    println!("provider at {}", backend.address());
    // Until the parent goes away.
    let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
}

struct Provider {
    child: Child,
    address: SocketAddr,
}

impl Provider {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "provider_process", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(out).map(Result::unwrap);
        let line = lines.find(|line| line.contains("provider at ")).unwrap();
        let address = line.rsplit_once("provider at ").unwrap().1.parse().unwrap();
        Self { child, address }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_provider_killed_under_load_fails_only_what_was_under_way_on_it() {
    let (mut killed, other) = (Provider::start(), Provider::start());
    let caller = call_to(&[killed.address, other.address], quick());
    ready(&caller.channel, 2);
    let chains = 16;
    let load = Load::count(&caller.client, chains);
    load.more(200);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    load.more(2000);
    let failed = load.stop();
    assert!(failed.len() <= usize::try_from(chains).unwrap(), "{}", failed.len());
    for status in failed {
        assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::Unknown));
    }
    // What may be repeated does not even notice.
    let reborn = Provider::start();
    let caller = call_to(&[reborn.address, other.address], quick());
    ready(&caller.channel, 2);
    let load = Load::say(&caller.client, 8);
    load.more(200);
    drop(reborn);
    load.more(2000);
    assert_eq!(load.stop(), []);
}

#[test]
fn a_provider_that_is_stopped_gets_no_calls_after_a_missed_heartbeat_and_is_back_after_it() {
    let (stopped, other) = (Provider::start(), Provider::start());
    let caller = call_to(&[stopped.address, other.address], quick());
    ready(&caller.channel, 2);
    stopped.signal("-STOP");
    wait_until("it is noticed", LONG, || caller.channel.stats().ready == 1);
    for _ in 0..100 {
        caller.client.count(&payload("")).wait().unwrap();
    }
    stopped.signal("-CONT");
    ready(&caller.channel, 2);
    caller.client.count(&payload("")).wait().unwrap();
    // One of a channel's clients alone, so that nothing hides that it answers.
    let alone = call_to(&[stopped.address], quick());
    EchoClient::new(alone.channel).count(&payload("")).wait().unwrap();
}

#[test]
fn a_client_that_does_not_leave_is_closed_when_the_time_for_draining_is_over() {
    let fixture = serve(ServerConfig::default());
    let mut raw = Raw::client(fixture.server.local_addr());
    assert!(!fixture.server.drain(Duration::from_millis(20)));
    assert_eq!(raw.next().unwrap().0.kind(), Kind::Drain);
    assert!(raw.next().is_none());
}
