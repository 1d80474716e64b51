//! Ping-pong: each of many connections sends a block to an echo server and bounces back whatever comes, for some seconds; then how much that was.
//!
//! `cargo run --release -p reactor --example echo -- --listen 127.0.0.1:7000`, and in another terminal
//! `cargo run --release -p reactor --example ping_pong -- --connect 127.0.0.1:7000 --connections 100 --size 4096`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its terminal")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{
    CloseReason, ConnId, ConnectError, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo,
    ServiceConfig, TimerFired,
};

/// Sends blocks to an echo server and bounces back what comes.
#[derive(Clone, Parser)]
struct Options {
    /// The echo server.
    #[arg(long, value_name = "ADDR")]
    connect: SocketAddr,
    /// Connections, shared by the threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Bytes of the block that each connection bounces.
    #[arg(long, default_value_t = 16_384, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    size: u32,
    /// How long.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,
}

/// What one loop has counted.
#[derive(Default)]
struct Count {
    connected: u32,
    failed: u32,
    /// Connections that ended before their time.
    lost: u32,
    bytes: u64,
    reads: u64,
    why: Option<String>,
}

struct PingPong {
    options: Options,
    /// Connections of this loop that are still to be made, or are being made.
    wanted: u32,
    count: Count,
    tell: Sender<Count>,
}

impl PingPong {
    fn fail(&mut self, error: &ConnectError) {
        self.count.failed += 1;
        self.count.why.get_or_insert_with(|| error.to_string());
    }

    /// All attempts have ended: the time begins.
    fn begin(&self, cx: &mut Context<'_, Self>) {
        if self.count.connected + self.count.failed < self.wanted {
            return;
        }
        let block = vec![b'p'; self.options.size as usize];
        for id in cx.open_conns() {
            // One that is gone is counted when it closes.
            let _ = cx.send(id, &block);
        }
        cx.set_timer(Duration::from_secs(self.options.seconds), 0);
    }
}

impl Handler for PingPong {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_start(&mut self, cx: &mut Context<'_, Self>) {
        for _ in 0..self.wanted {
            if let Err(error) = cx.connect(self.options.connect, RawCodec) {
                self.fail(&error);
            }
        }
        if self.count.failed == self.wanted {
            self.begin(cx);
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {
        self.count.connected += 1;
        self.begin(cx);
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Context<'_, Self>,
        _: ConnId,
        error: ConnectError,
        _: Option<Duration>,
    ) {
        self.fail(&error);
        self.begin(cx);
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, bytes: &[u8]) {
        self.count.bytes += bytes.len() as u64;
        self.count.reads += 1;
        let _ = cx.send(id, bytes);
    }

    fn on_close(&mut self, _: &mut Context<'_, Self>, _: ConnId, (): (), reason: CloseReason) {
        if reason != CloseReason::LoopStopping {
            self.count.lost += 1;
            self.count.why.get_or_insert_with(|| reason.to_string());
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, _: TimerFired) {
        // The main thread waits for one from each loop.
        let _ = self.tell.send(std::mem::take(&mut self.count));
        cx.loop_handle().stop_within(Some(Duration::ZERO));
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(all) => report(&options, &all),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Count, Box<dyn Error>> {
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    let (tell, told) = channel();
    let threads = u32::from(options.threads);
    for (number, handle) in (0..).zip(pool.handles()) {
        let wanted = options.connections / threads + u32::from(number < options.connections % threads);
        let (options, tell) = (options.clone(), tell.clone());
        handle.post(move |event_loop| {
            let slot = event_loop.handle().service_slot(1);
            let mut config = ServiceConfig::default();
            // Who bounces must read to be written to.
            config.output_pauses_reading = usize::MAX;
            let ping_pong = PingPong { options, wanted, count: Count::default(), tell };
            if let Err(error) = event_loop.add_service(slot, config, ping_pong) {
                eprintln!("{error}");
            }
        })?;
    }
    drop(tell);
    let all = told.iter().fold(Count::default(), |all, one| Count {
        connected: all.connected + one.connected,
        failed: all.failed + one.failed,
        lost: all.lost + one.lost,
        bytes: all.bytes + one.bytes,
        reads: all.reads + one.reads,
        why: all.why.or(one.why),
    });
    pool.join()?;
    Ok(all)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(options: &Options, all: &Count) -> ExitCode {
    let seconds = options.seconds as f64;
    println!(
        "{} of {} connections, {:.1} MiB/s, {:.0} blocks of {} bytes/s, {:.0} reads/s",
        all.connected,
        options.connections,
        all.bytes as f64 / seconds / f64::from(1 << 20),
        all.bytes as f64 / f64::from(options.size) / seconds,
        options.size,
        all.reads as f64 / seconds,
    );
    if all.failed > 0 || all.lost > 0 {
        let why = all.why.as_deref().unwrap_or("for no reason that was told");
        eprintln!("{} not connected to {}, {} lost: {why}", all.failed, options.connect, all.lost);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
