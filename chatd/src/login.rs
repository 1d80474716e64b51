//! The seam to the login service: in this process now, over a network later, with the same answers.

use logd::LoginPool;
use schema::login::{LoginCall, LoginReply};

/// Takes the answer of a call, on a thread of the backend.
pub(crate) type ReplyTo = Box<dyn FnOnce(LoginReply) + Send>;

/// The backend's queue is full; nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

/// Where logins are decided. Never blocks; every accepted call is answered exactly once.
pub(crate) trait LoginBackend: Send + Sync {
    fn submit(&self, call: LoginCall, reply: ReplyTo) -> Result<(), Overloaded>;
}

impl LoginBackend for LoginPool {
    fn submit(&self, call: LoginCall, reply: ReplyTo) -> Result<(), Overloaded> {
        Self::submit(self, call, reply).map_err(|_| Overloaded)
    }
}
