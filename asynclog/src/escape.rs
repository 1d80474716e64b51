//! Escaping: what could forge a line, shift a field or end a string becomes harmless text.

/// Where text stands, which decides what must be escaped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind ` | `: spaces stay.
    Message,
    /// A thread's name, a target, a file: spaces would shift what is behind them, and become `_`.
    Head,
    /// A key or a value: spaces become `\x20`.
    Field,
    /// A string of JSON.
    Json,
}

/// Writes escaped text, up to a length.
#[derive(Debug)]
pub(crate) struct Escaper<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) bytes_max: usize,
    /// Bytes that had no room.
    pub(crate) cut: usize,
    pub(crate) place: Place,
}

impl<'a> Escaper<'a> {
    /// What it appends makes `out` no longer than `bytes_max`.
    pub(crate) fn new(out: &'a mut Vec<u8>, bytes_max: usize, place: Place) -> Self {
        Self { out, bytes_max, cut: 0, place }
    }

    /// Appends whole, or cuts.
    pub(crate) fn raw(&mut self, text: &str) {
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

    pub(crate) fn escaped(&mut self, text: &str) {
        let from = if matches!(self.place, Place::Message | Place::Json) { b' ' } else { b'!' };
        // Neither byte is anything special outside JSON; there these two stand for none.
        let (quote, slash) = if self.place == Place::Json { (b'"', b'\\') } else { (0, 0) };
        let is_plain = |byte: u8| (byte.wrapping_sub(from) < 0x7f - from) & (byte != quote) & (byte != slash);
        // Most text is plain, and this loop has no branch to predict.
        if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            return self.plain(text);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let run = rest.bytes().take_while(|byte| is_plain(*byte)).count();
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
        let json = self.place == Place::Json;
        let mut utf8 = [0; 4];
        match c {
            '\n' => self.piece("\\n", 1),
            '\r' => self.piece("\\r", 1),
            '\t' => self.piece("\\t", 1),
            '"' if json => self.piece("\\\"", 1),
            '\\' if json => self.piece("\\\\", 1),
            ' ' if self.place == Place::Field => self.piece("\\x20", 1),
            ' ' => self.piece("_", 1),
            _ if c.is_control() || reorders(c) => {
                let code = u32::from(c);
                let text = match json {
                    true => format!("\\u{code:04x}"),
                    false if code < 0x80 => format!("\\x{code:02x}"),
                    false => format!("\\u{{{code:x}}}"),
                };
                self.piece(&text, c.len_utf8());
            }
            _ => self.piece(c.encode_utf8(&mut utf8), c.len_utf8()),
        }
    }
}

/// Characters that break a line or change the order of text where it is shown, so that a line looks like another. All below U+10000.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(place: Place, text: &str, bytes_max: usize) -> (String, usize) {
        let mut out = Vec::new();
        let mut escaper = Escaper::new(&mut out, bytes_max, place);
        escaper.escaped(text);
        let cut = escaper.cut;
        (String::from_utf8(out).unwrap(), cut)
    }

    #[test]
    fn each_place_escapes_what_would_end_it() {
        let text = "a \"b\\\n\u{85}\u{2028}\0";
        assert_eq!(escaped(Place::Message, text, 99).0, "a \"b\\\\n\\u{85}\\u{2028}\\x00");
        assert_eq!(escaped(Place::Head, text, 99).0, "a_\"b\\\\n\\u{85}\\u{2028}\\x00");
        assert_eq!(escaped(Place::Field, text, 99).0, "a\\x20\"b\\\\n\\u{85}\\u{2028}\\x00");
        assert_eq!(escaped(Place::Json, text, 99).0, "a \\\"b\\\\\\n\\u0085\\u2028\\u0000");
    }

    #[test]
    fn no_escape_and_no_character_is_cut_in_two() {
        for place in [Place::Message, Place::Head, Place::Field, Place::Json] {
            let whole = "x\u{2028}\"😀é\n\\";
            for bytes_max in 0..40 {
                let (text, cut) = escaped(place, whole, bytes_max);
                assert!(text.len() <= bytes_max);
                let kept = whole.len() - cut;
                assert_eq!(text, escaped(place, &whole[..kept], 99).0, "{place:?} {bytes_max}");
            }
        }
    }
}
