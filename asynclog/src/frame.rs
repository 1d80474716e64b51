//! A frame: how a record lies in its thread's buffer, copied as it is; the log thread makes a line of it.

use log::Level;

/// Frame's length, level and flags, time (8 bytes), number (8), lengths of target, file and fields, line, bytes cut: 4 bytes each but for the two.
/// Behind it target, file, fields and message.
pub(crate) const HEAD: usize = 44;

const FAILED: u32 = 1 << 8;

/// A record that was taken out of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) level: Level,
    pub(crate) micros: i64,
    /// Its thread's number for it.
    pub(crate) number: u64,
    pub(crate) target: &'a str,
    pub(crate) file: Option<&'a str>,
    pub(crate) line: Option<u32>,
    /// Key and value pairs, separated by spaces, escaped.
    pub(crate) fields: &'a str,
    pub(crate) message: &'a str,
    /// Bytes of the message that had no room.
    pub(crate) cut: usize,
    /// Formatting the message failed half-way.
    pub(crate) failed: bool,
    /// All its bytes.
    pub(crate) bytes: usize,
}

/// What stands before a frame's text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) level: Level,
    pub(crate) micros: i64,
    pub(crate) target_bytes: usize,
    pub(crate) file_bytes: Option<usize>,
    pub(crate) line: Option<u32>,
    pub(crate) fields_bytes: usize,
    pub(crate) cut: usize,
    pub(crate) failed: bool,
}

impl Header {
    /// Fills in the head of a frame whose text is complete, but for the number.
    pub(crate) fn write(&self, frame: &mut [u8]) {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let total = small(frame.len());
        let Some(head) = frame.first_chunk_mut::<HEAD>() else { return };
        let flags = self.level as u32 | if self.failed { FAILED } else { 0 };
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = head.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &total.to_le_bytes());
        put(4, &flags.to_le_bytes());
        put(8, &self.micros.to_le_bytes());
        put(24, &small(self.target_bytes).to_le_bytes());
        put(28, &self.file_bytes.map_or(u32::MAX, small).to_le_bytes());
        put(32, &small(self.fields_bytes).to_le_bytes());
        // No file has so many lines.
        put(36, &self.line.unwrap_or(u32::MAX).to_le_bytes());
        put(40, &small(self.cut).to_le_bytes());
    }
}

pub(crate) fn set_number(frame: &mut [u8], number: u64) {
    if let Some(place) = frame.get_mut(16..24) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// What orders a frame among others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peek {
    pub(crate) micros: i64,
    pub(crate) number: u64,
    /// All its bytes.
    pub(crate) bytes: usize,
}

impl Peek {
    /// Of the first frame, if it is whole.
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD>()?;
        let this = Self {
            micros: i64::from_le_bytes(*head.get(8..)?.first_chunk()?),
            number: u64::from_le_bytes(*head.get(16..)?.first_chunk()?),
            bytes: word(head, 0) as usize,
        };
        (HEAD..=bytes.len()).contains(&this.bytes).then_some(this)
    }
}

impl<'a> Frame<'a> {
    /// The first frame, and what is behind it.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let head = bytes.first_chunk::<HEAD>()?;
        let peek = Peek::of(bytes)?;
        let (frame, behind) = bytes.split_at_checked(peek.bytes)?;
        let text = std::str::from_utf8(frame.get(HEAD..)?).ok()?;
        let (target, text) = text.split_at_checked(word(head, 24) as usize)?;
        let file_bytes = Some(word(head, 28)).filter(|bytes| *bytes != u32::MAX);
        let (file, text) = text.split_at_checked(file_bytes.unwrap_or(0) as usize)?;
        let (fields, message) = text.split_at_checked(word(head, 32) as usize)?;
        let flags = word(head, 4);
        let this = Self {
            level: level(flags),
            micros: peek.micros,
            number: peek.number,
            target,
            file: file_bytes.map(|_| file),
            line: Some(word(head, 36)).filter(|line| *line != u32::MAX),
            fields,
            message,
            cut: word(head, 40) as usize,
            failed: flags & FAILED != 0,
            bytes: frame.len(),
        };
        Some((this, behind))
    }
}

fn level(flags: u32) -> Level {
    match flags & 0xff {
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        5 => Level::Trace,
        _ => Level::Error,
    }
}

#[inline]
fn word(head: &[u8; HEAD], at: usize) -> u32 {
    head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            level: Level::Debug,
            micros: -5,
            target_bytes: 1,
            file_bytes: Some(4),
            line: Some(7),
            fields_bytes: 3,
            cut: 9,
            failed: true,
        }
    }

    #[test]
    fn a_frame_gives_back_what_was_put_in() {
        let mut bytes = vec![0; HEAD];
        bytes.extend_from_slice("ta.rsk=vhellö".as_bytes());
        header().write(&mut bytes);
        set_number(&mut bytes, 77);
        bytes.extend_from_slice(b"rest");
        let (frame, rest) = Frame::split(&bytes).unwrap();
        assert_eq!((frame.level, frame.micros, frame.number), (Level::Debug, -5, 77));
        assert_eq!((frame.target, frame.file, frame.line), ("t", Some("a.rs"), Some(7)));
        assert_eq!((frame.fields, frame.message, frame.cut, frame.failed), ("k=v", "hellö", 9, true));
        assert_eq!((rest, frame.bytes), (b"rest".as_slice(), bytes.len() - 4));
    }

    #[test]
    fn levels_are_kept() {
        for level in Level::iter() {
            let mut bytes = vec![0; HEAD];
            let header =
                Header { level, target_bytes: 0, file_bytes: None, fields_bytes: 0, line: None, ..header() };
            header.write(&mut bytes);
            let frame = Frame::split(&bytes).unwrap().0;
            assert_eq!((frame.level, frame.file, frame.line), (level, None, None));
        }
    }

    #[test]
    fn what_is_no_frame_is_none() {
        assert!(Frame::split(b"").is_none());
        assert!(Frame::split(&[200; HEAD]).is_none());
    }
}
