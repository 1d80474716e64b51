//! An echo server that sends back whatever it gets, and a client that checks it and says how fast it was.
//!
//! `cargo run --release -p reactor --example echo -- --help` tells how to use it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its terminal")]

#[path = "support/signals.rs"]
mod signals;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use reactor::codec::RawCodec;
use reactor::{
    ClientConfig, CloseReason, ConnId, ConnectError, Context, EventLoop, EventLoopThreadPool, Handler,
    LoopConfig, OpenInfo, ServiceConfig, TcpClient, TcpServer,
};

const HELP: &str = "\
An echo server and its client, to try the reactor by itself.

  echo --listen ADDR [--threads N]
      Serves on ADDR (port 0 takes a free one) with N event loops, 1 by default. Says `listening on ADDR` on stderr.

  echo client --connect ADDR [--connections N] [--messages N] [--size BYTES]
      Opens N connections (1), and on each sends N messages (10000) of BYTES bytes (64), one after the other: the next when
      the last has come back whole. Checks every byte, and ends with the number of messages per second; exit code 1 if
      anything was wrong.

  echo --help
      Says this.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{HELP}");
            Ok(())
        }
        Some("client") => {
            ClientOptions::parse(arguments.get(1..).unwrap_or_default()).and_then(|o| run_client(&o))
        }
        _ => ServerOptions::parse(&arguments).and_then(|options| serve(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn Error>;

/// The value after a flag, parsed.
fn value<T>(flag: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<T, Failure>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = rest.next().ok_or_else(|| format!("{flag} needs a value; see --help"))?;
    text.parse().map_err(|error| format!("{flag} {text}: {error}").into())
}

struct ServerOptions {
    listen: SocketAddr,
    threads: u16,
}

impl ServerOptions {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let (mut listen, mut threads) = (None, 1);
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            match flag.as_str() {
                "--listen" => listen = Some(value(flag, &mut rest)?),
                "--threads" => threads = value(flag, &mut rest)?,
                _ => return Err(format!("{flag} is not known; see --help").into()),
            }
        }
        let listen = listen.ok_or("--listen ADDR is missing; see --help")?;
        Ok(Self { listen, threads })
    }
}

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, bytes: &[u8]) {
        // A peer that sends and never reads is paused at the high mark and closed by the write stall: a refused send needs no care.
        let _ = cx.send(id, bytes);
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn serve(options: &ServerOptions) -> Result<(), Failure> {
    let server = TcpServer::bind(options.listen, ServiceConfig::default())
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, |_| Echo)?;
    signals::stop_on_signals(&pool)?;
    eprintln!("listening on {address}");
    pool.join()?;
    Ok(())
}

#[derive(Clone)]
struct ClientOptions {
    connect: SocketAddr,
    connections: usize,
    messages: u64,
    size: usize,
}

impl ClientOptions {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let (mut connect, mut connections, mut messages, mut size) = (None, 1, 10_000, 64);
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            match flag.as_str() {
                "--connect" => connect = Some(value(flag, &mut rest)?),
                "--connections" => connections = value(flag, &mut rest)?,
                "--messages" => messages = value(flag, &mut rest)?,
                "--size" => size = value(flag, &mut rest)?,
                _ => return Err(format!("{flag} is not known; see --help").into()),
            }
        }
        let connect = connect.ok_or("--connect ADDR is missing; see --help")?;
        if connections == 0 || messages == 0 || size == 0 {
            return Err("--connections, --messages and --size are at least 1".into());
        }
        Ok(Self { connect, connections, messages, size })
    }
}

/// What one connection has sent and got back, as positions in its stream of bytes.
struct Progress {
    sent: u64,
    received: u64,
}

/// The byte at a position of the stream that every connection sends. The period is no power of two, so that a block that is lost,
/// doubled or moved shows.
fn byte_at(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap_or(0)
}

struct Load {
    options: ClientOptions,
    /// Connections that have not got all back.
    left: usize,
    outcome: Sender<Result<(), String>>,
}

impl Load {
    fn send_next(&self, cx: &mut Context<'_, Self>, id: ConnId, from: u64) {
        let message: Vec<u8> = (from..).take(self.options.size).map(byte_at).collect();
        if let Err(error) = cx.send(id, &message) {
            self.end(cx, Err(format!("cannot send: {error}")));
        }
    }

    fn end(&self, cx: &Context<'_, Self>, outcome: Result<(), String>) {
        // The first outcome counts; whoever waits for it has gone when there is a second.
        let _ = self.outcome.send(outcome);
        cx.loop_handle().stop();
    }
}

impl Handler for Load {
    type Conn = Progress;
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    /// The first connection is the client's own; the others are made here.
    fn on_start(&mut self, cx: &mut Context<'_, Self>) {
        for _ in 1..self.options.connections {
            if let Err(error) = cx.connect(self.options.connect, RawCodec) {
                return self.end(cx, Err(format!("cannot connect to {}: {error}", self.options.connect)));
            }
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, _: &OpenInfo) -> Progress {
        self.send_next(cx, id, 0);
        Progress { sent: self.options.size as u64, received: 0 }
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, bytes: &[u8]) {
        let Some(progress) = cx.conn_mut(id) else { return };
        let wrong = bytes.iter().zip(progress.received..).find(|(byte, at)| **byte != byte_at(*at));
        if let Some((_, at)) = wrong {
            return self.end(cx, Err(format!("byte {at} of {id} came back changed")));
        }
        progress.received += bytes.len() as u64;
        let (sent, received) = (progress.sent, progress.received);
        if received > sent {
            return self.end(cx, Err(format!("{id} got back more than it sent")));
        }
        if received < sent {
            return;
        }
        if sent < self.options.messages * self.options.size as u64 {
            progress.sent += self.options.size as u64;
            return self.send_next(cx, id, sent);
        }
        cx.close(id, CloseReason::Local("all came back"));
        self.left -= 1;
        if self.left == 0 {
            self.end(cx, Ok(()));
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, id: ConnId, _: Progress, reason: CloseReason) {
        if !matches!(reason, CloseReason::Local(_) | CloseReason::LoopStopping) {
            self.end(cx, Err(format!("connection {id} ended early: {reason}")));
        }
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Context<'_, Self>,
        _: ConnId,
        error: ConnectError,
        _: Option<Duration>,
    ) {
        self.end(cx, Err(format!("cannot connect to {}: {error}", self.options.connect)));
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn run_client(options: &ClientOptions) -> Result<(), Failure> {
    let (tell, told) = channel();
    let mut event_loop = EventLoop::new(LoopConfig::default())?;
    let slot = event_loop.handle().service_slot(1);
    let mut config = ClientConfig::new(vec![options.connect]);
    config.reconnect = false;
    let load = Load { options: options.clone(), left: options.connections, outcome: tell };
    let started = Instant::now();
    TcpClient::start_here(&mut event_loop, slot, config, load)?;
    event_loop.run()?;
    told.try_recv().map_err(|_| "the loop ended without an outcome")??;
    let seconds = started.elapsed().as_secs_f64();
    let messages = options.messages * options.connections as u64;
    println!(
        "{messages} messages of {} bytes over {} connections came back whole in {seconds:.3} s: {:.0} messages/s",
        options.size,
        options.connections,
        messages as f64 / seconds,
    );
    Ok(())
}
