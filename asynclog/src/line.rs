//! One record, one line: formats a record's text and escapes what could forge another line.

use std::fmt::{self, Write};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Record};

use crate::caller;
use crate::config::{FIELD_BYTES, RECORD_BYTES};
use crate::context;
use crate::frame::{self, Frame, Header};
#[cfg(test)]
use crate::stamp::STAMP_BYTES;
use crate::stamp::{Stamps, now_micros};

/// The target of what the log says of itself.
pub(crate) const OWN_TARGET: &str = "asynclog";

/// What the log thread puts before the text: the time, ` I `.
#[cfg(test)]
const PREFIX_BYTES: usize = STAMP_BYTES + 3;

/// Appends a record to a frame that holds only its head, as it is; what would make the frame longer than `bytes_max` is cut from the end of the message.
/// Then fills in the head.
pub(crate) fn compose(frame: &mut Vec<u8>, record: &Record<'_>, bytes_max: usize) {
    let target = start_of(record.target(), bytes_max.saturating_sub(frame.len()));
    frame.extend_from_slice(target.as_bytes());
    let file = record.file().map(|file| start_of(file, bytes_max.saturating_sub(frame.len())));
    frame.extend_from_slice(file.unwrap_or_default().as_bytes());
    let fields_from = frame.len();
    push_fields(frame, record);
    if frame.len() > bytes_max {
        frame.truncate(fields_from);
    }
    let fields_bytes = frame.len() - fields_from;
    let mut message = Raw { out: frame, bytes_max, cut: 0 };
    let failed = message.write_fmt(*record.args()).is_err();
    let header = Header {
        level: record.level(),
        micros: now_micros(),
        target_bytes: target.len(),
        file_bytes: file.map(str::len),
        line: record.line(),
        fields_bytes,
        cut: message.cut,
        failed,
    };
    header.write(frame);
}

/// The thread's fields and the record's own, separated by spaces.
fn push_fields(out: &mut Vec<u8>, record: &Record<'_>) {
    /// Writes each pair; where the text begins.
    struct Fields<'a>(&'a mut Vec<u8>, usize);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            if self.0.len() > self.1 {
                self.0.push(b' ');
            }
            push_field(self.0, key.as_str(), &value);
            Ok(())
        }
    }
    let from = out.len();
    context::append_to(out);
    // A source that fails has given what it could.
    let _ = record.key_values().visit(&mut Fields(out, from));
}

/// Appends `key=value`, with all escaped that could end the field or the line.
pub(crate) fn push_field(out: &mut Vec<u8>, key: &str, value: &dyn fmt::Display) {
    /// Escapes what is formatted.
    struct Text<'a, 'b>(&'a mut Escaper<'b>);
    impl Write for Text<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.escaped(text);
            Ok(())
        }
    }
    let bytes_max = out.len().saturating_add(FIELD_BYTES);
    let mut text = Escaper { out, bytes_max, cut: 0, spaces: Spaces::Escaped };
    text.escaped(key);
    text.raw("=");
    let _ = write!(Text(&mut text), "{value}");
    if text.cut > 0 {
        text.out.extend_from_slice(b"...");
    }
}

fn start_of(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

/// Appends `thread target file:line | message\n`, with ` #lane.number` before ` | ` for a record that bears one. What would make it longer than `bytes_max`,
/// the number apart, is cut from the end, which then says so.
pub(crate) fn push_text(
    out: &mut Vec<u8>,
    label: &str,
    frame: &Frame<'_>,
    lane: Option<u32>,
    bytes_max: usize,
) {
    let bytes_max = out.len().saturating_add(bytes_max);
    let mut text = Escaper { out, bytes_max, cut: 0, spaces: Spaces::Underscores };
    text.field(label);
    text.raw(" ");
    text.field(if frame.target.is_empty() { "-" } else { frame.target });
    text.raw(" ");
    text.place(frame);
    if !frame.fields.is_empty() {
        text.raw(" ");
        text.raw(frame.fields);
    }
    if let Some(lane) = lane {
        let before = text.out.len();
        push_number(text.out, lane, frame.number);
        text.bytes_max += text.out.len() - before;
    }
    text.raw(" | ");
    text.message(frame);
}

/// The same for a record of the current thread.
fn push_body(out: &mut Vec<u8>, record: &Record<'_>, bytes_max: usize) {
    let mut bytes = vec![0; frame::HEAD];
    compose(&mut bytes, record, frame::HEAD + bytes_max);
    if let Some((frame, _)) = Frame::split(&bytes) {
        caller::with_label(|label| push_text(out, label, &frame, None, bytes_max));
    }
}

/// Appends the time and the level's letter.
pub(crate) fn push_prefix(out: &mut Vec<u8>, stamps: &mut Stamps, micros: i64, level: Level) {
    stamps.push(micros, out);
    out.extend_from_slice(match level {
        Level::Error => b" E ",
        Level::Warn => b" W ",
        Level::Info => b" I ",
        Level::Debug => b" D ",
        Level::Trace => b" T ",
    });
}

/// Appends ` #lane.number`.
pub(crate) fn push_number(out: &mut Vec<u8>, lane: u32, number: u64) {
    out.extend_from_slice(b" #");
    push_decimal(out, u64::from(lane));
    out.push(b'.');
    push_decimal(out, number);
}

/// The digits of the largest number.
const DECIMAL_BYTES: usize = 20;

fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; DECIMAL_BYTES];
    let mut begin = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        begin -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(begin..).unwrap_or_default());
}

