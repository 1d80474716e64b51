//! A line echo that closes whoever is silent for too long, and says why.
//!
//! `cargo run --release -p reactor --example idle -- --listen 127.0.0.1:7000 --seconds 10`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use reactor::codec::LinesCodec;
use reactor::{
    CloseReason, ConnId, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo, ServiceConfig,
    TcpServer,
};

/// A line echo that closes whoever is silent for too long.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    threads: u16,
    /// How long a client may be silent.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    seconds: f64,
}

struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Post = ();
    type Codec = LinesCodec;

    fn codec(&mut self) -> LinesCodec {
        LinesCodec::new(4096)
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, line: &[u8]) {
        let _ = cx.send_frame(id, line);
    }

    fn on_close(&mut self, _: &mut Context<'_, Self>, id: ConnId, (): (), reason: CloseReason) {
        eprintln!("{id}: {reason}");
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut config = ServiceConfig::default();
    config.idle_read = Some(Duration::try_from_secs_f64(options.seconds)?);
    let server = TcpServer::bind(options.listen, config)?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, |_| Echo)?;
    eprintln!("listening on {address}");
    Ok(pool.join()?)
}
