//! Lives: of connections and their names, of posts, of loops and their threads.
//!
//! 8. An event of this batch does not reach a connection that was closed in it. (That a stale event does not reach the slot's next tenant
//!    is shown inside the crate.)
//! 9. Old names reach nobody: not the next tenant of their slot, not another loop's or service's connection of the same number. Counted.
//! 10. One `on_close` for each `on_open`, with the first reason, however a connection is closed: from any callback, twice, by a failed send.
//! 11. What `on_close` sends and closes is done although the turn's flush is over: the loop does not sleep on it.
//! 12. What a stopping loop accepted runs, what it does not accept comes back; a stop is never lost.
//! 13. A loop's thread cannot wait for itself: it is told so. Threads end with their pool.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use reactor::codec::LinesCodec;
use reactor::{
    ClientConfig, CloseReason, ConnId, EventLoop, EventLoopThreadPool, FrameHandler, JoinError, LoopConfig,
    PostError, SendError, ServiceConfig, TcpClient, TcpServer,
};
use support::{BOUND, Bench, Event, Job, Script, Server, finish, limits, lines, reset, until};

const WHY: CloseReason = CloseReason::Local("the test says so");

#[test]
fn an_event_of_this_batch_does_not_reach_a_connection_closed_in_it() {
    let (tell, told) = unbounded::<Vec<ConnId>>();
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        let mut both: Vec<ConnId> = Vec::new();
        lines(log).on_frame(move |cx, id, _| {
            both.extend(told.try_iter().flatten());
            for other in both.iter().filter(|other| **other != id) {
                cx.abort(*other, WHY);
            }
        })
    });
    let (mut first, first_id) = bench.connect_named();
    let (mut second, second_id) = bench.connect_named();
    tell.send(vec![first_id, second_id]).unwrap();
    first.write_all(b"I close the other\n").unwrap();
    second.write_all(b"I close the other\n").unwrap();
    bench.turn_for(|event| matches!(event, Event::Frame(..)));
    let rest = bench.told.rest();
    let frames = rest.iter().filter(|event| matches!(event, Event::Frame(..))).count();
    assert_eq!(frames, 0, "the other's line was in the same batch: {rest:?}");
    assert!(rest.iter().any(|event| matches!(event, Event::Closed(_, WHY))));
    assert_eq!(bench.event_loop.connections(), 1);
}

#[test]
fn old_names_do_not_reach_new_tenants() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (old_client, old) = bench.connect_named();
    let handle = bench.event_loop.handle();
    let old_handle = handle.conn(old);
    bench.post(move |cx| cx.abort(old, WHY));
    bench.turn_until("the slot is free", |bench| bench.event_loop.connections() == 0);
    drop(old_client);
    let (mut new_client, new) = bench.connect_named();
    let slot = |id: ConnId| id.to_string().split('.').nth(2).unwrap().to_owned();
    assert_eq!(slot(old), slot(new), "or this shows nothing");
    assert_ne!(old, new);

    let before = bench.stats().stale_sends;
    bench.post(move |cx| {
        assert_eq!(cx.send(old, b"secret"), Err(SendError::Gone));
        assert_eq!(cx.send_bytes(old, Bytes::from_static(b"secret")), Err(SendError::Gone));
        assert_eq!(cx.send_frame(old, b"secret"), Err(SendError::Gone));
        assert!(cx.conn(old).is_none() && cx.codec_mut(old).is_none() && cx.peer(old).is_none());
        assert!(!cx.is_open(old) && cx.unsent(old) == 0);
        cx.close(old, WHY);
        cx.abort(old, WHY);
        cx.pause(old, reactor::PauseReason::user(0));
        cx.set_conn_timer(old, Duration::ZERO, 13);
    });
    old_handle.send(Bytes::from_static(b"secret")).unwrap();
    old_handle.close("an old name").unwrap();
    bench.turn();
    assert_eq!(bench.stats().stale_sends - before, 4);
    assert_eq!(bench.stats().panics, 0);

    bench.post(move |cx| cx.send(new, b"for you\n").unwrap());
    bench.turn();
    let mut got = [0; 8];
    new_client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"for you\n");
    new_client.write_all(b"still here\n").unwrap();
    assert_eq!(bench.turn_for(|_| true), Event::Frame(new, b"still here".to_vec()));
}