/// Appends a whole line of the log about itself.
pub(crate) fn push_notice(out: &mut Vec<u8>, stamps: &mut Stamps, level: Level, text: &str) {
    push_prefix(out, stamps, now_micros(), level);
    let args = format_args!("{text}");
    push_body(out, &Record::builder().target(OWN_TARGET).args(args).build(), RECORD_BYTES);
}

/// Writes text with all that is not harmless escaped, up to a length.
struct Escaper<'a> {
    out: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Bytes that had no room.
    cut: usize,
    spaces: Spaces,
}

/// What becomes of spaces: in a field they would shift the ones behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spaces {
    Stay,
    Underscores,
    Escaped,
}

impl Escaper<'_> {
    fn field(&mut self, text: &str) {
        self.spaces = Spaces::Underscores;
        self.escaped(text);
    }

    fn place(&mut self, frame: &Frame<'_>) {
        let Some(path) = frame.file else { return self.raw("-") };
        let name = memchr::memrchr2(b'/', b'\\', path.as_bytes()).and_then(|at| path.get(at + 1..));
        self.field(name.unwrap_or(path));
        if let Some(line) = frame.line {
            let mut digits = Vec::with_capacity(DECIMAL_BYTES);
            push_decimal(&mut digits, u64::from(line));
            self.raw(":");
            self.raw(std::str::from_utf8(&digits).unwrap_or_default());
        }
    }

    fn message(&mut self, frame: &Frame<'_>) {
        self.spaces = Spaces::Stay;
        self.escaped(frame.message);
        self.cut += frame.cut;
        if self.cut > 0 {
            // Past the limit, so that a reader always learns it.
            let note = format!("...[{} bytes cut]", self.cut);
            self.out.extend_from_slice(note.as_bytes());
        }
        if frame.failed {
            self.out.extend_from_slice(b"[its formatting failed]");
        }
        self.out.push(b'\n');
    }

    /// Appends whole, or cuts.
    fn raw(&mut self, text: &str) {
        self.piece(text, text.len());
    }

    fn piece(&mut self, text: &str, source_bytes: usize) {
        if self.cut > 0 || self.out.len() + text.len() > self.bytes_max {
            self.cut += source_bytes;
        } else {
            self.out.extend_from_slice(text.as_bytes());
        }
    }

    /// Appends text of printable ASCII, as far as there is room.
    fn plain(&mut self, text: &str) {
        let room = if self.cut > 0 { 0 } else { self.bytes_max.saturating_sub(self.out.len()) };
        let (fits, rest) = text.split_at_checked(room).unwrap_or((text, ""));
        self.out.extend_from_slice(fits.as_bytes());
        self.cut += rest.len();
    }

    fn escaped(&mut self, text: &str) {
        let from = if self.spaces == Spaces::Stay { b' ' } else { b'!' };
        // Most text is plain, and this loop has no branch to predict.
        let plain = text.bytes().fold(true, |plain, byte| plain & (byte.wrapping_sub(from) < 0x7f - from));
        if plain {
            return self.plain(text);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let run = rest.bytes().take_while(|byte| (from..0x7f).contains(byte)).count();
            let (plain, behind) = rest.split_at_checked(run).unwrap_or((rest, ""));
            self.plain(plain);
            let mut chars = behind.chars();
            if let Some(special) = chars.next() {
                self.special(special);
            }
            rest = chars.as_str();
        }
    }

    fn special(&mut self, c: char) {
        let mut utf8 = [0; 4];
        match c {
            '\n' => self.piece("\\n", 1),
            '\r' => self.piece("\\r", 1),
            '\t' => self.piece("\\t", 1),
            ' ' if self.spaces == Spaces::Escaped => self.piece("\\x20", 1),
            ' ' => self.piece("_", 1),
            _ if c.is_control() || reorders(c) => {
                let code = u32::from(c);
                let text = if code < 0x80 { format!("\\x{code:02x}") } else { format!("\\u{{{code:x}}}") };
                self.piece(&text, c.len_utf8());
            }
            _ => self.piece(c.encode_utf8(&mut utf8), c.len_utf8()),
        }
    }
}

