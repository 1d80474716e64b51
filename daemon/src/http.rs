//! As much of HTTP/1.1 as probes, Prometheus and people with `curl` need: a request without a body, an answer, and the end.

use std::time::Duration;

use reactor::ServiceConfig;
use reactor::codec::{Codec, Decoded, FrameError};

/// Bytes of a request's head. A probe's has some hundred.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The content type of a plain answer.
pub const PLAIN: &str = "text/plain; charset=utf-8";
/// The content type of JSON.
pub const JSON: &str = "application/json";

/// Cuts off the head of each request, up to its empty line. Requests with a body are not served.
#[derive(Debug, Default)]
pub struct HeadCodec;

impl Codec for HeadCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let end = input.windows(4).take(HEAD_BYTES_MAX).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) => Ok(Decoded::Frame { start: 0, end: end + 4, consumed: end + 4 }),
            None if input.len() >= HEAD_BYTES_MAX => Err(FrameError::TooLong { max: HEAD_BYTES_MAX }),
            None => Ok(Decoded::Incomplete { wanted: input.len() + 1 }),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.extend_from_slice(payload);
        Ok(())
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A page: its path without the query.
    Page(&'a str),
    /// Something else than a page.
    NotGet,
    /// No HTTP.
    NotHttp,
}

/// What the head of a request asks for, and whether it wants the head of the answer alone.
#[must_use]
pub fn asked(head: &[u8]) -> (Asked<'_>, bool) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head).is_err() {
        return (Asked::NotHttp, false);
    }
    let path = request.path.map_or("", |path| path.split('?').next().unwrap_or(path));
    match request.method {
        Some("GET") => (Asked::Page(path), false),
        Some("HEAD") => (Asked::Page(path), true),
        _ => (Asked::NotGet, false),
    }
}

/// An answer, after which the connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in `200 OK`.
    pub status: &'static str,
    /// Its content type.
    pub kind: &'static str,
    /// What it says.
    pub body: String,
}

impl Answer {
    /// A plain text.
    #[must_use]
    pub fn plain(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, kind: PLAIN, body: body.into() }
    }

    /// To `/readyz`.
    #[must_use]
    pub fn ready(is_ready: bool) -> Self {
        if is_ready {
            Self::plain("200 OK", "ready\n")
        } else {
            Self::plain("503 Service Unavailable", "draining\n")
        }
    }

    /// To `/healthz`.
    #[must_use]
    pub fn healthy() -> Self {
        Self::plain("200 OK", "ok\n")
    }

    /// To `/metrics`.
    #[must_use]
    pub const fn metrics(text: String) -> Self {
        Self { status: "200 OK", kind: crate::page::OPEN_METRICS, body: text }
    }

    /// To a page that there is not; `pages` names those that there are.
    #[must_use]
    pub fn no_page(pages: &str) -> Self {
        Self::plain("404 Not Found", format!("try {pages}\n"))
    }

    /// To what is no page.
    #[must_use]
    pub fn not_get() -> Self {
        Self::plain("405 Method Not Allowed", "only GET\n")
    }

    /// To what is no HTTP.
    #[must_use]
    pub fn not_http() -> Self {
        Self::plain("400 Bad Request", "not an HTTP request\n")
    }

    /// Its bytes.
    #[must_use]
    pub fn text(&self, only_head: bool) -> String {
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.kind,
            self.body.len(),
            if only_head { "" } else { &self.body },
        )
    }
}

/// The limits of an admin listener's connections: few, and none for long.
#[must_use]
pub fn limits() -> ServiceConfig {
    let mut limits = ServiceConfig::default();
    limits.connections_max = 32;
    limits.frame_deadline = Some(Duration::from_secs(5));
    limits.linger = Duration::from_secs(1);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_garbage_is_bounded() {
        let mut codec = HeadCodec;
        assert!(matches!(codec.decode(b"GET / HTTP/1.1\r\n"), Ok(Decoded::Incomplete { .. })));
        assert!(codec.decode(&vec![b'x'; HEAD_BYTES_MAX]).is_err());
        let whole = b"GET / HTTP/1.1\r\n\r\nrest";
        assert!(matches!(codec.decode(whole), Ok(Decoded::Frame { consumed: 18, .. })));
    }

    #[test]
    fn what_is_asked_is_told_by_method_and_path() {
        let of = |line: &str| {
            let head = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
            let (asked, only_head) = asked(head.as_bytes());
            (format!("{asked:?}"), only_head)
        };
        assert_eq!(of("GET /readyz?x=1"), ("Page(\"/readyz\")".to_owned(), false));
        assert_eq!(of("HEAD /"), ("Page(\"/\")".to_owned(), true));
        assert_eq!(of("POST /healthz"), ("NotGet".to_owned(), false));
        assert_eq!(asked(b"\0\0\r\n\r\n"), (Asked::NotHttp, false));
    }

    #[test]
    fn an_answer_to_head_tells_the_length_and_no_more() {
        let answer = Answer::healthy();
        assert!(answer.text(false).ends_with("\r\n\r\nok\n"));
        assert!(answer.text(true).ends_with("\r\n\r\n"));
        assert!(answer.text(true).contains("Content-Length: 3\r\n"));
    }
}
