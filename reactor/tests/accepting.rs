//! Accepting and connecting.
//!
//! 15. Without descriptors a server turns clients away instead of leaving them hanging, does not spin, and serves again when there are some.
//! 16. No accept error ends the server: `ECONNABORTED`, `EINTR`, `EPROTO`, `ENOMEM` and their like.
//! 17. The accept queue is drained under a budget; an accept storm starves nobody, and needs no second event.
//! 18. An attempt ends in exactly one outcome: open, refused, timed out, given up. (A connection to itself is shown inside the crate.)
//! 19. A client comes back with back-off, which only a stable connection resets; a stopped one does not come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::unbounded;
use reactor::codec::LinesCodec;
use reactor::{
    BackoffConfig, ClientConfig, CloseReason, ConnectError, EventLoopThreadPool, LoopConfig, ServiceConfig,
    ServiceHandle, TcpClient, TcpServer,
};
use support::{BOUND, Bench, Event, FullBacklog, Job, Server, Told, connect, limits, lines, until};

// ---- a server in a process of its own

/// Says to this test binary that it is the server that a test has started.
const SERVER: &str = "REACTOR_TEST_SERVER";

/// A server for the tests below. It echoes lines, answers `?` with its loop's counters, and ends with its standard input.
#[test]
fn child_server() {
    let Ok(descriptors) = std::env::var(SERVER) else { return };
    if let Ok(descriptors) = descriptors.parse::<u64>() {
        let limit = rustix::process::Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    }
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), ServiceConfig::default()).unwrap();
    let address = server.local_addr();
    let (handle, (log, _)) = (pool.handles()[0].clone(), unbounded());
    server
        .serve(&pool, move |_| {
            let handle = handle.clone();
            lines(log.clone()).on_frame(move |cx, id, line| {
                let stats = handle.stats();
                let text = match line {
                    b"?" => format!("{} {} {}\n", stats.accept_errors, stats.shed, stats.turns),
                    line => format!("{}\n", String::from_utf8_lossy(line)),
                };
                cx.send(id, text.as_bytes()).unwrap();
            })
        })
        .unwrap();
    eprintln!("listening on {address}");
    let _ = std::io::stdin().read(&mut [0]);
}

struct ChildServer {
    child: Child,
    address: SocketAddr,
}

impl ChildServer {
    fn start(mut command: Command, descriptors: &str) -> Self {
        let mut child = command
            .args(["--exact", "child_server", "--nocapture"])
            .env(SERVER, descriptors)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("the server said {line:?}")) }
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Sends a line; the line that comes back, or `None` when the connection was closed instead.
fn line(client: &mut TcpStream, text: &str) -> Option<String> {
    let mut answer = String::new();
    let sent = client.write_all(format!("{text}\n").as_bytes());
    match sent.and_then(|()| BufReader::new(client).read_line(&mut answer)) {
        Ok(0) => None,
        Ok(_) => Some(answer.trim_end().to_owned()),
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                "left hanging: {error}"
            );
            None
        }
    }
}

#[test]
fn without_descriptors_clients_are_turned_away_and_later_ones_are_served() {
    let server = ChildServer::start(Command::new(std::env::current_exe().unwrap()), "40");
    let mut witness = connect(server.address);
    assert_eq!(line(&mut witness, "hello").as_deref(), Some("hello"));

    let mut served = Vec::new();
    let mut turned_away = 0;
    for _ in 0..60 {
        let mut client = connect(server.address);
        match line(&mut client, "hello") {
            Some(_) => served.push(client),
            None => turned_away += 1,
        }
    }
    assert!(turned_away >= 20 && served.len() >= 10, "{} served, {turned_away} turned away", served.len());

    let stats = |witness: &mut TcpStream| -> Vec<u64> {
        line(witness, "?").unwrap().split(' ').map(|number| number.parse().unwrap()).collect()
    };
    let before = stats(&mut witness);
    assert!(before[0] >= 1 && before[1] >= 1, "{before:?}");
    // Several retries of the accept later the loop has still made few turns.
    let mut after = before.clone();
    until("three more retries", || {
        after = stats(&mut witness);
        after[0] >= before[0] + 3 || after[2] > before[2] + 20_000
    });
    // Each question is a turn or two, asked a millisecond apart or more.
    assert!(after[2] <= before[2] + 2000, "the loop spins: {before:?} to {after:?}");

    drop(served);
    let mut late = connect(server.address);
    let mut answer = line(&mut late, "hello");
    until("served again", || {
        if answer.is_none() {
            late = connect(server.address);
            answer = line(&mut late, "hello");
        }
        answer.is_some()
    });
    assert_eq!(line(&mut witness, "still here").as_deref(), Some("still here"));
}