#[test]
fn names_of_other_loops_and_services_reach_nobody_here() {
    let server = Server::new(2, ServiceConfig::default(), lines);
    let mut clients: Vec<_> = (0..2).map(|_| server.connect_named()).collect();
    clients.sort_by_key(|(_, id)| id.loop_index());
    let (here, there) = (clients[0].1, clients[1].1);
    assert_eq!((here.loop_index(), there.loop_index()), (0, 1));
    let (owner, token) = here.to_parts();
    assert_eq!(there.to_parts().1, token, "or this shows nothing");
    let other_service = ConnId::from_parts(owner + 1, token);
    for name in [there, other_service] {
        let sent = server.ask(move |cx| {
            cx.abort(name, WHY);
            cx.set_conn_timer(name, Duration::ZERO, 13);
            cx.send(name, b"secret\n")
        });
        assert_eq!(sent, Err(SendError::Gone));
        server.pool.handles()[0].conn(name).send(Bytes::from_static(b"secret\n")).unwrap();
        server.pool.handles()[0].conn(name).close("a foreign name").unwrap();
    }
    // A handle of the right loop reaches it.
    for (_, id) in &clients {
        let handle = &server.pool.handles()[usize::from(id.loop_index())];
        handle.conn(*id).send(Bytes::from_static(b"hello\n")).unwrap();
    }
    for (client, _) in &mut clients {
        let mut got = [0; 6];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello\n");
    }
    until("both stale sends of each name are counted", || server.stats().stale_sends == 4);
    assert!(server.ask(move |cx| cx.is_open(here)));
    assert!(!server.told.rest().iter().any(|event| matches!(event, Event::Timer(_))));
}

/// All that was told of one connection's life, up to its slot's end.
fn life(bench: &mut Bench<LinesCodec>) -> Vec<Event> {
    let mut events = Vec::new();
    bench.turn_until("the connection is gone", |bench| {
        events.extend(bench.told.rest());
        bench.event_loop.connections() == 0 && events.iter().any(|event| matches!(event, Event::Closed(..)))
    });
    bench.turn();
    events.extend(bench.told.rest());
    events.retain(|event| matches!(event, Event::Opened(_) | Event::Closed(..)));
    events
}

