//! `cargo xtask up` and `down`: a whole cluster on this machine, for as long as one likes.
//!
//! What was started belongs to a process of its own, the keeper, which `up` leaves behind and `down` ends. Should the keeper be killed, everything it
//! had started ends with it.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testkit::Cluster;

use crate::setup;
use crate::shell::{self, Failure};

/// How long all of it may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// What `cargo xtask up` takes.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many chat servers
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// How many login daemons, found through ZooKeeper; with 0 the service is inside the chat servers
    #[arg(long, value_name = "N", default_value_t = 2)]
    logins: usize,
    /// Is the process that everything belongs to
    #[arg(long, hide = true)]
    keep: bool,
}

/// The folder of what is up.
fn folder() -> PathBuf {
    shell::release_dir().with_file_name("up")
}

fn ports_file() -> PathBuf {
    folder().join("ports.json")
}

/// Starts a cluster, unless there is one.
pub(crate) fn run(up: &Up) -> Result<(), Failure> {
    if up.keep {
        return keep(up);
    }
    if let Some(ports) = running() {
        println!("it is up already");
        return announce(&ports);
    }
    setup::run()?;
    build()?;
    let step = |what: &str, e: std::io::Error| Failure::Step(format!("{what}: {e}"));
    fs::create_dir_all(folder()).map_err(|e| step("could not make a folder", e))?;
    let _ = fs::remove_file(ports_file());
    let said = folder().join("said.txt");
    let file = || fs::File::create(&said).map_err(|e| step("could not make a file", e));
    let exe = std::env::current_exe().map_err(|e| step("where is this program?", e))?;
    let mut command = Command::new(exe);
    command.args(["up", "--keep"]);
    command.args(["--nodes", &up.nodes.to_string(), "--logins", &up.logins.to_string()]);
    command.stdin(Stdio::null()).stdout(file()?);
    let err = fs::File::options().append(true).open(&said).map_err(|e| step("could not open a file", e))?;
    // In a group of its own: a Ctrl-C at this terminal is not meant for it.
    let mut keeper =
        command.stderr(err).process_group(0).spawn().map_err(|e| shell::could_not_run(&command, &e))?;
    let mut shown = 0;
    let end = Instant::now() + PATIENCE;
    loop {
        shown = show(&said, shown);
        if let Some(ports) = running() {
            show(&said, shown);
            return announce(&ports);
        }
        if let Ok(Some(status)) = keeper.try_wait() {
            show(&said, shown);
            return Err(Failure::Step(format!("it did not come up ({status})")));
        }
        if Instant::now() > end {
            let _ = keeper.kill();
            return Err(Failure::Step(format!("it was not up within {PATIENCE:?}")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ends what is up.
pub(crate) fn down() -> Result<(), Failure> {
    let Some(pid) = running().as_ref().and_then(keeper_of) else {
        println!("nothing is up");
        return Ok(());
    };
    println!("ending the cluster of process {}", pid.as_raw_nonzero());
    let _ = kill_process(pid, Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while test_kill_process(pid).is_ok() && !is_zombie(pid) {
        if Instant::now() > end {
            return Err(Failure::Step(format!("process {} still runs", pid.as_raw_nonzero())));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::remove_file(ports_file());
    println!("it is down, and its data is gone");
    Ok(())
}

/// Builds the programs of a cluster, and the client.
pub(crate) fn build() -> Result<(), Failure> {
    let mut command = shell::cargo(["build", "--release", "-p", "chatd", "-p", "chatcli", "-p", "logd"]);
    shell::run("the build", command.args(["--bin", "chatd", "--bin", "chatcli", "--bin", "logd"]))
}

/// Starts a cluster of the release programs, saying what is being started.
pub(crate) fn start(nodes: usize, logins: usize) -> Result<Cluster, Failure> {
    if !Cluster::available() {
        return Err(Failure::Missing("a cluster needs more than is here (cargo xtask setup)".to_owned()));
    }
    let bin = |name| shell::release_dir().join(name);
    let began = Instant::now();
    Cluster::builder(bin("chatd"), bin("logd"))
        .nodes(nodes)
        .logins(logins)
        .real_passwords()
        .start(|what| {
            println!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
            let _ = std::io::stdout().flush();
        })
        .map_err(|e| Failure::Step(e.to_string()))
}

/// Starts everything and holds it until it is told to end.
fn keep(up: &Up) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|e| Failure::Step(format!("cannot wait for signals: {e}")))?;
    let cluster = start(up.nodes, up.logins)?;
    let text = format!("{:#}\n", ports(&cluster));
    let new = folder().join("ports.new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, ports_file()));
    written.map_err(|e| Failure::Step(format!("could not write the ports: {e}")))?;
    let _ = signals.forever().next();
    cluster.shut_down();
    Ok(())
}

/// Where everything is.
fn ports(cluster: &Cluster) -> Value {
    let nodes: Vec<Value> = cluster
        .nodes
        .iter()
        .map(|n| {
            json!({"chat": n.chat_addr().port(), "admin": n.admin_addr().port(), "pid": n.pid(),
                "log": n.log_path()})
        })
        .collect();
    let logins: Vec<Value> = cluster
        .logins
        .iter()
        .map(|l| json!({"rpc": l.rpc_addr().port(), "admin": l.admin_addr().port(), "pid": l.pid()}))
        .collect();
    json!({
        "keeper": std::process::id(),
        "chat": cluster.addr().port(),
        "chatd": nodes,
        "logd": logins,
        "mysql": cluster.maria.url("chat"),
        "redis": cluster.redis.url(),
        "zookeeper": cluster.zookeeper.as_ref().map(|z| z.addr().to_string()),
    })
}

/// What the ports file says, if its keeper lives.
pub(crate) fn running() -> Option<Value> {
    let ports: Value = serde_json::from_str(&fs::read_to_string(ports_file()).ok()?).ok()?;
    let pid = keeper_of(&ports)?;
    // The id may have gone to another program since.
    let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    (command.contains("--keep") && !is_zombie(pid)).then_some(ports)
}

fn keeper_of(ports: &Value) -> Option<Pid> {
    ports.get("keeper")?.as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Prints what has been added to the file since; how far that is.
fn show(said: &Path, from: usize) -> usize {
    let text = fs::read_to_string(said).unwrap_or_default();
    if let Some(new) = text.get(from..) {
        print!("{new}");
        let _ = std::io::stdout().flush();
    }
    text.len()
}

fn announce(ports: &Value) -> Result<(), Failure> {
    let chat = ports.get("chat").and_then(Value::as_u64);
    let chat = chat.ok_or_else(|| Failure::Step(format!("a strange ports file: {ports}")))?;
    println!("clients connect to 127.0.0.1:{chat}, for instance");
    println!("  {} --connect 127.0.0.1:{chat}", shell::release_dir().join("chatcli").display());
    println!("all ports are in {}; `cargo xtask down` ends it", ports_file().display());
    Ok(())
}
