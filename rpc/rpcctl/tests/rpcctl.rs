//! `rpcctl`, as a person uses it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use rpc::ServerConfig;
use rpc::registry::{Instance, Registry as _, ZooKeeperConfig, ZooKeeperRegistry};
use support::{LONG, serve};
use testkit::ZooKeeper;

/// Its exit code, and what it said on standard output and on standard error.
type Said = (i32, String, String);

/// With nothing of the tester's own environment that would say where servers are.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rpcctl"));
    command.args(args).env_remove("RPC_ZOOKEEPER").env_remove("RPC_ENDPOINTS");
    command
}

fn said(output: &std::process::Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn rpcctl(args: &[&str]) -> Said {
    said(&command(args).stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_method_is_called_with_json_in_and_out() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    let call = |method: &str, request: &str| rpcctl(&["--endpoints", &at, "call", method, request]);
    assert_eq!(call("rpc.test.Echo/Say", r#"{"data":"aGk="}"#).1, "{\"data\":\"aGk=\"}\n");
    assert_eq!(call("rpc.test.Echo/Count", "{}").1, "{\"calls\":\"1\"}\n");
    let with = rpcctl(&["call", "rpc.test.Echo/Say", "--endpoints", &at, "--metadata", "suffix=hi"]);
    assert_eq!(with.1, "{\"data\":\"aGk=\"}\n");
    let (code, out, error) = call("rpc.test.Echo/Fail", r#"{"code":5,"message":"gone"}"#);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("not_found: gone") && error.contains("Executed"), "{error}");
}

#[test]
fn a_request_may_come_on_standard_input_and_the_server_from_the_environment() {
    let fixture = serve(ServerConfig::default());
    let mut child = command(&["call", "rpc.test.Echo/Say", "-"])
        .env("RPC_ENDPOINTS", fixture.server.local_addr().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"data\":\n\"aGk=\"}\n").unwrap();
    let (code, out, error) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (0, "{\"data\":\"aGk=\"}\n"), "{error}");
}

#[test]
fn a_mistake_is_told_and_costs_exit_code_two() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    for (args, part) in [
        (vec!["call", "rpc.test.Echo/Say", r#"{"dat":1}"#, "--endpoints", &at], "dat"),
        (vec!["call", "rpc.test.Echo/Say", "{} {}", "--endpoints", &at], "no JSON"),
        (vec!["call", "rpc.test.Echo/Say", "--metadata", "suffix", "--endpoints", &at], "KEY=VALUE"),
        (vec!["call", "Say", "--endpoints", &at], "package.Service/Method"),
        (vec!["services"], "--zookeeper"),
        (vec!["services", "--zookeeper", "nowhere"], "nowhere"),
        (vec!["ping", &at, "--timeout", "0"], "--timeout"),
    ] {
        let (code, _, error) = rpcctl(&args);
        assert!(code == 2 && error.contains(part), "{args:?}: {code}, {error}");
    }
}

#[test]
fn what_a_server_does_not_have_is_told_and_costs_exit_code_one() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    for (args, part) in [
        (["call", "rpc.test.Nobody/Say", "--endpoints", &at], "no service rpc.test.Nobody"),
        (["call", "rpc.test.Echo/Nothing", "--endpoints", &at], "no method Nothing"),
        (["instances", "rpc.test.Nobody", "--endpoints", &at], "nobody provides rpc.test.Nobody"),
    ] {
        let (code, out, error) = rpcctl(&args);
        assert!(code == 1 && out.is_empty() && error.contains(part), "{args:?}: {code}, {error}");
    }
}

#[test]
fn servers_on_the_command_line_tell_what_they_offer() {
    let (one, two) = (serve(ServerConfig::default()), serve(ServerConfig::default()));
    let (one, two) = (one.server.local_addr(), two.server.local_addr());
    let both = format!("{one},{two}");
    let (code, out, error) = rpcctl(&["services", "--endpoints", &both]);
    assert!(code == 0 && out.lines().any(|line| line == "rpc.test.Echo\t2"), "{out}{error}");
    let (_, out, _) = rpcctl(&["instances", "rpc.test.Echo", "--endpoints", &both]);
    let addresses: Vec<_> = out.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(addresses, [one.to_string(), two.to_string()]);
}

#[test]
fn a_server_is_pinged_and_described() {
    let fixture = serve(ServerConfig::default());
    let at = fixture.server.local_addr().to_string();
    let (code, out, _) = rpcctl(&["ping", &at, "--count", "2"]);
    assert!(code == 0 && out.contains("protocol 1 to 1") && out.lines().count() == 3, "{out}");
    let (code, out, _) = rpcctl(&["describe", &at]);
    assert!(code == 0 && out.contains("  Say(rpc.test.Payload) -> rpc.test.Payload"), "{out}");
    assert!(out.contains("rpc.test.Echo\n") && out.contains("data: bytes"), "{out}");
}

#[test]
fn a_ping_without_an_answer_is_a_failure() {
    // Who listens and never answers; the system takes the connection.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let (code, out, error) = rpcctl(&["ping", &at, "--timeout", "0.1"]);
    assert!(code == 1 && out.is_empty() && error.contains(&at), "{error}");
    drop(silent);
    let (code, _, error) = rpcctl(&["ping", &at]);
    assert!(code == 1 && error.contains("refused"), "{error}");
}

#[test]
fn services_and_instances_come_from_zookeeper_and_so_does_whom_to_call() {
    if !ZooKeeper::available() {
        return;
    }
    let zookeeper = ZooKeeper::start().unwrap();
    let servers = zookeeper.addr().to_string();
    let ctl = |args: &[&str]| rpcctl(&[&["--zookeeper", &servers, "--timeout", "30"], args].concat());
    let (one, two) = (serve(ServerConfig::default()), serve(ServerConfig::default()));
    let registry = ZooKeeperRegistry::start(ZooKeeperConfig::new(&servers).unwrap()).unwrap();
    let instance = |id: &str, at| Instance { zone: "a".into(), ..Instance::new(id, at) };
    let first = registry.register("rpc.test.Echo", instance("one", one.server.local_addr()));
    let second = registry.register("rpc.test.Echo", instance("two", two.server.local_addr()));
    first.wait_entered(LONG).unwrap();
    second.wait_entered(LONG).unwrap();

    assert_eq!(ctl(&["services"]).1, "rpc.test.Echo\t2\n");
    let listed = || {
        let (_, out, _) = ctl(&["instances", "rpc.test.Echo"]);
        let mut lines: Vec<_> = out.lines().map(str::to_owned).collect();
        lines.sort_by_key(|line| line.split('\t').nth(1).map(str::to_owned));
        lines
    };
    let line = |at, id, state| format!("{at}\t{id}\t{state}\t1\ta\t-");
    let (at_one, at_two) = (one.server.local_addr(), two.server.local_addr());
    assert_eq!(listed(), [line(at_one, "one", "up"), line(at_two, "two", "up")]);
    let (code, out, error) = ctl(&["ping", "rpc.test.Echo", "--count", "1"]);
    assert!(
        code == 0 && out.contains(&at_one.to_string()) && out.contains(&at_two.to_string()),
        "{out}{error}"
    );
    assert!(ctl(&["describe", "rpc.test.Echo"]).1.contains("Say(rpc.test.Payload)"));

    // Who drains is not called: what is left counts all calls.
    assert!(first.drain(LONG));
    assert_eq!(listed(), [line(at_one, "one", "draining"), line(at_two, "two", "up")]);
    for calls in 1..=4 {
        let (_, out, error) = ctl(&["call", "rpc.test.Echo/Count"]);
        assert_eq!(out, format!("{{\"calls\":\"{calls}\"}}\n"), "{error}");
    }
    assert!(second.drain(LONG));
    let (code, _, error) = ctl(&["call", "rpc.test.Echo/Count"]);
    assert!(code == 1 && error.contains("all 2 are draining"), "{error}");
    let (code, _, error) = ctl(&["call", "rpc.test.Nobody/Count"]);
    assert!(code == 1 && error.contains("nobody provides rpc.test.Nobody"), "{error}");
}

#[test]
fn a_zookeeper_that_is_not_there_is_told_of_within_the_timeout() {
    // A port that nobody listens on.
    let nobody = testkit::free_port();
    let (code, _, error) =
        rpcctl(&["services", "--zookeeper", &format!("127.0.0.1:{nobody}"), "--timeout", "0.3"]);
    assert!(code == 1 && error.contains("does not answer"), "{error}");
}
