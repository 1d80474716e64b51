//! The guide in the README, run: a service is split off, found, called in three ways, and restarted without anybody noticing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

use std::time::Duration;

use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::registry::{Instance, Registry as _, StaticRegistry};
use rpc::{CallContext, Channel, ChannelConfig, Reply, Server, ServerConfig};

include!(concat!(env!("OUT_DIR"), "/demo.rs"));

struct Polite;

impl Greeter for Polite {
    fn greet(&self, _: CallContext, person: Person, reply: Reply<Greeting>) {
        reply.send(Greeting { text: format!("Good day, {}.", person.name) });
    }
}

#[test]
fn the_guide_works_as_it_stands() {
    let pool = EventLoopThreadPool::start(2, LoopConfig::default()).unwrap();
    let server = Server::new(ServerConfig::default()).add(GreeterServer(Polite)).unwrap();
    let server = server.serve(&pool, "127.0.0.1:0".parse().unwrap()).unwrap();
    let registry = StaticRegistry::new();
    let entry = registry.register("demo.Greeter", Instance::new("greeter-1", server.local_addr()));

    let callers = EventLoopThreadPool::start(1, LoopConfig::default()).unwrap();
    let channel =
        Channel::of_service(callers.handles(), &registry, "demo.Greeter", ChannelConfig::default()).unwrap();
    let greeter = GreeterClient::new(channel);
    let amy = Person { name: "Amy".into() };
    assert_eq!(greeter.greet(&amy).wait().unwrap().text, "Good day, Amy.");
    let (tell, told) = crossbeam_channel::bounded(1);
    greeter.greet(&amy).timeout(Duration::from_secs(20)).then(move |outcome| tell.send(outcome).unwrap());
    assert_eq!(told.recv().unwrap().unwrap().text, "Good day, Amy.");

    assert!(entry.drain(Duration::from_secs(5)));
    assert!(server.drain(Duration::from_secs(30)));
    assert!(entry.leave(Duration::from_secs(5)));
}

#[test]
fn the_guide_shows_the_file_that_is_compiled() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(include_str!("../proto/greeter.proto").trim_end()));
}
