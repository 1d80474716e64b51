//! Section *Lines*: how long a line may be, and how many bad ones there may be in a row.

use crate::client::{Client, LINE_MAX, LINE_MAX_BEFORE_LOGIN};
use crate::server::{has_more, shared};
use serde_json::{Value, json};

/// A `ping` with this id that is exactly `length` bytes long.
fn ping_of(length: usize, id: u64) -> Vec<u8> {
    let bare = json!({"type": "ping", "id": id, "pad": ""}).to_string().len();
    json!({"type": "ping", "id": id, "pad": "x".repeat(length - bare)}).to_string().into_bytes()
}

fn session() -> Client {
    let house = shared();
    house.session(&house.user("amy"))
}

fn assert_cut_off(client: &mut Client) {
    let error = client.line();
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("too_large")), "{error}");
    client.expect_bye("too_large");
}

#[test]
fn before_login_a_line_of_4096_bytes_is_fine() {
    let mut client = shared().connect();
    client.raw(&[&ping_of(LINE_MAX_BEFORE_LOGIN, 9)[..], b"\n"].concat());
    assert_eq!(client.line()["id"], 9);
    client.fence();
}

#[test]
fn before_login_a_line_of_4097_bytes_ends_the_connection() {
    let mut client = shared().connect();
    client.raw(&[&ping_of(LINE_MAX_BEFORE_LOGIN + 1, 9)[..], b"\n"].concat());
    assert_cut_off(&mut client);
}

#[test]
fn after_login_a_line_of_65536_bytes_is_fine() {
    let mut client = session();
    client.raw(&[&ping_of(LINE_MAX, 9)[..], b"\n"].concat());
    assert_eq!(client.line()["id"], 9);
    client.fence();
}

#[test]
fn after_login_a_line_of_65537_bytes_ends_the_connection() {
    let mut client = session();
    client.raw(&[&ping_of(LINE_MAX + 1, 9)[..], b"\n"].concat());
    assert_cut_off(&mut client);
}

#[test]
fn a_line_without_end_is_cut_off_at_the_limit() {
    let mut client = shared().connect();
    client.raw(&vec![b'x'; LINE_MAX_BEFORE_LOGIN + 1]);
    assert_cut_off(&mut client);
    let mut client = session();
    client.raw(&vec![b' '; LINE_MAX + 1]);
    assert_cut_off(&mut client);
}

#[test]
fn the_bye_arrives_although_the_client_sends_on() {
    for _ in 0..5 {
        let mut client = shared().connect();
        // The rest may hit a closed connection: a write error is fine, the bye must have come all the same.
        for _ in 0..40 {
            if client.try_raw(&vec![b'x'; 16_384]).is_err() {
                break;
            }
        }
        assert_cut_off(&mut client);
    }
}

#[test]
fn what_came_before_an_oversized_line_is_answered() {
    let mut client = shared().connect();
    client.raw(
        &[b"{\"type\":\"ping\",\"id\":1}\n", &vec![b'x'; LINE_MAX_BEFORE_LOGIN + 1][..], b"\n"].concat(),
    );
    assert_eq!(client.line()["id"], 1);
    assert_cut_off(&mut client);
}

#[test]
fn replies_keep_to_the_limit_whatever_is_in_them() {
    let house = shared();
    let (amy, bob) = house.pair();
    let mut client = house.session(&amy);
    let mut conv = 0;
    // Quotes double when they are escaped; the client checks each line's length.
    for text in ["\"".repeat(16_384), "\n".repeat(16_384), "\\".repeat(16_384), "é".repeat(8192)]
        .iter()
        .cycle()
        .take(9)
    {
        conv = client.say(&bob, text).0;
    }
    let mut bobs = house.session(&bob);
    assert_eq!(bobs.seen("message").len(), 9);
    let page = bobs.ok(json!({"type": "history", "conv": conv}));
    let count = page["messages"].as_array().unwrap().len();
    assert!((1..9).contains(&count) && has_more(&page), "{count} of 9 entries, more: {}", page["more"]);
}

fn bad(n: usize) -> &'static [u8] {
    [&b"garbage\n"[..], b"{}\n", b"{\"type\":\"ping\",\"id\":-3}\n", b"[]\n"][n % 4]
}

#[test]
fn after_sixteen_bad_lines_in_a_row_the_connection_ends() {
    for mut client in [shared().connect(), session()] {
        for n in 0..16 {
            client.raw(bad(n));
        }
        for _ in 0..16 {
            let line = client.line();
            assert!(["bad_json", "bad_request"].contains(&line["code"].as_str().unwrap()), "{line}");
        }
        client.expect_bye("too_many_errors");
    }
}

#[test]
fn a_good_line_in_between_starts_the_count_again() {
    let mut client = shared().connect();
    for _ in 0..4 {
        for n in 0..15 {
            client.raw(bad(n));
            let line: Value = client.line();
            assert_eq!(line["type"], "error", "{line}");
        }
        client.fence();
    }
}
