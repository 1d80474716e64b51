//! A TCP relay: what comes in goes on to another address and back, in both directions no faster than the slower side takes it.
//!
//! `cargo run --release -p reactor --example relay -- --listen 127.0.0.1:8000 --to 127.0.0.1:7000`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{
    Address, CloseReason, ConnId, ConnectError, Context, Handler, OpenInfo, PauseReason, ServiceConfig,
};
use support::{Listen, serve};

/// A TCP relay: what comes in goes on to another address and back, no faster than the slower side takes it.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
    /// Where to relay to.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
}

/// A client is not read before the other side is there.
const CONNECTING: PauseReason = PauseReason::user(0);

/// What has come from one end.
struct Relayed {
    peer: Address,
    bytes: u64,
}

struct Relay {
    to: SocketAddr,
    /// The other end of each connection, in both directions; also while the outgoing one is still being made.
    others: HashMap<ConnId, ConnId>,
}

impl Handler for Relay {
    type Conn = Relayed;
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, info: &OpenInfo) -> Relayed {
        let relayed = Relayed { peer: info.peer.clone(), bytes: 0 };
        if info.outbound {
            let Some(client) = self.others.get(&id).copied().filter(|client| cx.is_open(*client)) else {
                cx.abort(id, CloseReason::Local("the client has gone"));
                return relayed;
            };
            cx.link(id, client);
            cx.link(client, id);
            cx.resume(client, CONNECTING);
            return relayed;
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
        relayed
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
        if let Some(relayed) = cx.conn_mut(id) {
            relayed.bytes += bytes.len() as u64;
        }
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

    fn on_close(&mut self, cx: &mut Context<'_, Self>, id: ConnId, relayed: Relayed, reason: CloseReason) {
        eprintln!("{id}: {} bytes relayed from {}: {reason}", relayed.bytes, relayed.peer);
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

fn main() -> ExitCode {
    let options = Options::parse();
    // A source waits for its sink by the link; that its own output is high is no reason to leave it unread.
    let mut config = ServiceConfig::default();
    config.output_pauses_reading = usize::MAX;
    serve(&options.listen, config, move |_| Relay { to: options.to, others: HashMap::new() })
}
