//! TLS on real sockets: our server against the blocking client of `rustls`, our client against our server. What they break: certificates, the first bytes, the
//! end, the order, the receiver's patience.
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
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use reactor::codec::{LengthCodec, LinesCodec, RawCodec};
use reactor::rustls::crypto::ring;
use reactor::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use reactor::rustls::{self, ClientConnection, RootCertStore, StreamOwned};
use reactor::{
    ClientConfig, CloseReason, ConnectError, EventLoopThreadPool, LoopConfig, ServiceConfig, TcpClient,
    TlsClient,
};
use support::{BOUND, Event, Script, Server, Told, limits, lines, raw, reset, until};

/// A certificate for `localhost` that signs itself, and who trusts it.
struct Identity {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"chat/1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"chat/1".to_vec()];
    Identity { server: Arc::new(server), client: Arc::new(client) }
}

/// The server's limits, with its certificate.
fn secured(identity: &Identity, change: impl FnOnce(&mut ServiceConfig)) -> ServiceConfig {
    limits(|config| {
        config.tls_server = Some(Arc::clone(&identity.server));
        change(config);
    })
}

type Blocking = StreamOwned<ClientConnection, TcpStream>;

/// `rustls` on a blocking socket.
fn session(identity: &Identity, socket: TcpStream) -> Blocking {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(&identity.client), name).unwrap(), socket)
}

fn echo(log: Sender<Event>) -> Script<RawCodec> {
    raw(log).on_frame(|cx, id, bytes| cx.send(id, bytes).unwrap())
}

/// Our client of a server, on a loop of its own.
fn client_of(
    server: std::net::SocketAddr,
    tls: &TlsClient,
    change: impl FnOnce(&mut ClientConfig),
) -> (EventLoopThreadPool, Told, reactor::ServiceHandle<support::Job<LinesCodec>>) {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let (log, told) = unbounded();
    let mut config = ClientConfig::new([server]);
    config.service.tls_client = Some(tls.clone());
    change(&mut config);
    let handle = &pool.handles()[0];
    let slot = handle.service_slot(16);
    let service = slot.handle();
    TcpClient::start(handle, slot, config, move || lines(log)).unwrap();
    (pool, Told(told), service)
}

#[test]
fn what_is_sent_comes_back_and_the_session_tells_what_was_agreed() {
    let identity = identity();
    let server = Server::new(1, secured(&identity, |_| {}), echo);
    let mut client = session(&identity, server.connect());
    for size in [1, 100, 16_384, 16_385, 1 << 20] {
        let sent: Vec<u8> = (0..size).map(|at: usize| (at * 7 + size) as u8).collect();
        let mut back = vec![0; size];
        // In turns: a blocking client that only writes would be paused for what it does not read.
        for (chunk, room) in sent.chunks(32_000).zip(back.chunks_mut(32_000)) {
            client.write_all(chunk).unwrap();
            client.read_exact(room).unwrap();
        }
        assert!(sent == back, "{size} bytes came back changed");
    }
    let info = server.ask(|cx| cx.tls(cx.open_conns()[0])).unwrap();
    assert_eq!(info.server_name.as_deref(), Some("localhost"));
    assert_eq!(info.alpn.as_deref(), Some(&b"chat/1"[..]));
    assert_eq!(info.version, Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn a_client_that_takes_its_time_gets_every_byte_in_order() {
    const SIZE: usize = 24 << 20;
    let identity = identity();
    let config = secured(&identity, |c| c.output_max = 2 * SIZE);
    let server = Server::new(1, config, |log| {
        raw(log).on_frame(|cx, id, _| {
            // Pieces of all sizes: copied, by reference, more than a record.
            let mut at = 0;
            for size in [10, 600, 5_000, 20_000, 100_000].iter().cycle() {
                let piece: Vec<u8> = (at..(at + size).min(SIZE)).map(|at| (at / 251) as u8).collect();
                at += piece.len();
                cx.send_bytes(id, piece.into()).unwrap();
                if at == SIZE {
                    break;
                }
            }
            cx.close(id, CloseReason::Local("all sent"));
        })
    });
    let mut client = session(&identity, server.connect());
    client.write_all(b"go").unwrap();
    assert_eq!(server.told.closed(), CloseReason::Local("all sent"), "closed while nothing was read yet");
    let mut got = Vec::with_capacity(SIZE);
    client.read_to_end(&mut got).expect("ends with the notice that it ends");
    assert_eq!(got.len(), SIZE);
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == (at / 251) as u8), "out of order");
}

