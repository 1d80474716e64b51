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

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&line);
    }

    #[test]
    fn no_json_like_line_panics(kind in "(ping|send|login|sync|history|ack)", rest in "[\\[\\]{}\",:a-z0-9\\\\ ]{0,80}") {
        let _ = parse(format!(r#"{{"type":"{kind}",{rest}}}"#).as_bytes());
    }
}