/// A command under `strace` with faults, or `None` where there is no `strace`: an error in CI, a visible omission elsewhere.
fn strace(faults: &[String]) -> Option<Command> {
    let usable = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !usable {
        assert!(std::env::var_os("CI").is_none(), "CI needs strace");
        eprintln!("skipped: no strace");
        return None;
    }
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4,epoll_wait,recvfrom,sendto"]);
    for fault in faults {
        command.args(["-e", fault]);
    }
    command.arg(std::env::current_exe().unwrap());
    Some(command)
}

#[test]
fn no_accept_error_ends_the_server() {
    for error in
        ["ECONNABORTED", "EINTR", "EPROTO", "ENETDOWN", "EPERM", "ENOMEM", "ENOBUFS", "ENFILE", "EMFILE"]
    {
        let Some(command) = strace(&[format!("inject=accept4:error={error}:when=1..3")]) else { return };
        let server = ChildServer::start(command, "");
        // The reserve may turn one away for EMFILE and ENFILE; the next is served.
        let mut answer = None;
        until("served", || {
            answer = line(&mut connect(server.address), "hello");
            answer.is_some()
        });
        assert_eq!(answer.as_deref(), Some("hello"), "{error}");
    }
}

#[test]
fn interrupted_calls_are_repeated() {
    let faults =
        ["epoll_wait", "recvfrom", "sendto"].map(|call| format!("inject={call}:error=EINTR:when=1+2"));
    let Some(command) = strace(&faults) else { return };
    let server = ChildServer::start(command, "");
    let mut client = connect(server.address);
    for n in 0..20 {
        let text = format!("line {n}");
        assert_eq!(line(&mut client, &text).as_deref(), Some(text.as_str()));
    }
}

// ---- accepting

#[test]
fn an_accept_storm_starves_nobody_and_needs_no_second_event() {
    let mut bench = Bench::new(limits(|c| c.accepts_per_turn = 4), lines);
    let (mut witness, id) = bench.connect_named();
    bench.turn();
    let storm: Vec<_> = (0..100).map(|_| connect(bench.address)).collect();
    witness.write_all(b"hello\n").unwrap();
    let before = bench.stats();
    bench.turn();
    let after = bench.stats();
    assert!(after.accepted - before.accepted <= 4, "the budget");
    assert!(bench.told.rest().contains(&Event::Frame(id, b"hello".to_vec())), "served in the same turn");
    let before = bench.stats();
    while bench.stats().accepted < 101 {
        let accepted = bench.stats().accepted;
        bench.turn();
        let now = bench.stats().accepted - accepted;
        assert!((1..=4).contains(&now), "{now} accepted in a turn");
    }
    assert!(bench.stats().turns - before.turns >= 24);
    drop(storm);
}

#[test]
fn connections_go_to_the_loop_with_the_fewest() {
    let server = Server::new(3, ServiceConfig::default(), lines);
    let clients: Vec<_> = (0..30).map(|_| server.connect_named()).collect();
    let on = |index| clients.iter().filter(|(_, id)| id.loop_index() == index).count();
    assert_eq!((on(0), on(1), on(2)), (10, 10, 10));
    assert_eq!(server.running.connections(), 30);

    // Those of one loop leave; the next go there.
    let (left, stay): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, id)| id.loop_index() == 1);
    drop(left);
    until("ten are gone", || server.running.connections() == 20);
    let next: Vec<_> = (0..10).map(|_| server.connect_named()).collect();
    assert!(next.iter().all(|(_, id)| id.loop_index() == 1));
    drop((stay, next));
    until("all are gone", || server.running.connections() == 0);
}

#[test]
fn a_loop_that_has_ended_leaves_its_share_to_the_others() {
    let server = Server::new(2, ServiceConfig::default(), lines);
    server.pool.handles()[1].stop();
    until("it has ended", || server.pool.handles()[1].post(|_| ()).is_err());
    for _ in 0..4 {
        let (_client, id) = server.connect_named();
        assert_eq!(id.loop_index(), 0);
    }
}

