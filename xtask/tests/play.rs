//! `cargo xtask play` in a terminal, with shell scripts in the place of cargo and of the programs it builds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Tmux, process, wait_until};

const LONG: Duration = Duration::from_secs(20);

const CHATD: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo $$ > "$here/pid"
while [ $# -gt 0 ]; do
    [ "$1" = --ports-file ] && ports=$2
    [ "$1" = --data-dir ] && mkdir -p "$2"
    shift
done
trap 'touch "$here/drained"; exit 0' TERM
echo '{"chat":4001,"admin":4002,"pid":'$$'}' > "$ports.new" && mv "$ports.new" "$ports"
while :; do sleep 0.02; done
"#;

const CHATCLI: &str = r#"#!/bin/sh
echo "client of $*"
read -r _
"#;

/// A target folder that holds the scripts, and a cargo that builds nothing.
fn fakes() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("release/chatd", CHATD);
    script("release/chatcli", CHATCLI);
    script("cargo", "#!/bin/sh\nexit 0\n");
    dir
}

fn play(dir: &Path) -> Tmux {
    let cargo = dir.join("cargo").display().to_string();
    let target = dir.display().to_string();
    let env = [("CARGO", cargo.as_str()), ("CARGO_TARGET_DIR", target.as_str()), ("TMPDIR", target.as_str())];
    Tmux::new(110, 20, &[env!("CARGO_BIN_EXE_xtask"), "play"], &env)
}

/// Both clients are on the screen; the server's process id.
fn wait_for_both(tmux: &Tmux, dir: &Path) -> u32 {
    tmux.wait_for_screen("two clients", LONG, |s| {
        s.matches("client of --connect 127.0.0.1:4001").count() == 2
    });
    fs::read_to_string(dir.join("release/pid")).unwrap().trim().parse().unwrap()
}

/// Whether a server's temporary folder is left.
fn leftovers(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with("chatd-"))
}

/// Whether a process runs that has `word` among its arguments.
fn runs(word: &str) -> bool {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let has_word = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|arg| arg == word)
    };
    pids.into_iter().any(|pid| has_word(&pid))
}

#[test]
fn leaving_play_drains_the_server_and_removes_its_folder() {
    if !Tmux::available() {
        return;
    }
    let dir = fakes();
    let tmux = play(dir.path());
    let pid = wait_for_both(&tmux, dir.path());
    assert!(process::is_alive(pid));
    tmux.send_keys(&["C-b"]);
    tmux.send_keys(&["d"]);
    assert_eq!(tmux.wait_exit(LONG), 0);
    assert!(dir.path().join("release/drained").exists() && !process::is_alive(pid));
    assert!(!leftovers(dir.path()));
}

#[test]
fn play_ends_when_both_clients_have_been_left() {
    if !Tmux::available() {
        return;
    }
    let dir = fakes();
    let tmux = play(dir.path());
    let pid = wait_for_both(&tmux, dir.path());
    tmux.send_keys(&["Enter"]);
    tmux.wait_for_screen("one client", LONG, |s| s.matches("client of").count() == 1);
    tmux.send_keys(&["Enter"]);
    assert_eq!(tmux.wait_exit(LONG), 0);
    assert!(!process::is_alive(pid));
}

#[test]
fn a_closed_terminal_leaves_no_server_behind() {
    if !Tmux::available() {
        return;
    }
    let dir = fakes();
    let tmux = play(dir.path());
    let pid = wait_for_both(&tmux, dir.path());
    assert!(runs(&dir.path().join("release/chatcli").display().to_string()));
    drop(tmux);
    wait_until("the server has ended", LONG, || !process::is_alive(pid));
    assert!(dir.path().join("release/drained").exists());
    // The folder goes last: behind the clients' tmux and the server.
    wait_until("its folder is removed", LONG, || !leftovers(dir.path()));
    let clients = dir.path().join("release/chatcli").display().to_string();
    wait_until("the clients have ended", LONG, || !runs(&clients));
}

#[test]
fn a_server_that_does_not_start_is_named_with_its_words() {
    if !Tmux::available() {
        return;
    }
    let dir = fakes();
    fs::write(dir.path().join("release/chatd"), "#!/bin/sh\necho 'the disk is on fire' >&2\nexit 1\n")
        .unwrap();
    let tmux = play(dir.path());
    assert_eq!(tmux.wait_exit(LONG), 1);
    tmux.wait_for("the disk is on fire", LONG);
}
