//! What the support for private servers promises, shown with a shell script in the server's place.
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
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Chatd, process, wait_until};

const LONG: Duration = Duration::from_secs(20);

/// Says its arguments on stderr, does `before`, writes the ports file by rename, then waits for SIGTERM.
fn fake(before: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fake-chatd");
    let script = format!(
        r#"#!/bin/sh
echo "args: $*" >&2
echo "home: ${{CHATD_NODE-unset}} ${{GIVEN-unset}}" >&2
{before}
while [ $# -gt 0 ]; do
    case "$1" in
        --ports-file) ports=$2 ;;
        --data-dir) data=$2 ;;
        --log-file) log=$2 ;;
        --config) config=$2 ;;
    esac
    shift
done
mkdir -p "$data"
cat "$config" >> "$log"
trap 'echo drained >&2; exit 0' TERM
echo '{{"chat":4001,"admin":4002,"pid":'$$'}}' > "$ports.new"
mv "$ports.new" "$ports"
while :; do sleep 0.02; done
"#
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

#[test]
fn a_started_server_is_known_by_its_ports_file_and_drains_on_sigterm() {
    let (_dir, bin) = fake("");
    let chatd = Chatd::builder(&bin).arg("--extra").env("GIVEN", "yes").start().unwrap();
    assert_eq!((chatd.chat_addr().port(), chatd.admin_addr().port()), (4001, 4002));
    assert!(chatd.is_running() && chatd.data_dir().is_dir());
    let said = chatd.stderr();
    assert!(said.contains("--listen 127.0.0.1:0 --admin 127.0.0.1:0"), "{said}");
    assert!(said.contains("--rate-limits off") && said.contains("--extra") && said.contains("yes"), "{said}");
    assert!(chatd.log_text().contains("hash_memory_kib = 64"));
    chatd.terminate();
    assert_eq!(chatd.wait_exit(LONG).code(), Some(0));
    assert!(chatd.stderr().contains("drained"));
    // A signal to one that has ended reaches nobody and is no error.
    chatd.terminate();
}

#[test]
fn a_restart_uses_the_same_ports_and_data_and_a_new_process() {
    let (_dir, bin) = fake("");
    let chatd = Chatd::builder(&bin).config("# mine\n").more_config("# and more\n").start().unwrap();
    let first = chatd.pid();
    fs::write(chatd.data_dir().join("kept"), "x").unwrap();
    chatd.kill9();
    assert_eq!(chatd.wait_exit(LONG).signal(), Some(9));
    chatd.restart().unwrap();
    assert_ne!(chatd.pid(), first);
    assert!(chatd.is_running() && chatd.data_dir().join("kept").exists());
    assert!(chatd.stderr().contains("--listen 127.0.0.1:4001 --admin 127.0.0.1:4002"));
    assert!(chatd.log_text().contains("# mine\n\n# and more"));
    // One that still runs is drained first.
    chatd.restart().unwrap();
    assert!(chatd.stderr().contains("drained"));
}

#[test]
fn dropping_a_server_ends_it_and_removes_only_its_own_folder() {
    let (_dir, bin) = fake("");
    let given = tempfile::tempdir().unwrap();
    let other = Chatd::builder(&bin).data_dir(given.path()).start().unwrap();
    let own = Chatd::builder(&bin).start().unwrap();
    let (pids, own_data) = ([other.pid(), own.pid()], own.data_dir().to_owned());
    drop((other, own));
    assert!(pids.iter().all(|pid| !process::is_alive(*pid)));
    assert!(given.path().exists() && !own_data.exists());
}

#[test]
fn under_a_wrapper_the_pid_is_the_servers_own_and_both_end() {
    let (_dir, bin) = fake("");
    // A wrapper that stays as the parent.
    let chatd = Chatd::builder(&bin).wrap(["sh", "-c", "\"$@\"; exit $?", "wrapper"]).start().unwrap();
    let pid = chatd.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(status.contains("fake-chatd") && !status.contains("wrapper"), "{status:?}");
    chatd.terminate();
    assert_eq!(chatd.wait_exit(LONG).code(), Some(0));

    let chatd = Chatd::builder(&bin).wrap(["sh", "-c", "\"$@\"; exit $?", "wrapper"]).start().unwrap();
    let pid = chatd.pid();
    drop(chatd);
    wait_until("the server under the wrapper is gone", LONG, || !process::is_alive(pid));
}

#[test]
fn a_refused_start_is_an_error_with_its_words_and_its_code() {
    let (_dir, bin) = fake("echo 'the folder is in use' >&2; exit 2");
    let error = Chatd::builder(&bin).start().unwrap_err();
    assert_eq!(error.exit_code(), Some(2));
    assert!(error.stderr().contains("in use") && error.to_string().contains("in use"), "{error}");

    let report = Chatd::builder(&bin).arg("--first").run_expecting_exit(["--check"]).unwrap();
    assert_eq!((report.code, report.stdout.as_str()), (Some(2), ""));
    assert!(report.stderr.starts_with("args: --first --check\n"), "{}", report.stderr);

    assert!(Chatd::builder("/nonexistent/chatd").start().unwrap_err().to_string().contains("could not run"));
}

#[test]
fn a_killed_test_process_leaves_no_server_and_no_folder_behind() {
    const CHILD: &str = "TESTKIT_TEST_CHILD";
    if let Some(note) = std::env::var_os(CHILD) {
        // The child's half: a server that will never be dropped.
        let (_dir, bin) = fake("");
        let chatd = Chatd::builder(&bin).start().unwrap();
        let note = PathBuf::from(note);
        let text = format!("{}\n{}", chatd.pid(), chatd.log_path().parent().unwrap().display());
        fs::write(note.with_extension("new"), text).unwrap();
        fs::rename(note.with_extension("new"), &note).unwrap();
        loop {
            std::thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_test_process_leaves_no_server_and_no_folder_behind"])
        .env(CHILD, &note)
        // For the script, which the child cannot remove.
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the child's server runs", LONG, || note.exists());
    let text = fs::read_to_string(&note).unwrap();
    let (pid, scratch) = text.split_once('\n').unwrap();
    let pid = pid.parse().unwrap();
    assert!(process::is_alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the server has ended", LONG, || !process::is_alive(pid));
    wait_until("its folder is removed", LONG, || !Path::new(scratch).exists());
}

#[test]
fn a_paused_server_goes_on_when_resumed() {
    let (_dir, bin) = fake("");
    let chatd = Chatd::builder(&bin).start().unwrap();
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", chatd.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    chatd.pause();
    wait_until("it is stopped", LONG, || state() == 'T');
    chatd.resume();
    wait_until("it runs again", LONG, || state() != 'T');
}
