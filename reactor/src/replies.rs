//! What is sent to the connection that is being served, collected in one buffer of the service: nearly always it leaves in one write right after the
//! callbacks, and the connection never owns a queue for it.

use std::io::{ErrorKind, Write as _};

use crate::conn::Conns;
use crate::handler::Handler;
use crate::id::ConnId;
use crate::loop_core::LoopCore;
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;

/// More than this goes to the connection's own queue, which holds large pieces by reference. As much as a queue's chunk, for the same reasons.
const COLLECTED_MAX: usize = 64 * 1024;

/// The collected bytes, and whose they are.
pub(crate) struct Replies {
    /// Whom the bytes are for: a connection that is open, takes bytes, and has no others unsent.
    of: ConnId,
    bytes: Vec<u8>,
    max: usize,
    /// How many connections were to be written to when the serving began.
    dirty_before: usize,
}

impl Replies {
    /// For a service whose connections are told that they are above the mark at `output_high` bytes.
    pub(crate) const fn new(output_high: usize) -> Self {
        // Below the mark, so that whoever is above it is in the queue and found there.
        let max = if output_high <= COLLECTED_MAX { output_high - 1 } else { COLLECTED_MAX };
        Self { of: ConnId::NOBODY, bytes: Vec::new(), max, dirty_before: 0 }
    }

    /// Appends `bytes` if they are for the connection that is served, and not too many.
    #[inline]
    pub(crate) fn push(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        let takes = id == self.of && bytes.len() <= self.max - self.bytes.len();
        if takes {
            self.bytes.extend_from_slice(bytes);
        }
        takes
    }

    /// Unsent bytes of this connection that are here.
    #[inline]
    pub(crate) fn len_for(&self, id: ConnId) -> usize {
        if id == self.of { self.bytes.len() } else { 0 }
    }

    /// Throws away what was collected: its connection is no more.
    pub(crate) fn discard(&mut self) {
        self.of = ConnId::NOBODY;
        self.bytes.clear();
    }
}

impl<H: Handler> Conns<H> {
    /// From now on collects what is sent to this connection, which is open, can take bytes and has none unsent.
    #[inline]
    pub(crate) fn begin_replies(&mut self, id: ConnId) {
        self.replies.of = id;
        self.replies.dirty_before = self.dirty.len();
    }

    /// Moves what was collected into the connection's own queue: something comes that the buffer is not for.
    #[cold]
    pub(crate) fn spill_replies(&mut self) {
        let key = self.replies.of.key();
        self.replies.of = ConnId::NOBODY;
        if self.replies.bytes.is_empty() {
            return;
        }
        if let Some(conn) = self.slab.get_mut(key) {
            conn.output.get_or_insert_default().push_copy(&self.replies.bytes);
        }
        self.replies.bytes.clear();
        self.list_dirty(key);
    }

    /// Like [`Conns::spill_replies`], if it is this connection that is served.
    #[inline]
    pub(crate) fn spill_replies_of(&mut self, key: Key) {
        if self.replies.of.key() == key {
            self.spill_replies();
        }
    }
}

impl<H: Handler> ServiceCell<H> {
    /// The callbacks are done: writes what they sent to their own connection, while it is still in the cache.
    #[inline(always)]
    pub(crate) fn end_replies(&mut self, core: &mut LoopCore, key: Key) {
        let replies = &mut self.conns.replies;
        if replies.of == ConnId::NOBODY {
            return;
        }
        // Not where others were sent to as well: they may send to this one in the same turn, and a turn's messages are to leave in one write.
        if self.conns.dirty.len() != replies.dirty_before {
            return self.conns.spill_replies();
        }
        replies.of = ConnId::NOBODY;
        if replies.bytes.is_empty() {
            return;
        }
        let Some(conn) = self.conns.slab.get_mut(key) else { return replies.bytes.clear() };
        core.stats.writes += 1;
        match conn.stream.write(&replies.bytes) {
            Ok(written) if written == replies.bytes.len() => {
                conn.bytes_out += written as u64;
                conn.last_out_ms = core.now_ms;
                core.stats.bytes_out += written as u64;
                replies.bytes.clear();
            }
            result => self.replies_left(core, key, result),
        }
    }

    /// The socket did not take all replies at once: what is left goes the way of all unsent output.
    #[cold]
    fn replies_left(&mut self, core: &mut LoopCore, key: Key, result: std::io::Result<usize>) {
        let bytes = std::mem::take(&mut self.conns.replies.bytes);
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let written = match result {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return self.conns.begin_close(key, CloseReason::from_io(&error), true),
        };
        conn.bytes_out += written as u64;
        core.stats.bytes_out += written as u64;
        if written > 0 {
            conn.last_out_ms = core.now_ms;
        }
        let mut output = core.take_output();
        output.push_copy(bytes.get(written..).unwrap_or_default());
        conn.output = Some(output);
        self.conns.list_dirty(key);
        // Its memory is for the next.
        self.conns.replies.bytes = bytes;
        self.conns.replies.bytes.clear();
    }
}
