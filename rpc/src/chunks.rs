//! Bodies that are too long for one frame: cut up when they are sent, in turn with each other and behind what is small, and put together when they arrive.

use std::collections::VecDeque;

use bytes::Bytes;
use reactor::{ConnId, Context, Handler};
use rustc_hash::FxHashMap;

use crate::wire::{self, FRAME_BYTES_MIN, HEADER_BYTES_MAX, Header, Kind, LENGTH_BYTES};

/// A body up to here goes in one frame: every peer takes frames of this length.
pub(crate) const WHOLE_BYTES_MAX: usize = FRAME_BYTES_MIN - HEADER_BYTES_MAX - LENGTH_BYTES;
/// The longest piece. A small message waits for one piece of each turn at most; shorter ones cost more system calls than they are worth.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Bodies of one connection that may be on their way at once in one direction: what a receiver holds of unfinished ones is bounded by this.
pub(crate) const INTERLEAVED_MAX: usize = 4;

/// What a peer takes, from its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerLimits {
    pub(crate) piece_bytes_max: usize,
    pub(crate) body_bytes_max: u64,
    pub(crate) in_flight_max: u32,
}

impl PeerLimits {
    /// From a hello; `None` when the peer cannot be talked to.
    pub(crate) fn from_hello(hello: &wire::Hello) -> Option<Self> {
        let frame = usize::try_from(hello.frame_bytes_max).ok()?;
        let speaks = hello.version_min <= wire::VERSION && wire::VERSION <= hello.version;
        if !speaks || frame < FRAME_BYTES_MIN {
            return None;
        }
        let piece = (frame - HEADER_BYTES_MAX - LENGTH_BYTES).min(PIECE_BYTES_MAX);
        Some(Self {
            piece_bytes_max: piece,
            body_bytes_max: hello.body_bytes_max,
            in_flight_max: hello.in_flight_max.max(1),
        })
    }
}

/// A body on its way out.
struct Sending {
    call: u64,
    /// The header of the first frame, until that is sent.
    header: Option<Header>,
    rest: Bytes,
}

/// The long bodies of one connection that are not sent yet.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Sending>,
    bytes: usize,
}

impl Outbox {
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, header: Header, body: Bytes) {
        self.bytes += body.len();
        self.queue.push_back(Sending { call: header.call_id, header: Some(header), rest: body });
    }

    /// Drops what is left of a call's body. Whether it had not begun to be sent.
    pub(crate) fn remove(&mut self, call: u64) -> bool {
        let Some(at) = self.queue.iter().position(|sending| sending.call == call) else { return false };
        let removed = self.queue.remove(at);
        self.bytes -= removed.as_ref().map_or(0, |sending| sending.rest.len());
        removed.is_some_and(|sending| sending.header.is_some())
    }

    /// The next frame: its head, and its piece of a body. The first few bodies take turns; those behind them wait.
    fn next(&mut self, piece_bytes_max: usize) -> Option<(Vec<u8>, Bytes)> {
        let mut sending = self.queue.pop_front()?;
        let piece = sending.rest.split_to(piece_bytes_max.min(sending.rest.len()));
        self.bytes -= piece.len();
        let mut header = sending.header.take().unwrap_or_else(|| Header::of(Kind::Chunk, sending.call));
        header.more = !sending.rest.is_empty();
        if header.more {
            self.queue.insert(self.queue.len().min(INTERLEAVED_MAX - 1), sending);
        }
        let mut head = Vec::new();
        wire::put_head(&header, piece.len(), &mut head);
        Some((head, piece))
    }
}

/// A connection that sends long bodies.
pub(crate) trait SendsLarge {
    /// Its outbox, and the longest piece that the peer takes.
    fn outbox(&mut self) -> (&mut Outbox, usize);
}

/// Sends one more piece when nothing is unsent, and comes back (by `on_drained`) when that is gone: whatever small thing is sent meanwhile waits for
/// one piece only.
pub(crate) fn pump<H: Handler<Conn: SendsLarge>>(cx: &mut Context<'_, H>, id: ConnId) {
    let unsent = cx.unsent(id);
    let Some(conn) = cx.conn_mut(id) else { return };
    let (outbox, piece_bytes_max) = conn.outbox();
    if outbox.queue.is_empty() {
        return;
    }
    if unsent < piece_bytes_max
        && let Some((head, piece)) = outbox.next(piece_bytes_max)
    {
        // What cannot be sent any more is for `on_close`.
        let _ = cx.send(id, &head);
        let _ = cx.send_bytes(id, piece);
    }
    cx.notify_drained(id);
}

/// A body that is arriving.
struct Partial<T> {
    what: T,
    body: Vec<u8>,
}

/// The bodies of one connection that have not arrived in whole, each with what is known about its call.
pub(crate) struct Assembly<T> {
    partial: FxHashMap<u64, Partial<T>>,
}

impl<T> Default for Assembly<T> {
    fn default() -> Self {
        Self { partial: FxHashMap::default() }
    }
}

/// What a piece of a body led to.
pub(crate) enum Assembled<T> {
    /// There is more to come.
    Incomplete,
    /// That was all.
    Whole(T, Vec<u8>),
    /// It is longer than is allowed. It is forgotten.
    TooLong(T),
    /// Nobody waits for it: the call was given up or refused.
    Stray,
}

impl<T> Assembly<T> {
    pub(crate) fn len(&self) -> usize {
        self.partial.len()
    }

    pub(crate) fn contains(&self, call: u64) -> bool {
        !self.partial.is_empty() && self.partial.contains_key(&call)
    }

