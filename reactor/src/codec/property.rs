//! What holds for every codec, whatever the bytes and however they arrive.

use proptest::prelude::*;

use super::*;

/// Feeds `stream` in chunks as a connection does; gives the frames and the error that ended them, if any.
fn run<C: Codec>(
    codec: &mut C,
    stream: &[u8],
    chunks: impl IntoIterator<Item = usize>,
) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut frames, mut begin, mut arrived) = (Vec::new(), 0, 0);
    let mut chunks = chunks.into_iter();
    loop {
        let input = &stream[begin..arrived];
        match codec.decode(input) {
            Ok(Decoded::Frame { start, end, consumed }) => {
                assert!(start <= end && end <= consumed && consumed <= input.len() && consumed > 0);
                frames.push(input[start..end].to_vec());
                begin += consumed;
            }
            Ok(Decoded::Incomplete { wanted }) => {
                assert!(wanted > input.len());
                if arrived == stream.len() {
                    return (frames, None);
                }
                let chunk = chunks.next().map_or(stream.len(), |chunk| chunk.max(1));
                arrived = (arrived + chunk).min(stream.len());
            }
            Err(error) => {
                assert_eq!(codec.decode(input), Err(error.clone()), "an error stays");
                return (frames, Some(error));
            }
        }
    }
}

/// Bytes in which what a codec looks for is frequent.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), 0..12u8, any::<u8>()];
    prop_oneof![
        prop::collection::vec(byte, 0..200),
        prop::collection::vec(prop_oneof![9 => Just(b'x'), 1 => Just(b'\n'), 1 => Just(b'\r')], 0..200),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..20usize, 0..60)
}

/// What `LinesCodec` promises, said in the plainest way.
fn lines_model(stream: &[u8], max: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut rest = stream;
    while let Some(feed) = rest.iter().position(|&byte| byte == b'\n') {
        let line = &rest[..feed];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max {
            return (frames, Some(FrameError::TooLong { max }));
        }
        frames.push(line.to_vec());
        rest = &rest[feed + 1..];
    }
    let certain = rest.strip_suffix(b"\r").unwrap_or(rest).len() > max;
    (frames, certain.then_some(FrameError::TooLong { max }))
}

/// What `DelimiterCodec` promises, said in the plainest way.
fn delimited_model(stream: &[u8], delimiter: &[u8], max: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut rest = stream;
    while let Some(end) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        if end > max {
            return (frames, Some(FrameError::TooLong { max }));
        }
        frames.push(rest[..end].to_vec());
        rest = &rest[end + delimiter.len()..];
    }
    let certain = rest.len() >= max + delimiter.len();
    (frames, certain.then_some(FrameError::TooLong { max }))
}

proptest! {
    #[test]
    fn lines_are_the_same_however_they_arrive(stream in stream(), chunks in chunks(), max in 0..24usize) {
        let expected = lines_model(&stream, max);
        prop_assert_eq!(&run(&mut LinesCodec::new(max), &stream, chunks), &expected);
        prop_assert_eq!(&run(&mut LinesCodec::new(max), &stream, []), &expected);
        prop_assert_eq!(&run(&mut LinesCodec::new(max), &stream, std::iter::repeat(1)), &expected);
    }

    #[test]
    fn prefixed_frames_are_the_same_however_they_arrive(
        stream in stream(), chunks in chunks(), max in 0..24usize, width in 0..4usize
    ) {
        let make: fn(usize) -> LengthCodec = [LengthCodec::u8, LengthCodec::u16, LengthCodec::u32, LengthCodec::varint][width];
        let whole = run(&mut make(max), &stream, []);
        prop_assert!(whole.0.iter().all(|frame| frame.len() <= max));
        prop_assert_eq!(&run(&mut make(max), &stream, chunks), &whole);
        prop_assert_eq!(&run(&mut make(max), &stream, std::iter::repeat(1)), &whole);
    }

    #[test]
    fn delimited_frames_are_the_same_however_they_arrive(
        stream in stream(), chunks in chunks(), max in 0..24usize, which in 0..4usize
    ) {
        let delimiter = [&b"\n"[..], b"\r\n", b"xx\n", b"\n\n"][which];
        let make = || DelimiterCodec::new(delimiter, max).unwrap();
        let expected = delimited_model(&stream, delimiter, max);
        prop_assert_eq!(&run(&mut make(), &stream, chunks), &expected);
        prop_assert_eq!(&run(&mut make(), &stream, []), &expected);
        prop_assert_eq!(&run(&mut make(), &stream, std::iter::repeat(1)), &expected);
    }

    #[test]
    fn raw_frames_put_together_are_the_stream(stream in stream(), chunks in chunks()) {
        let (frames, error) = run(&mut RawCodec, &stream, chunks);
        prop_assert_eq!(error, None);
        prop_assert_eq!(frames.concat(), stream);
    }

    #[test]
    fn what_is_encoded_is_decoded(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), chunks in chunks()
    ) {
        let is_line = |payload: &Vec<u8>| !payload.contains(&b'\n') && !payload.ends_with(b"\r");
        let lines: Vec<_> = payloads.iter().filter(|payload| is_line(payload)).cloned().collect();
        round_trip(LinesCodec::new(40), &lines, &chunks);
        round_trip(LengthCodec::u8(40), &payloads, &chunks);
        round_trip(LengthCodec::u16(40), &payloads, &chunks);
        round_trip(LengthCodec::u32(40), &payloads, &chunks);
        round_trip(LengthCodec::varint(40), &payloads, &chunks);
        let free: Vec<_> = payloads.iter().filter(|payload| !payload.contains(&b';')).cloned().collect();
        round_trip(DelimiterCodec::new(b";;", 40).unwrap(), &free, &chunks);
    }
}

fn round_trip<C: Codec>(mut codec: C, payloads: &[Vec<u8>], chunks: &[usize]) {
    let mut stream = Vec::new();
    for payload in payloads {
        codec.encode(payload, &mut stream).unwrap();
    }
    let (frames, error) = run(&mut codec, &stream, chunks.iter().copied());
    assert_eq!(error, None);
    assert_eq!(frames, payloads);
}
