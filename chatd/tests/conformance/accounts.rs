//! Section *Accounts and sessions*: registering, names, logging in, finding people.

use crate::client::{Client, WAIT};
use crate::server::{PASSWORD, fresh_name, now_ms, shared};
use serde_json::json;

fn register(client: &mut Client, name: &str) -> u64 {
    client.ok(json!({"type": "register", "name": name, "password": PASSWORD}))["user"]
        .as_u64()
        .expect("a user id")
}

#[test]
fn registering_gives_each_user_an_id() {
    let mut client = shared().connect();
    let (a, b) = (register(&mut client, &fresh_name("amy")), register(&mut client, &fresh_name("bob")));
    assert!(a >= 1 && b >= 1 && a != b);
}

#[test]
fn registering_is_no_login() {
    let mut client = shared().connect();
    let name = fresh_name("amy");
    register(&mut client, &name);
    assert_eq!(client.err(json!({"type": "find_user", "name": name})), "unauthorized");
}

#[test]
fn a_name_is_given_once() {
    let mut client = shared().connect();
    let name = fresh_name("amy");
    register(&mut client, &name);
    for password in [PASSWORD, "another one"] {
        assert_eq!(client.err(json!({"type": "register", "name": name, "password": password})), "conflict");
    }
}

#[test]
fn pipelined_registrations_of_one_name_have_one_winner() {
    let mut client = shared().connect();
    let name = fresh_name("amy");
    let ids = Vec::from_iter(
        (0..8).map(|_| client.ask(json!({"type": "register", "name": name, "password": PASSWORD}))),
    );
    let replies = Vec::from_iter(ids.into_iter().map(|id| client.reply(id)));
    assert_eq!(replies.iter().filter(|reply| reply["type"] == "ok").count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply["code"] == "conflict").count(), 7, "{replies:?}");
}

#[test]
fn names_are_equal_after_nfkc_and_lower_casing() {
    let house = shared();
    let mut client = house.connect();
    let number = fresh_name("n");
    for (given, others) in [
        ("amy", &["AMY", "aMy", "Ａmy", "ａｍｙ", "𝐚𝐦𝐲"][..]),
        ("Ünal", &["ünal", "U\u{308}nal", "u\u{308}NAL"]),
        ("ﬁnn", &["finn", "FINN", "ﬁNN"]),
        ("\u{212a}elvin", &["kelvin", "KELVIN"]),
        ("Жанна", &["жанна", "ЖАННА"]),
    ] {
        let given = format!("{given}{number}");
        let user = register(&mut client, &given);
        for other in others {
            let other = format!("{other}{number}");
            let request = json!({"type": "register", "name": other, "password": PASSWORD});
            assert_eq!(client.err(request), "conflict", "{other} equals {given}");
            let mut session = house.connect();
            let ok = session.ok(json!({"type": "login", "name": other, "password": PASSWORD}));
            assert_eq!((&ok["user"], &ok["name"]), (&json!(user), &json!(given)), "by {other}");
            let found = session.ok(json!({"type": "find_user", "name": other}));
            assert_eq!((&found["user"], &found["name"]), (&json!(user), &json!(given)), "by {other}");
        }
    }
}

#[test]
fn names_of_any_script_are_allowed_and_shown_as_given() {
    let house = shared();
    let mut client = house.connect();
    let suffix = fresh_name("");
    for name in [
        "a",
        "7",
        "_",
        "-",
        ".",
        "a_b-c.d",
        "Zoë",
        "李小龙",
        "Мария",
        "محمد",
        "हिन्दी",
        "e\u{301}t\u{e9}",
        "Ελένη",
        "٣",
        "日本の人",
        "ᚠᚢᚦ",
        "𐌰𐌱",
    ] {
        let name = format!("{name}{suffix}");
        let user = register(&mut client, &name);
        let ok = house.connect().ok(json!({"type": "login", "name": name, "password": PASSWORD}));
        assert_eq!((&ok["user"], &ok["name"]), (&json!(user), &json!(name)));
    }
}

