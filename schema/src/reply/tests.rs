//! Tests of what the server says.

use super::*;
use crate::friend::{Blocked, BlockedUser, FriendInfo, FriendState, Friends};
use crate::group::{GroupCreated, GroupInfo, GroupMembers, Groups, MemberInfo, Role};

fn line(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn replies_are_written_as_the_protocol_shows_them() {
    assert_eq!(line(|out| write_ok(7, out)), "{\"type\":\"ok\",\"id\":7}\n");
    assert_eq!(
        line(|out| write_ok_with(0, &Pong { time_ms: 5 }, out)),
        "{\"type\":\"ok\",\"id\":0,\"time_ms\":5}\n"
    );
    let refusal =
        Refusal { code: ErrorCode::BadJson, message: Cow::Borrowed("a \"b\""), retry_after_ms: None };
    assert_eq!(
        line(|out| write_error(None, &refusal, out)),
        "{\"type\":\"error\",\"code\":\"bad_json\",\"message\":\"a \\\"b\\\"\"}\n"
    );
    let sent =
        Sent { conv: ConvId::new(55).unwrap(), seq: Seq::new(3).unwrap(), time_ms: 9, duplicate: false };
    assert_eq!(
        line(|out| write_ok_with(1, &sent, out)),
        "{\"type\":\"ok\",\"id\":1,\"conv\":55,\"seq\":3,\"time_ms\":9}\n"
    );
}

#[test]
fn pushes_come_back_as_they_were_written() {
    let message = Message {
        conv: ConvId::new(55).unwrap(),
        kind: Kind::Direct,
        seq: Seq::new(103).unwrap(),
        from: UserId::new(12).unwrap(),
        from_name: Cow::Borrowed("bob"),
        to: UserId::new(7),
        to_name: Some(Cow::Borrowed("amy")),
        body: Body::text("hi\n\"there\" 👋"),
        time_ms: 1,
    };
    for push in [
        Push::Message(message),
        Push::Synced,
        Push::Bye { code: ByeCode::Shutdown, message: Cow::Borrowed("x"), reconnect_after_ms: Some(5) },
        Push::Typing { conv: ConvId::new(1).unwrap(), user: UserId::new(2).unwrap() },
    ] {
        let text = line(|out| write_push(&push, out));
        assert!(text.ends_with("}\n") && !text.trim_end().contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Push<'_>>(&text).unwrap(), push);
    }
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn in_group(body: Body<'_>) -> Message<'_> {
    Message {
        conv: ConvId::new(55).unwrap(),
        kind: Kind::Group,
        seq: Seq::new(3).unwrap(),
        from: user(7),
        from_name: Cow::Borrowed("amy"),
        to: None,
        to_name: None,
        body,
        time_ms: 9,
    }
}

#[test]
fn an_entry_of_a_group_has_a_text_or_an_event() {
    let head = r#"{"type":"message","conv":55,"kind":"group","seq":3,"from":7,"from_name":"amy","#;
    let name = || Cow::Borrowed("lunch");
    let bob = || Some(Cow::Borrowed("bob"));
    for (body, expected) in [
        (Body::text("hi"), r#""text":"hi""#),
        (
            Body::Event(GroupEvent::Created { user: user(7), name: name() }),
            r#""event":"created","user":7,"name":"lunch""#,
        ),
        (Body::Event(GroupEvent::Joined { user: user(7) }), r#""event":"joined","user":7"#),
        (Body::Event(GroupEvent::Left { user: user(7) }), r#""event":"left","user":7"#),
        (
            Body::Event(GroupEvent::Kicked { user: user(12), name: bob() }),
            r#""event":"kicked","user":12,"name":"bob""#,
        ),
        (
            Body::Event(GroupEvent::Renamed { user: user(7), name: name() }),
            r#""event":"renamed","user":7,"name":"lunch""#,
        ),
        (
            Body::Event(GroupEvent::Role { user: user(12), name: None, role: Role::Admin }),
            r#""event":"role","user":12,"role":"admin""#,
        ),
    ] {
        let push = Push::Message(in_group(body));
        let text = line(|out| write_push(&push, out));
        assert_eq!(text, format!("{head}{expected},\"time_ms\":9}}\n"));
        assert_eq!(serde_json::from_str::<Push<'_>>(&text).unwrap(), push);
    }
}

#[test]
fn what_is_read_borrows_from_the_line() {
    let text = line(|out| write_push(&Push::Message(in_group(Body::text("hi"))), out));
    let Push::Message(Message { body: Body::Text { text: Cow::Borrowed("hi") }, .. }) =
        serde_json::from_str(&text).unwrap()
    else {
        panic!("a plain text is not borrowed");
    };
}

#[test]
fn pushes_about_friends_and_groups_are_written_as_the_protocol_shows_them() {
    let bob = || Cow::Borrowed("bob");
    for (push, expected) in [
        (
            Push::Friend { event: FriendEvent::Requested, user: user(12), name: bob() },
            r#"{"type":"friend","event":"requested","user":12,"name":"bob"}"#,
        ),
        (
            Push::Presence { user: user(12), name: bob(), online: true, time_ms: 5 },
            r#"{"type":"presence","user":12,"name":"bob","online":true,"time_ms":5}"#,
        ),
        (
            Push::Invite {
                conv: ConvId::new(55).unwrap(),
                name: Cow::Borrowed("lunch"),
                from: user(12),
                from_name: bob(),
            },
            r#"{"type":"invite","conv":55,"name":"lunch","from":12,"from_name":"bob"}"#,
        ),
    ] {
        assert_eq!(line(|out| write_push(&push, out)), format!("{expected}\n"));
        assert_eq!(serde_json::from_str::<Push<'_>>(expected).unwrap(), push);
    }
}

#[test]
fn lists_of_friends_and_groups_are_written_as_the_protocol_shows_them() {
    let bob = || Cow::Borrowed("bob");
    let conv = ConvId::new(55).unwrap();
    let friend = FriendInfo { user: user(12), name: bob(), state: FriendState::Incoming, online: false };
    let member = MemberInfo { user: user(12), name: bob(), role: Role::Owner, online: true };
    let group = |role, invited| GroupInfo { conv, name: Cow::Borrowed("lunch"), role, members: 3, invited };
    let users = vec![BlockedUser { user: user(12), name: bob() }];
    let groups = vec![group(Some(Role::Admin), false), group(None, true)];
    for (text, expected) in [
        (
            line(|out| write_ok_with(1, &Friends { friends: vec![friend], more: false }, out)),
            r#""friends":[{"user":12,"name":"bob","state":"incoming","online":false}],"more":false"#,
        ),
        (
            line(|out| write_ok_with(1, &Blocked { users, more: true }, out)),
            r#""users":[{"user":12,"name":"bob"}],"more":true"#,
        ),
        (
            line(|out| write_ok_with(1, &GroupMembers { members: vec![member], more: false }, out)),
            r#""members":[{"user":12,"name":"bob","role":"owner","online":true}],"more":false"#,
        ),
        (
            line(|out| write_ok_with(1, &Groups { groups, more: false }, out)),
            concat!(
                r#""groups":[{"conv":55,"name":"lunch","role":"admin","members":3,"invited":false},"#,
                r#"{"conv":55,"name":"lunch","members":3,"invited":true}],"more":false"#
            ),
        ),
        (line(|out| write_ok_with(1, &GroupCreated { conv }, out)), r#""conv":55"#),
    ] {
        assert_eq!(text, format!("{{\"type\":\"ok\",\"id\":1,{expected}}}\n"));
    }
}

#[test]
fn the_longest_message_fits_a_line() {
    let message = Message {
        conv: ConvId::new(crate::limits::ID_MAX).unwrap(),
        kind: Kind::Direct,
        seq: Seq::new(crate::limits::ID_MAX).unwrap(),
        from: UserId::new(crate::limits::ID_MAX).unwrap(),
        from_name: Cow::Owned("\u{10400}".repeat(32)),
        to: UserId::new(crate::limits::ID_MAX),
        to_name: Some(Cow::Owned("\u{10400}".repeat(32))),
        body: Body::text("\n".repeat(crate::limits::TEXT_BYTES_MAX)),
        time_ms: crate::limits::ID_MAX,
    };
    let text = line(|out| write_push(&Push::Message(message), out));
    assert!(text.len() - 1 <= crate::limits::LINE_BYTES_MAX, "{}", text.len());
}
