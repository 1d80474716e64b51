//! The way out of a handler: an answer that must be given, and that is an error when it is not.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use reactor::{ConnId, PostError, ServiceHandle};

use crate::chunks::WHOLE_BYTES_MAX;
use crate::completion::Completion;
use crate::context::CallState;
use crate::server::Post;
use crate::status::{Code, Status};
use crate::wire::{self, Header, Kind};

/// A loop of a server, as replies know it.
pub(crate) struct LoopLink {
    /// No two have the same number; none has 0.
    pub(crate) number: u64,
    pub(crate) handle: ServiceHandle<Post>,
}

/// The answer to one call, on its way to the loop that holds the connection.
pub(crate) struct Answer {
    pub(crate) conn: ConnId,
    pub(crate) call: u64,
    pub(crate) payload: Payload,
}

pub(crate) enum Payload {
    /// A whole frame in [`Inline::frames`].
    Inline(Range<usize>),
    /// A whole frame.
    Frame(Vec<u8>),
    /// A body that is too long for one frame.
    Large(Bytes),
    Failed(Status),
}

/// Where answers go that are given while the loop itself runs the handler: no queue, no allocation.
#[derive(Default)]
pub(crate) struct Inline {
    /// The loop whose handler runs on this thread; 0 for none.
    pub(crate) number: u64,
    pub(crate) frames: Vec<u8>,
    pub(crate) answers: Vec<Answer>,
}

thread_local! {
    pub(crate) static INLINE: RefCell<Inline> = RefCell::default();
}

enum Target {
    Loop {
        link: Arc<LoopLink>,
        conn: ConnId,
        call: u64,
    },
    /// The caller is in this process.
    Local(Completion),
    Answered,
}

/// The untyped answer to a call: see [`Reply`].
pub struct RawReply {
    target: Target,
    state: Arc<CallState>,
}

impl RawReply {
    pub(crate) fn to_loop(link: Arc<LoopLink>, conn: ConnId, call: u64, state: Arc<CallState>) -> Self {
        Self { target: Target::Loop { link, conn, call }, state }
    }

    pub(crate) fn to_caller(completion: Completion, state: Arc<CallState>) -> Self {
        Self { target: Target::Local(completion), state }
    }

    /// Answers with a message.
    pub fn send(mut self, message: &impl Message) {
        match std::mem::replace(&mut self.target, Target::Answered) {
            Target::Loop { link, conn, call } => answer(&link, conn, call, message),
            Target::Local(completion) => completion.complete(Ok(&message.encode_to_vec())),
            Target::Answered => {}
        }
    }

    /// Answers with a message that is encoded already.
    pub fn send_encoded(mut self, body: Bytes) {
        match std::mem::replace(&mut self.target, Target::Answered) {
            Target::Loop { link, conn, call } => {
                let payload = if body.len() <= WHOLE_BYTES_MAX {
                    let mut frame = Vec::new();
                    wire::put_frame_raw(&Header::of(Kind::Response, call), &body, &mut frame);
                    Payload::Frame(frame)
                } else {
                    Payload::Large(body)
                };
                give(&link, Answer { conn, call, payload });
            }
            Target::Local(completion) => completion.complete(Ok(&body)),
            Target::Answered => {}
        }
    }

    /// Answers with an error.
    pub fn fail(mut self, status: Status) {
        self.fail_in_place(status);
    }

    fn fail_in_place(&mut self, status: Status) {
        match std::mem::replace(&mut self.target, Target::Answered) {
            Target::Loop { link, conn, call } => {
                give(&link, Answer { conn, call, payload: Payload::Failed(status) });
            }
            Target::Local(completion) => completion.complete(Err(status)),
            Target::Answered => {}
        }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.is_cancelled()
    }
}

/// Answers with a message: at once into the loop's own buffer where the loop runs the handler, else by a post.
fn answer(link: &LoopLink, conn: ConnId, call: u64, message: &impl Message) {
    if message.encoded_len() > WHOLE_BYTES_MAX {
        let payload = Payload::Large(message.encode_to_vec().into());
        return give(link, Answer { conn, call, payload });
    }
    let header = Header::of(Kind::Response, call);
    let inline = INLINE.with_borrow_mut(|inline| {
        let here = inline.number == link.number;
        if here {
            let start = inline.frames.len();
            wire::put_frame(&header, message, &mut inline.frames);
            let payload = Payload::Inline(start..inline.frames.len());
            inline.answers.push(Answer { conn, call, payload });
        }
        here
    });
    if !inline {
        let mut frame = Vec::new();
        wire::put_frame(&header, message, &mut frame);
        give(link, Answer { conn, call, payload: Payload::Frame(frame) });
    }
}

fn give(link: &LoopLink, answer: Answer) {
    let left = INLINE.with_borrow_mut(|inline| {
        if inline.number == link.number {
            inline.answers.push(answer);
            None
        } else {
            Some(answer)
        }
    });
    let Some(answer) = left else { return };
    match link.handle.post(Post::Answer(answer)) {
        // A loop that has stopped has closed the connection too: the caller knows.
        Ok(()) | Err((PostError::Stopped, _)) => {}
        Err((error, _)) => log::error!("an answer was lost: {error}"),
    }
}

impl Drop for RawReply {
    fn drop(&mut self) {
        if !matches!(self.target, Target::Answered) {
            let why =
                if std::thread::panicking() { "the handler panicked" } else { "the handler gave no answer" };
            self.fail_in_place(Status::in_doubt(Code::Internal, why));
        }
    }
}

impl std::fmt::Debug for RawReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawReply").finish_non_exhaustive()
    }
}

/// The answer to a call, to be given once: from the handler or later, from any thread. Dropped without an answer it answers `internal`, so no
/// caller waits in vain.
#[must_use = "a reply that is dropped is an error to the caller"]
pub struct Reply<T> {
    raw: RawReply,
    _answers: PhantomData<fn(T)>,
}

impl<T: Message> Reply<T> {
    /// The typed form of `raw`.
    pub fn new(raw: RawReply) -> Self {
        Self { raw, _answers: PhantomData }
    }

    /// Answers.
    #[expect(clippy::needless_pass_by_value, reason = "who answers has no more use for it")]
    pub fn send(self, message: T) {
        self.raw.send(&message);
    }

    /// Answers with an error.
    pub fn fail(self, status: Status) {
        self.raw.fail(status);
    }

    /// Answers in the one way or the other.
    pub fn finish(self, result: Result<T, Status>) {
        match result {
            Ok(message) => self.send(message),
            Err(status) => self.fail(status),
        }
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.raw.is_cancelled()
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
