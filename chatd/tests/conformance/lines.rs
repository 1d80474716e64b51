//! Section *Lines*: framing, ids, replies, and what a server makes of garbage.

use crate::client::{Client, ID_MAX};
use crate::server::shared;
use serde_json::{Value, json};

#[test]
fn a_line_may_end_with_carriage_return_and_line_feed() {
    let mut client = shared().connect();
    client.raw(b"{\"type\":\"ping\",\"id\":4}\r\n");
    assert_eq!(client.reply(4)["type"], "ok");
}

#[test]
fn empty_lines_are_ignored() {
    let mut client = shared().connect();
    client.raw(b"\n\n\r\n\n{\"type\":\"ping\",\"id\":4}\n\n");
    assert_eq!(client.line()["id"], 4, "nothing but the reply");
    client.assert_quiet();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut client = shared().connect();
    for byte in b"{\"type\":\"ping\",\"id\":4}\n" {
        client.raw(&[*byte]);
    }
    assert_eq!(client.reply(4)["type"], "ok");
}

#[test]
fn half_a_line_waits_for_its_other_half() {
    let mut client = shared().connect();
    client.raw(b"{\"type\":\"ping\",\"id\":4}\n{\"type\":\"pi");
    assert_eq!(client.reply(4)["type"], "ok");
    client.raw(b"ng\",\"id\":5}\n");
    assert_eq!(client.line()["id"], 5);
}

#[test]
fn half_a_line_at_the_end_of_a_connection_disturbs_nobody() {
    for half in ["{", "{\"type\":\"ping\",\"id\":4}", "\"", "\\", "{\"type\":\"register\",\"name\":\"half"] {
        let mut client = shared().connect();
        client.raw(half.as_bytes());
        client.shutdown_write();
        client.rest();
    }
    shared().connect().fence();
}

#[test]
fn an_id_is_echoed_exactly() {
    let mut client = shared().connect();
    for id in [0, 1, 2, 255, 256, 1 << 31, 1 << 32, ID_MAX - 1, ID_MAX] {
        client.tell(&json!({"type": "ping", "id": id}));
        assert_eq!(client.line()["id"], json!(id));
    }
}

#[test]
fn the_same_id_may_be_used_again() {
    let mut client = shared().connect();
    for _ in 0..3 {
        client.tell(&json!({"type": "ping", "id": 7}));
        assert_eq!(client.line()["id"], 7);
    }
}

#[test]
fn an_id_out_of_range_is_bad_request() {
    let mut client = shared().connect();
    for id in [
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "1.5",
        "\"7\"",
        "[]",
        "{}",
        "true",
    ] {
        client.raw(format!("{{\"type\":\"ping\",\"id\":{id}}}\n").as_bytes());
        let line = client.line();
        assert_eq!((&line["type"], &line["code"]), (&json!("error"), &json!("bad_request")), "id {id}");
        assert!(line["id"].is_null(), "id {id} is echoed although it is none: {line}");
        client.fence();
    }
}

#[test]
fn a_number_beyond_every_number_is_an_error_and_no_crash() {
    let mut client = shared().connect();
    for id in ["1e400", "-1e400", "1e-400", "99999999999999999999999999999999999999999"] {
        client.raw(format!("{{\"type\":\"ping\",\"id\":{id}}}\n").as_bytes());
        let line = client.line();
        assert_eq!(line["type"], "error", "id {id}");
        assert!(["bad_json", "bad_request"].contains(&line["code"].as_str().unwrap()), "{line}");
    }
    client.fence();
}

#[test]
fn without_an_id_there_is_no_ok() {
    let mut client = shared().connect();
    client.tell(&json!({"type": "ping"}));
    client.assert_quiet();
}

#[test]
fn without_an_id_there_is_still_an_error_and_it_has_none() {
    let mut client = shared().connect();
    client.tell(&json!({"type": "no_such_type"}));
    let line = client.line();
    assert_eq!((&line["type"], &line["code"]), (&json!("error"), &json!("unsupported_type")));
    assert!(line.get("id").is_none(), "{line}");
    client.tell(&json!({"type": "login"}));
    let line = client.line();
    assert_eq!((&line["type"], &line["code"]), (&json!("error"), &json!("bad_request")));
    assert!(line.get("id").is_none(), "{line}");
}