/// Takes a message as it is, up to a length.
struct Raw<'a> {
    out: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Bytes that had no room.
    cut: usize,
}

impl Write for Raw<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes_max.saturating_sub(self.out.len());
        if text.len() <= room && self.cut == 0 {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let fits = if self.cut > 0 { "" } else { start_of(text, room) };
        self.out.extend_from_slice(fits.as_bytes());
        self.cut += text.len() - fits.len();
        Ok(())
    }
}

/// Characters that break a line or change the order of text where it is shown, so that a line looks like another.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(target: &str, message: &str, bytes_max: usize) -> String {
        let mut out = Vec::new();
        let mut record = Record::builder();
        record.target(target).file(Some("chatd/src/session.rs")).line(Some(142));
        push_body(&mut out, &record.args(format_args!("{message}")).build(), bytes_max);
        String::from_utf8(out).unwrap()
    }

    fn in_thread<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::Builder::new().name(name.into()).spawn(f).unwrap().join().unwrap()
    }

    #[test]
    fn a_line_has_thread_target_place_and_message() {
        let line = in_thread("io-3", || body("chatd::session", "hello, Jörg: a\\b", 8192));
        assert_eq!(line, "io-3 chatd::session session.rs:142 | hello, Jörg: a\\b\n");
    }

    #[test]
    fn the_prefix_is_as_long_as_the_constant_says() {
        let mut out = Vec::new();
        push_prefix(&mut out, &mut Stamps::default(), 1_790_158_504_123_456, Level::Info);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), "2026-09-23T10:15:04.123456Z I ");
        assert_eq!(out.len(), PREFIX_BYTES);
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        let line = body(
            "t",
            "x\n2026-09-23T10:15:04.123456Z E main t a.rs:1 | forged\r\u{85}\u{2028}\u{1b}[2K\0\u{7f}",
            8192,
        );
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("| x\\n2026-09-23T10:15:04.123456Z E main t a.rs:1 | forged\\r\\u{85}\\u{2028}\\x1b[2K\\x00\\x7f\n"), "{line}");
        assert!(line.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn a_message_cannot_reorder_what_a_terminal_shows() {
        assert!(body("t", "\u{202e}txt\u{2066}", 8192).ends_with("| \\u{202e}txt\\u{2066}\n"));
    }

    #[test]
    fn a_thread_name_or_a_target_cannot_shift_the_fields() {
        let line = in_thread("a b\nc", || body("my target\t| x", "m", 8192));
        assert_eq!(line, "a_b\\nc my_target\\t|_x session.rs:142 | m\n");
    }

    #[test]
    fn an_unknown_place_is_a_dash() {
        let mut out = Vec::new();
        push_body(&mut out, &Record::builder().args(format_args!("m")).build(), 8192);
        assert!(String::from_utf8(out).unwrap().ends_with(" - - | m\n"));
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_says_how_much() {
        for extra in 0..8 {
            let message = format!("{}{}\n{}", "x".repeat(extra), "ä".repeat(200), "y".repeat(300));
            let line = body("t", &message, 300);
            let (head, note) = line.split_once("...[").unwrap();
            assert!(head.len() <= 300);
            let kept = head.split_once(" | ").unwrap().1.len();
            assert_eq!(note, format!("{} bytes cut]\n", message.len() - kept));
        }
    }

    #[test]
    fn a_message_of_exactly_the_limit_is_not_cut() {
        let header = body("t", "", 8192).len() - 1;
        let whole = body("t", &"x".repeat(20), header + 20);
        assert!(!whole.contains("cut"), "{whole}");
        assert!(body("t", &"x".repeat(21), header + 20).contains("[1 bytes cut]"));
    }

    #[test]
    fn a_display_that_fails_leaves_a_whole_line() {
        struct Broken;
        impl fmt::Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half")?;
                Err(fmt::Error)
            }
        }
        let mut out = Vec::new();
        push_body(&mut out, &Record::builder().args(format_args!("{Broken}")).build(), 8192);
        assert!(String::from_utf8(out).unwrap().ends_with("| half[its formatting failed]\n"));
    }
}