    /// The first piece of a body. Memory is taken for what has arrived, not for what is announced. `false` when the peer has more bodies under way than it
    /// may.
    #[must_use]
    pub(crate) fn begin(&mut self, call: u64, what: T, piece: &[u8]) -> bool {
        let room = self.partial.len() < INTERLEAVED_MAX;
        if room {
            self.partial.insert(call, Partial { what, body: piece.to_vec() });
        }
        room
    }

    /// One more piece of a body that may be `body_max` bytes long.
    pub(crate) fn add(&mut self, call: u64, piece: &[u8], more: bool, body_max: usize) -> Assembled<T> {
        let Some(partial) = self.partial.get_mut(&call) else { return Assembled::Stray };
        let too_long = partial.body.len() + piece.len() > body_max;
        if !too_long {
            partial.body.extend_from_slice(piece);
            if more {
                return Assembled::Incomplete;
            }
        }
        match self.partial.remove(&call) {
            Some(Partial { what, .. }) if too_long => Assembled::TooLong(what),
            Some(Partial { what, body }) => Assembled::Whole(what, body),
            None => Assembled::Stray,
        }
    }

    pub(crate) fn forget(&mut self, call: u64) -> Option<T> {
        self.partial.remove(&call).map(|partial| partial.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all frames out, as `(call, more, piece)`.
    fn frames(outbox: &mut Outbox, piece: usize) -> Vec<(u64, bool, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((head, piece)) = outbox.next(piece) {
            let bytes = [&head[..], &piece].concat();
            let frame = wire::parse(&bytes[4..]).unwrap();
            all.push((frame.header.call_id, frame.header.more, frame.body.to_vec()));
        }
        all
    }

    #[test]
    fn long_bodies_take_turns_and_come_together_again() {
        let mut outbox = Outbox::default();
        outbox.push(Header::of(Kind::Request, 1), Bytes::from_static(b"abcde"));
        outbox.push(Header::of(Kind::Request, 2), Bytes::from_static(b"xy"));
        assert_eq!(outbox.bytes(), 7);
        let frames = frames(&mut outbox, 2);
        assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [1, 2, 1, 1]);
        assert_eq!(outbox.bytes(), 0);

        let mut assembly = Assembly::default();
        assert!(assembly.begin(1, "one", &frames[0].2));
        assert!(matches!(assembly.add(1, &frames[2].2, true, 9), Assembled::Incomplete));
        match assembly.add(1, &frames[3].2, false, 9) {
            Assembled::Whole("one", body) => assert_eq!(body, b"abcde"),
            _ => panic!("not whole"),
        }
        assert_eq!(assembly.len(), 0);
    }

    #[test]
    fn no_more_bodies_are_under_way_than_the_receiver_holds() {
        let mut outbox = Outbox::default();
        for call in 0..20 {
            outbox.push(Header::of(Kind::Request, call), Bytes::from(vec![0; 5]));
        }
        let mut assembly = Assembly::default();
        let mut whole = Vec::new();
        for (call, more, piece) in frames(&mut outbox, 2) {
            if !assembly.contains(call) {
                assert!(assembly.begin(call, (), &piece));
            } else if let Assembled::Whole((), body) = assembly.add(call, &piece, more, 5) {
                assert_eq!(body.len(), 5);
                whole.push(call);
            }
        }
        assert_eq!(whole, (0..20).collect::<Vec<_>>());
        let mut greedy = Assembly::default();
        let taken = (0..10).filter(|call| greedy.begin(*call, (), b"x")).count();
        assert_eq!(taken, INTERLEAVED_MAX);
    }

    #[test]
    fn a_body_beyond_the_limit_is_forgotten_and_its_rest_is_stray() {
        let mut assembly = Assembly::default();
        assert!(assembly.begin(1, (), b"abc"));
        assert!(matches!(assembly.add(1, b"def", true, 5), Assembled::TooLong(())));
        assert!(matches!(assembly.add(1, b"g", false, 5), Assembled::Stray));
        assert!(assembly.begin(2, (), b"abc"));
        assert!(assembly.forget(2).is_some());
        assert_eq!(assembly.len(), 0);
    }

    #[test]
    fn a_call_that_is_given_up_leaves_the_outbox() {
        let mut outbox = Outbox::default();
        outbox.push(Header::of(Kind::Request, 1), Bytes::from_static(b"abcde"));
        let _ = outbox.next(2);
        assert!(!outbox.remove(1), "a part of it has gone out");
        outbox.push(Header::of(Kind::Request, 2), Bytes::from_static(b"abcde"));
        assert!(outbox.remove(2));
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.next(2).is_none());
    }

    #[test]
    fn a_peer_of_another_version_or_with_tiny_frames_is_not_talked_to() {
        let hello = wire::Hello {
            version: 1,
            version_min: 1,
            frame_bytes_max: 1 << 20,
            body_bytes_max: 9,
            ..wire::Hello::default()
        };
        assert_eq!(PeerLimits::from_hello(&hello).unwrap().piece_bytes_max, PIECE_BYTES_MAX);
        let newer = wire::Hello { version: 3, ..hello.clone() };
        assert!(PeerLimits::from_hello(&newer).is_some(), "it still speaks ours");
        assert!(PeerLimits::from_hello(&wire::Hello { version_min: 2, ..newer }).is_none());
        assert!(
            PeerLimits::from_hello(&wire::Hello { version: 0, version_min: 0, ..hello.clone() }).is_none()
        );
        assert!(PeerLimits::from_hello(&wire::Hello { frame_bytes_max: 100, ..hello }).is_none());
    }
}
