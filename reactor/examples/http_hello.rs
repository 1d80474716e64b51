//! An HTTP/1.1 server that says hello: keep-alive, pipelining, HEAD, and 400 for what is no request. A codec of its own cuts the stream into requests.
//!
//! `cargo run --release -p reactor --example http_hello -- --listen 127.0.0.1:8080`, then `wrk http://127.0.0.1:8080/`
#![allow(clippy::print_stderr, reason = "an example talks to its terminal")]

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use reactor::codec::{Codec, Decoded, FrameError};
use reactor::{
    CloseReason, ConnId, Context, EventLoopThreadPool, Handler, LoopConfig, OpenInfo, ServiceConfig,
    TcpServer,
};

/// An HTTP/1.1 server that says hello.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 takes a free one. Said as `listening on ADDR` on stderr.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Event loops, one thread each.
    #[arg(long, default_value_t = 1)]
    threads: u16,
}

/// The longest request, its body included. What browsers and tools send to say hello is a tenth of it.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
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
        let mut body = 0;
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(FrameError::Malformed("bodies in chunks are not for a server that says hello"));
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).ok();
                body = text.and_then(|text| text.parse().ok()).ok_or(FrameError::Malformed("no length"))?;
            }
        }
        Ok(Some((head, body)))
    }
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
        let says_close = request.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
        });
        let last = says_close || request.version == Some(0);
        match request.method {
            Some("GET") => Self::answer(cx, id, "200 OK", HELLO, true, last),
            Some("HEAD") => Self::answer(cx, id, "200 OK", HELLO, false, last),
            _ => Self::answer(cx, id, "405 Method Not Allowed", "only GET and HEAD\n", true, last),
        }
    }

    fn on_frame_error(&mut self, cx: &mut Context<'_, Self>, id: ConnId, error: FrameError) {
        Self::answer(cx, id, "400 Bad Request", &format!("{error}\n"), true, true);
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let server = TcpServer::bind(options.listen, ServiceConfig::default())?;
    let address = server.local_addr();
    let mut pool = EventLoopThreadPool::start(options.threads, LoopConfig::default())?;
    server.serve(&pool, |_| Hello)?;
    eprintln!("listening on {address}");
    Ok(pool.join()?)
}
