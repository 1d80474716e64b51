//! RFC 867: a server that tells each client the time and closes.
//!
//! `cargo run --release -p reactor --example daytime -- --listen 127.0.0.1:9013`, then `nc 127.0.0.1 9013`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{
    CloseReason, ConnId, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo, ServiceConfig,
    TcpServer,
};

/// A server that tells each client the time and closes (RFC 867).
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    threads: u16,
}

struct Daytime;

impl Handler for Daytime {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, _: &OpenInfo) {
        let now = chrono::Utc::now().to_rfc2822();
        // The close comes after what was sent, also when the client has sent something that nobody reads.
        let _ = cx.send(id, format!("{now}\r\n").as_bytes());
        cx.close(id, CloseReason::Local("told the time"));
    }

    fn on_frame(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &[u8]) {}

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let server = TcpServer::bind(options.listen, ServiceConfig::default())?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, |_| Daytime)?;
    eprintln!("listening on {address}");
    Ok(pool.join()?)
}
