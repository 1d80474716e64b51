//! `cargo xtask play`: a server and two clients side by side.

use std::env;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::Server;
use crate::shell::{self, Failure};
use crate::up;

const BY_HAND: &str = "To do the same by hand, in three terminals:
  cargo run --release -p chatd
  cargo run --release -p chatcli        (twice; register two names and write to each other)";

/// tmux's look: the mouse chooses a side, and the bottom line says how to leave.
const TMUX_CONF: &str = "set -g mouse on
set -g status-left ''
set -g status-right ''
set -g status-style 'bg=default,fg=colour8'
set -g window-status-current-format 'two clients · Ctrl-b and an arrow: the other side · Ctrl-b d: end both and the server'
set -g status-position bottom
set -g status-justify left
set -sg escape-time 10
set -g default-terminal screen-256color
";

/// Builds, starts, attaches; stops the server at the end.
pub(crate) fn run(data_dir: Option<&Path>) -> Result<(), Failure> {
    can_play()?;
    shell::run("the build", &mut shell::cargo(["build", "--release", "-p", "chatd", "-p", "chatcli"]))?;
    let server = Server::start(&env::temp_dir(), data_dir, "", &[])?;
    println!("chatd listens on {}, its admin pages on http://{}", server.addr(), server.admin());
    attach(server.dir(), &server.addr())?;
    println!("stopping chatd");
    let log = fs::read_to_string(server.log()).unwrap_or_default();
    drop(server);
    // What went wrong is worth a look; the file itself is gone now.
    log.lines().filter(|l| l.split(' ').nth(1) == Some("E")).for_each(|l| println!("{l}"));
    Ok(())
}

/// The same with the two clients on different nodes of a cluster.
pub(crate) fn run_cluster() -> Result<(), Failure> {
    can_play()?;
    up::build()?;
    let cluster = up::start(3, 2)?;
    let dir =
        tempfile::tempdir().map_err(|e| Failure::Step(format!("could not make a temporary folder: {e}")))?;
    println!("nginx listens on {} before {} chatd", cluster.addr(), cluster.nodes.len());
    // It gives each new connection to the next node.
    attach(dir.path(), &cluster.addr().to_string())?;
    println!("stopping the cluster");
    cluster.shut_down();
    Ok(())
}

fn can_play() -> Result<(), Failure> {
    if !shell::has("tmux") {
        return Err(Failure::Missing(format!("play needs tmux (cargo xtask setup installs it).\n{BY_HAND}")));
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::Missing(format!("play needs a terminal.\n{BY_HAND}")));
    }
    Ok(())
}

/// Two clients of the server at `addr` next to each other, until they are left. The files of it go into `dir`.
fn attach(dir: &Path, addr: &str) -> Result<(), Failure> {
    let conf = dir.join("tmux.conf");
    fs::write(&conf, TMUX_CONF)
        .map_err(|e| Failure::Step(format!("could not write tmux's configuration: {e}")))?;
    let tmux = || {
        let mut command = Command::new("tmux");
        // A server of its own, so that this also works from inside somebody's tmux.
        command.arg("-u").arg("-S").arg(dir.join("tmux")).arg("-f").arg(&conf).env_remove("TMUX");
        command
    };
    let client = client_command(&shell::release_dir().join("chatcli"), addr);
    shell::run("tmux", tmux().args(["new-session", "-d", "-x", "160", "-y", "40"]).args(&client))?;
    // From here on tmux's server runs; it is ended whatever the rest does.
    let split = shell::run("tmux", tmux().args(["split-window", "-h"]).args(&client));
    let attached = split.and_then(|()| {
        let mut command = tmux();
        command.arg("attach-session");
        command.status().map(|_| ()).map_err(|e| shell::could_not_run(&command, &e))
    });
    // Fails when both clients have been left, since the server then is gone already.
    let _ = tmux().arg("kill-server").stdin(Stdio::null()).stderr(Stdio::null()).status();
    attached
}

/// How chatcli is told where the server is.
fn client_command(bin: &Path, addr: &str) -> Vec<String> {
    vec![bin.display().to_string(), "--connect".into(), addr.to_owned()]
}
