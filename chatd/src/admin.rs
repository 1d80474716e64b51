//! The operator's listener over HTTP/1.1: `/healthz`, `/readyz`, `/metrics` and `/connz`, for probes, Prometheus, and people with `curl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reactor::codec::{Codec, Decoded, FrameError};
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceHandle};

use crate::connz::{self, Asker, Part, Told};
use crate::metrics::Metrics;
use crate::post::Post;
use crate::service::Node;

/// Bytes of a request's head. A probe's has some hundred.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Cuts off the head of each request, up to its empty line. Requests with a body are not served.
#[derive(Debug, Default)]
pub(crate) struct HeadCodec;

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

/// The service of the admin listener.
pub(crate) struct AdminService {
    /// Whether clients are taken.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Metrics,
    pub(crate) me: ServiceHandle<Told>,
}

/// What a connection of the listener waits for.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    only_head: bool,
    /// Loops that have not told of their connections yet.
    waiting: usize,
    parts: Vec<Part>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Health,
    Ready,
    Metrics,
    Connections,
    Unknown,
    NotGet,
    NotHttp,
}

fn asked(head: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head).is_err() {
        return Asked::NotHttp;
    }
    let path = request.path.map(|path| path.split('?').next().unwrap_or(path));
    match (request.method, path) {
        (Some("GET" | "HEAD"), Some("/healthz")) => Asked::Health,
        (Some("GET" | "HEAD"), Some("/readyz")) => Asked::Ready,
        (Some("GET" | "HEAD"), Some("/metrics")) => Asked::Metrics,
        (Some("GET" | "HEAD"), Some("/connz")) => Asked::Connections,
        (Some("GET" | "HEAD"), _) => Asked::Unknown,
        _ => Asked::NotGet,
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";

impl AdminService {
    fn answer(&self, cx: &mut Context<'_, Self>, conn: ConnId, status: &str, kind: &str, body: &str) {
        let only_head = cx.conn(conn).is_some_and(|asking| asking.only_head);
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.len(),
            if only_head { "" } else { body },
        );
        // A prober that is gone needs no answer.
        let _ = cx.send(conn, text.as_bytes());
        cx.close(conn, CloseReason::Local("answered"));
    }

    fn ask_loops(&self, cx: &mut Context<'_, Self>, conn: ConnId) {
        let mut waiting = 0;
        for handle in &self.node.loops {
            let asker = Asker { conn, handle: self.me.clone() };
            waiting += usize::from(handle.post(Post::Connz(asker)).is_ok());
        }
        if let Some(asking) = cx.conn_mut(conn) {
            asking.waiting = waiting;
        }
        if waiting == 0 {
            self.answer(cx, conn, "503 Service Unavailable", PLAIN, "no loop answers\n");
        }
    }
}

impl Handler for AdminService {
    type Conn = Asking;
    type Post = Told;
    type Codec = HeadCodec;

    fn name(&self) -> &'static str {
        "admin"
    }

    fn codec(&mut self) -> HeadCodec {
        HeadCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) -> Asking {
        Asking::default()
    }

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, conn: ConnId, head: &[u8]) {
        if let Some(asking) = cx.conn_mut(conn) {
            asking.only_head = head.starts_with(b"HEAD ");
        }
        let (status, kind, body) = match asked(head) {
            Asked::Connections => return self.ask_loops(cx, conn),
            Asked::Metrics => ("200 OK", OPEN_METRICS, self.metrics.text()),
            Asked::Health => ("200 OK", PLAIN, "ok\n".to_owned()),
            Asked::Ready if self.ready.load(Ordering::Relaxed) => ("200 OK", PLAIN, "ready\n".to_owned()),
            Asked::Ready => ("503 Service Unavailable", PLAIN, "draining\n".to_owned()),
            Asked::Unknown => {
                ("404 Not Found", PLAIN, "try /healthz, /readyz, /metrics or /connz\n".to_owned())
            }
            Asked::NotGet => ("405 Method Not Allowed", PLAIN, "only GET\n".to_owned()),
            Asked::NotHttp => ("400 Bad Request", PLAIN, "not an HTTP request\n".to_owned()),
        };
        self.answer(cx, conn, status, kind, &body);
    }

    fn on_post(&mut self, cx: &mut Context<'_, Self>, told: Told) {
        let Some(asking) = cx.conn_mut(told.conn) else { return };
        asking.parts.push(told.part);
        asking.waiting = asking.waiting.saturating_sub(1);
        if asking.waiting == 0 {
            let page = connz::page(std::mem::take(&mut asking.parts));
            self.answer(cx, told.conn, "200 OK", JSON, &page);
        }
    }
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
        let get = |path: &str| asked(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(get("/healthz"), Asked::Health);
        assert_eq!(get("/readyz?x=1"), Asked::Ready);
        assert_eq!(get("/metrics"), Asked::Metrics);
        assert_eq!(get("/connz"), Asked::Connections);
        assert_eq!(get("/"), Asked::Unknown);
        assert_eq!(asked(b"\0\0\r\n\r\n"), Asked::NotHttp);
        assert_eq!(asked(b"POST /healthz HTTP/1.1\r\n\r\n"), Asked::NotGet);
    }
}
