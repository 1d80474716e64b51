//! What a call is: three ways to make it, a deadline, a way to give it up, and one end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::future::IntoFuture as _;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use rpc::echo::{Counted, Delay, EchoBlocking, EchoBlockingServer, EchoClient, Failure, MockEcho, Payload};
use rpc::{CallContext, ChannelConfig, Code, Executed, Server, ServerConfig, Status, Workers};
use support::*;

#[test]
fn a_call_can_be_waited_for_awaited_and_called_back() {
    let fixture = serve(ServerConfig::default());
    let caller = call_from(2, &[fixture.server.local_addr()], ChannelConfig::default());
    assert_eq!(caller.client.say(&payload("waited")).wait(), Ok(payload("waited")));
    assert_eq!(block_on(caller.client.say(&payload("awaited")).into_future()), Ok(payload("awaited")));
    let (tell, told) = unbounded();
    caller.client.say(&payload("called back")).then(move |outcome| {
        let name = std::thread::current().name().unwrap().to_owned();
        tell.send((outcome, name)).unwrap();
    });
    let (outcome, thread) = told.recv_timeout(LONG).unwrap();
    assert_eq!(outcome, Ok(payload("called back")));
    assert!(thread.starts_with("io-"), "on a loop, not on {thread}");
}

#[test]
fn a_loop_thread_is_refused_to_wait_instead_of_waiting_for_itself() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let (tell, told) = unbounded();
    let client = caller.client.clone();
    caller.client.say(&payload("")).then(move |_| tell.send(client.say(&payload("")).wait()).unwrap());
    let status = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::FailedPrecondition, Executed::NotSent));
}

#[test]
fn calls_on_one_connection_do_not_wait_for_each_other() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let (tell, told) = unbounded();
    for number in 0..3_u8 {
        let tell = tell.clone();
        caller
            .client
            .wait(&delay([number]))
            .then(move |outcome| tell.send(outcome.unwrap().data[0]).unwrap());
    }
    let mut parked: Vec<_> = (0..3).map(|_| fixture.parked()).collect();
    assert_eq!(caller.client.say(&payload("meanwhile")).wait(), Ok(payload("meanwhile")));
    parked.reverse();
    for Parked { request, reply, .. } in parked {
        reply.send(Payload { data: request.data });
    }
    let answers: Vec<u8> = (0..3).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(answers, [2, 1, 0], "answered in another order than asked");
    assert_eq!(fixture.server.connections(), 1);
}

#[test]
fn an_error_keeps_its_code_its_text_and_its_details() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    for code in Code::ALL.into_iter().skip(1) {
        let failure =
            Failure { code: code.number(), message: "as told".into(), details: vec![1, 2], panics: false };
        let status = caller.client.fail(&failure).once().wait().unwrap_err();
        assert_eq!(status, Status::new(code, "as told").with_details([1, 2]));
        assert_eq!(status.executed(), Executed::Executed);
    }
}

#[test]
fn a_handler_that_drops_its_reply_or_panics_is_an_error_to_the_caller_and_to_nobody_else() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let other = caller.client.wait(&delay("other")).start();
    let parked = fixture.parked();
    let status = caller.client.forget(&payload("")).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Internal, Executed::Unknown));
    assert!(status.message().contains("no answer"), "{status}");
    let failure = Failure { panics: true, ..Failure::default() };
    let status = caller.client.fail(&failure).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Internal, Executed::Unknown));
    assert!(status.message().contains("panicked"), "{status}");
    parked.reply.send(payload("other"));
    assert_eq!(block_on(other), Ok(payload("other")), "on the same connection");
}

#[test]
fn metadata_travels_beside_the_request() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let answer = caller.client.say(&payload("a")).metadata("other", "x").metadata("suffix", "b").wait();
    assert_eq!(answer, Ok(payload("ab")));
    let status = caller.client.say(&payload("a")).metadata("k", vec![0; 20_000]).wait().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::InvalidArgument, Executed::NotSent));
}

