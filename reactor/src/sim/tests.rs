//! Whole servers and clients in simulated worlds, many seeds. They break: bytes into pieces, calls by interruptions, connections by resets, attempts by refusal and
//! silence, accepting by want of descriptors, the clock by jumps. What must hold, in each world:
//!
//! 1. one `on_close` for each `on_open`, and no callback for a connection before the one or after the other;
//! 2. no end of a connection outlives the other for long;
//! 3. what arrives is a prefix of what was sent, in order, nothing invented; all of it on connections that live until the world is calm;
//! 4. unsent output never passes its limit by more than the last piece;
//! 5. no loop sleeps with work in hand (asserted in the loop), and the world comes to rest;
//! 6. no socket is left open when all loops have stopped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::backoff::BackoffConfig;
use crate::client::TcpClient;
use crate::codec::{FrameError, LengthCodec};
use crate::config::ClientConfig;
use crate::conn::PauseReason;
use crate::context::Context;
use crate::handler::{Handler, OpenInfo, TimerFired};
use crate::id::ConnId;
use crate::reason::{CloseReason, ConnectError, SendError};

const SERVER: &str = "10.0.0.1:7000";
const OUTPUT_MAX: usize = 48 * 1024;
const FRAME_MAX: usize = 6_000;
const RESUME: u64 = 1;
const CHATTER: u64 = 2;

/// What both ends of a connection have counted. The key is the connection's number and whether the client wrote it.
#[derive(Default)]
struct Books {
    sent: HashMap<(u64, bool), u64>,
    received: HashMap<(u64, bool), u64>,
    /// Ends that are open, by number and side.
    open: HashSet<(u64, bool)>,
    /// Connections whose number the server has read.
    met: HashSet<u64>,
    opened: u64,
    closed: u64,
    failed: u64,
    frames: u64,
    high: u64,
}

#[derive(Clone)]
struct Shared {
    books: Arc<Mutex<Books>>,
    /// From now on nobody begins anything.
    calm: Arc<AtomicBool>,
}

/// Both the server and the clients: sends numbered frames, checks those that come, and now and then does something else.
struct Peer {
    is_client: bool,
    shared: Shared,
    rng: fastrand::Rng,
    /// Names that are open, and whether this side closed them. In an order that is the same in each run.
    alive: BTreeMap<ConnId, bool>,
}

struct Talk {
    /// The connection's number, which the client draws and sends first.
    number: Option<u64>,
    sent: u64,
    received: u64,
}

impl Peer {
    fn is_calm(&self) -> bool {
        self.shared.calm.load(Ordering::Relaxed)
    }

    fn check_alive(&self, id: ConnId) {
        assert_eq!(self.alive.get(&id), Some(&false), "a callback for {id}, which is closed or never was");
    }