#[test]
fn names_against_the_rules_are_bad_request() {
    let mut client = shared().connect();
    let long = "x".repeat(33);
    let longer = "é".repeat(33);
    for name in [
        "",
        " ",
        "a b",
        "a\tb",
        "a\nb",
        "a\0b",
        "amy ",
        " amy",
        "a/b",
        "a@b",
        "a'b",
        "a\"b",
        "a\\b",
        "a;b",
        "a%b",
        "a$b",
        "a+b",
        "a,b",
        "a:b",
        "<b>",
        "😀",
        "a\u{200b}b",
        "a\u{202e}b",
        "a\u{a0}b",
        "a\u{2014}b",
        "a\u{7f}b",
        "\u{feff}a",
        &long,
        &longer,
    ] {
        let request = json!({"type": "register", "name": name, "password": PASSWORD});
        assert_eq!(client.err(request), "bad_request", "{name:?}");
        client.fence();
    }
}

#[test]
fn a_name_of_32_characters_is_allowed_whatever_their_bytes() {
    let mut client = shared().connect();
    for letter in ["x", "я", "漢", "𐌰"] {
        let suffix = fresh_name("");
        register(&mut client, &format!("{}{suffix}", letter.repeat(32 - suffix.len())));
    }
}

#[test]
fn a_password_is_8_to_128_bytes() {
    let mut client = shared().connect();
    for (password, fits) in [
        (String::new(), false),
        ("x".repeat(7), false),
        ("x".repeat(8), true),
        ("é".repeat(4), true),
        ("é\0\n\"\\ 漢".to_owned(), true),
        ("x".repeat(128), true),
        ("x".repeat(129), false),
        ("漢".repeat(43), false),
    ] {
        let name = fresh_name("amy");
        let reply = client.request(json!({"type": "register", "name": name, "password": password}));
        let expected = if fits { "ok" } else { "error" };
        assert_eq!(reply["type"], expected, "{password:?}: {reply}");
        if fits {
            let mut session = shared().connect();
            session.ok(json!({"type": "login", "name": name, "password": password}));
        } else {
            assert_eq!(reply["code"], "bad_request");
        }
    }
}

#[test]
fn a_login_tells_everything_about_the_session() {
    let house = shared();
    let user = house.user("Amy");
    let (_, ok) = house.login(&user);
    assert_eq!((&ok["user"], &ok["name"]), (&json!(user.id), &json!(user.name)));
    assert!(ok["token"].as_str().unwrap().len() >= 22, "128 bits need 22 characters: {ok}");
    let valid = ok["expires_ms"].as_u64().unwrap().abs_diff(now_ms());
    let day = 24 * 3600 * 1000;
    assert!((6 * day..=8 * day).contains(&valid), "valid for {valid} ms");
    assert!(!ok["session"].is_null(), "{ok}");
}

#[test]
fn each_login_has_a_token_and_a_session_of_its_own() {
    let house = shared();
    let user = house.user("amy");
    let ((_a, first), (_b, second)) = (house.login(&user), house.login(&user));
    assert_ne!(first["token"], second["token"]);
    assert_ne!(first["session"], second["session"]);
}

#[test]
fn a_wrong_name_and_a_wrong_password_are_told_the_same() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.connect();
    let mut wrong_password =
        client.request(json!({"type": "login", "name": user.name, "password": "wrong horse"}));
    let mut wrong_name =
        client.request(json!({"type": "login", "name": fresh_name("nobody"), "password": PASSWORD}));
    assert_eq!(wrong_password["code"], "unauthorized");
    (wrong_password["id"], wrong_name["id"]) = (json!(0), json!(0));
    assert_eq!(wrong_password, wrong_name);
}

#[test]
fn after_a_refused_login_the_connection_can_log_in() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.connect();
    assert_eq!(
        client.err(json!({"type": "login", "name": user.name, "password": "wrong horse"})),
        "unauthorized"
    );
    assert_eq!(client.err(json!({"type": "find_user", "name": user.name})), "unauthorized");
    client.ok(json!({"type": "login", "name": user.name, "password": PASSWORD}));
    client.ok(json!({"type": "find_user", "name": user.name}));
}

