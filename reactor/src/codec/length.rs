//! Frames that begin with their length.

use super::{Codec, Decoded, FrameError};

/// A big-endian length of 1, 2 or 4 bytes, then so many bytes of payload.
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
    fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// The length at the start of `input`, when it is all there.
    fn read(self, input: &[u8]) -> Option<u32> {
        match self {
            Self::One => input.first().map(|&byte| byte.into()),
            Self::Two => input.first_chunk().map(|&bytes| u16::from_be_bytes(bytes).into()),
            Self::Four => input.first_chunk().map(|&bytes| u32::from_be_bytes(bytes)),
        }
    }
}

impl Codec for LengthCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        let start = self.width.bytes();
        let Some(len) = self.width.read(input) else {
            return Ok(Decoded::Incomplete { wanted: start });
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
        let len = u32::try_from(payload.len()).ok().filter(|&len| len <= self.max);
        let prefix = len.ok_or_else(|| self.too_long())?.to_be_bytes();
        // The maximum is within what the width can say, so what is left out is zero.
        let prefix = prefix.get(prefix.len() - self.width.bytes()..).unwrap_or_default();
        out.reserve(prefix.len() + payload.len());
        out.extend_from_slice(prefix);
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
}
