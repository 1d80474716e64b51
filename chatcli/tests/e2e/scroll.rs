//! Looking back in a long conversation, in a terminal.

use testkit::{Chatd, Tmux, To, try_wait_until};

use crate::{LONG, chatd};

#[test]
fn the_whole_history_can_be_scrolled_through() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let mut amy = chatd.client_as("amy");
    let mut bob = chatd.client_as("bob");
    let mut conv = 0;
    for n in 1..=250 {
        let text = format!("number {n}, 漢字 👋.");
        let sent = bob.send_text(To::Name("amy"), &text);
        conv = bob.number(&sent, "conv");
    }
    // On another device amy has received all of it: it is not pushed again.
    amy.ack(conv, 250);
    let addr = chatd.chat_addr().to_string();
    let command = [env!("CARGO_BIN_EXE_chatcli"), "--connect", &addr, "--no-remember", "--name", "amy"];
    let tmux = Tmux::new(80, 24, &command, &[("TZ", "UTC")]);
    tmux.wait_for("l  log in", LONG);
    tmux.send_keys(&["l", "Enter"]);
    tmux.send_line(Chatd::PASSWORD);
    tmux.wait_for("online as amy", LONG);
    tmux.send_line("/to bob");
    let screen = tmux.wait_for("number 250, 漢字 👋.", LONG);
    assert!(!screen.contains("number 200,"), "{screen}");
    let found = try_wait_until(LONG, || {
        tmux.send_keys(&["PPage"]);
        tmux.capture().contains("number 1, ")
    });
    let screen = tmux.capture();
    assert!(found, "{screen}");
    let numbers: Vec<u32> = screen.lines().filter_map(number).collect();
    assert!(numbers.len() > 10 && numbers.is_sorted() && numbers[0] == 1, "{screen}");
    let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(gaps, 0, "nothing is missing: {screen}");
    assert!(screen.contains("scrolled up"), "{screen}");
    // What arrives now does not move what is being read.
    bob.send_text(To::Name("amy"), "number 251.");
    bob.next_push("read");
    assert!(tmux.capture().contains("number 1, "));
    tmux.send_keys(&["Escape"]);
    tmux.wait_for("number 251.", LONG);
    // The wheel, as terminals tell of it.
    tmux.send_text("\u{1b}[<64;40;10M");
    tmux.wait_for("scrolled up", LONG);
    tmux.send_text("\u{1b}[<65;40;10M");
    tmux.wait_for_screen("the newest", LONG, |screen| !screen.contains("scrolled up"));
}

/// The number of the message in a row.
fn number(row: &str) -> Option<u32> {
    row.split_once("number ")?.1.split_once(',')?.0.parse().ok()
}
