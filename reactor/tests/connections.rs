//! What a connection can do beyond reading and writing: half-close, links, groups, idle timeouts, least rates, its addresses and its counts.
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
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use reactor::codec::{LengthCodec, LinesCodec};
use reactor::{CloseReason, Group, IpNet, LoopConfig, SendError, ServiceConfig, TcpServer};
use support::{BOUND, Bench, Event, Script, Server, connect, finish, limits, lines, pattern, raw, until};

#[test]
fn after_a_half_close_the_peer_gets_all_and_is_still_heard() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log)
            .on_frame(|cx, id, line| {
                if line == b"finish" {
                    cx.send(id, &[b'x'; 100_000]).unwrap();
                    cx.shutdown_write(id);
                    cx.shutdown_write(id);
                    assert_eq!(cx.send(id, b"more"), Err(SendError::Closing));
                }
            })
            .on_eof(|_, _| {})
    });
    let mut client = server.connect();
    client.write_all(b"finish\n").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 100_000, "the end comes after all that was sent");
    client.write_all(b"and this\n").unwrap();
    assert_eq!(server.told.wait(|event| matches!(event, Event::Frame(_, line) if line == b"and this")), {
        let id = server.ask(|cx| cx.open_conns()[0]);
        Event::Frame(id, b"and this".to_vec())
    });
    finish(&client);
    assert_eq!(server.told.closed(), CloseReason::PeerClosed, "both directions have ended");
}

#[test]
fn a_half_close_of_a_connection_that_has_ended_its_side_closes_it() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_eof(|cx, id| {
            cx.send(id, b"bye").unwrap();
            cx.shutdown_write(id);
        })
    });
    let mut client = server.connect();
    finish(&client);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!((all.as_slice(), server.told.closed()), (b"bye".as_slice(), CloseReason::PeerClosed));
}

#[test]
fn a_source_is_read_only_as_fast_as_its_sink_takes() {
    const ALL: usize = 64 << 20;
    let server = Server::new(1, ServiceConfig::default(), |log| {
        // The first connection is the sink of all later ones.
        let mut sink = None;
        raw(log)
            .on_open(move |cx, id| match sink {
                None => sink = Some(id),
                Some(sink) => assert!(cx.link(id, sink)),
            })
            .on_frame(|cx, id, bytes| {
                let sink = cx.open_conns().into_iter().find(|other| *other != id).unwrap();
                cx.send(sink, bytes).unwrap();
            })
    });
    let (mut reader, sink) = server.connect_named();
    let mut writer = server.connect();
    writer.set_nonblocking(true).unwrap();
    let chunk = pattern(65_536);
    // Nobody reads: what can be written is bounded by the buffers of the kernel and the marks, not by the patience of the writer.
    let mut written = 0;
    let mut refused = 0;
    while refused < 200 && written < ALL {
        match writer.write(&chunk[written % chunk.len()..]) {
            Ok(count) => (written, refused) = (written + count, 0),
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert!(written < ALL, "the source was read without an end");
    let unsent = server.ask(move |cx| cx.unsent(sink));
    let config = ServiceConfig::default();
    assert!(unsent <= config.output_high + config.read_bytes_per_turn, "{unsent} bytes wait");
    finish(&writer);
    let mut got = vec![0; written];
    reader.read_exact(&mut got).unwrap();
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == chunk[at % chunk.len()]), "all came, in order");
}

#[test]
fn a_link_ends_with_its_sink_and_the_source_is_read_again() {
    let mut bench = Bench::new(limits(|c| c.output_high = 1_000), raw);
    let (sink_end, sink) = bench.connect_named();
    let (mut source_end, source) = bench.connect_named();
    bench.post(move |cx| {
        assert!(cx.link(source, sink));
        // More than any kernel buffer takes at once.
        cx.send(sink, &vec![0; 12 << 20]).unwrap();
    });
    bench.turn_for(|event| *event == Event::High(sink));
    source_end.write_all(b"waits").unwrap();
    for _ in 0..20 {
        bench.turn();
    }
    assert!(!bench.told.rest().iter().any(|event| matches!(event, Event::Frame(..))), "paused");
    support::reset(sink_end);
    assert_eq!(
        bench.turn_for(|event| matches!(event, Event::Frame(..))),
        Event::Frame(source, b"waits".to_vec())
    );
}

