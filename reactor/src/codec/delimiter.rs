//! Frames that end with bytes of one's choice.

use memchr::memmem;

use super::{Codec, Decoded, FrameError};

/// The longest delimiter, in bytes. Longer than any that is in use; it lies inside the codec, of which there is one per connection.
const DELIMITER_BYTES_MAX: usize = 7;

/// Frames ended by a delimiter of 1 to 7 bytes, which is not part of the payload; payloads of at most `max` bytes, which do not hold the delimiter.
///
/// ```
/// use reactor::codec::{Codec, Decoded, DelimiterCodec};
///
/// let mut codec = DelimiterCodec::new(b"\r\n", 80)?;
/// assert_eq!(codec.decode(b"one\r"), Ok(Decoded::Incomplete { wanted: 5 }));
/// assert_eq!(codec.decode(b"one\r\ntwo"), Ok(Decoded::Frame { start: 0, end: 3, consumed: 5 }));
/// # Ok::<(), reactor::codec::FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct DelimiterCodec {
    delimiter: [u8; DELIMITER_BYTES_MAX],
    delimiter_len: u8,
    max: u32,
    /// No delimiter begins before this place in the frame.
    scanned: u32,
}

const _: () = assert!(size_of::<DelimiterCodec>() <= 16);

impl DelimiterCodec {
    /// A codec for frames that end with `delimiter`, of at most `max` bytes, or 2^32 - 16 if that is less.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] for a delimiter that is empty or longer than 7 bytes.
    pub fn new(delimiter: &[u8], max: usize) -> Result<Self, FrameError> {
        let mut kept = [0; DELIMITER_BYTES_MAX];
        let len = u8::try_from(delimiter.len()).ok().filter(|len| *len > 0);
        match (kept.get_mut(..delimiter.len()), len) {
            (Some(room), Some(delimiter_len)) => {
                room.copy_from_slice(delimiter);
                // Leaves room for the delimiter in every sum below.
                let max = u32::try_from(max).unwrap_or(u32::MAX).min(u32::MAX - 15);
                Ok(Self { delimiter: kept, delimiter_len, max, scanned: 0 })
            }
            _ => Err(FrameError::Malformed("a delimiter has 1 to 7 bytes")),
        }
    }

    /// The longest payload allowed, in bytes.
    #[must_use]
    pub fn max(&self) -> usize {
        usize::try_from(self.max).unwrap_or(usize::MAX)
    }

    fn delimiter(&self) -> &[u8] {
        self.delimiter.get(..usize::from(self.delimiter_len)).unwrap_or_default()
    }
}

impl Codec for DelimiterCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let (max, len) = (self.max(), self.delimiter().len());
        // Beyond the longest payload and its delimiter nothing can matter to this frame.
        let window = input.get(..max + len).unwrap_or(input);
        let from = usize::try_from(self.scanned).unwrap_or(usize::MAX);
        let unseen = window.get(from..).unwrap_or_default();
        if let Some(at) = memmem::find(unseen, self.delimiter()) {
            self.scanned = 0;
            let end = from + at;
            return Ok(Decoded::Frame { start: 0, end, consumed: end + len });
        }
        if window.len() == max + len {
            return Err(FrameError::TooLong { max });
        }
        // The last bytes may be the beginning of a delimiter that is cut.
        self.scanned = u32::try_from(window.len().saturating_sub(len - 1)).unwrap_or(u32::MAX);
        Ok(Decoded::Incomplete { wanted: input.len() + 1 })
    }

    /// Appends `payload` and the delimiter. A payload that would end sooner, because the delimiter is in it or comes to be where the two meet, is refused.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        if payload.len() > self.max() {
            return Err(FrameError::TooLong { max: self.max() });
        }
        let before = out.len();
        out.reserve(payload.len() + self.delimiter().len());
        out.extend_from_slice(payload);
        out.extend_from_slice(self.delimiter());
        let frame = out.get(before..).unwrap_or_default();
        if memmem::find(frame, self.delimiter()) != Some(payload.len()) {
            out.truncate(before);
            return Err(FrameError::Malformed("the payload holds the delimiter"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_that_arrives_in_two_parts_is_found() {
        let mut codec = DelimiterCodec::new(b"--x", 10).unwrap();
        assert_eq!(codec.decode(b"a-"), Ok(Decoded::Incomplete { wanted: 3 }));
        assert_eq!(codec.decode(b"a--"), Ok(Decoded::Incomplete { wanted: 4 }));
        assert_eq!(codec.decode(b"a--x"), Ok(Decoded::Frame { start: 0, end: 1, consumed: 4 }));
    }

    #[test]
    fn a_payload_at_the_maximum_is_a_frame_and_one_above_it_is_refused() {
        let mut codec = DelimiterCodec::new(b"\0", 3).unwrap();
        assert_eq!(codec.decode(b"abc\0"), Ok(Decoded::Frame { start: 0, end: 3, consumed: 4 }));
        assert_eq!(codec.decode(b"abc"), Ok(Decoded::Incomplete { wanted: 4 }));
        assert_eq!(codec.decode(b"abcd"), Err(FrameError::TooLong { max: 3 }));
    }

    #[test]
    fn what_would_not_arrive_as_it_was_sent_is_refused_and_leaves_nothing() {
        let codec = DelimiterCodec::new(b"aab", 10).unwrap();
        let mut out = b"before".to_vec();
        assert!(codec.encode(b"xaaby", &mut out).is_err());
        assert!(codec.encode(&[0; 11], &mut out).is_err());
        assert_eq!(out, b"before");
        // What only looks as if the two could meet to a delimiter does not.
        codec.encode(b"xa", &mut out).unwrap();
        assert_eq!(out, b"beforexaaab");
        let overlap = DelimiterCodec::new(b"aa", 10).unwrap();
        assert!(overlap.encode(b"xa", &mut out).is_err(), "the frame would end one byte early");
    }

    #[test]
    fn delimiters_have_their_bounds() {
        assert!(DelimiterCodec::new(b"", 1).is_err() && DelimiterCodec::new(b"12345678", 1).is_err());
        assert_eq!(DelimiterCodec::new(b"1234567", usize::MAX).unwrap().delimiter(), b"1234567");
    }
}
