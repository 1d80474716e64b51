//! The screens of the README are what the client draws. Where one differs the test prints the drawn one, to be pasted there.

use schema::group::{GroupEvent, Role};
use schema::reply::Push;

use super::tests::Stage;
use crate::service::model::{seq, user_id};

/// 2026-11-27, a Friday, 09:58 UTC.
const FRIDAY: u64 = 1_795_773_480_000;
const MINUTE: u64 = 60_000;

/// The screens of the README, in their order.
fn screens() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```text\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

#[track_caller]
fn stands_in_the_readme(at: usize, drawn: &[String]) {
    let drawn = drawn.join("\n");
    assert_eq!(screens().get(at), Some(&drawn), "this is what is drawn:\n```text\n{drawn}\n```");
}

fn at_ten() -> Stage {
    let mut stage = Stage::new();
    stage.server.now_ms = FRIDAY;
    stage
}

#[test]
fn the_first_screen_is_the_readmes() {
    let mut stage = Stage::new();
    stands_in_the_readme(0, &stage.screen(60, 12));
}

#[test]
fn the_screens_of_two_people_are_the_readmes() {
    let mut stage = at_ten();
    stage.log_in();
    stage.line("/to bob");
    stage.line("good morning");
    stage.server.now_ms += MINUTE;
    stage.hear("bob", "Morning! I am at the station, the train is late. Twenty minutes, they say, but they said so twenty minutes ago.");
    stage.line("then I bring you a coffee");
    stage.server.now_ms += MINUTE;
    stage.hear("bob", "\u{8c22}\u{8c22} \u{1f44b}");
    let conv = stage.service.conversation_with("bob").unwrap().conv;
    stage.server.push(&Push::Read { conv, user: user_id("bob"), seq: seq(3) });
    stage.settle();
    stage.hear("carol", "psst");
    stage.keys("white, no sugar?");
    stands_in_the_readme(1, &stage.screen(80, 16));
    stands_in_the_readme(2, &stage.screen(40, 12));
}

#[test]
fn the_screens_of_a_group_are_the_readmes() {
    let mut stage = at_ten();
    let conv = stage.server.makes_group("bob", 1, "lunch", &["amy", "bob", "carol"]);
    stage.log_in();
    stage.line("/to #lunch");
    stage.server.group_hears(conv, "bob", "who comes along? \u{1f35c}");
    stage.settle();
    stage.line("me, at twelve");
    stage.server.push(&Push::Read { conv, user: user_id("bob"), seq: seq(5) });
    stage.server.push(&Push::Read { conv, user: user_id("carol"), seq: seq(5) });
    stage.server.now_ms += MINUTE;
    stage.server.group_hears(conv, "carol", "@amy wait for me, I come ten minutes late, as always");
    let role = GroupEvent::Role { user: user_id("amy"), name: None, role: Role::Admin };
    stage.server.happens(conv, "bob", role);
    let name = GroupEvent::Renamed { user: user_id("amy"), name: "lunch at twelve".into() };
    stage.server.happens(conv, "amy", name);
    stage.server.group_hears(conv, "bob", "\u{597d}\u{7684} \u{1f44b}");
    stage.settle();
    stage.keys("see you th");
    stands_in_the_readme(3, &stage.screen(80, 20));
    stage.server.push(&Push::Typing { conv, user: user_id("carol") });
    stage.see_lines();
    stands_in_the_readme(4, &stage.screen(40, 12));
}
