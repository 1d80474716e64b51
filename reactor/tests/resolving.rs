//! Clients that are given names: looked up off the loop, all addresses tried, given up in time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crossbeam_channel::unbounded;
use reactor::{
    BackoffConfig, ClientConfig, ConnectError, Endpoint, EventLoopThreadPool, LoopConfig, TcpClient,
};
use support::{BOUND, Event, Told, lines};

struct Client {
    told: Told,
    client: TcpClient,
    _pool: EventLoopThreadPool,
}

fn client(change: impl FnOnce(&mut ClientConfig), endpoints: Vec<Endpoint>) -> Client {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let mut config = ClientConfig::new(endpoints);
    config.backoff = BackoffConfig { cap: Duration::from_millis(20), ..BackoffConfig::default() };
    change(&mut config);
    let handle = &pool.handles()[0];
    let (log, told) = unbounded();
    let slot = handle.service_slot(16);
    let client = TcpClient::start(handle, slot, config, move || {
        lines(log).on_open(|cx, id| cx.send(id, b"hello\n").unwrap())
    })
    .unwrap();
    Client { told: Told(told), client, _pool: pool }
}

fn name(host: &str, port: u16) -> Endpoint {
    format!("{host}:{port}").parse().unwrap()
}

#[test]
fn a_name_is_looked_up_and_the_address_that_answers_is_used() {
    // `localhost` may have an IPv6 address first, on which nobody listens here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(|_| {}, vec![name("localhost", listener.local_addr().unwrap().port())]);
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(BOUND)).unwrap();
    let mut got = [0; 6];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello\n");
    client.told.opened();
    // It comes back by the name, too.
    drop(peer);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"again\n").unwrap();
    assert_eq!(client.told.frame(), b"again");
    client.client.stop().unwrap();
}

#[test]
fn a_name_that_does_not_exist_is_an_error_and_tried_again() {
    // A label may not be longer than 63 bytes, so no resolver has to be asked.
    let host = "x".repeat(64);
    let client = client(|_| {}, vec![name(&host, 9)]);
    for _ in 0..3 {
        let event = client.told.next();
        let Event::ConnectFailed(_, ConnectError::Lookup { name, .. }, retry_in) = event else {
            panic!("{event:?}")
        };
        assert!(name == host && retry_in.is_some());
    }
}

#[test]
fn a_client_without_an_endpoint_says_so() {
    let client = client(|config| config.reconnect = false, Vec::new());
    assert!(matches!(client.told.next(), Event::ConnectFailed(_, ConnectError::NoAddress, None)));
}

#[test]
fn a_client_that_is_stopped_while_a_name_is_looked_up_stays_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    for _ in 0..20 {
        let client = client(|_| {}, vec![name("localhost", listener.local_addr().unwrap().port())]);
        client.client.stop().unwrap();
        // Whatever had begun has ended when the loop has: nothing is left that could open a connection.
        drop(client);
    }
}

#[test]
fn a_unix_socket_is_connected_to_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peer.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let endpoint = format!("unix:{}", path.display()).parse().unwrap();
    let client = client(|_| {}, vec![endpoint]);
    let (mut peer, _) = listener.accept().unwrap();
    let mut got = [0; 6];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello\n");
    peer.write_all(b"welcome\n").unwrap();
    assert_eq!(client.told.frame(), b"welcome");
}
