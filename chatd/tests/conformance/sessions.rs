//! Section *Accounts and sessions*: tokens, logging out, changing the password, how many sessions there can be.

use crate::client::{Client, WAIT};
use crate::server::{House, PASSWORD, User, shared};
use serde_json::{Value, json};

fn by_token(house: &House, token: &Value) -> Value {
    house.connect().request(json!({"type": "login", "token": token}))
}

fn assert_revoked(house: &House, token: &Value) {
    let reply = by_token(house, token);
    assert_eq!(reply["code"], "unauthorized", "{reply}");
}

#[test]
fn a_token_logs_in_without_a_password() {
    let house = shared();
    let user = house.user("Amy");
    let (_, first) = house.login(&user);
    let mut client = house.connect();
    let ok = client.ok(json!({"type": "login", "token": first["token"]}));
    assert_eq!((&ok["user"], &ok["name"]), (&json!(user.id), &json!(user.name)));
    assert!(ok["token"].is_string() && !ok["session"].is_null(), "{ok}");
    assert!(ok["expires_ms"].as_u64() >= first["expires_ms"].as_u64(), "renewed by use");
    client.push("synced");
    let again = by_token(house, &ok["token"]);
    assert_eq!(again["type"], "ok", "the token of a login by token is good too: {again}");
}

#[test]
fn everything_needs_a_login() {
    let mut client = shared().connect();
    for request in [
        json!({"type": "logout"}),
        json!({"type": "logout", "all": true}),
        json!({"type": "password", "old": PASSWORD, "new": "another horse"}),
        json!({"type": "find_user", "name": "amy"}),
        json!({"type": "sync", "cursors": {}}),
        json!({"type": "send", "user": 1, "text": "hi"}),
        json!({"type": "send", "user": "amy", "text": "hi"}),
        json!({"type": "send", "conv": 1, "text": "hi"}),
        json!({"type": "ack", "conv": 1, "seq": 1}),
        json!({"type": "read", "conv": 1, "seq": 1}),
        json!({"type": "marks", "conv": 1}),
        json!({"type": "typing", "conv": 1}),
        json!({"type": "history", "conv": 1}),
        json!({"type": "conversations"}),
    ] {
        assert_eq!(client.err(request.clone()), "unauthorized", "{request}");
    }
    client.tell(&json!({"type": "ack", "conv": 1, "seq": 1}));
    assert_eq!(client.line()["code"], "unauthorized", "also without an id");
    client.fence();
}

#[test]
fn a_logout_revokes_its_token_and_the_connection_stays() {
    let house = shared();
    let (amy, bob) = house.pair();
    let (mut client, login) = house.login(&amy);
    client.push("synced");
    client.ok(json!({"type": "logout"}));
    assert_revoked(house, &login["token"]);
    assert_eq!(client.err(json!({"type": "find_user", "name": amy.name})), "unauthorized");
    assert_eq!(client.err(json!({"type": "logout"})), "unauthorized");
    let ok = client.ok(json!({"type": "login", "name": bob.name, "password": PASSWORD}));
    assert_eq!(ok["user"], json!(bob.id), "somebody else can log in here");
}

#[test]
fn after_a_logout_no_push_of_that_session_comes() {
    let house = shared();
    let (amy, bob) = house.pair();
    let carol = house.user("carol");
    let (mut client, mut carols) = (house.session(&amy), house.session(&carol));
    for round in 0..5 {
        carols.say(&amy, "before");
        let id = client.ask(json!({"type": "logout"}));
        carols.say(&amy, "meanwhile");
        client.reply(id);
        client.seen("message");
        carols.say(&amy, "after");
        client.assert_quiet();
        client.ok(json!({"type": "login", "name": bob.name, "password": PASSWORD}));
        client.push("synced");
        carols.say(&bob, "for bob");
        let pushed =
            client.take("bob's message", |line| line["text"] == "for bob" && line["seq"] == json!(round + 1));
        assert_eq!(pushed["to"], json!(bob.id));
        assert!(client.seen("message").iter().all(|line| line["to"] == json!(bob.id)));
        client.ok(json!({"type": "logout"}));
        client.ok(json!({"type": "login", "name": amy.name, "password": PASSWORD}));
        client.push("synced");
    }
}

#[test]
fn a_logout_leaves_other_sessions_alone() {
    let house = shared();
    let user = house.user("amy");
    let (mut stays, other) = house.login(&user);
    let mut goes = house.session(&user);
    goes.ok(json!({"type": "logout"}));
    stays.push("synced");
    stays.assert_quiet();
    assert_eq!(by_token(house, &other["token"])["type"], "ok");
}