#[test]
fn the_time_left_reaches_the_server_and_ends_the_call() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let call = caller.client.wait(&delay("")).timeout(Duration::from_millis(200)).start();
    let parked = fixture.parked();
    assert!(parked.cx.remaining().unwrap() <= Duration::from_millis(200));
    let status = block_on(call).unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::DeadlineExceeded, Executed::Unknown));
    testkit::wait_until("the server to hear of it", LONG, || {
        parked.cx.is_cancelled() && parked.reply.is_cancelled()
    });
    // Too late, and so ignored.
    parked.reply.send(payload("late"));
    assert_eq!(caller.client.say(&payload("on")).wait(), Ok(payload("on")));
    testkit::wait_until("it is counted", LONG, || fixture.ended("Wait", Code::Cancelled) == 1);
}

#[test]
fn giving_a_call_up_reaches_the_server() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let (tell, told) = unbounded();
    let handle = caller.client.wait(&delay("")).then(move |outcome| tell.send(outcome).unwrap());
    let parked = fixture.parked();
    let (hook, hooked) = unbounded();
    parked.cx.on_cancel(move || hook.send(()).unwrap());
    handle.cancel();
    handle.cancel();
    let status = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Cancelled, Executed::Unknown));
    hooked.recv_timeout(LONG).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(1)).is_err(), "once");

    let dropped = caller.client.wait(&delay("")).start();
    let parked = fixture.parked();
    drop(dropped);
    testkit::wait_until("a dropped future cancels", LONG, || parked.reply.is_cancelled());
}

#[test]
fn calls_made_while_serving_inherit_the_time_left() {
    // front -> back: what the front's caller gave is what the back sees, though the front asks for a minute.
    let back = serve(ServerConfig::default());
    let to_back = call_to(&[back.server.local_addr()], ChannelConfig::default());
    let client = to_back.client.clone();
    let front = MockEcho::new().on_say(move |request| {
        let _ = client.wait(&delay("")).timeout(Duration::from_secs(60)).then(|_| {});
        Ok(request)
    });
    let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
    let server = Server::new(ServerConfig::default()).add(rpc::echo::EchoServer(front)).unwrap();
    let server = server.serve(&pool, "127.0.0.1:0".parse().unwrap()).unwrap();
    let caller = call_to(&[server.local_addr()], ChannelConfig::default());
    caller.client.say(&payload("")).timeout(Duration::from_secs(7)).wait().unwrap();
    let left = back.parked().cx.remaining().unwrap();
    assert!(left <= Duration::from_secs(7), "{left:?}");

    // On another thread it is said.
    let held = caller_holds(&back, &to_back.client);
    assert!(held <= Duration::from_secs(3), "{held:?}");
}

/// What the server sees of a call that is made within another one that had three seconds.
fn caller_holds(back: &Fixture, client: &EchoClient) -> Duration {
    let outer = client.wait(&delay("outer")).timeout(Duration::from_secs(3)).start();
    let parked = back.parked();
    let inner = client.wait(&delay("inner")).timeout(Duration::from_secs(60)).within(&parked.cx).start();
    let seen = back.parked().cx.remaining().unwrap();
    drop((outer, inner));
    seen
}

struct Slow;

impl EchoBlocking for Slow {
    fn say(&self, _: &CallContext, request: Payload) -> Result<Payload, Status> {
        Ok(request)
    }
    fn count(&self, _: &CallContext, _: Payload) -> Result<Counted, Status> {
        panic!("a test's panic")
    }
    fn wait(&self, cx: &CallContext, request: Delay) -> Result<Payload, Status> {
        assert!(cx.remaining().is_some());
        std::thread::sleep(Duration::from_millis(request.millis));
        Ok(payload(std::thread::current().name().unwrap()))
    }
    fn forget(&self, _: &CallContext, _: Payload) -> Result<Payload, Status> {
        Err(Status::unimplemented())
    }
    fn fail(&self, _: &CallContext, request: Failure) -> Result<Payload, Status> {
        Err(Status::new(Code::from_number(request.code), request.message))
    }
}

/// A server of `Slow` with one worker and room for one more call.
fn serve_slow() -> (rpc::RunningServer, reactor::EventLoopThreadPool) {
    let workers = Workers::start("slow", 1, 1).unwrap();
    let pool = reactor::EventLoopThreadPool::start(1, reactor::LoopConfig::default()).unwrap();
    let server = Server::new(ServerConfig::default()).add(EchoBlockingServer::new(Slow, workers)).unwrap();
    (server.serve(&pool, "127.0.0.1:0".parse().unwrap()).unwrap(), pool)
}

