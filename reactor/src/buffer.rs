//! Input that is no whole frame yet. An idle connection owns none; a buffer is handed out when there is something to hold, and reused by other
//! connections afterwards.

use std::fmt;

/// The least room for what is missing of a long frame: what one read of a busy socket brings.
const ROOM_MIN: usize = 64 * 1024;
/// What is kept for the next connection may hold this much memory.
pub(crate) const REUSE_MAX: usize = 64 * 1024;

/// Input that is not a whole frame yet: appended at the end, consumed from the front.
///
/// ```
/// let mut buffer = reactor::Buffer::new();
/// buffer.extend(b"hello, world");
/// buffer.consume(7);
/// assert_eq!(buffer.as_slice(), b"world");
/// ```
#[derive(Default)]
pub struct Buffer {
    data: Vec<u8>,
    /// Before this all is consumed; never beyond the data, and 0 when nothing is left.
    read: usize,
    /// What is there is of no use before it is so long.
    wanted: usize,
}

impl Buffer {
    /// An empty buffer, which owns no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        // Moved only when the room is needed and no more has to be moved than was consumed: each byte is then moved
        // once on average, whatever the pattern.
        if self.data.capacity() - self.data.len() < bytes.len() && self.read >= self.len() {
            self.data.drain(..self.read);
            self.read = 0;
        }
        self.data.extend_from_slice(bytes);
    }

    /// What is there and not consumed.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.data.get(self.read..).unwrap_or_default()
    }

    /// How many bytes are there and not consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() - self.read
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `n` bytes, or all if there are fewer.
    pub fn consume(&mut self, n: usize) {
        if n >= self.len() {
            self.clear();
        } else {
            self.read += n;
        }
    }

    /// Drops all bytes; keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.read = 0;
        self.wanted = 0;
    }

    /// Notes how long the data must become before it is of use.
    pub(crate) fn want(&mut self, len: usize) {
        self.wanted = len;
    }

    /// How many bytes are wanted that are not there.
    pub(crate) fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.len())
    }

    /// The data, all of it unread, with room behind it for the `missing` bytes: for all of them, or for as many as are there. So what a peer announces takes
    /// no memory before it has sent about half of it.
    pub(crate) fn room_for(&mut self, missing: usize) -> &mut Vec<u8> {
        if self.read > 0 {
            self.data.drain(..self.read);
            self.read = 0;
        }
        let more = missing.min(self.data.len().max(ROOM_MIN));
        if self.data.capacity() - self.data.len() < more {
            self.data.reserve(more);
        }
        &mut self.data
    }

    /// How much memory this holds, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Whether this is small enough to be kept for another connection.
    pub(crate) fn reusable(&self) -> bool {
        self.capacity() <= REUSE_MAX
    }
}

impl fmt::Debug for Buffer {
    /// Says how much there is, not what: input may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_output_does_not_show_what_is_held() {
        let mut buffer = Buffer::new();
        buffer.extend(b"password");
        assert!(format!("{buffer:?}").starts_with("Buffer { len: 8, capacity: "));
    }

    #[test]
    fn what_a_peer_announces_takes_no_memory_before_half_of_it_has_come() {
        let mut buffer = Buffer::new();
        buffer.extend(&[1, 2, 3]);
        buffer.consume(1);
        buffer.want(1 << 30);
        assert_eq!(buffer.missing(), (1 << 30) - 2);
        let room = buffer.room_for(1 << 30);
        assert_eq!(room.as_slice(), [2, 3]);
        assert!(room.capacity() >= ROOM_MIN && room.capacity() <= 2 * ROOM_MIN + 2, "{}", room.capacity());
        room.resize(1 << 20, 0);
        assert!(buffer.room_for(1 << 30).capacity() <= 4 << 20);
    }

    #[test]
    fn a_buffer_that_is_read_as_it_fills_does_not_grow() {
        let mut buffer = Buffer::new();
        for _ in 0..10_000 {
            buffer.extend(&[7; 100]);
            buffer.consume(if buffer.len() > 150 { 100 } else { 50 });
        }
        assert!(buffer.capacity() <= 1024, "{}", buffer.capacity());
        buffer.extend(&vec![0; REUSE_MAX + 1]);
        buffer.clear();
        assert!(buffer.is_empty() && !buffer.reusable());
    }

    proptest! {
        #[test]
        fn a_buffer_holds_what_was_added_less_what_was_consumed(
            steps in prop::collection::vec((0..3000usize, 0..4000usize), 0..60)
        ) {
            let (mut buffer, mut model) = (Buffer::new(), Vec::new());
            for (add, consume) in steps {
                let bytes: Vec<u8> = (0..251).cycle().take(add).collect();
                buffer.extend(&bytes);
                model.extend_from_slice(&bytes);
                prop_assert_eq!(buffer.as_slice(), &model[..]);
                buffer.consume(consume);
                model.drain(..consume.min(model.len()));
                prop_assert_eq!(buffer.as_slice(), &model[..]);
                prop_assert_eq!((buffer.len(), buffer.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
