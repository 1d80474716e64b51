//! What the fuzz targets do with their bytes, and what must hold whatever the bytes are. The tests run the same bodies on the corpus and on random bytes.

use reactor::codec::{Codec, Decoded, DelimiterCodec, FrameError, LengthCodec, LinesCodec, RawCodec};
use reactor::proxy_protocol::{self, Parsed};

/// The frames of a stream, and the error that ended them.
type Outcome = (Vec<Vec<u8>>, Option<FrameError>);

/// Takes the first two bytes as the choice of a codec and of how the rest arrives; the frames must not depend on the latter, and each, encoded again, must be
/// found again.
pub fn codecs(data: &[u8]) {
    let [choice, pieces, stream @ ..] = data else { return };
    let max = usize::from(choice / 8) * 8;
    match choice % 8 {
        0 => codec(&LengthCodec::u8(max), *pieces, stream),
        1 => codec(&LengthCodec::u16(max), *pieces, stream),
        2 => codec(&LengthCodec::u32(max), *pieces, stream),
        3 => codec(&LengthCodec::varint(max), *pieces, stream),
        4 => codec(&LinesCodec::new(max), *pieces, stream),
        5 => codec(&DelimiterCodec::new(b"\r\n", max).expect("a delimiter"), *pieces, stream),
        6 => codec(&DelimiterCodec::new(b"aab", max).expect("a delimiter"), *pieces, stream),
        // Raw frames are what arrives, so only what holds for each call is looked at.
        _ => drop(run(&mut RawCodec, stream, |_| usize::from(*pieces) + 1)),
    }
}

fn codec<C: Codec + Clone>(codec: &C, pieces: u8, stream: &[u8]) {
    let whole = run(&mut codec.clone(), stream, |_| usize::MAX);
    let mut state = u32::from(pieces);
    let in_pieces = run(&mut codec.clone(), stream, |wanted| {
        // A small generator: sometimes just what is wanted, sometimes a byte, sometimes a few.
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        match state >> 30 {
            0 => wanted,
            1 => 1,
            _ => (state >> 20) as usize % 64 + 1,
        }
    });
    assert_eq!(whole, in_pieces, "the frames depend on how the bytes arrive");
    for frame in whole.0 {
        let mut encoded = Vec::new();
        // A line may hold what its own framing takes for an end of it (a lone carriage return at its end): then it cannot be encoded, or is another.
        if codec.encode(&frame, &mut encoded).is_ok() {
            let (again, error) = run(&mut codec.clone(), &encoded, |_| usize::MAX);
            assert!(error.is_none() && again.len() == 1, "an encoded frame is one frame");
            assert!(again[0] == frame || frame.ends_with(b"\r"), "an encoded frame is the same frame");
        }
    }
}

/// Decodes a stream of which at first nothing has arrived. `more` says how many bytes come next, given how many the codec wants.
fn run<C: Codec>(codec: &mut C, stream: &[u8], mut more: impl FnMut(usize) -> usize) -> Outcome {
    let (mut frames, mut begin, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let input = &stream[begin..arrived];
        match codec.decode(input) {
            Ok(Decoded::Frame { start, end, consumed }) => {
                assert!(start <= end && end <= consumed && consumed <= input.len() && consumed > 0);
                frames.push(input[start..end].to_vec());
                begin += consumed;
            }
            Ok(Decoded::Incomplete { wanted }) => {
                assert!(wanted > input.len(), "it wants no more than it has");
                if arrived == stream.len() {
                    return (frames, None);
                }
                let next = more(wanted - input.len()).max(1);
                arrived = arrived.saturating_add(next).min(stream.len());
            }
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// Takes the bytes as the start of a connection. A header is found in the same place however much of it and what is behind it has arrived, and its addresses,
/// encoded again in either version, are found again.
pub fn proxy(data: &[u8]) {
    let outcome = proxy_protocol::parse(data);
    if let Ok(Parsed::Header(header)) = &outcome {
        assert!(header.consumed <= data.len() && header.consumed > 0);
        for end in 0..header.consumed {
            let early = proxy_protocol::parse(&data[..end]);
            assert!(
                matches!(early, Ok(Parsed::Incomplete { wanted }) if wanted > end && wanted <= header.consumed),
                "{early:?} for the first {end} bytes"
            );
        }
        assert_eq!(
            proxy_protocol::parse(&data[..header.consumed]),
            outcome,
            "what is behind it does not matter"
        );
        if let (Some(source), Some(destination)) = (header.source, header.destination) {
            for encode in [proxy_protocol::encode_v1, proxy_protocol::encode_v2] {
                let mut encoded = Vec::new();
                encode(source, destination, &mut encoded);
                let Ok(Parsed::Header(again)) = proxy_protocol::parse(&encoded) else {
                    panic!("our own header is not understood: {encoded:?}");
                };
                assert_eq!(again.consumed, encoded.len());
                if source.is_ipv4() == destination.is_ipv4() {
                    assert_eq!((again.source, again.destination), (header.source, header.destination));
                }
            }
        }
    }
    if let Ok(Parsed::Incomplete { wanted }) = outcome {
        assert!(wanted > data.len() && wanted <= proxy_protocol::V2_BYTES_MAX, "it waits for {wanted} bytes");
    }
}