#[test]
fn one_connection_too_many_is_closed_and_counted() {
    let server = Server::new(1, limits(|c| c.connections_max = 2), lines);
    let first = server.connect_named();
    let _second = server.connect_named();
    assert_eq!(line(&mut server.connect(), "hello"), None);
    until("counted", || server.stats().shed == 1);
    drop(first);
    until("there is room", || server.running.connections() == 1);
    server.connect_named();
}

#[test]
fn a_server_that_stopped_accepting_keeps_its_connections() {
    let server = Server::new(1, ServiceConfig::default(), lines);
    let (mut client, id) = server.connect_named();
    server.running.stop_accepting();
    until("refused", || TcpStream::connect(server.address).is_err());
    client.write_all(b"hello\n").unwrap();
    server.told.wait(|event| *event == Event::Frame(id, b"hello".to_vec()));
}

// ---- connecting

#[test]
fn an_attempt_that_nobody_answers_times_out() {
    let full = FullBacklog::new();
    let mut bench = Bench::new(limits(|c| c.connect_timeout = Duration::from_millis(30)), lines);
    let address = full.address;
    bench.post(move |cx| {
        let id = cx.connect(address, LinesCodec::new(80)).unwrap();
        assert_eq!(cx.send(id, b"too early"), Err(reactor::SendError::NotOpen));
        assert!(!cx.is_open(id));
    });
    let event = bench.turn_for(|_| true);
    assert!(matches!(event, Event::ConnectFailed(_, ConnectError::Timeout, None)), "{event:?}");
    assert_eq!((bench.event_loop.connections(), bench.stats().panics), (0, 0));
}

#[test]
fn an_attempt_that_is_given_up_says_so_once() {
    let full = FullBacklog::new();
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let address = full.address;
    for with_reset in [true, false] {
        bench.post(move |cx| {
            let id = cx.connect(address, LinesCodec::new(80)).unwrap();
            let why = CloseReason::Local("not wanted any more");
            if with_reset {
                cx.abort(id, why);
            } else {
                cx.close(id, why);
            }
            cx.abort(id, why);
        });
        bench.turn();
        bench.turn();
        let rest = bench.told.rest();
        assert!(matches!(rest[..], [Event::ConnectFailed(_, ConnectError::Cancelled, None)]), "{rest:?}");
        assert_eq!(bench.event_loop.connections(), 0);
    }
}

#[test]
fn an_attempt_given_up_in_the_turn_it_succeeds_has_one_outcome() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    for _ in 0..10 {
        let (tell, told) = unbounded();
        bench.post(move |cx| tell.send(cx.connect(address, LinesCodec::new(80)).unwrap()).unwrap());
        bench.turn();
        let id = told.try_recv().unwrap();
        drop(other.accept().unwrap());
        // By now the attempt has succeeded; this turn learns of it, in the events, and gives it up, in the posts.
        bench.post(move |cx| cx.abort(id, CloseReason::Local("not wanted any more")));
        bench.turn();
        bench.turn();
        let rest = bench.told.rest();
        assert!(
            matches!(rest[..], [Event::Opened(_), Event::Closed(..)] | [Event::ConnectFailed(..)])
                || matches!(rest[..], [Event::Opened(_), Event::Eof(_), Event::Closed(..)]),
            "{rest:?}"
        );
    }
    assert_eq!(bench.event_loop.connections(), 0);
}

/// A client on a loop of its own.
struct Client {
    told: Told,
    client: TcpClient,
    service: ServiceHandle<Job<LinesCodec>>,
    pool: EventLoopThreadPool,
}

impl Client {
    fn start(config: ClientConfig) -> Self {
        let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
        let (log, told) = unbounded();
        let handle = &pool.handles()[0];
        let slot = handle.service_slot::<Job<LinesCodec>>(16);
        let service = slot.handle();
        let client = TcpClient::start(handle, slot, config, move || lines(log)).unwrap();
        Self { told: Told(told), client, service, pool }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pool.handles()[0].stop_within(Some(Duration::ZERO));
    }
}

/// A client that waits at most this long between attempts.
fn eager(addresses: Vec<SocketAddr>, cap: Duration) -> ClientConfig {
    let mut config = ClientConfig::new(addresses);
    config.backoff = BackoffConfig { base: Duration::from_millis(1), cap, ..BackoffConfig::default() };
    config
}

