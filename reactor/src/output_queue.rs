//! Output that is not sent yet. An idle connection owns none; a queue is handed out when there is something to hold, and reused by other
//! connections afterwards.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Write};

use bytes::{Buf, Bytes};

use crate::buffer::REUSE_MAX;

/// What a new output chunk has room for: some dozens of small messages, one page.
const CHUNK_MIN: usize = 4 * 1024;
/// Where an output chunk ends: large enough that a write is not cut short by it, small enough to be given back as a
/// long output drains.
const CHUNK_MAX: usize = 64 * 1024;
/// Up to here a copy is cheaper than a reference count and a slice of its own in the write.
pub(crate) const COPY_MAX: usize = 512;
/// Slices in one write: below IOV_MAX (1024 on Linux and the BSDs), and few enough to lie on the stack (1 KiB). With
/// slices above `COPY_MAX` such a write has at least 32 KiB, so the system call is well paid for.
const SLICES_MAX: usize = 64;

const _: () = assert!(CHUNK_MIN <= CHUNK_MAX && COPY_MAX < CHUNK_MIN && CHUNK_MAX <= REUSE_MAX);

/// What a connection has not sent yet, in order.
///
/// Small pieces are copied together; large ones are kept by reference, so that bytes which go to many connections
/// exist once. A new one owns no memory.
#[derive(Default)]
pub(crate) struct OutputQueue {
    /// Ended chunks and referenced bytes, none empty; sent before the tail.
    sealed: VecDeque<Bytes>,
    /// The chunk that copies go to; at most `CHUNK_MAX` bytes.
    tail: Vec<u8>,
    /// Before this the tail is sent; above 0 only while nothing is sealed, and below the tail's length.
    sent: usize,
    /// Unsent bytes in all.
    len: usize,
}

/// What one [`OutputQueue::write_to`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteStep {
    /// Bytes that the writer took.
    pub(crate) written: usize,
    /// Nothing is left.
    pub(crate) drained: bool,
    /// The writer would have blocked and took nothing.
    pub(crate) blocked: bool,
    /// The writer took less than it was offered: a stream socket is full then, and the next write would block. Only
    /// for writers whose `write_vectored` is their own; the trait's default takes one slice and is always short.
    pub(crate) short: bool,
}

