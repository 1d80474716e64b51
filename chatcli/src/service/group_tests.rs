//! What the service makes of groups and friends, line by line.

use schema::ConvId;
use serde_json::{Value, json};

use super::tests::{Stage, refused};
use super::{Event, FriendAct, GroupAct, Question};

fn group() -> ConvId {
    ConvId::new(77).unwrap()
}

/// An entry of group 77, as amy (7) is pushed it.
fn entry(seq: u64, from: u64, name: &str, body: &Value) -> String {
    let mut line = json!({"type": "message", "conv": 77, "kind": "group", "seq": seq, "from": from,
        "from_name": name, "time_ms": 5});
    let fields = body.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(fields);
    line.to_string()
}

impl Stage {
    fn happens(&mut self, seq: u64, from: u64, name: &str, body: &Value) {
        self.hear(&entry(seq, from, name, body));
    }

    /// In a group that bob (12) has made, `lunch`, with carol (13); everything that was asked meanwhile is dropped.
    fn in_a_group() -> Self {
        let mut stage = Self::online();
        stage.happens(5, 7, "amy", &json!({"event": "joined", "user": 7}));
        let id = stage.said_id("groups");
        stage.hear(&json!({"type": "ok", "id": id, "more": false, "groups": [{"conv": 77, "name": "lunch", "role": "member", "members": 3, "invited": false}]}).to_string());
        stage.events();
        stage
    }
}

#[test]
fn a_group_begins_at_ones_own_joining_and_learns_its_name() {
    let mut stage = Stage::online();
    stage.said();
    stage.happens(40, 7, "amy", &json!({"event": "joined", "user": 7}));
    let conversation = stage.client.conversation(group()).unwrap();
    assert_eq!((conversation.label().as_ref(), conversation.stream.complete().unwrap().get()), ("#77", 40));
    assert!(matches!(&stage.events()[..], [Event::Message { .. }]));
    let id = stage.said_id("groups");
    stage.hear(&json!({"type": "ok", "id": id, "more": false, "groups": [{"conv": 77, "name": "lunch", "role": "member", "members": 3, "invited": false}]}).to_string());
    assert_eq!(stage.client.conversation(group()).unwrap().label(), "#lunch");
    assert_eq!(stage.events(), Vec::new(), "nobody asked for the list");
}

#[test]
fn who_comes_back_misses_nothing_and_waits_for_nothing() {
    let mut stage = Stage::in_a_group();
    stage.happens(6, 12, "bob", &json!({"event": "kicked", "user": 7}));
    assert!(stage.client.conversation(group()).unwrap().gone);
    assert_eq!(stage.client.groups().count(), 0);
    // What was said meanwhile, up to 19, is not amy's to see.
    stage.happens(20, 7, "amy", &json!({"event": "joined", "user": 7}));
    let conversation = stage.client.conversation(group()).unwrap();
    assert!(!conversation.gone);
    assert_eq!(conversation.stream.complete().unwrap().get(), 20);
    assert_eq!(conversation.stream.beyond_hole(), None, "there is no hole");
}

#[test]
fn events_change_what_is_known_of_a_group() {
    let mut stage = Stage::in_a_group();
    stage.client.show(Some(group()));
    let id = stage.said_id("group_members");
    let page = json!([{"user": 7, "name": "amy", "role": "member", "online": true},
        {"user": 12, "name": "bob", "role": "owner", "online": true}]);
    stage.hear(&json!({"type": "ok", "id": id, "more": true, "members": page}).to_string());
    let said = stage.said();
    assert_eq!((&said[0]["type"], &said[0]["after"]), (&"group_members".into(), &12.into()));
    let id = &said[0]["id"];
    let page = json!([{"user": 13, "name": "carol", "role": "member", "online": false}]);
    stage.hear(&json!({"type": "ok", "id": id, "more": false, "members": page}).to_string());
    let members = |stage: &Stage| -> Vec<String> {
        let conversation = stage.client.conversation(group()).unwrap();
        conversation.members().map(|member| format!("{} {}", member.name, member.role.as_str())).collect()
    };
    assert_eq!(members(&stage), ["amy member", "bob owner", "carol member"]);
    assert_eq!(stage.client.conversation(group()).unwrap().member_count(), Some(3));
    stage.happens(6, 12, "bob", &json!({"event": "role", "user": 7, "role": "admin"}));
    stage.happens(7, 13, "carol", &json!({"event": "left", "user": 13}));
    stage.happens(8, 14, "dave", &json!({"event": "joined", "user": 14}));
    assert_eq!(members(&stage), ["amy admin", "bob owner", "dave member"]);
    assert_eq!(stage.client.group(group()).unwrap().role.unwrap().as_str(), "admin");
    stage.happens(9, 12, "bob", &json!({"event": "renamed", "user": 12, "name": "dinner"}));
    assert_eq!(stage.client.conversation(group()).unwrap().label(), "#dinner");
    assert_eq!(stage.client.find_group("#Dinner"), Ok(group()));
    assert_eq!(stage.client.find_group("77"), Ok(group()));
    assert_eq!(stage.client.find_group("#lunch").unwrap_err().code, "not_found");
    assert_eq!(stage.client.name_of(schema::UserId::new(13).unwrap()), Some("carol"), "names are kept");
}

