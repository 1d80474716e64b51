//! A run: connects, lets the threads work, and puts together what they found.

use std::net::{SocketAddr, TcpStream as Blocking};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::error::{EchoError, system};
use super::options::{EchoOptions, EchoShape};
use super::phase::Plan;
use super::report::{EchoReport, LoadReport, Spread};
use super::server::Server;
use super::worker::{Outcome, Worker, histogram};
use super::{cycles, hold, hub};
use crate::limit;
use crate::process::count;
use crate::report::Quantiles;

/// Connections that are opened in one go. After that the server, which may share the core, gets time to accept: a full backlog would cost a second.
const BURST: usize = 128;
const PAUSE: Duration = Duration::from_millis(1);
/// How long one connection may take to be established, lost first packets included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Does what the options say.
///
/// # Errors
/// When the options do not go together, the system refuses something, or the server breaks what an echo server promises.
pub fn echo(options: &EchoOptions) -> Result<EchoReport, EchoError> {
    options.check().map_err(EchoError::Options)?;
    let room = limit::raise();
    if options.connections as u64 > room {
        let wanted = options.connections;
        return Err(EchoError::Options(format!("--connections {wanted}: the limit leaves room for {room}")));
    }
    let server = Server::new(options.pid)?;
    match options.shape {
        EchoShape::Echo => Ok(EchoReport::Echo(load(options, server)?)),
        EchoShape::Sink => Ok(EchoReport::Sink(load(options, server)?)),
        EchoShape::Hold => Ok(EchoReport::Hold(hold::hold(options, server)?)),
        EchoShape::Cycles => Ok(EchoReport::Cycles(cycles::cycles(options)?)),
        EchoShape::Hub => Ok(EchoReport::Hub(hub::hub(options, server)?)),
    }
}

/// Opens connections, numbered from 0.
pub(crate) fn connect(addr: SocketAddr, connections: usize) -> Result<Vec<TcpStream>, EchoError> {
    let mut streams = Vec::with_capacity(connections);
    for connection in 0..connections {
        if connection > 0 && connection.is_multiple_of(BURST) {
            thread::sleep(PAUSE);
        }
        let connected = Blocking::connect_timeout(&addr, CONNECT_TIMEOUT).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| EchoError::Connect { connection, error })?;
        streams.push(TcpStream::from_std(stream));
    }
    Ok(streams)
}

fn load(options: &EchoOptions, server: Server) -> Result<LoadReport, EchoError> {
    let mut streams = connect(options.addr, options.connections)?;
    let mut workers = Vec::new();
    for thread in 0..options.threads {
        let rest = streams.split_off(streams.len() / (options.threads - thread));
        let first = options.connections - streams.len() - rest.len();
        workers.push(Worker::new(options, std::mem::replace(&mut streams, rest), first, {
            (thread == 0).then_some(server)
        })?);
    }
    let plan = match options.messages {
        Some(messages) => Plan::Counted(messages),
        None => {
            let begin = Instant::now() + options.warmup();
            Plan::Timed { begin, end: begin + options.seconds() }
        }
    };
    let outcomes = thread::scope(|scope| {
        let mut threads = Vec::new();
        let first = workers.remove(0);
        for worker in workers {
            let builder = thread::Builder::new().name("load".to_owned());
            let spawned = builder.spawn_scoped(scope, move || worker.run(plan));
            threads.push(spawned.map_err(system("thread"))?);
        }
        let mut outcomes = vec![first.run(plan)?];
        for thread in threads {
            let ended = thread.join().map_err(|_| EchoError::Late("a thread of its own, which panicked"))?;
            outcomes.push(ended?);
        }
        Ok(outcomes)
    })?;
    report(options, outcomes)
}

fn report(options: &EchoOptions, outcomes: Vec<Outcome>) -> Result<LoadReport, EchoError> {
    let mut latency = histogram()?;
    let (mut bytes, mut counts) = (0, Vec::new());
    let (mut seconds, mut server_cpu, mut load_cpu) = (0.0, None, Duration::ZERO);
    for (at, outcome) in outcomes.into_iter().enumerate() {
        latency
            .add(&outcome.latency_us)
            .map_err(|error| EchoError::Options(format!("no histogram: {error}")))?;
        bytes += outcome.bytes;
        counts.extend(outcome.counts);
        // The first thread has watched the whole of both processes.
        if at == 0 {
            (seconds, server_cpu, load_cpu) = (outcome.seconds, outcome.server_cpu, outcome.load_cpu);
        }
    }
    let sink = options.shape == EchoShape::Sink;
    let messages = if sink { bytes / options.size } else { counts.iter().sum() };
    let per_second = |number: u64| if seconds > 0.0 { count(number) / seconds } else { 0.0 };
    let cores = |cpu: Duration| if seconds > 0.0 { cpu.as_secs_f64() / seconds } else { 0.0 };
    Ok(LoadReport {
        connections: options.connections,
        size: options.size,
        window: options.window,
        threads: options.threads,
        seconds,
        messages,
        messages_per_second: per_second(messages),
        mib_per_second: per_second(bytes) / 1_048_576.0,
        latency_us: Quantiles::from(&latency),
        starved: if sink { 0 } else { counts.iter().filter(|count| **count == 0).count() },
        per_connection: if sink { None } else { Spread::of(counts) },
        server_cpu_ns_per_message: server_cpu
            .filter(|_| messages > 0)
            .map(|cpu| cpu.as_secs_f64() * 1e9 / count(messages)),
        server_cores: server_cpu.map(cores),
        load_cores: cores(load_cpu),
    })
}
