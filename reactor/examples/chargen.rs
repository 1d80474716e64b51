//! RFC 864: a server that sends lines for ever, as fast as each client reads and no faster.
//!
//! `cargo run --release -p reactor --example chargen -- --listen 127.0.0.1:9019`, then `nc 127.0.0.1 9019 | head`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{ConnId, Context, Handler, OpenInfo, ServiceConfig};
use support::{Listen, serve};

/// A server that sends lines for ever, as fast as each client reads and no faster (RFC 864).
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
}

/// All 95 lines of the rotating pattern; one copy for all clients.
fn pattern() -> Bytes {
    let printable: Vec<u8> = (b' '..=b'~').collect();
    let line = |start| printable.iter().cycle().skip(start).take(72).copied().chain(*b"\r\n");
    (0..printable.len()).flat_map(line).collect()
}

struct Chargen {
    lines: Bytes,
}

impl Chargen {
    /// Sends the pattern once more, and goes on when it is gone: the memory of a client that does not read stays at one pattern.
    fn send_next(&self, cx: &mut Context<'_, Self>, id: ConnId) {
        if cx.send_bytes(id, self.lines.clone()).is_ok() {
            cx.notify_drained(id);
        }
    }
}

impl Handler for Chargen {
    type Conn = ();
    type Post = ();
    type Codec = RawCodec;

    fn codec(&mut self) -> RawCodec {
        RawCodec
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>, id: ConnId, _: &OpenInfo) {
        self.send_next(cx, id);
    }

    fn on_frame(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &[u8]) {}

    fn on_drained(&mut self, cx: &mut Context<'_, Self>, id: ConnId) {
        self.send_next(cx, id);
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> ExitCode {
    let options = Options::parse();
    let lines = pattern();
    serve(&options.listen, ServiceConfig::default(), move |_| Chargen { lines: lines.clone() })
}
