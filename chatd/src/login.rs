//! The seam to the login service: in this process, or in others over `rpc`, with the same answers.

use logd::{LoginPool, RemoteLogin, ReplyFn};
use schema::login::{LoginCall, Origin};

/// Where logins are decided. Never blocks; every call is answered exactly once, on whatever thread, this one included.
pub(crate) trait LoginBackend: Send + Sync {
    fn submit(&self, call: LoginCall, origin: Origin, reply: ReplyFn);

    /// Takes nothing in any more, and answers what was accepted.
    fn close(&self);

    /// What is counted on the way to other processes; `None` where the service is inside.
    fn channel_stats(&self) -> Option<rpc::ChannelStats>;
}

impl LoginBackend for LoginPool {
    fn submit(&self, call: LoginCall, origin: Origin, reply: ReplyFn) {
        Self::submit(self, call, origin, reply);
    }

    fn close(&self) {
        Self::close(self);
    }

    fn channel_stats(&self) -> Option<rpc::ChannelStats> {
        None
    }
}

impl LoginBackend for RemoteLogin {
    fn submit(&self, call: LoginCall, origin: Origin, reply: ReplyFn) {
        Self::submit(self, call, &origin, reply);
    }

    /// The loops, which have ended before, have answered every call.
    fn close(&self) {}

    fn channel_stats(&self) -> Option<rpc::ChannelStats> {
        Some(self.stats())
    }
}
