//! What generated servers are made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::context::CallContext;
use crate::reply::{RawReply, Reply};
use crate::status::{Code, Status};
use crate::workers::Workers;

/// Carries out one call on the loop.
pub fn unary<Req, Res>(
    cx: CallContext,
    body: &[u8],
    reply: RawReply,
    handler: impl FnOnce(CallContext, Req, Reply<Res>),
) where
    Req: Message + Default,
    Res: Message,
{
    match decode(body) {
        Ok(request) => handler(cx, request, Reply::new(reply)),
        Err(status) => reply.fail(status),
    }
}

/// Carries out one call on a worker. A call whose time is over when its turn comes is dropped before it is decoded; one that finds no place in the
/// queue is refused at once.
pub fn blocking<S, Req, Res>(
    workers: &Workers,
    inner: &Arc<S>,
    cx: CallContext,
    body: &[u8],
    reply: RawReply,
    handler: impl FnOnce(&S, &CallContext, Req) -> Result<Res, Status> + Send + 'static,
) where
    S: Send + Sync + 'static,
    Req: Message + Default,
    Res: Message + 'static,
{
    let Some(place) = workers.reserve() else {
        return reply
            .fail(Status::rejected(Code::ResourceExhausted, "overloaded: the workers' queue is full"));
    };
    let (inner, body) = (Arc::clone(inner), Bytes::copy_from_slice(body));
    place.run(Box::new(move |held| {
        if cx.is_cancelled() {
            drop(held);
            return reply.fail(expired());
        }
        let result = decode(&body).and_then(|request| {
            let run = || cx.scope(|| handler(&inner, &cx, request));
            catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
                log::error!("the handler of {} panicked", cx.method().path);
                Err(Status::in_doubt(Code::Internal, "the handler panicked"))
            })
        });
        drop(held);
        Reply::new(reply).finish(result);
    }));
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|error| {
        Status::rejected(Code::InvalidArgument, format!("the request cannot be read: {error}"))
    })
}

pub(crate) fn expired() -> Status {
    Status::rejected(Code::DeadlineExceeded, "the time was over before the server came to it")
}

type Answerer<Req, Res> = Box<dyn Fn(Req) -> Result<Res, Status> + Send + Sync>;

/// One method of a generated mock.
pub struct MockMethod<Req, Res>(Option<Answerer<Req, Res>>);

impl<Req, Res> MockMethod<Req, Res> {
    /// One that answers with what the closure gives.
    pub fn new(answer: impl Fn(Req) -> Result<Res, Status> + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// The answer; `unimplemented` for a method that was given none.
    ///
    /// # Errors
    /// What the closure says.
    pub fn answer(&self, request: Req) -> Result<Res, Status> {
        self.0.as_ref().map_or_else(|| Err(Status::unimplemented()), |answer| answer(request))
    }
}

impl<Req, Res> Default for MockMethod<Req, Res> {
    fn default() -> Self {
        Self(None)
    }
}

impl<Req, Res> std::fmt::Debug for MockMethod<Req, Res> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MockMethod").field(&self.0.is_some()).finish()
    }
}