#[test]
fn our_client_talks_to_our_server_and_frames_arrive_whole() {
    let identity = identity();
    let server = Server::new(2, secured(&identity, |_| {}), |log| {
        lines(log).on_frame(|cx, id, line| cx.send_frame(id, line).unwrap())
    });
    let tls = TlsClient::new(Arc::clone(&identity.client), "localhost").unwrap();
    let (_pool, told, service) = client_of(server.address, &tls, |_| {});
    let id = told.opened();
    let long = "x".repeat(300_000);
    for line in ["hello", "", "a line of its own", &long] {
        let line = line.to_owned();
        let sent = line.clone();
        service
            .post(Box::new(move |cx| cx.send_frame(id, sent.as_bytes()).unwrap()))
            .map_err(|(e, _)| e)
            .unwrap();
        assert_eq!(told.frame(), line.as_bytes());
    }
}

#[test]
fn a_server_that_is_not_trusted_is_told_of_and_tried_again() {
    let (known, other) = (identity(), identity());
    let server = Server::new(1, secured(&other, |_| {}), echo);
    let tls = TlsClient::new(Arc::clone(&known.client), "localhost").unwrap();
    let (_pool, told, _) = client_of(server.address, &tls, |_| {});
    for _ in 0..2 {
        let failed = told.wait(|event| matches!(event, Event::ConnectFailed(..)));
        let Event::ConnectFailed(_, error, retry_in) = failed else { unreachable!() };
        assert!(
            matches!(&error, ConnectError::Tls { message } if message.contains("certificate")),
            "{error}"
        );
        assert!(retry_in.is_some());
    }
    until("the server has counted them", || server.stats().bad_prefaces >= 2);
    assert_eq!(server.told.rest(), [], "the handler never heard of them");
}

#[test]
fn a_server_that_speaks_no_tls_fails_the_attempt() {
    let identity = identity();
    let server = Server::new(1, limits(|_| {}), |log| {
        raw(log).on_frame(|cx, id, _| cx.send(id, b"HTTP/1.0 400 what do you mean?\r\n\r\n").unwrap())
    });
    let tls = TlsClient::new(Arc::clone(&identity.client), "localhost").unwrap();
    let (_pool, told, _) = client_of(server.address, &tls, |_| {});
    let failed = told.wait(|event| matches!(event, Event::ConnectFailed(..)));
    assert!(matches!(failed, Event::ConnectFailed(_, ConnectError::Tls { .. }, Some(_))), "{failed:?}");
}

#[test]
fn a_server_that_says_nothing_fails_the_attempt_in_time() {
    let identity = identity();
    let server = Server::new(1, limits(|_| {}), raw);
    let tls = TlsClient::new(Arc::clone(&identity.client), "localhost").unwrap();
    let (_pool, told, _) = client_of(server.address, &tls, |config| {
        config.service.connect_timeout = Duration::from_millis(200);
    });
    let failed = told.wait(|event| matches!(event, Event::ConnectFailed(..)));
    assert!(matches!(failed, Event::ConnectFailed(_, ConnectError::Timeout, Some(_))), "{failed:?}");
}