    fn send_one(&mut self, cx: &mut Context<'_, Self>, id: ConnId, size: usize) {
        let Some(talk) = cx.conn_mut(id) else { return };
        let (Some(number), sequence) = (talk.number, talk.sent) else { return };
        talk.sent += 1;
        let mut payload = sequence.to_be_bytes().to_vec();
        payload.extend((0..size).map(|at| filler(number, sequence, at)));
        let result = cx.send_frame(id, &payload);
        assert!(cx.unsent(id) <= OUTPUT_MAX + FRAME_MAX + 10, "{} unsent", cx.unsent(id));
        match result {
            Ok(()) => *self.shared.books.lock().sent.entry((number, self.is_client)).or_default() += 1,
            Err(SendError::OutputLimit) => {
                self.alive.insert(id, true);
            }
            // Our side was shut down before.
            Err(SendError::Closing) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn send_some(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        for _ in 0..self.rng.usize(1..4) {
            if self.alive.get(&id) == Some(&false) {
                let size =
                    if self.rng.u8(..10) == 0 { self.rng.usize(..5_900) } else { self.rng.usize(..200) };
                self.send_one(cx, id, size);
            }
        }
    }

    /// What happens besides talk.
    fn act(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        match self.rng.u8(..120) {
            0 => {
                cx.close(id, CloseReason::Local("had enough"));
                self.alive.insert(id, true);
            }
            1 => {
                cx.abort(id, CloseReason::Local("lost patience"));
                self.alive.insert(id, true);
            }
            2 => cx.shutdown_write(id),
            3..=12 => {
                cx.pause(id, PauseReason::user(1));
                cx.set_conn_timer(id, Duration::from_millis(self.rng.u64(..50)), RESUME);
            }
            13..=30 => {
                let others: Vec<ConnId> =
                    self.alive.iter().filter(|(_, shut)| !**shut).map(|(id, _)| *id).collect();
                let other = others.get(self.rng.usize(..others.len().max(1))).copied();
                if let Some(other) = other {
                    self.send_some(cx, other);
                }
            }
            31..=40 => {
                cx.set_conn_timer(id, Duration::from_millis(self.rng.u64(..200)), CHATTER);
            }
            _ => {}
        }
    }
}

fn filler(number: u64, sequence: u64, at: usize) -> u8 {
    (number.wrapping_mul(31) ^ sequence.wrapping_mul(7)).wrapping_add(at as u64).to_le_bytes()[0]
}

impl Handler for Peer {
    type Conn = Talk;
    type Post = ();
    type Codec = LengthCodec;

    fn name(&self) -> &'static str {
        if self.is_client { "client" } else { "server" }
    }

    fn codec(&mut self) -> LengthCodec {
        LengthCodec::u16(FRAME_MAX)
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, info: &OpenInfo) -> Talk {
        assert_eq!(info.outbound, self.is_client);
        assert_eq!(self.alive.insert(id, false), None, "{id} opened twice");
        self.shared.books.lock().opened += 1;
        if self.is_client {
            cx.set_conn_timer(id, Duration::ZERO, CHATTER);
        }
        Talk { number: None, sent: 0, received: 0 }
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, frame: &[u8]) {
        self.check_alive(id);
        let is_client = self.is_client;
        let talk = cx.conn_mut(id).unwrap();
        let Some(number) = talk.number else {
            let number = u64::from_be_bytes(frame.try_into().unwrap());
            talk.number = Some(number);
            let mut books = self.shared.books.lock();
            books.open.insert((number, is_client));
            books.met.insert(number);
            return;
        };
        let sequence = u64::from_be_bytes(frame[..8].try_into().unwrap());
        assert_eq!(sequence, talk.received, "out of order");
        talk.received += 1;
        for (at, byte) in frame[8..].iter().enumerate() {
            assert_eq!(*byte, filler(number, sequence, at), "an invented byte");
        }
        {
            let mut books = self.shared.books.lock();
            *books.received.entry((number, !is_client)).or_default() += 1;
            books.frames += 1;
        }
        if !self.is_calm() {
            self.send_some(cx, id);
            self.act(cx, id);
        }
    }

    fn on_frame_error(&mut self, _: &mut Context<'_, Self>, id: ConnId, error: FrameError) {
        panic!("{id}: {error}: only whole frames were sent");
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        self.check_alive(id);
        if self.rng.bool() && !self.is_calm() {
            self.send_some(cx, id);
            cx.shutdown_write(id);
        } else {
            cx.close(id, CloseReason::PeerClosed);
            self.alive.insert(id, true);
        }
    }

    fn on_high_water(&mut self, _: &mut Context<'_, Self>, id: ConnId) {
        self.check_alive(id);
        self.shared.books.lock().high += 1;
    }

    fn on_low_water(&mut self, _: &mut Context<'_, Self>, id: ConnId) {
        self.check_alive(id);
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, id: ConnId, talk: Talk, reason: CloseReason) {
        assert!(self.alive.remove(&id).is_some(), "{id} closed twice, or never opened");
        assert!(!cx.is_open(id));
        assert_ne!(reason, CloseReason::HandlerPanicked);
        let mut books = self.shared.books.lock();
        books.closed += 1;
        if let Some(number) = talk.number {
            books.open.remove(&(number, self.is_client));
        }
    }

    fn on_connect_failed(
        &mut self,
        _: &mut Context<'_, Self>,
        id: ConnId,
        _: ConnectError,
        _: Option<Duration>,
    ) {
        assert!(!self.alive.contains_key(&id), "an attempt that failed was open");
        self.shared.books.lock().failed += 1;
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, timer: TimerFired) {
        let id = timer.conn.unwrap();
        assert!(self.alive.contains_key(&id), "a timer of a connection that is gone");
        if timer.token == RESUME {
            return cx.resume(id, PauseReason::user(1));
        }
        let is_client = self.is_client;
        let number = self.rng.u64(..);
        let talk = cx.conn_mut(id).unwrap();
        if talk.number.is_none() && is_client {
            talk.number = Some(number);
            match cx.send_frame(id, &number.to_be_bytes()) {
                Ok(()) => self.shared.books.lock().open.insert((number, is_client)),
                // The server has left already, and so do we.
                Err(SendError::Closing) => return,
                Err(error) => panic!("{error}"),
            };
        }
        if !self.is_calm() {
            self.send_some(cx, id);
        }
    }
}

struct Town {
    sim: Sim,
    loops: Vec<EventLoop>,
    shared: Shared,
}

impl Town {
    fn new(config: SimConfig, clients: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(config.seed ^ 0x5eed);
        let sim = Sim::new(config);
        let shared = Shared { books: Arc::default(), calm: Arc::default() };
        let mut loops: Vec<EventLoop> = (0..3)
            .map(|_| sim.event_loop(LoopConfig { scratch_bytes: 4096, ..LoopConfig::default() }).unwrap())
            .collect();
        let service = ServiceConfig {
            output_high: 8 * 1024,
            output_low: 2 * 1024,
            output_pauses_reading: 16 * 1024,
            output_max: OUTPUT_MAX,
            read_bytes_per_turn: rng.usize(1..20_000),
            frames_per_turn: rng.u32(1..20),
            idle: Some(Duration::from_secs(90)),
            ..ServiceConfig::default()
        };
        let mut peer = |is_client| Peer {
            is_client,
            shared: shared.clone(),
            rng: fastrand::Rng::with_seed(rng.u64(..)),
            alive: BTreeMap::new(),
        };
        let server = sim.bind(SERVER.parse().unwrap(), service.clone()).unwrap();
        server.serve_here(&mut loops[0], peer(false)).unwrap();
        for at in 0..clients {
            let event_loop = &mut loops[1 + at % 2];
            let slot = event_loop.handle().service_slot(16);
            let address: SocketAddr = SERVER.parse().unwrap();
            let config = ClientConfig {
                service: service.clone(),
                backoff: BackoffConfig { cap: Duration::from_secs(2), ..BackoffConfig::default() },
                ..ClientConfig::new([address])
            };
            TcpClient::start_here(event_loop, slot, config, peer(true)).unwrap();
        }
        Self { sim, loops, shared }
    }

