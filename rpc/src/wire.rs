//! The frames: `docs/rpc.md` in code. Everything that takes bytes apart is here, and it takes them from strangers.

use bytes::{BufMut as _, BytesMut};
use prost::Message;

/// The messages of `proto/wire.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "made by prost")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/rpc.wire.rs"));
}

pub use generated::{Entry, Executed, Header, Hello, Kind};

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
/// The bytes of each of the two lengths that a frame begins with.
pub const LENGTH_BYTES: usize = 4;
/// The longest header that is read. Metadata is in it; a kilobyte would do without.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The shortest `frame_bytes_max` that a side may ask for: a header and something of a body.
pub const FRAME_BYTES_MIN: usize = 2 * HEADER_BYTES_MAX;
/// The most metadata entries of a request.
pub const METADATA_MAX: usize = 64;

/// What is wrong with a frame. The connection it came from is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends before its header's length.
    #[error("a frame of less than four bytes")]
    Short,
    /// The header's length is more than what is left of the frame, or more than is allowed.
    #[error("a header that is longer than its frame or than {HEADER_BYTES_MAX} bytes")]
    HeaderLength,
    /// The header is no header.
    #[error("a header that cannot be read")]
    Header,
}

/// One frame, taken apart. The body borrows from the input.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its body, or a piece of one.
    pub body: &'a [u8],
}

/// Takes a frame apart: what comes behind the frame's own length.
///
/// # Errors
/// See [`WireError`]. Nothing is allocated for lengths that are only claimed.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, WireError> {
    let (len, rest) = frame.split_first_chunk::<LENGTH_BYTES>().ok_or(WireError::Short)?;
    let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| WireError::HeaderLength)?;
    if len > HEADER_BYTES_MAX {
        return Err(WireError::HeaderLength);
    }
    let (header, body) = rest.split_at_checked(len).ok_or(WireError::HeaderLength)?;
    let header = Header::decode(header).map_err(|_| WireError::Header)?;
    Ok(Frame { header, body })
}

/// Appends a frame with the body `body`.
pub fn put_frame(header: &Header, body: &impl Message, out: &mut Vec<u8>) {
    put_head(header, body.encoded_len(), out);
    body.encode_raw(out);
}

/// Appends a frame whose body is there already.
pub fn put_frame_raw(header: &Header, body: &[u8], out: &mut Vec<u8>) {
    put_head(header, body.len(), out);
    out.extend_from_slice(body);
}

/// Appends what stands before a body of `body_len` bytes.
///
/// Bodies are at most `u32::MAX` less the longest header: larger ones are refused long before.
pub fn put_head(header: &Header, body_len: usize, out: &mut Vec<u8>) {
    let header_len = header.encoded_len();
    let whole = LENGTH_BYTES + header_len + body_len;
    out.reserve(LENGTH_BYTES + whole);
    out.put_u32(u32::try_from(whole).unwrap_or(u32::MAX));
    out.put_u32(u32::try_from(header_len).unwrap_or(u32::MAX));
    header.encode_raw(out);
}

/// A whole frame without a body.
#[must_use]
pub fn frame_of(header: &Header) -> BytesMut {
    let mut out = Vec::new();
    put_head(header, 0, &mut out);
    BytesMut::from(out.as_slice())
}

impl Header {
    /// A header of this kind for this call.
    #[must_use]
    pub fn of(kind: Kind, call_id: u64) -> Self {
        Self { kind: kind.into(), call_id, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(header: &Header, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame_raw(header, body, &mut out);
        out
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let header = Header { timeout_us: Some(0), method_id: 7, ..Header::of(Kind::Request, 300) };
        let bytes = framed(&header, b"body");
        assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
        let frame = parse(&bytes[4..]).unwrap();
        assert_eq!(frame.header, header);
        assert_eq!(frame.body, b"body");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        assert_eq!(parse(&[]).unwrap_err(), WireError::Short);
        assert_eq!(parse(&[0, 0, 0]).unwrap_err(), WireError::Short);
        assert_eq!(parse(&[0, 0, 0, 1]).unwrap_err(), WireError::HeaderLength);
        assert_eq!(parse(&[255; 8]).unwrap_err(), WireError::HeaderLength, "4 + 2^32 - 1 overflows nothing");
        assert_eq!(parse(&[0, 0, 0, 1, 255]).unwrap_err(), WireError::Header);
        let long =
            [&u32::try_from(HEADER_BYTES_MAX + 1).unwrap().to_be_bytes()[..], &vec![0; HEADER_BYTES_MAX + 1]]
                .concat();
        assert_eq!(parse(&long).unwrap_err(), WireError::HeaderLength);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_frame_with_a_flipped_byte_is_a_frame_or_an_error(at in 0..40_usize, flip: u8) {
            let header = Header { method: "a.B/C".into(), timeout_us: Some(99), ..Header::of(Kind::Request, 5) };
            let mut bytes = framed(&header, b"some body or other");
            let at = 4 + at % (bytes.len() - 4);
            bytes[at] ^= flip;
            let _ = parse(&bytes[4..]);
        }
    }
}