#[test]
fn garbage_and_silence_instead_of_a_handshake_reach_no_handler() {
    let identity = identity();
    let server = Server::new(1, secured(&identity, |c| c.preface_timeout = Duration::from_millis(200)), echo);
    let mut plain = server.connect();
    plain.write_all(b"{\"type\":\"hello\"}\n").unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert says what is wrong");
    let mut silent = server.connect();
    let _ = silent.read(&mut [0]);
    let mut half = server.connect();
    half.write_all(&[22, 3, 1]).unwrap();
    let _ = half.read(&mut [0]);
    reset(server.connect());
    until("all are counted", || server.stats().bad_prefaces == 4);
    assert_eq!(server.told.rest(), []);
    let mut good = session(&identity, server.connect());
    good.write_all(b"still there?").unwrap();
    good.read_exact(&mut [0; 12]).unwrap();
}

#[test]
fn a_stream_that_is_cut_is_not_taken_for_one_that_ended() {
    let identity = identity();
    let server = Server::new(1, secured(&identity, |_| {}), echo);
    let mut cut = session(&identity, server.connect());
    cut.write_all(b"x").unwrap();
    cut.read_exact(&mut [0]).unwrap();
    cut.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.told.closed(), CloseReason::Tls);
    let mut ended = session(&identity, server.connect());
    ended.write_all(b"x").unwrap();
    ended.conn.send_close_notify();
    ended.flush().unwrap();
    assert_eq!(server.told.closed(), CloseReason::PeerClosed);
    let mut rest = Vec::new();
    ended.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"x", "what was sent before the end is answered");
}

#[test]
fn a_handshake_comes_after_the_proxys_header_even_in_one_packet() {
    let identity = identity();
    let config = secured(&identity, |c| c.proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    let server = Server::new(1, config, |log| {
        raw(log).on_frame(|cx, id, _| {
            let peer = cx.peer(id).unwrap().to_string();
            cx.send(id, peer.as_bytes()).unwrap();
        })
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::clone(&identity.client), name).unwrap();
    let mut first = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n".to_vec();
    connection.write_tls(&mut first).unwrap();
    let mut socket = server.connect();
    socket.write_all(&first).unwrap();
    let mut client = StreamOwned::new(connection, socket);
    client.write_all(b"who am I?").unwrap();
    let mut answer = [0; 14];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"192.0.2.7:5555");
}

#[test]
fn a_storm_of_handshakes_is_served_a_few_per_turn_and_all_get_through() {
    let identity = identity();
    let mut loop_config = LoopConfig::default();
    loop_config.handshakes_per_turn = 1;
    let server = Server::with_loops(1, loop_config, secured(&identity, |_| {}), echo);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let mut client = session(&identity, server.connect());
                client.write_all(b"one of many").unwrap();
                client.read_exact(&mut [0; 11]).unwrap();
            });
        }
    });
    // Told at the end of the turn that the last of them was served in.
    until("all have opened", || server.stats().opened == 40);
}

#[test]
fn a_frame_may_come_with_the_end_of_the_handshake_and_byte_by_byte() {
    let identity = identity();
    let server = Server::new(1, secured(&identity, |_| {}), |log| {
        Script::new(log, || LengthCodec::u16(1000))
            .on_frame(|cx, id, frame| cx.send_frame(id, frame).unwrap())
    });
    // All the client's bytes in the smallest pieces that a network can make of them.
    let mut client = session(&identity, server.connect());
    client.conn.complete_io(&mut client.sock).unwrap();
    client.conn.writer().write_all(&[0, 3, b'a', b'b', b'c', 0, 0]).unwrap();
    let mut bytes = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut bytes).unwrap();
    }
    for byte in bytes {
        client.sock.write_all(&[byte]).unwrap();
    }
    let mut back = [0; 7];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, [0, 3, b'a', b'b', b'c', 0, 0]);
}

#[test]
fn stopping_ends_sessions_with_a_notice() {
    let identity = identity();
    let server = Server::new(1, secured(&identity, |_| {}), echo);
    let mut client = session(&identity, server.connect());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    server.pool.handles()[0].stop_within(Some(BOUND));
    match client.read(&mut [0]) {
        Ok(0) => {}
        other => panic!("{other:?}"),
    }
    // The loop waits for our end.
    drop(client);
    assert_eq!(server.told.closed(), CloseReason::LoopStopping);
}
