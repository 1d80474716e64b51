//! Groups and friends, by script and on the screen.

use testkit::{Tmux, wait_until};

use crate::person::Person;
use crate::terminal::join;
use crate::{LONG, chatd};

/// The number of the group that somebody has just made.
fn created(person: &Person) -> String {
    // The group's own entry, which tells of its making, comes first.
    wait_until("the answer", LONG, || !person.events("created").is_empty());
    let line = person.events("created").pop().unwrap();
    format!("#{}", line.split(' ').nth(1).unwrap())
}

#[test]
fn a_script_makes_a_group_and_everybody_hears_everything_once() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut bob = Person::join(&chatd, "bob");
    let mut carol = Person::join(&chatd, "carol");
    amy.say("group create the lunch");
    let group = created(&amy);
    amy.say(&format!("group invite bob {group}"));
    bob.wait_for("\"the lunch\"");
    assert!(bob.events("invite")[0].ends_with(" amy \"the lunch\""), "{:?}", bob.said());
    carol.say(&format!("group join {group}"));
    carol.wait_for("error forbidden");
    bob.say("group join the lunch");
    amy.wait_for("bob joined");
    bob.say(&format!("send {group} who is hungry?"));
    amy.wait_for("bob \"who is hungry?\"");
    amy.say(&format!("send {group} we are"));
    bob.wait_for("amy \"we are\"");
    bob.wait_for("sent ");
    amy.say(&format!("group role bob admin {group}"));
    bob.wait_for(" role ");
    bob.say(&format!("group invite carol {group}"));
    carol.wait_for("invite ");
    carol.say(&format!("group join {group}"));
    bob.wait_for("carol joined");
    bob.say(&format!("group rename {group} dinner"));
    carol.wait_for("renamed ");
    carol.say("group members dinner");
    carol.wait_for("members ");
    let members = carol.events("member");
    let roles: Vec<&str> = members.iter().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(roles, ["owner", "admin", "member"], "{members:?}");
    carol.say(&format!("history {group}"));
    carol.wait_for("history ");
    assert!(!carol.said().iter().any(|line| line.contains("hungry")), "that was before her time");
    bob.say(&format!("group kick carol {group}"));
    carol.wait_for("kicked ");
    carol.say(&format!("send {group} hello?"));
    carol.wait_until("a second `forbidden`", |said| {
        said.iter().filter(|line| line.starts_with("error forbidden")).count() == 2
    });
    amy.say(&format!("group leave {group}"));
    // The oldest admin becomes the owner.
    bob.wait_for(" role 2 owner");
    bob.say("groups");
    bob.wait_for("groups 1");
    assert!(bob.events("group")[0].ends_with("owner 1 \"dinner\""), "{:?}", bob.events("group"));
    let (_, said) = bob.end();
    for text in ["\"we are\"", "left 1", "carol joined"] {
        assert_eq!(said.iter().filter(|line| line.contains(text)).count(), 1, "{text}: {said:#?}");
    }
}

#[test]
fn friends_are_asked_accepted_seen_and_blocked() {
    let chatd = chatd();
    let mut amy = Person::join(&chatd, "amy");
    let mut bob = Person::join(&chatd, "bob");
    amy.say("friend add bob");
    bob.wait_for("friend requested 1 amy");
    bob.say("friend accept amy");
    amy.wait_for("friend accepted 2 bob");
    amy.say("friends");
    amy.wait_for("friendship 2 bob friend online");
    drop(bob);
    amy.wait_for("presence 2 bob offline");
    let mut bob = Person::new(chatd.chat_addr(), "bob");
    bob.say(&format!("login bob {}", crate::person::PASSWORD));
    amy.wait_for("presence 2 bob online");
    amy.say("block bob");
    amy.say("blocked");
    amy.wait_for("blocked 1 bob");
    bob.say("send amy hello?");
    bob.wait_for("error forbidden");
    amy.say("unblock bob");
    amy.say("blocked");
    amy.wait_for("blocked 0");
}

#[test]
fn a_group_chats_in_three_terminals() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let amy = join(&chatd, "amy", 80, 24);
    let bob = join(&chatd, "bob", 80, 24);
    let carol = join(&chatd, "carol", 40, 12);
    amy.send_line("/group create lunch");
    amy.wait_for("#lunch · only you", LONG);
    amy.wait_for("· amy made the group lunch", LONG);
    amy.send_line("/group invite bob");
    amy.wait_for("* bob is invited", LONG);
    amy.send_line("/group invite carol");
    bob.wait_for("* amy invites you to #lunch", LONG);
    bob.send_text("/group join l");
    bob.send_keys(&["Tab"]);
    bob.wait_for("/group join #lunch", LONG);
    bob.send_keys(&["Enter"]);
    bob.wait_for("· bob joined", LONG);
    carol.wait_for("amy invites you to #lunch", LONG);
    carol.send_line("/group join #lunch");
    amy.wait_for("· carol joined", LONG);
    amy.wait_for("#lunch · 3 members", LONG);
    amy.send_line("noon, @carol?");
    bob.wait_for("amy: noon, @carol?", LONG);
    carol.wait_for("amy: noon, @carol?", LONG);
    amy.wait_for("noon, @carol? [read]", LONG);
    carol.send_text("I th");
    bob.wait_for("carol is typing", LONG);
    carol.send_line("ink so");
    amy.wait_for("carol: I think so", LONG);
    amy.send_line("/group kick carol");
    carol.wait_for("you are not a", LONG);
    bob.wait_for("· amy removed carol", LONG);
    bob.wait_for("#lunch · 2 members", LONG);

    // A restarted server, and nothing is lost or doubled.
    chatd.kill9();
    bob.wait_for("reconnecting in", LONG);
    bob.send_line("written meanwhile");
    chatd.restart().unwrap();
    let screen = amy.wait_for("bob: written meanwhile", LONG);
    assert_eq!(screen.matches("carol: I think so").count(), 1, "{screen}");
    amy.send_line("/group leave");
    bob.wait_for("· amy left", LONG);
    bob.wait_for("bob is the owner now", LONG);
    assert_eq!(bob.capture().matches("written meanwhile").count(), 1);
}

#[test]
fn friends_are_made_on_the_screen() {
    if !Tmux::available() {
        return;
    }
    let chatd = chatd();
    let amy = join(&chatd, "amy", 80, 24);
    let bob = join(&chatd, "bob", 80, 24);
    amy.send_line("/friend add bob");
    amy.wait_for("* bob is asked to be a friend", LONG);
    bob.wait_for("* amy asks to be a friend", LONG);
    bob.send_line("/friend accept amy");
    amy.wait_for("* bob is a friend now", LONG);
    amy.send_line("/to bob");
    amy.wait_for("bob · online", LONG);
    bob.send_keys(&["C-c"]);
    assert_eq!(bob.wait_exit(LONG), 0);
    amy.wait_for("bob · offline", LONG);
}