#[test]
fn a_client_comes_back_when_its_server_does() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cap = Duration::from_millis(20);
    let client = Client::start(eager(vec![address], cap));
    for attempt in 0..4 {
        let event = client.told.next();
        let Event::ConnectFailed(_, ConnectError::Io { .. }, Some(retry_in)) = event else {
            panic!("{event:?}")
        };
        assert!(retry_in <= cap.min(Duration::from_millis(1 << attempt)), "attempt {attempt}: {retry_in:?}");
    }
    let mut server = None;
    until("the port is bound again", || {
        server = TcpListener::bind(address).ok();
        server.is_some()
    });
    let server = server.unwrap();
    let (first, _) = server.accept().unwrap();
    let id = client.told.opened();
    drop(first);
    assert_eq!(client.told.closed(), CloseReason::PeerClosed);
    let (second, _) = server.accept().unwrap();
    assert_ne!(client.told.opened(), id, "another connection has another name");
    drop(second);
}

#[test]
fn a_connection_that_ends_at_once_does_not_reset_the_back_off() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = vec![closing.local_addr().unwrap(), refusing];
    std::thread::spawn(move || while closing.accept().is_ok() {});
    let client = Client::start(eager(addresses, Duration::from_millis(64)));
    // Were the series begun anew by each connection, no wait would be longer than 2 ms.
    let long = |event: &Event| matches!(event, Event::ConnectFailed(_, _, Some(retry_in)) if *retry_in > Duration::from_millis(4));
    client.told.wait(long);
}

#[test]
fn a_client_that_is_to_connect_once_does_so_once() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = eager(vec![server.local_addr().unwrap()], Duration::from_millis(1));
    config.reconnect = false;
    let client = Client::start(config);
    drop(server.accept().unwrap());
    client.told.closed();
    assert_ended(&client);

    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = eager(vec![unused], Duration::from_millis(1));
    config.reconnect = false;
    let client = Client::start(config);
    assert!(matches!(client.told.next(), Event::ConnectFailed(_, _, None)));
    assert_ended(&client);
}

#[test]
fn a_stopped_client_does_not_come_back_whatever_it_was_doing() {
    // While it is connected.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::start(eager(vec![server.local_addr().unwrap()], Duration::from_millis(1)));
    let (mut peer, _) = server.accept().unwrap();
    client.told.opened();
    client.client.stop().unwrap();
    client.client.stop().unwrap();
    assert_eq!(client.told.closed(), CloseReason::Local("the client was stopped"));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    drop(peer);
    assert_ended(&client);

    // During an attempt.
    let full = FullBacklog::new();
    let client = Client::start(eager(vec![full.address], Duration::from_millis(1)));
    client.client.stop().unwrap();
    let event = client.told.next();
    assert!(matches!(event, Event::ConnectFailed(_, ConnectError::Cancelled, None)), "{event:?}");
    assert_ended(&client);

    // While it waits for its next attempt.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::start(eager(vec![unused], Duration::from_millis(50)));
    client.told.next();
    client.client.stop().unwrap();
    // Until the stop is there the client goes on.
    let (tell, told) = unbounded();
    client.pool.handles()[0].post(move |_| tell.send(()).unwrap()).unwrap();
    told.recv_timeout(BOUND).unwrap();
    client.told.rest();
    assert_ended(&client);
}

/// Shows that the client makes no further attempt: none comes in a time in which many would.
fn assert_ended(client: &Client) {
    const LONG_AFTER: u64 = 99;
    let posted = client.service.post(Box::new(|cx| {
        cx.set_timer(Duration::from_millis(120), LONG_AFTER);
    }));
    assert!(posted.is_ok());
    assert_eq!(client.told.next(), Event::Timer(LONG_AFTER));
    let (tell, told) = unbounded();
    client.pool.handles()[0].post(move |event_loop| tell.send(event_loop.connections()).unwrap()).unwrap();
    assert_eq!(told.recv_timeout(BOUND).unwrap(), 0);
}

#[test]
fn stopping_a_client_does_not_cut_off_what_it_still_delivers() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let (log, told) = unbounded();
    let sent = support::pattern(6 << 20);
    let output = sent.clone();
    let make = move || {
        lines(log).on_open(move |cx, id| {
            cx.send(id, &output).unwrap();
            cx.close(id, CloseReason::Local("that is all"));
        })
    };
    let handle = &pool.handles()[0];
    let mut config = ClientConfig::new(vec![address]);
    config.reconnect = false;
    let client = TcpClient::start(handle, handle.service_slot::<Job<LinesCodec>>(1), config, make).unwrap();
    assert_eq!(Told(told).closed(), CloseReason::Local("that is all"));
    client.stop().unwrap();
    let (mut peer, _) = server.accept().unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}
