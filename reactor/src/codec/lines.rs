//! Frames that are lines: ended by `\n`, one `\r` before it does not count.

use super::{Codec, Decoded, FrameError};

/// Lines ended by `\n`, with one `\r` before it stripped; at most `max` bytes without their terminator.
///
/// ```
/// use reactor::codec::{Codec, Decoded, LinesCodec};
///
/// let mut codec = LinesCodec::new(80);
/// assert_eq!(codec.decode(b"hel"), Ok(Decoded::Incomplete { wanted: 4 }));
/// assert_eq!(codec.decode(b"hello\r\nyou"), Ok(Decoded::Frame { start: 0, end: 5, consumed: 7 }));
/// ```
#[derive(Debug, Clone)]
pub struct LinesCodec {
    max: usize,
    /// So many bytes from the frame's start are known to hold no `\n`.
    scanned: usize,
}

// One per connection, and there are many connections.
const _: () = assert!(size_of::<LinesCodec>() <= 16);

impl LinesCodec {
    /// Lines of at most `max` bytes, the terminator not counted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        // Leaves room for the two bytes of the terminator in every sum below.
        Self { max: max.min(usize::MAX - 2), scanned: 0 }
    }

    /// The longest line allowed, in bytes without the terminator.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Changes the longest line allowed; holds from the next call on, also for a line that is partly there.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(usize::MAX - 2);
    }

    /// Whether `unended`, which holds no `\n`, can no longer become a line of at most `max` bytes.
    fn is_too_long(&self, unended: &[u8]) -> bool {
        // One byte above the maximum may still prove to be the `\r` of the terminator.
        unended.len() > self.max + 1 || unended.get(self.max).is_some_and(|&byte| byte != b'\r')
    }
}

impl Codec for LinesCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        // Beyond the longest line and its terminator nothing can matter to this frame.
        let window = input.get(..self.max + 2).unwrap_or(input);
        let unseen = window.get(self.scanned..).unwrap_or_default();
        let Some(feed) = find_feed(unseen).map(|at| self.scanned + at) else {
            self.scanned = self.scanned.max(window.len());
            return if self.is_too_long(window) {
                Err(FrameError::TooLong { max: self.max })
            } else {
                Ok(Decoded::Incomplete { wanted: input.len() + 1 })
            };
        };
        let line = window.get(..feed).unwrap_or_default();
        let end = line.strip_suffix(b"\r").unwrap_or(line).len();
        if end > self.max {
            // What is before the `\n` is known; the same call again finds it, and the error, again.
            self.scanned = feed;
            return Err(FrameError::TooLong { max: self.max });
        }
        self.scanned = 0;
        Ok(Decoded::Frame { start: 0, end, consumed: feed + 1 })
    }

    /// Appends `payload` and `\n`. A payload with a `\n` in it, or a `\r` at its end, would not arrive as it was
    /// sent and is refused.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        if payload.len() > self.max {
            return Err(FrameError::TooLong { max: self.max });
        }
        if find_feed(payload).is_some() {
            return Err(FrameError::Malformed("a line holds no line feed"));
        }
        if payload.ends_with(b"\r") {
            return Err(FrameError::Malformed("a line does not end with a carriage return"));
        }
        out.reserve(payload.len() + 1);
        out.extend_from_slice(payload);
        out.push(b'\n');
        Ok(())
    }
}

