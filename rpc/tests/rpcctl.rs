//! `rpcctl`, as a person uses it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

mod support;

use std::process::Command;

use rpc::ServerConfig;
use rpc::registry::{Instance, Registry, ZooKeeperConfig, ZooKeeperRegistry};
use support::*;
use testkit::ZooKeeper;

/// Its exit code, and what it said on standard output and on standard error.
fn rpcctl(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rpcctl")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_method_is_called_with_json_in_and_out() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    let call = |method: &str, request: &str| rpcctl(&["call", method, request, "--at", &at]);
    assert_eq!(call("rpc.test.Echo/Say", r#"{"data":"aGk="}"#).1, "{\"data\":\"aGk=\"}\n");
    assert_eq!(call("rpc.test.Echo/Count", "{}").1, "{\"calls\":\"1\"}\n");
    let with = rpcctl(&["call", "rpc.test.Echo/Say", "--at", &at, "--metadata", "suffix=hi"]);
    assert_eq!(with.1, "{\"data\":\"aGk=\"}\n");
    let (code, out, error) = call("rpc.test.Echo/Fail", r#"{"code":5,"message":"gone"}"#);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("not_found: gone") && error.contains("Executed"), "{error}");
}

#[test]
fn a_mistake_is_told_and_costs_exit_code_two() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    for (args, part) in [
        (vec!["call", "rpc.test.Echo/Say", r#"{"dat":1}"#, "--at", &at], "dat"),
        (vec!["call", "rpc.test.Echo/Say", "{} {}", "--at", &at], "request"),
        (vec!["call", "Say", "--at", &at], "package.Service/Method"),
        (vec!["services"], "--zookeeper"),
        (vec!["services", "--zookeeper", "nowhere"], "nowhere"),
    ] {
        let (code, _, error) = rpcctl(&args);
        assert!(code == 2 && error.contains(part), "{args:?}: {code}, {error}");
    }
    let (code, _, error) = rpcctl(&["call", "rpc.test.Nobody/Say", "--at", &at]);
    assert!(code == 1 && error.contains("no service rpc.test.Nobody"), "{error}");
    let (code, _, error) = rpcctl(&["call", "rpc.test.Echo/Nothing", "--at", &at]);
    assert!(code == 1 && error.contains("no method Nothing"), "{error}");
}

#[test]
fn a_server_is_pinged_and_described() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    let (code, out, _) = rpcctl(&["ping", &at, "--count", "2"]);
    assert!(code == 0 && out.contains("protocol 1 to 1") && out.lines().count() == 3, "{out}");
    let (code, out, _) = rpcctl(&["describe", &at]);
    assert!(code == 0 && out.contains("  Say(rpc.test.Payload) -> rpc.test.Payload"), "{out}");
    assert!(out.contains("rpc.test.Echo\n"), "{out}");
}

#[test]
fn services_and_instances_come_from_zookeeper_and_so_does_whom_to_call() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let servers = zookeeper.addr().to_string();
    let fixture = serve(ServerConfig::default());
    let registry = ZooKeeperRegistry::start(ZooKeeperConfig::new(&servers).unwrap()).unwrap();
    let instance = Instance { zone: "a".into(), ..Instance::new("one", fixture.server.local_addr()) };
    let entry = registry.register("rpc.test.Echo", instance);
    entry.wait_entered(LONG).unwrap();
    assert_eq!(rpcctl(&["services", "--zookeeper", &servers]).1, "rpc.test.Echo\t1\n");
    let (_, out, _) = rpcctl(&["instances", "rpc.test.Echo", "--zookeeper", &servers]);
    assert_eq!(out, format!("{}\tone\tup\t1\ta\t-\n", fixture.server.local_addr()));
    let (_, out, error) = rpcctl(&["call", "rpc.test.Echo/Count", "--zookeeper", &servers]);
    assert_eq!(out, "{\"calls\":\"1\"}\n", "{error}");
    assert!(entry.drain(LONG));
    let (code, _, error) = rpcctl(&["call", "rpc.test.Echo/Count", "--zookeeper", &servers]);
    assert!(code == 1 && error.contains("is up"), "{error}");
}
