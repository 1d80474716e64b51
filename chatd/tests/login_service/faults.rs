//! Login services that are named by `--logd`, and what happens to them.

use std::io::Write as _;
use std::net::TcpListener;

use serde_json::json;
use testkit::{FaultProxy, LineClient, Logd, To};

use crate::house::{
    House, LONG, by_password, by_token, client, log_in_during, register, token_of, wait_connected,
    wait_for_logins,
};

/// Two who talk to each other, whatever happens to the login service.
struct Talk {
    amy: LineClient,
    bob: LineClient,
    said: u32,
}

impl Talk {
    fn begin(chatd: &testkit::Chatd) -> Self {
        let (mut amy, mut bob) = (chatd.client_as("amy"), chatd.client_as("bob"));
        amy.set_patience(LONG);
        bob.set_patience(LONG);
        Self { amy, bob, said: 0 }
    }

    fn goes_on(&mut self) {
        self.said += 1;
        let text = format!("number {}", self.said);
        self.amy.send_text(To::Name("bob"), &text);
        assert_eq!(self.bob.next_push("message")["text"], json!(text));
    }
}

#[test]
fn while_every_logd_is_killed_who_is_logged_in_goes_on_and_logins_are_unavailable() {
    let Some(house) = House::open() else { return };
    let logds = [house.logd().start().unwrap(), house.logd().start().unwrap()];
    let chatd = house.chatd_at(&[logds[0].rpc_addr(), logds[1].rpc_addr()]);
    let mut talk = Talk::begin(&chatd);
    talk.goes_on();
    let token = token_of(&by_password(&chatd, "amy"));
    logds.iter().for_each(Logd::kill9);
    for _ in 0..3 {
        assert_eq!(by_password(&chatd, "amy")["code"], "unavailable");
        assert_eq!(by_token(&chatd, &token)["code"], "unavailable");
        assert_eq!(register(&chatd, "cat")["code"], "unavailable");
        talk.goes_on();
    }
    // A session cannot end its token now, and stays what it is.
    assert_eq!(talk.amy.request(json!({"type": "logout"}))["code"], "unavailable");
    talk.goes_on();
    assert_eq!(chatd.admin_get("/readyz").unwrap().0, 200);
    logds[1].restart().unwrap();
    wait_connected(&chatd, 1);
    assert_eq!(by_password(&chatd, "amy")["type"], "ok");
    assert_eq!(by_token(&chatd, &token)["type"], "ok", "it was issued before");
    talk.goes_on();
}

#[test]
fn a_logd_that_is_stopped_is_noticed_and_used_again_when_it_goes_on() {
    let Some(house) = House::open() else { return };
    let logd = house.logd().start().unwrap();
    let chatd = house.chatd_at(&[logd.rpc_addr()]);
    let mut talk = Talk::begin(&chatd);
    for _ in 0..2 {
        logd.pause();
        // Those that meet it first wait for its heartbeat, not for a call's whole time.
        assert_eq!(by_password(&chatd, "amy")["code"], "unavailable");
        talk.goes_on();
        logd.resume();
        wait_for_logins(&chatd, "amy");
    }
}

#[test]
fn a_logd_that_is_cut_off_in_silence_is_noticed_and_used_again() {
    let Some(house) = House::open() else { return };
    let logd = house.logd().start().unwrap();
    let proxy = FaultProxy::start(logd.rpc_addr());
    let chatd = house.chatd_at(&[proxy.addr()]);
    let mut talk = Talk::begin(&chatd);
    proxy.go_silent(true);
    assert_eq!(by_password(&chatd, "amy")["code"], "unavailable");
    assert_eq!(register(&chatd, "cat")["code"], "unavailable");
    talk.goes_on();
    proxy.go_silent(false);
    wait_for_logins(&chatd, "amy");
    proxy.cut_all();
    wait_for_logins(&chatd, "amy");
    talk.goes_on();
}

#[test]
fn of_two_logds_one_is_killed_under_logins_and_only_what_was_in_flight_fails() {
    let Some(house) = House::open() else { return };
    let logds = [house.logd().start().unwrap(), house.logd().start().unwrap()];
    let chatd = house.chatd_at(&[logds[0].rpc_addr(), logds[1].rpc_addr()]);
    let ((), failures) = log_in_during(&chatd, |rush| {
        for logd in &logds {
            rush.wait_for(40);
            logd.kill9();
            rush.wait_for(40);
            logd.restart().unwrap();
            wait_connected(&chatd, 2);
        }
        rush.wait_for(40);
    });
    // A login by token can be made twice, and is, elsewhere.
    assert!(failures.by_token.is_empty(), "{failures:?}");
    // Of one by password nobody knows whether it was done. Each of two clients may at each of two kills have met one dying connection of each of two loops.
    assert!(failures.by_password.keys().all(|code| code == "unavailable"), "{failures:?}");
    assert!(failures.by_password.values().sum::<usize>() <= 8, "{failures:?}");
}

