//! `docs/rpc.md` says what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;
use rpc::echo::Payload;
use rpc::wire::{self, Entry, Executed, Header, Hello, Kind};

const DOCUMENT: &str = include_str!("../../docs/rpc.md");
const WIRE: &str = include_str!("../proto/wire.proto");

/// The blocks whose first line is this, with what stands behind it there.
fn blocks(kind: &str) -> BTreeMap<&'static str, &'static str> {
    let mut blocks = BTreeMap::new();
    for part in DOCUMENT.split("\n```").skip(1).step_by(2) {
        let (first, text) = part.split_once('\n').unwrap();
        if let Some(name) = first.strip_prefix(kind) {
            blocks.insert(name.trim(), text);
        }
    }
    blocks
}

fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_frame_raw(header, body, &mut out);
    out
}

fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let say = rpc::method_id("rpc.test.Echo/Say");
    let hello = Hello {
        version: 1,
        version_min: 1,
        frame_bytes_max: 262_144,
        body_bytes_max: 4_194_304,
        name: "py".into(),
        ..Hello::default()
    };
    let hi = Payload { data: b"hi".to_vec() }.encode_to_vec();
    let request = Header {
        method_id: say,
        timeout_us: Some(1_000_000),
        metadata: vec![Entry { key: "a".into(), value: b"b".to_vec() }],
        ..Header::of(Kind::Request, 7)
    };
    let error = Header {
        status: 8,
        message: "overloaded".into(),
        executed: Executed::Rejected.into(),
        ..Header::of(Kind::Error, 7)
    };
    let first = Header { method_id: say, more: true, ..Header::of(Kind::Request, 8) };
    BTreeMap::from([
        ("hello", frame(&Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) }, &[])),
        ("request", frame(&request, &hi)),
        ("response", frame(&Header::of(Kind::Response, 7), &hi)),
        ("error", frame(&error, &[])),
        ("cancel", frame(&Header::of(Kind::Cancel, 7), &[])),
        ("pieces", [frame(&first, b"\x0a\x04hh"), frame(&Header::of(Kind::Chunk, 8), b"ii")].concat()),
        ("ping", frame(&Header::of(Kind::Ping, 42), &[])),
        ("pong", frame(&Header::of(Kind::Pong, 42), &[])),
        ("drain", frame(&Header::of(Kind::Drain, 0), &[])),
    ])
}

#[test]
fn every_example_is_what_the_code_sends() {
    let written: BTreeMap<_, String> = blocks("hex")
        .into_iter()
        .map(|(name, text)| (name, text.split_ascii_whitespace().collect()))
        .collect();
    let made: BTreeMap<_, String> = examples()
        .into_iter()
        .map(|(name, bytes)| {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            (name, hex)
        })
        .collect();
    assert_eq!(written, made);
}

#[test]
fn the_messages_are_those_of_the_proto_file() {
    // The file has comments besides.
    let code: String = WIRE
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    let written = *blocks("proto").get("").unwrap();
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(plain(written), plain(&code));
}

#[test]
fn the_numbers_in_the_text_are_those_of_the_code() {
    for (number, what) in [
        (wire::HEADER_BYTES_MAX, "the longest header"),
        (wire::FRAME_BYTES_MIN, "what every receiver takes"),
        (
            wire::FRAME_BYTES_MIN - wire::HEADER_BYTES_MAX - wire::LENGTH_BYTES,
            "the longest body in one frame",
        ),
        (65_536, "the longest piece"),
    ] {
        let written = format!("{},{:03}", number / 1000, number % 1000);
        assert!(DOCUMENT.contains(&written), "{what}: {written}");
    }
    assert!(DOCUMENT.contains(&format!("{:#010x}", rpc::method_id("rpc.test.Echo/Say"))));
    for code in rpc::Code::ALL.into_iter().skip(1) {
        let written = format!("{} {}", code.number(), code.name().replace('_', " "));
        assert!(DOCUMENT.contains(&written), "{written}");
    }
}
