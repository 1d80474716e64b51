//! Codecs: how a stream of bytes is cut into frames, and frames made into bytes.
//!
//! A codec belongs to one connection and is a few bytes of state. It neither owns nor copies input: [`Decoded`] says
//! where in the caller's bytes a frame lies, so frames borrow from the input.

mod delimiter;
mod length;
mod lines;
#[cfg(test)]
mod property;

pub use delimiter::DelimiterCodec;
pub use length::LengthCodec;
pub use lines::LinesCodec;

/// Cuts input into frames and makes frames of payloads; one per connection.
pub trait Codec {
    /// Looks for one frame at the start of `input`.
    ///
    /// `input` begins where the frame begins. When the answer is [`Decoded::Incomplete`], the next call gets the same
    /// bytes with more behind them; a codec that searches remembers how far it has looked, and does not look there
    /// again. When the answer is a frame, the next call's `input` begins `consumed` bytes further on.
    ///
    /// # Errors
    /// [`FrameError`] when the peer broke the framing. The stream cannot be read beyond it: the connection is to be
    /// closed. A further call with the same input gives the same error.
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError>;

    /// Appends `payload` as one frame to `out`.
    ///
    /// # Errors
    /// [`FrameError`] when `payload` is no frame of this codec, which is the caller's fault; `out` is then unchanged.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError>;
}

/// What [`Codec::decode`] found at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// A whole frame: its payload is `input[start..end]`, and the next frame begins at `consumed`.
    ///
    /// Always `start <= end <= consumed <= input.len()` and `consumed > 0`.
    Frame {
        /// Where the payload begins.
        start: usize,
        /// Where the payload ends (exclusive).
        end: usize,
        /// How many bytes the frame took, with its framing.
        consumed: usize,
    },
    /// The frame is not all there.
    Incomplete {
        /// The least number of bytes, counted from the frame's start, that may complete it; at least
        /// `input.len() + 1`. It is not above what the codec's maximum allows.
        wanted: usize,
    },
}

/// A frame that cannot be: received, it is the peer's fault; to be sent, the caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The payload is longer than this codec allows.
    #[error("frame longer than the maximum of {max} bytes")]
    TooLong {
        /// The codec's maximum in bytes of payload.
        max: usize,
    },
    /// The framing itself is wrong.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

/// No framing: whatever has arrived is one frame.
///
/// A frame's size is bounded by what the caller offers in one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawCodec;

impl Codec for RawCodec {
    fn decode(&mut self, input: &[u8]) -> Result<Decoded, FrameError> {
        if input.is_empty() {
            return Ok(Decoded::Incomplete { wanted: 1 });
        }
        Ok(Decoded::Frame { start: 0, end: input.len(), consumed: input.len() })
    }

    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.extend_from_slice(payload);
        Ok(())
    }
}