#[test]
fn a_rolling_restart_of_the_logds_fails_no_login() {
    let Some(house) = House::open() else { return };
    let logds = [house.logd().start().unwrap(), house.logd().start().unwrap()];
    let chatd = house.chatd_at(&[logds[0].rpc_addr(), logds[1].rpc_addr()]);
    let ((), failures) = log_in_during(&chatd, |rush| {
        for logd in logds.iter().cycle().take(4) {
            rush.wait_for(20);
            logd.terminate();
            assert!(logd.wait_exit(LONG).success());
            rush.wait_for(20);
            logd.restart().unwrap();
            wait_connected(&chatd, 2);
        }
        rush.wait_for(20);
    });
    assert!(failures.by_token.is_empty() && failures.by_password.is_empty(), "{failures:?}");
}

#[test]
fn nonsense_in_place_of_a_logd_is_unavailable_and_harms_nobody() {
    let Some(house) = House::open() else { return };
    let logd = house.logd().start().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nonsense = listener.local_addr().unwrap();
    let kinds: [&[u8]; 4] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xff; 64], &[0, 0, 0, 9, 0, 0, 0, 200, 1], &[0; 3]];
    // Ends with the test process.
    std::thread::spawn(move || {
        for (stream, kind) in listener.incoming().zip(kinds.iter().cycle()) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(kind);
        }
    });
    let args = ["--logd".to_owned(), nonsense.to_string()];
    let lost = house.chatd().args(&args).start().unwrap();
    for _ in 0..4 {
        assert_eq!(register(&lost, "amy")["code"], "unavailable");
    }
    drop(lost);
    // Beside a sane one it costs nobody a login.
    let both = house.chatd().args(&args).args(["--logd", &logd.rpc_addr().to_string()]).start().unwrap();
    wait_connected(&both, 1);
    assert_eq!(register(&both, "amy")["type"], "ok");
    for _ in 0..20 {
        assert_eq!(by_password(&both, "amy")["type"], "ok");
    }
}

#[test]
fn who_guesses_waits_at_every_chat_server_of_the_same_logd() {
    let Some(house) = House::open() else { return };
    let config = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";
    let logd = house.logd().config(config).start().unwrap();
    let chatds = [house.chatd_at(&[logd.rpc_addr()]), house.chatd_at(&[logd.rpc_addr()])];
    for name in ["amy", "bob"] {
        register(&chatds[0], name);
    }
    let guess = |at: usize| {
        client(&chatds[at % 2]).request(json!({"type": "login", "name": "amy", "password": "wrong horse"}))
    };
    for at in 0..5 {
        assert_eq!(guess(at)["code"], "unauthorized");
    }
    // The wait doubles with each try that it was too short for, as it may be on a machine that stands still.
    let told = (0..8).map(guess).find(|answer| answer["code"] != "unauthorized").expect("a wait");
    assert_eq!(told["code"], "rate_limited", "{told}");
    assert!(told["retry_after_ms"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(by_password(&chatds[1], "bob")["type"], "ok");
}

#[test]
fn with_more_logins_than_it_can_hash_logd_says_overloaded_and_tokens_pass() {
    let Some(house) = House::open() else { return };
    // So much memory and so many passes take most of a second.
    let config = "[login]\nhash_memory_kib = 64\nhash_passes = 1\nhash_queue_max = 1\n";
    let slow = "[login]\nhash_memory_kib = 131072\nhash_passes = 8\nhash_queue_max = 1\n";
    let quick = house.logd().config(config).start().unwrap();
    let chatd = house.chatd_at(&[quick.rpc_addr()]);
    register(&chatd, "amy");
    let token = token_of(&by_password(&chatd, "amy"));
    drop(chatd);
    let logd = house.logd().config(slow).start().unwrap();
    let chatd = house.chatd_at(&[logd.rpc_addr()]);
    let mut many: Vec<_> = (0..6).map(|_| client(&chatd)).collect();
    let asked: Vec<_> = many
        .iter_mut()
        .zip(0..)
        .map(|(client, at)| {
            let name = format!("u{at}");
            client.post(json!({"type": "register", "name": name, "password": "correct horse"}))
        })
        .collect();
    assert_eq!(by_token(&chatd, &token)["type"], "ok");
    let refused = |answer: &serde_json::Value| {
        answer["code"] == "overloaded" && answer["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0)
    };
    // One is hashed, one waits, and the others are told at once.
    let answers: Vec<_> = many.iter_mut().zip(asked).map(|(client, id)| client.reply(id)).collect();
    assert!(answers.iter().filter(|answer| refused(answer)).count() >= 1, "{answers:?}");
    assert!(answers.iter().all(|answer| refused(answer) || answer["type"] == "ok"), "{answers:?}");
}