#[test]
fn every_open_has_one_close_with_the_first_reason() {
    const FIRST: CloseReason = CloseReason::Local("first");
    type Change = fn(Script<LinesCodec>) -> Script<LinesCodec>;
    let ways: [(&str, CloseReason, Change); 9] = [
        ("in on_open", FIRST, |s| s.on_open(|cx, id| cx.close(id, FIRST))),
        ("in on_open, with a reset", FIRST, |s| s.on_open(|cx, id| cx.abort(id, FIRST))),
        ("in on_frame", FIRST, |s| s.on_frame(|cx, id, _| cx.close(id, FIRST))),
        ("twice", FIRST, |s| {
            s.on_frame(|cx, id, _| {
                cx.close(id, FIRST);
                cx.close(id, WHY);
                cx.abort(id, WHY);
                cx.abort(id, WHY);
            })
        }),
        ("again in on_close", FIRST, |s| {
            s.on_frame(|cx, id, _| cx.close(id, FIRST)).on_close(|cx, id, _| {
                cx.close(id, WHY);
                cx.abort(id, WHY);
                assert_eq!(cx.send(id, b"x"), Err(SendError::Closing));
            })
        }),
        ("at the end of input, twice", CloseReason::PeerClosed, |s| {
            s.on_eof(|cx, id| {
                cx.close(id, CloseReason::PeerClosed);
                cx.close(id, WHY);
            })
        }),
        ("in a timer", FIRST, |s| {
            s.on_open(|cx, id| {
                cx.set_conn_timer(id, Duration::ZERO, 0);
            })
            .on_timer(|cx, fired| cx.close(fired.conn.unwrap(), FIRST))
            .on_eof(|_, _| {})
        }),
        ("by a send that failed", CloseReason::OutputLimit, |s| {
            s.on_frame(|cx, id, _| {
                assert_eq!(cx.send(id, &[0; 2000]), Err(SendError::OutputLimit));
                assert_eq!(cx.send(id, b"x"), Err(SendError::Closing));
                cx.close(id, WHY);
            })
        }),
        ("by a bad frame", CloseReason::BadFrame, |s| {
            s.on_frame(|cx, id, _| cx.codec_mut(id).unwrap().set_max(1))
        }),
    ];
    for (way, reason, change) in ways {
        let config = limits(|c| c.output_max = 1000);
        let mut bench = Bench::new(config, |log| change(lines(log)));
        let mut client = support::connect(bench.address);
        // The peer is gone before it is served; whichever comes first is the reason.
        client.write_all(b"hello\nand more\n").unwrap();
        finish(&client);
        let events = life(&mut bench);
        let [Event::Opened(opened), Event::Closed(closed, why)] = events[..] else {
            panic!("{way}: {events:?}")
        };
        assert_eq!((opened, why), (closed, reason), "{way}");
        assert_eq!(bench.stats().panics, 0, "{way}");
        assert_eq!((bench.stats().opened, bench.stats().closed), (1, 1), "{way}");
        assert_eq!(bench.stats().closes[reason.index()], 1, "{way}");
        assert_eq!(bench.running.connections(), 0, "{way}");
    }
}

#[test]
fn a_reset_that_meets_a_close_of_ours_closes_once() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, _| {
            cx.send(id, b"bye\n").unwrap();
            cx.close(id, WHY);
        })
    });
    for _ in 0..20 {
        let (mut client, _) = bench.connect_named();
        client.write_all(b"hello\n").unwrap();
        reset(client);
        let events = life(&mut bench);
        assert!(matches!(events[..], [Event::Closed(..)]), "{events:?}");
    }
    assert_eq!(bench.stats().opened, bench.stats().closed);
}

#[test]
fn a_close_delivers_what_was_sent_before_and_a_reset_does_not_wait() {
    let mut bench = Bench::new(ServiceConfig::default(), |log| {
        lines(log).on_frame(|cx, id, frame| {
            cx.send(id, b"the last word\n").unwrap();
            if frame == b"close" { cx.close(id, WHY) } else { cx.abort(id, WHY) }
        })
    });
    let (mut client, _) = bench.connect_named();
    client.write_all(b"close\n").unwrap();
    bench.turn_for(|event| matches!(event, Event::Closed(..)));
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "the last word\n");

    let (mut client, _) = bench.connect_named();
    client.write_all(b"abort\n").unwrap();
    bench.turn_for(|event| matches!(event, Event::Closed(..)));
    let error = client.read_to_string(&mut got).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_on_close_sends_and_closes_is_done_without_another_event() {
    let server = Server::new(1, ServiceConfig::default(), |log| {
        lines(log).on_close(|cx, id, reason| {
            if reason == CloseReason::PeerClosed {
                // Names in the order of their slots: the first hears of it, the second goes too.
                let mut others = cx.open_conns();
                others.retain(|other| *other != id);
                cx.send(others[0], b"one has left\n").unwrap();
                cx.close(others[1], WHY);
            }
        })
    });
    let mut clients: Vec<_> = (0..3).map(|_| server.connect_named()).collect();
    clients.sort_by_key(|(_, id)| *id);
    finish(&clients[2].0);
    let mut got = [0; 13];
    clients[0].0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one has left\n");
    assert_eq!(clients[1].0.read(&mut got).unwrap(), 0, "the second is closed");
    assert_eq!(server.told.closed(), CloseReason::PeerClosed);
    assert_eq!(server.told.closed(), WHY);
    assert!(server.ask(|cx| cx.open_conns().len()) == 1);
}

