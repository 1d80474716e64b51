//! A line echo that closes whoever is silent for too long, and says why.
//!
//! `cargo run --release -p reactor --example idle -- --listen 127.0.0.1:7000 --seconds 10`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reactor::codec::LinesCodec;
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceConfig};
use support::{Listen, serve};

/// A line echo that closes whoever is silent for too long.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
    /// How long a client may be silent.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    seconds: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
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

fn main() -> ExitCode {
    let options = Options::parse();
    let mut config = ServiceConfig::default();
    config.idle_read = Some(options.seconds);
    serve(&options.listen, config, |_| Echo)
}
