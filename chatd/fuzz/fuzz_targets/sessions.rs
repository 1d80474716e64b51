//! Whole sessions, on a server inside this process, so that the fuzzer sees what its bytes reach in it.
#![no_main]
#![allow(dead_code, reason = "of the server's modules only what serving needs is used")]

#[path = "../../src/admin.rs"]
mod admin;
#[path = "../bodies.rs"]
mod bodies;
#[path = "../../src/cluster/mod.rs"]
mod cluster;
#[path = "../../src/commands.rs"]
mod commands;
#[path = "../../src/config.rs"]
mod config;
#[path = "../../src/connz.rs"]
mod connz;
#[path = "../../src/control.rs"]
mod control;
#[path = "../../src/directory.rs"]
mod directory;
#[path = "../../src/entry.rs"]
mod entry;
#[path = "../../src/logging.rs"]
mod logging;
#[path = "../../src/login.rs"]
mod login;
#[path = "../../src/metrics.rs"]
mod metrics;
#[path = "../../src/passing.rs"]
mod passing;
#[path = "../../src/post.rs"]
mod post;
#[path = "../../src/rates.rs"]
mod rates;
#[path = "../../src/server.rs"]
mod server;
#[path = "../../src/service/mod.rs"]
mod service;
#[path = "../../src/session.rs"]
mod session;
#[path = "../../src/sink.rs"]
mod sink;

use std::net::SocketAddr;
use std::sync::OnceLock;

use clap::Parser as _;

/// Where the server listens. It ends with the process.
fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("chatd-fuzz-{}", std::process::id()));
        let file = folder.join("chatd.toml");
        std::fs::create_dir_all(&folder).expect("a folder");
        let login = "[login]\nhash_memory_kib = 8\nhash_passes = 1\n";
        let any = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nrate_limits = \"off\"\nthreads = 2\n";
        let text = format!("{any}data_dir = {:?}\n{login}", folder.join("data").display().to_string());
        std::fs::write(&file, text).expect("a configuration");
        let args = config::Args::parse_from(["chatd", "--config", &file.display().to_string()]);
        let config = config::Config::load(&args).expect("a valid configuration");
        let server = server::ChatServer::start(config).expect("the server starts");
        let addr = server.chat_addr();
        std::mem::forget(server);
        addr
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::sessions(server(), data));