#[test]
fn a_group_reaches_its_members_on_all_loops_and_nobody_else() {
    let (log, told) = unbounded();
    let pool = reactor::EventLoopThreadPool::start(3, LoopConfig::default()).unwrap();
    let group = Group::new(pool.handles());
    let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), ServiceConfig::default()).unwrap();
    let address = server.local_addr();
    let members = group.clone();
    server
        .serve(&pool, move |_| {
            let group = members.clone();
            lines(log.clone()).on_frame(move |cx, id, line| match line {
                b"join" => {
                    assert!(cx.join(id, &group) && !cx.join(id, &group), "once is enough");
                    cx.send(id, b"ok\n").unwrap();
                }
                b"leave" => {
                    cx.leave(id, &group);
                    cx.leave(id, &group);
                    cx.send(id, b"ok\n").unwrap();
                }
                text => group.send(&Bytes::copy_from_slice(&[text, b"\n"].concat())).unwrap(),
            })
        })
        .unwrap();
    let say = |client: &mut TcpStream, text: &str| client.write_all(text.as_bytes()).unwrap();
    let hear = |client: &mut TcpStream, text: &str| {
        let mut got = vec![0; text.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), text);
    };
    let mut clients: Vec<_> = (0..7).map(|_| connect(address)).collect();
    for client in &mut clients[..6] {
        say(client, "join\n");
        hear(client, "ok\n");
    }
    assert_eq!(group.len(), 6);
    say(&mut clients[0], "leave\n");
    hear(&mut clients[0], "ok\n");
    drop(clients.remove(1));
    until("who closed is no member", || group.len() == 4);
    say(&mut clients[5], "one\ntwo\n");
    for client in &mut clients[1..5] {
        hear(client, "one\ntwo\n");
    }
    // Who is no member hears nothing of it: the next that it hears is its own.
    for at in [0, 5] {
        say(&mut clients[at], "join\n");
        hear(&mut clients[at], "ok\n");
    }
    drop(clients);
    until("all have left", || group.is_empty());
    drop(told);
}

#[test]
fn who_is_silent_for_too_long_is_closed_and_who_speaks_is_not() {
    let server = Server::new(1, limits(|c| c.idle = Some(Duration::from_millis(300))), |log| {
        lines(log).on_frame(|cx, id, line| cx.send(id, line).unwrap())
    });
    let (mut chatting, chatting_id) = server.connect_named();
    let (silent, silent_id) = server.connect_named();
    let closed = loop {
        chatting.write_all(b"x\n").unwrap();
        chatting.read_exact(&mut [0]).unwrap();
        if let Some(closed) = server.told.rest().into_iter().find(|event| matches!(event, Event::Closed(..)))
        {
            break closed;
        }
    };
    assert_eq!(closed, Event::Closed(silent_id, CloseReason::Idle));
    assert!(server.ask(move |cx| cx.is_open(chatting_id)));
    drop(silent);
}

#[test]
fn reading_and_writing_are_watched_each_for_itself() {
    // The peer reads what a timer sends but never speaks; or speaks and never gets an answer.
    for by_read in [true, false] {
        let limit = Some(Duration::from_millis(200));
        let config = limits(|c| if by_read { c.idle_read = limit } else { c.idle_write = limit });
        let server = Server::new(1, config, move |log| {
            lines(log)
                .on_open(move |cx, id| {
                    if by_read {
                        cx.set_conn_timer(id, Duration::from_millis(20), 0);
                    }
                })
                .on_timer(|cx, fired| {
                    let id = fired.conn.unwrap();
                    cx.send(id, b"tick\n").unwrap();
                    cx.set_conn_timer(id, Duration::from_millis(20), 0);
                })
        });
        let mut client = server.connect();
        let reason = loop {
            if !by_read && client.write_all(b"x\n").is_err() {
                break server.told.closed();
            }
            std::thread::sleep(Duration::from_millis(5));
            let closed = server.told.rest().into_iter().find_map(|event| match event {
                Event::Closed(_, reason) => Some(reason),
                _ => None,
            });
            if let Some(reason) = closed {
                break reason;
            }
        };
        assert_eq!(reason, CloseReason::Idle, "by_read: {by_read}");
    }
}

#[test]
fn a_frame_that_trickles_is_ended_early_and_a_large_one_that_flows_is_not() {
    let config = limits(|c| c.frame_rate_min = Some(10_000));
    let server = Server::new(1, config, |log| Script::new(log, || LengthCodec::u32(64 << 20)));
    let mut trickling = server.connect();
    trickling.write_all(&1_000_000_u32.to_be_bytes()).unwrap();
    let mut flowing = server.connect();
    let frame = pattern(32 << 20);
    flowing.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
    for part in frame.chunks(1 << 20) {
        flowing.write_all(part).unwrap();
        trickling.write_all(b"x").ok();
    }
    // On a busy machine the slow one ends before the large frame has come.
    let (mut came, mut ended) = (None, None);
    server.told.wait(|event| {
        match event {
            Event::Frame(_, frame) => came = Some(frame.clone()),
            Event::Closed(_, reason) => ended = Some(*reason),
            _ => {}
        }
        came.is_some() && ended.is_some()
    });
    assert!(came == Some(frame), "all of the large frame, read into its own buffer");
    assert_eq!(ended, Some(CloseReason::FrameTooSlow));
}