#[test]
fn logout_all_ends_every_session_and_revokes_every_token() {
    let house = shared();
    let user = house.user("amy");
    let mut tokens = Vec::new();
    let mut others = Vec::<Client>::new();
    for _ in 0..4 {
        let (client, login) = house.login(&user);
        tokens.push(login["token"].clone());
        others.push(client);
    }
    drop(others.pop());
    let (mut client, login) = house.login(&user);
    tokens.push(login["token"].clone());
    client.ok(json!({"type": "logout", "all": true}));
    for other in &mut others {
        other.expect_bye("logged_out");
    }
    for token in &tokens {
        assert_revoked(house, token);
    }
    assert_eq!(client.err(json!({"type": "conversations"})), "unauthorized");
    client.ok(json!({"type": "login", "name": user.name, "password": PASSWORD}));
}

#[test]
fn a_session_whose_token_another_connection_revoked_ends() {
    let house = shared();
    let user = house.user("amy");
    let (mut first, login) = house.login(&user);
    let mut second = house.connect();
    let by_token = second.ok(json!({"type": "login", "token": login["token"]}));
    first.ok(json!({"type": "logout"}));
    // Where a login by token is given a token of its own, revoking the old one need not touch it.
    if by_token["token"] == login["token"] {
        second.expect_bye("logged_out");
    } else {
        assert_revoked(house, &login["token"]);
    }
}

#[test]
fn the_old_password_is_asked_for() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    for old in ["wrong horse", "", "correct horse "] {
        let request = json!({"type": "password", "old": old, "new": "another horse"});
        let code = client.err(request);
        assert!(code == "unauthorized" || old.is_empty() && code == "bad_request", "{old:?}: {code}");
    }
    client.fence();
}

#[test]
fn a_new_password_keeps_to_the_rules() {
    let house = shared();
    let user = house.user("amy");
    let mut client = house.session(&user);
    for new in [String::new(), "x".repeat(7), "x".repeat(129)] {
        let request = json!({"type": "password", "old": PASSWORD, "new": new});
        assert_eq!(client.err(request), "bad_request", "{new:?}");
    }
    house.session(&user);
}

#[test]
fn a_changed_password_revokes_every_other_session() {
    let house = shared();
    let user = house.user("amy");
    let (mut other, others_login) = house.login(&user);
    let (mut client, login) = house.login(&user);
    client.push("synced");
    client.ok(json!({"type": "password", "old": PASSWORD, "new": "another horse"}));
    other.expect_bye("logged_out");
    assert_revoked(house, &others_login["token"]);
    client.assert_quiet();
    assert_eq!(by_token(house, &login["token"])["type"], "ok", "its own session stays");
    let mut fresh = house.connect();
    assert_eq!(fresh.err(json!({"type": "login", "name": user.name, "password": PASSWORD})), "unauthorized");
    fresh.ok(json!({"type": "login", "name": user.name, "password": "another horse"}));
}

#[test]
fn a_ninth_session_ends_the_oldest() {
    let house = shared();
    let user = house.user("amy");
    let mut sessions = Vec::from_iter((0..8).map(|_| house.session(&user)));
    sessions[0].assert_quiet();
    let mut ninth = house.session(&user);
    sessions.remove(0).expect_bye("replaced");
    ninth.fence();
    for session in &mut sessions {
        session.assert_quiet();
    }
    let _tenth = house.session(&user);
    sessions.remove(0).expect_bye("replaced");
}

#[test]
fn a_session_that_has_ended_makes_room() {
    let house = shared();
    let user = house.user("amy");
    let mut stays = house.session(&user);
    for _ in 0..12 {
        let mut goes = house.session(&user);
        goes.ok(json!({"type": "logout"}));
    }
    stays.assert_quiet();
}

#[test]
fn a_user_has_at_most_32_tokens_and_the_newest_is_good() {
    let house = shared();
    let user = house.user("amy");
    let tokens = Vec::from_iter((0..40).map(|_| house.login(&user).1["token"].clone()));
    assert_eq!(by_token(house, &tokens[39])["type"], "ok");
    let good = tokens.iter().filter(|token| by_token(house, token)["type"] == "ok").count();
    assert!(good <= 32, "{good} tokens are good");
}

#[test]
fn a_sync_needs_a_login_with_hold() {
    let house = shared();
    let mut client = house.session(&house.user("amy"));
    client.err(json!({"type": "sync", "cursors": {}}));
    client.assert_quiet();
}

#[test]
fn who_sends_is_taken_from_the_session() {
    let house = shared();
    let (amy, bob) = house.pair();
    let carol: User = house.user("carol");
    let (mut amys, mut bobs) = (house.session(&amy), house.session(&bob));
    let forged = json!({"type": "send", "user": bob.id, "text": "hi", "from": carol.id, "from_name": carol.name, "session": 1});
    amys.ok(forged);
    let push = bobs.push("message");
    assert_eq!((&push["from"], &push["from_name"]), (&json!(amy.id), &json!(amy.name)));
}

#[test]
fn a_person_without_a_session_can_log_in_after_many_have_vanished() {
    let house = shared();
    let user = house.user("amy");
    for _ in 0..20 {
        let (client, _) = house.login(&user);
        client.reset();
    }
    let mut client = house.session(&user);
    let find = json!({"type": "find_user", "name": user.name});
    testkit::wait_until("the user is online", WAIT, || client.ok(find.clone())["online"] == true);
}
