//! An HTTP/1.1 server that says hello: keep-alive, pipelining, HEAD, and 400 for what is no request. A codec of its own cuts the stream into requests.
//!
//! `cargo run --release -p reactor --example http_hello -- --listen 127.0.0.1:8080`, then `wrk http://127.0.0.1:8080/`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

mod support;

use std::process::ExitCode;

use clap::Parser;
use reactor::codec::{Codec, Decoded, FrameError};
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceConfig};
use support::{Listen, serve};

/// An HTTP/1.1 server that says hello.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    listen: Listen,
}

/// The longest request, its body included. What browsers and tools send to say hello is a tenth of it.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const EXPECTS: &str = "an expectation";
const HELLO: &str = "Hello, world!\n";

/// One frame is one request: its head, and the body that `Content-Length` announces.
struct RequestCodec;

impl RequestCodec {
    /// How long the head at the start of `input` is, and how long its body; `None` while the head is not whole.
    fn lengths(input: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let head = match request.parse(input) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(FrameError::Malformed("not an HTTP request")),
        };
        let (mut body, mut hosts) = (None, 0);
        for header in request.headers.iter() {
            match header.name.to_ascii_lowercase().as_str() {
                "host" => hosts += 1,
                "transfer-encoding" => {
                    return Err(FrameError::Malformed(
                        "bodies in chunks are not for a server that says hello",
                    ));
                }
                // What HTTP/1.0 expects is to be ignored.
                "expect" if request.version == Some(1) => return Err(FrameError::Malformed(EXPECTS)),
                "content-length" => {
                    let length = length_of(header.value).ok_or(FrameError::Malformed("no length"))?;
                    // Who reads the first of two lengths and who reads the last see different requests.
                    if body.is_some_and(|known| known != length) {
                        return Err(FrameError::Malformed("two lengths"));
                    }
                    body = Some(length);
                }
                _ => {}
            }
        }
        if request.version == Some(1) && hosts != 1 {
            return Err(FrameError::Malformed("HTTP/1.1 wants one Host"));
        }
        let body = body.unwrap_or(0);
        Ok(Some((head, body)))
    }
}

/// A length is digits: `+3` and ` 3` are for others to guess at.
fn length_of(text: &[u8]) -> Option<usize> {
    let digits = text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

impl Codec for RequestCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let too_long = FrameError::TooLong { max: REQUEST_BYTES_MAX };
        match Self::lengths(input)? {
            None if input.len() >= REQUEST_BYTES_MAX => Err(too_long),
            None => Ok(Decoded::Incomplete { wanted: input.len() + 1 }),
            Some((head, body)) if head.saturating_add(body) > REQUEST_BYTES_MAX => Err(too_long),
            Some((head, body)) if input.len() < head + body => {
                Ok(Decoded::Incomplete { wanted: head + body })
            }
            Some((head, body)) => Ok(Decoded::Frame { start: 0, end: head, consumed: head + body }),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.extend_from_slice(payload);
        Ok(())
    }
}

struct Hello;

impl Hello {
    fn answer(cx: &mut Context<'_, Self>, id: ConnId, status: &str, body: &str, with_body: bool, last: bool) {
        let close = if last { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let body = if with_body { body } else { "" };
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{close}\r\n{body}");
        // A client that has gone needs no answer.
        let _ = cx.send(id, text.as_bytes());
        if last {
            cx.close(id, CloseReason::Local("the last answer"));
        }
    }
}

impl Handler for Hello {
    type Conn = ();
    type Post = ();
    type Codec = RequestCodec;

    fn codec(&mut self) -> RequestCodec {
        RequestCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, id: ConnId, head: &[u8]) {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(head).is_err() {
            return; // the codec has parsed it before
        }
        let connection = request.headers.iter().filter(|it| it.name.eq_ignore_ascii_case("connection"));
        let mut options = connection.flat_map(|header| header.value.split(|byte| *byte == b','));
        let says_close = options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        let last = says_close || request.version == Some(0);
        match request.method {
            Some("GET") => Self::answer(cx, id, "200 OK", HELLO, true, last),
            Some("HEAD") => Self::answer(cx, id, "200 OK", HELLO, false, last),
            _ => Self::answer(cx, id, "405 Method Not Allowed", "only GET and HEAD\n", true, last),
        }
    }

    fn on_frame_error(&mut self, cx: &mut Context<'_, Self>, id: ConnId, error: FrameError) {
        let status = match error {
            // Its body comes only after a word from us, and we have no use for one.
            FrameError::Malformed(EXPECTS) => "417 Expectation Failed",
            _ => "400 Bad Request",
        };
        Self::answer(cx, id, status, &format!("{error}\n"), true, true);
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> ExitCode {
    let options = Options::parse();
    serve(&options.listen, ServiceConfig::default(), |_| Hello)
}
