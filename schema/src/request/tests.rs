//! Tests of the request parser.

use super::*;
use proptest::prelude::*;

fn code(line: &str) -> ErrorCode {
    parse(line.as_bytes()).unwrap_err().code
}

fn request(line: &str) -> Request<'_> {
    parse(line.as_bytes()).unwrap().request
}

#[test]
fn what_is_no_object_is_bad_json() {
    for line in
        ["", "x", "[]", r#"["ping"]"#, "7", r#""ping""#, "null", "{", r#"{"type":"ping"} x"#, "{'a':1}"]
    {
        assert_eq!(code(line), ErrorCode::BadJson, "{line}");
    }
    assert_eq!(parse(b"{\"type\":\"p\xff\"}").unwrap_err().code, ErrorCode::BadJson);
}

#[test]
fn deep_nesting_is_no_stack_overflow() {
    let line = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    // Either is right; what matters is that it returns.
    let _ = parse(line.as_bytes());
    let line = format!(r#"{{"type":{}{}}}"#, "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert!(parse(line.as_bytes()).is_err());
}

#[test]
fn ids_are_integers_in_range() {
    for (line, id) in
        [(r#"{"type":"ping","id":0}"#, Some(0)), (r#"{"id":9007199254740991,"type":"ping"}"#, Some(ID_MAX))]
    {
        assert_eq!(parse(line.as_bytes()).unwrap().id, id);
    }
    for id in ["-1", "1.0", "1.5", "\"7\"", "9007199254740992", "1e300", "[]", "true"] {
        let bad = parse(format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes()).unwrap_err().clone();
        assert_eq!((bad.code, bad.id), (ErrorCode::BadRequest, None), "{id}");
    }
}

#[test]
fn an_error_carries_the_id_whatever_is_wrong_with_the_rest() {
    let bad = parse(br#"{"id":7,"type":"send","text":5}"#).unwrap_err();
    assert_eq!((bad.code, bad.id), (ErrorCode::BadRequest, Some(7)));
    let bad = parse(br#"{"id":8,"type":"dance"}"#).unwrap_err();
    assert_eq!((bad.code, bad.id), (ErrorCode::UnsupportedType, Some(8)));
    let bad = parse(br#"{"id":9}"#).unwrap_err();
    assert_eq!((bad.code, bad.id), (ErrorCode::BadRequest, Some(9)));
}

#[test]
fn fields_of_other_types_are_ignored() {
    assert_eq!(request(r#"{"type":"ping","name":5,"text":[],"unknown":{}}"#), Request::Ping);
}

#[test]
fn a_user_is_named_by_number_or_by_name() {
    let Request::Send { target: Target::User(UserRef::Id(user)), .. } =
        request(r#"{"type":"send","id":1,"user":12,"text":"hi"}"#)
    else {
        panic!("not by id");
    };
    assert_eq!(user.get(), 12);
    let Request::Send { target: Target::User(UserRef::Name(name)), .. } =
        request(r#"{"type":"send","id":1,"user":"Bob","text":"hi"}"#)
    else {
        panic!("not by name");
    };
    assert_eq!((name.shown(), name.key()), ("Bob", "bob"));
    for user in ["0", "-1", "1.5", "true", "null", "[]", "\"\"", "\"a b\""] {
        assert_eq!(
            code(&format!(r#"{{"type":"send","id":1,"user":{user},"text":"x"}}"#)),
            ErrorCode::BadRequest
        );
    }
}

#[test]
fn sends_are_checked() {
    assert_eq!(code(r#"{"type":"send","user":1,"text":"x"}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"text":"x"}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"user":1,"conv":2,"text":"x"}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"conv":2,"text":""}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"conv":2,"text":"\u0000"}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"conv":2,"text":"\ud800"}"#), ErrorCode::BadJson);
    assert_eq!(code(r#"{"type":"send","id":1,"conv":2,"text":"x","client_id":""}"#), ErrorCode::BadRequest);
    assert_eq!(code(r#"{"type":"send","id":1,"conv":2,"text":"x","client_id":"ü"}"#), ErrorCode::BadRequest);
    let long = format!(r#"{{"type":"send","id":1,"conv":2,"text":"{}"}}"#, "x".repeat(16_385));
    assert_eq!(code(&long), ErrorCode::TooLarge);
    let Request::Send { text: Cow::Borrowed("hi"), client_id: Some(_), .. } =
        request(r#"{"type":"send","id":1,"conv":2,"text":"hi","client_id":"c-1"}"#)
    else {
        panic!("a plain text is not borrowed");
    };
}

#[test]
fn logins_are_by_password_or_by_token() {
    assert!(matches!(
        request(r#"{"type":"login","token":"abc","hold":true}"#),
        Request::Login { proof: Proof::Token(_), hold: true, .. }
    ));
    for bad in [
        r#"{"type":"login"}"#,
        r#"{"type":"login","name":"bob"}"#,
        r#"{"type":"login","name":"bob","password":"12345678","token":"x"}"#,
        r#"{"type":"login","name":"bob","password":"1234567"}"#,
    ] {
        assert_eq!(code(bad), ErrorCode::BadRequest, "{bad}");
    }
}

#[test]
fn cursors_are_read_from_an_object() {
    let Request::Sync { cursors, more } =
        request(r#"{"type":"sync","cursors":{"55":100,"7":0},"more":true}"#)
    else {
        panic!("no sync");
    };
    assert_eq!(cursors.len(), 2);
    assert!(more);
    for bad in ["{\"0\":1}", "{\"x\":1}", "{\"5\":-1}", "[]", "{\"5\":null}"] {
        assert_eq!(code(&format!(r#"{{"type":"sync","cursors":{bad}}}"#)), ErrorCode::BadRequest, "{bad}");
    }
}

#[test]
fn pages_are_bounded() {
    for limit in ["0", "201", "-1", "1.5"] {
        assert_eq!(code(&format!(r#"{{"type":"history","conv":1,"limit":{limit}}}"#)), ErrorCode::BadRequest);
    }
    assert_eq!(code(r#"{"type":"history","conv":1,"before":5,"after":2}"#), ErrorCode::BadRequest);
    assert!(matches!(
        request(r#"{"type":"history","conv":1}"#),
        Request::History { bound: Bound::Last, limit: 100, .. }
    ));
}

fn user_ref(number: u64) -> UserRef<'static> {
    UserRef::Id(UserId::new(number).unwrap())
}

fn conv(number: u64) -> ConvId {
    ConvId::new(number).unwrap()
}

fn group_name(text: &str) -> GroupName<'_> {
    GroupName::new(Cow::Borrowed(text)).unwrap()
}

#[test]
fn requests_about_friends_become_commands() {
    let all = Page { after: None, limit: 100 };
    let some = Page { after: UserId::new(7), limit: 2 };
    for (line, expected) in [
        (r#"{"type":"friend_request","user":12}"#, Request::FriendRequest { user: user_ref(12) }),
        (r#"{"type":"friend_accept","user":12}"#, Request::FriendAccept { user: user_ref(12) }),
        (r#"{"type":"friend_reject","user":12}"#, Request::FriendReject { user: user_ref(12) }),
        (r#"{"type":"friend_remove","user":12}"#, Request::FriendRemove { user: user_ref(12) }),
        (r#"{"type":"block","user":12}"#, Request::Block { user: user_ref(12) }),
        (r#"{"type":"unblock","user":12}"#, Request::Unblock { user: user_ref(12) }),
        (r#"{"type":"friends"}"#, Request::Friends { page: all }),
        (r#"{"type":"friends","after":0}"#, Request::Friends { page: all }),
        (r#"{"type":"friends","after":7,"limit":2}"#, Request::Friends { page: some }),
        (r#"{"type":"blocked","after":7,"limit":2}"#, Request::Blocked { page: some }),
    ] {
        assert_eq!(request(line), expected, "{line}");
    }
    let Request::Block { user: UserRef::Name(name) } = request(r#"{"type":"block","user":"Bob"}"#) else {
        panic!("not by name");
    };
    assert_eq!(name.key(), "bob");
}

#[test]
fn requests_about_groups_become_commands() {
    for (line, expected) in [
        (
            r#"{"type":"group_create","name":"Lunch at 12?","open":true}"#,
            Request::GroupCreate { name: group_name("Lunch at 12?"), open: true },
        ),
        (
            r#"{"type":"group_create","name":"x"}"#,
            Request::GroupCreate { name: group_name("x"), open: false },
        ),
        (r#"{"type":"group_join","conv":5}"#, Request::GroupJoin { conv: conv(5) }),
        (r#"{"type":"group_leave","conv":5}"#, Request::GroupLeave { conv: conv(5) }),
        (
            r#"{"type":"group_invite","conv":5,"user":12}"#,
            Request::GroupInvite { conv: conv(5), user: user_ref(12) },
        ),
        (
            r#"{"type":"group_kick","conv":5,"user":12}"#,
            Request::GroupKick { conv: conv(5), user: user_ref(12) },
        ),
        (
            r#"{"type":"group_role","conv":5,"user":12,"role":"admin"}"#,
            Request::GroupRole { conv: conv(5), user: user_ref(12), role: Role::Admin },
        ),
        (
            r#"{"type":"group_rename","conv":5,"name":"午饭"}"#,
            Request::GroupRename { conv: conv(5), name: group_name("午饭") },
        ),
        (
            r#"{"type":"group_members","conv":5,"after":3,"limit":200}"#,
            Request::GroupMembers { conv: conv(5), page: Page { after: UserId::new(3), limit: 200 } },
        ),
        (r#"{"type":"groups"}"#, Request::Groups { page: Page { after: None, limit: 100 } }),
        (
            r#"{"type":"groups","after":55,"limit":1}"#,
            Request::Groups { page: Page { after: ConvId::new(55), limit: 1 } },
        ),
    ] {
        assert_eq!(request(line), expected, "{line}");
    }
}

const BAD_USERS: &[&str] =
    &[r#""user":0"#, r#""user":null"#, r#""user":"a b""#, r#""user":"""#, r#""user":1.5"#, r#""x":1"#];
const BAD_GROUPS: &[&str] =
    &[r#""conv":0"#, r#""conv":-1"#, r#""conv":"5""#, r#""conv":9007199254740992"#, r#""x":1"#];
const BAD_NAMES: &[&str] =
    &[r#""name":"""#, r#""name":7"#, r#""name":"a\nb""#, r#""name":"\u001b[1m""#, r#""x":1"#];
const BAD_PAGES: &[&str] = &[
    r#""limit":0"#,
    r#""limit":201"#,
    r#""limit":"9""#,
    r#""after":-1"#,
    r#""after":"bob""#,
    r#""after":9007199254740992"#,
];
const BAD_ROLES: &[&str] =
    &[r#""role":"Owner""#, r#""role":"boss""#, r#""role":1"#, r#""role":null"#, r#""x":1"#];

#[test]
fn bad_fields_of_friends_and_groups_are_bad_requests() {
    let long = format!(r#""name":"{}""#, "ä".repeat(65));
    // A request, its other fields, and what is bad in it.
    for (kind, good, bad) in [
        ("friend_request", "", BAD_USERS),
        ("friend_accept", "", BAD_USERS),
        ("friend_reject", "", BAD_USERS),
        ("friend_remove", "", BAD_USERS),
        ("block", "", BAD_USERS),
        ("unblock", "", BAD_USERS),
        ("friends", "", BAD_PAGES),
        ("blocked", "", BAD_PAGES),
        ("group_create", "", BAD_NAMES),
        ("group_create", "", &[long.as_str()]),
        ("group_create", r#""name":"x""#, &[r#""open":1"#, r#""open":"yes""#]),
        ("group_join", "", BAD_GROUPS),
        ("group_leave", "", BAD_GROUPS),
        ("group_invite", r#""user":1"#, BAD_GROUPS),
        ("group_invite", r#""conv":5"#, BAD_USERS),
        ("group_kick", r#""user":1"#, BAD_GROUPS),
        ("group_kick", r#""conv":5"#, BAD_USERS),
        ("group_role", r#""user":1,"role":"admin""#, BAD_GROUPS),
        ("group_role", r#""conv":5,"role":"admin""#, BAD_USERS),
        ("group_role", r#""conv":5,"user":1"#, BAD_ROLES),
        ("group_rename", r#""name":"x""#, BAD_GROUPS),
        ("group_rename", r#""conv":5"#, BAD_NAMES),
        ("group_members", "", BAD_GROUPS),
        ("group_members", r#""conv":5"#, BAD_PAGES),
        ("groups", "", BAD_PAGES),
    ] {
        let comma = if good.is_empty() { "" } else { "," };
        for bad in bad {
            let line = format!(r#"{{"type":"{kind}",{good}{comma}{bad}}}"#);
            assert_eq!(code(&line), ErrorCode::BadRequest, "{line}");
        }
    }
}

#[test]
fn what_needs_no_copy_is_borrowed() {
    let Request::GroupRename { name, .. } = request(r#"{"type":"group_rename","conv":5,"name":"lunch"}"#)
    else {
        panic!("no rename");
    };
    assert!(matches!(name.into_text(), Cow::Borrowed("lunch")));
}

#[test]
fn a_user_that_is_neither_id_nor_name_is_told_what_it_should_be() {
    let bad = parse(br#"{"type":"block","id":1,"user":{}}"#).unwrap_err();
    assert_eq!(bad.message, "`user` must be an id or a name");
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&line);
    }

    #[test]
    fn no_json_like_line_panics(kind in "(ping|send|login|sync|history|ack|block|friends|groups|group_(create|join|kick|role|rename|members))", rest in "[\\[\\]{}\",:a-z0-9\\\\ ]{0,80}") {
        let _ = parse(format!(r#"{{"type":"{kind}",{rest}}}"#).as_bytes());
    }
}
