//! The operator's commands: `admin` through the running server, `backup` while it runs, `import` into a database.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::{Chatd, MariaDb};

const PASSWORD: &str = "correct horse";

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `chatd` with these arguments and this input.
fn chatd(args: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn admin(server: &Chatd, args: &[&str], input: &str) -> Said {
    let folder = server.data_dir().to_str().unwrap();
    chatd(&[&["admin"], args, &["--data-dir", folder]].concat(), input)
}

#[track_caller]
fn done(said: &Said) {
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.starts_with("done: user "), "{}", said.out);
}

fn start(folder: &Path) -> Chatd {
    Chatd::builder(env!("CARGO_BIN_EXE_chatd")).data_dir(folder).start().unwrap()
}

fn register(server: &Chatd, name: &str) {
    server.client().ok(json!({"type": "register", "name": name, "password": PASSWORD}));
}

#[test]
fn users_and_sessions_are_listed() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    for name in ["amy", "bob", "cat"] {
        register(&server, name);
    }
    let mut amy = server.client();
    amy.login("amy", PASSWORD);
    let said = admin(&server, &["users"], "");
    let lines: Vec<Vec<&str>> = said.out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[1]).collect::<Vec<_>>(), ["amy", "bob", "cat"], "{}", said.err);
    assert_eq!((lines[0][3], lines[1][3]), ("online", ""));
    assert_eq!(admin(&server, &["users", "--after", "1", "--limit", "1"], "").out.lines().count(), 1);
    let sessions = admin(&server, &["sessions"], "").out;
    assert!(sessions.lines().count() == 1 && sessions.contains("\tamy"), "{sessions}");
}

#[test]
fn a_disabled_user_is_out_until_it_is_enabled() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    register(&server, "amy");
    let mut amy = server.client();
    let token = amy.login("amy", PASSWORD)["token"].as_str().unwrap().to_owned();
    done(&admin(&server, &["disable", "AMY"], ""));
    amy.expect_bye("logged_out");
    let login = json!({"type": "login", "name": "amy", "password": PASSWORD});
    server.client().err(login.clone(), "unauthorized");
    server.client().err(json!({"type": "login", "token": token}), "unauthorized");
    assert!(admin(&server, &["users"], "").out.contains("disabled"));
    // A new password alone lets nobody in.
    done(&admin(&server, &["reset-password", "amy"], "another horse\n"));
    server.client().err(json!({"type": "login", "name": "amy", "password": "another horse"}), "unauthorized");
    done(&admin(&server, &["enable", "amy"], ""));
    server.client().err(login, "unauthorized");
    server.client().ok(json!({"type": "login", "name": "amy", "password": "another horse"}));
}

#[test]
fn a_revoked_user_is_logged_out_and_may_log_in_again() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    register(&server, "amy");
    let mut amy = server.client();
    let token = amy.login("amy", PASSWORD)["token"].as_str().unwrap().to_owned();
    done(&admin(&server, &["revoke", "1"], ""));
    amy.expect_bye("logged_out");
    server.client().err(json!({"type": "login", "token": token}), "unauthorized");
    server.client().ok(json!({"type": "login", "name": "amy", "password": PASSWORD}));
}

#[test]
fn a_deleted_user_leaves_its_groups_and_its_name_and_its_messages_stay() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    let (mut amy, mut bob) = (server.client_as("amy"), server.client_as("bob"));
    let group = amy.ok(json!({"type": "group_create", "name": "tea", "open": true}))["conv"].clone();
    bob.ok(json!({"type": "group_join", "conv": group}));
    amy.ok(json!({"type": "friend_request", "user": "bob"}));
    bob.ok(json!({"type": "friend_accept", "user": "amy"}));
    let conv = amy.ok(json!({"type": "send", "user": "bob", "text": "remember me"}))["conv"].clone();
    assert_eq!(admin(&server, &["delete", "amy"], "").code, Some(2), "not without --yes");
    done(&admin(&server, &["delete", "amy", "--yes"], ""));
    amy.expect_bye("logged_out");
    let members = bob.ok(json!({"type": "group_members", "conv": group}));
    assert_eq!(
        (members["members"].as_array().unwrap().len(), &members["members"][0]["role"]),
        (1, &json!("owner"))
    );
    assert_eq!(bob.ok(json!({"type": "friends"}))["friends"], json!([]));
    let page = bob.ok(json!({"type": "history", "conv": conv}));
    assert_eq!(page["messages"][0]["text"], json!("remember me"));
    assert!(page["messages"][0]["from_name"].as_str().unwrap().starts_with("deleted."), "{page}");
    register(&server, "amy");
}

