//! Groups and friends on the screen drawn into memory.

use crossterm::event::{KeyCode, KeyModifiers};
use schema::friend::{FriendEvent, FriendState};
use schema::group::{GroupEvent, Role};
use schema::reply::Push;

use super::tests::Stage;
use crate::service::model::{seq, user_id};

/// Amy in a group of three that bob has made, which is open.
fn in_a_group() -> (Stage, schema::ConvId) {
    let mut stage = Stage::new();
    let lunch = stage.server.makes_group("bob", 1, "lunch", &["amy", "bob", "carol"]);
    stage.log_in();
    stage.line("/to #lunch");
    (stage, lunch)
}

#[test]
fn a_group_is_in_the_list_and_its_events_are_lines_of_their_own() {
    let (mut stage, lunch) = in_a_group();
    stage.server.group_hears(lunch, "bob", "who is hungry?");
    let kicked = GroupEvent::Kicked { user: user_id("carol"), name: Some("carol".into()) };
    stage.server.happens(lunch, "bob", kicked);
    stage.server.happens(lunch, "bob", GroupEvent::Renamed { user: user_id("bob"), name: "dinner".into() });
    let role = GroupEvent::Role { user: user_id("amy"), name: None, role: Role::Admin };
    stage.server.happens(lunch, "bob", role);
    stage.settle();
    let rows = stage.screen(80, 24);
    let screen = rows.join("\n");
    assert_eq!(rows[0], " #dinner · 2 members", "{screen}");
    assert!(rows[1].starts_with(" #dinner"), "{screen}");
    assert_eq!(rows[23], "#dinner>", "{screen}");
    for line in [
        "22:13 · bob made the group lunch",
        "22:13 · amy joined",
        "22:13 · carol joined",
        "22:13 bob: who is hungry?",
        "22:13 · bob removed carol",
        "22:13 · bob renamed the group to dinner",
        "22:13 · amy is an admin now",
    ] {
        assert!(screen.contains(line), "{line}\n{screen}");
    }
    stage.server.happens(lunch, "bob", GroupEvent::Kicked { user: user_id("amy"), name: None });
    stage.settle();
    assert_eq!(stage.screen(80, 24)[0], " #dinner · you are not a member");
}

#[test]
fn own_messages_in_a_group_say_how_many_have_read_them() {
    let (mut stage, conv) = in_a_group();
    stage.line("noon?");
    let at = |stage: &mut Stage, user: &str| {
        stage.server.push(&Push::Read { conv, user: user_id(user), seq: seq(4) });
        stage.settle();
    };
    stage.server.push(&Push::Delivered { conv, user: user_id("bob"), seq: seq(4) });
    stage.settle();
    assert!(stage.at_80().contains("amy: noon? [delivered to 1]"), "{}", stage.at_80());
    at(&mut stage, "bob");
    assert!(stage.at_80().contains("amy: noon? [read by 1]"), "{}", stage.at_80());
    at(&mut stage, "carol");
    assert!(stage.at_80().contains("amy: noon? [read"), "{}", stage.at_80());
}

