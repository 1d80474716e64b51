//! The screen in a real terminal.

use testkit::{Chatd, Tmux};

use crate::person::PASSWORD;
use crate::{LONG, chatd};

pub(crate) fn open(chatd: &Chatd, columns: u16, rows: u16) -> Tmux {
    let addr = chatd.chat_addr().to_string();
    let command = [env!("CARGO_BIN_EXE_chatcli"), "--connect", &addr, "--no-remember"];
    Tmux::new(columns, rows, &command, &[("TZ", "UTC")])
}

/// Opens a screen and registers.
pub(crate) fn join(chatd: &Chatd, name: &str, columns: u16, rows: u16) -> Tmux {
    let tmux = open(chatd, columns, rows);
    register(&tmux, name);
    tmux
}

/// Registers by the form, which is open.
pub(crate) fn register(tmux: &Tmux, name: &str) {
    tmux.wait_for("r  register", LONG);
    tmux.send_keys(&["r"]);
    tmux.wait_for("Name:", LONG);
    tmux.send_line(name);
    tmux.wait_for("Password (not shown):", LONG);
    tmux.send_line(PASSWORD);
    tmux.wait_for("Password again", LONG);
    tmux.send_line(PASSWORD);
    let screen = tmux.wait_for(&format!("online as {name}"), LONG);
    assert!(!tmux.capture_all().contains("horse"), "{screen}");
}

#[test]
fn two_people_register_and_chat_in_two_terminals() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let amy = join(&chatd, "amy", 80, 24);
    let bob = join(&chatd, "bob", 40, 12);
    amy.send_line("/to bob");
    amy.wait_for("no messages yet", LONG);
    amy.send_line("hi bob, 漢字 and 👋");
    amy.wait_for("hi bob, 漢字 and 👋 [", LONG);
    // Nothing was open: what arrives opens.
    bob.wait_for("amy: hi bob, 漢字 and 👋", LONG);
    amy.wait_for("[read]", LONG);

    bob.send_text("I am still typ");
    bob.wait_for("amy> I am still typ", LONG);
    amy.wait_for("bob is typing", LONG);
    amy.send_line("take your time");
    let screen = bob.wait_for("take your time", LONG);
    assert!(screen.contains("amy> I am still typ"), "{screen}");
    bob.send_line("ing");
    amy.wait_for("bob: I am still typing", LONG);
    bob.wait_for("I am still typing [read]", LONG);

    amy.send_line("/quit");
    assert_eq!(amy.wait_exit(LONG), 0);
    bob.send_keys(&["C-c"]);
    assert_eq!(bob.wait_exit(LONG), 0);
}

#[test]
fn a_restart_of_the_server_is_seen_and_survived() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let amy = join(&chatd, "amy", 80, 24);
    let bob = join(&chatd, "bob", 80, 24);
    amy.send_line("/to bob");
    amy.wait_for("bob>", LONG);
    amy.send_line("before");
    bob.wait_for("amy: before", LONG);
    chatd.kill9();
    amy.wait_for("reconnecting in", LONG);
    amy.send_line("written while nobody was there");
    amy.wait_for("written while nobody was there [sending]", LONG);
    chatd.restart().unwrap();
    amy.wait_for("online as amy", LONG);
    let screen = bob.wait_for("amy: written while nobody was there", LONG);
    assert_eq!(screen.matches("before").count(), 1, "{screen}");
    let screen = amy.wait_for("written while nobody was there [read]", LONG);
    assert_eq!(screen.matches("written while").count(), 1, "{screen}");
    bob.send_line("welcome back");
    amy.wait_for("bob: welcome back", LONG);
}

#[test]
fn a_login_after_a_mistake_finds_what_was_missed() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    chatd.client_as("carol");
    let amy = join(&chatd, "amy", 80, 24);
    amy.send_line("/msg carol are you there?");
    amy.wait_for("sent to carol: are you there?", LONG);
    amy.send_line("/logout");
    amy.wait_for("l  log in", LONG);
    amy.send_keys(&["l"]);
    amy.wait_for("Name: amy", LONG);
    amy.send_keys(&["C-u"]);
    amy.send_line("carol");
    amy.wait_for("Password", LONG);
    amy.send_line("a wrong password");
    amy.wait_for("wrong name, password", LONG);
    amy.send_keys(&["l"]);
    amy.wait_for("Name: carol", LONG);
    amy.send_keys(&["Enter"]);
    amy.send_line(Chatd::PASSWORD);
    amy.wait_for("amy: are you there?", LONG);
    amy.wait_for("online as carol", LONG);
    assert!(!amy.capture_all().contains("horse"));
}

#[test]
fn the_terminal_is_given_back() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let addr = chatd.chat_addr().to_string();
    let script = format!(
        "echo before; '{}' --no-remember --connect {addr}; echo \"code $?\"; stty -a | grep -o -- '-\\?echo ' ; read -r line; echo \"got $line\"",
        env!("CARGO_BIN_EXE_chatcli")
    );
    let tmux = Tmux::new(80, 24, &["sh", "-c", &script], &[]);
    tmux.wait_for("r  register", LONG);
    tmux.send_keys(&["C-c"]);
    let screen = tmux.wait_for_screen("what the shell says then", LONG, |screen| {
        screen.contains("code 0") && screen.lines().any(|line| line.trim() == "echo")
    });
    assert!(screen.contains("before") && !screen.contains("register"), "{screen}");
    tmux.send_line("typed");
    tmux.wait_for("got typed", LONG);

    let tmux = open(&chatd, 80, 24);
    tmux.wait_for("r  register", LONG);
    let kill = std::process::Command::new("kill").args(["-TERM", &tmux.pid().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(tmux.wait_exit(LONG), 0, "SIGTERM is a quit");
}

#[test]
fn a_resized_terminal_is_drawn_anew() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let amy = join(&chatd, "amy", 80, 24);
    chatd
        .client_as("bob")
        .send_text(testkit::To::Name("amy"), "a text that takes more than forty columns of a row");
    amy.wait_for("a text that takes more than forty columns", LONG);
    amy.resize(40, 12);
    amy.wait_for_screen("the narrow form", LONG, |screen| {
        let narrow = screen.lines().all(|line| line.chars().count() <= 40) && !screen.contains('│');
        narrow && screen.contains("a text that takes") && screen.contains("online as amy")
    });
    amy.resize(80, 24);
    amy.wait_for_screen("the wide form", LONG, |screen| screen.contains('│'));
}
