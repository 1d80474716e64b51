//! One record, one line, one object: JSON lines, for programs that read logs; and what `verify` reads of them.

use crate::escape::{Escaper, Place};
use crate::frame::Frame;
use crate::line::{file_name, push_decimal, push_number};
use crate::printer::From;
use crate::stamp::Stamps;

/// Before the message, which no string that stands before it can contain: its quotes would be escaped.
const MESSAGE: &str = ",\"message\":\"";

/// Appends a record's line. What would make it longer than `from.record_bytes_max`, time, level, number and the names of the parts apart, is cut
/// from the end of the message, and fields that have no room behind it are left out.
pub(crate) fn push(out: &mut Vec<u8>, stamps: &mut Stamps, frame: &Frame<'_>, from: From<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamps.push(frame.micros, out);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(frame.level.as_str().as_bytes());
    out.extend_from_slice(b"\",\"thread\":\"");
    let mut room = from.record_bytes_max;
    push_string(out, from.label, &mut room);
    out.extend_from_slice(b"\",\"target\":\"");
    push_string(out, frame.target, &mut room);
    out.push(b'"');
    if let Some(path) = frame.file {
        out.extend_from_slice(b",\"file\":\"");
        push_string(out, file_name(path), &mut room);
        out.push(b'"');
    }
    if let Some(line) = frame.line {
        out.extend_from_slice(b",\"line\":");
        push_decimal(out, u64::from(line));
    }
    if let Some(lane) = from.lane {
        out.extend_from_slice(b",\"number\":\"");
        push_number(out, lane, frame.number);
        out.push(b'"');
    }
    let fields = Some(frame.fields).filter(|fields| !fields.is_empty() && fields.len() <= room);
    room -= fields.map_or(0, str::len);
    out.extend_from_slice(MESSAGE.as_bytes());
    let cut = push_string(out, frame.message, &mut room) + frame.cut;
    out.push(b'"');
    if cut > 0 {
        out.extend_from_slice(b",\"bytes_cut\":");
        push_decimal(out, cut as u64);
    }
    if frame.failed {
        out.extend_from_slice(b",\"formatting_failed\":true");
    }
    if let Some(fields) = fields {
        out.extend_from_slice(b",\"fields\":{");
        out.extend_from_slice(fields.as_bytes());
        out.push(b'}');
    }
    out.extend_from_slice(b"}\n");
}

/// Appends what has room, and says how much had none.
fn push_string(out: &mut Vec<u8>, text: &str, room: &mut usize) -> usize {
    let before = out.len();
    let mut string = Escaper::new(out, before.saturating_add(*room), Place::Json);
    string.escaped(text);
    let cut = string.cut;
    *room = room.saturating_sub(out.len() - before);
    cut
}

/// The parts of a line of ours that `verify` needs, as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonLine<'a> {
    pub(crate) target: &'a str,
    pub(crate) number: Option<&'a str>,
    pub(crate) message: &'a str,
}

/// Reads a line that [`push`] has written, without its end. No other JSON is understood.
pub(crate) fn read(line: &str) -> Option<JsonLine<'_>> {
    if !line.starts_with("{\"time\":\"") || !line.ends_with('}') {
        return None;
    }
    let (head, rest) = line.split_once(MESSAGE)?;
    let (_, behind) = head.split_once(",\"target\":\"")?;
    let number = behind.rsplit_once(",\"number\":\"").map(|(_, number)| number.strip_suffix('"'));
    Some(JsonLine {
        target: up_to_quote(behind)?,
        number: match number {
            None => None,
            Some(number) => Some(number?),
        },
        message: up_to_quote(rest)?,
    })
}

/// The inside of a string that begins here.
fn up_to_quote(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return text.get(..at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, compose::compose, frame};
    use log::{Level, Record};
    use serde_json::{Value, json};

    fn line(record: &Record<'_>, label: &str, bytes_max: usize) -> String {
        let mut bytes = vec![0; frame::HEAD];
        compose(&mut bytes, record, 8192, Format::Json);
        let (frame, _) = Frame::split(&bytes).unwrap();
        let mut out = Vec::new();
        push(
            &mut out,
            &mut Stamps::default(),
            &frame,
            From { label, lane: Some(3), record_bytes_max: bytes_max },
        );
        String::from_utf8(out).unwrap()
    }

    fn parsed(line: &str) -> Value {
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_line_is_an_object_whose_strings_come_back_as_they_were() {
        let hostile = "\"},\n{\"message\":\"\\\u{85}\u{2028}\0 | ü";
        let mut record = Record::builder();
        record.level(Level::Warn).target("a\"b").file(Some("src/x.rs")).line(Some(7));
        let args = format_args!("{hostile}");
        let key_values = [("message", hostile), ("number", "9.9")];
        let line = line(&record.key_values(&key_values).args(args).build(), hostile, 8192);
        let mut object = parsed(&line);
        object.as_object_mut().unwrap().remove("time").unwrap();
        assert_eq!(
            object,
            json!({
                "level": "WARN", "thread": hostile, "target": "a\"b", "file": "x.rs", "line": 7, "number": "3.0",
                "message": hostile, "fields": { "message": hostile, "number": "9.9" },
            })
        );
        let read = read(line.trim_end()).unwrap();
        assert_eq!((read.target, read.number), ("a\\\"b", Some("3.0")));
        assert!(line.contains(&format!(",\"message\":\"{}\",\"fields\"", read.message)));
    }

    #[test]
    fn numbers_and_truth_values_stay_what_they_are() {
        let values = [
            ("i", log::kv::Value::from(-5)),
            ("f", log::kv::Value::from(1.5)),
            ("big", log::kv::Value::from(1e300)),
            ("nan", log::kv::Value::from(f64::NAN)),
            ("yes", log::kv::Value::from(true)),
            ("digits", log::kv::Value::from("12")),
            ("c", log::kv::Value::from('c')),
        ];
        let line = line(&Record::builder().key_values(&values).args(format_args!("m")).build(), "t", 8192);
        assert_eq!(
            parsed(&line)["fields"],
            json!({ "i": -5, "f": 1.5, "big": 1e300, "nan": "NaN", "yes": true, "digits": "12", "c": "c" })
        );
    }

    #[test]
    fn what_is_too_long_leaves_an_object() {
        let message = "\"é".repeat(300);
        let fields = [("k", "v".repeat(100))];
        for bytes_max in 200..260 {
            let args = format_args!("{message}");
            let line = line(&Record::builder().key_values(&fields).args(args).build(), "t", bytes_max);
            let object = parsed(&line);
            let kept = object["message"].as_str().unwrap();
            assert!(message.starts_with(kept));
            assert_eq!(object["bytes_cut"], message.len() - kept.len());
            assert_eq!(object["fields"]["k"], "v".repeat(100));
        }
        let none = line(&Record::builder().key_values(&fields).args(format_args!("m")).build(), "t", 50);
        assert_eq!((&parsed(&none)["message"], parsed(&none).get("fields")), (&json!("m"), None));
    }

    #[test]
    fn other_json_is_not_ours() {
        for text in ["", "{}", "{\"time\":\"x\"}", "[1]", "{\"time\":\"x\",\"message\":\"m\"}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