#[test]
fn unread_messages_begin_below_a_line() {
    let mut stage = Stage::chatting();
    let lunch = stage.server.makes_group("bob", 1, "lunch", &["amy", "bob"]);
    stage.hear("bob", "psst");
    stage.line("/to bob");
    stage.server.group_hears(lunch, "bob", "first");
    stage.server.group_hears(lunch, "bob", "second");
    stage.settle();
    assert!(stage.at_80().contains(" #lunch ("), "{}", stage.at_80());
    stage.line("/to #lunch");
    stage.line("/to bob");
    stage.server.group_hears(lunch, "bob", "third");
    stage.settle();
    assert!(stage.at_80().contains(" #lunch (1)"), "{}", stage.at_80());
    stage.line("/to #lunch");
    let rows = stage.screen(80, 24);
    let at = |text: &str| {
        rows.iter().position(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {rows:#?}"))
    };
    assert!(at("second") < at("─ new ─") && at("─ new ─") < at("third"));
    stage.line("I have seen it");
    assert!(!stage.at_80().contains("─ new ─"));
}

#[test]
fn several_can_type_in_a_group() {
    let (mut stage, conv) = in_a_group();
    stage.server.push(&Push::Typing { conv, user: user_id("bob") });
    stage.see_lines();
    assert_eq!(stage.screen(80, 24)[0], " #lunch · 3 members · bob is typing…");
    stage.server.push(&Push::Typing { conv, user: user_id("carol") });
    stage.see_lines();
    assert_eq!(stage.screen(80, 24)[0], " #lunch · 3 members · bob and carol are typing…");
    assert_eq!(stage.screen(40, 12)[0], " #lunch · bob and carol are typing…");
}

#[test]
fn a_group_is_made_filled_and_left_by_commands() {
    let mut stage = Stage::chatting();
    stage.line("/group create the lunch");
    let rows = stage.screen(80, 24);
    assert_eq!((rows[0].as_str(), rows[23].as_str()), (" #the lunch · only you", "#the lunch>"));
    stage.line("/group invite @bob");
    assert!(stage.at_80().contains("* bob is invited"));
    stage.line("/group invite nobody");
    assert!(stage.at_80().contains("* as told"), "a refusal is told");
    stage.line("/group members");
    assert!(stage.at_80().contains("* 1 members (• online): amy (owner) •"), "{}", stage.at_80());
    stage.line("/groups");
    assert!(stage.at_80().contains("* #the lunch (#100): 1 members, you are owner"), "{}", stage.at_80());
    stage.line("hello?");
    assert!(stage.at_80().contains("amy: hello? [sent]"));
    stage.line("/msg #100 again");
    assert!(stage.at_80().contains("amy: again [sent]"));
    stage.line("/msg #the lunch is ready");
    assert!(stage.at_80().contains("amy: is ready [sent]"), "{}", stage.at_80());
    stage.line("/msg #The  lunch");
    assert!(stage.at_80().contains("* there is no group called The"), "{}", stage.at_80());
    for line in ["/msg #the lunch", "/msg #100", "/msg #"] {
        stage.line(line);
        assert!(stage.screen(80, 24)[21].contains("* usage: /msg #GROUP TEXT"), "{line}: {}", stage.at_80());
    }
    stage.line("/to #nowhere");
    assert!(stage.at_80().contains("* there is no group called nowhere"));
    stage.line("/group kick bob");
    assert!(stage.at_80().contains("· amy removed bob"), "{}", stage.at_80());
}

#[test]
fn an_invitation_is_shown_and_can_be_accepted() {
    let mut stage = Stage::chatting();
    let conv = stage.server.makes_group("bob", 1, "lunch", &["bob", "carol"]);
    // What was said before amy joins is not hers to see.
    let before = std::mem::take(&mut stage.server.talks.get_mut(&conv).unwrap().entries);
    let (name, from_name) = ("lunch".into(), "bob".into());
    stage.server.push(&Push::Invite { conv, name, from: user_id("bob"), from_name });
    stage.settle();
    assert!(stage.at_80().contains("* bob invites you to #lunch: /group join #101"), "{}", stage.at_80());
    assert_eq!(before.len(), 2);
    stage.line("/group join lunch");
    let rows = stage.screen(80, 24);
    let screen = rows.join("\n");
    assert_eq!(rows[0], " #lunch · 3 members", "{screen}");
    assert!(screen.contains("· amy joined"), "{screen}");
}

#[test]
fn what_was_before_ones_own_joining_is_asked_for_once() {
    let mut stage = Stage::new();
    let lunch = stage.server.makes_group("bob", 1, "lunch", &["amy", "bob", "carol"]);
    // The first two entries are not amy's to see.
    stage.server.unseen.extend([(lunch, 1), (lunch, 2)]);
    stage.log_in();
    stage.line("/to #lunch");
    assert_eq!(stage.server.histories, 1);
    for _ in 0..5 {
        stage.key(KeyCode::PageUp, KeyModifiers::NONE);
        stage.settle();
        stage.at_80();
    }
    assert_eq!(stage.server.histories, 1, "the beginning is known");
    let screen = stage.at_80();
    assert!(screen.contains("carol joined") && !screen.contains("amy joined"), "{screen}");
    stage.line("/history");
    assert!(stage.at_80().contains("* this is the beginning"));
}

#[test]
fn friends_come_and_go() {
    let mut stage = Stage::new();
    stage.server.friends = vec![("bob", FriendState::Friend, false), ("carol", FriendState::Incoming, false)];
    stage.server.peer_sends("bob", "hi");
    stage.log_in();
    stage.line("/to bob");
    assert_eq!(stage.screen(80, 24)[0], " bob · offline");
    stage.server.friends[0].2 = true;
    let push = Push::Presence { user: user_id("bob"), name: "bob".into(), online: true, time_ms: 1 };
    stage.server.push(&push);
    stage.settle();
    let rows = stage.screen(80, 24);
    assert_eq!(rows[0], " bob · online");
    assert!(rows[1].starts_with("•bob"), "{rows:#?}");
    stage.line("/friends");
    let screen = stage.at_80();
    assert!(screen.contains("* bob: online") && screen.contains("* carol: asks to be a friend"), "{screen}");
    stage.line("/friend add carol");
    assert!(stage.at_80().contains("* carol is asked to be a friend"));
    stage.line("/block carol");
    assert!(stage.at_80().contains("* carol is blocked"));
    let event = FriendEvent::Accepted;
    stage.server.push(&Push::Friend { event, user: user_id("carol"), name: "carol".into() });
    stage.settle();
    assert!(stage.at_80().contains("* carol is a friend now"));
}

#[test]
fn tab_completes_commands_names_and_groups() {
    let (mut stage, _) = in_a_group();
    let complete = |stage: &mut Stage, text: &str, tabs: usize| {
        stage.keys(text);
        (0..tabs).for_each(|_| stage.key(KeyCode::Tab, KeyModifiers::NONE));
        let line = stage.app.chat.editor.text().to_owned();
        stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
        line
    };
    assert_eq!(complete(&mut stage, "/gr", 1), "/group ");
    assert_eq!(complete(&mut stage, "/gr", 2), "/groups ");
    assert_eq!(complete(&mut stage, "/gr", 3), "/gr", "once around");
    assert_eq!(complete(&mut stage, "/group inv", 1), "/group invite ");
    assert_eq!(complete(&mut stage, "/group kick ca", 1), "/group kick carol ");
    assert_eq!(complete(&mut stage, "/group role carol ad", 1), "/group role carol admin ");
    assert_eq!(complete(&mut stage, "/friend a", 2), "/friend add ");
    assert_eq!(complete(&mut stage, "/to #", 1), "/to #lunch ");
    assert_eq!(complete(&mut stage, "so @B", 1), "so @bob ");
    assert_eq!(complete(&mut stage, "carol and bo", 1), "carol and bob ");
    assert_eq!(complete(&mut stage, "/zz", 1), "/zz");
    assert_eq!(complete(&mut stage, "", 1), "", "nothing was written");
    stage.keys("/gr");
    stage.key(KeyCode::BackTab, KeyModifiers::SHIFT);
    assert_eq!(stage.app.chat.editor.text(), "/groups ");
}

#[test]
fn groups_work_at_40_columns() {
    let (mut stage, lunch) = in_a_group();
    let name = "a new name that is much longer than the row".into();
    stage.server.happens(lunch, "bob", GroupEvent::Renamed { user: user_id("bob"), name });
    stage.settle();
    let screen = stage.at_40();
    assert!(screen.contains("22:13 · bob renamed the group to a new"), "{screen}");
    assert!(screen.lines().last().unwrap().starts_with("#a new nam…>"), "{screen}");
    stage.server.happens(
        lunch,
        "bob",
        GroupEvent::Renamed { user: user_id("bob"), name: "\u{1b}[2J".into() },
    );
    stage.settle();
    assert!(stage.at_80().contains("renamed the group to ␛[2J"), "{}", stage.at_80());
}
