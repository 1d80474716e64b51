//! `ClientNet` against a bare listener in the server's place.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use reactor::rustls::crypto::ring;
use reactor::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use reactor::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::limits::RECONNECT_BASE;

const LONG: Duration = Duration::from_secs(20);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn next(net: &ClientNet) -> NetEvent {
    net.events().recv_timeout(LONG).expect("something happens")
}

fn read_line(stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn lines_go_both_ways_and_a_lost_connection_is_made_again() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address], None).unwrap();
    assert_eq!(next(&net), NetEvent::Connecting);
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(next(&net), NetEvent::Up(1));
    server.write_all(b"{\"type\":\"synced\"}\r\n\n").unwrap();
    assert_eq!(next(&net), NetEvent::Line(b"{\"type\":\"synced\"}".to_vec()));
    net.say(1, b"hello".to_vec());
    assert_eq!(read_line(&server), "hello\n");
    drop(server);
    assert!(matches!(next(&net), NetEvent::Down { retry_in: Some(wait), .. } if wait <= RECONNECT_BASE));
    assert_eq!(next(&net), NetEvent::Connecting);
    let (server, _) = listener.accept().unwrap();
    assert_eq!(next(&net), NetEvent::Up(2));
    net.say(1, b"for the old connection".to_vec());
    net.say(2, b"for the new one".to_vec());
    assert_eq!(read_line(&server), "for the new one\n");
}

#[test]
fn the_servers_word_on_when_to_come_back_is_kept() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address], None).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
    server
        .write_all(
            b"{\"type\":\"bye\",\"code\":\"shutdown\",\"message\":\"x\",\"reconnect_after_ms\":1234}\n",
        )
        .unwrap();
    drop(server);
    assert!(matches!(next(&net), NetEvent::Line(_)));
    let NetEvent::Down { retry_in, .. } = next(&net) else { panic!("no word of the close") };
    assert_eq!(retry_in, Some(Duration::from_millis(1234)));
}

#[test]
fn after_a_login_timeout_it_comes_back_when_it_is_needed() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address], None).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
    server.write_all(b"{\"type\":\"bye\",\"code\":\"login_timeout\",\"message\":\"x\"}\n").unwrap();
    drop(server);
    assert!(matches!(next(&net), NetEvent::Line(_)));
    assert!(matches!(next(&net), NetEvent::Down { retry_in: None, .. }));
    net.connect();
    assert_eq!(next(&net), NetEvent::Connecting);
    listener.accept().unwrap();
    assert_eq!(next(&net), NetEvent::Up(2));
}

#[test]
fn a_quiet_client_gives_signs_of_life_and_keeps_the_answers_to_itself() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address], None).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
    server.write_all(b"{\"type\":\"hello\",\"heartbeat_secs\":1}\n").unwrap();
    assert!(matches!(next(&net), NetEvent::Line(_)));
    assert_eq!(read_line(&server), "{\"type\":\"ping\",\"id\":0}\n");
    server.write_all(b"{\"type\":\"ok\",\"id\":0,\"time_ms\":1}\n{\"type\":\"synced\"}\n").unwrap();
    assert_eq!(next(&net), NetEvent::Line(b"{\"type\":\"synced\"}".to_vec()));
    // From here on the server says nothing: it is given up.
    assert!(matches!(next(&net), NetEvent::Down { why, .. } if why.contains("silent")));
}

#[test]
fn nobody_there_is_said_with_the_time_of_the_next_attempt() {
    let (listener, address) = listener();
    drop(listener);
    let net = ClientNet::start(vec![address], None).unwrap();
    assert_eq!(next(&net), NetEvent::Connecting);
    let NetEvent::Down { why, retry_in } = next(&net) else { panic!("it cannot be up") };
    assert!(why.to_lowercase().contains("refused"), "{why}");
    assert!(retry_in.is_some());
    assert_eq!(next(&net), NetEvent::Connecting, "and it tries again");
}

#[test]
fn a_flood_waits_in_the_socket_and_arrives_whole() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address], None).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let count = NET_EVENTS_MAX * 3;
    let writer = std::thread::spawn(move || {
        let lines: String = (0..count).map(|n| format!("{{\"type\":\"x\",\"n\":{n}}}\n")).collect();
        server.write_all(lines.as_bytes()).unwrap();
        server
    });
    assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
    for n in 0..count {
        let expected = format!("{{\"type\":\"x\",\"n\":{n}}}");
        assert_eq!(next(&net), NetEvent::Line(expected.into_bytes()));
    }
    drop(writer.join().unwrap());
}

/// A server's TLS for `localhost` and 127.0.0.1, and the certificate that signs itself, as PEM.
fn identity() -> (Arc<ServerConfig>, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

/// Trusts the authorities of this PEM.
fn trusting(host: &str, pem: &str) -> TlsClient {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    crate::tls::client(host, Some(&file)).unwrap()
}

#[test]
fn lines_go_both_ways_by_tls() {
    let (config, pem) = identity();
    for host in ["localhost:6000", "127.0.0.1:6000"] {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address], Some(trusting(host, &pem))).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut server = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket);
        server.write_all(b"{\"type\":\"synced\"}\n").unwrap();
        assert_eq!((next(&net), next(&net)), (NetEvent::Connecting, NetEvent::Up(1)));
        assert_eq!(next(&net), NetEvent::Line(b"{\"type\":\"synced\"}".to_vec()));
        net.say(1, b"hello".to_vec());
        let mut line = String::new();
        BufReader::new(&mut server).read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }
}

#[test]
fn a_server_that_proves_nothing_is_not_talked_to() {
    let (config, pem) = identity();
    let (_, strange) = identity();
    // Another authority, and another name.
    for tls in [trusting("localhost:6000", &strange), trusting("chat.example:6000", &pem)] {
        let (listener, address) = listener();
        let net = ClientNet::start(vec![address], Some(tls)).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut server = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket);
        let mut heard = String::new();
        assert!(BufReader::new(&mut server).read_line(&mut heard).is_err(), "it said {heard:?}");
        assert_eq!(next(&net), NetEvent::Connecting);
        let NetEvent::Down { why, .. } = next(&net) else { panic!("it cannot be up") };
        assert!(why.contains("certificate"), "{why}");
    }
}