/// Where the first `\n` is.
fn find_feed(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LONG: Result<Decoded, FrameError> = Err(FrameError::TooLong { max: 4 });

    fn frame(end: usize, consumed: usize) -> Result<Decoded, FrameError> {
        Ok(Decoded::Frame { start: 0, end, consumed })
    }

    #[test]
    fn a_line_ends_at_the_first_feed_and_loses_one_carriage_return() {
        assert_eq!(LinesCodec::new(4).decode(b"ab\ncd\n"), frame(2, 3));
        assert_eq!(LinesCodec::new(4).decode(b"ab\r\ncd\n"), frame(2, 4));
        assert_eq!(LinesCodec::new(4).decode(b"ab\r\r\n"), frame(3, 5));
        assert_eq!(LinesCodec::new(4).decode(b"a\rb\n"), frame(3, 4));
        assert_eq!(LinesCodec::new(4).decode(b"\n"), frame(0, 1));
        assert_eq!(LinesCodec::new(4).decode(b"\r\n"), frame(0, 2));
        assert_eq!(LinesCodec::new(0).decode(b"\r\n"), frame(0, 2));
    }

    #[test]
    fn the_longest_line_fits_with_either_terminator_and_one_more_byte_does_not() {
        assert_eq!(LinesCodec::new(4).decode(b"abcd\n"), frame(4, 5));
        assert_eq!(LinesCodec::new(4).decode(b"abcd\r\n"), frame(4, 6));
        assert_eq!(LinesCodec::new(4).decode(b"abcde\n"), TOO_LONG);
        assert_eq!(LinesCodec::new(4).decode(b"abcde\r\n"), TOO_LONG);
        assert_eq!(LinesCodec::new(4).decode(b"abcd\r\r\n"), TOO_LONG);
    }

    #[test]
    fn too_long_is_said_as_soon_as_it_is_certain_and_not_before() {
        let mut codec = LinesCodec::new(4);
        assert_eq!(codec.decode(b"abcd"), Ok(Decoded::Incomplete { wanted: 5 }));
        assert_eq!(codec.decode(b"abcd\r"), Ok(Decoded::Incomplete { wanted: 6 }));
        assert_eq!(codec.decode(b"abcd\rx"), TOO_LONG);
        assert_eq!(codec.decode(b"abcd\rx\n"), TOO_LONG);
        assert_eq!(LinesCodec::new(4).decode(b"abcde"), TOO_LONG);
    }

    #[test]
    fn a_byte_is_not_looked_at_twice() {
        let mut codec = LinesCodec::new(80);
        assert_eq!(codec.decode(b"abc"), Ok(Decoded::Incomplete { wanted: 4 }));
        // A feed where the codec has already been is not seen: it does not look there again.
        assert_eq!(codec.decode(b"a\ncdef\n"), frame(6, 7));
        assert_eq!(codec.decode(b"a\n"), frame(1, 2), "and a frame begins the search anew");
    }

    #[test]
    fn a_changed_maximum_holds_for_the_line_that_is_half_there() {
        let mut codec = LinesCodec::new(4);
        assert_eq!(codec.decode(b"abc"), Ok(Decoded::Incomplete { wanted: 4 }));
        codec.set_max(8);
        assert_eq!(codec.decode(b"abcdefgh\n"), frame(8, 9));
        assert_eq!(codec.decode(b"abcdefgh"), Ok(Decoded::Incomplete { wanted: 9 }));
        codec.set_max(4);
        assert_eq!(codec.decode(b"abcdefgh\n"), TOO_LONG);
        assert_eq!(codec.max(), 4);
    }

    #[test]
    fn a_payload_that_is_no_line_is_refused_and_leaves_no_trace() {
        let codec = LinesCodec::new(4);
        let mut out = b"before".to_vec();
        assert_eq!(codec.encode(b"abcde", &mut out), Err(FrameError::TooLong { max: 4 }));
        assert!(matches!(codec.encode(b"a\nb", &mut out), Err(FrameError::Malformed(_))));
        assert!(matches!(codec.encode(b"a\r", &mut out), Err(FrameError::Malformed(_))));
        assert_eq!(out, b"before");
        assert_eq!(codec.encode(b"abcd", &mut out), Ok(()));
        assert_eq!(out, b"beforeabcd\n");
    }

    #[test]
    fn no_maximum_overflows() {
        let mut codec = LinesCodec::new(usize::MAX);
        assert_eq!(codec.decode(b"ab"), Ok(Decoded::Incomplete { wanted: 3 }));
        assert_eq!(codec.decode(b"ab\n"), frame(2, 3));
    }
}