#[test]
fn a_blocking_handler_runs_on_workers_and_a_full_queue_answers_at_once() {
    let (server, _pool) = serve_slow();
    let caller = call_to(&[server.local_addr()], ChannelConfig::default());
    assert_eq!(caller.client.say(&payload("x")).wait(), Ok(payload("x")));
    let status = caller.client.count(&payload("")).wait().unwrap_err();
    assert!(status.message().contains("panicked"), "{status}");
    let calls: Vec<_> = (0..4)
        .map(|_| caller.client.wait(&Delay { millis: 300, ..Delay::default() }).once().start())
        .collect();
    let outcomes: Vec<_> = calls.into_iter().map(block_on).collect();
    let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (2, 2));
    assert_eq!(done[0], Ok(payload("slow-0")));
    let status = refused[0].as_ref().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::ResourceExhausted, Executed::Rejected));
}

#[test]
fn what_waited_too_long_for_a_worker_is_dropped_before_it_is_decoded() {
    let (server, _pool) = serve_slow();
    let mut raw = Raw::client(server.local_addr());
    let slow = prost::Message::encode_to_vec(&Delay { millis: 300, ..Delay::default() });
    let timed = |call, left: Duration, method| rpc::wire::Header {
        timeout_us: Some(left.as_micros().try_into().unwrap()),
        ..request(call, method)
    };
    raw.send(&timed(2, LONG, "rpc.test.Echo/Wait"), &slow);
    // These bytes are no message: were they decoded, the answer would be another.
    raw.send(&timed(3, Duration::from_millis(50), "rpc.test.Echo/Say"), &[0xff; 3]);
    assert_eq!(raw.next().unwrap().0.call_id, 2);
    let (header, _) = raw.next().unwrap();
    assert_eq!((header.call_id, header.status), (3, Code::DeadlineExceeded.number()));
    assert_eq!(header.executed(), rpc::wire::Executed::Rejected);
}

#[test]
fn a_mock_answers_without_a_network() {
    let client = MockEcho::new()
        .on_say(|request| Ok(Payload { data: [request.data, b"!".to_vec()].concat() }))
        .client();
    assert_eq!(client.say(&payload("hi")).wait(), Ok(payload("hi!")));
    assert_eq!(client.count(&payload("")).wait().unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn every_call_is_counted_by_method_with_its_latency() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    for _ in 0..10 {
        caller.client.say(&payload("x")).wait().unwrap();
    }
    caller.client.fail(&Failure { code: 5, ..Failure::default() }).wait().unwrap_err();
    let began = Instant::now();
    testkit::wait_until("the counts", LONG, || fixture.ended("Say", Code::Ok) == 10);
    let all = fixture.server.metrics();
    let say = all.iter().find(|stats| stats.method == "rpc.test.Echo/Say").unwrap();
    assert_eq!((say.calls(), say.errors(), say.latencies.count()), (10, 0, 10));
    assert!(say.latencies.quantile(0.99) > Duration::ZERO && began.elapsed() < LONG);
    assert_eq!(fixture.ended("Fail", Code::NotFound), 1);
    let stats = caller.channel.stats();
    assert_eq!((stats.calls, stats.failed, stats.ready), (11, 1, 1));
}

#[test]
fn a_channel_that_is_dropped_ends_its_calls_and_connections() {
    let fixture = serve(ServerConfig::default());
    let caller = call_to(&[fixture.server.local_addr()], ChannelConfig::default());
    let (tell, told) = unbounded();
    // The handle is a channel too, so it is not kept.
    drop(caller.client.wait(&delay("")).then(move |outcome| tell.send(outcome).unwrap()));
    let parked = fixture.parked();
    drop((caller.client, caller.channel));
    let status = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!((status.code(), status.executed()), (Code::Unavailable, Executed::Unknown));
    testkit::wait_until("the connection is closed", LONG, || fixture.server.connections() == 0);
    assert!(parked.reply.is_cancelled());
}
