//! One record, one line: the text that people read.

use log::Level;

use crate::escape::{Escaper, Place};
use crate::frame::Frame;
use crate::printer::From;
#[cfg(test)]
use crate::stamp::STAMP_BYTES;
use crate::stamp::Stamps;

/// The target of what the log says of itself.
pub(crate) const OWN_TARGET: &str = "asynclog";

/// What stands before the text: the time, ` I `.
#[cfg(test)]
const PREFIX_BYTES: usize = STAMP_BYTES + 3;

/// How a terminal shows a level, and how it shows what comes after it.
const COLOURS_END: &[u8] = b"\x1b[0m";

/// Appends a record's whole line. What would make it longer than `from.record_bytes_max`, the prefix and the number apart, is cut from the end, which then
/// says so.
pub(crate) fn push(out: &mut Vec<u8>, stamps: &mut Stamps, frame: &Frame<'_>, from: From<'_>, colours: bool) {
    push_prefix(out, stamps, frame.micros, frame.level, colours);
    push_text(out, frame, from);
}

fn push_prefix(out: &mut Vec<u8>, stamps: &mut Stamps, micros: i64, level: Level, colours: bool) {
    let (letter, colour): (&[u8], &[u8]) = match level {
        Level::Error => (b" E ", b" \x1b[1;31mE"),
        Level::Warn => (b" W ", b" \x1b[33mW"),
        Level::Info => (b" I ", b" \x1b[32mI"),
        Level::Debug => (b" D ", b" \x1b[34mD"),
        Level::Trace => (b" T ", b" \x1b[2mT"),
    };
    stamps.push(micros, out);
    if colours {
        out.extend_from_slice(colour);
        out.extend_from_slice(COLOURS_END);
        out.push(b' ');
    } else {
        out.extend_from_slice(letter);
    }
}

/// Appends `thread target file:line | message\n`, with ` #lane.number` before ` | ` for a record that bears one.
fn push_text(out: &mut Vec<u8>, frame: &Frame<'_>, from: From<'_>) {
    let bytes_max = out.len().saturating_add(from.record_bytes_max);
    let mut text = Escaper::new(out, bytes_max, Place::Head);
    text.escaped(from.label);
    text.raw(" ");
    text.escaped(if frame.target.is_empty() { "-" } else { frame.target });
    text.raw(" ");
    push_place(&mut text, frame);
    if !frame.fields.is_empty() {
        text.raw(" ");
        text.raw(frame.fields);
    }
    if let Some(lane) = from.lane {
        let before = text.out.len();
        text.out.extend_from_slice(b" #");
        push_number(text.out, lane, frame.number);
        text.bytes_max += text.out.len() - before;
    }
    text.raw(" | ");
    push_message(&mut text, frame);
}

fn push_place(text: &mut Escaper<'_>, frame: &Frame<'_>) {
    let Some(path) = frame.file else { return text.raw("-") };
    text.escaped(file_name(path));
    if let Some(line) = frame.line {
        let mut digits = Vec::with_capacity(DECIMAL_BYTES);
        push_decimal(&mut digits, u64::from(line));
        text.raw(":");
        text.raw(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

fn push_message(text: &mut Escaper<'_>, frame: &Frame<'_>) {
    text.place = Place::Message;
    text.escaped(frame.message);
    text.cut += frame.cut;
    if text.cut > 0 {
        // Past the limit, so that a reader always learns it.
        let note = format!("...[{} bytes cut]", text.cut);
        text.out.extend_from_slice(note.as_bytes());
    }
    if frame.failed {
        text.out.extend_from_slice(b"[its formatting failed]");
    }
    text.out.push(b'\n');
}

/// The last part of a path, whatever system it was made on.
pub(crate) fn file_name(path: &str) -> &str {
    let name = memchr::memrchr2(b'/', b'\\', path.as_bytes()).and_then(|at| path.get(at + 1..));
    name.unwrap_or(path)
}

/// Appends `lane.number`.
pub(crate) fn push_number(out: &mut Vec<u8>, lane: u32, number: u64) {
    push_decimal(out, u64::from(lane));
    out.push(b'.');
    push_decimal(out, number);
}

/// The digits of the largest number.
const DECIMAL_BYTES: usize = 20;

pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, caller, compose::compose, frame};
    use log::Record;
    use std::fmt;

    /// The line of a record of the current thread, without its prefix.
    fn push_body(out: &mut Vec<u8>, record: &Record<'_>, bytes_max: usize) {
        let mut bytes = vec![0; frame::HEAD];
        compose(&mut bytes, record, frame::HEAD + bytes_max, Format::Text);
        let (frame, _) = Frame::split(&bytes).unwrap();
        caller::with_label(|label| {
            push_text(out, &frame, From { label, lane: None, record_bytes_max: bytes_max });
        });
    }

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
        push_prefix(&mut out, &mut Stamps::default(), 1_790_158_504_123_456, Level::Info, false);
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
