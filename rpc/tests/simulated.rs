//! Two sessions, a client's and a server's, in a simulated world: bytes that come in pieces, late, and out of order between connections; connections that are
//! refused, not answered, reset, or silent from one moment on; a clock that jumps. Every call ends exactly once, and with the truth about whether it was carried
//! out. When the trouble is over, calls are answered again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use reactor::LoopConfig;
use reactor::sim::{Sim, SimConfig, SimFaults};
use rpc::echo::{Counted, Delay, Echo, EchoClient, EchoServer, Failure, Payload};
use rpc::{CallContext, Channel, ChannelConfig, Code, Executed, Reply, Server, ServerConfig};

/// Calls of one run.
const CALLS: u64 = 60;

/// Counts which calls it has seen. Answers at once, or a call later, or never.
struct Service {
    seen: Arc<[AtomicU64]>,
    held: parking_lot::Mutex<Option<(Reply<Payload>, Payload)>>,
}

impl Echo for Service {
    fn say(&self, _: CallContext, request: Payload, reply: Reply<Payload>) {
        let number = u64::from_be_bytes(request.data[..8].try_into().unwrap());
        self.seen[usize::try_from(number).unwrap()].fetch_add(1, Ordering::SeqCst);
        if number % 5 == 0 {
            let before = self.held.lock().replace((reply, request));
            if let Some((reply, request)) = before {
                reply.send(request);
            }
        } else if number % 7 != 0 {
            reply.send(request);
        }
    }
    fn count(&self, _: CallContext, request: Payload, reply: Reply<Counted>) {
        let number = u64::from_be_bytes(request.data[..8].try_into().unwrap());
        self.seen[usize::try_from(number).unwrap()].fetch_add(1, Ordering::SeqCst);
        reply.send(Counted { calls: number });
    }
    fn wait(&self, _: CallContext, _: Delay, _: Reply<Payload>) {}
    fn forget(&self, _: CallContext, _: Payload, _: Reply<Payload>) {}
    fn fail(&self, _: CallContext, _: Failure, _: Reply<Payload>) {}
}