#[test]
fn a_login_needs_name_and_password_or_a_token() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.connect();
    for request in [
        json!({"type": "login"}),
        json!({"type": "login", "name": user.name}),
        json!({"type": "login", "password": PASSWORD}),
        json!({"type": "login", "token": 5}),
        json!({"type": "login", "name": user.id, "password": PASSWORD}),
        json!({"type": "login", "name": user.name, "password": PASSWORD, "hold": "yes"}),
        json!({"type": "login", "name": user.name, "password": PASSWORD, "version": "one"}),
    ] {
        assert_eq!(client.err(request.clone()), "bad_request", "{request}");
        client.fence();
    }
}

#[test]
fn a_wrong_token_is_unauthorized() {
    let house = shared();
    let (_session, ok) = house.login(&house.user("amy"));
    let token = ok["token"].as_str().unwrap();
    let mut flipped = token.to_owned();
    let first = if flipped.remove(0) == 'A' { 'B' } else { 'A' };
    flipped.insert(0, first);
    let mut client = house.connect();
    for wrong in
        ["x", "x' or '1'='1", &token[1..], &format!("{token}A"), &flipped, &"A".repeat(43), &"漢".repeat(900)]
    {
        assert_eq!(client.err(json!({"type": "login", "token": wrong})), "unauthorized", "{wrong}");
    }
    client.ok(json!({"type": "login", "token": token}));
}

#[test]
fn version_one_is_spoken_and_others_are_refused() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.connect();
    for version in [2, 3, 1000] {
        let request = json!({"type": "login", "name": user.name, "password": PASSWORD, "version": version});
        assert_eq!(client.err(request), "unsupported_version", "{version}");
    }
    client.ok(
        json!({"type": "login", "name": user.name, "password": PASSWORD, "version": 1, "device": "phone"}),
    );
}

#[test]
fn a_second_login_on_one_connection_is_a_conflict() {
    let house = shared();
    let (user, other) = house.pair();
    let mut client = house.session(&user);
    for name in [&user.name, &other.name] {
        assert_eq!(client.err(json!({"type": "login", "name": name, "password": PASSWORD})), "conflict");
    }
    let (conv, _) = client.say(&other, "still me");
    assert_eq!(client.ok(json!({"type": "history", "conv": conv}))["messages"][0]["from"], json!(user.id));
}

#[test]
fn pipelined_logins_on_one_connection_have_one_winner() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.connect();
    let login = json!({"type": "login", "name": user.name, "password": PASSWORD});
    let ids = Vec::from_iter((0..5).map(|_| client.ask(login.clone())));
    let replies = Vec::from_iter(ids.into_iter().map(|id| client.reply(id)));
    assert_eq!(replies.iter().filter(|reply| reply["type"] == "ok").count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply["code"] == "conflict").count(), 4, "{replies:?}");
}

#[test]
fn a_person_is_found_by_name_online_and_offline() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut client = house.session(&amy);
    let find = json!({"type": "find_user", "name": bob.name});
    let found = client.ok(find.clone());
    assert_eq!(
        (&found["user"], &found["name"], &found["online"]),
        (&json!(bob.id), &json!(bob.name), &json!(false))
    );
    let session = house.session(&bob);
    assert_eq!(client.ok(find.clone())["online"], true);
    drop(session);
    testkit::wait_until("offline after the session has ended", WAIT, || {
        client.ok(find.clone())["online"] == false
    });
}

#[test]
fn who_does_not_exist_is_not_found() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    for name in [fresh_name("nobody").as_str(), "nobody%", "x' or '1'='1"] {
        let code = client.err(json!({"type": "find_user", "name": name}));
        let no_name_at_all = name.contains([' ', '%']);
        assert!(code == "not_found" || no_name_at_all && code == "bad_request", "{name}: {code}");
    }
}