    fn step(&mut self) -> bool {
        let mut loops: Vec<&mut EventLoop> = self.loops.iter_mut().collect();
        self.sim.step(&mut loops).unwrap()
    }

    /// Steps until the world's clock has gone on by `time`.
    fn run_for(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        // A world that never comes to rest would step for ever within a moment.
        for _ in 0..300_000 {
            if self.sim.elapsed() >= end || !self.step() {
                return;
            }
        }
        let loops: Vec<_> =
            self.loops.iter().map(|l| (l.finished(), l.has_posts(), l.connections())).collect();
        panic!("the world does not come to rest at {:?}: {loops:?}", self.sim.elapsed());
    }

    /// Steps until nothing is under way any more, and no loop does anything but wait: who gave a stalled connection up a moment ago may have just made a new one.
    fn settle(&mut self) {
        for _ in 0..300_000 {
            let at_rest = {
                let world = self.sim.world.lock();
                let waits = |l: &EventLoop| !l.has_posts() && !world.is_ready(l.core.index);
                world.arrivals() == 0 && self.loops.iter().all(waits)
            };
            if at_rest || !self.step() {
                return;
            }
        }
        panic!("the world does not come to rest at {:?}", self.sim.elapsed());
    }

    fn stop(&mut self) {
        for event_loop in &self.loops {
            event_loop.handle().stop_within(Some(Duration::from_secs(3)));
        }
        self.run_for(Duration::from_secs(30));
        assert!(self.loops.iter().all(|event_loop| event_loop.connections() == 0), "a loop did not stop");
        self.loops.clear();
    }
}

/// One world: trouble, then calm, then the end.
fn live(seed: u64, steps: usize, faults: SimFaults, sockets_max: usize) -> [u64; 4] {
    let window_max = if seed.is_multiple_of(2) { 3_000 } else { 60_000 };
    let config = SimConfig { seed, faults, window_max, sockets_max };
    let mut town = Town::new(config, 12);
    for _ in 0..steps {
        town.step();
    }
    town.sim.set_faults(SimFaults::NONE);
    town.shared.calm.store(true, Ordering::Relaxed);
    // Less than the idle timeout, so that who lives now lives on.
    town.run_for(Duration::from_secs(60));
    town.settle();
    let lived = {
        let books = town.shared.books.lock();
        for (number, is_client) in &books.open {
            let other = books.open.contains(&(*number, !is_client));
            // For want of descriptors a client may wait in the backlog for ever.
            if *is_client && sockets_max < usize::MAX && !books.met.contains(number) {
                continue;
            }
            assert!(other, "one end of {number} lives on, and the other (client: {}) does not", !is_client);
            for is_client in [true, false] {
                let (sent, received) =
                    (books.sent.get(&(*number, is_client)), books.received.get(&(*number, is_client)));
                assert_eq!(sent.unwrap_or(&0), received.unwrap_or(&0), "lost on a connection that lives");
            }
        }
        [books.opened, books.frames, books.failed, books.high]
    };
    town.stop();
    let books = town.shared.books.lock();
    assert_eq!(books.opened, books.closed, "one on_close per on_open");
    assert_eq!(town.sim.open_sockets(), 0, "a socket is left open");
    lived
}

/// How many worlds; more with `REACTOR_SIM_SEEDS=N`, one with `REACTOR_SIM_SEED=N`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("REACTOR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REACTOR_SIM_SEEDS").unwrap_or(40),
    }
}

fn live_all(faults: SimFaults, sockets_max: usize) {
    let mut lived = [0; 4];
    for seed in seeds() {
        // Told when a world fails, to be lived through again.
        println!("REACTOR_SIM_SEED={seed}");
        let one = live(seed, 6_000, faults, sockets_max);
        lived.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
    }
    let worlds = seeds().end - seeds().start;
    let [opened, frames, failed, high] = lived.map(|sum| sum / worlds);
    println!(
        "in a world: {opened} connections, {frames} frames, {failed} failed attempts, {high} times above the mark"
    );
    assert!(opened >= 20 && frames >= 300 && high > 0, "too little happened");
    assert!(faults == SimFaults::NONE || failed > 0, "no attempt failed");
}

#[test]
fn in_a_quiet_world_all_arrives() {
    live_all(SimFaults::NONE, usize::MAX);
}

#[test]
fn in_a_world_of_trouble_nothing_is_lost_unseen_or_invented() {
    live_all(SimFaults::ALL, usize::MAX);
}

#[test]
fn want_of_descriptors_ends_nothing_but_attempts() {
    live_all(SimFaults { clock_jump: 0, ..SimFaults::ALL }, 15);
}