#[test]
fn what_is_no_object_is_bad_json() {
    let garbage: [&[u8]; 24] = [
        b"garbage",
        b"GET / HTTP/1.1",
        b"[]",
        b"[{\"type\":\"ping\",\"id\":1}]",
        b"\"ping\"",
        b"7",
        b"-0.5",
        b"true",
        b"null",
        b"{",
        b"}",
        b"{}}",
        b"{\"type\":\"ping\",\"id\":1",
        b"{\"type\":\"ping\",\"id\":1}}",
        b"{\"type\":\"ping\",\"id\":1} {\"type\":\"ping\",\"id\":2}",
        b"{\"type\":\"ping\",\"id\":1,}",
        b"{'type':'ping'}",
        b"{type:\"ping\"}",
        b"{\"type\":\"ping\",\"id\":01}",
        b"{\"type\":\"ping\" \"id\":1}",
        b"\xef\xbb\xbf[]",
        b"\0",
        b"{\"type\":\"ping\",\"id\":1}\0",
        b"{\"type\":\"ping\",\0\"id\":1}",
    ];
    let mut client = shared().connect();
    for line in garbage {
        client.raw(&[line, b"\n"].concat());
        let reply = client.line();
        let line = String::from_utf8_lossy(line);
        assert_eq!((&reply["type"], &reply["code"]), (&json!("error"), &json!("bad_json")), "{line:?}");
        client.fence();
    }
}

#[test]
fn invalid_utf8_is_bad_json() {
    let pieces: [&[u8]; 7] =
        [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\x80"];
    let mut client = shared().connect();
    for piece in pieces {
        for (before, after) in
            [("", ""), ("{\"type\":\"", "\",\"id\":1}"), ("{\"type\":\"find_user\",\"name\":\"", "\"}")]
        {
            client.raw(&[before.as_bytes(), piece, after.as_bytes(), b"\n"].concat());
            assert_eq!(client.line()["code"], "bad_json", "{piece:?} within {before}");
            client.fence();
        }
    }
}

#[test]
fn deep_nesting_does_not_end_the_server() {
    let mut client = shared().connect();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [100, 500] {
            let deep = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            client.raw(format!("{{\"type\":\"ping\",\"id\":4,\"unknown\":{deep}}}\n").as_bytes());
            let line = client.line();
            assert!(line["type"] == "ok" || line["code"] == "bad_json", "{line}");
        }
        client.raw(format!("{}\n", open.repeat(800)).as_bytes());
        assert_eq!(client.line()["code"], "bad_json");
    }
    client.fence();
}

#[test]
fn an_object_without_a_type_is_bad_request() {
    let mut client = shared().connect();
    for line in [
        json!({}),
        json!({"typ": "ping"}),
        json!({"type": 7}),
        json!({"type": null}),
        json!({"type": ["ping"]}),
    ] {
        client.tell(&line);
        assert_eq!(client.line()["code"], "bad_request", "{line}");
        let mut with_id = line.clone();
        with_id["id"] = json!(77);
        client.tell(&with_id);
        let reply = client.line();
        assert_eq!((&reply["code"], &reply["id"]), (&json!("bad_request"), &json!(77)), "{with_id}");
        client.fence();
    }
}

#[test]
fn an_unknown_type_is_unsupported_and_the_connection_stays() {
    let mut client = shared().connect();
    for kind in ["no_such_type", "", "PING", "ping ", "ok", "error", "hello", "message", "💬", "a\"b\n\0"] {
        assert_eq!(client.err(json!({"type": kind})), "unsupported_type", "{kind:?}");
    }
    client.fence();
}

#[test]
fn unknown_fields_are_ignored() {
    let mut client = shared().connect();
    let ok = client.ok(
        json!({"type": "ping", "x": null, "Type": "login", "ids": [1, {"type": "nope"}], "conv": -1, "": ""}),
    );
    assert!(ok["time_ms"].is_u64());
}

