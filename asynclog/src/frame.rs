//! A frame: how a record lies in its thread's buffer.

use log::Level;

/// Length of the frame, length of the line's head, level: 4 bytes each; then time and number, 8 bytes each.
pub(crate) const HEAD: usize = 28;

/// A record that was taken out of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) level: Level,
    pub(crate) micros: i64,
    /// Its thread's number for it.
    pub(crate) number: u64,
    /// `thread target file:line`
    pub(crate) head: &'a [u8],
    /// ` | message` and the newline.
    pub(crate) tail: &'a [u8],
    /// The bytes of head and tail.
    pub(crate) text_bytes: usize,
}

/// An empty frame, to which the line's text is appended.
#[cfg(test)]
pub(crate) fn begin() -> Vec<u8> {
    vec![0; HEAD]
}

/// Fills in what is known when the text is complete, of which `head_bytes` are the line's head.
pub(crate) fn finish(frame: &mut [u8], level: Level, head_bytes: usize, micros: i64) {
    let total = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    put(frame, 0, &total.to_le_bytes());
    put(frame, 4, &u32::try_from(head_bytes).unwrap_or(0).to_le_bytes());
    put(frame, 8, &(level as u32).to_le_bytes());
    put(frame, 12, &micros.to_le_bytes());
}

pub(crate) fn set_number(frame: &mut [u8], number: u64) {
    put(frame, 20, &number.to_le_bytes());
}

#[inline]
fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl<'a> Frame<'a> {
    /// The first frame, and what is behind it.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let total = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let (frame, behind) = bytes.split_at_checked(total)?;
        let head_bytes = u32::from_le_bytes(*frame.get(4..)?.first_chunk()?) as usize;
        let level = u32::from_le_bytes(*frame.get(8..)?.first_chunk()?);
        let micros = i64::from_le_bytes(*frame.get(12..)?.first_chunk()?);
        let number = u64::from_le_bytes(*frame.get(20..)?.first_chunk()?);
        let text = frame.get(HEAD..)?;
        let (head, tail) = text.split_at_checked(head_bytes)?;
        let level = Level::iter().find(|known| *known as u32 == level).unwrap_or(Level::Error);
        Some((Self { level, micros, number, head, tail, text_bytes: text.len() }, behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_back_what_was_put_in() {
        let mut bytes = begin();
        bytes.extend_from_slice(b"main t a.rs:1 | hello\n");
        finish(&mut bytes, Level::Debug, 13, -5);
        set_number(&mut bytes, 77);
        bytes.extend_from_slice(b"rest");
        let (frame, rest) = Frame::split(&bytes).unwrap();
        assert_eq!((frame.level, frame.micros, frame.number), (Level::Debug, -5, 77));
        assert_eq!((frame.head, frame.tail), (b"main t a.rs:1".as_slice(), b" | hello\n".as_slice()));
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn what_is_no_frame_is_none() {
        assert!(Frame::split(b"").is_none());
        assert!(Frame::split(&[0; HEAD]).is_none());
        assert!(Frame::split(&[200, 0, 0, 0, 0]).is_none());
    }
}
