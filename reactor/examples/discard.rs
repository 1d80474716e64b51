//! RFC 863: a server that reads whatever it gets and says nothing.
//!
//! `cargo run --release -p reactor --example discard -- --listen 127.0.0.1:9000`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{
    ConnId, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo, ServiceConfig, TcpServer,
};

/// A server that reads whatever it gets and says nothing (RFC 863).
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    threads: u16,
}

struct Discard;

impl Handler for Discard {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &[u8]) {}

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let server = TcpServer::bind(options.listen, ServiceConfig::default())?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, |_| Discard)?;
    eprintln!("listening on {address}");
    Ok(pool.join()?)
}