#[test]
fn mistakes_are_told() {
    let server = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).start().unwrap();
    for (args, says) in
        [(&["disable", "nobody"][..], "nobody"), (&["revoke", "77"], "77"), (&["enable", "a b"], "a b")]
    {
        let said = admin(&server, args, "");
        assert!(said.code == Some(1) && said.err.contains(says), "{args:?}: {}", said.err);
    }
    register(&server, "amy");
    assert_eq!(admin(&server, &["reset-password", "amy"], "").code, Some(2));
    assert_eq!(admin(&server, &["reset-password", "amy"], "short\n").code, Some(1));
    let folder = tempfile::tempdir().unwrap();
    let said = chatd(&["admin", "users", "--data-dir", folder.path().to_str().unwrap()], "");
    assert!(said.code == Some(1) && said.err.contains("is it running"), "{}", said.err);
    let mode = std::fs::metadata(server.data_dir().join("control.sock")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o077, 0, "for its owner only");
}

#[test]
fn a_backup_is_made_while_the_server_runs_and_serves_as_a_data_folder() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(folder.path());
    let (mut amy, _bob) = (server.client_as("amy"), server.client_as("bob"));
    for number in 0..20 {
        amy.ok(json!({"type": "send", "user": "bob", "text": number.to_string()}));
    }
    let file = copy.path().join("chat.sqlite3");
    let args = ["backup", file.to_str().unwrap(), "--data-dir", folder.path().to_str().unwrap()];
    let said = chatd(&args, "");
    assert!(said.code == Some(0) && said.out.contains("checked"), "{} {}", said.out, said.err);
    assert_eq!(chatd(&args, "").code, Some(1), "nothing is overwritten");
    let again = start(copy.path());
    let mut bob = again.client();
    bob.login("bob", Chatd::PASSWORD);
    for number in 0..20 {
        assert_eq!(bob.next_push("message")["text"], json!(number.to_string()));
    }
}

#[test]
fn an_import_moves_everything_to_a_server() {
    if !MariaDb::available() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let old = start(folder.path());
    let (mut amy, mut bob) = (old.client_as("amy"), old.client_as("bob"));
    let group = amy.ok(json!({"type": "group_create", "name": "tea \u{2615}", "open": true}))["conv"].clone();
    bob.ok(json!({"type": "group_join", "conv": group}));
    amy.ok(json!({"type": "friend_request", "user": "bob"}));
    let texts: Vec<String> =
        (0..50).map(|number| format!("{number} \u{1f600} 'quoted' \\ \u{4e2d}\u{6587}")).collect();
    for (number, text) in texts.iter().enumerate() {
        amy.ok(json!({"type": "send", "user": "bob", "client_id": number.to_string(), "text": text}));
    }
    let database = MariaDb::start().unwrap();
    let url = database.url("chat");
    let args = ["import", "--from", folder.path().to_str().unwrap(), "--to", &url];
    let said = chatd(&args, "");
    assert!(said.code == Some(1) && said.err.contains("in use"), "while it runs: {}", said.err);
    drop((amy, bob, old));
    let said = chatd(&args, "");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("message\t52 rows, compared"), "{}", said.out);
    let said = chatd(&args, "");
    assert!(said.code == Some(1) && said.err.contains("not empty"), "{}", said.err);

    let new = Chatd::builder(env!("CARGO_BIN_EXE_chatd")).arg("--mysql").arg(&url).start().unwrap();
    let mut bob = new.client();
    bob.login("bob", Chatd::PASSWORD);
    let seen: Vec<_> = (0..51).map(|_| bob.next_push("message")).collect();
    let direct: Vec<_> =
        seen.iter().filter(|push| push["kind"] == "direct").map(|push| push["text"].clone()).collect();
    assert_eq!(direct, texts.iter().map(|text| json!(text)).collect::<Vec<_>>());
    assert_eq!(bob.next_push("friend")["event"], json!("requested"));
    let mut amy = new.client();
    amy.login("amy", Chatd::PASSWORD);
    let again = amy.ok(json!({"type": "send", "user": "bob", "client_id": "7", "text": texts[7]}));
    assert_eq!(again["duplicate"], json!(true));
    // Ids go on.
    let third = new.client_as("cat");
    drop(third);
    amy.ok(json!({"type": "send", "user": "cat", "text": "hi"}));
}