/// Lives one world through. How many calls ended well, and how many did not.
fn run(seed: u64) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // In some worlds; in the others a jump would end too many calls before they meet anything else.
    let clock_jump = if seed.is_multiple_of(4) { 1000 } else { 0 };
    let faults = SimFaults { clock_jump, silent: 400, ..SimFaults::ALL };
    let sim = Sim::new(SimConfig { seed, faults, window_max: 32 * 1024, ..SimConfig::default() });
    let mut server_loop = sim.event_loop(LoopConfig::default()).unwrap();
    let mut client_loop = sim.event_loop(LoopConfig::default()).unwrap();
    let address = "10.0.0.1:7000".parse().unwrap();
    let seen: Arc<[AtomicU64]> = (0..CALLS).map(|_| AtomicU64::new(0)).collect();
    let service = Service { seen: Arc::clone(&seen), held: parking_lot::Mutex::default() };
    let mut server_config = ServerConfig::default();
    server_config.hello_timeout = Duration::from_secs(1);
    let server = Server::new(server_config.clone()).add(EchoServer(service)).unwrap();
    let listener = sim.bind(address, server_config.connection).unwrap();
    let server = server.serve_here(&mut server_loop, listener).unwrap();

    let mut config = ChannelConfig::default();
    config.seed = Some(seed);
    config.connections_per_endpoint = 2;
    let channel = Channel::to(&[client_loop.handle()], [address], config).unwrap();
    let client = EchoClient::new(channel);
    let (tell, told) = unbounded();
    let mut ended = vec![None; usize::try_from(CALLS).unwrap()];
    let mut begun = 0;
    // Until every call has ended; the bound is for what would never end.
    for step in 0.. {
        assert!(
            step < 400_000,
            "seed {seed}: {} of {CALLS} calls have not ended",
            ended.iter().filter(|end| end.is_none()).count()
        );
        if begun < CALLS && rng.u32(..8) == 0 {
            let size = if rng.u32(..6) == 0 { rng.usize(20_000..90_000) } else { 8 };
            let mut data = begun.to_be_bytes().to_vec();
            data.resize(size, 7);
            let (tell, number) = (tell.clone(), begun);
            let timeout = Duration::from_millis(rng.u64(1..3000));
            let handle = if begun % 2 == 0 {
                let call = client.say(&Payload { data: data.clone() }).timeout(timeout).wait_for_ready();
                call.then(move |outcome| {
                    tell.send((number, outcome.map(|answer| assert_eq!(answer.data, data)))).unwrap();
                })
            } else {
                let call = client.count(&Payload { data }).timeout(timeout).wait_for_ready();
                call.then(move |outcome| {
                    tell.send((number, outcome.map(|answer| assert_eq!(answer.calls, number)))).unwrap();
                })
            };
            if rng.u32(..10) == 0 {
                handle.cancel();
            }
            begun += 1;
        }
        if !sim.step(&mut [&mut server_loop, &mut client_loop]).unwrap() {
            break;
        }
        for (number, outcome) in told.try_iter() {
            let place: &mut Option<Result<(), rpc::Status>> = &mut ended[usize::try_from(number).unwrap()];
            assert!(place.is_none(), "seed {seed}: call {number} ended twice");
            *place = Some(outcome);
        }
        if begun == CALLS && ended.iter().all(Option::is_some) {
            break;
        }
    }
    for (number, outcome) in ended.iter().enumerate() {
        let seen = seen[number].load(Ordering::SeqCst);
        match outcome.as_ref().unwrap_or_else(|| panic!("seed {seed}: call {number} never ended")) {
            Ok(()) => assert!(seen >= 1, "seed {seed}: call {number} was answered by nobody"),
            Err(status) => {
                if status.executed().is_surely_not() {
                    assert_eq!(seen, 0, "seed {seed}: call {number} was carried out: {status}");
                }
                assert_ne!(status.executed(), Executed::Executed, "seed {seed}: {status}");
                assert_ne!(status.code(), Code::Unknown, "seed {seed}: {status}");
            }
        }
        if number % 2 == 1 {
            assert!(
                seen <= 1,
                "seed {seed}: call {number}, which may not be repeated, was carried out {seen} times"
            );
        }
    }
    sim.set_faults(SimFaults::NONE);
    // Connections that have fallen silent before, one or both, may each cost a call that may not be repeated.
    let recovered = (0..10).any(|_| {
        let (tell, told) = unbounded();
        let call = client.count(&Payload { data: 0_u64.to_be_bytes().to_vec() });
        call.timeout(Duration::from_secs(30))
            .wait_for_ready()
            .then(move |outcome| tell.send(outcome).unwrap());
        for _ in 0..400_000 {
            sim.step(&mut [&mut server_loop, &mut client_loop]).unwrap();
            if let Ok(outcome) = told.try_recv() {
                // A heartbeat finds out about silence long before that.
                let code = outcome.as_ref().err().map(rpc::Status::code);
                assert_ne!(code, Some(Code::DeadlineExceeded), "seed {seed}");
                return outcome.is_ok();
            }
        }
        panic!("seed {seed}: a call in a world that is well again did not end")
    });
    assert!(recovered, "seed {seed}: no call is answered although all is well again");
    drop(server);
    let good = ended.iter().flatten().filter(|outcome| outcome.is_ok()).count();
    (good, ended.len() - good)
}

#[test]
fn every_call_ends_once_and_with_the_truth_in_two_hundred_worlds() {
    let seeds = match std::env::var("RPC_SIM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        // How many may be said, too: more for a night's run.
        Err(_) => (0..std::env::var("RPC_SIM_SEEDS").map_or(200, |count| count.parse().unwrap())).collect(),
    };
    let (mut good, mut bad) = (0, 0);
    for seed in seeds {
        println!("RPC_SIM_SEED={seed}");
        let (well, ill) = run(seed);
        (good, bad) = (good + well, bad + ill);
    }
    println!("{good} calls ended well, {bad} did not");
    assert!(good > 0 && bad > 0, "a world in which nothing or everything goes wrong shows little");
}
