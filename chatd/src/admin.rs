//! The operator's listener: `/healthz` and `/readyz` over HTTP/1.1, for probes and people with `curl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reactor::codec::{Codec, Decoded, FrameError};
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo};

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
#[derive(Debug)]
pub(crate) struct AdminService {
    /// Whether clients are taken.
    pub(crate) ready: Arc<AtomicBool>,
}

impl AdminService {
    fn answer(&self, head: &[u8]) -> (&'static str, &'static str) {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(head).is_err() {
            return ("400 Bad Request", "not an HTTP request\n");
        }
        let path = request.path.map(|path| path.split('?').next().unwrap_or(path));
        match (request.method, path) {
            (Some("GET" | "HEAD"), Some("/healthz")) => ("200 OK", "ok\n"),
            (Some("GET" | "HEAD"), Some("/readyz")) if self.ready.load(Ordering::Relaxed) => {
                ("200 OK", "ready\n")
            }
            (Some("GET" | "HEAD"), Some("/readyz")) => ("503 Service Unavailable", "draining\n"),
            (Some("GET" | "HEAD"), _) => ("404 Not Found", "try /healthz or /readyz\n"),
            _ => ("405 Method Not Allowed", "only GET\n"),
        }
    }
}

impl Handler for AdminService {
    type Conn = ();
    type Post = std::convert::Infallible;
    type Codec = HeadCodec;

    fn name(&self) -> &'static str {
        "admin"
    }

    fn codec(&mut self) -> HeadCodec {
        HeadCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, conn: ConnId, head: &[u8]) {
        let (status, body) = self.answer(head);
        let only_head = head.starts_with(b"HEAD ");
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
            body.len(),
            if only_head { "" } else { body },
        );
        // A prober that is gone needs no answer.
        let _ = cx.send(conn, text.as_bytes());
        cx.close(conn, CloseReason::Local("answered"));
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, post: Self::Post) {
        match post {}
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
    fn probes_are_answered_by_path_and_state() {
        let service = AdminService { ready: Arc::new(AtomicBool::new(false)) };
        let get = |path: &str| service.answer(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).0;
        assert_eq!(get("/healthz"), "200 OK");
        assert_eq!(get("/readyz"), "503 Service Unavailable");
        service.ready.store(true, Ordering::Relaxed);
        assert_eq!(get("/readyz?x=1"), "200 OK");
        assert_eq!(get("/"), "404 Not Found");
        assert_eq!(service.answer(b"\0\0\r\n\r\n").0, "400 Bad Request");
        assert_eq!(service.answer(b"POST /healthz HTTP/1.1\r\n\r\n").0, "405 Method Not Allowed");
    }
}
