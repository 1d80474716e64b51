//! RFC 867: a server that tells each client the time and closes.
//!
//! `cargo run --release -p reactor --example daytime -- --listen 127.0.0.1:9013`, then `nc 127.0.0.1 9013`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceConfig};
use support::{Listen, serve};

/// A server that tells each client the time and closes (RFC 867).
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
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

fn main() -> ExitCode {
    let options = Options::parse();
    serve(&options.listen, ServiceConfig::default(), |_| Daytime)
}