#[test]
fn a_field_may_stand_before_the_type() {
    let mut client = shared().connect();
    client.raw(b" {\"zzz\": [1, 2] , \"id\" :4,\t\"type\": \"pi\\u006eg\" } \n");
    assert_eq!(client.line()["id"], 4);
}

#[test]
fn a_missing_field_is_bad_request_under_the_requests_id() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    for request in [
        json!({"type": "register"}),
        json!({"type": "register", "name": "x"}),
        json!({"type": "register", "password": "long enough"}),
        json!({"type": "password", "old": "long enough"}),
        json!({"type": "password", "new": "long enough"}),
        json!({"type": "find_user"}),
        json!({"type": "send", "text": "to nobody"}),
        json!({"type": "send", "conv": 1}),
        json!({"type": "send", "user": 1}),
        json!({"type": "ack", "conv": 1}),
        json!({"type": "ack", "seq": 1}),
        json!({"type": "read", "conv": 1}),
        json!({"type": "read", "seq": 1}),
        json!({"type": "marks"}),
        json!({"type": "typing"}),
        json!({"type": "history"}),
    ] {
        assert_eq!(client.err(request.clone()), "bad_request", "{request}");
        client.fence();
    }
}

#[test]
fn a_field_of_the_wrong_type_or_out_of_range_is_bad_request() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    let not_an_id = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(ID_MAX + 1),
        json!(u64::MAX),
        json!(true),
        json!([1]),
        json!({}),
    ];
    let mut requests = vec![
        json!({"type": "register", "name": 5, "password": "long enough"}),
        json!({"type": "register", "name": "x", "password": 12_345_678}),
        json!({"type": "find_user", "name": 5}),
        json!({"type": "logout", "all": "yes"}),
        json!({"type": "send", "user": 1, "text": 5}),
        json!({"type": "send", "user": 1, "text": ["a"]}),
        json!({"type": "send", "user": 1, "text": "a", "client_id": 5}),
        json!({"type": "marks", "conv": "1"}),
        json!({"type": "ack", "conv": 1, "seq": -1}),
        json!({"type": "ack", "conv": 1, "seq": "1"}),
        json!({"type": "ack", "conv": 1, "seq": ID_MAX + 1}),
        json!({"type": "read", "conv": 1, "seq": -1}),
        json!({"type": "read", "conv": 1, "seq": 1.5}),
    ];
    for value in not_an_id {
        requests.push(json!({"type": "send", "user": value, "text": "a"}));
        requests.push(json!({"type": "send", "conv": value, "text": "a"}));
        requests.push(json!({"type": "history", "conv": value}));
        requests.push(json!({"type": "marks", "conv": value}));
        requests.push(json!({"type": "typing", "conv": value}));
        requests.push(json!({"type": "ack", "conv": value, "seq": 1}));
        requests.push(json!({"type": "read", "conv": value, "seq": 1}));
    }
    for request in requests {
        assert_eq!(client.err(request.clone()), "bad_request", "{request}");
        client.fence();
    }
}

#[test]
fn five_hundred_requests_in_one_write_are_each_answered_once() {
    let house = shared();
    let user = house.user("amy");
    let mut fresh = house.connect();
    answer_each_once(&mut fresh, &json!({"type": "ping"}));
    let mut session = house.session(&user);
    answer_each_once(&mut session, &json!({"type": "ping"}));
    answer_each_once(&mut session, &json!({"type": "find_user", "name": user.name}));
    answer_each_once(&mut session, &json!({"type": "conversations"}));
}

fn answer_each_once(client: &mut Client, request: &Value) {
    let mut batch = String::new();
    let mut open = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let (id, request) = client.with_id(request.clone());
        batch.push_str(&format!("{request}\n"));
        open.insert(id);
    }
    client.raw(batch.as_bytes());
    while !open.is_empty() {
        let reply = client.line();
        assert_eq!(reply["type"], "ok", "{reply}");
        assert!(open.remove(&reply["id"].as_u64().unwrap()), "answered twice: {reply}");
    }
    client.assert_quiet();
}
