//! How servers share and limit their connections: accept modes, Unix sockets, limits per address, socket options, choosing loops, and stopping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crossbeam_channel::unbounded;
use reactor::codec::LinesCodec;
use reactor::{
    AcceptMode, Address, CloseReason, EventLoopThreadPool, Keepalive, LoopConfig, ServiceConfig, TcpServer,
};
use support::{BOUND, Event, Script, Server, connect, limits, lines, raw, until};

/// Answers each line with the index of its loop.
fn teller(log: crossbeam_channel::Sender<Event>) -> Script<LinesCodec> {
    lines(log).on_frame(|cx, id, _| {
        let text = format!("{}\n", id.loop_index());
        cx.send(id, text.as_bytes()).unwrap();
    })
}

/// Which loop serves this connection.
fn loop_of(client: &mut TcpStream) -> u16 {
    client.write_all(b"?\n").unwrap();
    let mut answer = [0; 2];
    client.read_exact(&mut answer).unwrap();
    u16::from(answer[0] - b'0')
}

#[test]
fn round_robin_gives_each_loop_its_turn() {
    let server = Server::new(3, limits(|c| c.accept = AcceptMode::RoundRobin), teller);
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    let mut served: Vec<_> = clients.iter_mut().map(loop_of).collect();
    served.sort_unstable();
    assert_eq!(served, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn with_a_listener_per_loop_the_kernel_spreads_and_the_limit_is_still_the_servers() {
    let config = limits(|c| {
        c.accept = AcceptMode::ReusePort;
        c.connections_max = 60;
    });
    let server = Server::new(2, config, teller);
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    let served: HashSet<_> = clients.iter_mut().map(loop_of).collect();
    assert_eq!(served.len(), 2, "60 connections hash to both of two sockets but for 1 in 2^59 runs");
    let mut refused = server.connect();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0, "the 61st is closed, whichever loop it came to");
}

#[test]
fn a_stopped_server_listens_nowhere_whatever_its_mode() {
    for accept in [AcceptMode::LeastConnections, AcceptMode::ReusePort] {
        let server = Server::new(2, limits(|c| c.accept = accept), teller);
        let mut before = server.connect();
        loop_of(&mut before);
        server.running.stop_accepting();
        until("nobody accepts", || TcpStream::connect(server.address).is_err());
        loop_of(&mut before);
    }
}

#[test]
fn a_unix_socket_serves_and_leaves_no_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.sock");
    // A program that was killed leaves its socket there.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut pool = EventLoopThreadPool::start(2, LoopConfig::default()).unwrap();
    let (log, told) = unbounded();
    let server = TcpServer::bind_unix(&path, ServiceConfig::default()).unwrap();
    assert_eq!(server.address(), &Address::unix(&path));
    assert!(TcpServer::bind_unix(&path, ServiceConfig::default()).is_err(), "somebody listens there");
    server.serve(&pool, move |_| teller(log.clone())).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    client.write_all(b"?\n").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    drop(client);
    let closed = |event: &Event| matches!(event, Event::Closed(_, CloseReason::PeerClosed));
    while !closed(&told.recv_timeout(BOUND).unwrap()) {}
    pool.stop();
    pool.join().unwrap();
    assert!(!path.exists());
}

#[test]
fn one_address_gets_its_share_of_connections_and_no_more() {
    let server = Server::new(2, limits(|c| c.connections_per_address_max = 2), teller);
    let from = |last: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
        socket.bind(&local.into()).unwrap();
        socket.connect(&server.address.into()).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        TcpStream::from(socket)
    };
    let mut held = [from(1), from(1), from(2)];
    for client in &mut held {
        loop_of(client);
    }
    assert_eq!(from(1).read(&mut [0]).unwrap_or(0), 0, "the third of one address");
    let [first, ..] = held;
    drop(first);
    until("its place is free", || {
        let mut next = from(1);
        next.write_all(b"?\n").unwrap();
        next.read(&mut [0]).is_ok_and(|count| count > 0)
    });
}