#[test]
fn large_and_small_sends_arrive_in_the_order_in_which_they_were_made() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, _| {
            let all = pattern(1 << 20);
            let (mut at, mut size) = (0, 1);
            while at < all.len() {
                let piece = &all[at..all.len().min(at + size)];
                if size % 3 == 0 {
                    cx.send_bytes(id, Bytes::copy_from_slice(piece)).unwrap();
                } else {
                    cx.send(id, piece).unwrap();
                }
                at += piece.len();
                size = size * 5 % 40_009 + 1;
            }
        })
    });
    let mut client = server.connect();
    client.write_all(b"go\n").unwrap();
    let mut got = vec![0; 1 << 20];
    client.read_exact(&mut got).unwrap();
    assert!(got == pattern(1 << 20));
}

#[test]
fn a_connection_knows_its_addresses_and_what_it_has_moved() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, line| cx.send(id, line).unwrap())
    });
    let (mut client, id) = server.connect_named();
    client.write_all(b"four\nfive!\n").unwrap();
    client.read_exact(&mut [0; 9]).unwrap();
    let (peer, local, again, stats) = server.ask(move |cx| {
        let local = cx.local_address(id).unwrap();
        (cx.peer(id).unwrap().clone(), local, cx.local_address(id).unwrap(), cx.conn_stats(id).unwrap())
    });
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(local, client.peer_addr().unwrap());
    assert_eq!(local, again);
    assert_eq!((stats.bytes_in, stats.bytes_out, stats.frames_in, stats.unsent), (11, 9, 2, 0));
}

#[test]
fn behind_a_proxy_the_peer_is_whom_the_header_names() {
    let from: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    let header = format!("PROXY TCP4 {} 192.0.2.1 {} 80\r\n", from.ip(), from.port());
    let proxies: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
    let config = limits(|c| {
        c.proxies = proxies.clone();
        c.connections_per_address_max = 1;
    });
    let server = Server::new(1, config, lines);
    let mut client = server.connect();
    // One byte at a time, and the first line right behind it.
    for byte in header.as_bytes() {
        client.write_all(&[*byte]).unwrap();
    }
    client.write_all(b"hello\n").unwrap();
    let id = server.told.opened();
    assert_eq!(server.told.frame(), b"hello");
    assert_eq!(server.ask(move |cx| cx.peer(id).unwrap().clone()), from);
    // The limit per address is the client's, not the proxy's.
    let mut second = server.connect();
    second.write_all(header.as_bytes()).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
    let mut other = server.connect();
    other.write_all(header.replace(".7 ", ".8 ").as_bytes()).unwrap();
    server.told.opened();
    // A proxy without a header, and one that never ends it, open nothing.
    let opened = server.stats().opened;
    let mut bare = server.connect();
    bare.write_all(b"hello\n").unwrap();
    assert_eq!(bare.read(&mut [0]).unwrap_or(0), 0);
    until("all three are counted", || server.stats().bad_prefaces == 2 && server.stats().opened == opened);
}

#[test]
fn from_somebody_who_is_no_proxy_a_header_is_data() {
    let config = limits(|c| c.proxies = vec!["192.0.2.0/24".parse().unwrap()]);
    let server = Server::new(1, config, lines);
    let mut client = server.connect();
    client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert_eq!(server.told.frame(), b"PROXY UNKNOWN");
}

#[test]
fn a_preface_that_does_not_come_is_not_waited_for() {
    let config = limits(|c| {
        c.proxies = vec!["127.0.0.0/8".parse().unwrap()];
        c.preface_timeout = Duration::from_millis(50);
    });
    let server = Server::new(1, config, lines);
    let mut client = server.connect();
    client.write_all(b"PROXY TC").unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    until("it is counted", || server.stats().bad_prefaces == 1);
    assert!(server.told.rest().is_empty(), "the handler never heard of it");
}

#[test]
fn a_callback_that_holds_the_loop_is_counted() {
    let server: Server<LinesCodec> = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_frame(|_, _, _| std::thread::sleep(Duration::from_millis(40)))
    });
    let mut client = server.connect();
    client.write_all(b"x\n").unwrap();
    until("it is counted", || server.stats().slow_callbacks == 1);
    assert!(server.stats().lag_max_micros >= 40_000);
    assert!(server.stats().lag(1.0) >= Duration::from_millis(40));
}
