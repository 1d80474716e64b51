//! A TCP relay: what comes in goes on to another address and back, in both directions no faster than the slower side takes it.
//!
//! `cargo run --release -p reactor --example relay -- --listen 127.0.0.1:8000 --to 127.0.0.1:7000`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{
    CloseReason, ConnId, ConnectError, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo,
    PauseReason, ServiceConfig, TcpServer,
};

/// A TCP relay: what comes in goes on to another address and back, no faster than the slower side takes it.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where to relay to.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    threads: u16,
}

/// A client is not read before the other side is there.
const CONNECTING: PauseReason = PauseReason::user(0);

struct Relay {
    to: SocketAddr,
    /// The other end of each connection, in both directions; also while the outgoing one is still being made.
    others: HashMap<ConnId, ConnId>,
}

impl Handler for Relay {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, info: &OpenInfo) {
        if info.outbound {
            let Some(client) = self.others.get(&id).copied().filter(|client| cx.is_open(*client)) else {
                return cx.abort(id, CloseReason::Local("the client has gone"));
            };
            cx.link(id, client);
            cx.link(client, id);
            return cx.resume(client, CONNECTING);
        }
        match cx.connect(self.to, RawCodec) {
            Ok(server) => {
                cx.pause(id, CONNECTING);
                self.others.insert(id, server);
                self.others.insert(server, id);
            }
            Err(error) => {
                eprintln!("cannot connect to {}: {error}", self.to);
                cx.abort(id, CloseReason::Local("no other side"));
            }
        }
    }

    fn on_connect_failed(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: ConnId,
        error: ConnectError,
        _: Option<Duration>,
    ) {
        eprintln!("cannot connect to {}: {error}", self.to);
        if let Some(client) = self.others.remove(&id) {
            self.others.remove(&client);
            cx.abort(client, CloseReason::Local("no other side"));
        }
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, bytes: &[u8]) {
        if let Some(other) = self.others.get(&id) {
            // One that is closing takes nothing more; its `on_close` closes this one.
            let _ = cx.send(*other, bytes);
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        // The other direction lives on. When both have ended the connections close by themselves.
        if let Some(other) = self.others.get(&id) {
            cx.shutdown_write(*other);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, id: ConnId, (): (), reason: CloseReason) {
        let Some(other) = self.others.remove(&id) else { return };
        self.others.remove(&other);
        match reason {
            CloseReason::PeerClosed | CloseReason::LoopStopping => cx.close(other, reason),
            // A reset on one side is a reset on the other: what is missing must not look like an end.
            _ => cx.abort(other, CloseReason::Local("the other side broke off")),
        }
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    // A source waits for its sink by the link; that its own output is high is no reason to leave it unread.
    let mut config = ServiceConfig::default();
    config.output_pauses_reading = usize::MAX;
    let server = TcpServer::bind(options.listen, config)?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, move |_| Relay { to: options.to, others: HashMap::new() })?;
    eprintln!("listening on {address}");
    Ok(pool.join()?)
}
