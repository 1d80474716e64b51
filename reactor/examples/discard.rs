//! RFC 863: a server that reads whatever it gets and says nothing.
//!
//! `cargo run --release -p reactor --example discard -- --listen 127.0.0.1:9000`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use reactor::codec::RawCodec;
use reactor::{ConnId, Context, Handler, OpenInfo, ServiceConfig};
use support::{Listen, serve};

/// A server that reads whatever it gets and says nothing (RFC 863).
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
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

fn main() -> ExitCode {
    let options = Options::parse();
    serve(&options.listen, ServiceConfig::default(), |_| Discard)
}
