//! One record, one line: formats a record's text and escapes what could forge another line.

use std::fmt::{self, Write};

use log::{Level, Record};

use crate::caller;
use crate::config::RECORD_BYTES;
use crate::stamp::{STAMP_BYTES, Stamps, now_micros};

/// The target of what the log says of itself.
pub(crate) const OWN_TARGET: &str = "asynclog";

/// What the log thread puts before the text: the time, ` I `.
pub(crate) const PREFIX_BYTES: usize = STAMP_BYTES + 3;

/// Appends `thread target file:line | message\n` and says where ` | ` begins, counted from its own start; what would make `out` longer than `bytes_max`
/// is cut from the end, which then says so.
pub(crate) fn push_body(out: &mut Vec<u8>, record: &Record<'_>, bytes_max: usize) -> usize {
    let start = out.len();
    let mut text = Escaper { out, bytes_max, cut: 0, spaces: false };
    caller::with_label(|label| text.field(label));
    text.raw(" ");
    text.field(if record.target().is_empty() { "-" } else { record.target() });
    text.raw(" ");
    text.place(record);
    let head_bytes = text.out.len() - start;
    text.raw(" | ");
    text.message(*record.args());
    head_bytes
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

fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
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
    let room = out.len() + RECORD_BYTES;
    let args = format_args!("{text}");
    push_body(out, &Record::builder().target(OWN_TARGET).args(args).build(), room);
}

/// Writes text with all that is not harmless escaped, up to a length.
struct Escaper<'a> {
    out: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Bytes that had no room.
    cut: usize,
    /// Spaces stay; in a field they would shift the ones behind it.
    spaces: bool,
}

impl Escaper<'_> {
    fn field(&mut self, text: &str) {
        self.spaces = false;
        self.escaped(text);
    }

    fn place(&mut self, record: &Record<'_>) {
        let Some(path) = record.file() else { return self.raw("-") };
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
        self.field(name);
        if let Some(line) = record.line() {
            let _ = write!(self, ":{line}");
        }
    }

    fn message(&mut self, args: fmt::Arguments<'_>) {
        self.spaces = true;
        let failed = self.write_fmt(args).is_err();
        if self.cut > 0 {
            // Past the limit, so that a reader always learns it.
            let note = format!("...[{} bytes cut]", self.cut);
            self.out.extend_from_slice(note.as_bytes());
        }
        if failed {
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
        let mut rest = text;
        while !rest.is_empty() {
            let from = if self.spaces { b' ' } else { b'!' };
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

impl Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.escaped(text);
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