#[test]
fn what_a_stopping_loop_accepts_runs_and_the_rest_comes_back() {
    for round in 0..20_u64 {
        let mut pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
        let handle = pool.handles()[0].clone();
        let (log, _told) = unbounded();
        let slot = handle.service_slot::<Job<LinesCodec>>(64);
        let service = slot.handle();
        let (tell, told) = unbounded();
        handle
            .post(move |event_loop| {
                let added = event_loop.add_service(slot, ServiceConfig::default(), lines(log));
                tell.send(added).unwrap();
            })
            .unwrap();
        told.recv_timeout(BOUND).unwrap().unwrap();

        let (ran, accepted) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (ran, accepted, handle, service) = (&ran, &accepted, handle.clone(), service.clone());
                scope.spawn(move || {
                    loop {
                        let count = Arc::clone(ran);
                        let posted = if worker % 2 == 0 {
                            handle.post(move |_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            })
                        } else {
                            let job: Job<LinesCodec> = Box::new(move |_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                            service.post(job).map_err(|(error, _job_is_back)| error)
                        };
                        match posted {
                            Ok(()) => {
                                accepted.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(PostError::Stopped) => break,
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                });
            }
            // At another moment in each round.
            until("the posts go", || accepted.load(Ordering::Relaxed) > round * 50);
            handle.stop();
        });
        pool.join().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed));
    }
}

#[test]
fn posts_to_a_loop_that_never_ran_run_when_it_is_dropped() {
    let event_loop = EventLoop::new(LoopConfig::default()).unwrap();
    let handle = event_loop.handle();
    let ran = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ran);
    handle.post(move |_| flag.store(true, Ordering::Relaxed)).unwrap();
    drop(event_loop);
    assert!(ran.load(Ordering::Relaxed));
    assert_eq!(handle.post(|_| ()), Err(PostError::Stopped));
}

#[test]
fn a_stop_before_the_start_is_remembered() {
    let mut event_loop = EventLoop::new(LoopConfig::default()).unwrap();
    event_loop.handle().stop();
    event_loop.run().unwrap();
}

#[test]
fn a_stop_into_a_full_queue_is_not_lost() {
    let mut config = LoopConfig::default();
    config.tasks_max = 2;
    let mut event_loop = EventLoop::new(config).unwrap();
    let handle = event_loop.handle();
    // On the loop's own thread, which cannot wait for room; before the loop runs, when nobody makes any.
    while handle.post(|_| ()).is_ok() {}
    handle.stop();
    event_loop.run().unwrap();
}

#[test]
fn what_was_posted_before_a_stop_comes_before_it() {
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let (mut client, id) = bench.connect_named();
    bench.event_loop.handle().conn(id).send(Bytes::from_static(b"one ")).unwrap();
    bench.post(move |cx| cx.send(id, b"two").unwrap());
    bench.event_loop.handle().stop();
    bench.turn();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got.len(), "one two".len(), "{got}");
    drop(client);
    bench.event_loop.run().unwrap();
    assert_eq!(bench.told.closed(), CloseReason::LoopStopping);
    assert_eq!(bench.stats().panics, 0);
}

#[test]
fn a_stop_delivers_what_connections_hold_and_ends_by_its_deadline() {
    let server = Server::new(1, limits(|c| c.linger = BOUND), lines);
    let (mut reader, reader_id) = server.connect_named();
    let (_silent, _) = server.connect_named();
    let sent = support::pattern(2 << 20);
    let reply = sent.clone();
    server.ask(move |cx| cx.send(reader_id, &reply).unwrap());
    // The silent peer never closes: only the deadline ends its connection.
    server.pool.handles()[0].stop_within(Some(Duration::from_millis(500)));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == sent);
    until("the loop has ended", || server.pool.handles()[0].post(|_| ()) == Err(PostError::Stopped));
    assert_eq!(
        (server.told.closed(), server.told.closed()),
        (CloseReason::LoopStopping, CloseReason::LoopStopping)
    );
}

