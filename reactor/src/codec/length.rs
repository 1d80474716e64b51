//! Frames that begin with their length.

use super::{Codec, Decoded, FrameError};

/// A big-endian length of 1, 2 or 4 bytes or a varint, then so many bytes of payload.
///
/// A length above the maximum is refused as soon as it is there, before any of the payload is asked for.
///
/// ```
/// use reactor::codec::{Codec, Decoded, LengthCodec};
///
/// let mut codec = LengthCodec::u16(1024);
/// assert_eq!(codec.decode(&[0, 2, 7]), Ok(Decoded::Incomplete { wanted: 4 }));
/// assert_eq!(codec.decode(&[0, 2, 7, 8, 0]), Ok(Decoded::Frame { start: 2, end: 4, consumed: 4 }));
/// ```
#[derive(Debug, Clone)]
pub struct LengthCodec {
    max: u32,
    width: Width,
}

const _: () = assert!(size_of::<LengthCodec>() <= 8);

#[derive(Debug, Clone, Copy)]
enum Width {
    One,
    Two,
    Four,
    Varint,
}

/// The most bytes that a varint of 32 bits takes, at seven bits a byte.
const VARINT_BYTES_MAX: usize = 5;

/// What is known of a prefix.
enum Prefix {
    /// The length, and where the payload begins.
    Whole(u32, usize),
    /// So many bytes are needed.
    Incomplete(usize),
    Malformed(&'static str),
}

impl LengthCodec {
    /// A length of one byte; payloads of at most `max` bytes, or 255 if that is less.
    #[must_use]
    pub fn u8(max: usize) -> Self {
        Self { max: u8::try_from(max).unwrap_or(u8::MAX).into(), width: Width::One }
    }

    /// A length of two bytes; payloads of at most `max` bytes, or 65,535 if that is less.
    #[must_use]
    pub fn u16(max: usize) -> Self {
        Self { max: u16::try_from(max).unwrap_or(u16::MAX).into(), width: Width::Two }
    }

    /// A length of four bytes; payloads of at most `max` bytes, or 2^32 - 1 if that is less.
    #[must_use]
    pub fn u32(max: usize) -> Self {
        Self { max: u32::try_from(max).unwrap_or(u32::MAX), width: Width::Four }
    }

    /// A length as a varint, as Protocol Buffers write it: seven bits a byte, the lowest first, the top bit set on all but the last. Payloads of at most `max`
    /// bytes, or 2^32 - 1 if that is less. A length that is written longer than need be is refused, so that each frame has one encoding.
    #[must_use]
    pub fn varint(max: usize) -> Self {
        Self { width: Width::Varint, ..Self::u32(max) }
    }

    /// The longest payload allowed, in bytes.
    #[must_use]
    pub fn max(&self) -> usize {
        usize::try_from(self.max).unwrap_or(usize::MAX)
    }

    fn too_long(&self) -> FrameError {
        FrameError::TooLong { max: self.max() }
    }
}

impl Width {
    /// Reads the length at the start of `input`.
    fn read(self, input: &[u8]) -> Prefix {
        let (len, bytes) = match self {
            Self::One => (input.first().map(|&byte| byte.into()), 1),
            Self::Two => (input.first_chunk().map(|&bytes| u16::from_be_bytes(bytes).into()), 2),
            Self::Four => (input.first_chunk().map(|&bytes| u32::from_be_bytes(bytes)), 4),
            Self::Varint => return read_varint(input),
        };
        len.map_or(Prefix::Incomplete(bytes), |len| Prefix::Whole(len, bytes))
    }

