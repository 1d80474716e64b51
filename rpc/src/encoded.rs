//! A message of any type, as its bytes: for who passes on what others have made.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// A message that is encoded already and of whatever type. As a request it goes out as it is, as an answer it is what came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded(pub Bytes);

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn decode(mut buf: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(buf.copy_to_bytes(buf.remaining())))
    }

    fn merge(&mut self, mut buf: impl Buf) -> Result<(), DecodeError> {
        // Two messages of one type, one behind the other, are both in one.
        let more = buf.copy_to_bytes(buf.remaining());
        self.0 = [&self.0[..], &more[..]].concat().into();
        Ok(())
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), DecodeError> {
        // A field inside another message: what is not kept there is not kept here.
        prost::encoding::skip_field(wire_type, tag, buf, DecodeContext::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let payload = crate::echo::Payload { data: b"x".to_vec() };
        let encoded = Encoded::decode(payload.encode_to_vec().as_slice()).unwrap();
        assert_eq!(encoded.encoded_len(), 3);
        assert_eq!(crate::echo::Payload::decode(encoded.encode_to_vec().as_slice()), Ok(payload));
    }
}
