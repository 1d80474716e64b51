//! The operator's listener over HTTP/1.1: `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daemon::http::{Answer, Asked, HeadCodec, asked};
use daemon::page::Metrics;
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo};

/// The service of the admin listener.
pub(crate) struct AdminService {
    /// Whether calls are taken.
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) metrics: Metrics,
}

impl Handler for AdminService {
    type Conn = ();
    type Post = ();
    type Codec = HeadCodec;

    fn name(&self) -> &'static str {
        "admin"
    }

    fn codec(&mut self) -> HeadCodec {
        HeadCodec
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>, _: ConnId, _: &OpenInfo) {}

    fn on_frame(&mut self, cx: &mut Context<'_, Self>, conn: ConnId, head: &[u8]) {
        let (asked, only_head) = asked(head);
        let answer = match asked {
            Asked::Page("/healthz") => Answer::healthy(),
            Asked::Page("/readyz") => Answer::ready(self.ready.load(Ordering::Relaxed)),
            Asked::Page("/metrics") => Answer::metrics(self.metrics.text()),
            Asked::Page(_) => Answer::no_page("/healthz, /readyz or /metrics"),
            Asked::NotGet => Answer::not_get(),
            Asked::NotHttp => Answer::not_http(),
        };
        // A prober that is gone needs no answer.
        let _ = cx.send(conn, answer.text(only_head).as_bytes());
        cx.close(conn, CloseReason::Local("answered"));
    }

    fn on_post(&mut self, _: &mut Context<'_, Self>, (): ()) {}
}