    /// Appends a length that the width can say.
    fn write(self, len: u32, out: &mut Vec<u8>) {
        let [.., high, low] = len.to_be_bytes();
        match self {
            Self::One => out.push(low),
            Self::Two => out.extend_from_slice(&[high, low]),
            Self::Four => out.extend_from_slice(&len.to_be_bytes()),
            Self::Varint => write_varint(len, out),
        }
    }
}

fn read_varint(input: &[u8]) -> Prefix {
    let mut len: u32 = 0;
    for (at, byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u32::from(byte & 0x7f);
        let shift = 7 * u32::try_from(at).unwrap_or(0);
        // The fifth byte has room for four bits only.
        if bits.leading_zeros() < shift {
            return Prefix::Malformed("a length of more than 32 bits");
        }
        len |= bits << shift;
        if byte & 0x80 == 0 {
            let over_long = at > 0 && *byte == 0;
            return if over_long {
                Prefix::Malformed("a length with needless bytes")
            } else {
                Prefix::Whole(len, at + 1)
            };
        }
    }
    if input.len() >= VARINT_BYTES_MAX {
        return Prefix::Malformed("a length of more than five bytes");
    }
    Prefix::Incomplete(input.len() + 1)
}

#[expect(clippy::cast_possible_truncation, reason = "takes seven bits at a time")]
fn write_varint(mut len: u32, out: &mut Vec<u8>) {
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

impl Codec for LengthCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let (len, start) = match self.width.read(input) {
            Prefix::Whole(len, start) => (len, start),
            Prefix::Incomplete(wanted) => return Ok(Decoded::Incomplete { wanted }),
            Prefix::Malformed(why) => return Err(FrameError::Malformed(why)),
        };
        if len > self.max {
            return Err(self.too_long());
        }
        let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
        match end {
            Some(end) if end <= input.len() => Ok(Decoded::Frame { start, end, consumed: end }),
            Some(end) => Ok(Decoded::Incomplete { wanted: end }),
            // More than this machine can address.
            None => Err(self.too_long()),
        }
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        // The maximum is within what the width can say.
        let len = u32::try_from(payload.len()).ok().filter(|&len| len <= self.max);
        let len = len.ok_or_else(|| self.too_long())?;
        out.reserve(VARINT_BYTES_MAX + payload.len());
        self.width.write(len, out);
        out.extend_from_slice(payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_behind_a_prefix_of_the_chosen_width() {
        for (mut codec, encoded) in [
            (LengthCodec::u8(9), &[2, 7, 8][..]),
            (LengthCodec::u16(9), &[0, 2, 7, 8]),
            (LengthCodec::u32(9), &[0, 0, 0, 2, 7, 8]),
            (LengthCodec::varint(9), &[2, 7, 8]),
        ] {
            let mut out = Vec::new();
            codec.encode(&[7, 8], &mut out).unwrap();
            assert_eq!(out, encoded);
            let len = out.len();
            assert_eq!(codec.decode(&out), Ok(Decoded::Frame { start: len - 2, end: len, consumed: len }));
        }
    }

    #[test]
    fn a_length_above_the_maximum_is_refused_before_the_payload_is_wanted() {
        let mut codec = LengthCodec::u32(1000);
        assert_eq!(codec.decode(&[0, 0, 3]), Ok(Decoded::Incomplete { wanted: 4 }));
        assert_eq!(codec.decode(&[0, 0, 3, 232]), Ok(Decoded::Incomplete { wanted: 1004 }));
        assert_eq!(codec.decode(&[0, 0, 3, 233]), Err(FrameError::TooLong { max: 1000 }));
        assert_eq!(codec.decode(&[255; 4]), Err(FrameError::TooLong { max: 1000 }));
    }

    #[test]
    fn an_empty_payload_is_a_frame() {
        let mut codec = LengthCodec::u16(0);
        assert_eq!(codec.decode(&[0, 0]), Ok(Decoded::Frame { start: 2, end: 2, consumed: 2 }));
        assert_eq!(codec.decode(&[0, 1]), Err(FrameError::TooLong { max: 0 }));
    }

    #[test]
    fn a_maximum_never_exceeds_what_the_prefix_can_say() {
        assert_eq!(LengthCodec::u8(1000).max(), 255);
        assert_eq!(LengthCodec::u16(100_000).max(), 65_535);
        let mut out = Vec::new();
        assert_eq!(LengthCodec::u8(1000).encode(&[0; 256], &mut out), Err(FrameError::TooLong { max: 255 }));
        assert!(out.is_empty());
        assert_eq!(LengthCodec::u8(1000).encode(&[0; 255], &mut out), Ok(()));
        assert_eq!(out.len(), 256);
    }

    #[test]
    fn varints_are_read_as_they_are_written_and_in_one_way_only() {
        for (len, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (16_384, &[0x80, 0x80, 1]),
            (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            write_varint(len, &mut out);
            assert_eq!(out, bytes);
            assert!(matches!(read_varint(&out), Prefix::Whole(read, end) if read == len && end == out.len()));
            let cut = &bytes[..bytes.len() - 1];
            assert!(matches!(read_varint(cut), Prefix::Incomplete(wanted) if wanted == bytes.len()));
        }
        let mut codec = LengthCodec::varint(usize::MAX);
        for bad in
            [&[0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80; 5], &[0x80, 0x80, 0x80, 0x80, 0x80, 1]]
        {
            assert!(matches!(codec.decode(bad), Err(FrameError::Malformed(_))), "{bad:?}");
        }
    }
}