#[test]
fn groups_of_the_same_name_are_told_apart_by_number() {
    let mut stage = Stage::in_a_group();
    stage.hear(r#"{"type":"invite","conv":78,"name":"Lunch","from":12,"from_name":"bob"}"#);
    assert!(matches!(&stage.events()[..], [Event::Invited { .. }]));
    let refusal = stage.client.find_group("#lunch").unwrap_err();
    assert!(refusal.message.contains("#77 or #78"), "{refusal}");
    stage.hear(r#"{"type":"invite","conv":78,"name":"Lunch","from":12,"from_name":"bob"}"#);
    assert_eq!(stage.events(), Vec::new(), "it was told already");
}

#[test]
fn a_group_is_not_made_twice_because_an_answer_was_lost() {
    let mut stage = Stage::online();
    stage.said();
    let create = Question::GroupCreate { name: "lunch".into(), open: false };
    let join = Question::Group { conv: group(), act: GroupAct::Join };
    let create = stage.client.ask(stage.now, create).unwrap();
    stage.client.ask(stage.now, join).unwrap();
    stage.said();
    stage.reconnect();
    stage.reach_online(3);
    let kinds: Vec<Value> = stage.said().iter().map(|line| line["type"].clone()).collect();
    assert!(kinds.contains(&"group_join".into()) && !kinds.contains(&"group_create".into()), "{kinds:?}");
    refused(create, "unavailable", &stage.events());
}

#[test]
fn hints_about_friends_lead_to_one_question_at_a_time() {
    let mut stage = Stage::online();
    stage.said();
    for user in 20..60 {
        let name = format!("u{user}");
        stage.hear(&json!({"type": "friend", "event": "requested", "user": user, "name": name}).to_string());
    }
    let id = stage.said_id("friends");
    assert_eq!(stage.events().len(), 40);
    stage.hear(&json!({"type": "ok", "id": id, "more": false, "friends": []}).to_string());
    let id = stage.said_id("friends");
    stage.hear(&json!({"type": "ok", "id": id, "more": false, "friends": [{"user": 20, "name": "u20", "state": "friend", "online": true}]}).to_string());
    assert_eq!((stage.said(), stage.events()), (Vec::new(), Vec::new()));
    assert_eq!((stage.client.presence("U20"), stage.client.presence("u21")), (Some(true), None));
    stage.hear(r#"{"type":"presence","user":20,"name":"u20","online":false,"time_ms":1}"#);
    assert_eq!(stage.client.presence("u20"), Some(false));
}

#[test]
fn a_server_without_friends_and_groups_is_no_trouble() {
    let mut stage = Stage::online();
    stage.said();
    stage.hear(r#"{"type":"synced"}"#);
    stage.events();
    for line in stage.said() {
        let id = &line["id"];
        stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"unsupported_type","message":"x"}}"#));
    }
    assert_eq!((stage.said(), stage.events()), (Vec::new(), Vec::new()));
    let question = Question::Friend { act: FriendAct::Request, name: "bob".into() };
    let ticket = stage.client.ask(stage.now, question).unwrap();
    let id = stage.said_id("friend_request");
    stage.hear(&format!(r#"{{"type":"error","id":{id},"code":"unsupported_type","message":"x"}}"#));
    refused(ticket, "unsupported_type", &stage.events());
}