#[test]
fn accepted_sockets_have_the_options_of_their_server() {
    let keepalive = Keepalive { idle: Duration::from_secs(50), interval: Duration::from_secs(7), probes: 4 };
    let config = limits(|c| {
        c.socket.keepalive = Some(keepalive);
        c.socket.user_timeout = Some(Duration::from_secs(9));
    });
    let server = Server::new(1, config, teller);
    let mut client = server.connect();
    loop_of(&mut client);
    // The descriptor of the one connection that comes from our client, found among the process's own.
    let ours = client.local_addr().unwrap();
    let mut checked = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let path = format!("/proc/self/fd/{}", entry.file_name().to_string_lossy());
        let is_socket = std::fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let number = entry.file_name().to_string_lossy().parse::<i32>().unwrap();
        let Some(socket) = duplicate(number) else { continue };
        if socket.peer_addr().ok().and_then(|peer| peer.as_socket()) != Some(ours) {
            continue;
        }
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.probes);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        checked += 1;
    }
    assert_eq!(checked, 1);
}

/// A socket of this process by its number, through a descriptor of our own.
fn duplicate(number: i32) -> Option<socket2::Socket> {
    let me = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty()).ok()?;
    let fd = rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty()).ok()?;
    Some(socket2::Socket::from(fd))
}

#[test]
fn a_pool_gives_loops_in_turn_by_hash_and_by_load() {
    let server = Server::new(3, limits(|c| c.accept = AcceptMode::RoundRobin), teller);
    let turns: Vec<_> = (0..6).map(|_| server.pool.next().index()).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    assert_eq!(server.pool.by_hash(7).index(), server.pool.by_hash(7).index());
    assert_eq!(server.pool.by_hash(u64::MAX).index(), u16::try_from(u64::MAX % 3).unwrap());
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    let taken: HashSet<_> = clients.iter_mut().map(loop_of).collect();
    let free = (0..3).find(|index| !taken.contains(index)).unwrap();
    until("the load is published", || server.pool.least_loaded().index() == free);
}

#[test]
fn a_pinned_loop_runs_where_it_was_told_to() {
    let loop_config = || {
        let mut config = LoopConfig::default();
        config.pin_to_cpus = vec![0];
        config
    };
    let server = Server::with_loops(1, loop_config(), ServiceConfig::default(), teller);
    let cpus = server.ask(|_| {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect::<Vec<_>>()
    });
    assert_eq!(cpus, [0]);
}

#[test]
fn a_stop_drains_then_closes_and_says_so_at_each_step() {
    let mut loop_config = LoopConfig::default();
    loop_config.stop_drain = Duration::from_millis(200);
    let server = Server::with_loops(1, loop_config, ServiceConfig::default(), teller);
    let mut client = connect(server.address);
    loop_of(&mut client);
    server.pool.stop();
    until("nobody accepts", || TcpStream::connect(server.address).is_err());
    // Draining: who is there is still served, until the time is over.
    let mut answered = 0;
    while client.write_all(b"?\n").is_ok() && client.read(&mut [0; 2]).is_ok_and(|count| count > 0) {
        answered += 1;
    }
    assert!(answered > 0, "served while draining");
    server.told.wait(|event| matches!(event, Event::Closed(_, CloseReason::LoopStopping)));
}

#[test]
fn a_loop_that_spins_before_it_sleeps_serves_and_stops_all_the_same() {
    let mut loop_config = LoopConfig::default();
    loop_config.spin = Duration::from_millis(2);
    let server = Server::with_loops(2, loop_config, ServiceConfig::default(), teller);
    let mut client = connect(server.address);
    for _ in 0..20 {
        loop_of(&mut client);
    }
    server.ask(|_| ());
}

#[test]
fn a_stop_that_is_asked_for_again_can_be_brought_forward_and_not_put_off() {
    let mut loop_config = LoopConfig::default();
    loop_config.stop_deadline = Duration::from_secs(3_600);
    let mut server =
        Server::with_loops(1, loop_config, limits(|c| c.linger = Duration::from_secs(3_600)), |log| {
            raw(log).on_frame(|cx, id, _| cx.send_bytes(id, vec![7; 12 << 20].into()).unwrap())
        });
    let mut client = server.connect();
    client.write_all(b"more than the kernel's buffers hold").unwrap();
    server.told.frame();
    let handle = server.pool.handles()[0].clone();
    handle.stop();
    assert_eq!(server.told.closed(), CloseReason::LoopStopping);
    handle.stop_within(Some(Duration::from_secs(7_200)));
    // What is unsent would be delivered for an hour; now it is not.
    handle.stop_within(Some(Duration::ZERO));
    let (done, joined) = unbounded();
    std::thread::scope(|scope| {
        let pool = &mut server.pool;
        scope.spawn(move || done.send(pool.join()).unwrap());
        joined.recv_timeout(BOUND).expect("the loop ends").unwrap();
    });
    drop(client);
}
