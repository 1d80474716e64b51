//! The caller's part of a record: its text and its fields, put into a frame as they are.

use std::fmt::{self, Write};

use log::Record;
use log::kv::{self, Key, Value, VisitSource};

use crate::Format;
use crate::config::FIELD_BYTES;
use crate::context;
use crate::escape::{Escaper, Place};
use crate::frame::Header;
use crate::stamp::now_micros;

/// Appends a record to a frame that holds only its head; what would make the frame longer than `bytes_max` is cut from the end of the message.
/// The fields are ready for their place in a line of this format, all else is as it is. Then fills in the head.
pub(crate) fn compose(frame: &mut Vec<u8>, record: &Record<'_>, bytes_max: usize, format: Format) {
    let target = start_of(record.target(), bytes_max.saturating_sub(frame.len()));
    frame.extend_from_slice(target.as_bytes());
    let file = record.file().map(|file| start_of(file, bytes_max.saturating_sub(frame.len())));
    frame.extend_from_slice(file.unwrap_or_default().as_bytes());
    let fields_from = frame.len();
    push_fields(frame, record, format);
    if frame.len() > bytes_max {
        frame.truncate(fields_from);
    }
    let fields_bytes = frame.len() - fields_from;
    let mut message = Raw::new(frame, bytes_max);
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

/// The thread's fields and the record's own.
fn push_fields(out: &mut Vec<u8>, record: &Record<'_>, format: Format) {
    /// Writes each pair; where the text begins.
    struct Fields<'a>(&'a mut Vec<u8>, usize, Format);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            if self.0.len() > self.1 {
                self.0.push(separator(self.2));
            }
            match self.2 {
                Format::Text => push_text_field(self.0, key.as_str(), &value),
                Format::Json => push_json_value(self.0, key.as_str(), &value),
            }
            Ok(())
        }
    }
    let from = out.len();
    context::append_to(out, format);
    // A source that fails has given what it could.
    let _ = record.key_values().visit(&mut Fields(out, from, format));
}

/// What stands between two fields.
pub(crate) fn separator(format: Format) -> u8 {
    match format {
        Format::Text => b' ',
        Format::Json => b',',
    }
}

/// Appends `key=value`, with all escaped that could end the field or the line.
pub(crate) fn push_text_field(out: &mut Vec<u8>, key: &str, value: &dyn fmt::Display) {
    let bytes_max = out.len().saturating_add(FIELD_BYTES);
    let mut text = Escaper::new(out, bytes_max, Place::Field);
    text.escaped(key);
    text.raw("=");
    let _ = write!(Escaped(&mut text), "{value}");
    if text.cut > 0 {
        text.out.extend_from_slice(b"...");
    }
}

/// Appends `"key":"value"`.
pub(crate) fn push_json_field(out: &mut Vec<u8>, key: &str, value: &dyn fmt::Display) {
    push_json_key(out, key);
    out.push(b'"');
    let bytes_max = out.len().saturating_add(FIELD_BYTES);
    let mut text = Escaper::new(out, bytes_max, Place::Json);
    let _ = write!(Escaped(&mut text), "{value}");
    if text.cut > 0 {
        text.out.extend_from_slice(b"...");
    }
    out.push(b'"');
}

/// The same, but numbers and truth values stay what they are.
fn push_json_value(out: &mut Vec<u8>, key: &str, value: &Value<'_>) {
    let is_bare = value.to_borrowed_str().is_none()
        && (value.to_bool().is_some()
            || value.to_i64().is_some()
            || value.to_u64().is_some()
            || value.to_f64().is_some_and(f64::is_finite));
    if is_bare {
        push_json_key(out, key);
        // Integers, `true`, and what Rust writes for a finite number, are JSON as they are.
        let _ = write!(Raw::new(out, usize::MAX), "{value}");
    } else {
        push_json_field(out, key, value);
    }
}

fn push_json_key(out: &mut Vec<u8>, key: &str) {
    out.push(b'"');
    let bytes_max = out.len().saturating_add(FIELD_BYTES);
    Escaper::new(out, bytes_max, Place::Json).escaped(key);
    out.extend_from_slice(b"\":");
}

pub(crate) fn start_of(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

/// Escapes what is formatted.
struct Escaped<'a, 'b>(&'a mut Escaper<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.escaped(text);
        Ok(())
    }
}

/// Takes a message as it is, up to a length.
struct Raw<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes that still fit; none once something was cut.
    room: usize,
    /// Bytes that had no room.
    cut: usize,
}

impl<'a> Raw<'a> {
    fn new(out: &'a mut Vec<u8>, bytes_max: usize) -> Self {
        let room = bytes_max.saturating_sub(out.len());
        Self { out, room, cut: 0 }
    }

    #[cold]
    fn cut(&mut self, text: &str) {
        let fits = start_of(text, self.room);
        self.out.extend_from_slice(fits.as_bytes());
        self.room = 0;
        self.cut += text.len() - fits.len();
    }
}

impl Write for Raw<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.room.checked_sub(text.len()) {
            Some(room) => {
                self.room = room;
                self.out.extend_from_slice(text.as_bytes());
            }
            None => self.cut(text),
        }
        Ok(())
    }
}
