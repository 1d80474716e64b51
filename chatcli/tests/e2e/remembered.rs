//! Logins that are remembered from one run to the next.

use std::path::Path;

use serde_json::json;
use testkit::{Chatd, Tmux};

use crate::person::PASSWORD;
use crate::terminal::register;
use crate::{LONG, chatd};

/// A screen of somebody whose state folder is `state`.
fn open(chatd: &Chatd, state: &Path, more: &[&str]) -> Tmux {
    let addr = chatd.chat_addr().to_string();
    let command = [&[env!("CARGO_BIN_EXE_chatcli"), "--connect", &addr], more].concat();
    Tmux::new(80, 24, &command, &[("TZ", "UTC"), ("XDG_STATE_HOME", state.to_str().unwrap())])
}

fn leave(tmux: &Tmux) {
    tmux.send_keys(&["C-c"]);
    assert_eq!(tmux.wait_exit(LONG), 0);
}

#[test]
fn a_login_is_remembered_until_logout() {
    if !Tmux::available() {
        return;
    }
    let (chatd, state) = (chatd(), tempfile::tempdir().unwrap());
    let first = open(&chatd, state.path(), &[]);
    register(&first, "amy");
    leave(&first);
    let again = open(&chatd, state.path(), &[]);
    again.wait_for("online as amy", LONG);
    assert!(!again.capture_all().contains("Password"));
    let other = open(&chatd, state.path(), &["--name", "bob"]);
    other.wait_for("l  log in", LONG);
    register(&other, "bob");
    leave(&other);
    leave(&again);
    let last = open(&chatd, state.path(), &[]);
    last.wait_for("online as bob", LONG);
    let named = open(&chatd, state.path(), &["--name", "AMY"]);
    named.wait_for("online as amy", LONG);
    named.send_line("/logout");
    named.wait_for("l  log in", LONG);
    leave(&named);
    open(&chatd, state.path(), &["--name", "amy"]).wait_for("l  log in", LONG);
    open(&chatd, state.path(), &[]).wait_for("online as bob", LONG);
    open(&chatd, state.path(), &["--no-remember"]).wait_for("l  log in", LONG);
}

#[test]
fn a_remembered_login_that_was_revoked_is_said_and_forgotten() {
    if !Tmux::available() {
        return;
    }
    let (chatd, state) = (chatd(), tempfile::tempdir().unwrap());
    let first = open(&chatd, state.path(), &[]);
    register(&first, "amy");
    leave(&first);
    let mut elsewhere = chatd.client();
    elsewhere.login("amy", PASSWORD);
    elsewhere.ok(json!({"type": "logout", "all": true}));
    let again = open(&chatd, state.path(), &[]);
    again.wait_for("the remembered login is no longer valid", LONG);
    again.send_keys(&["l"]);
    again.wait_for("Name: amy", LONG);
    leave(&again);
    let third = open(&chatd, state.path(), &[]);
    let screen = third.wait_for("l  log in", LONG);
    assert!(!screen.contains("no longer valid"), "{screen}");
}