#[test]
fn attempts_to_connect_end_when_the_loop_stops() {
    let full = support::FullBacklog::new();
    let mut bench = Bench::new(ServiceConfig::default(), lines);
    let address = full.address;
    bench.post(move |cx| {
        cx.connect(address, LinesCodec::new(80)).unwrap();
    });
    bench.turn();
    bench.event_loop.handle().stop();
    bench.event_loop.run().unwrap();
    let rest = bench.told.rest();
    assert!(matches!(rest[..], [Event::ConnectFailed(_, reactor::ConnectError::Stopping, None)]), "{rest:?}");
}

#[test]
fn a_pool_cannot_be_joined_from_its_own_thread() {
    let mut pool = EventLoopThreadPool::start(2, LoopConfig::default()).unwrap();
    let (tell, told) = unbounded();
    let handle = pool.handles()[1].clone();
    let inner = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    handle
        .post(move |_| {
            // Another's pool can be joined here, though whoever does it holds up its own loop.
            let mut inner = inner;
            inner.stop();
            tell.send(inner.join()).unwrap();
        })
        .unwrap();
    assert!(told.recv_timeout(BOUND).unwrap().is_ok());

    let (give, given) = unbounded::<EventLoopThreadPool>();
    let (tell, told) = unbounded();
    handle
        .post(move |_| {
            let mut own = given.recv().unwrap();
            let joined = own.join();
            tell.send((own, joined)).unwrap();
        })
        .unwrap();
    give.send(pool).unwrap();
    let joined;
    (pool, joined) = told.recv_timeout(BOUND).unwrap();
    assert!(matches!(joined, Err(JoinError::OwnThread)), "{joined:?}");
    pool.stop();
    pool.join().unwrap();
}

#[test]
fn starting_from_the_loops_own_thread_says_so() {
    let pool = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let (tell, told) = unbounded();
    let slots = pool.service_slots(1);
    let slot = pool.handles()[0].service_slot(1);
    pool.handles()[0]
        .post(move |event_loop| {
            let make = || FrameHandler::new(|| LinesCodec::new(80), |_, _, _| {});
            let server = TcpServer::bind("127.0.0.1:0".parse().unwrap(), ServiceConfig::default()).unwrap();
            let served = server.serve_on(slots, move |_| make()).map(|_| ());
            let config = ClientConfig::new(vec!["127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap()]);
            let started = TcpClient::start(&event_loop.handle(), slot, config, make).map(|_| ());
            let turned = event_loop.turn(None).and(event_loop.run());
            tell.send((served, started, turned)).unwrap();
        })
        .unwrap();
    let (served, started, turned) = told.recv_timeout(BOUND).unwrap();
    assert!(served.is_err());
    assert_eq!(started, Err(PostError::OwnThread));
    assert!(turned.is_err(), "nor can a turn run inside a turn");
}

#[test]
fn the_threads_of_a_pool_end_with_it() {
    let pool = EventLoopThreadPool::start(3, LoopConfig::default()).unwrap();
    let alive = Arc::new(());
    for handle in pool.handles() {
        let here = Arc::clone(&alive);
        let (log, _) = unbounded();
        handle
            .post(move |event_loop| {
                let slot = event_loop.handle().service_slot(1);
                let script = lines(log).on_timer(move |_, _| {
                    let _held_as_long_as_the_loop = &here;
                });
                event_loop.add_service(slot, ServiceConfig::default(), script).unwrap();
            })
            .unwrap();
    }
    drop(pool);
    assert_eq!(Arc::strong_count(&alive), 1);
}
