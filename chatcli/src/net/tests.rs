//! `ClientNet` against a bare listener in the server's place.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

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
    let net = ClientNet::start(vec![address]).unwrap();
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
    let net = ClientNet::start(vec![address]).unwrap();
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
    let net = ClientNet::start(vec![address]).unwrap();
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
    let net = ClientNet::start(vec![address]).unwrap();
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
    let net = ClientNet::start(vec![address]).unwrap();
    assert_eq!(next(&net), NetEvent::Connecting);
    let NetEvent::Down { why, retry_in } = next(&net) else { panic!("it cannot be up") };
    assert!(why.to_lowercase().contains("refused"), "{why}");
    assert!(retry_in.is_some());
    assert_eq!(next(&net), NetEvent::Connecting, "and it tries again");
}

#[test]
fn a_flood_waits_in_the_socket_and_arrives_whole() {
    let (listener, address) = listener();
    let net = ClientNet::start(vec![address]).unwrap();
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
