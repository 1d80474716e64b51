//! A line hub: every line that a connection sends goes to all other connections, also to those on other loops.
//!
//! `cargo run --release -p reactor --example chat_hub -- --help` tells how to use it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its terminal")]

#[path = "support/signals.rs"]
mod signals;

use std::collections::HashSet;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use reactor::codec::LinesCodec;
use reactor::{
    CloseReason, ConnId, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo, ServiceConfig,
    ServiceHandle, TcpServer,
};

const HELP: &str = "\
A line hub: every line goes to all other connections.

  chat_hub --listen ADDR [--threads N]
      Serves on ADDR (port 0 takes a free one) with N event loops, 1 by default. Says `listening on ADDR` on stderr.
      Try it with two terminals and `nc HOST PORT` in each.

  chat_hub --help
      Says this.";

/// Longer lines end their connection.
const LINE_BYTES_MAX: usize = 4096;
/// Lines from other loops that may wait for one loop.
const POSTS_MAX: usize = 16_384;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match parse(&arguments).and_then(|(listen, threads)| serve(listen, threads)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat_hub: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn Error>;

fn parse(arguments: &[String]) -> Result<(SocketAddr, u16), Failure> {
    let (mut listen, mut threads) = (None, 1);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{flag} needs a value; see --help"))?;
        match flag.as_str() {
            "--listen" => listen = Some(value.parse().map_err(|error| format!("{flag} {value}: {error}"))?),
            "--threads" => threads = value.parse().map_err(|error| format!("{flag} {value}: {error}"))?,
            _ => return Err(format!("{flag} is not known; see --help").into()),
        }
    }
    Ok((listen.ok_or("--listen ADDR is missing; see --help")?, threads))
}

/// The hub's part on one loop: who is here, and how to reach the other parts.
struct Hub {
    here: HashSet<ConnId>,
    elsewhere: Vec<ServiceHandle<Bytes>>,
}

impl Hub {
    /// Sends one line to all who are on this loop, but for the one who said it. They share its bytes.
    fn tell_those_here(&self, cx: &mut Context<'_, Self>, line: &Bytes, speaker: Option<ConnId>) {
        for id in self.here.iter().filter(|id| Some(**id) != speaker) {
            // Whoever is leaving, or reads too slowly and is closed for it, misses the line.
            let _ = cx.send_bytes(*id, line.clone());
        }
    }
}

impl Handler for Hub {
    type Conn = ();
    /// A line from another loop, its end included.
    type Post = Bytes;
    type Codec = LinesCodec;

    fn name(&self) -> &'static str {
        "hub"
    }

    fn codec(&mut self) -> LinesCodec {
        LinesCodec::new(LINE_BYTES_MAX)
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, id: ConnId, _: &OpenInfo) {
        self.here.insert(id);
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, line: &[u8]) {
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        let line = Bytes::from(whole);
        self.tell_those_here(cx, &line, Some(id));
        for hub in &self.elsewhere {
            if let Err((error, _)) = hub.post(line.clone()) {
                eprintln!("chat_hub: a line did not reach loop {}: {error}", hub.loop_index());
            }
        }
    }

    fn on_post(&mut self, cx: &mut Context<'_, Self>, line: Bytes) {
        self.tell_those_here(cx, &line, None);
    }

    fn on_close(&mut self, _: &mut Context<'_, Self>, id: ConnId, (): (), _: CloseReason) {
        self.here.remove(&id);
    }
}

fn serve(listen: SocketAddr, threads: u16) -> Result<(), Failure> {
    let server = TcpServer::bind(listen, ServiceConfig::default())
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(threads, LoopConfig::default())?;
    let slots = pool.service_slots(POSTS_MAX);
    let hubs: Vec<ServiceHandle<Bytes>> = slots.iter().map(|slot| slot.handle()).collect();
    server.serve_on(slots, move |index| Hub {
        here: HashSet::new(),
        elsewhere: hubs.iter().filter(|hub| hub.loop_index() != index).cloned().collect(),
    })?;
    signals::stop_on_signals(&pool)?;
    eprintln!("listening on {address}");
    pool.join()?;
    Ok(())
}