impl OutputQueue {
    /// Appends a copy of `bytes`.
    #[inline]
    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        // A queue's memory is reused, so this is what nearly all small sends take.
        if bytes.len() <= self.tail.capacity() - self.tail.len() && self.tail.capacity() <= CHUNK_MAX {
            self.len += bytes.len();
            self.tail.extend_from_slice(bytes);
        } else {
            self.push_growing(bytes);
        }
    }

    fn push_growing(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            if self.tail.len() >= CHUNK_MAX {
                self.seal();
            }
            let now = bytes.len().min(CHUNK_MAX - self.tail.len());
            let (head, rest) = bytes.split_at_checked(now).unwrap_or((bytes, &[]));
            self.reserve(head.len());
            self.tail.extend_from_slice(head);
            bytes = rest;
        }
    }

    /// Appends `bytes`: by reference, or as a copy where that is cheaper.
    pub(crate) fn push_bytes(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            return self.push_copy(&bytes);
        }
        self.seal();
        self.len += bytes.len();
        self.sealed.push_back(bytes);
    }

    /// How many bytes are unsent.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is unsent.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One write call, plain or vectored, of what is first; what it took is gone from the queue. An interrupted call
    /// is repeated. An empty queue is drained without a call.
    ///
    /// # Errors
    /// The writer's, but for [`ErrorKind::WouldBlock`], which is `blocked`; and [`ErrorKind::WriteZero`] when it
    /// takes nothing without saying why.
    #[inline]
    pub(crate) fn write_to<W: Write>(&mut self, writer: &mut W) -> io::Result<WriteStep> {
        // One chunk that goes out whole: what nearly all small sends come to.
        if self.sealed.is_empty() && self.sent == 0 && self.len > 0 {
            match writer.write(&self.tail) {
                Ok(written) if written == self.len => {
                    self.tail.clear();
                    self.len = 0;
                    return Ok(WriteStep { written, drained: true, blocked: false, short: false });
                }
                Ok(written) if written > 0 => {
                    let written = written.min(self.len);
                    self.consume(written);
                    return Ok(WriteStep { written, drained: self.is_empty(), blocked: false, short: true });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(WriteStep { written: 0, drained: false, blocked: true, short: true });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) => return Err(ErrorKind::WriteZero.into()),
                Err(error) => return Err(error),
            }
        }
        self.write_pieces(writer)
    }

    fn write_pieces<W: Write>(&mut self, writer: &mut W) -> io::Result<WriteStep> {
        if self.is_empty() {
            return Ok(WriteStep { written: 0, drained: true, blocked: false, short: false });
        }
        let (offered, result) = loop {
            let (offered, result) = self.write_once(writer);
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break (offered, result),
            }
        };
        match result {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                // A writer that claims more than it was given is wrong; it does not make the queue wrong.
                let written = written.min(offered);
                self.consume(written);
                Ok(WriteStep { written, drained: self.is_empty(), blocked: false, short: written < offered })
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok(WriteStep { written: 0, drained: false, blocked: true, short: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Drops all that is unsent; keeps the tail's memory.
    pub(crate) fn clear(&mut self) {
        self.sealed.clear();
        self.tail.clear();
        self.sent = 0;
        self.len = 0;
    }

    /// How much memory this holds besides what is unsent by reference, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.tail.capacity() + self.sealed.capacity() * size_of::<Bytes>()
    }

    /// Whether this is small enough to be kept for another connection.
    pub(crate) fn reusable(&self) -> bool {
        self.capacity() <= REUSE_MAX
    }

    /// Makes room for `more` bytes in the tail, which is to stay within `CHUNK_MAX`.
    fn reserve(&mut self, more: usize) {
        let needed = self.tail.len() + more;
        if needed > self.tail.capacity() {
            let capacity = needed.next_power_of_two().clamp(CHUNK_MIN, CHUNK_MAX);
            self.tail.reserve_exact(capacity - self.tail.len());
        }
    }

    /// Ends the tail, so that something can follow it.
    fn seal(&mut self) {
        let unsent = self.tail.get(self.sent..).unwrap_or_default();
        if !unsent.is_empty() {
            // A chunk that is mostly empty would hold much more memory than it counts for; its bytes move to a small
            // one, and the room stays.
            if unsent.len() <= self.tail.capacity() / 2 {
                self.sealed.push_back(Bytes::copy_from_slice(unsent));
            } else {
                let mut chunk = Bytes::from(std::mem::take(&mut self.tail));
                chunk.advance(self.sent);
                self.sealed.push_back(chunk);
            }
        }
        self.tail.clear();
        self.sent = 0;
    }

    /// One call; how much it was offered, and what it answered.
    fn write_once<W: Write>(&self, writer: &mut W) -> (usize, io::Result<usize>) {
        let tail = self.tail.get(self.sent..).unwrap_or_default();
        let Some(first) = self.sealed.front() else {
            return (tail.len(), writer.write(tail));
        };
        if self.sealed.len() == 1 && tail.is_empty() {
            return (first.len(), writer.write(first));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut used, mut offered) = (0, 0);
        let pieces = self.sealed.iter().map(|piece| &**piece).chain(std::iter::once(tail));
        for (slice, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slice = IoSlice::new(piece);
            used += 1;
            offered += piece.len();
        }
        (offered, writer.write_vectored(slices.get(..used).unwrap_or_default()))
    }

    /// Drops the first `n` bytes; not more than there are.
    fn consume(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.sealed.front_mut() {
            if n < front.len() {
                return front.advance(n);
            }
            n -= front.len();
            self.sealed.pop_front();
        }
        self.sent += n;
        if self.sent == self.tail.len() {
            self.tail.clear();
            self.sent = 0;
        }
    }
}

impl fmt::Debug for OutputQueue {
    /// Says how much there is, not what: output may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.sealed.len() + usize::from(!self.tail.is_empty());
        f.debug_struct("OutputQueue").field("len", &self.len).field("pieces", &pieces).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes what its script says, and keeps it.
    #[derive(Default)]
    struct Scripted {
        taken: Vec<u8>,
        script: VecDeque<Take>,
        calls: usize,
        slices_most: usize,
    }

    #[derive(Debug, Clone, Copy)]
    enum Take {
        Some(usize),
        Block,
        Interrupt,
    }

    impl Scripted {
        fn following(script: impl IntoIterator<Item = Take>) -> Self {
            Self { script: script.into_iter().collect(), ..Self::default() }
        }
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            assert!(slices.iter().all(|slice| !slice.is_empty()), "nothing empty is offered");
            self.calls += 1;
            self.slices_most = self.slices_most.max(slices.len());
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let take = match self.script.pop_front() {
                Some(Take::Block) => return Err(ErrorKind::WouldBlock.into()),
                Some(Take::Interrupt) => return Err(ErrorKind::Interrupted.into()),
                Some(Take::Some(most)) => most.clamp(1, offered),
                None => offered,
            };
            let bytes = slices.iter().flat_map(|slice| slice.iter());
            self.taken.extend(bytes.take(take));
            Ok(take)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn numbered(len: usize) -> Vec<u8> {
        (0..=250).cycle().take(len).collect()
    }

    #[test]
    fn small_sends_leave_in_one_plain_write() {
        let (mut queue, mut writer) = (OutputQueue::default(), Scripted::default());
        for _ in 0..40 {
            queue.push_copy(b"small");
            queue.push_bytes(Bytes::from_static(b"shared"));
        }
        assert_eq!(queue.len(), 440);
        let step = queue.write_to(&mut writer).unwrap();
        assert_eq!(step, WriteStep { written: 440, drained: true, blocked: false, short: false });
        assert_eq!((writer.calls, writer.slices_most), (1, 1));
        assert_eq!(writer.taken, b"smallshared".repeat(40));
        assert_eq!(queue.capacity(), CHUNK_MIN);
    }

    #[test]
    fn large_bytes_are_sent_from_where_they_are() {
        let large = Bytes::from(numbered(COPY_MAX + 1));
        let mut queue = OutputQueue::default();
        queue.push_copy(b"head");
        queue.push_bytes(large.clone());
        queue.push_copy(b"foot");
        assert!(!large.is_unique(), "the queue refers to it");
        let mut writer = Scripted::default();
        assert!(queue.write_to(&mut writer).unwrap().drained);
        assert_eq!((writer.calls, writer.slices_most), (1, 3));
        assert_eq!(writer.taken, [b"head", &large[..], b"foot"].concat());
        assert!(large.is_unique(), "what is sent is given back");
    }

    #[test]
    fn an_empty_queue_makes_no_call() {
        let mut writer = Scripted::default();
        let step = OutputQueue::default().write_to(&mut writer).unwrap();
        assert!(step.drained && !step.blocked);
        assert_eq!(writer.calls, 0);
    }

    #[test]
    fn a_write_is_one_call_of_few_slices() {
        let (mut queue, mut writer) = (OutputQueue::default(), Scripted::default());
        let large = Bytes::from(numbered(600));
        for _ in 0..SLICES_MAX + 10 {
            queue.push_bytes(large.clone());
        }
        let step = queue.write_to(&mut writer).unwrap();
        assert_eq!(
            step,
            WriteStep { written: 600 * SLICES_MAX, drained: false, blocked: false, short: false }
        );
        assert_eq!((writer.calls, writer.slices_most), (1, SLICES_MAX));
        assert!(queue.write_to(&mut writer).unwrap().drained);
        assert_eq!(writer.taken, numbered(600).repeat(SLICES_MAX + 10));
    }

    #[test]
    fn a_full_writer_is_no_error_and_an_interrupted_one_is_asked_again() {
        let mut queue = OutputQueue::default();
        queue.push_copy(b"bytes");
        let mut writer = Scripted::following([Take::Interrupt, Take::Block, Take::Interrupt, Take::Some(2)]);
        let step = queue.write_to(&mut writer).unwrap();
        assert_eq!(step, WriteStep { written: 0, drained: false, blocked: true, short: true });
        assert_eq!((queue.len(), writer.calls), (5, 2));
        let step = queue.write_to(&mut writer).unwrap();
        assert_eq!(step, WriteStep { written: 2, drained: false, blocked: false, short: true });
        assert_eq!((queue.len(), writer.calls), (3, 4));
    }

    #[test]
    fn a_writer_that_takes_nothing_or_fails_is_an_error_and_loses_nothing() {
        struct Failing(Option<ErrorKind>);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0.map_or(Ok(0), |kind| Err(kind.into()))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = OutputQueue::default();
        queue.push_copy(b"bytes");
        for (given, seen) in
            [(None, ErrorKind::WriteZero), (Some(ErrorKind::ConnectionReset), ErrorKind::ConnectionReset)]
        {
            assert_eq!(queue.write_to(&mut Failing(given)).unwrap_err().kind(), seen);
            assert_eq!(queue.len(), 5);
        }
    }

    #[test]
    fn a_writer_that_claims_too_much_does_not_break_the_queue() {
        struct Boasting;
        impl Write for Boasting {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len() + 100)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = OutputQueue::default();
        queue.push_copy(b"bytes");
        let step = queue.write_to(&mut Boasting).unwrap();
        assert_eq!((step.written, step.drained, queue.len()), (5, true, 0));
    }

    #[test]
    fn memory_is_in_proportion_to_what_is_unsent() {
        let mut queue = OutputQueue::default();
        let large = Bytes::from(numbered(COPY_MAX + 1));
        for _ in 0..100 {
            queue.push_copy(b"head");
            queue.push_bytes(large.clone());
        }
        assert!(queue.capacity() <= CHUNK_MIN + 256 * size_of::<Bytes>(), "no chunk for every head");
        queue.clear();
        queue.push_copy(&numbered(10 * CHUNK_MAX));
        assert!(queue.sealed.iter().all(|chunk| chunk.len() <= CHUNK_MAX), "long output drains by pieces");
        assert!(queue.tail.capacity() <= CHUNK_MAX);
    }

    #[test]
    fn a_cleared_queue_is_as_new_and_keeps_little() {
        let mut queue = OutputQueue::default();
        queue.push_copy(&numbered(3 * CHUNK_MIN));
        assert!(!queue.write_to(&mut Scripted::following([Take::Some(10)])).unwrap().drained);
        queue.push_bytes(Bytes::from(numbered(9000)));
        queue.clear();
        assert!(queue.is_empty() && queue.reusable());
        queue.push_copy(b"next");
        let mut writer = Scripted::default();
        assert!(queue.write_to(&mut writer).unwrap().drained);
        assert_eq!(writer.taken, b"next");
        for _ in 0..10_000 {
            queue.push_bytes(Bytes::from(numbered(600)));
        }
        queue.clear();
        assert!(!queue.reusable(), "a queue that grew large is not kept");
    }

    #[test]
    fn debug_output_does_not_show_what_is_held() {
        let mut queue = OutputQueue::default();
        queue.push_copy(b"password");
        assert_eq!(format!("{queue:?}"), "OutputQueue { len: 8, pieces: 1 }");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Copy(usize),
        Bytes(usize),
        Write(Vec<Take>),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = || prop_oneof![3 => 0..600usize, 1 => 0..200_000usize];
        let take = prop_oneof![4 => (0..100_000usize).prop_map(Take::Some), 1 => Just(Take::Block), 1 => Just(Take::Interrupt)];
        prop_oneof![
            4 => len().prop_map(Step::Copy),
            3 => len().prop_map(Step::Bytes),
            4 => prop::collection::vec(take, 0..6).prop_map(Step::Write),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_pushed_is_written_once_and_in_order(steps in prop::collection::vec(step(), 0..60)) {
            let (mut queue, mut unsent, mut next) = (OutputQueue::default(), Vec::new(), 0_u8);
            for step in steps {
                match step {
                    Step::Copy(len) | Step::Bytes(len) => {
                        let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_mul(5).wrapping_add(1); next }).collect();
                        unsent.extend_from_slice(&bytes);
                        if matches!(step, Step::Copy(_)) { queue.push_copy(&bytes) } else { queue.push_bytes(bytes.into()) }
                    }
                    Step::Write(script) => {
                        let mut writer = Scripted::following(script);
                        let step = queue.write_to(&mut writer).unwrap();
                        prop_assert_eq!(step.written, writer.taken.len());
                        prop_assert!(unsent.starts_with(&writer.taken));
                        unsent.drain(..step.written);
                        prop_assert_eq!(step.drained, unsent.is_empty());
                        prop_assert!(!step.blocked || step.written == 0);
                    }
                    Step::Clear => { queue.clear(); unsent.clear(); }
                }
                prop_assert_eq!(queue.len(), unsent.len());
                prop_assert_eq!(queue.is_empty(), unsent.is_empty());
                prop_assert!(queue.sealed.iter().all(|piece| !piece.is_empty()));
                prop_assert!(queue.tail.capacity() <= CHUNK_MAX);
            }
            let mut writer = Scripted::default();
            while !queue.write_to(&mut writer).unwrap().drained {}
            prop_assert_eq!(writer.taken, unsent);
        }
    }
}
