//! Script mode: two people, what they missed, and what their scripts are told.

use std::net::SocketAddr;

use crate::chatd;
use crate::person::{PASSWORD, Person, chatcli, run};

/// The texts of `message` lines, in their order.
fn texts(lines: &[String]) -> Vec<String> {
    let quoted = |line: &String| line.splitn(5, ' ').nth(4).map(str::to_owned);
    lines
        .iter()
        .filter(|line| line.starts_with("message "))
        .map(|line| serde_json::from_str(&quoted(line).unwrap()).unwrap())
        .collect()
}

#[test]
fn two_people_chat_both_ways() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut bob = Person::join(&chatd, "bob");
    amy.say("send bob hi bob");
    bob.wait_for(r#"message 1 1 amy "hi bob""#);
    bob.say(r#"send amy "hi\namy \u001f""#);
    bob.wait_for(r#"error bad_request "the text has a control character""#);
    bob.say(r#"send amy "two\nlines, grüße 漢字 👋""#);
    amy.wait_for(r#"message 1 2 bob "two\nlines, grüße 漢字 👋""#);
    amy.say("read bob");
    amy.wait_for("marked 1 2");
    bob.wait_for("read 1 2 amy");
    amy.wait_for("delivered 1 2 bob");
    amy.say("who bob");
    amy.wait_for("user 2 bob online");
    amy.say("history bob 10");
    amy.wait_for("history 1 2 all");
    assert_eq!(
        amy.events("entry"),
        [r#"entry 1 1 amy "hi bob""#, r#"entry 1 2 bob "two\nlines, grüße 漢字 👋""#]
    );
    amy.say("conversations");
    amy.wait_for("conversation 1 0 2 bob");
    let (status, _) = amy.end();
    assert_eq!(status.code(), Some(0));
    let (status, _) = bob.end();
    assert_eq!(status.code(), Some(1), "one of bob's commands failed");
}

#[test]
fn they_go_away_and_come_back_to_what_they_missed() {
    let chatd = chatd();
    Person::join(&chatd, "bob").end();
    let mut amy = Person::join(&chatd, "amy");
    for n in 1..=300 {
        amy.say(&format!("send bob message {n}"));
    }
    let (status, said) = amy.end();
    assert_eq!(status.code(), Some(0), "it waited for its answers");
    assert_eq!(said.iter().filter(|line| line.starts_with("sent 1 ")).count(), 300);

    let script = format!("login bob {PASSWORD}\nwait message 300\nwait synced\nsend amy got all of them\n");
    let (code, said) = run(chatcli(chatd.chat_addr()), &script);
    assert_eq!(code, Some(0), "{said:#?}");
    assert_eq!(texts(&said), Vec::from_iter((1..=300).map(|n| format!("message {n}"))));

    // What was acked then does not come again.
    let script = format!("login bob {PASSWORD}\nwait synced\nhistory amy 300\n");
    let (code, said) = run(chatcli(chatd.chat_addr()), &script);
    assert_eq!((code, texts(&said)), (Some(0), Vec::new()));
    assert_eq!(said.iter().filter(|line| line.starts_with("entry ")).count(), 300);
    assert_eq!(said.last().map(String::as_str), Some("history 1 300 more"));

    let script = format!("login amy {PASSWORD}\nwait message\n");
    let (code, said) = run(chatcli(chatd.chat_addr()), &script);
    assert_eq!((code, texts(&said)), (Some(0), vec!["got all of them".to_owned()]));
}

#[test]
fn a_shell_script_drives_two_people() {
    let chatd = chatd();
    let script = format!(
        r#"
set -e
chatcli() {{ "{bin}" --connect {addr} --timeout 25; }}
printf '%s\n' 'register amy {PASSWORD}' 'register bob {PASSWORD}' | chatcli
{{ printf '%s\n' 'login bob {PASSWORD}' 'wait message 1' 'send amy hello yourself'; }} | chatcli > "$1/bob.txt" &
bob=$!
printf '%s\n' 'login amy {PASSWORD}' 'send bob hello' 'wait message 1' | chatcli > "$1/amy.txt"
wait $bob
"#,
        bin = env!("CARGO_BIN_EXE_chatcli"),
        addr = chatd.chat_addr()
    );
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(dir.path())
        .output()
        .expect("run the script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(said("bob.txt").contains(r#"message 1 1 amy "hello""#), "{}", said("bob.txt"));
    assert!(said("amy.txt").contains(r#"message 1 2 bob "hello yourself""#), "{}", said("amy.txt"));
}

#[test]
fn a_token_logs_in_until_it_is_revoked() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    amy.say("token");
    amy.wait_until("a token", |said| said.iter().any(|line| line.starts_with("token ")));
    let token = amy.events("token")[0]["token ".len()..].to_owned();
    let script = format!("token {token}\nwait synced\n");
    let (code, said) = run(chatcli(chatd.chat_addr()), &script);
    assert_eq!(code, Some(0), "{said:#?}");
    amy.say("logout");
    amy.wait_for("offline \"logged out\"");
    let (code, said) = run(chatcli(chatd.chat_addr()), &format!("token {token}\n"));
    assert_eq!(code, Some(1));
    assert!(said.iter().any(|line| line.starts_with("error unauthorized ")), "{said:#?}");
    // And the same program can log in again.
    amy.say(&format!("login amy {PASSWORD}"));
    amy.wait_until("another login", |said| {
        said.iter().filter(|line| line.starts_with("online ")).count() == 2
    });
}

#[test]
fn a_failed_command_is_said_and_makes_the_exit_code_1() {
    let chatd = chatd();
    let bad = format!("login amy {PASSWORD}\nwho nobody\n\n# a comment\ndance\nregister amy {PASSWORD}\n");
    let errors = |said: &[String]| {
        let errors = said.iter().filter_map(|line| line.strip_prefix("error "));
        errors.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (code, said) = run(chatcli(chatd.chat_addr()), &bad);
    assert_eq!(code, Some(1));
    assert_eq!(errors(&said), ["unauthorized", "not_logged_in", "usage"]);
    assert!(said.iter().any(|line| line.starts_with("registered ")), "it went on");

    let bad = bad.replace("amy", "carol");
    let mut command = chatcli(chatd.chat_addr());
    command.arg("--keep-going=false");
    let (code, said) = run(command, &bad);
    assert_eq!((code, errors(&said)), (Some(1), vec!["unauthorized".to_owned()]));
}

#[test]
fn nobody_there_is_a_timeout_and_not_for_ever() {
    let addr = SocketAddr::from(([127, 0, 0, 1], testkit::free_port()));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chatcli"));
    command.args(["--connect", &addr.to_string(), "--timeout", "0.3"]);
    let (code, said) = run(command, &format!("login amy {PASSWORD}\n"));
    assert_eq!(code, Some(1));
    assert!(said.iter().any(|line| line.starts_with("disconnected ")), "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("error timeout ")), "{said:#?}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chatcli"));
    command.args(["--connect", "nowhere"]);
    assert_eq!(run(command, "").0, Some(2));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chatcli"));
    command.args(["--password", "x"]);
    assert_eq!(run(command, "").0, Some(2));
}

#[test]
fn a_log_has_no_password_no_token_and_no_text() {
    let chatd = chatd();
    let dir = tempfile::tempdir().unwrap();
    let mut command = chatcli(chatd.chat_addr());
    command.env("XDG_STATE_HOME", dir.path()).env("CHATCLI_LOG", "trace").arg("--log-file");
    let script = format!(
        "register amy {PASSWORD}\nregister bob {PASSWORD}\nlogin amy {PASSWORD}\nsend bob a private matter\nwait sent\ntoken\n"
    );
    let (code, said) = run(command, &script);
    assert_eq!(code, Some(0), "{said:#?}");
    let token = said.iter().find_map(|line| line.strip_prefix("token ")).expect("a token");
    let log = std::fs::read_to_string(dir.path().join("chatcli/chatcli.log")).unwrap();
    assert!(log.contains("connected to 127.0.0.1"), "{log}");
    for secret in [PASSWORD, token, "private matter"] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[test]
fn several_waits_miss_nothing_and_count_nothing_twice() {
    let chatd = chatd();
    let mut bob = Person::join(&chatd, "bob");
    let mut amy = Person::join(&chatd, "amy");
    for n in 0..6 {
        amy.say(&format!("send bob {n}"));
    }
    bob.wait_until("six messages", |said| {
        said.iter().filter(|line| line.starts_with("message ")).count() == 6
    });
    for line in ["wait message 2", "wait message 4", "wait message 1 1", "who amy"] {
        bob.say(line);
    }
    bob.wait_for("user 2 amy online");
    assert_eq!(bob.events("error"), [r#"error timeout "0 of 1 `message` came""#]);
}

#[test]
fn a_password_is_changed_by_who_knows_the_old_one() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut elsewhere = Person::new(chatd.chat_addr(), "amy");
    elsewhere.say(&format!("login amy {PASSWORD}"));
    elsewhere.wait_for("synced");
    // The old one must be one word here.
    amy.say("password wrong-password new-password-1");
    amy.wait_for("error unauthorized");
    let mut bob = Person::new(chatd.chat_addr(), "bob");
    bob.say("register bob first-password");
    bob.say("login bob first-password");
    bob.wait_for("synced");
    bob.say("password first-password second password");
    bob.wait_for("done");
    bob.say("logout");
    bob.wait_for("offline");
    bob.say("login bob first-password");
    bob.wait_for("error unauthorized");
    bob.say("login bob second password");
    bob.wait_until("a second `online`", |said| {
        said.iter().filter(|line| line.starts_with("online ")).count() == 2
    });
    assert!(elsewhere.events("offline").is_empty(), "a refused change ends nothing");
}
