//! The operator's listener over HTTP/1.1: `/healthz`, `/readyz`, `/metrics` and `/connz`, for probes, Prometheus, and people with `curl`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daemon::http::{Answer, Asked, HeadCodec, JSON, asked};
use daemon::page::Metrics;
use reactor::{CloseReason, ConnId, Context, Handler, OpenInfo, ServiceHandle};

use crate::connz::{self, Asker, Part, Told};
use crate::post::Post;
use crate::service::Node;

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

impl AdminService {
    fn answer(&self, cx: &mut Context<'_, Self>, conn: ConnId, answer: &Answer) {
        let only_head = cx.conn(conn).is_some_and(|asking| asking.only_head);
        // A prober that is gone needs no answer.
        let _ = cx.send(conn, answer.text(only_head).as_bytes());
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
            self.answer(cx, conn, &Answer::plain("503 Service Unavailable", "no loop answers\n"));
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
        let (asked, only_head) = asked(head);
        if let Some(asking) = cx.conn_mut(conn) {
            asking.only_head = only_head;
        }
        let answer = match asked {
            Asked::Page("/connz") => return self.ask_loops(cx, conn),
            Asked::Page("/metrics") => Answer::metrics(self.metrics.text()),
            Asked::Page("/healthz") => Answer::healthy(),
            Asked::Page("/readyz") => Answer::ready(self.ready.load(Ordering::Relaxed)),
            Asked::Page(_) => Answer::no_page("/healthz, /readyz, /metrics or /connz"),
            Asked::NotGet => Answer::not_get(),
            Asked::NotHttp => Answer::not_http(),
        };
        self.answer(cx, conn, &answer);
    }

    fn on_post(&mut self, cx: &mut Context<'_, Self>, told: Told) {
        let Some(asking) = cx.conn_mut(told.conn) else { return };
        asking.parts.push(told.part);
        asking.waiting = asking.waiting.saturating_sub(1);
        if asking.waiting == 0 {
            let body = connz::page(std::mem::take(&mut asking.parts));
            self.answer(cx, told.conn, &Answer { status: "200 OK", kind: JSON, body });
        }
    }
}
